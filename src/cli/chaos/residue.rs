//! What is left when the others have gone: nothing.

use std::time::Instant;

use super::super::Outcome;
use super::protocol::Order;
use super::stage::Stage;
use super::{LOOK, PATIENCE};

impl Stage {
    /// Has the witness say what it holds.
    pub(super) fn measure_witness(&mut self) -> Outcome {
        self.footprint = None;
        if let Some(witness) = self.playing().first().copied() {
            self.crew.order(witness, &Order::Measure);
            self.until(PATIENCE, "tell what they hold", |stage| stage.footprint.is_some())?;
        }
        Ok(())
    }

    /// The witness, alone again, holds what it did before it had company.
    pub(super) fn check_witness(&mut self) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.measure_witness()?;
            if self.footprint == self.baseline && self.baseline.is_some() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let (before, after) = (self.baseline, self.footprint);
                self.judge
                    .wrong(format!("the witness held {before:?} alone at first, and {after:?} at the end"));
                return Ok(());
            }
            self.tend(Instant::now() + LOOK)?;
        }
    }

    /// The bus's directory has the sockets of so many nodes, and nothing else.
    pub(super) fn check_directory(&mut self, nodes: usize) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(&self.bus_dir)? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            if names.len() == nodes {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let dir = self.bus_dir.display();
                self.judge.wrong(format!("with {nodes} nodes on the bus, {dir} has {}", names.join(", ")));
                return Ok(());
            }
            self.tend(Instant::now() + LOOK)?;
        }
    }
}
