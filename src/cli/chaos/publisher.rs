//! Publishes in every way, broadcasts, and sends direct messages; tells of each as soon as the bus has taken it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::super::Outcome;
use super::content::{self, HEAD};
use super::dice::Dice;
use super::pace::{Duty, Next};
use super::protocol::{BATCH, Note, Order, Report, Stream, tell};
use super::subscriber_name;
use crate::{Node, Overflow, PublishError, Publisher, RawPublisher, SendError};

/// Small logs: they are full soon when somebody is stopped.
const RAW_CAPACITY: u64 = 64 * 1024;
const TYPED_CAPACITY: u64 = 32 * 1024;
/// Short, so that there is a word while somebody is stopped.
const PATIENCE: Duration = Duration::from_millis(200);

pub(super) fn run(node: &Node, orders: Receiver<Order>, life: u64, addressees: u8) -> Outcome {
    let mut duty = Duty::new(orders);
    let overflow = Overflow::Block { timeout: PATIENCE };
    let topics = [format!("chaos/raw/{life}"), format!("chaos/typed/{life}")];
    let mut mouth = Mouth {
        node,
        life,
        raw: node.publisher_builder(&topics[0]).capacity(RAW_CAPACITY).overflow(overflow).open_raw()?,
        typed: node.publisher_builder(&topics[1]).capacity(TYPED_CAPACITY).overflow(overflow).open()?,
        accepted: BTreeMap::new(),
        room: Vec::new(),
    };
    tell(&Report::Ready { node: node.info().id().to_string() })?;
    let mut dice = Dice::new(life);
    loop {
        match duty.look() {
            Next::Leave => return Ok(()),
            Next::Stop => break,
            Next::Go | Next::Measure => {}
        }
        for _ in 0..dice.between(1, 12) {
            match dice.between(0, 99) {
                0..40 => mouth.publish_bytes()?,
                40..60 => mouth.lend()?,
                60..80 => mouth.publish()?,
                80..88 => mouth.publish_batch(dice.between(1, BATCH))?,
                88..94 => mouth.broadcast()?,
                _ => mouth.send(dice.between(1, addressees.into()) as u8)?,
            }
            duty.pace().pause();
            duty.report()?;
        }
        std::thread::sleep(dice.millis(1, 5));
    }
    tell(&Report::Stopped)?;
    duty.stay()
}

struct Mouth<'n> {
    node: &'n Node,
    life: u64,
    raw: RawPublisher,
    typed: Publisher<Note>,
    /// Messages of each stream that the bus has taken: the next one's number.
    accepted: BTreeMap<Stream, u64>,
    room: Vec<u8>,
}

impl Mouth<'_> {
    fn next(&self, stream: Stream) -> u64 {
        self.accepted.get(&stream).copied().unwrap_or(0)
    }

    /// These were taken, and have to arrive, whatever becomes of this process.
    fn tell(&mut self, stream: Stream, more: u64) -> Outcome {
        let accepted = self.accepted.entry(stream).or_default();
        *accepted += more;
        if more > 0 { tell(&Report::Accepted(stream, *accepted)) } else { Ok(()) }
    }

    fn publish_bytes(&mut self) -> Outcome {
        let number = self.next(Stream::Raw);
        self.room.resize(HEAD + content::length(self.life, number), 0);
        content::write(self.life, number, &mut self.room);
        let published = self.raw.publish(&self.room);
        self.tell(Stream::Raw, taken(published)?)
    }

    fn lend(&mut self) -> Outcome {
        let number = self.next(Stream::Raw);
        let published = self.raw.loan(HEAD + content::length(self.life, number)).and_then(|mut loan| {
            content::write(self.life, number, &mut loan);
            loan.send()
        });
        self.tell(Stream::Raw, taken(published)?)
    }

    fn publish(&mut self) -> Outcome {
        let note = content::note(self.life, self.next(Stream::Typed));
        let published = self.typed.publish(&note);
        self.tell(Stream::Typed, taken(published)?)
    }

    fn publish_batch(&mut self, count: u64) -> Outcome {
        let first = self.next(Stream::Typed);
        let notes: Vec<Note> =
            (first..first + count).map(|number| content::note(self.life, number)).collect();
        let tried = Cell::new(0);
        match self.typed.publish_batch(notes.iter().inspect(|_| tried.set(tried.get() + 1))) {
            Ok(published) => self.tell(Stream::Typed, published as u64),
            // The last one that it asked for failed; all before it were published.
            Err(error) => {
                taken(Err(error))?;
                self.tell(Stream::Typed, u64::saturating_sub(tried.get(), 1))
            }
        }
    }

    fn broadcast(&mut self) -> Outcome {
        let note = content::note(self.life, self.next(Stream::Broadcast));
        let sent = self.node.broadcast(&note);
        self.tell(Stream::Broadcast, sent_to_somebody(sent)?)
    }

    fn send(&mut self, addressee: u8) -> Outcome {
        let stream = Stream::Direct(addressee);
        let note = content::note(self.life, self.next(stream));
        let sent = self.node.send(&subscriber_name(addressee), &note);
        self.tell(stream, sent_to_somebody(sent)?)
    }
}

/// How many messages: none, if a subscriber stands in the way.
fn taken(published: Result<(), PublishError>) -> Outcome<u64> {
    match published {
        Ok(()) => Ok(1),
        Err(PublishError::Full { .. }) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

fn sent_to_somebody(sent: Result<(), SendError>) -> Outcome<u64> {
    match sent {
        Ok(()) => Ok(1),
        Err(SendError::Full { .. } | SendError::NotFound { .. }) => Ok(0),
        Err(error) => Err(error.into()),
    }
}
