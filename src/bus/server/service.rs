//! A tower service as the handler of calls: its future runs on the worker's thread.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, Wake, Waker};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tower_service::Service;

use super::ServiceBuilder;
use super::context::Context;
use super::method::{Method, answer, guard, refuse};
use crate::bus::status::Status;
use crate::bus::tower::{Came, Limit, Request, Response};

/// A call that is to be run to its end on the thread that has it; from
/// [`ServiceBuilder::serve_on`](crate::ServiceBuilder::serve_on).
pub type Serving<'a> = Pin<&'a mut (dyn Future<Output = ()> + 'a)>;

impl ServiceBuilder<'_> {
    /// Serves every method that has no handler of its own by this tower service. See [`tower`](crate::tower).
    ///
    /// A worker clones the service for each call and runs it on its own thread, outside of any async runtime. A
    /// panic is answered with `Internal`, and the server goes on. A call whose caller gives up, or whose deadline
    /// passes, is dropped where it next waits.
    ///
    /// # Examples
    /// ```
    /// # let bus = ringbus::Bus::private()?;
    /// # let (worker, gateway, planner) = (bus.join("worker")?, bus.join("gateway")?, bus.join("planner")?);
    /// # let _math = worker.service("math").method("add", |_ctx, (a, b): (i64, i64)| Ok(a + b)).spawn()?;
    /// // A proxy, under a name of its own: under that of the service it would call itself.
    /// let proxy = gateway.service("public-math").serve(gateway.client("math")?).spawn()?;
    /// assert_eq!(planner.client("public-math")?.call::<_, i64>("add", &(2, 3))?, 5);
    /// # Ok::<(), ringbus::Error>(())
    /// ```
    pub fn serve<S>(self, service: S) -> Self
    where
        S: Service<Request, Response = Response, Error: Into<Status>> + Clone + Send + 'static,
    {
        self.serve_by(service, None)
    }

    /// The same, each call run by `run`, which is given it on the worker's thread: for services that need an async
    /// runtime, such as `move |call| handle.block_on(call)` with a handle of tokio's. A call that `run` returns
    /// before it is over is answered with `Internal`.
    pub fn serve_on<S, F>(self, service: S, run: F) -> Self
    where
        S: Service<Request, Response = Response, Error: Into<Status>> + Clone + Send + 'static,
        F: Fn(Serving<'_>) + Send + Sync + 'static,
    {
        self.serve_by(service, Some(Box::new(run)))
    }

    fn serve_by<S>(mut self, service: S, run: Option<Run>) -> Self
    where
        S: Service<Request, Response = Response, Error: Into<Status>> + Clone + Send + 'static,
    {
        self.fallback = Some(Arc::new(Served { service: Mutex::new(service), run }));
        self
    }
}

type Run = Box<dyn Fn(Serving<'_>) + Send + Sync>;

struct Served<S> {
    /// Locked to be cloned: a service need not be `Sync`.
    service: Mutex<S>,
    run: Option<Run>,
}

impl<S> Method for Served<S>
where
    S: Service<Request, Response = Response, Error: Into<Status>> + Clone + Send,
{
    fn is_raw(&self) -> bool {
        true // copied once, out of the log, into the request
    }

    fn run(&self, context: &mut Context, _: &str, payload: &[u8]) {
        match guard(|| self.call(context, payload)) {
            Ok(response) => {
                for (name, value) in response.headers.all() {
                    context.header(name, value);
                }
                answer(context, response.encoding, &response.payload);
            }
            Err(status) => refuse(context, &status),
        }
    }
}

impl<S> Served<S>
where
    S: Service<Request, Response = Response, Error: Into<Status>> + Clone + Send,
{
    fn call(&self, context: &Context, payload: &[u8]) -> Result<Response, Status> {
        let mut service = self.service.lock().clone();
        let request = incoming(context, payload);
        let mut call = pin!(async {
            poll_fn(|task| service.poll_ready(task)).await.map_err(Into::into)?;
            service.call(request).await.map_err(Into::into)
        });
        let mut result = None;
        let forget = Forget(context);
        let until_cancelled = poll_fn(|task| {
            context.desk().slot.wake_on_cancel(Some(task.waker()));
            if context.cancelled() {
                result = Some(Err(given_up(context)));
                return Poll::Ready(());
            }
            call.as_mut().poll(task).map(|ended| result = Some(ended))
        });
        match &self.run {
            Some(run) => run(pin!(until_cancelled)),
            None => block_on(pin!(until_cancelled), || context.deadline()),
        }
        drop(forget);
        result.unwrap_or_else(|| Err(Status::internal("the call was not run to its end")))
    }
}

/// The worker's slot keeps no waker of a call that is over.
struct Forget<'a>(&'a Context);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.desk().slot.wake_on_cancel(None);
    }
}

fn incoming(context: &Context, payload: &[u8]) -> Request {
    let mut request = Request::with_payload(context.method(), context.encoding, payload.to_vec());
    request.headers = context.headers.to_pass_on();
    request.correlation = context.correlation().map(str::to_owned);
    request.limit = Limit::until(context.deadline());
    request.came = Some(Came {
        peer: context.peer().clone(),
        id: context.id(),
        time: context.timestamp(),
        priority: context.priority(),
    });
    request
}

fn given_up(context: &Context) -> Status {
    match context.remaining() {
        Some(left) if left.is_zero() => {
            Status::deadline_exceeded("the deadline passed while the service ran")
        }
        _ => Status::cancelled("the caller gave up"),
    }
}

/// Polls until it is over, also when the deadline is.
fn block_on(mut call: Serving<'_>, deadline: impl Fn() -> Option<Instant>) {
    let signal = Arc::new(Signal::default());
    let waker = Waker::from(signal.clone());
    let mut task = std::task::Context::from_waker(&waker);
    while call.as_mut().poll(&mut task).is_pending() {
        signal.wait(deadline());
    }
}

/// What wakes a worker. No `unpark`: a handler that parks for its own reasons would take it away.
#[derive(Default)]
struct Signal {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    /// Sleeps until woken, or until the deadline.
    fn wait(&self, deadline: Option<Instant>) {
        let mut woken = self.woken.lock();
        while !*woken {
            match deadline {
                Some(deadline) => {
                    if self.changed.wait_until(&mut woken, deadline).timed_out() {
                        break;
                    }
                }
                None => self.changed.wait(&mut woken),
            }
        }
        *woken = false;
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        *self.woken.lock() = true;
        self.changed.notify_one();
    }
}
