//! ipc-channel (Servo's): channels of bytes, and of shared memory.

use ::ipc_channel::TryRecvError;
use ::ipc_channel::ipc::{
    IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcReceiver, IpcSender, IpcSharedMemory,
    bytes_channel, channel,
};
use serde::{Deserialize, Serialize};

use super::Peer;
use super::ends::{self, From, To, there_and_back};
use crate::control::{First, Second};
use crate::job::{Figure, Job, Kind, Result, Row};

pub struct IpcChannel;

/// Below this, a mapping for each message makes no sense.
const WORTH_MAPPING: usize = 64 << 10;

impl Peer for IpcChannel {
    fn rows(&self) -> &'static [Row] {
        &[
            Row { name: "ipc-channel", kind: Kind::Copied, takes: |workload, _| there_and_back(workload) },
            Row {
                name: "ipc-channel, blocking",
                kind: Kind::Copied,
                takes: |workload, _| there_and_back(workload),
            },
            Row {
                name: "ipc-channel shared memory",
                kind: Kind::Copied,
                takes: |workload, payload| there_and_back(workload) && payload >= WORTH_MAPPING,
            },
        ]
    }

    fn first(&self, job: &Job, second: &mut Second) -> Result<Figure> {
        let (server, name) = IpcOneShotServer::<Given>::new()?;
        second.tell(&name)?;
        let (_, given) = server.accept()?;
        if job.row.ends_with("memory") {
            return ends::first(job, second, MappedIn(given.mapped_ping), MappedOut::new(given.mapped_pong));
        }
        ends::first(job, second, In(given.ping), Out::new(job, given.pong))
    }

    fn second(&self, job: &Job, first: &mut First) -> Result<()> {
        let (ping, from) = bytes_channel()?;
        let (to, pong) = bytes_channel()?;
        let (mapped_ping, mapped_from) = channel()?;
        let (mapped_to, mapped_pong) = channel()?;
        let given = Given { ping, pong, mapped_ping, mapped_pong };
        IpcSender::connect(first.hear()?)?.send(given)?;
        if job.row.ends_with("memory") {
            return ends::second(job, first, MappedIn(mapped_to), MappedOut::new(mapped_from));
        }
        ends::second(job, first, In(to), Out::new(job, from))
    }
}

/// The ends that the second process makes for the first.
#[derive(Serialize, Deserialize)]
struct Given {
    ping: IpcBytesSender,
    pong: IpcBytesReceiver,
    mapped_ping: IpcSender<IpcSharedMemory>,
    mapped_pong: IpcReceiver<IpcSharedMemory>,
}

struct In(IpcBytesSender);

impl To for In {
    fn send(&mut self, message: &[u8]) -> Result<()> {
        Ok(self.0.send(message)?)
    }
}

struct Out {
    from: IpcBytesReceiver,
    spins: bool,
    message: Vec<u8>,
}

impl Out {
    fn new(job: &Job, from: IpcBytesReceiver) -> Self {
        Self { from, spins: !job.row.ends_with("blocking"), message: Vec::new() }
    }
}

impl From for Out {
    fn receive(&mut self) -> Result<&[u8]> {
        self.message = if self.spins { spin(|| self.from.try_recv())? } else { self.from.recv()? };
        Ok(&self.message)
    }
}

struct MappedIn(IpcSender<IpcSharedMemory>);

impl To for MappedIn {
    fn send(&mut self, message: &[u8]) -> Result<()> {
        Ok(self.0.send(IpcSharedMemory::from_bytes(message))?)
    }
}

struct MappedOut {
    from: IpcReceiver<IpcSharedMemory>,
    message: IpcSharedMemory,
}

impl MappedOut {
    fn new(from: IpcReceiver<IpcSharedMemory>) -> Self {
        Self { from, message: IpcSharedMemory::from_bytes(&[]) }
    }
}

impl From for MappedOut {
    fn receive(&mut self) -> Result<&[u8]> {
        self.message = spin(|| self.from.try_recv())?;
        Ok(&self.message)
    }
}

fn spin<T>(mut receive: impl FnMut() -> Result<T, TryRecvError>) -> Result<T> {
    loop {
        match receive() {
            Err(TryRecvError::Empty) => {}
            other => return Ok(other?),
        }
    }
}
