//! Files that are not as a writer leaves them: an error, whatever is in them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ringbus::pipe::{OpenError, ReadError, Reader, TryRead, WriteError};

use super::{CAPACITY, Name, message};

const MAGIC: usize = 0;
const VERSION: usize = 8;
const SIZE: usize = 16;
const ID: usize = 32;
const TAIL: usize = 128;
const NEXT_SEQUENCE: usize = 136;
const CLOSED: usize = 384;
const MARK: usize = 512;
const WRITER: usize = 520;
const RECORDS: usize = 4096;
const CURSOR: usize = 256;

/// What stands in the two files of a pipe with three messages, whose writer is gone.
fn template() -> (Vec<u8>, Vec<u8>, String) {
    let name = Name::new("template");
    let mut writer = name.create();
    for number in 0..3 {
        writer.write(&message(number)).unwrap();
    }
    let cursors = name.files().into_iter().find(|path| *path != name.path()).unwrap();
    let id = cursors.to_str().unwrap().rsplit_once(':').unwrap().1.to_owned();
    (fs::read(name.path()).unwrap(), fs::read(cursors).unwrap(), id)
}

fn put(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

fn set(bytes: &mut [u8], at: usize, word: u64) {
    bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
}

fn get(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Opens a pipe that was forged from the template, and reads it; messages read, and what ended it.
fn read_forged(
    test: &str,
    forge: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>),
) -> Result<(u64, ReadError), OpenError> {
    let name = Name::new(test);
    let (mut data, mut cursors, id) = template();
    forge(&mut data, &mut cursors);
    put(&name.path(), &data);
    put(&PathBuf::from(format!("{}:{id}", name.path().display())), &cursors);
    let opened = Reader::open(&name);
    // Whatever it is, it does not keep a writer from the name.
    drop(name.create());
    let mut reader = opened?;
    let mut bytes = Vec::new();
    let mut messages = 0;
    loop {
        match reader.read(&mut bytes) {
            Ok(true) => messages += 1,
            Ok(false) => panic!("an end"),
            Err(error) => return Ok((messages, error)),
        }
        assert!(messages <= 3);
    }
}

#[test]
fn the_template_itself_is_read() {
    let (messages, error) = read_forged("good", |_, _| {}).unwrap();
    assert!(messages == 3 && matches!(error, ReadError::WriterDied), "{messages}, {error}");
}

#[test]
fn headers_of_something_else_are_refused() {
    for (at, word) in [
        (MAGIC, 0),
        (VERSION, 2 | 4096 << 32),
        (VERSION, 1 | 64 << 32),
        (SIZE, 0),
        (SIZE, 2 * CAPACITY),
        (SIZE, CAPACITY / 2),
        (SIZE, u64::MAX),
        (MARK, 0),
    ] {
        let refused = read_forged("data-header", |data, _| set(data, at, word));
        assert!(matches!(refused, Err(OpenError::Corrupt { .. })), "{at}: {refused:?}");
    }
    for (at, word) in [(MAGIC, 0), (VERSION, 0), (SIZE, 0), (SIZE, u64::MAX), (ID, 1), (ID + 8, 1)] {
        let refused = read_forged("cursor-header", |_, cursors| set(cursors, at, word));
        assert!(matches!(refused, Err(OpenError::Corrupt { .. })), "{at}: {refused:?}");
    }
    let refused = read_forged("other-id", |data, _| set(data, ID, 1));
    assert!(
        matches!(refused, Err(OpenError::Corrupt { .. })),
        "its cursor segment is another's: {refused:?}"
    );
}

#[test]
fn sizes_that_no_pipe_has_are_refused() {
    for len in
        [0, 1, 8, 4095, 4096, 8191, 8193, RECORDS as u64 + CAPACITY - 8, RECORDS as u64 + CAPACITY + 4096]
    {
        let refused = read_forged("data-size", |data, _| data.resize(len as usize, 0));
        let fits = matches!(refused, Err(OpenError::NoPipe { .. } | OpenError::Corrupt { .. }));
        assert!(fits, "{len}: {refused:?}");
    }
    for len in [0, 1, 8, 383, 384, 4088, 8192] {
        let refused = read_forged("cursor-size", |_, cursors| cursors.resize(len, 0));
        assert!(matches!(refused, Err(OpenError::NoPipe { .. })), "{len}: {refused:?}");
    }
}

#[test]
fn a_file_with_missing_pages_is_refused_before_it_is_touched() {
    let name = Name::new("sparse");
    let (data, _, _) = template();
    put(&name.path(), &data[..RECORDS]);
    fs::File::options().write(true).open(name.path()).unwrap().set_len(data.len() as u64).unwrap();
    assert!(matches!(Reader::open(&name), Err(OpenError::NoPipe { .. })));
    // A file that could not be mapped at all.
    fs::File::options().write(true).open(name.path()).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(Reader::open(&name), Err(OpenError::NoPipe { .. })));
    drop(name.create());
}

#[test]
fn a_missing_cursor_segment_is_told() {
    let name = Name::new("half");
    let (data, _, _) = template();
    put(&name.path(), &data);
    let refused = Reader::open(&name);
    assert!(matches!(refused, Err(OpenError::Corrupt { .. })), "{refused:?}");
}

#[test]
fn impossible_positions_are_told_and_nothing_is_read_from_them() {
    let tail = get(&template().0, TAIL);
    for word in [1, 8, tail + 8, tail + CAPACITY + 16, u64::MAX, u64::MAX - 15, 1 << 63] {
        let refused = read_forged("tail", |data, _| set(data, TAIL, word));
        assert!(matches!(refused, Err(OpenError::Corrupt { .. })), "tail {word}: {refused:?}");
    }
    for word in [1, 8, tail + 16, u64::MAX - 15, u64::MAX, 1 << 63] {
        let refused = read_forged("cursor", |_, cursors| set(cursors, CURSOR, word));
        assert!(matches!(refused, Err(OpenError::Corrupt { .. })), "cursor {word}: {refused:?}");
    }
    // Possible, but wrong: into the middle of a record, where something else stands.
    let into = read_forged("inside", |_, cursors| set(cursors, CURSOR, 16)).map(|(_, error)| error);
    assert!(matches!(into, Ok(ReadError::Corrupt(_) | ReadError::Missing { .. })), "{into:?}");
    // Beyond what was written there are zeros: records of no bytes, numbered 0 all of them.
    let (messages, error) = read_forged("beyond", |data, _| set(data, TAIL, tail + 16)).unwrap();
    assert!(messages == 3 && matches!(error, ReadError::Corrupt(_)), "{messages}, {error}");
}

#[test]
fn impossible_records_are_told() {
    let second = RECORDS + (16 + message(0).len()).next_multiple_of(16);
    for (word, what) in [
        (u64::from(u32::MAX), "longer than the pipe"),
        (CAPACITY, "longer than what is written"),
        (1 << 32, "padding before the end"),
        (2 << 32, "a blob"),
        (9 << 32, "an unknown kind"),
        (64 << 40, "too much filler"),
    ] {
        let (messages, error) = read_forged("record", |data, _| set(data, second, word)).unwrap();
        assert!(messages == 1 && matches!(error, ReadError::Corrupt(_)), "{what}: {messages}, {error}");
    }
    let (messages, error) = read_forged("number", |data, _| set(data, second + 8, 5)).unwrap();
    assert!(messages == 1 && matches!(error, ReadError::Missing { missing: 4 }), "{messages}, {error}");
    let (messages, error) = read_forged("dropped", |data, _| set(data, NEXT_SEQUENCE, 7)).unwrap();
    assert!(messages == 3 && matches!(error, ReadError::Missing { missing: 4 }), "{messages}, {error}");
    let (messages, error) = read_forged("closed", |data, _| set(data, CLOSED, 16)).unwrap();
    assert!(messages == 3 && matches!(error, ReadError::Corrupt(_)), "{messages}, {error}");
}

#[test]
fn a_process_id_that_makes_no_sense_is_not_believed() {
    for pid in [0, 1, u64::from(std::process::id()), u64::MAX, 1 << 31] {
        let (messages, error) = read_forged("pid", |data, _| set(data, WRITER, pid)).unwrap();
        assert!(messages == 3 && matches!(error, ReadError::WriterDied), "{pid}: {messages}, {error}");
    }
}

#[test]
fn a_writer_that_finds_an_impossible_cursor_writes_no_more() {
    use std::os::unix::fs::FileExt;
    let name = Name::new("writer");
    let mut writer = name.create();
    let mut reader = Reader::open(&name).unwrap();
    let mut written = 0;
    while writer.try_write(&message(written)).is_ok() {
        written += 1;
    }
    let cursors = name.files().into_iter().find(|path| *path != name.path()).unwrap();
    let cursors = fs::File::options().write(true).open(cursors).unwrap();
    cursors.write_all_at(&u64::MAX.to_le_bytes(), CURSOR as u64).unwrap();
    for _ in 0..3 {
        assert!(matches!(writer.write(&message(written)), Err(WriteError::Corrupt(_))));
    }
    cursors.write_all_at(&0u64.to_le_bytes(), CURSOR as u64).unwrap();
    assert!(matches!(writer.try_write(b"small"), Err(WriteError::Corrupt(_))), "for good");
    let mut bytes = Vec::new();
    for number in 0..written {
        assert_eq!(reader.try_read(&mut bytes).unwrap(), TryRead::Message);
        assert_eq!(bytes, message(number));
    }
}
