//! A reader of `sub`'s output that stops reading stalls nobody, and no publisher fills what reads its complaints.

use nix::sys::signal::Signal;
use serde::Serialize;

use super::*;

/// Far more than a log, a pipe and a small buffer hold together.
const MANY: u64 = 40_000;
const PAYLOAD: &str = "0123456789012345678901234567890123456789012345678901234567890123456789";

fn dropped(line: &str) -> u64 {
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!((words[0], words[1]), ("ringbus:", "dropped"), "{line}");
    words[2].parse().unwrap()
}

#[test]
fn sub_drops_and_tells_while_stdout_is_not_read() {
    let place = Place::new();
    let mut publisher = place.join("worker").publisher::<String>("t").unwrap();
    let mut sub = place.start(&["sub", "t", "--buffer", "50000"]);
    let errors = sub.errors();
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    let mut published = 0;
    for _ in 0..MANY {
        // A stalled subscriber would make this fail after a second.
        publisher.publish(&PAYLOAD.to_owned()).unwrap();
        published += 1;
    }
    let mut told = dropped(&errors.next());

    // Once it is read again, messages pass again.
    let lines = sub.lines();
    let mut seen = 0;
    let reading = Instant::now();
    'marked: loop {
        publisher.publish(&"marker".to_owned()).unwrap();
        published += 1;
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(100) {
            match lines.0.recv_timeout(Duration::from_millis(20)) {
                Ok(line) => {
                    seen += 1;
                    assert!(line == "t \"marker\"" || line == format!("t {PAYLOAD:?}"), "{line}");
                    if line.contains("marker") {
                        break 'marked;
                    }
                }
                Err(_) => break,
            }
        }
        assert!(seen <= published && reading.elapsed() < DEADLINE, "{seen} of {published} and no marker");
    }
    // The markers before it had no room; those after it may still be on their way.
    sub.signal(Signal::SIGINT);
    assert!(sub.wait().success());
    seen += lines.rest().len() as u64;
    told += errors.rest().iter().map(|line| dropped(line)).sum::<u64>();
    assert_eq!(seen + told, published, "every message is either printed or told");
}

#[test]
fn sub_can_be_interrupted_while_stdout_is_not_read() {
    let place = Place::new();
    let node = place.join("worker");
    let mut publisher = node.publisher::<String>("t").unwrap();
    let mut sub = place.start(&["sub", "t", "--buffer", "50000"]);
    let errors = sub.errors();
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    for _ in 0..MANY {
        publisher.publish(&PAYLOAD.to_owned()).unwrap();
    }
    errors.next();
    sub.signal(Signal::SIGINT);
    assert!(sub.wait().success());
    eventually("its goodbye", || node.peers().is_empty());
}

#[test]
fn pub_says_which_subscriber_does_not_read() {
    let place = Place::new();
    let node = place.join("sleeper");
    let _subscriber = node.subscriber::<String>("t").unwrap();
    let error = place.fail(&["pub", "t", PAYLOAD, "--count", "100000", "--timeout", "0.3"], 1);
    assert!(error.starts_with("error: subscriber sleeper (pid "), "{error}");
    assert!(error.contains("does not read"), "{error}");
}

/// Lists in lists, deeper than anybody reads.
#[derive(Serialize)]
struct Deep(Vec<Deep>);

#[test]
fn of_messages_that_cannot_be_read_some_are_told_one_by_one_and_the_rest_as_a_number() {
    let place = Place::new();
    let mut publisher = place.join("worker").publisher::<Deep>("t").unwrap();
    let mut sub = place.start(&["sub", "t"]);
    let errors = sub.errors();
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    let deep = (0..300).fold(Deep(Vec::new()), |deep, _| Deep(vec![deep]));
    const SENT: usize = 500;
    for _ in 0..SENT {
        publisher.publish(&deep).unwrap();
    }
    let mut said = Vec::new();
    while !said
        .last()
        .is_some_and(|line: &String| line.contains(" or more other messages could not be read either"))
    {
        said.push(errors.next());
    }
    let is_one =
        |line: &String| line.contains("undecodable message") && line.contains("more than 256 levels");
    assert!(said[..10].iter().all(is_one) && said.len() < SENT / 2, "{said:?}");
    sub.signal(Signal::SIGINT);
    assert!(sub.wait().success());
}
