//! Which way a thread goes through a system call, by the addresses of its instructions, and how others that go there are
//! found: what threads do between two calls differs from one victim to the next, and so does which of them comes first.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::AROUND;
use super::tracer::{Stop, Tracee};

/// Steps to a system call that are made at most, each some 50 µs: in the long form, and in the short one, whose build takes
/// more of them.
const MOST: usize = 200_000;
const MOST_IN_SHORT: usize = 10_000;
/// Threads that come by and take another way, until it is given up.
const OTHERS: usize = 2_000;

/// The addresses of the instructions around a system call, itself in their middle.
#[derive(Debug, Default)]
pub struct Way {
    addresses: Vec<u64>,
    /// Index of the call.
    call: usize,
    /// For each up to the call: how often the thread came by since its call before.
    met: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    There,
    /// It has gone part of the way.
    Near,
    /// It has come to its end.
    Over,
}

impl Way {
    /// That of a thread through the so-manieth call that it makes after the mark; of no length if it makes fewer.
    pub fn record(tracee: &mut Tracee, thread: usize, call: usize) -> Self {
        let around = AROUND as usize;
        if !run_to_gap(tracee, thread, call) {
            return Self::default();
        }
        let mut before = VecDeque::from([tracee.place(thread)]);
        let mut met = HashMap::<u64, u64>::new();
        for _ in 0..if super::is_long() { MOST } else { MOST_IN_SHORT } {
            let at_call = tracee.is_at_call(thread);
            let mut goes_on = step(tracee, thread);
            if at_call {
                let mut addresses: Vec<u64> = before.into();
                let met = addresses.iter().map(|address| met.get(address).copied().unwrap_or(1)).collect();
                let call = addresses.len() - 1;
                // One that does not return, or not in time, has nothing after it.
                while goes_on && addresses.len() <= call + around {
                    addresses.push(tracee.place(thread));
                    goes_on = step(tracee, thread);
                }
                return Self { addresses, call, met };
            }
            if !goes_on {
                break;
            }
            let here = tracee.place(thread);
            *met.entry(here).or_default() += 1;
            before.push_back(here);
            if before.len() > around + 1 {
                before.pop_front();
            }
        }
        Self::default()
    }

    /// Its length, and the same number for the same way.
    pub fn name(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.addresses[..self.addresses.len().min(self.call + 1)].hash(&mut hasher);
        format!("{} {} {}", self.call, self.addresses.len(), hasher.finish())
    }

    /// The part of it that ends so many instructions after the call. It begins with the instruction that the thread met
    /// least often, the first such, as each time costs two switches.
    pub fn to(&self, offset: i64) -> &[u64] {
        let Some(last) =
            self.call.checked_add_signed(offset as isize).filter(|last| *last < self.addresses.len())
        else {
            return &[];
        };
        let rarest = (0..=last.min(self.call)).min_by_key(|at| self.met[*at]).expect("itself");
        &self.addresses[rarest..=last]
    }
}

/// Has any thread that comes by the beginning of the trail go on along it, until one is at its end for which so many were
/// before it.
pub fn follow(tracee: &mut Tracee, trail: &[u64], mut before: u64) -> Arrival {
    let Some((first, rest)) = trail.split_first() else { return Arrival::Over };
    tracee.go_on(0);
    for _ in 0..OTHERS {
        let thread = loop {
            match tracee.next() {
                None => return Arrival::Over,
                Some((0, Stop::Mark)) => {}
                Some((thread, Stop::Step)) if tracee.place(thread) == *first => break thread,
                Some((thread, _)) => tracee.go_on(thread),
            }
        };
        tracee.stop_at_place(thread, false);
        let goes_on = |address: &u64| step(tracee, thread) && tracee.place(thread) == *address;
        match rest.iter().all(goes_on) {
            true if before == 0 => return Arrival::There,
            true => before -= 1,
            false => {}
        }
        tracee.stop_at_place(thread, true);
        tracee.go_on(thread);
    }
    Arrival::Near
}

/// Has a stopped thread make a step; false if the end came first. The main thread's mark is the end of what the others
/// do only if they do no more for a while.
pub fn step(tracee: &mut Tracee, thread: usize) -> bool {
    tracee.step(thread);
    loop {
        match tracee.next() {
            None => return false,
            Some((0, Stop::Mark)) if thread == 0 => return false,
            Some((0, Stop::Mark)) => {}
            Some((stopped, Stop::Step)) if stopped == thread => return true,
            Some((stopped, _)) => tracee.go_on(stopped),
        }
    }
}

/// Runs from the mark, all threads, to the stop of this one after which it makes its so-manieth call; false if it does
/// not.
fn run_to_gap(tracee: &mut Tracee, thread: usize, call: usize) -> bool {
    let mut entries = BTreeMap::<usize, usize>::new();
    if (thread, call) == (0, 0) {
        return true;
    }
    tracee.go_on(0);
    loop {
        let Some((stopped, stop)) = tracee.next() else { return false };
        if (stopped, stop) == (0, Stop::Mark) {
            if thread == 0 {
                return false;
            }
            continue;
        }
        let made = entries.entry(stopped).or_default();
        *made += usize::from(stop == Stop::Entry);
        if (stopped, *made) == (thread, call) && matches!(stop, Stop::Exit | Stop::Birth) {
            return true;
        }
        tracee.go_on(stopped);
    }
}
