//! Both ends dial: whatever the order of events, one connection stays, and each end tells of it once.

use super::net::{Choices, Net, Step, id};
use crate::control::Gone;
use crate::control::hub::Event;

/// Two nodes that each dial the other at some point, unless they know each other by then. Each sends
/// messages 1 and 2 (with an fd, and with two) as soon as it is told that the other is up.
struct Crossing {
    net: Net,
    to_dial: Vec<usize>,
    greeted: [bool; 2],
}

#[derive(Debug, Clone, Copy)]
enum Move {
    Dial(usize),
    Step(Step),
}

impl Crossing {
    fn new() -> Self {
        Self { net: Net::new(2), to_dial: vec![0, 1], greeted: [false; 2] }
    }

    fn moves(&self) -> Vec<Move> {
        let dials = self.to_dial.iter().map(|node| Move::Dial(*node));
        dials.chain(self.net.steps().into_iter().map(Move::Step)).collect()
    }

    fn take(&mut self, next: Move) {
        match next {
            Move::Dial(node) => {
                self.to_dial.retain(|other| *other != node);
                if !self.net.nodes[node].hub.knows(id(1 - node)) {
                    self.net.dial(node, 1 - node);
                }
            }
            Move::Step(step) => self.net.take(step),
        }
        for node in 0..2 {
            if self.net.ups(node) == 1 && !std::mem::replace(&mut self.greeted[node], true) {
                self.net.send(node, 1 - node, 1);
                self.net.send(node, 1 - node, 2);
            }
        }
    }

    fn finish(&mut self) {
        while let Some(next) = self.moves().first() {
            self.take(*next);
        }
    }
}

#[test]
fn every_order_of_crossing_dials_ends_with_one_session() {
    let (mut crossed, mut plain) = (0, 0);
    Choices::each(|choices| {
        let mut run = Crossing::new();
        run.net.asks = choices.pick(2) == 0;
        // All orders up to the last handshake; what comes then is in the order that one connection keeps.
        while run.net.ups(0) + run.net.ups(1) < 2 {
            let moves = run.moves();
            run.take(moves[choices.pick(moves.len())]);
        }
        run.finish();
        run.net.assert_joined(0, 1);
        for node in 0..2 {
            run.net.assert_sane(node);
            assert_eq!(run.net.received(node, 1 - node), [1, 2]);
        }
        *(if run.net.wires.len() == 2 { &mut crossed } else { &mut plain }) += 1;
    });
    assert!(crossed > 40 && plain > 2, "{crossed} crossed, {plain} did not");
}

#[test]
fn every_order_in_which_messages_overtake_the_losing_connections_end() {
    let runs = Choices::each(|choices| {
        let mut run = Crossing::new();
        run.net.asks = choices.pick(2) == 0;
        run.take(Move::Dial(0));
        run.take(Move::Dial(1));
        run.take(Move::Step(Step::Accept { wire: 0 }));
        loop {
            let moves = run.moves();
            if moves.is_empty() {
                break;
            }
            run.take(moves[choices.pick(moves.len())]);
        }
        run.net.assert_joined(0, 1);
        for node in 0..2 {
            assert_eq!(run.net.received(node, 1 - node), [1, 2]);
        }
    });
    assert!(runs > 1_000, "{runs}");
}

#[test]
fn a_death_at_any_point_of_any_order_is_told_once_if_at_all() {
    let mut told = [0; 2];
    Choices::each(|choices| {
        let mut run = Crossing::new();
        let victim = choices.pick(2);
        let survivor = 1 - victim;
        loop {
            let moves = run.moves();
            // The last option: now.
            let chosen = choices.pick(moves.len() + 1);
            match moves.get(chosen) {
                Some(next) if run.net.ups(0) + run.net.ups(1) < 2 => run.take(*next),
                _ => break,
            }
        }
        run.to_dial.clear();
        run.net.kill(victim);
        run.finish();

        let events = &run.net.nodes[survivor].events;
        run.net.assert_sane(survivor);
        let ups = run.net.ups(survivor);
        assert!(ups <= 1, "{events:?}");
        assert_eq!(run.net.downs(survivor), vec![Gone::Died; ups]);
        assert_eq!(run.net.nodes[survivor].hub.peers().count(), 0);
        assert!(!run.net.nodes[survivor].hub.knows(id(victim)), "may be dialled again");
        told[ups] += 1;
    });
    assert!(told[0] > 10 && told[1] > 10, "{told:?}");
}

#[test]
fn a_dead_peers_last_messages_come_before_its_end() {
    let mut run = Crossing::new();
    run.finish();
    run.net.send(1, 0, 3);
    run.net.send(1, 0, 5);
    run.net.kill(1);
    run.finish();
    assert_eq!(run.net.received(0, 1), [1, 2, 3, 5]);
    assert_eq!(run.net.nodes[0].events.last(), Some(&Event::Down { peer: id(1), why: Gone::Died }));
}

/// The lower id's dial wins, but its connection fails at either end before the answer: the connection of
/// the higher, held meanwhile, takes its place.
#[test]
fn the_held_connection_is_admitted_when_the_winner_fails() {
    for failing in 0..2 {
        let mut run = Crossing::new();
        run.take(Move::Dial(0));
        run.take(Move::Dial(1));
        run.take(Move::Step(Step::Accept { wire: 0 }));
        run.take(Move::Step(Step::Accept { wire: 1 }));
        run.take(Move::Step(Step::Deliver { wire: 1, end: 1 }));
        assert_eq!((run.net.ups(0), run.net.under_way(1, 0).len()), (0, 0), "held: not answered");
        let conn = run.net.wires[0][failing].conn.expect("accepted");
        run.net.nodes[failing].hub.handle_lost(conn);
        run.net.flush();
        run.finish();
        run.net.assert_joined(0, 1);
        assert_eq!(run.net.open_wires(), [1]);
        for node in 0..2 {
            assert_eq!(run.net.received(node, 1 - node), [1, 2]);
        }
    }
}

#[test]
fn the_held_connection_is_admitted_when_the_winner_stays_silent() {
    let mut run = Crossing::new();
    run.take(Move::Dial(0));
    run.net.advance(std::time::Duration::from_millis(500));
    run.take(Move::Dial(1));
    run.take(Move::Step(Step::Accept { wire: 1 }));
    run.take(Move::Step(Step::Deliver { wire: 1, end: 1 }));
    run.net.advance(std::time::Duration::from_millis(1500));
    assert_eq!(run.net.ups(0), 1);
}

#[test]
fn three_nodes_that_all_dial_each_other_are_all_joined() {
    let mut net = Net::new(3);
    for (from, to) in [(0, 1), (1, 0), (1, 2), (2, 1), (2, 0), (0, 2)] {
        net.dial(from, to);
    }
    net.settle();
    for (one, other) in [(0, 1), (1, 2), (0, 2)] {
        net.assert_joined(one, other);
    }
}
