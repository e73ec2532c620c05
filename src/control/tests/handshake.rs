//! Who is let in, and how long the answer may take.

use std::time::Duration;

use super::net::{ADMISSION, Net, Step, UID, card, credentials, id};
use crate::control::Gone;
use crate::control::hub::{Admission, Event, Hub, Refusal};
use crate::control::{HANDSHAKE, VERSION};
use crate::frame::{Control, Hello};

/// A node of a later major version.
const LATER: (u16, u16) = (VERSION.0 + 1, 3);

pub(super) fn hello(node: usize) -> Hello<'static> {
    let (major, minor) = VERSION;
    Hello { major, minor, id: id(node).0, name: "raw", started_unix_ms: 5, capabilities: u64::MAX }
}

#[test]
fn a_dial_is_answered_and_each_learns_who_the_other_is() {
    let net = Net::joined();
    for node in 0..2 {
        let peer = 1 - node;
        let up = Event::Up { card: card(peer), credentials: credentials(peer), capabilities: 0 };
        assert_eq!(net.nodes[node].events, [up]);
        assert!(net.nodes[node].hub.knows(id(peer)) && net.nodes[node].hub.knows(id(node)));
        assert_eq!(net.nodes[node].hub.poll_timeout(), None, "nothing left to wait for");
    }
}

#[test]
fn capabilities_hold_that_both_have() {
    let mut net = Net::new(2);
    net.nodes[0].hub = Hub::new(card(0), 0b0110, ADMISSION);
    net.nodes[1].hub = Hub::new(card(1), 0b1100, ADMISSION);
    net.dial(0, 1);
    net.settle();
    for node in &net.nodes {
        assert!(matches!(node.events[..], [Event::Up { capabilities: 0b0100, .. }]), "{:?}", node.events);
    }
}

#[test]
fn another_major_version_is_refused_on_both_sides_and_harms_nobody_else() {
    for (from, to) in [(0, 1), (1, 0)] {
        let mut net = Net::new(3);
        net.nodes[1].hub.version = LATER;
        net.dial(from, to);
        net.dial(2, 0);
        net.settle();
        let refusal = |theirs, ours| Refusal::Incompatible { theirs, ours };
        assert_eq!(net.refusals(0), [(Some(id(1)), refusal(LATER, VERSION))]);
        assert_eq!(net.refusals(1), [(Some(id(0)), refusal(VERSION, LATER))]);
        assert_eq!((net.ups(0), net.ups(1), net.ups(2)), (1, 0, 1));
        for (node, other) in [(0, 1), (1, 0)] {
            if !net.nodes[node].hub.knows(id(other)) {
                assert_eq!(node, to, "one that has called is dialled once: the caller might be another");
                net.dial(node, other);
            }
            assert!(net.nodes[node].hub.knows(id(other)), "no point in dialling again");
            assert_eq!(net.refusals(node).len(), 1);
        }
        assert_eq!(net.open_wires(), [1]);
    }
}

/// Whoever calls can say what he likes: but the one that it is said of is let in, however he comes.
#[test]
fn a_liar_in_the_name_of_another_node_refuses_itself_alone() {
    for from in [0, 1] {
        let mut net = Net::new(2);
        let hello =
            |major| Hello { major, minor: 0, id: id(1).0, name: "liar", started_unix_ms: 0, capabilities: 0 };
        let now = net.now;
        let hub = &mut net.nodes[0].hub;
        let mut call = |major| {
            let conn = hub.accepted(credentials(7), now).expect("of this user");
            hub.handle_datagram(conn, &super::encode(&Control::Hello(hello(major))), Vec::new(), false, now);
            hub.awaits_hello(conn) || hub.has_conn(id(1))
        };
        assert!(!call(LATER.0), "it is refused");
        assert!(!call(VERSION.0), "and stays so");
        assert!(!hub.knows(id(1)));
        while hub.poll_event().is_some() {}
        net.dial(from, 1 - from);
        net.settle();
        net.assert_joined_still(0, 1);
    }
}

#[test]
fn crossing_dials_of_another_major_version_are_told_once_a_side() {
    let mut net = Net::new(2);
    net.nodes[1].hub.version = LATER;
    net.dial(0, 1);
    net.dial(1, 0);
    net.settle();
    assert_eq!((net.refusals(0).len(), net.refusals(1).len()), (1, 1));
    assert!(net.open_wires().is_empty());
}

#[test]
fn a_newer_minor_version_is_welcome() {
    let mut net = Net::new(2);
    net.nodes[1].hub.version = (VERSION.0, VERSION.1 + 1);
    net.dial(0, 1);
    net.settle();
    net.assert_joined(0, 1);
}

#[test]
fn another_user_is_refused_unless_the_bus_is_a_groups() {
    let uid = UID + 1;
    for (group, refused) in [
        (None, Some(Refusal::OtherUser { uid: UID })),
        (Some(credentials(0).gid), None),
        (Some(8), Some(Refusal::NotInGroup { uid: UID, group: 8 })),
    ] {
        let mut net = Net::new(2);
        net.nodes[1].hub = Hub::new(card(1), 0, Admission { uid, group });
        net.dial(0, 1);
        net.settle();
        match refused {
            Some(why) => assert_eq!((net.ups(1), net.refusals(1)), (0, vec![(None, why)])),
            None => net.assert_joined(0, 1),
        }
    }
}

#[test]
fn another_users_socket_is_not_even_greeted() {
    let mut net = Net::new(2);
    net.nodes[0].hub = Hub::new(card(0), 0, Admission { uid: UID + 1, group: None });
    net.dial(0, 1);
    assert_eq!(net.refusals(0), [(Some(id(1)), Refusal::OtherUser { uid: UID })]);
    assert!(net.under_way(0, 1).is_empty());
    assert!(net.nodes[0].hub.knows(id(1)), "not dialled again");
}

#[test]
fn an_unanswered_dial_ends_after_two_seconds_and_may_be_tried_again() {
    let mut net = Net::new(2);
    net.dial(0, 1);
    assert_eq!(net.nodes[0].hub.poll_timeout(), Some(net.now + HANDSHAKE));
    net.advance(HANDSHAKE - Duration::from_millis(1));
    assert!(!net.wires[0][0].closed && net.nodes[0].hub.knows(id(1)));
    net.advance(Duration::from_millis(1));
    assert!(net.wires[0][0].closed && !net.nodes[0].hub.knows(id(1)));
    assert!(net.nodes[0].events.is_empty(), "silence is not told");
    assert_eq!(net.nodes[0].hub.poll_timeout(), None);
}

#[test]
fn a_caller_that_says_nothing_is_closed_after_two_seconds() {
    let mut net = Net::new(1);
    let wire = net.dial_raw(0);
    net.advance(HANDSHAKE - Duration::from_millis(1));
    assert!(!net.wires[wire][1].closed);
    net.advance(Duration::from_millis(1));
    assert!(net.wires[wire][1].closed);
    assert!(net.nodes[0].events.is_empty());
}

#[test]
fn an_established_session_is_never_too_slow() {
    let mut net = Net::joined();
    net.advance(Duration::from_secs(3600));
    net.assert_joined(0, 1);
}

#[test]
fn a_node_that_calls_itself_is_closed() {
    let mut net = Net::new(1);
    let wire = net.dial_raw(0);
    net.inject_control(wire, 1, Control::Hello(hello(0)), &[]);
    assert!(net.wires[wire][1].closed);
    assert!(net.nodes[0].events.is_empty());
}

#[test]
fn a_socket_that_answers_as_another_node_is_refused() {
    let mut net = Net::new(3);
    let wire = net.dial(0, 1);
    net.inject_control(wire, 0, Control::HelloAck(hello(2)), &[]);
    assert!(matches!(&net.refusals(0)[..], [(Some(peer), Refusal::Protocol { .. })] if *peer == id(1)));
    assert_eq!(net.ups(0), 0);
    net.dial(2, 0);
    net.settle();
    net.assert_joined_still(0, 2);
}

#[test]
fn an_answer_of_another_major_version_is_refused() {
    let mut net = Net::new(2);
    let wire = net.dial(0, 1);
    net.inject_control(wire, 0, Control::HelloAck(Hello { major: 9, ..hello(1) }), &[]);
    assert!(matches!(net.refusals(0)[..], [(Some(_), Refusal::Incompatible { theirs: (9, 0), .. })]));
    assert_eq!((net.ups(0), net.open_wires()), (0, vec![]));
}

#[test]
fn a_second_connection_of_an_established_peer_is_closed_and_the_first_stays() {
    let mut net = Net::joined();
    let wire = net.dial_raw(1);
    net.inject_control(wire, 1, Control::Hello(hello(0)), &[]);
    assert!(net.wires[wire][1].closed);
    assert_eq!(net.open_wires(), [0]);
    net.send(0, 1, 1);
    net.settle();
    net.assert_joined(0, 1);
    assert_eq!(net.received(1, 0), [1]);
}

#[test]
fn a_goodbye_is_told_as_such_after_all_that_came_before() {
    let mut net = Net::joined();
    net.send(0, 1, 1);
    net.nodes[0].hub.send(id(1), &Control::Goodbye, &[]);
    net.flush();
    net.kill(0);
    net.settle();
    assert_eq!(net.received(1, 0), [1]);
    assert_eq!(net.downs(1), [Gone::Goodbye]);
    assert!(!net.nodes[1].hub.knows(id(0)));
}

#[test]
fn a_peer_that_comes_back_is_up_again() {
    let mut net = Net::joined();
    let conn = net.wires[0][0].conn.expect("dialled");
    net.nodes[0].hub.handle_lost(conn);
    net.settle();
    assert_eq!((net.downs(0), net.downs(1)), (vec![Gone::Died], vec![Gone::Died]));
    net.dial(1, 0);
    net.settle();
    assert_eq!((net.ups(0), net.ups(1)), (2, 2));
    net.assert_sane(0);
    net.assert_sane(1);
}

#[test]
fn whoever_was_cut_off_stays_off() {
    let mut net = Net::joined();
    net.nodes[0].hub.cut(id(1), "enough".into());
    net.settle();
    assert_eq!((net.downs(0), net.downs(1)), (vec![Gone::Cut("enough".into())], vec![Gone::Died]));
    assert!(net.nodes[0].hub.knows(id(1)));
    let wire = net.dial(1, 0);
    net.settle();
    assert!(net.wires[wire].iter().all(|end| end.closed));
    assert_eq!((net.ups(0), net.ups(1)), (1, 1));
}

/// Whoever has a node under way may still decide to cut it off.
#[test]
fn a_node_cut_off_while_being_dialled_does_not_come_up() {
    let mut net = Net::new(2);
    let wire = net.dial(0, 1);
    net.take(Step::Accept { wire });
    net.nodes[0].hub.cut(id(1), "enough".into());
    net.settle();
    assert_eq!(net.ups(0), 0);
    assert!(net.open_wires().is_empty());
}
