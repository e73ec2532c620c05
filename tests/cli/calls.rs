//! `ringbus call` and `ringbus serve-echo`.

use nix::sys::signal::Signal;
use ringbus::Status;

use super::*;

/// The codes by number, as `call --json` names them.
const CODES: [&str; 17] = [
    "ok",
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
];

/// A `serve-echo` that serves.
fn serve(place: &Place, args: &[&str]) -> Running {
    // Whatever runs the tests may ignore SIGHUP (nohup), which is inherited.
    let mut server = Running::start(through("env", &["--default-signal=HUP"], place, args));
    let line = server.lines().next();
    assert!(line.starts_with("ringbus-serve-echo serves "), "{line}");
    server
}

/// `serve-echo`, started by another program.
fn through(program: &str, its: &[&str], place: &Place, args: &[&str]) -> Command {
    let served = place.command(&[&["serve-echo"], args].concat());
    let mut command = Command::new(program);
    command.args(its).arg(served.get_program()).args(served.get_args());
    command.env_remove("RUST_LOG").env_remove("RINGBUS_BUS");
    command.envs(served.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// What `call --json` prints, and its exit code.
#[track_caller]
fn call(place: &Place, args: &[&str]) -> (Value, i32) {
    let output = place.run(&[&["call", "--json"], args].concat());
    let stdout = text(&output.stdout);
    assert_eq!(stdout.lines().count(), 1, "{args:?}: {stdout} {}", text(&output.stderr));
    (json(&stdout), output.status.code().unwrap())
}

#[test]
fn echo_returns_any_value() {
    let place = Place::new();
    let _server = serve(&place, &[]);
    for value in [
        "null",
        "-3",
        "2.0",
        "18446744073709551615",
        r#""a \"b\"  c""#,
        r#"{"b":[1,2.5,{"a":null}],"a":{}}"#,
        r#"{"$bin":"AAEC/w=="}"#,
        r#"{"$ext":[5,"AA=="]}"#,
        r#"{"$map":[[1,"one"],[[2],null]]}"#,
        r#"{"$float":"NaN"}"#,
    ] {
        assert_eq!(place.succeed(&["call", "echo", "echo", value]), format!("{value}\n"));
    }
    assert_eq!(place.succeed(&["call", "echo", "echo"]), "null\n", "no value is null");
    assert_eq!(place.succeed(&["call", "echo", "echo", "three mice"]), "\"three mice\"\n");
    assert_eq!(place.succeed(&["call", "echo", "echo", "--text", "3"]), "\"3\"\n");
    let large = "x".repeat(100_000);
    assert_eq!(place.succeed(&["call", "echo", "echo", &large]), format!("\"{large}\"\n"));
}

#[test]
fn each_line_of_stdin_is_a_call_until_one_fails() {
    let place = Place::new();
    let _server = serve(&place, &[]);
    let output = place.feed(&["call", "echo", "echo", "-"], "1\n\n[2]\n");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "1\n[2]\n");
    let output = place.feed(&["call", "echo", "fail", "-"], "0\n5\n0\n");
    assert_eq!((output.status.code(), &*text(&output.stdout)), (Some(1), "null\n"));
    assert_eq!(text(&output.stderr), "error: not found\n");
}

#[test]
fn a_calls_answer_has_headers_and_a_source() {
    let place = Place::new();
    let server = serve(&place, &["--service", "other", "--workers", "2"]);
    let args = ["other", "echo", "[1]", "--header", "k=v", "--header", "trace=1=2", "--timeout", "20s"];
    let (answer, code) = call(&place, &args);
    let id = answer["source"]["id"].as_str().unwrap_or_default().to_owned();
    assert_eq!(id.len(), 32, "{answer}");
    assert_eq!(
        answer,
        serde_json::json!({
            "status": "ok", "code": 0, "value": [1], "headers": {"k": "v", "trace": "1=2"},
            "source": {"name": "ringbus-serve-echo", "id": id, "pid": server.pid()},
        })
    );
    assert_eq!(code, 0);
}

#[test]
fn every_status_can_be_asked_for_by_number_and_by_name() {
    let place = Place::new();
    let _server = serve(&place, &[]);
    for (number, name) in CODES.iter().enumerate() {
        for wanted in [number.to_string(), format!("{name:?}"), format!("{{\"code\":{number}}}")] {
            let (answer, code) = call(&place, &["echo", "fail", &wanted]);
            assert_eq!((&answer["status"], &answer["code"]), (&(*name).into(), &number.into()), "{wanted}");
            assert_eq!(code, i32::from(number != 0));
            match number {
                0 => assert_eq!(answer["value"], Value::Null),
                _ => assert_eq!((&answer["message"], answer.get("details")), (&"".into(), None)),
            }
        }
    }
}

#[test]
fn a_failed_call_is_told_in_a_line_with_details() {
    let place = Place::new();
    let _server = serve(&place, &[]);
    let wanted = r#"{"code":"aborted","message":"try again","details":{"task":[42,null]}}"#;
    let error = place.fail(&["call", "echo", "fail", wanted], 1);
    assert_eq!(error, "error: aborted: try again; details: {\"task\":[42,null]}\n");
    let (answer, code) = call(&place, &["echo", "fail", wanted]);
    assert_eq!(
        (answer, code),
        (
            serde_json::json!({
                "status": "aborted", "code": 10, "message": "try again", "details": {"task": [42, null]},
            }),
            1
        )
    );
    for wanted in ["17", "-1", "\"no such code\"", "null", "{}", "[5]", r#"{"code":5,"message":1}"#] {
        let error = place.fail(&["call", "echo", "fail", wanted], 1);
        assert!(error.starts_with("error: invalid argument: "), "{wanted}: {error}");
    }
}

#[test]
fn a_call_that_takes_too_long_ends_in_time() {
    let place = Place::new();
    let _server = serve(&place, &[]);
    let slept = json(&place.succeed(&["call", "echo", "sleep", "30"]));
    assert!(slept.as_u64().unwrap() >= 30, "{slept}");

    let start = Instant::now();
    let error = place.fail(&["call", "echo", "sleep", "3600000", "--timeout", "200ms"], 1);
    assert!(error.starts_with("error: deadline exceeded: echo.sleep"), "{error}");
    assert!(start.elapsed() >= Duration::from_millis(200));
    // Its only worker has given up, too.
    assert_eq!(place.succeed(&["call", "echo", "echo", "1", "--timeout", "30s"]), "1\n");
}

/// It hears of its deadline from the server, which was there first.
#[test]
fn a_caller_that_is_stopped_across_its_deadline_is_told_that_it_passed() {
    let place = Place::new();
    let server = serve(&place, &[]);
    let node = place.join("watcher");
    let taken = || {
        let ports = node.survey(DEADLINE).into_iter().flat_map(|node| node.ports);
        ports.filter(|port| port.role == "server").map(|port| port.stats.messages).sum::<u64>()
    };
    let call = place.start(&["call", "echo", "sleep", "3600000", "--timeout", "1s"]);
    eventually("the request is taken", || taken() == 1);
    call.signal(Signal::SIGSTOP);
    // Its only worker is free again: the answer is written.
    assert_eq!(place.succeed(&["call", "echo", "echo", "1", "--timeout", "30s"]), "1\n");
    call.signal(Signal::SIGCONT);
    let output = call.output();
    let error = text(&output.stderr);
    assert!(error.starts_with("error: deadline exceeded: echo.sleep"), "{error}");
    drop(server);
}

#[test]
fn an_interrupted_call_is_cancelled_at_the_server() {
    let place = Place::new();
    let node = place.join("server");
    let (started, start) = std::sync::mpsc::channel();
    let (ended, end) = std::sync::mpsc::channel();
    let _server = node
        .service("slow")
        .method("wait", move |ctx, ()| {
            started.send(()).unwrap();
            let deadline = Instant::now() + DEADLINE;
            while !ctx.cancelled() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            ended.send(ctx.cancelled() && ctx.remaining().is_some_and(|left| !left.is_zero())).unwrap();
            Err::<(), _>(Status::cancelled("as you wish"))
        })
        .spawn()
        .unwrap();
    let mut call = place.start(&["call", "slow", "wait", "--timeout", "10m"]);
    start.recv_timeout(DEADLINE).unwrap();
    call.signal(Signal::SIGINT);
    assert_eq!(call.wait().code(), Some(130));
    assert!(end.recv_timeout(DEADLINE).unwrap(), "the server was told");
    eventually("its goodbye", || node.peers().is_empty());
}

#[test]
fn calls_that_cannot_be_made_fail_at_once() {
    let place = Place::new();
    let start = Instant::now();
    let (answer, code) = call(&place, &["nobody", "echo", "1", "--timeout", "1m"]);
    assert_eq!((&answer["status"], code), (&"not_found".into(), 1));
    assert!(answer["message"].as_str().unwrap().contains("nobody serves \"nobody\""), "{answer}");
    assert!(start.elapsed() < Duration::from_secs(30));

    let _server = serve(&place, &[]);
    for (args, code, said) in [
        (
            &["echo", "no-such-method"][..],
            1,
            "unimplemented: service \"echo\" has no method \"no-such-method\"",
        ),
        (&["echo", "sleep", "soon"], 1, "invalid argument: arguments of echo.sleep"),
        (&["echo", "echo", "1", "--timeout", "0"], 1, "deadline exceeded"),
        (&["echo", "echo", r#"{"done":3"#], 1, "begins like JSON"),
        (&["echo", "echo", "1", "--header", "x"], 2, "KEY=VALUE"),
        (&["echo", "echo", "1", "--header", "@time=1"], 1, "reserved"),
        (&["echo", "echo", "1", "--timeout", "soon"], 2, "such as 2s"),
        (&["a//b", "echo", "1"], 1, "one level"),
        (&["echo"], 2, "<METHOD>"),
    ] {
        let error = place.fail(&[&["call"], args].concat(), code);
        assert!(error.contains(said), "{args:?}: {error}");
    }
    assert!(place.fail(&["serve-echo", "--workers", "0"], 2).contains("--workers"));
    assert!(place.fail(&["serve-echo", "--service", "a/b"], 1).contains("one level"));
}

#[test]
fn serve_echo_ends_when_interrupted_with_the_calls_that_can_be_finished() {
    let place = Place::new();
    let node = place.join("looker");
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut server = serve(&place, &["--workers", "2"]);
        let asleep = place.start(&["call", "echo", "sleep", "3600000", "--timeout", "60m"]);
        let short = place.start(&["call", "echo", "sleep", "700"]);
        let client = node.client("echo").unwrap();
        eventually("the calls to be there", || {
            node.survey(Duration::from_millis(200))
                .iter()
                .any(|stats| stats.ports.iter().any(|port| port.role == "server" && port.stats.messages > 1))
        });
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(0));
        let output = short.output();
        assert_eq!((output.status.code(), text(&output.stdout).trim_end() >= "700"), (Some(0), true));
        let output = asleep.output();
        assert_eq!(output.status.code(), Some(1));
        let stderr = text(&output.stderr);
        assert!(stderr.starts_with("error: unavailable"), "{stderr}");
        eventually("its goodbye", || client.servers().is_empty());
    }
}

#[test]
fn nohup_keeps_a_command_from_ending_with_its_terminal() {
    let place = Place::new();
    let mut server = Running::start(through("nohup", &[], &place, &[]));
    server.lines().next();
    server.signal(Signal::SIGHUP);
    assert_eq!(call(&place, &["echo", "echo", "1"]).1, 0);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}
