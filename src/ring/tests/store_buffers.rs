//! The biased barrier, on every execution of a machine with store buffers (x86-TSO: P. Sewell et al., "x86-TSO",
//! CACM 53(7), 2010), since loom knows no `membarrier`.
//!
//! A writer publishes, a reader that has promised not to park takes the promise back and parks. Each processor
//! has a buffer from which its stores reach memory one by one, at any time; a fence empties its own, a barrier
//! everybody's. Explored are all interleavings of both programs' steps and of the buffers' draining. What must
//! hold: whenever the reader ends up asleep, it has seen the record or the writer rings.

use std::collections::{BTreeMap, HashSet, VecDeque};

const TAIL: usize = 0;
const MAY_PARK: usize = 1;
const PARKED: usize = 2;
const GENERATION: usize = 3;

/// What a step of a program does to the words; registers are what is asked about at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Store(usize, u8),
    /// Loads into the program's register of the same number.
    Load(usize),
    Fence,
    /// A fence, unless the register holds 0.
    FenceUnlessZero(usize),
    /// A fence, if the register does not hold 0: another view of the gates than before.
    FenceIf(usize),
    /// Empties everybody's buffer: `membarrier(2)`.
    Barrier,
}
use Step::*;

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Cpu {
    at: usize,
    buffer: VecDeque<(usize, u8)>,
    registers: BTreeMap<usize, u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Machine {
    words: [u8; 4],
    cpus: [Cpu; 2],
}

impl Machine {
    fn drain(&mut self, cpu: usize) {
        while self.drain_one(cpu) {}
    }

    fn drain_one(&mut self, cpu: usize) -> bool {
        let Some((word, value)) = self.cpus[cpu].buffer.pop_front() else { return false };
        self.words[word] = value;
        true
    }

    fn load(&self, cpu: usize, word: usize) -> u8 {
        let own = self.cpus[cpu].buffer.iter().rev().find(|(stored, _)| *stored == word);
        own.map_or(self.words[word], |(_, value)| *value)
    }

    fn step(&mut self, cpu: usize, step: Step) {
        let register = |word| self.cpus[cpu].registers.get(&word).copied().unwrap_or_default();
        match step {
            Store(word, value) => self.cpus[cpu].buffer.push_back((word, value)),
            Load(word) => {
                let value = self.load(cpu, word);
                self.cpus[cpu].registers.insert(word, value);
            }
            Fence => self.drain(cpu),
            FenceUnlessZero(word) | FenceIf(word) => {
                if register(word) != 0 {
                    self.drain(cpu);
                }
            }
            Barrier => {
                self.drain(0);
                self.drain(1);
            }
        }
        self.cpus[cpu].at += 1;
    }
}

/// Runs both programs in every way; the machines at the end.
fn explore(words: [u8; 4], programs: [&[Step]; 2]) -> Vec<Machine> {
    let mut ends = Vec::new();
    let mut seen = HashSet::new();
    let mut todo = vec![Machine { words, cpus: [Cpu::default(), Cpu::default()] }];
    while let Some(machine) = todo.pop() {
        if !seen.insert(machine.clone()) {
            continue;
        }
        let mut over = true;
        for (cpu, program) in programs.iter().enumerate() {
            if let Some(step) = program.get(machine.cpus[cpu].at) {
                let mut next = machine.clone();
                next.step(cpu, *step);
                todo.push(next);
                over = false;
            }
            let mut next = machine.clone();
            if next.drain_one(cpu) {
                todo.push(next);
                over = false;
            }
        }
        if over {
            ends.push(machine);
        }
    }
    ends
}

/// `Writer::publish`, then the look at `parked` in `Writer::ring`.
const PUBLISH: &[Step] = &[Store(TAIL, 1), Load(MAY_PARK), FenceUnlessZero(MAY_PARK), Load(PARKED)];

/// Whether any execution loses the sleeper: asleep, the record not seen, and not rung for.
fn loses(words: [u8; 4], writer: &[Step], reader: &[Step]) -> bool {
    explore(words, [writer, reader]).iter().any(|end| {
        let rung = end.cpus[0].registers.get(&PARKED) == Some(&1);
        let seen = end.cpus[1].registers.get(&TAIL) == Some(&1);
        !rung && !seen
    })
}

#[test]
fn a_reader_that_takes_its_promise_back_by_a_barrier_is_never_lost() {
    let park = [Store(MAY_PARK, 1), Barrier, Store(PARKED, 1), Fence, Load(TAIL)];
    assert!(!loses([0, 0, 0, 0], PUBLISH, &park));
}

#[test]
fn a_reader_that_never_promised_is_never_lost() {
    let park = [Store(PARKED, 1), Fence, Load(TAIL)];
    assert!(!loses([0, 1, 0, 0], PUBLISH, &park));
}

#[test]
fn each_step_is_needed() {
    let without_barrier = [Store(MAY_PARK, 1), Fence, Store(PARKED, 1), Fence, Load(TAIL)];
    assert!(loses([0, 0, 0, 0], PUBLISH, &without_barrier));
    let parked_before = [Store(PARKED, 1), Store(MAY_PARK, 1), Fence, Load(TAIL)];
    assert!(loses([0, 0, 0, 0], PUBLISH, &parked_before));
    let without_fence = [Store(PARKED, 1), Load(TAIL)];
    assert!(loses([0, 1, 0, 0], PUBLISH, &without_fence));
    let looks_first = [Load(MAY_PARK), Store(TAIL, 1), FenceUnlessZero(MAY_PARK), Load(PARKED)];
    let park = [Store(MAY_PARK, 1), Barrier, Store(PARKED, 1), Fence, Load(TAIL)];
    assert!(loses([0, 0, 0, 0], &looks_first, &park), "`may_park` is loaded after the tail is stored");
}

/// A late gate: the control thread bumps the generation, runs a barrier on the publishing thread, loads the tail.
/// The record is the new reader's (its gate stands before it) only if that load missed it.
#[test]
fn a_late_gate_is_seen_by_the_publish_that_its_control_thread_missed() {
    let publish = [Store(TAIL, 1), Load(GENERATION)];
    let gate = [Store(GENERATION, 1), Barrier, Load(TAIL)];
    let missed = |end: &Machine| {
        end.cpus[1].registers.get(&TAIL) == Some(&0) && end.cpus[0].registers.get(&GENERATION) == Some(&0)
    };
    assert!(!explore([0; 4], [&publish, &gate]).iter().any(missed));
    let unfenced = [Store(GENERATION, 1), Load(TAIL)];
    assert!(explore([0; 4], [&publish, &unfenced]).iter().any(missed), "the barrier is needed");
}

/// The same reader then parks; the writer, which had no reader to fence for, finds it when it rings.
#[test]
fn a_reader_gated_during_a_publish_without_fence_is_rung() {
    let publish = [Store(TAIL, 1), Load(GENERATION), FenceIf(GENERATION), Load(PARKED)];
    let attach_and_park = [Store(GENERATION, 1), Barrier, Load(TAIL), Store(PARKED, 1), Fence, Load(TAIL)];
    assert!(!loses([0; 4], &publish, &attach_and_park));
    let unfenced = [Store(TAIL, 1), Load(GENERATION), Load(PARKED)];
    assert!(loses([0; 4], &unfenced, &attach_and_park), "the fence after the look at the gates is needed");
}
