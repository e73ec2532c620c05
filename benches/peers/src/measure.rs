//! The same counting for all: round trips on the first process, messages on the second.

use std::time::{Duration, Instant};

use crate::control::{First, Second};
use crate::job::{Figure, Job, Result, SUBSCRIBERS};

/// The stamp of the last message there and back, for the second process: nothing follows.
pub const STOP: u64 = u64::MAX;

/// Every message begins with its stamp.
#[inline]
pub fn stamp_of(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(STOP, |first| u64::from_le_bytes(*first))
}

#[inline]
pub fn write_stamp(bytes: &mut [u8], stamp: u64) {
    bytes[..8].copy_from_slice(&stamp.to_le_bytes());
}

/// A sender's private memory: what copied payloads are copied from.
pub fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31) as u8).collect()
}

/// Round trips one after the other: `next` gives the stamp to send, `came` takes the one that came back.
///
/// The clock is read once per round trip: the end of one is the start of the next.
pub struct RoundTrips {
    times: Vec<u64>,
    count: usize,
    stamp: u64,
    last: Instant,
    measure: Instant,
    end: Instant,
    stopped: bool,
}

impl RoundTrips {
    /// More are not kept: 16 MB.
    const MOST: usize = 2_000_000;
    /// Fewer would be no median.
    const LEAST: usize = 10;

    pub fn new(job: &Job) -> Self {
        let times = vec![1; Self::MOST]; // written to, so that no page fault falls into a round trip
        let now = Instant::now();
        let measure = now + job.time / 4;
        Self { times, count: 0, stamp: 0, last: now, measure, end: measure + job.time, stopped: false }
    }

    /// The next stamp to send; [`STOP`] is the last one, then `None`.
    #[inline]
    pub fn next(&mut self) -> Option<u64> {
        let now = Instant::now();
        if self.last >= self.measure && !self.stopped {
            self.times[self.count] = (now - self.last).as_nanos() as u64;
            self.count += 1;
        }
        if (now >= self.end && self.count >= Self::LEAST) || self.count == Self::MOST {
            return self.say_stop();
        }
        self.last = now;
        self.stamp += 1;
        Some(self.stamp)
    }

    #[cold]
    fn say_stop(&mut self) -> Option<u64> {
        self.stamp = STOP;
        (!std::mem::replace(&mut self.stopped, true)).then_some(STOP)
    }

    #[inline]
    pub fn came(&self, stamp: u64) -> Result<()> {
        if stamp == self.stamp { Ok(()) } else { Err(wrong(stamp, self.stamp)) }
    }

    pub fn figure(mut self) -> Result<Figure> {
        self.times.truncate(self.count);
        self.times.sort_unstable();
        let at = |share: usize| self.times.get(self.times.len() * share / 100).map(|ns| *ns as f64);
        let value = at(50).ok_or("no round trip in all that time")?;
        Ok(Figure { value, p99: at(99), count: self.count as u64 })
    }
}

#[cold]
fn wrong(stamp: u64, due: u64) -> Box<dyn std::error::Error + Send + Sync> {
    format!("message {stamp} came where {due} was due").into()
}

/// Messages one way, in batches: each is timed until the second process has read all of it. The first batches
/// find out how many messages fill the time, and warm up.
pub struct Flood {
    time: Duration,
    next: u64,
    batch: u64,
    is_last: bool,
    start: Instant,
    payload: usize,
    copied: bool,
    subscribers: u64,
    figure: Option<Figure>,
}

impl Flood {
    pub fn new(job: &Job, subscribers: usize) -> Self {
        Self {
            time: job.time,
            next: 0,
            batch: (1 << 20) / job.payload as u64,
            is_last: false,
            start: Instant::now(),
            payload: job.payload,
            copied: !job.lent && !job.typed,
            subscribers: subscribers as u64,
            figure: None,
        }
    }

    /// The stamps of the next batch, which the second process now waits for.
    pub fn batch(&mut self, second: &mut Second) -> Result<Option<std::ops::Range<u64>>> {
        if self.figure.is_some() {
            return Ok(None);
        }
        second.tell(&self.batch.to_string())?;
        self.start = Instant::now();
        Ok(Some(self.next..self.next + self.batch))
    }

    /// The second process has answered: all of the batch was read.
    pub fn done(&mut self, answer: &str) -> Result<()> {
        let taken = self.start.elapsed();
        let sum: u64 = answer.parse().map_err(|_| format!("the second process says {answer:?}"))?;
        if self.copied && sum != self.expected_sum() {
            return Err("the sum of what was read is not that of what was sent".into());
        }
        self.next += self.batch;
        if self.is_last {
            let count = self.batch * self.subscribers;
            self.figure = Some(Figure { value: count as f64 / taken.as_secs_f64(), p99: None, count });
        } else if taken >= self.time / 8 {
            let rate = self.batch as f64 / taken.as_secs_f64();
            self.batch = ((rate * self.time.as_secs_f64()) as u64).max(1);
            self.is_last = true;
        } else {
            self.batch *= 2;
        }
        Ok(())
    }

    /// What one subscriber or all have read in this batch.
    fn expected_sum(&self) -> u64 {
        let mut message = payload(self.payload);
        write_stamp(&mut message, 0);
        let stamps = (self.next..self.next + self.batch).fold(0, u64::wrapping_add);
        sum_words(&message).wrapping_mul(self.batch).wrapping_add(stamps).wrapping_mul(self.subscribers)
    }

    pub fn figure(self) -> Result<Figure> {
        self.figure.ok_or_else(|| "the run ended early".into())
    }

    /// All of it, for peers whose `send` blocks.
    pub fn run(mut self, second: &mut Second, mut send: impl FnMut(u64) -> Result<()>) -> Result<Figure> {
        while let Some(batch) = self.batch(second)? {
            for stamp in batch {
                send(stamp)?;
            }
            self.done(&second.hear()?)?;
        }
        self.figure()
    }
}

/// Messages from this length on are read by one and the same code, whoever received them.
const LONG: usize = 512;

/// Reads every word of a message; a rest of fewer than eight bytes does not occur here.
#[inline]
pub fn sum_words(bytes: &[u8]) -> u64 {
    if bytes.len() < LONG { add_words(bytes) } else { sum_long(bytes) }
}

#[inline(always)]
fn add_words(bytes: &[u8]) -> u64 {
    bytes.as_chunks().0.iter().fold(0, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)))
}

/// Not inlined, and by two cache lines a turn: a loop of four instructions may take one cycle a turn or two, by where in
/// the executable it happens to stand, which would be another place for each peer.
#[inline(never)]
fn sum_long(bytes: &[u8]) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<128>();
    let mut sums = [0_u64; 16];
    for block in blocks {
        for (sum, word) in sums.iter_mut().zip(block.as_chunks().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    sums.iter().fold(add_words(rest), |all, sum| all.wrapping_add(*sum))
}

/// What one subscriber of the second process has read.
#[derive(Default, Clone)]
pub struct Reading {
    due: u64,
    sum: u64,
}

impl Reading {
    /// Reads every byte of a message, which has to be the next one.
    #[inline]
    pub fn take(&mut self, message: &[u8]) -> Result<()> {
        self.sum = self.sum.wrapping_add(sum_words(message));
        self.take_stamp(stamp_of(message))
    }

    /// Of a value: it has been decoded.
    #[inline]
    pub fn take_stamp(&mut self, stamp: u64) -> Result<()> {
        if stamp != self.due {
            return Err(wrong(stamp, self.due));
        }
        self.due += 1;
        Ok(())
    }

    pub fn due(&self) -> u64 {
        self.due
    }

    /// The sum since this was last asked for.
    pub fn take_sum(&mut self) -> u64 {
        std::mem::take(&mut self.sum)
    }
}

/// The second process's half of [`Flood`], for peers whose `receive` blocks or spins.
pub fn drain(first: &mut First, mut receive: impl FnMut(&mut Reading) -> Result<()>) -> Result<()> {
    let mut reading = Reading::default();
    while let Some(count) = first.batch()? {
        for _ in 0..count {
            receive(&mut reading)?;
        }
        first.tell(&reading.take_sum().to_string());
    }
    Ok(())
}

/// The same for [`SUBSCRIBERS`] of one thread, which looks at each in turn and takes up to `BURST` messages;
/// `poll` says whether there was one.
pub fn drain_all(first: &mut First, mut poll: impl FnMut(usize, &mut Reading) -> Result<bool>) -> Result<()> {
    const BURST: u32 = 64;
    let mut readings = vec![Reading::default(); SUBSCRIBERS];
    let mut end = 0;
    while let Some(count) = first.batch()? {
        end += count;
        while readings.iter().any(|reading| reading.due() < end) {
            for (subscriber, reading) in readings.iter_mut().enumerate() {
                let mut burst = 0;
                while burst < BURST && reading.due() < end && poll(subscriber, reading)? {
                    burst += 1;
                }
            }
        }
        let sum = readings.iter_mut().map(Reading::take_sum).fold(0, u64::wrapping_add);
        first.tell(&sum.to_string());
    }
    Ok(())
}
