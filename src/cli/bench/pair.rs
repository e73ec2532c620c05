//! Measured processes that work together: one on the first CPU, one or several on the others.

use std::time::Duration;

use super::super::Outcome;
use super::Bench;
use super::crew::Crew;
use super::figures::RoundTrips;
use super::host::{Glance, Part};
use super::protocol::{FlowKind, LineKind, Measured, Order, Task};

const FIRST: usize = 0;

/// The first process, and those that it measures with: mostly one.
pub(super) struct Pair<'a> {
    crew: Crew<'a>,
    /// What the host was like after the last part, which is before the next.
    last: Option<Glance>,
}

/// For so many seconds the cache line is timed before a part, and after it.
const GLANCE: f64 = 0.002;

impl<'a> Pair<'a> {
    /// Starts the first process and so many others, each pinned to the next CPU, round and round without the
    /// first process's.
    pub(super) fn start(bench: &'a Bench, others: usize) -> Outcome<Self> {
        let mut crew = bench.crew();
        let (first, rest) = bench.two_cpus()?;
        crew.start("first", Some(first))?;
        for (index, cpu) in (0..others).zip(rest.iter().cycle()) {
            let name = match others {
                1 => "second".to_owned(),
                _ => format!("receiver-{}", index + 1),
            };
            crew.start(&name, Some(*cpu))?;
        }
        Ok(Self { crew, last: None })
    }

    /// Looks what the host is like, for a moment: at the line between the first process and the second, and at both CPUs.
    fn glance(&mut self) -> Outcome<Glance> {
        let line = LineKind::Raw;
        let ping = Task::Ping { line, seconds: GLANCE };
        let (measured, _) = self.run(ping, &[Task::Echo { line }], GLANCE)?;
        let line = round_trips(measured)?.p50 as f64;
        let (first, second) = self.run(Task::Calculate, &[Task::Calculate], GLANCE)?;
        match (first, &second[..]) {
            (Measured::Took { ns: first }, [Measured::Took { ns: second }]) => {
                Ok(Glance { line, work: [first, *second] })
            }
            other => Err(format!("a calculation was to be timed, not {other:?}").into()),
        }
    }

    /// Has the first play its part, for a time that it is told, and the others theirs meanwhile; what they have measured.
    pub(super) fn play(
        &mut self,
        first: Task,
        others: &[Task],
        seconds: f64,
    ) -> Outcome<Part<(Measured, Vec<Measured>)>> {
        let before = match self.last {
            Some(glance) => glance,
            None => self.glance()?,
        };
        let measured = self.run(first, others, seconds)?;
        let after = self.glance()?;
        self.last = Some(after);
        Ok(Part { measured, around: [before, after] })
    }

    fn run(&mut self, first: Task, others: &[Task], seconds: f64) -> Outcome<(Measured, Vec<Measured>)> {
        let crew = &mut self.crew;
        let mut theirs = None;
        for (index, task) in others.iter().enumerate() {
            theirs = crew.prepare(index + 1, task.clone())?;
        }
        let ours = crew.prepare(FIRST, first)?;
        let opens = ours.is_some() || theirs.is_some();
        for index in 1..=others.len() {
            crew.order(index, &Order::Go(ours.clone()))?;
        }
        crew.order(FIRST, &Order::Go(theirs))?;
        if opens {
            // What the other side has made is gone once that is through: first all have opened it.
            for index in FIRST..=others.len() {
                crew.ready(index)?;
            }
            for index in FIRST..=others.len() {
                crew.order(index, &Order::Go(None))?;
            }
        }
        // Twice, for what warms up and for what goes beyond its time.
        let measured = crew.done(FIRST, Duration::from_secs_f64(seconds * 4.0))?;
        let mut ends = Vec::new();
        for index in 1..=others.len() {
            crew.order(index, &Order::End)?;
            ends.push(crew.done(index, Duration::ZERO)?);
        }
        Ok((measured, ends))
    }
}

/// Round trips of the first process, which another answers, in one repetition.
pub(super) fn bounce(pair: &mut Pair<'_>, line: LineKind, seconds: f64) -> Outcome<Part<RoundTrips>> {
    let part = pair.play(Task::Ping { line, seconds }, &[Task::Echo { line }], seconds)?;
    part.and_then(|(measured, _)| round_trips(measured))
}

fn round_trips(measured: Measured) -> Outcome<RoundTrips> {
    match measured {
        Measured::RoundTrips(times) => Ok(times),
        other => Err(format!("round trips were to be measured, not {other:?}").into()),
    }
}

/// What went one way in one repetition.
pub(super) struct Flowed {
    pub(super) sent: u64,
    pub(super) sent_per_s: f64,
    /// Over all receivers.
    pub(super) received_per_s: f64,
    pub(super) lost: u64,
}

/// Sends to each of the receiving processes, from the first message sent to the last one received.
pub(super) fn flow(
    pair: &mut Pair<'_>,
    source: FlowKind,
    sinks: &[FlowKind],
    seconds: f64,
) -> Outcome<Part<Flowed>> {
    let ports = |kind: &FlowKind| match kind {
        FlowKind::Bus(kind) => kind.subscribers,
        FlowKind::Bare(kind) => kind.readers,
    };
    let subscribers: usize = sinks.iter().map(ports).sum();
    let tasks: Vec<_> = sinks.iter().map(|flow| Task::Receive { flow: *flow }).collect();
    let part = pair.play(Task::Send { flow: source, seconds }, &tasks, seconds)?;
    part.and_then(|(sent, received)| flowed(&sent, &received, subscribers as u64))
}

fn flowed(sent: &Measured, received: &[Measured], subscribers: u64) -> Outcome<Flowed> {
    let Measured::Sent { count: sent, numbers, timed, start_ns } = *sent else {
        return Err(format!("sending was to be measured, not {sent:?}").into());
    };
    let (mut count, mut sum, mut last) = (0, 0_u64, start_ns + 1);
    for end in received {
        let Measured::Received { count: got, numbers, end_ns } = *end else {
            return Err(format!("receiving was to be measured, not {end:?}").into());
        };
        count += got;
        sum = sum.wrapping_add(numbers);
        last = last.max(end_ns);
    }
    let due = sent * subscribers;
    if count > due || (count == due && sum != numbers.wrapping_mul(subscribers)) {
        return Err(format!("{count} messages arrived that are not the {due} that were due").into());
    }
    let sent_per_s = timed as f64 / Duration::from_nanos(last - start_ns).as_secs_f64();
    let received_per_s = sent_per_s * count as f64 / sent.max(1) as f64;
    Ok(Flowed { sent, sent_per_s, received_per_s, lost: due - count })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: Measured = Measured::Sent { count: 10, numbers: 45, timed: 5, start_ns: 1_000_000_000 };

    fn received(count: u64, numbers: u64, end_ns: u64) -> Measured {
        Measured::Received { count, numbers, end_ns }
    }

    #[test]
    fn rates_are_over_the_time_until_all_is_received() {
        let received = [received(20, 90, 1_400_000_000), received(10, 45, 1_500_000_000)];
        let found = flowed(&SENT, &received, 3).unwrap();
        assert_eq!((found.sent, found.lost), (10, 0));
        assert_eq!((found.sent_per_s, found.received_per_s), (10.0, 30.0));
    }

    #[test]
    fn what_is_missing_is_lost_and_what_is_wrong_is_an_error() {
        assert_eq!(flowed(&SENT, &[received(9, 40, 2_000_000_000)], 1).unwrap().lost, 1);
        for (count, numbers) in [(10, 46), (11, 45)] {
            assert!(flowed(&SENT, &[received(count, numbers, 2_000_000_000)], 1).is_err());
        }
        assert!(flowed(&SENT, &[Measured::Nothing], 1).is_err());
    }
}
