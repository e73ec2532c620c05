//! Unix sockets, as they are: a stream, and packets; waited for by spinning, and by blocking.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, setsockopt, socket, sockopt,
};

use super::Peer;
use super::ends::{self, From, To, there_and_back};
use super::spin::{again, read_all, write_all};
use crate::control::{First, Second};
use crate::job::{Figure, Job, Kind, Result, Row};

pub struct Socket;

/// Bytes that may be on their way; the kernel gives as much as `net.core.wmem_max` allows.
const BUFFER: usize = 4 << 20;

/// Packets larger than this do not fit into the socket's buffer.
const LARGEST_PACKET: usize = 64 << 10;

impl Peer for Socket {
    fn rows(&self) -> &'static [Row] {
        &[
            Row { name: "unix stream", kind: Kind::Copied, takes: |workload, _| there_and_back(workload) },
            Row {
                name: "unix stream, blocking",
                kind: Kind::Copied,
                takes: |workload, _| there_and_back(workload),
            },
            Row {
                name: "unix seqpacket",
                kind: Kind::Copied,
                takes: |workload, payload| there_and_back(workload) && payload <= LARGEST_PACKET,
            },
            Row {
                name: "unix seqpacket, blocking",
                kind: Kind::Copied,
                takes: |workload, payload| there_and_back(workload) && payload <= LARGEST_PACKET,
            },
        ]
    }

    fn first(&self, job: &Job, second: &mut Second) -> Result<Figure> {
        let (listener, address) = socket_of(job)?;
        bind(listener.as_raw_fd(), &address)?;
        listen(&listener, Backlog::new(1)?)?;
        second.tell("listening")?;
        let (connected, _) = UnixListener::from(listener).accept()?; // of packets, too
        let (to, from) = halves(job, connected.into())?;
        ends::first(job, second, to, from)
    }

    fn second(&self, job: &Job, first: &mut First) -> Result<()> {
        first.hear()?;
        let (fd, address) = socket_of(job)?;
        connect(fd.as_raw_fd(), &address)?;
        let (to, from) = halves(job, fd)?;
        ends::second(job, first, to, from)
    }
}

fn is_packets(job: &Job) -> bool {
    job.row.contains("seqpacket")
}

fn socket_of(job: &Job) -> Result<(OwnedFd, UnixAddr)> {
    let kind = if is_packets(job) { SockType::SeqPacket } else { SockType::Stream };
    let fd = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)?;
    Ok((fd, UnixAddr::new(&job.dir.join("socket"))?))
}

fn halves(job: &Job, fd: OwnedFd) -> Result<(In, Out)> {
    setsockopt(&fd, sockopt::SndBuf, &BUFFER)?;
    if !job.row.ends_with("blocking") {
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
    }
    let file = File::from(fd);
    let to = In(file.try_clone()?);
    Ok((to, Out { file, packets: is_packets(job), message: vec![0; job.payload] }))
}

struct In(File);

impl To for In {
    #[inline]
    fn send(&mut self, message: &[u8]) -> Result<()> {
        write_all(&mut self.0, message)
    }
}

struct Out {
    file: File,
    packets: bool,
    message: Vec<u8>,
}

impl From for Out {
    #[inline]
    fn receive(&mut self) -> Result<&[u8]> {
        if self.packets {
            let len = again(|| self.file.read(&mut self.message))?;
            if len != self.message.len() {
                return Err(format!("a packet of {len} bytes").into());
            }
        } else {
            read_all(&mut self.file, &mut self.message)?;
        }
        Ok(&self.message)
    }
}
