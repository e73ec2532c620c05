//! Which messages reach whom: topics, wildcards, patterns, and the names that are refused.

use std::time::Duration;

use ringbus::PublishError::NeedsTopic;
use ringbus::{BusError, JoinError, OpenError, Overflow, PublishError, Wait};

mod support;
use support::{DEADLINE, Dir};

/// Filter, topic, whether the one matches the other.
const MATRIX: [(&str, &str, bool); 28] = [
    ("a", "a", true),
    ("a", "b", false),
    ("a", "a/b", false),
    ("a/b", "a", false),
    ("a/b", "a/b", true),
    ("*", "a", true),
    ("*", "a/b", false),
    ("a/*", "a/b", true),
    ("a/*", "a", false),
    ("a/*", "a/b/c", false),
    ("*/b", "a/b", true),
    ("*/b", "b/a", false),
    ("*/*", "a/b", true),
    ("a/*/c", "a/b/c", true),
    ("a/*/c", "a/c", false),
    ("**", "a", true),
    ("**", "a/b/c", true),
    ("a/**", "a", true),
    ("a/**", "a/b/c", true),
    ("a/**", "b/a", false),
    ("**/c", "c", true),
    ("**/c", "a/b/c", true),
    ("**/c", "a/c/b", false),
    ("a/**/c", "a/c", true),
    ("a/**/c", "a/b/b/c", true),
    ("a/**/c", "a/b", false),
    ("**/b/**", "a/b/c", true),
    ("größe/*", "größe/µ", true),
];

#[test]
fn a_filter_gets_what_it_matches_from_publishers_of_one_topic() {
    let dir = Dir::new();
    let (one, other) = (dir.join("publisher"), dir.join("subscriber"));
    for (filter, topic, matches) in MATRIX {
        let mut subscriber = other.subscriber::<u32>(filter).unwrap();
        let mut publisher = one.publisher::<u32>(topic).unwrap();
        // Open returned: whoever matches is counted.
        assert_eq!(publisher.stats().peers, usize::from(matches), "{filter} on {topic}");
        publisher.publish(&1).unwrap();
        publisher.publish_to(topic, &2).unwrap();
        if matches {
            for value in [1, 2] {
                let message = subscriber.recv_timeout(DEADLINE).unwrap().expect("a message");
                assert_eq!((*message, message.topic()), (value, topic), "{filter} on {topic}");
            }
        }
        assert!(subscriber.try_recv().unwrap().is_none(), "{filter} on {topic}");
    }
}

#[test]
fn a_filter_gets_what_it_matches_from_publishers_over_a_pattern() {
    let dir = Dir::new();
    let (one, other) = (dir.join("publisher"), dir.join("subscriber"));
    for (filter, topic, matches) in MATRIX {
        let mut subscriber = other.subscriber_builder(filter).filter("last").open::<u32>().unwrap();
        let mut publisher = one.publisher::<u32>("**").unwrap();
        publisher.publish_to(topic, &1).unwrap();
        publisher.publish_to("no/such/topic", &2).unwrap();
        publisher.publish_to("last", &3).unwrap();
        let wide = filter == "**"; // matches all three
        let due = [(matches, 1, topic), (wide, 2, "no/such/topic"), (true, 3, "last")];
        for (_, value, topic) in due.into_iter().filter(|(comes, ..)| *comes) {
            let message = subscriber.recv_timeout(DEADLINE).unwrap().expect("a message");
            assert_eq!((*message, message.topic()), (value, topic), "{filter} on {topic}");
        }
        assert!(subscriber.try_recv().unwrap().is_none(), "{filter} on {topic}");
    }
}

#[test]
fn patterns_reach_filters_that_intersect_them_and_no_other() {
    let dir = Dir::new();
    let (one, other) = (dir.join("publisher"), dir.join("subscriber"));
    for (filter, pattern, meet) in [
        ("a/b", "a/*", true),
        ("a/b", "b/*", false),
        ("*/b", "a/*", true),
        ("*/b", "a/*/c", false),
        ("a/**", "**/z", true),
        ("a/*", "**", true),
        ("a/*/**", "a/*", true),
        ("*", "*/*/**", false),
    ] {
        let subscriber = other.subscriber::<u32>(filter).unwrap();
        let publisher = one.publisher::<u32>(pattern).unwrap();
        assert_eq!(publisher.stats().peers, usize::from(meet), "{filter} and {pattern}");
        drop(subscriber);
    }
}

#[test]
fn a_publisher_over_a_pattern_publishes_under_it_only_and_has_to_be_told_the_topic() {
    let dir = Dir::new();
    let node = dir.join("node");
    let mut publisher = node.publisher::<u32>("task/*/progress").unwrap();
    let mut raw = node.raw_publisher("task/**").unwrap();

    let NeedsTopic { pattern } = publisher.publish(&1).unwrap_err() else { panic!() };
    assert_eq!(pattern, "task/*/progress");
    let NeedsTopic { pattern } = raw.publish(b"").unwrap_err() else { panic!() };
    assert_eq!(pattern, "task/**");
    assert!(matches!(raw.loan(1).map(drop).unwrap_err(), NeedsTopic { .. }));
    assert!(matches!(publisher.message(&1).send().unwrap_err(), NeedsTopic { .. }));

    for topic in ["task/1", "task/1/result", "other/1/progress", "task/*/progress", "task//progress", ""] {
        let refused = publisher.publish_to(topic, &1).unwrap_err();
        assert!(matches!(refused, PublishError::Topic(_)), "{topic:?}: {refused}");
        let refused = publisher.message(&1).topic(topic).send().unwrap_err();
        assert!(matches!(refused, PublishError::Topic(_)), "{topic:?}: {refused}");
    }
    assert!(matches!(raw.loan_to("tasks", 1).map(drop).unwrap_err(), PublishError::Topic(_)));
    assert!(matches!(raw.publish_to("@all", b"").unwrap_err(), PublishError::Topic(_)));

    let mut subscriber = node.subscriber::<u32>("task/**").unwrap();
    publisher.publish_to("task/1/progress", &1).unwrap();
    publisher.message(&2).topic("task/2/progress").header("k", "v").send().unwrap();
    for value in [1, 2] {
        let message = subscriber.recv_timeout(DEADLINE).unwrap().expect("a message");
        assert_eq!((*message, message.topic()), (value, &*format!("task/{value}/progress")));
        assert_eq!(message.headers().len(), value as usize - 1);
    }
    // One with a single topic takes that one alone.
    let mut single = node.publisher::<u32>("task/1").unwrap();
    assert!(matches!(single.publish_to("task/2", &1).unwrap_err(), PublishError::Topic(_)));
}

#[test]
fn what_cannot_be_a_topic_or_a_filter_is_refused_at_opening() {
    let dir = Dir::new();
    let node = dir.join("node");
    let long = "x".repeat(256);
    for text in
        ["", &long, "/", "/a", "a/", "a//b", "a b", "a/\u{7}", "a\n", "a*", "a/**b", "a/***", "@x", "@to/x"]
    {
        let refused = [
            node.publisher::<u32>(text).map(drop),
            node.raw_publisher(text).map(drop),
            node.subscriber::<u32>(text).map(drop),
            node.raw_subscriber(text).map(drop),
            node.subscriber_builder("fine").filter(text).open::<u32>().map(drop),
        ];
        for refused in refused {
            assert!(matches!(refused, Err(OpenError::Topic(_))), "{text:?}: {refused:?}");
        }
    }
    node.publisher::<u32>(&long[1..]).unwrap();
    node.subscriber::<u32>(&long[1..]).unwrap();
    assert!(node.peers().is_empty());
}

#[test]
fn at_most_64_filters_make_a_subscriber() {
    let dir = Dir::new();
    let node = dir.join("node");
    let with = |count: usize| {
        let builder = node.subscriber_builder("topic/1");
        (2..=count).fold(builder, |builder, number| builder.filter(&format!("topic/{number}"))).open::<u32>()
    };
    let mut subscriber = with(64).unwrap();
    assert_eq!(subscriber.filters().len(), 64);
    assert!(matches!(with(65), Err(OpenError::Topic(_))));
    node.publisher("topic/64").unwrap().publish(&64).unwrap();
    assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("a message"), 64);
}

#[test]
fn what_cannot_name_a_node_or_a_bus_is_refused() {
    let dir = Dir::new();
    let bus = dir.bus();
    let long = "x".repeat(256);
    for name in ["", &long, "a/b", "*", "a*", "a b", "a\n", "@a"] {
        let refused = bus.join(name);
        assert!(matches!(refused, Err(JoinError::Name(_))), "{name:?}: {refused:?}");
    }
    bus.join(&long[1..]).unwrap();
    for name in ["", &long, "a/b", "..", ".", ".hidden", "*", "a b", "a\0", "@a"] {
        let refused = ringbus::Bus::builder(name).dir(dir.path()).open();
        assert!(matches!(refused, Err(BusError::Name(_))), "{name:?}: {refused:?}");
    }
    assert_eq!(bus.siblings(), ["bus"], "nothing was made on the way");
}

#[test]
fn a_message_that_several_filters_match_arrives_once() {
    let dir = Dir::new();
    let (one, other) = (dir.join("publisher"), dir.join("subscriber"));
    let builder = other.subscriber_builder("a/b").filter("a/*").filter("**").filter("a/b");
    let mut subscriber = builder.open::<u32>().unwrap();
    let mut single = one.publisher::<u32>("a/b").unwrap();
    let mut pattern = one.publisher::<u32>("a/**").unwrap();
    for value in 0..10 {
        single.publish(&value).unwrap();
        assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("a message"), value);
        pattern.publish_to("a/b", &value).unwrap();
        assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().expect("a message"), value);
    }
    assert!(subscriber.recv_timeout(Duration::from_millis(1)).unwrap().is_none());
    assert_eq!((single.stats().peers, pattern.stats().peers), (1, 1));
}

#[test]
fn a_parked_subscriber_that_wants_nothing_of_it_does_not_block_a_pattern_publisher() {
    const MESSAGES: u64 = 20_000;
    let dir = Dir::new();
    let (one, other) = (dir.join("publisher"), dir.join("subscriber"));
    let mut subscriber = other.subscriber_builder("rare/*").wait(Wait::Park).open::<u64>().unwrap();
    let builder = one.publisher_builder("**").capacity(16 * 1024);
    let mut publisher = builder.overflow(Overflow::Block { timeout: DEADLINE }).open::<u64>().unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let before = sleeps();
            let value = *subscriber.recv_timeout(DEADLINE).unwrap().expect("the one message");
            (value, sleeps() - before)
        });
        for value in 0..MESSAGES {
            publisher.publish_to("common/x", &value).unwrap();
        }
        publisher.publish_to("rare/x", &MESSAGES).unwrap();
        let (value, sleeps) = reader.join().unwrap();
        assert_eq!(value, MESSAGES);
        // About 40 bytes a message, and it is woken once it has left half the log unread: every 200th.
        assert!(sleeps < MESSAGES / 20, "woken {sleeps} times for {MESSAGES} messages");
    });
}

/// How often this thread has gone to sleep.
fn sleeps() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.unwrap().trim().parse().unwrap()
}
