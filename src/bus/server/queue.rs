//! Requests that were read and wait for a worker.
//!
//! They are taken in the order in which a port reads its logs: those of clients with a higher priority first,
//! and of the others their share (`turns.rs`); those of one priority as they came.

use std::collections::VecDeque;

use super::slot::CallId;
use crate::bus::turns::Turns;

/// Most bytes of requests that wait for a worker.
const BYTES: usize = 64 << 20;

/// What may wait.
pub(super) trait Waits {
    fn call(&self) -> CallId;
    fn priority(&self) -> u8;
    /// Of the payload.
    fn bytes(&self) -> usize;
}

/// The queue of one server.
pub(super) struct Queue<J> {
    /// One for each priority that was ever seen, from the highest to the lowest.
    classes: Vec<(u8, VecDeque<J>)>,
    turns: Turns,
    len: usize,
    bytes: usize,
}

impl<J> Default for Queue<J> {
    fn default() -> Self {
        Self { classes: Vec::new(), turns: Turns::default(), len: 0, bytes: 0 }
    }
}

impl<J: Waits> Queue<J> {
    /// Adds a request; gives it back if there are `limit` already, or too many bytes.
    pub(super) fn push(&mut self, job: J, limit: usize) -> Option<J> {
        let bytes = self.bytes + job.bytes();
        // One that is larger than all that may wait does so alone.
        if self.len >= limit || (bytes > BYTES && self.bytes > 0) {
            return Some(job);
        }
        (self.len, self.bytes) = (self.len + 1, bytes);
        let priority = job.priority();
        let class = match self.classes.iter().position(|(class, _)| *class == priority) {
            Some(class) => class,
            None => {
                let class = self.turns.insert(priority);
                self.classes.insert(class, (priority, VecDeque::new()));
                class
            }
        };
        self.classes[class].1.push_back(job);
        None
    }

    pub(super) fn pop(&mut self) -> Option<J> {
        let classes = &mut self.classes;
        let (turn, job) = self.turns.find(|class, _| classes[class].1.pop_front())?;
        self.turns.took(turn);
        (self.len, self.bytes) = (self.len - 1, self.bytes - job.bytes());
        Some(job)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Drops requests that nobody wants answered; how many.
    pub(super) fn cancel(&mut self, which: impl Fn(CallId) -> bool) -> usize {
        if self.len == 0 {
            return 0;
        }
        let before = self.len;
        let (len, bytes) = (&mut self.len, &mut self.bytes);
        for (_, jobs) in &mut self.classes {
            jobs.retain(|job| {
                let goes = which(job.call());
                if goes {
                    (*len, *bytes) = (*len - 1, *bytes - job.bytes());
                }
                !goes
            });
        }
        before - self.len
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Request {
        id: u64,
        priority: u8,
        bytes: usize,
    }

    impl Waits for Request {
        fn call(&self) -> CallId {
            (1, self.id)
        }

        fn priority(&self) -> u8 {
            self.priority
        }

        fn bytes(&self) -> usize {
            self.bytes
        }
    }

    fn ids(queue: &mut Queue<Request>) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop()).map(|request| request.id).collect()
    }

    #[test]
    fn the_limit_is_of_requests_and_of_bytes() {
        let request = |id, bytes| Request { id, priority: 1, bytes };
        let mut queue = Queue::default();
        assert_eq!(queue.push(request(1, 0), 0), Some(request(1, 0)));
        assert_eq!(queue.push(request(1, BYTES - 1), 3), None);
        assert_eq!(queue.push(request(2, 2), 3), Some(request(2, 2)));
        assert_eq!(queue.push(request(3, 1), 3), None);
        assert_eq!(queue.push(request(4, 0), 3), None);
        assert_eq!(queue.push(request(5, 0), 3), Some(request(5, 0)));
        assert_eq!(queue.cancel(|call| call == (1, 1)), 1);
        assert_eq!(queue.push(request(6, BYTES - 1), 3), None);
        assert_eq!((queue.len(), ids(&mut queue)), (3, vec![3, 4, 6]));
        assert_eq!((queue.len(), queue.bytes, queue.cancel(|_| true)), (0, 0, 0));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(u8),
        Pop,
        Cancel(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let push = prop::sample::select(vec![0, 7, 255]).prop_map(Step::Push);
        prop::collection::vec(
            prop_oneof![3 => push, 2 => Just(Step::Pop), 1 => (2..5u64).prop_map(Step::Cancel)],
            1..200,
        )
    }

    proptest! {
        #[test]
        fn each_request_comes_out_once_and_those_of_one_priority_in_order(steps in steps()) {
            const LIMIT: usize = 20;
            let (mut queue, mut model) = (Queue::default(), HashMap::<u8, VecDeque<Request>>::new());
            for (id, step) in (0..).zip(steps) {
                let len: usize = model.values().map(VecDeque::len).sum();
                match step {
                    Step::Push(priority) => {
                        let request = Request { id, priority, bytes: id as usize };
                        let refused = queue.push(request.clone(), LIMIT);
                        prop_assert_eq!(refused.is_some(), len == LIMIT);
                        if refused.is_none() {
                            model.entry(priority).or_default().push_back(request);
                        }
                    }
                    Step::Pop => match queue.pop() {
                        None => prop_assert_eq!(len, 0),
                        Some(request) => {
                            let first = model.get_mut(&request.priority).and_then(VecDeque::pop_front);
                            prop_assert_eq!(first, Some(request));
                        }
                    },
                    Step::Cancel(of) => {
                        let cancelled = queue.cancel(|(_, id)| id % of == 0);
                        model.values_mut().for_each(|jobs| jobs.retain(|job| job.id % of != 0));
                        let left: usize = model.values().map(VecDeque::len).sum();
                        prop_assert_eq!(cancelled, len - left);
                    }
                }
                prop_assert_eq!(queue.len(), model.values().map(VecDeque::len).sum::<usize>());
                prop_assert_eq!(queue.bytes, model.values().flatten().map(Waits::bytes).sum::<usize>());
            }
        }
    }
}
