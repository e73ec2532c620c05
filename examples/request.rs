//! A service and its client: timeouts, statuses with details, headers, several calls in flight.
//!
//! ```sh
//! cargo run --example request
//! ```
//!
//! Runs by itself: it starts itself once more as the server, on a bus of their own, and ends it again.

use std::error::Error;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringbus::{Bus, Client, Code, Context, Status};
use serde::{Deserialize, Serialize};

/// What goes over the bus is any serde type; both sides name its fields.
#[derive(Debug, Serialize, Deserialize)]
struct Search {
    text: String,
    limit: usize,
}

/// Details of a failure, for the caller's program.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Limits {
    most: usize,
}

const WORDS: [&str; 4] = ["bus", "message", "ring", "ringbus"];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [dir, name] => serve(&Bus::builder(name).dir(dir).open()?),
        // A bus of this process's own, removed at its end; others would just open the same name.
        _ => call(&Bus::private()?),
    }
}

// The server.

fn serve(bus: &Bus) -> Result<(), Box<dyn Error>> {
    let node = bus.join("dictionary")?;
    let _server = node
        .service("dictionary")
        .method("search", search)
        .method("learn", learn)
        .workers(2) // so many handlers at a time; more requests wait in a queue
        .spawn()?; // on threads of its own, until it is dropped
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?; // until the client's process is gone
    Ok(())
}

/// A handler gets the call and its argument. It returns the result, or a status that the caller gets.
fn search(ctx: &mut Context, search: Search) -> Result<Vec<String>, Status> {
    if search.limit > WORDS.len() {
        // A code says what kind of failure it is, a message is for people, details are for programs.
        let status = Status::out_of_range(format!("limit {} is too high", search.limit));
        return Err(status.with_details(&Limits { most: WORDS.len() }));
    }
    let found = WORDS.iter().filter(|word| word.contains(&search.text)).take(search.limit);
    let language = ctx.headers().get("language").unwrap_or("en").to_owned(); // the request's headers
    ctx.header("language", language); // the answer's
    Ok(found.map(|word| word.to_string()).collect())
}

/// Takes long: it looks now and then whether its caller still waits.
fn learn(ctx: &mut Context, seconds: u64) -> Result<(), Status> {
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        if ctx.cancelled() {
            return Err(Status::cancelled("nobody waits for it any more"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

// The client.

/// Killed, should this process end early.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn call(bus: &Bus) -> Result<(), Box<dyn Error>> {
    let node = bus.join("reader")?;
    let client = node.client("dictionary")?;

    // Nobody serves yet: a call fails at once, so that the caller decides whether to wait.
    let nobody = client.call::<_, Vec<String>>("search", &()).unwrap_err();
    assert_eq!(nobody.code(), Code::NotFound);
    println!("before the server is there: {nobody}");

    let mut command = Command::new(std::env::current_exe()?);
    command.arg(bus.dir()).arg(bus.name()).stdin(Stdio::piped());
    let server = Server(command.spawn()?);
    client.wait_for_server(Duration::from_secs(10))?;

    search_with_headers(&client)?;
    fail_with_details(&client);
    give_up(&client);
    call_many(&client)?;

    // A server that dies ends the calls that it leaves unanswered; nobody waits for the timeout.
    let long = client.request("learn").timeout(Duration::from_secs(3600)).start::<_, ()>(&3600_u64)?;
    drop(server);
    let died = long.wait().unwrap_err();
    assert_eq!(died.code(), Code::Unavailable);
    println!("the server was killed: {died}");
    Ok(())
}

fn search_with_headers(client: &Client) -> Result<(), Status> {
    // The short form waits for the client's timeout, 5 s unless told otherwise.
    let search = Search { text: "ring".into(), limit: 2 };
    let words: Vec<String> = client.call("search", &search)?;
    assert_eq!(words, ["ring", "ringbus"]);

    // The long form takes headers and more; its answer has an envelope, and dereferences to the result.
    let answer = client.request("search").header("language", "de").send::<_, Vec<String>>(&search)?;
    assert_eq!((answer.len(), answer.headers().get("language")), (2, Some("de")));
    println!("{} found {:?}", answer.source(), *answer);
    Ok(())
}

fn fail_with_details(client: &Client) {
    let search = Search { text: String::new(), limit: 100 };
    let status = client.call::<_, Vec<String>>("search", &search).unwrap_err();
    assert_eq!((status.code(), status.details()), (Code::OutOfRange, Some(Limits { most: 4 })));
    println!("refused: {status}, details {:?}", status.details::<Limits>());
}

fn give_up(client: &Client) {
    let timeout = Duration::from_millis(100);
    let late = client.request("learn").timeout(timeout).send::<_, ()>(&3600_u64).unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    println!("too slow: {late}");
}

fn call_many(client: &Client) -> Result<(), Status> {
    // `start` does not wait. Each call is then waited for, or awaited; one that is dropped is cancelled.
    let start = |limit| client.request("search").start::<_, Vec<String>>(&Search { text: "".into(), limit });
    let calls = (0..=4).map(start).collect::<Result<Vec<_>, _>>()?;
    for (limit, call) in calls.into_iter().enumerate() {
        assert_eq!(call.wait()?.len(), limit);
    }
    println!("five calls at a time, each with its own answer");
    Ok(())
}
