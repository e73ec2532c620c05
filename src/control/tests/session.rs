//! One established session: full sockets, fds under way, and fds that the receiver had no room for.

use std::time::Duration;

use proptest::prelude::*;

use super::net::{Net, Step, id, numbered};
use crate::control::Gone;
use crate::control::hub::Event;
use crate::control::session::{RESEND_AFTER, RESENDS, WELL_AFTER};
use crate::frame::Control;

/// Longer than a receiver without room for fds waits before it asks for them again.
const A_WHILE: Duration = RESEND_AFTER;

/// Time passes until nothing happens any more.
fn settle_in_time(net: &mut Net) {
    for _ in 0..3 {
        net.settle();
        net.advance(A_WHILE * (1 << RESENDS));
    }
    net.settle();
}

#[test]
fn a_full_socket_delays_and_keeps_the_order() {
    let mut net = Net::joined();
    net.room = 3;
    for n in 0..50 {
        net.send(0, 1, n);
    }
    assert_eq!(net.under_way(0, 1).len(), 3);
    net.settle();
    assert_eq!(net.received(1, 0), (0..50).collect::<Vec<_>>());
    net.assert_joined(0, 1);
}

/// [`Net`] asserts it after every step; here the bound is reached, and acks lift it.
#[test]
fn no_more_than_eight_fds_are_under_way() {
    let mut net = Net::joined();
    for _ in 0..6 {
        net.send(0, 1, 2);
    }
    net.send(0, 1, 3);
    let under_way = vec![numbered(2).0; 4];
    assert_eq!(net.under_way(0, 1), under_way, "what has no fds does not overtake");
    for _ in 0..4 {
        net.take(Step::Deliver { wire: 0, end: 1 });
    }
    assert!(net.under_way(0, 1).is_empty(), "received, but not acknowledged");
    assert_eq!(net.under_way(0, 0)[0], Control::Ack { count: 2 }, "the hello was the first");
    net.take(Step::Deliver { wire: 0, end: 0 });
    assert_eq!(net.under_way(0, 1), [numbered(2).0]);
    net.settle();
    assert_eq!(net.received(1, 0), [2, 2, 2, 2, 2, 2, 3]);
}

#[test]
fn acks_do_not_pile_up_for_a_peer_that_does_not_read() {
    let mut net = Net::joined();
    for n in 0..40 {
        net.send(0, 1, 4 * n + 1);
        net.room = 0;
        // The peer's acks find no room in this node's socket.
        net.deliver(0, 1, false);
        net.room = 278;
        if n % 8 == 7 {
            let acks = net.under_way(0, 0).len();
            assert!(acks <= 8, "{acks}");
            net.settle();
        }
    }
    let conn = net.wires[0][1].conn.expect("accepted");
    net.room = 0;
    let hub = &mut net.nodes[1].hub;
    let (control, fds) = numbered(1);
    let bytes = super::encode(&control);
    for _ in 0..1000 {
        hub.handle_datagram(conn, &bytes, fds.clone(), false, net.now);
        assert!(hub.poll_transmit(conn).is_some());
    }
    let mut acks = 0;
    while hub.poll_transmit(conn).is_some() {
        hub.transmitted(conn);
        acks += 1;
    }
    assert!(acks <= 2, "{acks} acks");
}

#[test]
fn a_datagram_whose_fds_were_lost_is_sent_again_with_all_that_followed() {
    let mut net = Net::joined();
    for n in [3, 2, 7, 1, 11] {
        net.send(0, 1, n);
    }
    net.deliver(0, 1, true); // has none to lose
    net.deliver(0, 1, true);
    net.settle();
    assert_eq!(net.received(1, 0), [3], "what follows has to wait");
    assert!(net.nodes[1].hub.poll_timeout().is_some());
    net.advance(A_WHILE);
    assert_eq!(net.under_way(0, 0), [Control::Resend { from: 2 }]);
    net.take(Step::Deliver { wire: 0, end: 0 });
    let again = [Control::Resending { from: 2 }, numbered(2).0, numbered(7).0, numbered(1).0, numbered(11).0];
    assert_eq!(net.under_way(0, 1), again);
    net.settle();
    assert_eq!(net.received(1, 0), [3, 2, 7, 1, 11]);
    assert_eq!(net.nodes[1].hub.poll_timeout(), None);
}

#[test]
fn what_is_sent_between_the_question_and_the_answer_arrives_once() {
    let mut net = Net::joined();
    net.send(0, 1, 1);
    net.deliver(0, 1, true);
    net.send(0, 1, 3);
    net.advance(A_WHILE);
    net.send(0, 1, 2);
    net.take(Step::Deliver { wire: 0, end: 1 });
    net.take(Step::Deliver { wire: 0, end: 0 }); // the question
    net.send(0, 1, 7);
    net.settle();
    assert_eq!(net.received(1, 0), [1, 3, 2, 7]);
}

/// Whether each message that node 1 has had came with its fds.
fn bare(net: &Net) -> Vec<bool> {
    let events = net.nodes[1].events.iter();
    events
        .filter_map(|event| if let Event::Message { bare, .. } = event { Some(*bare) } else { None })
        .collect()
}

#[test]
fn fds_lost_again_and_again_are_asked_for_a_few_times_each_after_twice_as_long() {
    let mut net = Net::joined();
    net.send(0, 1, 2);
    net.send(0, 1, 3);
    for round in 0..RESENDS {
        while !net.under_way(0, 1).is_empty() {
            net.deliver(0, 1, true);
        }
        assert!(net.received(1, 0).is_empty(), "round {round}");
        net.advance(A_WHILE * (1 << round) - Duration::from_millis(1));
        assert!(net.under_way(0, 0).is_empty(), "no sooner: it would be out of fds still");
        net.advance(Duration::from_millis(1));
        assert_eq!(net.under_way(0, 0), [Control::Resend { from: 1 }]);
        net.take(Step::Deliver { wire: 0, end: 0 });
    }
    net.deliver(0, 1, false);
    net.deliver(0, 1, true);
    net.settle();
    assert_eq!(net.received(1, 0), [2, 3], "then they are done without");
    assert_eq!(bare(&net), [true, false]);
    assert_eq!(net.nodes[1].hub.poll_timeout(), None);
    net.assert_joined(0, 1);
}

/// A node that has lost fds for longer than it asks takes what follows as it comes: its peers have waited for it once.
#[test]
fn a_shortage_that_lasts_holds_up_a_peer_once() {
    let mut net = Net::joined();
    let lose_one = |net: &mut Net, n| {
        net.send(0, 1, n);
        while !net.under_way(0, 1).is_empty() {
            net.deliver(0, 1, true);
        }
    };
    lose_one(&mut net, 2);
    settle_losing(&mut net);
    assert_eq!(net.received(1, 0), [2]);
    for round in 0..20 {
        net.advance(WELL_AFTER * 2);
        lose_one(&mut net, 6 + 4 * round);
        net.settle();
        assert_eq!(net.received(1, 0).len() as u64, round + 2, "nobody waits for it");
    }
    assert!(bare(&net).iter().all(|bare| *bare));
    // Some room for a moment is no room.
    net.send(0, 1, 1);
    net.settle();
    assert_eq!(bare(&net).last(), Some(&false));
    lose_one(&mut net, 5);
    assert_eq!(bare(&net).last(), Some(&true));
    net.settle();
    net.advance(WELL_AFTER);
    net.send(0, 1, 9);
    net.settle();
    lose_one(&mut net, 13);
    net.settle();
    let all = net.received(1, 0).len();
    assert_eq!(net.received(1, 0).last(), Some(&9), "it asks again");
    net.advance(A_WHILE);
    net.settle();
    assert_eq!(net.received(1, 0)[all..], [13]);
    assert_eq!(bare(&net).last(), Some(&false));
    net.assert_joined(0, 1);
}

/// Whatever comes loses its fds, for as long as they are asked for.
fn settle_losing(net: &mut Net) {
    for round in 0..RESENDS {
        net.advance(A_WHILE * (1 << round));
        net.take(Step::Deliver { wire: 0, end: 0 });
        while !net.under_way(0, 1).is_empty() {
            net.deliver(0, 1, true);
        }
    }
    net.settle();
}

#[test]
fn both_directions_may_lose_fds_at_once() {
    let mut net = Net::joined();
    for n in 1..20 {
        net.send(0, 1, n);
        net.send(1, 0, n);
    }
    for _ in 0..3 {
        net.deliver(0, 0, true);
        net.deliver(0, 1, true);
    }
    settle_in_time(&mut net);
    for node in 0..2 {
        assert_eq!(net.received(node, 1 - node), (1..20).collect::<Vec<_>>());
    }
    net.assert_joined(0, 1);
}

#[test]
fn fewer_fds_than_were_sent_are_as_good_as_none() {
    let mut net = Net::joined();
    net.send(0, 1, 2);
    let conn = net.wires[0][1].conn.expect("accepted");
    let (control, fds) = numbered(2);
    net.nodes[1].hub.handle_datagram(conn, &super::encode(&control), fds[..1].to_vec(), true, net.now);
    assert!(net.received(1, 0).is_empty());
    net.settle();
    net.advance(A_WHILE);
    net.settle();
    assert_eq!(net.received(1, 0), [2]);
}

#[test]
fn a_goodbye_holds_even_if_what_came_before_has_lost_its_fds() {
    let mut net = Net::joined();
    net.send(0, 1, 1);
    net.deliver(0, 1, true);
    net.nodes[0].hub.send(id(1), &Control::Goodbye, &[]);
    net.flush();
    net.kill(0);
    net.settle();
    assert_eq!(net.downs(1), [Gone::Goodbye]);
}

#[test]
fn marks_are_reached_once_all_below_is_in_the_socket() {
    let mut net = Net::joined();
    let hub = |net: &Net| (net.nodes[0].hub.mark(id(1)), net.nodes[0].hub.has_sent(id(1), 3));
    assert_eq!(hub(&net).0, Some(1), "the hello");
    net.room = 0;
    net.send(0, 1, 1);
    net.send(0, 1, 3);
    assert_eq!(hub(&net), (Some(3), false));
    net.room = 1;
    net.flush();
    assert_eq!(hub(&net), (Some(3), false));
    net.settle();
    assert_eq!(hub(&net), (Some(3), true));
    assert_eq!(net.nodes[0].hub.mark(id(7)), None);
}

#[test]
fn marks_hold_while_datagrams_are_sent_again() {
    let mut net = Net::joined();
    for n in [1, 3, 5] {
        net.send(0, 1, n);
    }
    let mark = net.nodes[0].hub.mark(id(1)).expect("up");
    net.deliver(0, 1, true);
    net.settle();
    net.advance(A_WHILE);
    net.room = 2;
    net.take(Step::Deliver { wire: 0, end: 0 });
    assert_eq!(net.under_way(0, 1), [Control::Resending { from: 1 }, numbered(1).0], "no room for more");
    let hub = &net.nodes[0].hub;
    assert!(hub.has_sent(id(1), mark), "it was in the socket");
    assert_eq!(hub.mark(id(1)), Some(mark));
    net.send(0, 1, 7);
    let later = net.nodes[0].hub.mark(id(1)).expect("up");
    assert_eq!(later, mark + 1);
    net.room = 3;
    net.flush();
    assert!(!net.nodes[0].hub.has_sent(id(1), later), "those before it come first");
    net.settle();
    assert!(net.nodes[0].hub.has_sent(id(1), later));
    assert_eq!(net.received(1, 0), [1, 3, 5, 7]);
}

#[derive(Debug, Clone)]
enum Act {
    Send { from: usize },
    Deliver { end: usize, lose_fds: bool },
    Wait { ms: u64 },
    Room { room: usize },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..2usize).prop_map(|from| Act::Send { from }),
        4 => (0..2usize, any::<bool>()).prop_map(|(end, lose_fds)| Act::Deliver { end, lose_fds }),
        1 => (0..30u64).prop_map(|ms| Act::Wait { ms }),
        1 => (0..6usize).prop_map(|room| Act::Room { room }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_is_lost_every_message_arrives_once_and_in_order(
        acts in proptest::collection::vec(act(), 0..150),
    ) {
        let mut net = Net::joined();
        let mut sent = [0, 0];
        for act in acts {
            match act {
                Act::Send { from } => {
                    net.send(from, 1 - from, sent[from]);
                    sent[from] += 1;
                }
                Act::Deliver { end, lose_fds } => net.deliver(0, end, lose_fds),
                Act::Wait { ms } => net.advance(Duration::from_millis(ms)),
                Act::Room { room } => net.room = room,
            }
            for node in 0..2 {
                let received = net.received(node, 1 - node);
                prop_assert!(received.iter().copied().eq(0..received.len() as u64), "{received:?}");
            }
        }
        net.room = 4;
        settle_in_time(&mut net);
        net.assert_joined(0, 1);
        for node in 0..2 {
            prop_assert_eq!(net.received(node, 1 - node).len() as u64, sent[1 - node]);
        }
    }
}
