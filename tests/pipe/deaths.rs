//! Either side is killed: what it wrote arrives, what it read is not lost, and its name is free.

use std::time::Duration;

use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;
use ringbus::pipe::{OpenError, ReadError, Reader, TryRead, WriteError, Writer};

use super::support::{Child, DEADLINE, Forked, Parent, eventually};
use super::{CAPACITY, Name, message, stay_a_minute};

#[test]
fn what_a_killed_writer_wrote_is_read_before_its_death_is_told() {
    let name = Name::new("killed");
    for round in 0..20 {
        let writer = Child::start("writes and is killed", &[&name, &round.to_string()]);
        let mut reader = Reader::open_within(&name, DEADLINE).unwrap();
        for number in 0..=round {
            assert_eq!(reader.recv().unwrap().unwrap(), message(number), "round {round}");
        }
        assert!(matches!(reader.recv(), Err(ReadError::WriterDied)));
        assert!(matches!(reader.recv(), Err(ReadError::WriterDied)), "and stays dead");
        let mut bytes = Vec::new();
        assert!(matches!(reader.try_read(&mut bytes), Err(ReadError::WriterDied) | Ok(TryRead::Nothing)));
        assert!(matches!(reader.read_timeout(&mut bytes, Duration::ZERO), Err(ReadError::WriterDied)));
        drop(reader);
        assert!(name.files().is_empty(), "whoever read it to the end has tidied up: {:?}", name.files());
        writer.ends_by_kill();
    }
}

pub fn writes_and_is_killed(_: &mut Parent, args: &[&str]) {
    let mut writer = Writer::create(args[0], CAPACITY).unwrap();
    for number in 0..=args[1].parse().unwrap() {
        writer.write(&message(number)).unwrap();
    }
    assert!(writer.wait_for_reader(DEADLINE));
    raise(Signal::SIGKILL).unwrap();
}

#[test]
fn a_looking_reader_learns_of_the_death_too() {
    let name = Name::new("looking");
    let writer = Child::start("writes and is killed", &[&name, "0"]);
    let mut reader = Reader::open_within(&name, DEADLINE).unwrap();
    let (mut bytes, mut messages) = (Vec::new(), 0);
    eventually("the writer's death is told", || match reader.try_read(&mut bytes) {
        Ok(TryRead::Nothing) => false,
        Ok(TryRead::Message) => {
            messages += 1;
            false
        }
        found => matches!(found, Err(ReadError::WriterDied)),
    });
    assert_eq!((messages, bytes), (1, message(0)));
    writer.ends_by_kill();
}

#[test]
fn a_killed_readers_pipe_is_read_on_by_the_next_one() {
    let name = Name::new("reader");
    let mut writer = name.create();
    let mut written = 0;
    let mut expected = 0;
    for round in 0..10 {
        let reader = Child::start("reads and is killed", &[&name]);
        assert!(writer.wait_for_reader(DEADLINE));
        loop {
            match writer.write(&message(written)) {
                Ok(()) => written += 1,
                Err(WriteError::ReaderGone) => break,
                Err(other) => panic!("{other}"),
            }
        }
        reader.ends_by_kill();
        assert!(!writer.has_reader());
        let refused = writer.write_timeout(&message(written), DEADLINE);
        assert!(matches!(refused, Err(WriteError::ReaderGone)), "{refused:?}");

        let mut next = Reader::open(&name).unwrap();
        assert!(writer.has_reader());
        let first = u64::from_le_bytes(next.recv().unwrap().unwrap()[..8].try_into().unwrap());
        assert!(first >= expected && first < written, "round {round}: {first} of {written}");
        for number in first + 1..written {
            assert_eq!(next.recv().unwrap().unwrap(), message(number));
        }
        expected = written;
    }
}

pub fn reads_and_is_killed(_: &mut Parent, args: &[&str]) {
    let mut reader = Reader::open(args[0]).unwrap();
    for _ in 0..100 {
        reader.recv().unwrap().unwrap();
    }
    raise(Signal::SIGKILL).unwrap();
}

#[test]
fn a_reader_that_was_dropped_is_followed_without_a_gap_or_a_repetition() {
    let name = Name::new("relay");
    let mut writer = name.create();
    let mut number = 0;
    for round in 0..50 {
        for sent in 0..7 {
            writer.write(&message(round * 7 + sent)).unwrap();
        }
        let mut reader = Reader::open(&name).unwrap();
        for _ in 0..5.min(7 * (round + 1) - number) {
            assert_eq!(reader.recv().unwrap().unwrap(), message(number));
            number += 1;
        }
        drop(reader);
        assert!(!writer.has_reader());
        if round % 5 == 4 {
            let mut reader = Reader::open(&name).unwrap();
            while number < 7 * (round + 1) {
                assert_eq!(reader.recv().unwrap().unwrap(), message(number));
                number += 1;
            }
        }
    }
}

#[test]
fn a_killed_writers_name_is_free_and_its_reader_gets_nothing_of_the_new_pipe() {
    let name = Name::new("stale");
    let first = Child::start("writes and is killed", &[&name, "3"]);
    let mut old = Reader::open_within(&name, DEADLINE).unwrap();
    first.ends_by_kill();
    assert!(!name.files().is_empty(), "a killed writer leaves its files");

    let mut writer = name.create();
    assert_eq!(name.files().len(), 2, "the old ones are gone");
    let mut new = Reader::open(&name).unwrap();
    writer.write(b"new").unwrap();
    for number in 0..=3 {
        assert_eq!(old.recv().unwrap().unwrap(), message(number));
    }
    assert!(matches!(old.recv(), Err(ReadError::WriterDied)));
    drop(old);
    assert_eq!(name.files().len(), 2, "the old reader leaves the new pipe alone");
    assert_eq!(new.recv().unwrap().unwrap(), b"new");
}

#[test]
fn a_pipe_whose_writer_died_before_it_was_opened_is_read_to_its_end() {
    let name = Name::new("late");
    let child = Child::start("writes and is killed", &[&name, "3"]);
    let first = Reader::open_within(&name, DEADLINE).unwrap();
    child.ends_by_kill();
    drop(first);
    let mut reader = Reader::open(&name).unwrap();
    for number in 0..=3 {
        assert_eq!(reader.recv().unwrap().unwrap(), message(number));
    }
    assert!(matches!(reader.recv(), Err(ReadError::WriterDied)));
    drop(reader);
    assert!(matches!(Reader::open(&name), Err(OpenError::Absent { .. })));
}

#[test]
fn a_killed_process_is_dead_although_a_forked_child_holds_its_locks() {
    let name = Name::new("heir");
    let other = Name::new("heir-reads");
    let mut writer = other.create();
    let mut child = Child::start("forks and is killed", &[&name, &other]);
    let heir = child.line();
    let mut reader = Reader::open(&name).unwrap();
    assert!(writer.has_reader());
    child.signal(Signal::SIGKILL);
    child.ends_by_kill();

    assert_eq!(reader.recv().unwrap().unwrap(), b"last");
    assert!(matches!(reader.recv(), Err(ReadError::WriterDied)));
    drop(name.create());
    let mut written = 0;
    let gone = loop {
        match writer.write_timeout(&message(written), DEADLINE) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(gone, WriteError::ReaderGone), "{gone:?}");
    assert!(matches!(Reader::open(&other), Err(OpenError::Busy { .. })), "as the documentation says");
    kill(Pid::from_raw(heir.parse().unwrap()), Signal::SIGKILL).unwrap();
    eventually("the lock is let go of", || Reader::open(&other).is_ok());
}

pub fn forks_and_is_killed(parent: &mut Parent, args: &[&str]) {
    let mut writer = Writer::create(args[0], CAPACITY).unwrap();
    let _reader = Reader::open(args[1]).unwrap();
    writer.write(b"last").unwrap();
    let heir = Forked::run(stay_a_minute);
    parent.say(&heir.pid().to_string());
    parent.stay();
}
