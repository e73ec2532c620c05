//! What commands take in memory, and of descriptors.

use ringbus::Status;

use super::*;

/// Many times as large when each value is an object in memory.
const NILS: usize = 24_000_000;
/// What the message is mapped as, in MiB; a copy of it takes 23 more.
const MAPPED: usize = 32;
/// Nothing like a copy has room in this, and what is said of it does; a copy and what is printed of it have in this.
const SPARE: [(usize, bool); 2] = [(100, true), (8, false)];

/// Of an answer, of which copies are taken.
const FEWER: usize = 6_000_000;
/// The same for it.
const ANSWER_SPARE: [(usize, bool); 2] = [(80, true), (12, false)];

/// A `sub` with so many MiB of address space, if it is limited.
fn sub(place: &Place, mib: Option<usize>) -> Running {
    let limit = mib.map_or_else(|| "unlimited".to_owned(), |mib| (mib << 10).to_string());
    limited(place, &format!("-v {limit}"), &["sub", "--count", "2", "t"])
}

/// A command with a limit, under way.
fn limited(place: &Place, limit: &str, args: &[&str]) -> Running {
    Running::start(limited_command(place, limit, args))
}

fn limited_command(place: &Place, limit: &str, args: &[&str]) -> Command {
    let bare = place.command(args);
    let mut command = Command::new("sh");
    command.args(["-c", &format!(r#"ulimit {limit}; exec "$0" "$@""#)]);
    command.arg(bare.get_program()).args(bare.get_args()).env("RINGBUS_DIR", place.dir());
    // Else each thread reserves 64 MiB of address space.
    command.env("MALLOC_ARENA_MAX", "1").env_remove("RUST_LOG").env_remove("RINGBUS_BUS");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
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

/// What an idle `sub` takes, in MiB.
fn program(place: &Place) -> usize {
    let idle = limited(place, "-v unlimited", &["sub", "t"]);
    eventually("its port", || place.join("watcher").peers().iter().any(|peer| !peer.ports().is_empty()));
    peak(&idle)
}

#[test]
fn a_huge_answer_of_a_peer_is_printed_or_told_to_be_too_large() {
    let place = Place::new();
    let program = program(&place);
    let node = place.join("server");
    let details = || Status::aborted("no").with_details(&vec![(); FEWER]);
    let _server = node
        .service("svc")
        .method("succeed", |_ctx, ()| Ok(vec![(); FEWER]))
        .method("fail", move |_ctx, ()| Err::<(), _>(details()))
        .spawn()
        .unwrap();
    let printed = "[]".len() + FEWER * "null,".len() - 1 + "\n".len();
    for (spare, is_room) in ANSWER_SPARE {
        let limit = format!("-v {}", (program + spare) << 10);
        let call = |args: &[&str]| limited(&place, &limit, &[&["call"], args].concat()).output();
        let (called, failed) = (call(&["svc", "succeed"]), call(&["svc", "fail"]));
        let (told, details) = (text(&called.stderr), text(&failed.stderr));
        assert_eq!(failed.status.code(), Some(1), "{details}");
        if is_room {
            assert_eq!((called.status.code(), called.stdout.len()), (Some(0), printed), "{told}");
            assert_eq!(
                details,
                format!("error: aborted: no; details: {} bytes, which --json shows\n", FEWER + 5)
            );
            let shown = call(&["svc", "fail", "--json"]).stdout;
            assert!(shown.len() > printed && shown.ends_with(b",null]}\n"));
        } else {
            assert_eq!((called.status.code(), called.stdout.len()), (Some(1), 0), "{told}");
            assert!(told.contains("memory") && told.contains("`ulimit -v`"), "{told}");
            assert!(details.starts_with("error: aborted: no"), "{details}");
        }
    }
}

#[test]
fn a_huge_argument_does_not_end_serve_echo() {
    let place = Place::new();
    let program = program(&place);
    let limit = format!("-v {}", (program + 100) << 10);
    let mut server = limited(&place, &limit, &["serve-echo"]);
    let lines = server.lines();
    assert!(lines.next().contains(" serves echo "));
    let client = place.join("caller").client("echo").unwrap();
    let nils = vec![(); FEWER];
    let echoed = client.request("echo").timeout(DEADLINE).send::<_, Vec<()>>(&nils).unwrap();
    assert_eq!(echoed.len(), FEWER);
    let refused = client.request("fail").timeout(DEADLINE).send::<_, ()>(&nils).unwrap_err();
    assert_eq!(refused.code(), ringbus::Code::InvalidArgument, "{refused}");
    assert!(server.child.try_wait().unwrap().is_none(), "it goes on");
}

#[test]
fn a_huge_line_is_published_or_told_to_be_too_large() {
    let place = Place::new();
    let program = program(&place);
    let numbers = format!("[{}1]\n", "1,".repeat(FEWER));
    let escaped = format!("{{\"a\":\"{}\"}}\n", "\\n".repeat(FEWER));
    let plain = format!("{}\n", "x".repeat(2 * FEWER));
    for line in [&numbers, &escaped, &plain] {
        let publish = |spare: usize| {
            let limit = format!("-v {}", (program + spare) << 10);
            let output = feed(limited_command(&place, &limit, &["pub", "t", "-"]), line);
            (output.status.code(), text(&output.stderr))
        };
        let mut refused = 0;
        for spare in (2..).step_by(6) {
            match publish(spare) {
                (Some(0), said) => {
                    assert!(said.starts_with("note: nobody subscribed"), "{said}");
                    assert!(spare <= 120, "{spare} MiB for 12 MB: {line:.20}");
                    break;
                }
                (code, said) => {
                    assert_eq!(code, Some(1), "{spare}: {line:.20}: {said}");
                    assert!(said.starts_with("error: ") && said.contains("`ulimit -v`"), "{spare}: {said}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 2, "{refused}: {line:.20}");
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
    let program = program(&place) << 10;
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
