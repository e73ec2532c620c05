//! Names: which there can be, who has them, and what else may stand in their place.

use std::fs::File;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use ringbus::pipe::{CreateError, OpenError, Reader, Writer};

use super::support::{Child, DEADLINE, Parent};
use super::{CAPACITY, Name};

#[test]
fn names_that_could_be_anything_else_are_refused() {
    let long = "n".repeat(129);
    for name in ["", "a/b", "/a", "..//", "a b", "a:b", "a\0b", "ä", "a\n", &long] {
        assert!(matches!(Writer::create(name, CAPACITY), Err(CreateError::Name(_))), "{name:?}");
        assert!(matches!(Reader::open(name), Err(OpenError::Name(_))), "{name:?}");
    }
    let text = Reader::open(&long).unwrap_err().to_string();
    assert!(text.len() < 250, "{text}");
    for name in [".", "..", "A-z_0.9"] {
        let name = Name(format!("test-{}-{name}", std::process::id()));
        drop(name.create());
    }
    let longest = Name(format!("{:n<128}", format!("test-{}-", std::process::id())));
    drop(longest.create());
}

#[test]
fn capacities_that_no_log_has_are_refused() {
    let name = Name::new("capacity");
    for capacity in [0, 1, 64, 2048, 4095, 4097, 12288, 1 << 33, u64::MAX] {
        let refused = Writer::create(&name, capacity);
        assert!(matches!(refused, Err(CreateError::Capacity { capacity: told }) if told == capacity));
    }
    assert!(name.files().is_empty());
    drop(Writer::create(&name, 4096).unwrap());
}

#[test]
fn a_living_writers_name_is_refused_and_a_closed_ones_is_free() {
    let name = Name::new("taken");
    let mut child = Child::start("creates and stays", &[&name]);
    child.expect("created");
    let refused = Writer::create(&name, CAPACITY).unwrap_err();
    assert!(matches!(refused, CreateError::Taken { .. }), "{refused}");
    assert!(refused.to_string().contains(&*name));
    assert_eq!(name.files().len(), 2, "nothing was left behind or taken away");
    child.finish();
    let writer = name.create();
    assert!(matches!(Writer::create(&name, CAPACITY), Err(CreateError::Taken { .. })), "in one process, too");
    drop(writer);
    assert!(name.files().is_empty());
}

pub fn creates_and_stays(parent: &mut Parent, args: &[&str]) {
    let _writer = Writer::create(args[0], CAPACITY).unwrap();
    parent.say("created");
    parent.stay();
}

#[test]
fn a_pipe_has_one_reader_at_a_time() {
    let name = Name::new("busy");
    let writer = name.create();
    assert!(!writer.has_reader());
    let mut child = Child::start("reads and stays", &[&name]);
    child.expect("reading");
    assert!(writer.has_reader() && writer.wait_for_reader(Duration::ZERO));
    assert!(matches!(Reader::open(&name), Err(OpenError::Busy { .. })));
    child.finish();
    assert!(!writer.has_reader());
    let _reader = Reader::open(&name).unwrap();
    assert!(matches!(Reader::open(&name), Err(OpenError::Busy { .. })), "in one process, too");
    assert!(writer.has_reader());
}

pub fn reads_and_stays(parent: &mut Parent, args: &[&str]) {
    let _reader = Reader::open(args[0]).unwrap();
    parent.say("reading");
    parent.stay();
}

#[test]
fn waiting_for_either_side_ends_at_its_time() {
    let name = Name::new("nobody");
    let time = Duration::from_millis(20);
    let start = Instant::now();
    assert!(matches!(Reader::open_within(&name, time), Err(OpenError::Absent { .. })));
    assert!(start.elapsed() >= time);
    let writer = name.create();
    let start = Instant::now();
    assert!(!writer.wait_for_reader(time));
    assert!(start.elapsed() >= time);
}

#[test]
fn of_many_that_create_one_name_at_once_one_succeeds() {
    let name = Name::new("race");
    for round in 0..100 {
        leave(&name.path());
        leave(Path::new(&format!("{}:ab", name.path().display())));
        let start = Barrier::new(6);
        let made: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        Writer::create(&name, 4096)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut writers = Vec::new();
        for result in made {
            match result {
                Ok(writer) => writers.push(writer),
                Err(CreateError::Taken { .. }) => {}
                Err(other) => panic!("round {round}: {other}"),
            }
        }
        assert_eq!(writers.len(), 1, "round {round}");
        let mut reader = Reader::open(&name).unwrap();
        writers[0].write(b"the one").unwrap();
        assert_eq!(reader.recv().unwrap().unwrap(), b"the one");
        drop((writers, reader));
        assert!(name.files().is_empty(), "round {round}: {:?}", name.files());
    }
}

/// What a killed writer has left: a file that nobody locks.
fn leave(path: &Path) -> File {
    std::fs::write(path, vec![7; 8192]).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    File::options().read(true).write(true).open(path).unwrap()
}

/// Holds a byte's lock for as long as the file is open.
fn lock(file: &File, byte: i64) {
    // SAFETY: a plain struct of integers, for which all zeros are valid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    (lock.l_type, lock.l_start, lock.l_len) = (libc::F_WRLCK as _, byte, 1);
    fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
}

#[test]
fn what_killed_writers_left_behind_is_swept_away() {
    let name = Name::new("swept");
    for rest in ["ab", "ab.new", "0123456789abcdef0123456789abcdef"] {
        leave(Path::new(&format!("{}:{rest}", name.path().display())));
    }
    let neighbour = Name(format!("{}.ab", &*name));
    let _neighbour = neighbour.create();
    let _writer = name.create();
    assert_eq!((name.files().len(), neighbour.files().len()), (2, 2));
}

#[test]
fn a_dead_writers_name_is_cleared_by_one_at_a_time() {
    let name = Name::new("clearing");
    let stale = leave(&name.path());
    lock(&stale, 3);
    assert!(matches!(Writer::create(&name, CAPACITY), Err(CreateError::Taken { .. })), "another is at it");
    assert_eq!(name.files(), [name.path()], "and nothing was touched");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| Writer::create(&name, CAPACITY).map(drop));
        // The other one is done: the name is free, or another's.
        std::fs::remove_file(name.path()).unwrap();
        drop(stale);
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn who_is_just_opening_a_pipe_is_no_reader_yet() {
    let name = Name::new("opening");
    let writer = name.create();
    let file = File::options().read(true).write(true).open(name.path()).unwrap();
    lock(&file, 1);
    assert!(!writer.has_reader());
    assert!(matches!(Reader::open(&name), Err(OpenError::Busy { .. })));
}

#[test]
fn what_is_no_file_of_this_users_own_is_left_alone() {
    let name = Name::new("in-the-way");
    let path = name.path();
    let refused = |what: &str| {
        let create = Writer::create(&name, CAPACITY);
        assert!(matches!(create, Err(CreateError::InTheWay { .. })), "{what}: {create:?}");
        let open = Reader::open(&name);
        assert!(matches!(open, Err(OpenError::NoPipe { .. })), "{what}: {open:?}");
        assert!(path.symlink_metadata().is_ok(), "{what} is still there");
    };
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    symlink(elsewhere.path(), &path).unwrap();
    refused("a symbolic link");
    std::fs::remove_file(&path).unwrap();

    std::fs::create_dir(&path).unwrap();
    refused("a directory");
    std::fs::remove_dir(&path).unwrap();

    nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    refused("a fifo");
    std::fs::remove_file(&path).unwrap();

    std::fs::write(&path, vec![0; 8192]).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    refused("a file that others may write");
}

#[test]
fn segments_are_the_owners_alone_whatever_the_umask() {
    let name = Name::new("umask");
    Child::start("creates under any umask", &[&name]).finish();
}

pub fn creates_under_any_umask(_: &mut Parent, args: &[&str]) {
    for mask in [0o000, 0o022, 0o077, 0o277, 0o777] {
        umask(Mode::from_bits(mask).unwrap());
        let name = Name(args[0].to_owned());
        let writer = name.create();
        assert_eq!(name.files().len(), 2);
        for path in name.files() {
            let mode = path.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o600, "{} under {mask:03o}", path.display());
        }
        Reader::open(&name).unwrap();
        drop(writer);
    }
}

#[test]
fn a_pipe_beyond_the_file_size_limit_is_an_error_and_leaves_nothing() {
    let name = Name::new("limit");
    Child::start("is limited in file size", &[&name]).finish();
    assert!(name.files().is_empty());
}

pub fn is_limited_in_file_size(_: &mut Parent, args: &[&str]) {
    setrlimit(Resource::RLIMIT_FSIZE, 64 * 1024, 64 * 1024).unwrap();
    let refused = Writer::create(args[0], CAPACITY).unwrap_err();
    assert!(matches!(refused, CreateError::Memory { .. }), "{refused}");
    drop(Writer::create(args[0], CAPACITY / 2).unwrap());
}

#[test]
fn a_reader_can_wait_for_its_writer() {
    let name = Name::new("within");
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| Reader::open_within(&name, DEADLINE).unwrap().recv().unwrap());
        let mut writer = name.create();
        writer.write(b"first").unwrap();
        assert_eq!(reading.join().unwrap().unwrap(), b"first");
    });
}
