//! Those that live on, all in the test's own process: they hear what the victims say, feed them, and call them.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringbus::{Code, Context, Node, RawSubscriber, Server, Status, Subscriber};

use super::support::{DEADLINE, Dir, eventually};
use super::victims::{LARGE, content};

pub struct Survivors {
    pub dir: Dir,
    node: Node,
    said: RawSubscriber,
    typed: Subscriber<(u64, String)>,
    feed: Arc<Mutex<Feed>>,
    fed: RawSubscriber,
    fed_typed: Subscriber<(u64, String)>,
    /// Of what was fed, how much was seen to arrive.
    seen: (u64, u64),
    called: Receiver<Code>,
    calls: Sender<()>,
    _server: Server,
}

/// What is published for victims, and beside them for one who is always there.
struct Feed {
    raw: ringbus::RawPublisher,
    typed: ringbus::Publisher<(u64, String)>,
    counts: (u64, u64),
}

impl Feed {
    fn publish(&mut self, len: usize) {
        self.raw.publish(&content(self.counts.0, len)).expect("room");
        self.counts.0 += 1;
    }

    fn publish_typed(&mut self) {
        let number = self.counts.1;
        self.typed.publish(&(number, format!("number {number}"))).expect("room");
        self.counts.1 += 1;
    }
}

impl Survivors {
    pub fn new() -> Self {
        let dir = Dir::new();
        let node = dir.join("survivor");
        let (said, typed) = (node.raw_subscriber("said").unwrap(), node.subscriber("typed").unwrap());
        let (fed, fed_typed) = (node.raw_subscriber("feed").unwrap(), node.subscriber("feed-typed").unwrap());
        let raw = node.publisher_builder("feed").capacity(4096).open_raw().unwrap();
        let feed = Feed { raw, typed: node.publisher("feed-typed").unwrap(), counts: (0, 0) };
        let feed = Arc::new(Mutex::new(feed));
        let (call, called, calls) = caller(&node);
        let _server = serve(&node, &feed, call);
        Self { dir, node, said, typed, feed, fed, fed_typed, seen: (0, 0), called, calls, _server }
    }

    /// A victim is dead that had `acknowledged` so many, and at most so many more under way.
    pub fn check(&mut self, case: &str, point: &str, acknowledged: u64, under_way: u64) {
        let node = &self.node;
        eventually("the dead is gone", || node.peers().is_empty());
        let mut arrived = 0;
        let deadline = Instant::now() + DEADLINE;
        loop {
            // Looked at first: after the end nothing comes.
            let over = self.said.stats().peers + self.typed.stats().peers == 0;
            let raw = self.said.try_recv().unwrap().map(|sample| {
                assert_eq!(*sample, content(arrived, sample.len()), "{case} {point}: arrived at {arrived}");
            });
            let typed = self.typed.try_recv().unwrap().map(|message| {
                assert_eq!(*message, (arrived, format!("number {arrived}")), "{case} {point}");
            });
            arrived += raw.is_some() as u64 + typed.is_some() as u64;
            if raw.is_none() && typed.is_none() && over {
                break;
            }
            assert!(Instant::now() < deadline, "{case} {point}: a log that does not end");
        }
        let possible = acknowledged..=acknowledged + under_way;
        assert!(
            possible.contains(&arrived),
            "{case} {point}: {arrived} arrived, acknowledged: {acknowledged}"
        );
        if case == "serve" {
            let code = self.called.recv_timeout(DEADLINE).expect("each call has an end");
            assert!(matches!(code, Code::Unavailable | Code::NotFound), "{case} {point}: {code:?}");
        }
        self.go_on(case, point);
    }

    /// Whoever was there all the time has everything, and the next one too.
    fn go_on(&mut self, case: &str, point: &str) {
        let mut feed = self.feed.lock().unwrap();
        feed.publish(16);
        feed.publish_typed();
        while self.seen.0 < feed.counts.0 {
            let sample = self.fed.recv_timeout(DEADLINE).unwrap().expect("all that was fed");
            assert_eq!(*sample, content(self.seen.0, sample.len()), "{case} {point}");
            self.seen.0 += 1;
        }
        while self.seen.1 < feed.counts.1 {
            let message = self.fed_typed.recv_timeout(DEADLINE).unwrap().expect("all that was fed");
            assert_eq!(message.0, self.seen.1, "{case} {point}");
            self.seen.1 += 1;
        }
        assert!(self.fed.try_recv().unwrap().is_none() && self.fed_typed.try_recv().unwrap().is_none());
    }

    /// Nothing is left of all the dead but what they were about to put into the directory.
    pub fn end(self) {
        let dir = &self.dir;
        eventually("no socket of the dead", || dir.sockets().len() == 1);
        assert!(self.node.refused().is_empty(), "{:?}", self.node.refused());
        drop(self.calls);
    }
}

/// Calls a victim that has asked for it until it does not answer; then tells why.
fn caller(node: &Node) -> (Sender<()>, Receiver<Code>, Sender<()>) {
    let (call, asked) = mpsc::channel();
    let (ends, ended) = mpsc::channel();
    let client = node.client("victim").unwrap();
    std::thread::spawn(move || {
        while asked.recv().is_ok() {
            client.wait_for_server(DEADLINE).unwrap();
            let code = (0_u64..).find_map(|number| match client.call::<_, u64>("echo", &number) {
                Ok(answer) => {
                    assert_eq!(answer, number);
                    None
                }
                Err(status) => Some(status.code()),
            });
            let _ = ends.send(code.expect("an end"));
        }
    });
    (call.clone(), ended, call)
}

/// Publishes four messages for a victim that subscribes, unless it dies.
fn fill(ctx: &Context, feed: &Mutex<Feed>, publish: impl Fn(&mut Feed)) -> Result<(), Status> {
    while !ctx.cancelled() {
        let mut feed = feed.lock().unwrap();
        let moment = Duration::from_millis(10);
        let attached = feed.raw.wait_for_subscribers(2, moment).is_ok()
            || feed.typed.wait_for_subscribers(2, Duration::ZERO).is_ok();
        if attached {
            (0..4).for_each(|_| publish(&mut feed));
            return Ok(());
        }
    }
    Err(Status::cancelled("dead"))
}

fn serve(node: &Node, feed: &Arc<Mutex<Feed>>, call: Sender<()>) -> Server {
    let (small, large, typed) = (feed.clone(), feed.clone(), feed.clone());
    let service = node.service("survivor").method("echo", |_, number: u64| Ok(number));
    let service = service.method("feed", move |ctx, ()| fill(ctx, &small, |feed| feed.publish(16)));
    let service = service.method("feed-large", move |ctx, ()| fill(ctx, &large, |feed| feed.publish(LARGE)));
    let service = service.method("feed-typed", move |ctx, ()| fill(ctx, &typed, Feed::publish_typed));
    let call = Mutex::new(call);
    let service = service.method("call-back", move |_, ()| {
        let _ = call.lock().unwrap().send(());
        Ok(())
    });
    service.spawn().unwrap()
}
