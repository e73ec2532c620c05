//! Receives everything, checks every byte, and tells what arrived in which order; and who came and went.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};

use super::super::Outcome;
use super::super::interrupt::wait;
use super::LOOK;
use super::content;
use super::pace::{Duty, Next, Pace};
use super::protocol::{Footprint, Note, Order, Report, Sight, Stream, tell};
use super::sabotage::{Ledger, Sabotage};
use crate::{
    Departure, Inbox, Message, Node, NodeId, PeerChange, Presence, RawSubscriber, RecvError, Subscriber,
};

/// Messages between two looks at the orders and the other ports.
const MANY: usize = 64;

pub(super) struct Part {
    pub(super) number: u8,
    /// Waits for all ports at once; else for one of them.
    pub(super) polls: bool,
    pub(super) sabotage: Option<Sabotage>,
}

pub(super) fn run(node: &Node, orders: Receiver<Order>, part: &Part) -> Outcome {
    let mut duty = Duty::new(orders);
    let mut ear = Ear {
        number: part.number,
        pace: duty.pace(),
        raw: node.raw_subscriber("chaos/raw/*")?,
        typed: node.subscriber("chaos/typed/*")?,
        all: node.broadcasts()?,
        mine: node.inbox()?,
        presence: node.presence()?,
        lives: HashMap::new(),
        ledger: Ledger::new(part.sabotage),
    };
    tell(&Report::Ready { node: node.info().id().to_string() })?;
    loop {
        match duty.look() {
            Next::Leave => return Ok(()),
            Next::Measure => {
                ear.tell()?;
                tell(&Report::Footprint(footprint()?))?;
            }
            Next::Go | Next::Stop => {}
        }
        let heard = ear.listen()?;
        if duty.is_due() {
            ear.tell()?;
        }
        if !heard {
            if part.polls { ear.poll()? } else { ear.wait()? }
        }
    }
}

struct Ear {
    number: u8,
    pace: Pace,
    raw: RawSubscriber,
    typed: Subscriber<Note>,
    all: Subscriber<Note>,
    mine: Inbox<Note>,
    presence: Presence,
    /// Who speaks from which node.
    lives: HashMap<NodeId, u64>,
    ledger: Ledger,
}

impl Ear {
    /// Takes what is there, up to a limit; false if there was nothing.
    fn listen(&mut self) -> Outcome<bool> {
        let mut heard = false;
        for _ in 0..MANY {
            let (is_any, what) = match self.raw.try_recv() {
                Ok(None) => break,
                Ok(Some(sample)) => (true, Ok((sample.source().id(), content::read(&sample)))),
                Err(error) => (true, Err(error)),
            };
            heard |= is_any;
            self.note(Stream::Raw, what)?;
        }
        for _ in 0..MANY {
            let Some(what) = checked(self.typed.try_recv()) else { break };
            heard = true;
            self.note(Stream::Typed, what)?;
        }
        for _ in 0..MANY {
            let Some(what) = checked(self.all.try_recv()) else { break };
            heard = true;
            self.note(Stream::Broadcast, what)?;
        }
        for _ in 0..MANY {
            let Some(what) = checked(self.mine.try_recv()) else { break };
            heard = true;
            self.note(Stream::Direct(self.number), what)?;
        }
        while let Some(change) = self.presence.try_recv()? {
            let (peer, sight) = match change {
                PeerChange::Joined(peer) => (peer, Sight::Joined),
                PeerChange::Stalled(peer) => (peer, Sight::Stalled),
                PeerChange::Recovered(peer) => (peer, Sight::Recovered),
                PeerChange::Left(peer, Departure::Goodbye) => (peer, Sight::Goodbye),
                PeerChange::Left(peer, Departure::Died) => (peer, Sight::Died),
                PeerChange::Left(peer, Departure::Unread) => (peer, Sight::Unread),
                PeerChange::Left(peer, why) => (peer, Sight::Cut(why.to_string())),
            };
            if !matches!(sight, Sight::Joined | Sight::Stalled | Sight::Recovered) {
                self.lives.remove(&peer.id());
            }
            tell(&Report::Presence(peer.id().to_string(), sight))?;
        }
        Ok(heard)
    }

    /// A message: who sent it, and its life and number if it was whole.
    fn note(&mut self, stream: Stream, what: Result<(NodeId, Option<(u64, u64)>), RecvError>) -> Outcome {
        match what {
            Ok((node, Some((life, number)))) => {
                if *self.lives.entry(node).or_insert(life) != life {
                    let what =
                        format!("{node} sent {stream:?} {number} of the life {life}, which is another's");
                    tell(&Report::Wrong { what })?;
                }
                self.ledger.note(life, stream, number);
            }
            Ok((node, None)) => {
                tell(&Report::Wrong { what: format!("a damaged message ({stream:?}) from {node}") })?;
            }
            Err(error @ (RecvError::NodeGone | RecvError::Forked)) => return Err(error.into()),
            Err(error) => tell(&Report::Wrong { what: format!("{stream:?}: {error}") })?,
        }
        self.pace.pause();
        Ok(())
    }

    fn tell(&mut self) -> Outcome {
        let runs = self.ledger.take();
        if runs.is_empty() { tell(&Report::Here) } else { tell(&Report::Arrived(runs)) }
    }

    /// Sleeps until something is there, on any port.
    fn poll(&mut self) -> Outcome {
        let all_armed = self.raw.arm()? && self.typed.arm()? && self.all.arm()? && self.mine.arm()?;
        if all_armed && self.presence.arm()? {
            let (raw, typed, all) = (self.raw.as_fd(), self.typed.as_fd(), self.all.as_fd());
            let fds = [raw, typed, all, self.mine.as_fd(), self.presence.as_fd()];
            let mut fds = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            wait(&mut fds, Some(LOOK))?;
        }
        Ok(())
    }

    /// Waits for bytes; the other ports wait meanwhile.
    fn wait(&mut self) -> Outcome {
        let what = match self.raw.recv_timeout(Duration::from_millis(5)) {
            Ok(None) => return Ok(()),
            Ok(Some(sample)) => Ok((sample.source().id(), content::read(&sample))),
            Err(error) => Err(error),
        };
        self.note(Stream::Raw, what)
    }
}

type Checked = Result<(NodeId, Option<(u64, u64)>), RecvError>;

fn checked(received: Result<Option<Message<Note>>, RecvError>) -> Option<Checked> {
    match received {
        Ok(None) => None,
        Ok(Some(message)) => {
            let who = content::is_whole(&message).then_some((message.life, message.number));
            Some(Ok((message.source().id(), who)))
        }
        Err(error) => Some(Err(error)),
    }
}

fn footprint() -> Outcome<Footprint> {
    let fds = std::fs::read_dir("/proc/self/fd")?.count();
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let maps = maps.lines().filter(|line| line.contains("/memfd:ringbus")).count();
    Ok(Footprint { fds, maps })
}
