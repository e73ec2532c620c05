//! Two pipes, with the largest buffer that an unprivileged process may ask for; spinning, and blocking.

use std::fs::File;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::Peer;
use super::ends::{self, From, To, there_and_back};
use super::spin::{read_all, write_all};
use crate::control::{First, Second};
use crate::job::{Figure, Job, Kind, Result, Row};

pub struct Pipe;

/// The default of `fs.pipe-max-size`.
const BUFFER: i32 = 1 << 20;

impl Peer for Pipe {
    fn rows(&self) -> &'static [Row] {
        &[
            Row { name: "pipe", kind: Kind::Copied, takes: |workload, _| there_and_back(workload) },
            Row { name: "pipe, blocking", kind: Kind::Copied, takes: |workload, _| there_and_back(workload) },
        ]
    }

    fn first(&self, job: &Job, second: &mut Second) -> Result<Figure> {
        for name in ["ping", "pong"] {
            mkfifo(&job.dir.join(name), Mode::S_IRWXU)?;
        }
        second.tell("made")?;
        // Opening a fifo waits for the other side's open: both open ping first.
        let (to, from) = (open(job, "ping", true)?, open(job, "pong", false)?);
        ends::first(job, second, In(to), Out::new(job, from))
    }

    fn second(&self, job: &Job, first: &mut First) -> Result<()> {
        first.hear()?;
        let (from, to) = (open(job, "ping", false)?, open(job, "pong", true)?);
        ends::second(job, first, In(to), Out::new(job, from))
    }
}

fn open(job: &Job, name: &str, write: bool) -> Result<File> {
    let file = File::options().read(!write).write(write).open(job.dir.join(name))?;
    fcntl(&file, FcntlArg::F_SETPIPE_SZ(BUFFER))?;
    if !job.row.ends_with("blocking") {
        fcntl(&file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    Ok(file)
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
    message: Vec<u8>,
}

impl Out {
    fn new(job: &Job, file: File) -> Self {
        Self { file, message: vec![0; job.payload] }
    }
}

impl From for Out {
    #[inline]
    fn receive(&mut self) -> Result<&[u8]> {
        read_all(&mut self.file, &mut self.message)?;
        Ok(&self.message)
    }
}
