//! Who plays at the moment, and what is done to them.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::super::Outcome;
use super::crew::{Crew, Heard};
use super::dice::Dice;
use super::judge::Judge;
use super::plan::{self, Act};
use super::protocol::{Footprint, Order, Report};
use super::summary::Summary;
use super::{Cast, LOOK, PATIENCE, Role, START};
use crate::Bus;

/// How many processes may be absent or stopped at a time: others have to have something to do with each other.
const AWAY: usize = 5;

/// Whoever does this late what is due every 20 ms had no processor.
const AWAY_FOR: Duration = Duration::from_secs(1);

/// A part, and who plays it.
struct Place {
    cast: Cast,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Plays {
        life: u64,
    },
    Stopped {
        life: u64,
        until: Instant,
    },
    /// Killed, or told to leave, and not reaped yet; another one is started after this time.
    Ends {
        life: u64,
        since: Instant,
        absent: Duration,
        killed: bool,
    },
    Absent {
        until: Instant,
    },
    /// At the end.
    Gone,
}

pub(super) struct Stage {
    pub(super) crew: Crew,
    pub(super) judge: Judge,
    dice: Dice,
    places: Vec<Place>,
    next: plan::Next,
    next_at: Instant,
    /// When each process was heard last.
    heard: HashMap<u64, Instant>,
    stopped: HashSet<u64>,
    pub(super) footprint: Option<Footprint>,
    /// Of the first one, when it was alone.
    pub(super) baseline: Option<Footprint>,
    pub(super) bus_dir: PathBuf,
    counts: Summary,
    /// When it last did what is due.
    looked: Instant,
}

impl Stage {
    pub(super) fn new(bus: &Bus, verbose: u8, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let counts = Summary { seed, ..Summary::default() };
        Self {
            crew: Crew::new(bus, verbose),
            judge: Judge::default(),
            next: plan::draw(&mut dice, 1),
            next_at: Instant::now(),
            dice,
            places: Vec::new(),
            heard: HashMap::new(),
            stopped: HashSet::new(),
            footprint: None,
            baseline: None,
            bus_dir: bus.dir().join(bus.name()),
            counts,
            looked: Instant::now(),
        }
    }

    /// Starts everybody, the first one first: what it holds alone is what it may hold at the end.
    pub(super) fn open(&mut self, cast: &[Cast]) -> Outcome {
        for (at, cast) in cast.iter().enumerate() {
            let state = State::Absent { until: Instant::now() };
            self.places.push(Place { cast: *cast, state });
            self.enter(at)?;
            if at == 0 {
                self.until(START, "get ready", Self::is_everybody_ready)?;
                self.measure_witness()?;
                self.baseline = self.footprint;
            }
        }
        self.until(START, "get ready", Self::is_everybody_ready)?;
        self.next = plan::draw(&mut self.dice, self.places.len() - 1);
        self.next_at = Instant::now() + self.next.pause;
        Ok(())
    }

    /// Disturbs, listens and judges until then.
    pub(super) fn play(&mut self, then: Instant) -> Outcome {
        if Instant::now() >= self.next_at {
            self.act()?;
        }
        self.tend(then)
    }

    /// Lets everybody come to rest, and looks whether everything has arrived and nothing is left.
    pub(super) fn close(&mut self) -> Outcome {
        for at in 0..self.places.len() {
            if let State::Stopped { life, .. } = self.places[at].state {
                self.go_on(at, life)?;
            }
        }
        self.until(START, "get ready at the end", Self::is_everybody_ready)?;
        for life in self.playing() {
            self.crew.order(life, &Order::Stop);
        }
        self.until(2 * PATIENCE, "come to rest", Self::has_everybody_stopped)?;
        // What is missing is a violation by then.
        self.until(3 * PATIENCE, "settle", |stage| stage.judge.is_settled())?;
        self.dismiss(1)?;
        self.until(2 * PATIENCE, "leave", |stage| stage.crew.count() == 1)?;
        self.check_directory(1)?;
        self.check_witness()?;
        self.dismiss(0)?;
        self.until(2 * PATIENCE, "leave", |stage| stage.crew.count() == 0)?;
        self.check_directory(0)
    }

    pub(super) fn count(&self) -> usize {
        self.crew.count()
    }

    pub(super) fn summary(&self, time: Duration) -> Summary {
        let calls = self.judge.all_calls();
        let mut summary = Summary {
            violations: self.judge.violations,
            first_violations: self.judge.first.clone(),
            seconds: (time.as_secs_f64() * 10.0).round() / 10.0,
            published: self.judge.published(),
            received: self.judge.received,
            calls: calls.made,
            answers: calls.answered,
            unavailable: calls.unavailable,
            not_found: calls.not_found,
            late: calls.late,
            exhausted: calls.exhausted,
            starved_seconds: (self.judge.starved.as_secs_f64() * 10.0).round() / 10.0,
            deaths_told: self.judge.deaths_told,
            ..self.counts.clone()
        };
        summary.set_word(self.judge.slowest_word);
        summary
    }

    fn enter(&mut self, at: usize) -> Outcome {
        let Cast { role, .. } = self.places[at].cast;
        let now = Instant::now();
        let (life, name) = self.crew.start(&self.places[at].cast)?;
        self.counts.processes += 1;
        self.judge.starts(life, &name, role, now);
        self.heard.insert(life, now);
        self.places[at].state = State::Plays { life };
        Ok(())
    }

    /// Does what was drawn, to whom it was drawn; the first one is not disturbed. Where that is not possible just now,
    /// nothing is done.
    fn act(&mut self) -> Outcome {
        let next = plan::draw(&mut self.dice, self.places.len() - 1);
        let plan::Next { who, act, .. } = std::mem::replace(&mut self.next, next);
        self.next_at = Instant::now() + self.next.pause;
        let at = who + 1;
        let (life, is_stopped) = match self.places[at].state {
            State::Plays { life } => (life, false),
            State::Stopped { life, .. } => (life, true),
            _ => return Ok(()),
        };
        let is_away = |place: &&Place| !matches!(place.state, State::Plays { .. });
        if !is_stopped && self.places.iter().filter(is_away).count() >= AWAY {
            return Ok(());
        }
        let now = Instant::now();
        match act {
            Act::Kill { absent } => {
                self.counts.kills += 1;
                self.end(at, life, absent, true)?;
            }
            Act::Stop { time } if !is_stopped => {
                self.counts.stops += 1;
                self.judge.is_disturbed(life);
                self.crew.stop(life)?;
                self.places[at].state = State::Stopped { life, until: now + time };
            }
            Act::Restart { absent } if !is_stopped => {
                self.counts.restarts += 1;
                self.end(at, life, absent, false)?;
            }
            Act::Slow { pause_us, time } if !is_stopped && self.judge.has_become_ready(life) => {
                self.counts.slowdowns += 1;
                self.judge.is_calm_from(life, now + time);
                self.crew.order(life, &Order::Slow { pause_us, ms: time.as_millis() as u64 });
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, at: usize, life: u64, absent: Duration, killed: bool) -> Outcome {
        let since = Instant::now();
        self.judge.ends(life, killed, since);
        self.places[at].state = State::Ends { life, since, absent, killed };
        if killed {
            self.crew.kill(life)?
        } else {
            self.crew.dismiss(life)
        }
        Ok(())
    }

    fn go_on(&mut self, at: usize, life: u64) -> Outcome {
        self.crew.go_on(life)?;
        let now = Instant::now();
        self.judge.is_calm_from(life, now);
        self.heard.insert(life, now);
        self.places[at].state = State::Plays { life };
        Ok(())
    }

    /// Listens until then, and does what is due; disturbs nobody.
    pub(super) fn tend(&mut self, then: Instant) -> Outcome {
        while let Some((life, heard)) = self.crew.hear(then) {
            self.hear(life, heard)?;
            if Instant::now() >= then {
                break;
            }
        }
        let now = Instant::now();
        let away = now.saturating_duration_since(self.looked);
        self.looked = now;
        if away > AWAY_FOR {
            self.judge.was_away(away);
            self.heard.values_mut().for_each(|heard| *heard += away);
            for place in &mut self.places {
                if let State::Ends { since, .. } = &mut place.state {
                    *since += away;
                }
            }
        }
        for at in 0..self.places.len() {
            match self.places[at].state {
                State::Stopped { life, until } if until <= now => self.go_on(at, life)?,
                State::Absent { until } if until <= now => self.enter(at)?,
                State::Ends { life, since, absent, killed: false } if since + PATIENCE <= now => {
                    self.judge.wrong(format!("{} does not leave", self.places[at].cast.node_name()));
                    self.places[at].state = State::Ends { life, since, absent, killed: true };
                    self.crew.kill(life)?;
                }
                State::Plays { life } if self.is_lost(life, now) => {
                    self.judge.wrong(format!("{} hangs", self.places[at].cast.node_name()));
                    self.end(at, life, Duration::ZERO, true)?;
                }
                _ => {}
            }
        }
        self.judge.look(now);
        Ok(())
    }

    /// Whether it has said nothing for too long.
    fn is_lost(&self, life: u64, now: Instant) -> bool {
        let Some(heard) = self.heard.get(&life) else { return false };
        let patience = if self.judge.is_calm_for(life, Duration::ZERO, now) { PATIENCE } else { START };
        *heard + patience <= now
    }

    fn hear(&mut self, life: u64, heard: Heard) -> Outcome {
        let now = Instant::now();
        if let Some(heard) = self.heard.get_mut(&life) {
            *heard = now;
        }
        let report = match heard {
            Heard::Report(report) => report,
            Heard::Noise => {
                if !self.is_killed(life) {
                    self.judge.wrong(format!("life {life} says what is not a report"));
                }
                return Ok(());
            }
            Heard::End => return self.is_over(life, now),
        };
        match report {
            Report::Ready { node } => self.judge.is_ready(life, node, now),
            Report::Accepted(stream, count) => self.judge.accepted(life, stream, count),
            Report::Arrived(runs) => runs.iter().for_each(|run| self.judge.arrived(life, run)),
            Report::Presence(node, sight) => self.judge.sees(life, &node, &sight, now),
            Report::Calls(calls) => self.judge.calls(life, calls),
            Report::Here => {}
            Report::Stopped => {
                self.stopped.insert(life);
                self.judge.is_silent(life, now);
                self.judge.check_calls(life);
            }
            Report::Footprint(footprint) => self.footprint = Some(footprint),
            Report::Wrong { what } => self.judge.wrong(format!("life {life}: {what}")),
            Report::Failed { reason } => self.judge.wrong(format!("life {life} failed: {reason}")),
        }
        Ok(())
    }

    fn is_killed(&self, life: u64) -> bool {
        let is = |place: &Place| matches!(place.state, State::Ends { life: ended, killed: true, .. } if ended == life);
        self.places.iter().any(is)
    }

    /// Its stdout has ended.
    fn is_over(&mut self, life: u64, now: Instant) -> Outcome {
        let Some((name, status)) = self.crew.reap(life)? else { return Ok(()) };
        self.heard.remove(&life);
        let place = self.places.iter_mut().find(|place| match place.state {
            State::Plays { life: its } | State::Stopped { life: its, .. } | State::Ends { life: its, .. } => {
                its == life
            }
            State::Absent { .. } | State::Gone => false,
        });
        let Some(place) = place else { return Ok(()) };
        match place.state {
            State::Ends { absent, killed, .. } => {
                place.state =
                    if absent == Duration::MAX { State::Gone } else { State::Absent { until: now + absent } };
                if !killed && !status.success() {
                    self.judge.wrong(format!("{name} did not leave well: {status}"));
                }
            }
            _ => {
                place.state = State::Absent { until: now };
                self.judge.ends(life, true, now);
                self.judge.wrong(format!("{name} died unexpectedly: {status}"));
            }
        }
        self.judge.is_silent(life, now);
        Ok(())
    }

    /// Listens until it is so.
    pub(super) fn until(&mut self, time: Duration, what: &str, is_so: impl Fn(&Self) -> bool) -> Outcome {
        let deadline = Instant::now() + time;
        while !is_so(self) {
            if Instant::now() >= deadline {
                let who = self.playing().len();
                self.judge.wrong(format!("the processes ({who} at play) did not {what} within {time:?}"));
                return Ok(());
            }
            self.tend(deadline.min(Instant::now() + LOOK))?;
        }
        Ok(())
    }

    pub(super) fn playing(&self) -> Vec<u64> {
        let life = |place: &Place| match place.state {
            State::Plays { life } => Some(life),
            _ => None,
        };
        self.places.iter().filter_map(life).collect()
    }

    fn is_everybody_ready(&self) -> bool {
        let now = Instant::now();
        let is_ready = |place: &Place| match place.state {
            State::Plays { life } => self.judge.is_calm_for(life, Duration::ZERO, now),
            State::Gone => true,
            _ => false,
        };
        self.places.iter().all(is_ready)
    }

    fn has_everybody_stopped(&self) -> bool {
        let has_stopped = |place: &Place| match (place.cast.role, place.state) {
            (Role::Publisher | Role::Client, State::Plays { life }) => self.stopped.contains(&life),
            (_, State::Plays { .. } | State::Gone) => true,
            _ => false,
        };
        self.places.iter().all(has_stopped)
    }

    /// Has all from this place on leave for good.
    fn dismiss(&mut self, from: usize) -> Outcome {
        for at in from..self.places.len() {
            match self.places[at].state {
                State::Plays { life } | State::Stopped { life, .. } => {
                    self.end(at, life, Duration::MAX, false)?
                }
                State::Ends { life, since, killed, .. } => {
                    self.places[at].state = State::Ends { life, since, killed, absent: Duration::MAX };
                }
                State::Absent { .. } | State::Gone => self.places[at].state = State::Gone,
            }
        }
        Ok(())
    }
}
