//! What commands take in memory, and of descriptors.

use super::*;

/// Many times as large when each value is an object in memory.
const NILS: usize = 24_000_000;
/// What the message is mapped as, in MiB; a copy of it takes 23 more.
const MAPPED: usize = 32;
/// Nothing like a copy has room in this, and what is said of it does; a copy and what is printed of it have in this.
const SPARE: [(usize, bool); 2] = [(100, true), (8, false)];

/// A `sub` with so many MiB of address space, if it is limited.
fn sub(place: &Place, mib: Option<usize>) -> Running {
    let limit = mib.map_or_else(|| "unlimited".to_owned(), |mib| (mib << 10).to_string());
    limited(place, &format!("-v {limit}"), &["sub", "--count", "2", "t"])
}

/// A command with a limit.
fn limited(place: &Place, limit: &str, args: &[&str]) -> Running {
    let bare = place.command(args);
    let mut command = Command::new("sh");
    command.args(["-c", &format!(r#"ulimit {limit}; exec "$0" "$@""#)]);
    command.arg(bare.get_program()).args(bare.get_args()).env("RINGBUS_DIR", place.dir());
    // Else each thread reserves 64 MiB of address space.
    command.env("MALLOC_ARENA_MAX", "1").env_remove("RUST_LOG").env_remove("RINGBUS_BUS");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::start(command)
}

/// The most that a process's address space ever was, in MiB.
fn peak(sub: &Running) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", sub.pid())).expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).expect("VmPeak");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number").div_ceil(1 << 10)
}

#[test]
fn a_huge_array_of_nothing_is_printed_or_told_to_be_too_large() {
    let place = Place::new();
    let node = place.join("publisher");
    let many = vec![(); NILS];
    let mut publisher = node.publisher::<Vec<()>>("t").unwrap();
    let idle = sub(&place, None);
    publisher.wait_for_subscribers(1, DEADLINE).unwrap();
    let program = peak(&idle);
    drop(idle);
    eventually("its end", || publisher.stats().peers == 0);
    for (spare, is_room) in SPARE {
        let mut sub = sub(&place, Some(program + MAPPED + spare));
        let (lines, errors) = (sub.lines(), sub.errors());
        publisher.wait_for_subscribers(1, DEADLINE).unwrap();
        publisher.publish(&many).unwrap();
        if is_room {
            let line = lines.next();
            assert_eq!(line.len(), "t []".len() + NILS * "null,".len() - 1, "{:?}", errors.rest());
        } else {
            let told = errors.next();
            assert!(told.contains("too large for this process's memory"), "{told}");
        }
        for _ in 0..2 {
            publisher.publish(&vec![(); 2]).unwrap();
        }
        assert_eq!(lines.next(), "t [null,null]", "it goes on");
        drop(lines);
        assert!(sub.wait().success());
        eventually("its end", || publisher.stats().peers == 0);
    }
}

#[test]
fn too_few_descriptors_are_told_whatever_runs_out_of_them() {
    let place = Place::new();
    let mut told = 0;
    for files in 6.. {
        let mut sub = limited(&place, &format!("-n {files}"), &["sub", "t"]);
        let errors = sub.errors();
        let start = Instant::now();
        let ended = loop {
            thread::sleep(Duration::from_millis(5));
            match sub.child.try_wait().expect("to wait for it") {
                None if start.elapsed() < Duration::from_secs(3) => {}
                ended => break ended,
            }
        };
        if ended.is_none() {
            break; // it has enough
        }
        let said = errors.rest().join(" ");
        assert!(said.contains("error: ") && said.contains("`ulimit -n`"), "{files}: {said}");
        told += 1;
    }
    assert!(told > 0, "the first is far too few");
}

#[test]
fn too_little_address_space_is_told_wherever_a_process_can_begin_at_all() {
    let place = Place::new();
    let idle = limited(&place, "-v unlimited", &["sub", "t"]);
    eventually("its port", || place.join("watcher").peers().iter().any(|peer| !peer.ports().is_empty()));
    let program = peak(&idle) << 10;
    drop(idle);
    let mut told = 0;
    for kib in (program - (12 << 10)..).step_by(128) {
        let output = limited(&place, &format!("-v {kib}"), &["pub", "t", "1"]).output();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(0) => break,
            Some(1) if said.starts_with("error: ") => {
                assert!(said.contains("`ulimit -v`"), "{kib}: {said}");
                told += 1;
            }
            // The loader, or std before there is a program.
            code => assert_eq!(told, 0, "{kib} KiB: {code:?}: {said}"),
        }
    }
    assert!(told > 5, "a thread and its log alone take more than {told} steps");
}
