//! Processes that reach a limit: a clear error, nothing left behind, and what is there goes on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, chown, geteuid, setgid, setgroups, setuid};
use ringbus::{Bus, Code, Error, Node, Publisher, Status, Subscriber, Wait};

mod support;
use support::stopwatch::Stopwatch;
use support::{Child, DEADLINE, Dir, Parent, eventually, in_a_process_of_its_own, resources};

/// A user without privileges.
const NOBODY: u32 = 65_534;

#[test]
fn child() {
    support::play(&[
        ("is short of files", is_short_of_files),
        ("is short of address space", is_short_of_address_space),
        ("may write no large file", may_write_no_large_file),
        ("finds a full directory", finds_a_full_directory),
        ("finds a read-only directory", finds_a_read_only_directory),
        ("may not write", may_not_write),
        ("has fds in flight", has_fds_in_flight),
        ("may send no fds", may_send_no_fds),
        ("reads", reads),
        ("serves twice", serves_twice),
        ("is short of memory for one of two", is_short_for_one_of_two),
    ]);
}

/// Traffic that has to go on: a node that sends to itself and to a second one.
struct Traffic {
    nodes: [Node; 2],
    publisher: Publisher<u64>,
    subscribers: [Subscriber<u64>; 2],
    sent: u64,
}

impl Traffic {
    fn new(bus: &Bus) -> Self {
        let nodes = [bus.join("one").unwrap(), bus.join("other").unwrap()];
        let subscribers = nodes.each_ref().map(|node| node.subscriber("traffic").unwrap());
        let publisher = nodes[0].publisher("traffic").unwrap();
        publisher.wait_for_subscribers(2, DEADLINE).unwrap();
        Self { nodes, publisher, subscribers, sent: 0 }
    }

    /// What this process and the directory hold once all but this traffic is gone.
    fn alone(&self, dir: &str) -> ((usize, usize), usize) {
        let alone = |node: &Node| node.peers().len() == 1;
        eventually("the others are gone", || self.nodes.iter().all(alone) && files(dir) == 2);
        (resources(), files(dir))
    }

    #[track_caller]
    fn goes_on(&mut self) {
        for _ in 0..100 {
            self.publisher.publish(&self.sent).unwrap();
            for subscriber in &mut self.subscribers {
                let message = subscriber.recv_timeout(DEADLINE).unwrap().expect("the message");
                assert_eq!(*message, self.sent);
            }
            self.sent += 1;
        }
    }
}

/// Everything that can be opened, with logs of this capacity; the first error.
fn open_all(bus: &Bus, capacity: u64) -> Result<(), Error> {
    let node = bus.join("more")?;
    let _presence = node.presence()?;
    let _subscriber = node.subscriber::<u64>("t")?;
    let mut publisher = node.publisher_builder("t").capacity(capacity).open::<u64>()?;
    publisher.publish(&1)?;
    let _inbox = node.inbox::<u64>()?;
    let _server = node.service("s").method("double", |_, n: u64| Ok(n * 2)).spawn()?;
    let client = node.client("s")?;
    client.wait_for_server(DEADLINE)?;
    let answer: u64 = *client.request("double").timeout(Duration::from_secs(2)).send(&1_u64)?;
    assert_eq!(answer, 2);
    Ok(())
}

/// What it says names the limit, and what to do.
#[track_caller]
fn is_clear(error: &Error, advice: &str) {
    let text = error.to_string();
    assert!(text.contains(advice), "{advice:?} is not in {text:?}");
}

fn files(dir: &str) -> usize {
    fs::read_dir(format!("{dir}/bus")).map_or(0, Iterator::count)
}

in_a_process_of_its_own! {
    too_few_files_are_an_error_that_leaves_nothing: "is short of files";
    too_little_address_space_is_an_error_that_leaves_nothing: "is short of address space";
    too_small_files_are_an_error_and_no_signal: "may write no large file";
    a_directory_that_may_not_be_written_is_an_error: "may not write";
}

fn is_short_of_files(parent: &mut Parent, args: &[&str]) {
    let bus = support::bus(args[0]);
    let mut traffic = Traffic::new(&bus);
    open_all(&bus, 4096).unwrap(); // what is made once in a process is there
    traffic.goes_on();
    let (before, at) = traffic.alone(args[0]);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let mut failed = 0;
    for more in 0.. {
        setrlimit(Resource::RLIMIT_NOFILE, before.0 as u64 + more, hard).unwrap();
        let opened = open_all(&bus, 4096);
        traffic.goes_on();
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        eventually("nothing is left", || resources() == before && files(args[0]) == at);
        match opened {
            Ok(()) => break,
            // Nobody can be called, or answers cannot be read.
            Err(Error::Call(status)) => assert!(
                status.message().contains("descriptors") || status.message().contains("files"),
                "{status}"
            ),
            Err(Error::Wait(_)) => {}
            Err(error) => is_clear(&error, "ulimit -n"),
        }
        failed += 1;
    }
    assert!(failed > 10, "{failed}");
    open_all(&bus, 4096).unwrap();
    traffic.goes_on();
    parent.say("passed");
}

fn is_short_of_address_space(parent: &mut Parent, args: &[&str]) {
    const LARGE: u64 = 1 << 30;
    let bus = support::bus(args[0]);
    let mut traffic = Traffic::new(&bus);
    open_all(&bus, 4096).unwrap();
    let ((before, at), mapped) = (traffic.alone(args[0]), address_space());
    let (soft, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
    // Enough for the log where it is written, or where it is read, too, but not for both.
    for factor in [1, 3] {
        setrlimit(Resource::RLIMIT_AS, mapped + factor * LARGE / 2, hard).unwrap();
        let opened = open_all(&bus, LARGE);
        traffic.goes_on();
        setrlimit(Resource::RLIMIT_AS, soft, hard).unwrap();
        if factor == 1 {
            is_clear(&opened.unwrap_err(), "ulimit -v");
        }
        eventually("nothing is left", || resources() == before && files(args[0]) == at);
    }
    open_all(&bus, LARGE).unwrap();
    traffic.goes_on();
    parent.say("passed");
}

fn may_write_no_large_file(parent: &mut Parent, args: &[&str]) {
    let bus = support::bus(args[0]);
    let mut traffic = Traffic::new(&bus);
    open_all(&bus, 4096).unwrap();
    let (before, at) = traffic.alone(args[0]);
    let (soft, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    // SIGXFSZ, which would end this process, is at its default.
    for most in [0, 4096, 16 * 1024, 64 * 1024] {
        setrlimit(Resource::RLIMIT_FSIZE, most, hard).unwrap();
        let opened = open_all(&bus, 256 * 1024);
        traffic.goes_on();
        setrlimit(Resource::RLIMIT_FSIZE, soft, hard).unwrap();
        is_clear(&opened.unwrap_err(), "ulimit -f");
        eventually("nothing is left", || resources() == before && files(args[0]) == at);
    }
    open_all(&bus, 256 * 1024).unwrap();
    publishes_no_large_message(&bus);
    parent.say("passed");
}

/// Another message that is not read yet is not the reason, and is not waited for.
fn publishes_no_large_message(bus: &Bus) {
    let [one, other] = ["one", "other"].map(|name| bus.join(name).unwrap());
    let mut subscriber = other.raw_subscriber("large").unwrap();
    let mut publisher = one.raw_publisher("large").unwrap();
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    publisher.publish(&[7; 70_000]).unwrap();
    let (soft, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, 300 * 1024, hard).unwrap();
    let start = Stopwatch::start();
    let refused = publisher.publish(&vec![7; 1 << 20]).unwrap_err();
    start.within(Duration::from_millis(500)); // of 1 s that it would wait for room
    setrlimit(Resource::RLIMIT_FSIZE, soft, hard).unwrap();
    is_clear(&refused.into(), "ulimit -f");
    assert_eq!(subscriber.recv().unwrap().len(), 70_000);
}

/// Namespaces in which a file system can be mounted, whoever runs the test; the script finds the rest in "$@".
fn mounting(script: &str) -> Vec<String> {
    let mut through: Vec<&str> = vec!["unshare", "--mount", "--kill-child"];
    if !geteuid().is_root() {
        through.extend(["--user", "--map-root-user"]);
    }
    let script = format!("{script} && exec \"$@\"");
    through.extend(["sh", "-c", &script, "sh"]);
    through.into_iter().map(str::to_owned).collect()
}

fn with_mounts(script: &str, role: &str) {
    let dir = Dir::new();
    let script = script.replace("DIR", dir.arg());
    let through = mounting(&script);
    let through: Vec<&str> = through.iter().map(String::as_str).collect();
    let mut child = Child::start_through(&through, role, &[dir.arg()]);
    child.expect("passed");
    child.finish();
}

#[test]
fn a_full_directory_is_an_error_that_leaves_nothing() {
    // The root, the bus's directory, two sockets, and no more.
    with_mounts("mount -t tmpfs -o nr_inodes=4,mode=700 none DIR", "finds a full directory");
}

fn finds_a_full_directory(parent: &mut Parent, args: &[&str]) {
    let bus = support::bus(args[0]);
    let mut traffic = Traffic::new(&bus);
    let (before, at) = traffic.alone(args[0]);
    for _ in 0..3 {
        is_clear(&open_all(&bus, 4096).unwrap_err(), "free space or inodes");
        traffic.goes_on();
        eventually("nothing is left", || resources() == before && files(args[0]) == at);
    }
    let other = Bus::builder("other").dir(args[0]).open();
    is_clear(&other.unwrap_err().into(), "free space or inodes");
    parent.say("passed");
}

#[test]
fn a_read_only_directory_is_an_error_that_leaves_nothing() {
    with_mounts("mount -t tmpfs -o mode=700 none DIR", "finds a read-only directory");
}

fn finds_a_read_only_directory(parent: &mut Parent, args: &[&str]) {
    let bus = support::bus(args[0]);
    let mut traffic = Traffic::new(&bus);
    let (before, at) = traffic.alone(args[0]);
    let remount = |how: &str| {
        let done = std::process::Command::new("mount").args(["-o", how, args[0]]).status().unwrap();
        assert!(done.success());
    };
    remount("remount,ro");
    is_clear(&open_all(&bus, 4096).unwrap_err(), "let this user write there");
    is_clear(&Bus::builder("other").dir(args[0]).open().unwrap_err().into(), "let this user write there");
    traffic.goes_on();
    eventually("nothing is left", || resources() == before && files(args[0]) == at);
    remount("remount,rw");
    open_all(&bus, 4096).unwrap();
    parent.say("passed");
}

fn become_nobody(dir: &str) {
    if geteuid().is_root() {
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        chown(dir, Some(user), Some(group)).unwrap();
        setgroups(&[group]).unwrap();
        setgid(group).unwrap();
        setuid(user).unwrap();
        // A change of user takes it away.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).unwrap();
    }
}

fn may_not_write(parent: &mut Parent, args: &[&str]) {
    become_nobody(args[0]);
    fs::set_permissions(args[0], fs::Permissions::from_mode(0o500)).unwrap();
    let opened = Bus::builder("bus").dir(args[0]).open();
    is_clear(&opened.unwrap_err().into(), "let this user write there");
    assert_eq!(fs::read_dir(args[0]).unwrap().count(), 0);
    fs::set_permissions(args[0], fs::Permissions::from_mode(0o700)).unwrap();
    support::bus(args[0]).join("n").unwrap();
    parent.say("passed");
}

#[test]
fn too_many_fds_in_flight_hold_up_no_traffic() {
    let dir = Dir::new();
    if geteuid().is_root() {
        chown(dir.path(), Some(Uid::from_raw(NOBODY)), Some(Gid::from_raw(NOBODY))).unwrap();
    }
    let mut reader = Child::start("reads", &[dir.arg()]);
    reader.expect("open");
    let mut sender = Child::start("may send no fds", &[dir.arg()]);
    sender.expect("met");
    let mut holder = Child::start("has fds in flight", &[dir.arg()]);
    holder.expect("full");
    sender.tell("go on");
    sender.expect("open");
    holder.tell("enough");
    sender.expect("passed");
    sender.finish();
    holder.finish();
    reader.finish();
}

fn reads(parent: &mut Parent, args: &[&str]) {
    become_nobody(args[0]);
    let node = support::bus(args[0]).join("reader").unwrap();
    let _subscriber = node.subscriber_builder("t/*").wait(Wait::Park).open::<u64>().unwrap();
    parent.say("open");
    parent.stay();
}

/// Has so many fds under way, to itself, that another process of this user may send none.
fn has_fds_in_flight(parent: &mut Parent, args: &[&str]) {
    use std::os::fd::AsFd;
    become_nobody(args[0]);
    let pair = ringbus::internals::sys::seqpacket::Socket::pair().unwrap();
    for _ in 0..100 {
        pair.0.send(b"x", &[pair.0.as_fd(); 8]).unwrap();
    }
    parent.say("full");
    parent.hear("enough");
    drop(pair);
    parent.stay();
}

fn may_send_no_fds(parent: &mut Parent, args: &[&str]) {
    become_nobody(args[0]);
    let mut traffic = Traffic::new(&support::bus(args[0]));
    let node = support::bus(args[0]).join("sender").unwrap();
    let is_reader = |peer: &ringbus::Peer| !peer.ports().is_empty() && peer.name() == "reader";
    eventually("the reader is there", || node.peers().iter().any(is_reader));
    parent.say("met");
    parent.hear("go on");
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, resources().0 as u64 + 40, hard).unwrap();
    assert!(are_too_many_in_flight());
    for round in 0..10 {
        let start = Stopwatch::start();
        node.publisher::<u64>(&format!("t/{round}")).unwrap();
        start.within(Duration::from_secs(2));
        traffic.goes_on();
    }
    assert!(are_too_many_in_flight());
    let publisher = node.publisher::<u64>("t/last").unwrap();
    parent.say("open");
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    assert!(node.refused().is_empty());
    traffic.goes_on();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    parent.say("passed");
}

/// Whether the kernel takes no more of this user's fds.
fn are_too_many_in_flight() -> bool {
    use std::os::fd::AsFd;
    let Ok((one, _other)) = ringbus::internals::sys::seqpacket::Socket::pair() else { return false };
    one.send(b"x", &[one.as_fd()]).is_err_and(|error| error.raw_os_error() == Some(nix::libc::ETOOMANYREFS))
}

/// Answers of one of two servers fit into what a client may map.
const ANSWERS: u64 = 16 << 20;

#[test]
fn a_client_short_of_memory_begins_anew_with_the_server_it_was_short_for_alone() {
    let dir = Dir::new();
    let mut servers = Child::start("serves twice", &[dir.arg()]);
    servers.expect("open");
    let mut client = Child::start("is short of memory for one of two", &[dir.arg()]);
    client.expect("passed");
    client.finish();
    servers.tell("who was refused?");
    servers.expect("nobody");
    servers.finish();
}

fn serves_twice(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("servers").unwrap();
    let service = || node.service("s").workers(1).capacity(ANSWERS);
    let server = |_| service().method("double", |_, n: u64| Ok(n * 2)).spawn().unwrap();
    let _servers = [0, 1].map(server);
    parent.say("open");
    parent.hear("who was refused?");
    assert!(node.refused().is_empty(), "{:?}", node.refused());
    parent.say("nobody");
    parent.stay();
}

fn is_short_for_one_of_two(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join("client").unwrap();
    let client = node.client("s").unwrap();
    eventually("both are there", || client.servers().len() == 2);
    let double = || -> Result<u64, Status> {
        client.request("double").timeout(DEADLINE).send(&21_u64).map(|answer: ringbus::Response<u64>| *answer)
    };
    let (soft, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
    setrlimit(Resource::RLIMIT_AS, address_space() + ANSWERS / 4 * 7, hard).unwrap();
    let (answered, failed): (Vec<_>, Vec<_>) = (0..10).map(|_| double()).partition(Result::is_ok);
    assert!(!answered.is_empty() && !failed.is_empty(), "{answered:?} {failed:?}");
    for status in failed.into_iter().map(Result::unwrap_err) {
        assert!(
            status.code() == Code::Unavailable && status.message().contains("cannot be read"),
            "{status}"
        );
    }
    setrlimit(Resource::RLIMIT_AS, soft, hard).unwrap();
    for _ in 0..4 {
        assert_eq!(double().ok(), Some(42));
    }
    assert!(node.refused().is_empty(), "{:?}", node.refused());
    assert_eq!(client.servers().len(), 2, "nobody is cut off");
    parent.say("passed");
}

/// What this process has mapped, in bytes.
fn address_space() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').next().unwrap().parse::<u64>().unwrap() * ringbus::internals::segment::page_size() as u64
}
