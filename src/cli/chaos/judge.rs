//! What must hold, and whether it did: who published what, who got what of it, and who was told of whose end.
//!
//! A *life* is one process, from its start to its end; whoever takes its place is another. Deadlines run only for
//! processes that are *calm*: ready, and neither stopped nor slowed down.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::protocol::{Calls, Run, Sight, Stream};
use super::track::Track;
use super::{GRACE, PATIENCE, Role};

/// Of all that is wrong, the first are kept in words.
const KEPT: usize = 20;

/// What the first process knows of another one.
#[derive(Debug, Clone)]
struct Life {
    name: String,
    role: Role,
    started: Instant,
    /// Since when it is ready.
    ready: Option<Instant>,
    /// Since when it is ready and undisturbed; may be ahead.
    calm: Option<Instant>,
    is_stopped: bool,
    end: Option<End>,
    /// When all that it had to tell was told.
    silent: Option<Instant>,
    accepted: BTreeMap<Stream, u64>,
    calls: Calls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    at: Instant,
    killed: bool,
}

/// Somebody is to be told of somebody's end.
#[derive(Debug, Clone, Copy)]
struct Farewell {
    observer: u64,
    subject: u64,
    at: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Judge {
    lives: BTreeMap<u64, Life>,
    nodes: HashMap<String, u64>,
    tracks: BTreeMap<(u64, u64), BTreeMap<Stream, Track>>,
    /// Subscribers and publishers whose account is open.
    open: BTreeSet<(u64, u64)>,
    farewells: Vec<Farewell>,
    told: BTreeSet<(u64, u64)>,
    /// How long there was no processor, in all.
    pub(super) starved: Duration,
    pub(super) received: u64,
    pub(super) deaths_told: u64,
    /// The longest that an undisturbed process waited for word of a death.
    pub(super) slowest_word: Duration,
    pub(super) violations: u64,
    pub(super) first: Vec<String>,
}

impl Judge {
    pub(super) fn wrong(&mut self, what: String) {
        self.violations += 1;
        if self.first.len() < KEPT {
            self.first.push(what);
        }
    }

    pub(super) fn starts(&mut self, life: u64, name: &str, role: Role, now: Instant) {
        let life_of = Life {
            name: name.to_owned(),
            role,
            started: now,
            ready: None,
            calm: None,
            is_stopped: false,
            end: None,
            silent: None,
            accepted: BTreeMap::new(),
            calls: Calls::default(),
        };
        self.lives.insert(life, life_of);
    }

    pub(super) fn is_ready(&mut self, life: u64, node: String, now: Instant) {
        self.nodes.insert(node, life);
        let Some(it) = self.lives.get_mut(&life) else { return };
        it.ready = Some(now);
        // Its word may be heard after it was stopped, or killed.
        it.calm = (it.end.is_none() && !it.is_stopped).then_some(now);
        let (role, started, has_ended) = (it.role, it.started, it.end.is_some());
        if has_ended && role.subscribes() {
            return;
        }
        for (other, there) in self.lives.iter().filter(|(_, there)| there.is_there()) {
            let pair = match (role, there.role) {
                (Role::Publisher, to) if to.subscribes() => (*other, life),
                (from, Role::Publisher) if from.subscribes() => (life, *other),
                _ => continue,
            };
            self.open.insert(pair);
            // It subscribed before the publisher was started, and has answered all the time: nothing is missed.
            if role == Role::Publisher && there.calm.is_some_and(|calm| calm <= started) {
                let streams = there.role.streams();
                let tracks = self.tracks.entry(pair).or_default();
                streams.into_iter().for_each(|stream| tracks.entry(stream).or_default().is_due_from(0));
            }
        }
    }

    pub(super) fn is_disturbed(&mut self, life: u64) {
        if let Some(life) = self.lives.get_mut(&life) {
            (life.is_stopped, life.calm) = (true, None);
        }
    }

    pub(super) fn is_calm_from(&mut self, life: u64, then: Instant) {
        if let Some(life) = self.lives.get_mut(&life) {
            life.is_stopped = false;
            life.calm = life.is_there().then_some(then);
        }
    }

    /// It is killed, or told to leave, now.
    pub(super) fn ends(&mut self, life: u64, killed: bool, now: Instant) {
        let Some(it) = self.lives.get_mut(&life) else { return };
        let was_known = it.ready.is_some_and(|ready| ready + GRACE <= now);
        (it.calm, it.end) = (None, Some(End { at: now, killed }));
        self.open.retain(|(observer, _)| *observer != life);
        self.farewells.retain(|farewell| farewell.observer != life);
        if was_known {
            let observers = self.lives.iter().filter(|(_, other)| {
                other.role.subscribes() && other.calm.is_some_and(|calm| calm + GRACE <= now)
            });
            let observers: Vec<u64> = observers.map(|(observer, _)| *observer).collect();
            let farewell = |observer| Farewell { observer, subject: life, at: now };
            self.farewells.extend(observers.into_iter().map(farewell));
        }
    }

    /// All that it had to tell was told: it has ended, or publishes no more.
    pub(super) fn is_silent(&mut self, life: u64, now: Instant) {
        let Some(it) = self.lives.get_mut(&life) else { return };
        it.silent.get_or_insert(now);
        if it.end.is_some() {
            self.tracks.retain(|(observer, _), _| *observer != life);
        }
    }

    pub(super) fn accepted(&mut self, life: u64, stream: Stream, count: u64) {
        if let Some(life) = self.lives.get_mut(&life) {
            life.accepted.insert(stream, count);
        }
    }

    pub(super) fn calls(&mut self, life: u64, calls: Calls) {
        if let Some(life) = self.lives.get_mut(&life) {
            life.calls = calls;
        }
    }

    pub(super) fn arrived(&mut self, observer: u64, run: &Run) {
        self.received += run.end.saturating_sub(run.first);
        let track = self.tracks.entry((observer, run.life)).or_default().entry(run.stream).or_default();
        let Err(fault) = track.take(run.first, run.end) else { return };
        let (from, to) = (self.name(run.life), self.name(observer));
        self.wrong(format!("{to} got of {from}, {:?}: {fault}", run.stream));
    }

    pub(super) fn sees(&mut self, observer: u64, node: &str, sight: &Sight, now: Instant) {
        // Who was killed before it was ready has told nobody here who it was.
        let Some(subject) = self.nodes.get(node).copied() else { return };
        let end = self.lives.get(&subject).and_then(|life| life.end);
        let (who, of) = (self.name(observer), self.name(subject));
        let awaited = self.farewells.iter().position(|f| (f.observer, f.subject) == (observer, subject));
        match sight {
            Sight::Joined | Sight::Stalled | Sight::Recovered => return,
            Sight::Cut(why) => self.wrong(format!("{who} cut off {of}: {why}")),
            Sight::Died | Sight::Goodbye | Sight::Unread if end.is_none() => {
                self.wrong(format!("{who} was told that {of} is gone ({sight:?}), which is there"));
            }
            _ if !self.told.insert((observer, subject)) => {
                self.wrong(format!("{who} was told twice that {of} is gone"));
            }
            Sight::Died if end.is_some_and(|end| end.killed) => {
                self.deaths_told += 1;
                if let Some(at) = awaited {
                    let since = self.farewells[at].at;
                    self.slowest_word = self.slowest_word.max(now.saturating_duration_since(since));
                }
            }
            Sight::Goodbye if end.is_some_and(|end| !end.killed) => {}
            // Words of farewell may get lost where somebody is stopped.
            _ if awaited.is_none() => {}
            _ => self.wrong(format!("{who} was told of {of}: {sight:?}, which is not how it ended")),
        }
        if let Some(at) = awaited {
            self.farewells.swap_remove(at);
        }
    }

    /// There was no processor for so long, for whoever looks and so for those that are looked at: what is due waits.
    pub(super) fn was_away(&mut self, time: Duration) {
        self.starved += time;
        let calms = self.lives.values_mut().filter_map(|life| life.calm.as_mut());
        calms.chain(self.farewells.iter_mut().map(|farewell| &mut farewell.at)).for_each(|at| *at += time);
    }

    /// Looks whether anything is overdue.
    pub(super) fn look(&mut self, now: Instant) {
        let is_overdue = |calm: Option<Instant>, since: Instant, patience: Duration| {
            calm.is_some_and(|calm| calm.max(since) + patience <= now)
        };
        let farewells = std::mem::take(&mut self.farewells);
        for farewell in farewells {
            let calm = self.lives.get(&farewell.observer).and_then(|life| life.calm);
            if is_overdue(calm, farewell.at, PATIENCE) {
                let (who, of) = (self.name(farewell.observer), self.name(farewell.subject));
                self.wrong(format!("{who} was not told within {PATIENCE:?} that {of} is gone"));
            } else {
                self.farewells.push(farewell);
            }
        }
        for (observer, source) in self.open.clone() {
            let (Some(to), Some(from)) = (self.lives.get(&observer), self.lives.get(&source)) else {
                continue;
            };
            let tracks = self.tracks.entry((observer, source)).or_default();
            let streams = to.role.streams();
            match from.silent {
                None => {
                    // Both have been undisturbed for long: what is published from now on arrives.
                    let both = to.calm.zip(from.calm).map(|(one, other)| one.max(other));
                    if is_overdue(both, from.started, GRACE) {
                        for stream in streams {
                            let accepted = from.accepted.get(&stream).copied().unwrap_or(0);
                            tracks.entry(stream).or_default().is_due_from(accepted);
                        }
                    }
                }
                Some(silent) => {
                    let is_late = is_overdue(to.calm, silent, PATIENCE);
                    let mut faults = Vec::new();
                    let mut is_settled = true;
                    for stream in streams {
                        let accepted = from.accepted.get(&stream).copied().unwrap_or(0);
                        let track = tracks.entry(stream).or_default();
                        match track.settle(accepted, accepted + stream.in_flight()) {
                            Ok(()) => {}
                            Err(fault) if is_late || fault.is_final() => {
                                faults.push(format!("{} got of {}, {stream:?}: {fault}", to.name, from.name));
                            }
                            Err(_) => is_settled = false,
                        }
                    }
                    faults.into_iter().for_each(|fault| self.wrong(fault));
                    if is_settled {
                        self.open.remove(&(observer, source));
                    }
                }
            }
        }
    }

    /// Whether nothing is awaited any more, of publishers that have said all.
    pub(super) fn is_settled(&self) -> bool {
        let is_silent = |source| self.lives.get(source).is_some_and(|life| life.silent.is_some());
        self.farewells.is_empty() && !self.open.iter().any(|(_, source)| is_silent(source))
    }

    pub(super) fn has_become_ready(&self, life: u64) -> bool {
        self.lives.get(&life).is_some_and(Life::is_there)
    }

    /// Whether it is ready and undisturbed for so long.
    pub(super) fn is_calm_for(&self, life: u64, time: Duration, now: Instant) -> bool {
        self.lives.get(&life).and_then(|life| life.calm).is_some_and(|calm| calm + time <= now)
    }

    pub(super) fn published(&self) -> u64 {
        self.lives.values().flat_map(|life| life.accepted.values()).sum()
    }

    pub(super) fn all_calls(&self) -> Calls {
        let mut all = Calls::default();
        self.lives.values().for_each(|life| all.add(&life.calls));
        all
    }

    /// A client that has stopped has no call that did not end.
    pub(super) fn check_calls(&mut self, life: u64) {
        let Some(it) = self.lives.get(&life).filter(|life| life.role == Role::Client) else { return };
        let (made, ended) = (it.calls.made, it.calls.ended());
        if made != ended {
            let name = self.name(life);
            self.wrong(format!("{name} made {made} calls, of which {ended} have ended, each in one way"));
        }
    }

    fn name(&self, life: u64) -> String {
        self.lives.get(&life).map_or_else(|| format!("the life {life}"), |life| life.name.clone())
    }
}

impl Life {
    fn is_there(&self) -> bool {
        self.ready.is_some() && self.end.is_none()
    }
}

#[cfg(test)]
mod tests;
