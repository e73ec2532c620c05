//! Peers that do not keep to the protocol: cut off, nobody else harmed. What a newer peer may send: passed
//! over.

use super::handshake::hello;
use super::net::{Net, Step, credentials, id, numbered};
use crate::control::Gone;
use crate::control::Message;
use crate::control::hub::{Event, Hub, Refusal};
use crate::control::session::{QUEUE, Unread};
use crate::frame::{Control, Hello, PortUp, Role, Strings};

/// An established session between a node (end 1 of wire 0) and a test that speaks for its peer.
fn established() -> Net {
    let mut net = Net::new(1);
    net.dial_raw(0);
    net.inject_control(0, 1, Control::Hello(hello(1)), &[]);
    assert_eq!(net.ups(0), 1);
    net
}

#[track_caller]
fn assert_cut(net: &Net, part_of_the_reason: &str) {
    let downs = net.downs(0);
    let [Gone::Cut(why)] = &downs[..] else { panic!("{:?}", net.nodes[0].events) };
    assert!(why.contains(part_of_the_reason), "{why}");
    let caller = credentials(1);
    let hub = &net.nodes[0].hub;
    assert!(net.wires[0][1].closed && hub.is_refused(id(1), (caller.pid, caller.uid)), "for good");
}

#[track_caller]
fn assert_refused(net: &Net, node: usize, peer: Option<usize>) {
    let refusals = net.refusals(node);
    let [(found, Refusal::Protocol { .. })] = &refusals[..] else { panic!("{refusals:?}") };
    assert_eq!(*found, peer.map(id));
    assert_eq!((net.ups(node), net.open_wires()), (0, vec![]));
}

fn all_but_hello() -> Vec<Control<'static>> {
    vec![
        Control::HelloAck(hello(1)),
        Control::Incompatible { major: 9, minor: 0 },
        Control::PortsDone,
        Control::Goodbye,
        Control::Ack { count: 0 },
        Control::Resend { from: 0 },
        Control::Resending { from: 0 },
        numbered(1).0,
        numbered(3).0,
    ]
}

#[test]
fn nothing_but_a_hello_may_come_first() {
    for control in all_but_hello() {
        let mut net = Net::new(1);
        let wire = net.dial_raw(0);
        net.inject_control(wire, 1, control, &[]);
        assert_refused(&net, 0, None);
    }
}

#[test]
fn nothing_but_the_answer_may_follow_a_hello() {
    let answers =
        |control: &Control<'_>| matches!(control, Control::HelloAck(_) | Control::Incompatible { .. });
    for control in all_but_hello().into_iter().filter(|control| !answers(control)) {
        let mut net = Net::new(2);
        let wire = net.dial(0, 1);
        net.inject_control(wire, 0, control, &[]);
        assert!(net.wires[wire][0].closed, "{control:?}");
        assert!(matches!(&net.refusals(0)[..], [(Some(peer), Refusal::Protocol { .. })] if *peer == id(1)));
    }
}

#[test]
fn nothing_may_follow_a_hello_that_is_held() {
    for control in [Control::Hello(hello(1)), Control::PortsDone, Control::Ack { count: 0 }] {
        let mut net = Net::new(2);
        net.dial(0, 1);
        let wire = net.dial(1, 0);
        net.take(Step::Accept { wire });
        net.take(Step::Deliver { wire, end: 1 });
        net.inject_control(wire, 1, control, &[]);
        assert!(net.wires[wire][1].closed);
        assert_eq!(net.ups(0), 0);
    }
}

#[test]
fn a_handshake_carries_no_fds() {
    let mut net = Net::new(1);
    let wire = net.dial_raw(0);
    net.inject_control(wire, 1, Control::Hello(hello(1)), &[1]);
    assert_refused(&net, 0, None);

    let mut net = Net::new(1);
    let wire = net.dial_raw(0);
    let conn = net.wires[wire][1].conn.expect("accepted");
    let bytes = super::encode(&Control::Hello(hello(1)));
    net.nodes[0].hub.handle_datagram(conn, &bytes, vec![], true, net.now);
    net.flush();
    assert_refused(&net, 0, None);
}

#[test]
fn hellos_have_no_place_in_an_established_session() {
    for control in
        [Control::Hello(hello(1)), Control::HelloAck(hello(1)), Control::Incompatible { major: 9, minor: 0 }]
    {
        let mut net = established();
        net.inject_control(0, 1, control, &[]);
        assert_cut(&net, "has no place here");
    }
}

#[test]
fn every_op_comes_with_as_many_fds_as_it_takes() {
    let port_up = |role| {
        let filters: Strings<'_> = Strings::from_owned(&[]);
        Control::PortUp(PortUp {
            port: 1,
            role,
            filters,
            flags: 0,
            priority: 128,
            capacity: None,
            version: None,
        })
    };
    for (control, fitting) in [
        (port_up(Role::Publisher), &[0][..]),
        (port_up(Role::Subscriber), &[2]),
        (port_up(Role::Client), &[2]),
        (port_up(Role::Server), &[2]),
        (port_up(Role::Inbox), &[2]),
        (Control::PortsDone, &[0]),
        (Control::PortDown { port: 1 }, &[0]),
        (numbered(2).0, &[2]),
        (numbered(1).0, &[0, 1]),
        (Control::Detach { log: 1, reader_number: 1 }, &[0]),
        (Control::Detached { log: 1, reader_number: 1 }, &[0]),
        (Control::Ack { count: 0 }, &[0]),
        (Control::Resending { from: 0 }, &[0]),
        (Control::Stats { request: 1 }, &[0]),
        (Control::Heartbeat { log: 0, capacity: 4096, interval_ms: 1000 }, &[1]),
        (Control::Blob { log: 1, reader_number: 1, blob: 1, size: 69_632 }, &[1]),
        (Control::BlobGone { log: 1, reader_number: 1, blob: 1 }, &[0]),
        (Control::Denied { action: 0, topic: "t" }, &[0]),
        (Control::Exhausted { resource: 1, limit: 1 }, &[0]),
        (Control::Again { what: 1, of: 1, id: 0, reader_number: 0 }, &[0]),
        (Control::Goodbye, &[0]),
    ] {
        for count in 0..=8 {
            let mut net = established();
            net.inject_control(0, 1, control, &vec![1; count]);
            match fitting.contains(&count) {
                true => assert!(!matches!(net.downs(0)[..], [Gone::Cut(_)]), "{control:?} with {count} fds"),
                false => assert_cut(&net, &format!("op {} came with {count} fds", control.op())),
            }
        }
    }
}

/// What a peer has published is read after its session: it cannot hang up before it is found out.
#[test]
fn a_peer_whose_session_has_ended_can_be_cut_off_still() {
    let mut net = established();
    let conn = net.wires[0][1].conn.expect("accepted");
    net.nodes[0].hub.handle_lost(conn);
    net.flush();
    assert_eq!(net.downs(0), [Gone::Died]);
    for _ in 0..2 {
        net.nodes[0].hub.cut(id(1), "a corrupt log".into());
        net.nodes[0].hub.cut(id(2), "one that never was here".into());
    }
    net.flush();
    let why = Refusal::Protocol { what: "a corrupt log".into() };
    assert_eq!(net.refusals(0), [(Some(id(1)), why)], "told once");
    let caller = credentials(1);
    assert!(net.nodes[0].hub.is_refused(id(1), (caller.pid, caller.uid)));
}

/// Processes of other pid namespaces have the number 0 here: what one of them says in another's name refuses nobody.
#[test]
fn of_callers_without_a_number_only_the_one_that_was_dialled_is_refused() {
    let mut net = Net::new(1);
    let now = net.now;
    let hub = &mut net.nodes[0].hub;
    let foreign = || crate::sys::credentials::Credentials { pid: 0, ..credentials(1) };
    let who = (0, foreign().uid);
    let incompatible = super::encode(&Control::Incompatible { major: 9, minor: 0 });
    let refusals = |hub: &mut Hub<u32, u32>| {
        std::iter::from_fn(|| hub.poll_event()).filter(|event| matches!(event, Event::Refused { .. })).count()
    };
    for told in [1, 0] {
        let caller = hub.accepted(foreign(), now).expect("it is let in");
        let liar = super::encode(&Control::Hello(Hello { major: 9, ..hello(1) }));
        hub.handle_datagram(caller, &liar, vec![], false, now);
        assert_eq!(refusals(hub), told);
        assert!(!hub.is_refused(id(1), who) && !hub.knows(id(1)));
    }
    let conn = hub.dialled(id(1), foreign(), now).expect("it has done nothing");
    hub.handle_datagram(conn, &incompatible, vec![], false, now);
    assert_eq!(refusals(hub), 1);
    assert!(hub.is_refused(id(1), who) && hub.knows(id(1)));
    assert!(hub.dialled(id(1), foreign(), now).is_none());
}

/// More fds than there is room for in any datagram come flagged as lost ones are, by the kernel.
#[test]
fn too_many_fds_do_not_pass_for_a_shortage() {
    let blob = Control::Blob { log: 1, reader_number: 1, blob: 1, size: 69_632 };
    for (control, most) in [(numbered(2).0, 2), (numbered(1).0, 1), (blob, 1), (Control::PortsDone, 0)] {
        for count in 0..=8 {
            let mut net = established();
            net.inject_losing(0, 1, &super::encode(&control), &vec![1; count]);
            match count < most {
                true => assert!(net.downs(0).is_empty(), "{control:?} with {count} of its fds"),
                false => assert_cut(&net, &format!("op {} came with {} fds", control.op(), count + 1)),
            }
        }
    }
    let unknown_op = [0x93, 5, 0x70, 7];
    for count in 0..=8 {
        let mut net = established();
        net.inject_losing(0, 1, &unknown_op, &vec![1; count]);
        match count < 8 {
            true => assert!(net.downs(0).is_empty(), "{count} of a newer peer's fds"),
            false => assert_cut(&net, "more than 8 fds"),
        }
    }
}

#[test]
fn counts_of_datagrams_that_were_never_sent_are_refused() {
    // The hello_ack is datagram 0; the message, which has fds, is 1; 2 has none.
    for control in [
        Control::Ack { count: 4 },
        Control::Ack { count: u64::MAX },
        Control::Resend { from: 0 },
        Control::Resend { from: 2 },
        Control::Resend { from: 3 },
        Control::Resend { from: u64::MAX },
    ] {
        let mut net = established();
        net.send(0, 1, 1);
        net.send(0, 1, 3);
        net.inject_control(0, 1, control, &[]);
        assert_cut(&net, "never sent");
    }
}

#[test]
fn acknowledging_twice_or_too_little_is_no_offence() {
    let mut net = established();
    net.send(0, 1, 1);
    for count in [0, 2, 2, 1] {
        net.inject_control(0, 1, Control::Ack { count }, &[]);
    }
    assert!(net.downs(0).is_empty());
    net.inject_control(0, 1, Control::Resend { from: 1 }, &[]);
    assert_cut(&net, "never sent");
}

#[test]
fn bytes_that_are_no_control_frame_end_the_session() {
    let event = [0x94, 2, 0xc0, 0xc0, 0xc6, 0, 0, 0, 1, 1];
    for bytes in [&b""[..], &b"\xff"[..], &[0x92, 5], &[0x92, 5, 4, 0], &event] {
        let mut net = established();
        net.inject(0, 1, bytes, &[]);
        assert_cut(&net, "undecodable");

        let mut net = Net::new(1);
        let wire = net.dial_raw(0);
        net.inject(wire, 1, bytes, &[]);
        assert_refused(&net, 0, None);
    }
}

#[test]
fn what_a_newer_peer_may_send_is_passed_over_and_counted() {
    let unknown_op = [0x93, 5, 0x70, 7];
    let unknown_kind = [0x93, 0x70, 1, 2];
    let unknown_role = [0x99, 5, 3, 1, 9, 0xc0, 0, 0xc0, 0xc0, 0xc0];
    for bytes in [&unknown_op[..], &unknown_kind, &unknown_role] {
        for fds in [&[][..], &[1, 2]] {
            let mut net = established();
            net.inject(0, 1, bytes, fds);
            net.inject_control(0, 1, Control::PortsDone, &[]);
            let events = &net.nodes[0].events;
            let done = Event::Message { peer: id(1), message: Message::PortsDone, fds: vec![], bare: false };
            assert!(matches!(&events[..], [Event::Up { .. }, last] if *last == done), "{events:?}");
            // The hello is datagram 0.
            let acks = if fds.is_empty() { vec![] } else { vec![Control::Ack { count: 2 }] };
            assert_eq!(net.under_way(0, 0)[1..], acks);
        }
    }
}

#[test]
fn an_unknown_op_has_no_place_before_the_handshake() {
    let mut net = Net::new(1);
    let wire = net.dial_raw(0);
    net.inject(wire, 1, &[0x93, 5, 0x70, 7], &[]);
    assert_refused(&net, 0, None);
}

#[test]
fn a_peer_that_has_left_too_much_unread_loses_its_session_when_it_reads_again() {
    let mut net = Net::new(3);
    net.room = 10;
    net.dial(0, 1);
    net.dial(0, 2);
    net.settle();
    net.nodes[0].hub.send(id(1), &Control::PortsDone, &[]);
    let before = net.nodes[0].hub.mark(id(1)).unwrap();
    for request in 0..2 * QUEUE as u64 {
        net.nodes[0].hub.send(id(1), &Control::Stats { request }, &[]);
        net.flush();
    }
    let kept = net.nodes[0].hub.mark(id(1)).unwrap() - before;
    let told = 2; // its hello, and that it has no ports
    assert!((QUEUE..=QUEUE + net.room + told).contains(&(kept as usize)), "{kept} kept");
    assert!(net.downs(0).is_empty(), "it may be stopped, and is not dead");
    net.room = usize::MAX;
    net.settle();
    assert_eq!(net.downs(0), [Gone::Unread]);
    assert!(!net.nodes[0].hub.knows(id(1)), "it may come back when it reads again");
    net.assert_joined_still(0, 2);
    net.nodes[0].hub.send(id(1), &Control::PortsDone, &[]);
    assert_eq!(net.nodes[0].hub.mark(id(1)), None);
    assert!(net.nodes[0].hub.has_sent(id(1), u64::MAX), "nobody waits for one that is gone");
}

/// Else a node of many ports would be parted with by whoever it meets, each time again.
#[test]
fn what_a_node_tells_of_itself_first_is_not_among_what_a_peer_may_leave_unread() {
    let mut net = Net::new(2);
    net.nodes[0].hub.unread = Unread { messages: 20, bytes: 1000 };
    net.room = 10;
    net.dial(0, 1);
    net.settle();
    let said =
        |net: &Net| net.nodes[1].events.iter().filter(|event| matches!(event, Event::Message { .. })).count();
    let send = |net: &mut Net, control: &Control<'_>| {
        net.nodes[0].hub.send(id(1), control, &[]);
        net.flush();
    };
    (0..200).for_each(|request| send(&mut net, &Control::Stats { request }));
    send(&mut net, &Control::PortsDone);
    (0..20).for_each(|request| send(&mut net, &Control::Stats { request }));
    net.settle();
    assert_eq!((said(&net), net.downs(0).len()), (221, 0));
    (0..250).for_each(|request| send(&mut net, &Control::Stats { request }));
    net.settle();
    assert_eq!(net.downs(0), [Gone::Unread], "what comes later is");
}

/// 16 384 datagrams of 64 KiB would be a gigabyte.
#[test]
fn large_datagrams_for_a_peer_that_does_not_read_are_bounded_in_bytes() {
    let mut net = established();
    net.room = 0;
    let filters: Vec<String> = (0..4).map(|n| format!("{n:04000}")).collect();
    let port = PortUp {
        port: 1,
        role: Role::Publisher,
        filters: Strings::from_owned(&filters),
        flags: 0,
        priority: 128,
        capacity: None,
        version: None,
    };
    net.nodes[0].hub.send(id(1), &Control::PortsDone, &[]);
    let before = net.nodes[0].hub.mark(id(1)).unwrap();
    for _ in 0..4096 {
        net.nodes[0].hub.send(id(1), &Control::PortUp(port), &[]);
        net.flush();
    }
    let kept = net.nodes[0].hub.mark(id(1)).unwrap() - before;
    assert!((900..=1100).contains(&kept), "16 MiB of 16 kB each: {kept}");
    net.room = usize::MAX;
    net.settle();
    assert_eq!(net.downs(0), [Gone::Unread]);
}
