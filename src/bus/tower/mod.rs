//! Clients as tower services, and tower services as servers (feature `tower`).
//!
//! [Tower](https://docs.rs/tower) has middleware for anything that turns a request into a response: timeouts,
//! limits, retries, balancing. Here it works in both directions, over the same [`Request`] and [`Response`]:
//!
//! - A [`Client`](crate::Client) is a `Service<Request>`: put layers around it.
//! - A `Service<Request>` can be [served](crate::ServiceBuilder::serve), for all methods that have no handler of
//!   their own. A client served like this is a proxy.
//!
//! # Imports
//!
//! `use ringbus::*` brings neither this module's types nor tower's, and its own [`ringbus::Request`](crate::Request)
//! and [`ringbus::Response`](crate::Response), those of plain calls, have the same names. So name what is meant beside
//! it, which wins over the `*`, and the crate as `::tower`, since the `*` brings this module under that name:
//!
//! ```
//! use ringbus::*;
//! use ringbus::tower::{Request, Response}; // what services take and give
//! use ::tower::{Service, ServiceExt}; // `ready`, `call`, `oneshot`; of the crate tower, feature `util`
//! use ::tower::ServiceBuilder; // of layers; ringbus's own is what `Node::service` returns
//! # fn _used<S: Service<Request, Response = Response> + ServiceExt<Request>>(_: ServiceBuilder<S>, _: Bus) {}
//! ```
//!
//! # Calling
//!
//! ```
//! use std::time::Duration;
//! use ringbus::tower::Request;
//! use tower::{Service, ServiceBuilder, ServiceExt};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! # let node = ringbus::Bus::private()?.join("planner")?;
//! # let server = node.service("math").method("add", |_ctx, (a, b): (i64, i64)| Ok(a + b)).spawn()?;
//! let mut math = ServiceBuilder::new()
//!     .concurrency_limit(8)
//!     .timeout(Duration::from_millis(200))
//!     .service(node.client("math")?);
//! let answer = math.ready().await?.call(Request::new("add", &(2, 3))?).await?;
//! assert_eq!(answer.decode::<i64>()?, 5);
//! # Ok(())
//! # }
//! ```
//!
//! `poll_ready` of a client is always ready. Which server is called, and whether there is room in the log of
//! requests to it, depends on the request; and the room may be gone when the request comes. So a call waits for
//! room in its future, without a thread, up to the call's timeout. Limit the calls in flight to have
//! back-pressure before that: `concurrency_limit`, with `load_shed` to be refused at once instead of waiting.
//!
//! Without a layer, call it by `ServiceExt::oneshot` or `Service::call`: `client.call(…)` is
//! [`Client::call`](crate::Client::call), which waits on the thread.
//!
//! Dropping a future cancels its call, so a `timeout` layer does: the server is told. A call ends by itself after
//! its own timeout, the client's (5 s) unless [`Request::with_timeout`] says otherwise.
//!
//! # Serving
//!
//! ```
//! use std::convert::Infallible;
//! use ringbus::tower::{Request, Response};
//!
//! # fn main() -> Result<(), ringbus::Error> {
//! # let node = ringbus::Bus::private()?.join("worker")?;
//! let echo = tower::service_fn(|request: Request| async move {
//!     Ok::<_, Infallible>(Response::raw(request.into_payload()))
//! });
//! let server = node.service("echo").serve(echo).workers(4).spawn()?;
//! assert_eq!(*node.client("echo")?.request("anything").send_raw(b"back")?, *b"back");
//! # Ok(())
//! # }
//! ```
//!
//! Each worker runs one call at a time to its end: it clones the service, waits until the clone is ready, calls it
//! and polls the future. `workers` thus bounds the calls in flight; a `load_shed` takes effect only around a limit
//! that is lower. If the caller gives up, its future is dropped where it next waits.
//!
//! An error becomes the caller's [`Status`](crate::Status) by `Into<Status>`. Tower's boxed errors are converted as
//! well, but what they mean is not known here: all are `Unknown`, unless there is a `Status` among their sources.
//! Say it with `map_err`, around the layers:
//!
//! ```
//! use ringbus::Status;
//! use tower::{BoxError, load_shed::error::Overloaded, timeout::error::Elapsed};
//!
//! fn status(error: BoxError) -> Status {
//!     if error.is::<Elapsed>() {
//!         Status::deadline_exceeded("the service took too long")
//!     } else if error.is::<Overloaded>() {
//!         Status::resource_exhausted("too many calls at a time")
//!     } else {
//!         error.into()
//!     }
//! }
//! # assert_eq!(status(Box::new(Elapsed::new())).code(), ringbus::Code::DeadlineExceeded);
//! # assert_eq!(status(Box::new(Overloaded::new())).code(), ringbus::Code::ResourceExhausted);
//! ```
//!
//! # Services that need a runtime
//!
//! Workers are plain threads. A service that uses tokio's timers, tasks or sockets (`timeout` does) panics outside
//! of a runtime; let the runtime run it: [`ServiceBuilder::serve_on`](crate::ServiceBuilder::serve_on).
//!
//! ```
//! # use std::time::Duration;
//! # use ringbus::tower::{Request, Response};
//! # use tower::{ServiceBuilder, service_fn};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let node = ringbus::Bus::private()?.join("worker")?;
//! # async fn handle(_: Request) -> Result<Response, ringbus::Status> { Response::new(&1u8) }
//! let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build()?;
//! let service = ServiceBuilder::new().timeout(Duration::from_secs(1)).service(service_fn(handle));
//! let handle = runtime.handle().clone();
//! let server = node.service("slow").serve_on(service, move |call| handle.block_on(call)).spawn()?;
//! # assert_eq!(node.client("slow")?.call::<_, u8>("any", &())?, 1);
//! # Ok(())
//! # }
//! ```
//!
//! A service that is not `Clone` can be put behind a `tower::buffer::Buffer`, made inside of the runtime.

mod error;
mod request;
mod response;

pub use super::client::Call;
pub use super::server::Serving;
pub use request::Request;
pub(super) use request::{Came, Limit};
pub use response::Response;
