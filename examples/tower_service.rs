//! Tower on both sides of a call, and between: a served service with layers, a proxy, a client with layers.
//!
//! ```sh
//! cargo run --example tower_service --features tower
//! ```
//!
//! All three nodes are in this process; each could as well be in one of its own.

use std::time::Duration;

use ringbus::tower::{Request, Response};
use ringbus::{Bus, Code, Status};
use tower::load_shed::error::Overloaded;
use tower::timeout::error::Elapsed;
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};

/// Any async function will do.
async fn words(request: Request) -> Result<Response, Status> {
    match request.method() {
        "count" => Response::new(&request.decode::<String>()?.split_whitespace().count()),
        "ponder" => {
            tokio::time::sleep(Duration::from_millis(request.decode()?)).await;
            Response::new("42")
        }
        other => Err(Status::unimplemented(format!("words has no method {other:?}"))),
    }
}

/// What the errors of the layers are to a caller: ringbus cannot know them, and would say `Unknown`.
fn status(error: BoxError) -> Status {
    if error.is::<Elapsed>() {
        Status::deadline_exceeded("the service took longer than it may")
    } else if error.is::<Overloaded>() {
        Status::resource_exhausted("the service is at its limit")
    } else {
        error.into() // a status of `words`, boxed by a layer, is found again
    }
}

fn main() -> Result<(), BoxError> {
    let bus = Bus::private()?; // between processes: Bus::open("words")?
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build()?;

    // The server. Two of its three workers may be in the service; a third call is refused instead of waiting.
    // `timeout` and `words` need tokio's timers, so the runtime runs the calls.
    let service = ServiceBuilder::new()
        .map_err(status)
        .load_shed()
        .concurrency_limit(2)
        .timeout(Duration::from_secs(5))
        .service(service_fn(words));
    let worker = bus.join("worker")?;
    let handle = runtime.handle().clone();
    let serving = worker.service("words").serve_on(service, move |call| handle.block_on(call));
    let _server = serving.workers(3).spawn()?;

    // A proxy is a client that is served. It needs no runtime.
    let gateway = bus.join("gateway")?;
    let _proxy = gateway.service("public").serve(gateway.client("words")?).workers(3).spawn()?;

    // A caller, with a timeout of its own.
    let caller = bus.join("caller")?;
    runtime.block_on(async {
        let client = ServiceBuilder::new().timeout(Duration::from_secs(2)).service(caller.client("public")?);
        let call = |request: Request| client.clone().oneshot(request);

        let answer = call(Request::new("count", "to be or not to be")?).await?;
        let source = answer.source().map(|node| node.name());
        println!("{} words, says {}", answer.decode::<usize>()?, source.unwrap_or_default());
        assert_eq!((answer.decode(), source), (Ok(6usize), Some("gateway")));

        // Errors pass the proxy and the layers: the client's boxes them, too.
        let error = Status::from(call(Request::new("sing", &())?).await.unwrap_err());
        println!("{error}");
        assert_eq!(error.code(), Code::Unimplemented);

        // Three at a time are one too many.
        let ponder = || call(Request::new("ponder", &500).expect("a number"));
        let (a, b, c) = tokio::join!(ponder(), ponder(), ponder());
        let codes = [a, b, c].map(|ended| ended.map(drop).map_err(|error| Status::from(error).code()));
        println!("three at a time: {codes:?}");
        let shed = codes.iter().filter(|ended| **ended == Err(Code::ResourceExhausted)).count();
        let done = codes.iter().filter(|ended| ended.is_ok()).count();
        assert_eq!((done, shed), (2, 1));

        // Dropped at the caller's timeout; the proxy drops its call then, and the server its future.
        let error = call(Request::new("ponder", &4000)?).await.unwrap_err();
        println!("the caller's layer: {error}");
        assert!(error.is::<Elapsed>());
        Ok(())
    })
}
