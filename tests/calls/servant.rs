//! The service that the tests call, in a second process or in this one.

use std::process;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ringbus::{Client, Code, Context, Node, Response, Server, ServiceBuilder, Status};

use crate::support::{self, Child, DEADLINE, Dir, Parent};

/// Its name on the bus.
pub const SERVICE: &str = "test";

/// A call's time that is long enough for a server to begin with it on any host: what comes too late is not run. And less
/// than a second, from which on such a time is counted from the kernel's last tick.
pub const TIME_TO_BEGIN: Duration = Duration::from_millis(900);
/// A caller whose deadline was over so long ago has given up.
pub const LONG_AFTER: Duration = Duration::from_secs(2);

/// Says what handlers do, as they do it.
pub type Tell = Box<dyn Fn(String) + Send + Sync>;

/// The service, with all methods that the tests need.
pub fn service(node: &Node, tell: Tell) -> ServiceBuilder<'_> {
    let tell: &'static Tell = Box::leak(Box::new(tell)); // a few bytes a test
    node.service(SERVICE)
        .method("double", |_, n: i64| Ok(n * 2))
        .method("pid", |_, ()| Ok(process::id()))
        .method("text", |_, len: usize| Ok("x".repeat(len)))
        .method("length", |_, text: String| Ok(text.len()))
        .method("fail", |_, (code, message, details): (u64, String, Option<String>)| {
            let status = Status::new(Code::from_wire(code), message);
            Err::<(), _>(match details {
                Some(details) => status.with_details(&details),
                None => status,
            })
        })
        .method("panic", |_, why: String| -> Result<(), Status> { panic!("{why}") })
        .method("sleep", move |_, ms: u64| {
            tell(format!("sleeps {ms}"));
            std::thread::sleep(Duration::from_millis(ms));
            Ok(ms)
        })
        .method("hold", move |context, n: i64| {
            tell(format!("holds {n}"));
            hold(context)?;
            tell(format!("lets go of {n}"));
            Ok(n)
        })
        .method("overstay", move |context, n: i64| {
            tell(format!("holds {n}"));
            hold(context)?;
            tell(format!("lets go of {n}"));
            // An answer at the very deadline would still be in time if its caller is a little late.
            std::thread::sleep(LONG_AFTER);
            Ok(n)
        })
        .raw_method("mirror", |_, bytes| Ok(bytes.to_vec()))
}

/// Stays in the handler until nobody wants the answer any more.
pub fn hold(context: &Context) -> Result<(), Status> {
    let deadline = Instant::now() + DEADLINE;
    while !context.cancelled() {
        if Instant::now() > deadline {
            return Err(Status::internal("nobody has cancelled the call"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// What handlers in this process say.
pub struct Said(Receiver<String>);

impl Said {
    pub fn channel() -> (Tell, Said) {
        let (says, said): (Sender<String>, _) = channel();
        let says = Mutex::new(says);
        let tell = Box::new(move |line| {
            let _ = says.lock().unwrap().send(line);
        });
        (tell, Said(said))
    }

    #[track_caller]
    pub fn expect(&self, expected: &str) {
        assert_eq!(self.0.recv_timeout(DEADLINE).as_deref(), Ok(expected));
    }

    /// What was said and not yet expected.
    pub fn rest(&self) -> Vec<String> {
        self.0.try_iter().collect()
    }
}

/// Serves in this process.
pub fn spawn(node: &Node, set: impl FnOnce(ServiceBuilder<'_>) -> ServiceBuilder<'_>) -> (Server, Said) {
    let (tell, said) = Said::channel();
    (set(service(node, tell)).spawn().unwrap(), said)
}

/// Starts a process that serves.
pub fn start(dir: &Dir, name: &str, settings: &[(&str, u64)]) -> Child {
    let settings: Vec<String> = settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let args: Vec<&str> = [dir.arg(), name].into_iter().chain(settings.iter().map(String::as_str)).collect();
    let mut child = Child::start("serves", &args);
    child.expect("serving");
    child
}

/// Joins as `args[1]`, and serves with the settings of the further arguments, and says what the handlers do.
pub fn serves(parent: &mut Parent, args: &[&str]) {
    let node = support::bus(args[0]).join(args[1]).unwrap();
    let spawn = || {
        let mut builder = service(&node, Box::new(|line| Parent::new().say(&line)));
        for setting in &args[2..] {
            let (key, value) = setting.split_once('=').expect("key=value");
            let value: u64 = value.parse().expect("a number");
            builder = match key {
                "workers" => builder.workers(value as usize),
                "queue" => builder.queue(value as usize),
                "capacity" => builder.capacity(value),
                "max_message" => builder.max_message(value),
                _ => panic!("{key}"),
            };
        }
        builder.spawn().unwrap()
    };
    let mut server = Some(spawn());
    parent.say("serving");
    while let Some(line) = parent.listen() {
        match line.as_str() {
            "close" => {
                server = None;
                parent.say("closed");
            }
            "open" => {
                server = Some(spawn());
                parent.say("opened");
            }
            "count" => {
                let server = server.as_ref().expect("it serves");
                let stats = server.stats();
                let (queued, unsent) = (server.queued(), server.unsent());
                parent.say(&format!("{} {} {queued} {unsent}", stats.messages, stats.dropped));
            }
            _ => panic!("{line}"),
        }
    }
}

/// Stops a process: it runs no more when this returns.
pub fn stop(server: &Child) {
    server.signal(Signal::SIGSTOP);
    let tasks = format!("/proc/{}/task", server.pid());
    support::eventually("all of its threads are stopped", || {
        std::fs::read_dir(&tasks).unwrap().all(|task| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T"))
        })
    });
}

/// What a serving process has counted: requests taken, dropped, those that wait, and answers that could not be sent.
pub fn counts(server: &mut Child) -> [u64; 4] {
    server.tell("count");
    let line = server.line();
    let counts: Vec<u64> = line.split(' ').map(|count| count.parse().expect("a number")).collect();
    counts.try_into().expect("four counts")
}

/// A node with a client of the service, which knows of so many servers.
pub fn client_of(dir: &Dir, servers: usize) -> (Node, Client) {
    let node = dir.join("client");
    let client = node.client(SERVICE).unwrap();
    support::eventually("the servers are known", || client.servers().len() == servers);
    (node, client)
}

/// Calls a method that answers with twice the number.
#[track_caller]
pub fn works(client: &Client) {
    for n in [0, 7, -1] {
        let doubled: Response<i64> = client.request("double").timeout(DEADLINE).send(&n).unwrap();
        assert_eq!(*doubled, 2 * n);
    }
}
