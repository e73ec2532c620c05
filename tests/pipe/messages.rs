//! What arrives, and what happens when the pipe is full or at its end.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use ringbus::pipe::{OpenError, Reader, TryRead, WriteError, Writer};

use super::support::{Child, DEADLINE, Forked, Parent};
use super::{CAPACITY, Name, message, stay_a_minute};

const MANY: u64 = 100_000;

#[test]
fn every_message_of_another_process_arrives_in_order_and_as_it_was() {
    let name = Name::new("many");
    let writer = Child::start("writes many", &[&name]);
    let mut reader = Reader::open_within(&name, DEADLINE).unwrap();
    let mut bytes = Vec::new();
    for number in 0..MANY {
        assert!(reader.read(&mut bytes).unwrap(), "message {number}");
        assert_eq!(bytes, message(number), "message {number}");
    }
    assert!(!reader.read(&mut bytes).unwrap(), "the end");
    assert_eq!(reader.try_read(&mut bytes).unwrap(), TryRead::End, "still");
    assert_eq!(bytes, message(MANY - 1), "the end leaves the buffer alone");
    writer.finish();
    drop(reader);
    assert!(name.files().is_empty(), "{:?}", name.files());
}

pub fn writes_many(_: &mut Parent, args: &[&str]) {
    let mut writer = Writer::create(args[0], 16 * 1024).unwrap();
    for number in 0..MANY {
        writer.write(&message(number)).unwrap();
    }
    assert!(writer.wait_for_reader(DEADLINE));
}

#[test]
fn messages_wait_for_the_first_reader_and_a_closed_pipe_is_read_to_its_end() {
    let name = Name::new("early");
    let mut child = Child::start("writes and closes", &[&name]);
    child.expect("written");
    let mut reader = Reader::open(&name).unwrap();
    child.tell("close");
    child.finish();
    assert!(name.files().is_empty(), "the writer took the names away");
    assert!(matches!(Reader::open(&name), Err(OpenError::Absent { .. })));
    for number in 0..10 {
        assert_eq!(reader.recv().unwrap().unwrap(), message(number));
    }
    assert_eq!(reader.recv().unwrap(), None);
    assert_eq!(reader.recv().unwrap(), None);
}

pub fn writes_and_closes(parent: &mut Parent, args: &[&str]) {
    let mut writer = Writer::create(args[0], CAPACITY).unwrap();
    for number in 0..10 {
        writer.write(&message(number)).unwrap();
    }
    parent.say("written");
    parent.hear("close");
}

#[test]
fn the_largest_and_the_smallest_message_pass_and_a_larger_one_is_refused() {
    let name = Name::new("sizes");
    let mut writer = Writer::create(&name, 4096).unwrap();
    assert_eq!(writer.max_message(), 1024 - 16);
    let mut reader = Reader::open(&name).unwrap();
    for round in 0..20 {
        for len in [0, 1, 15, 16, 17, 1007, 1008] {
            let sent = vec![round + 1; len];
            writer.try_write(&sent).unwrap();
            assert_eq!(reader.recv().unwrap().unwrap(), sent);
        }
        for len in [1009, 1024, 100_000] {
            let refused = writer.write(&vec![0; len]);
            assert!(matches!(refused, Err(WriteError::TooLarge { size, limit: 1008 }) if size == len));
        }
    }
    let mut bytes = Vec::new();
    assert_eq!(reader.try_read(&mut bytes).unwrap(), TryRead::Nothing);
}

/// Writes until the pipe is full; how many went in.
fn fill(writer: &mut Writer) -> u64 {
    let mut written = 0;
    loop {
        match writer.try_write(&message(written)) {
            Ok(()) => written += 1,
            Err(WriteError::Full { .. }) => return written,
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_full_pipe_loses_nothing_and_a_timeout_is_kept() {
    let name = Name::new("full");
    let mut writer = name.create();
    let written = fill(&mut writer);
    assert!(written > CAPACITY / 3000);
    let timeout = Duration::from_millis(30);
    let start = Instant::now();
    let refused = writer.write_timeout(&message(0), timeout);
    assert!(matches!(refused, Err(WriteError::Full { waited }) if waited >= timeout), "{refused:?}");
    assert!(start.elapsed() >= timeout);

    let mut reader = Reader::open(&name).unwrap();
    let refused = writer.write_timeout(&message(0), timeout);
    assert!(
        matches!(refused, Err(WriteError::Full { .. })),
        "a reader that lives, and does not read: {refused:?}"
    );
    for number in 0..written {
        assert_eq!(reader.recv().unwrap().unwrap(), message(number));
    }
    let mut bytes = Vec::new();
    let start = Instant::now();
    assert_eq!(reader.read_timeout(&mut bytes, timeout).unwrap(), TryRead::Nothing);
    assert!(start.elapsed() >= timeout);
    writer.try_write(&message(written)).unwrap();
    assert_eq!(reader.read_timeout(&mut bytes, timeout).unwrap(), TryRead::Message);
    assert_eq!(bytes, message(written));
}

#[test]
fn a_waiting_writer_goes_on_when_there_is_room() {
    let name = Name::new("room");
    let mut writer = name.create();
    let written = fill(&mut writer);
    let mut reader = Reader::open(&name).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            for number in written..3 * written {
                writer.write_timeout(&message(number), DEADLINE).unwrap();
            }
            drop(writer);
        });
        for number in 0..3 * written {
            assert_eq!(reader.recv().unwrap().unwrap(), message(number));
        }
        waiting.join().unwrap();
    });
    assert_eq!(reader.recv().unwrap(), None);
}

#[test]
fn a_forked_child_has_neither_end_and_its_drops_spare_the_parents() {
    let name = Name::new("fork");
    let mut writer = name.create();
    let mut reader = Reader::open(&name).unwrap();
    writer.write(b"parent").unwrap();
    // What the child is lent it drops as copies: the parent's values are forgotten there, never run twice
    // here.
    let ends = std::mem::ManuallyDrop::new((writer, reader));
    Forked::run(|| {
        // SAFETY: this process has its own copy of the values, which it drops once.
        let (mut writer, mut reader) = unsafe { std::ptr::read(&*ends) };
        assert!(matches!(writer.write(b"child"), Err(WriteError::Forked)));
        assert!(matches!(writer.try_write(b"child"), Err(WriteError::Forked)));
        assert!(!writer.has_reader());
        let mut bytes = Vec::new();
        assert!(matches!(reader.read(&mut bytes), Err(ringbus::pipe::ReadError::Forked)));
        assert!(matches!(reader.try_read(&mut bytes), Err(ringbus::pipe::ReadError::Forked)));
        drop((writer, reader));
    })
    .passes();
    (writer, reader) = std::mem::ManuallyDrop::into_inner(ends);
    assert_eq!(name.files().len(), 2);
    assert!(writer.has_reader());
    writer.write(b"again").unwrap();
    assert_eq!(reader.recv().unwrap().unwrap(), b"parent");
    assert_eq!(reader.recv().unwrap().unwrap(), b"again");
}

#[test]
fn an_end_that_was_dropped_is_gone_although_a_forked_child_has_copies_of_its_fds() {
    let name = Name::new("copies");
    let mut writer = name.create();
    let mut reader = Reader::open(&name).unwrap();
    let child = Forked::run(stay_a_minute);
    drop(reader);
    assert!(!writer.has_reader());
    reader = Reader::open(&name).unwrap();
    writer.write(b"last").unwrap();
    drop(writer);
    drop(name.create());
    assert_eq!(reader.recv().unwrap().unwrap(), b"last");
    assert_eq!(reader.recv().unwrap(), None);
    kill(child.pid(), Signal::SIGKILL).unwrap();
    waitpid(child.pid(), None).unwrap();
}
