//! A peer of a node's that a test speaks for, word by word.

#![allow(dead_code)] // each test file uses its share

use std::cell::Cell;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use ringbus::Node;
use ringbus::internals::frame::{Attach, Control, Hello};
use ringbus::internals::sys::seqpacket::{MAX_DATAGRAM, Socket};

use crate::support::{Dir, eventually};

pub struct Raw {
    pub id: [u8; 16],
    socket: Socket,
}

impl Raw {
    /// Says hello, and waits until it is established.
    pub fn join(dir: &Dir, node: &Node) -> Self {
        Self::connect(&dir.path().join(format!("bus/{}.sock", node.info().id())))
    }

    /// The same by the node's socket.
    pub fn connect(path: &Path) -> Self {
        thread_local!(static PEERS: Cell<u8> = const { Cell::new(0) });
        PEERS.set(PEERS.get() + 1);
        let raw = Self { id: [PEERS.get(); 16], socket: Socket::connect(path).unwrap() };
        let (id, name) = (raw.id, "raw");
        let hello = Hello { major: 1, minor: 0, id, name, started_unix_ms: 0, capabilities: 0 };
        raw.send(&Control::Hello(hello), &[]);
        assert_eq!(raw.receive().0[2], 1, "hello_ack");
        raw
    }

    pub fn send(&self, control: &Control<'_>, fds: &[BorrowedFd<'_>]) {
        let mut bytes = vec![0; control.encoded_len()];
        control.encode(&mut bytes).unwrap();
        self.socket.send(&bytes, fds).unwrap();
    }

    /// Has a port read a new log of this one's, from the beginning.
    pub fn attach(
        &self,
        log: u64,
        [writer_port, reader_port]: [u64; 2],
        capacity: u64,
        fds: &[BorrowedFd<'_>; 2],
    ) {
        let (reader_number, position, sequence, predecessor) = (log as u16, 0, Some(0), None);
        let attach = Attach {
            log,
            writer_port,
            reader_port,
            reader_number,
            position,
            sequence,
            capacity,
            predecessor,
        };
        self.send(&Control::Attach(attach), fds);
    }

    /// The same to one that may have closed the session; false if it has no room yet.
    pub fn try_send(&self, control: &Control<'_>, fds: &[BorrowedFd<'_>]) -> bool {
        let mut bytes = vec![0; control.encoded_len()];
        control.encode(&mut bytes).unwrap();
        !self.socket.send(&bytes, fds).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// The next datagram that is not about the counting of others.
    pub fn receive(&self) -> (Vec<u8>, Vec<OwnedFd>) {
        let mut bytes = vec![0; MAX_DATAGRAM];
        let mut found = None;
        eventually("a datagram", || {
            found = self.socket.recv(&mut bytes).ok();
            found.as_ref().is_some_and(|found| !matches!(bytes[..found.len], [_, 5, 10..=12, ..]))
        });
        let found = found.unwrap();
        (bytes[..found.len].to_owned(), found.fds)
    }
}
