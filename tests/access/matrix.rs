//! Every action by nodes of the same user, of one whom the list names, of one whose group it names, and of one whom
//! it does not name.

use nix::unistd::{getegid, geteuid};
use ringbus::{Inbox, Node, Server, Subscriber};

use crate::guest::{join, outcome, sent};
use crate::support::{Child, DEADLINE, Dir, eventually, is_root};

/// Shares the bus, where the tests run as root.
const GROUP: u32 = 54_321;
/// Of one member, beside [`GROUP`]; the list names it.
const NAMED_GROUP: u32 = 54_322;
const NAMED: u32 = 12_345;
const IN_NAMED_GROUP: u32 = 12_346;
const NOT_NAMED: u32 = 12_347;

/// What those may do whom the list names.
const RULES: &str = "\
    allow publish,subscribe ok/* to WHOM
    allow publish @to/home to WHOM
    allow subscribe @to/guest to WHOM
    allow publish,subscribe @all to WHOM
    allow call ok-home to WHOM
    allow serve ok-guest to WHOM
";

fn rules() -> String {
    [format!("uid {NAMED}"), format!("gid {NAMED_GROUP}")].map(|whom| RULES.replace("WHOM", &whom)).concat()
}

/// What a user may do: what the list lets those do whom it names, and what it says nothing of.
#[derive(Clone, Copy)]
struct May {
    listed: bool,
    unlisted: bool,
}

const YES: May = May { listed: true, unlisted: true };
const LISTED: May = May { listed: true, unlisted: false };
const NO: May = May { listed: false, unlisted: false };

/// A node whose ports others try to get at.
struct Home {
    node: Node,
    inbox: Inbox<String>,
    hidden: Inbox<String>,
    subscriber: Subscriber<String>,
    broadcasts: Subscriber<String>,
    _hidden: Node,
    _servers: [Server; 2],
    guest: Child,
    may: May,
}

impl Home {
    fn new(dir: &Dir, uid: u32, groups: &str, may: May) -> Self {
        let group = if geteuid().is_root() { GROUP } else { getegid().as_raw() }.to_string();
        let open = |name| join(dir.arg(), &group, &rules(), name);
        let (node, other) = (open("home"), open("hidden"));
        let add = |_: &mut ringbus::Context, (a, b): (u32, u32)| Ok(a + b);
        let servers =
            ["ok-home", "no-home"].map(|name| node.service(name).method("add", add).spawn().unwrap());
        let mut home = Self {
            inbox: node.inbox().unwrap(),
            hidden: other.inbox().unwrap(),
            subscriber: node.subscriber("**").unwrap(),
            broadcasts: node.broadcasts().unwrap(),
            node,
            _hidden: other,
            _servers: servers,
            guest: Child::start("guest", &[dir.arg(), &group, &uid.to_string(), groups, &everything()]),
            may,
        };
        home.guest.expect("ready");
        home
    }

    #[track_caller]
    fn asks(&mut self, what: &str, answer: &str) {
        self.guest.tell(what);
        self.guest.expect(answer);
    }

    #[track_caller]
    fn receives(&mut self, what: &str, topic: &str) {
        let message = self.subscriber.recv_timeout(DEADLINE).unwrap().expect("a message");
        assert_eq!((message.as_str(), message.topic()), (what, topic));
    }

    /// Waits until this has been refused to the guest, by this node.
    #[track_caller]
    fn has_denied(&self, action: &str, topic: &str) {
        let is_it = |denial: &ringbus::Denial| {
            denial.by_this_node
                && denial.node.name() == "guest"
                && (denial.action.as_str(), denial.topic.as_str()) == (action, topic)
        };
        eventually("it is denied", || self.node.denials().latest.iter().any(is_it));
    }

    fn publishing(&mut self) {
        for (topic, allowed) in [("no/a", self.may.unlisted), ("ok/a", self.may.listed)] {
            self.asks(&format!("publish {topic} said"), "published");
            match allowed {
                true => self.receives("said", topic),
                false => self.has_denied("publish", topic),
            }
        }
        // A pattern is allowed where all that is under it is.
        for (pattern, topic, allowed) in
            [("ok/**", "ok/b", self.may.unlisted), ("ok/*", "ok/b", self.may.listed)]
        {
            self.asks(&format!("publish under {pattern} {topic} said"), "published");
            match allowed {
                true => self.receives("said", topic),
                false => self.has_denied("publish", pattern),
            }
        }
        assert!(self.subscriber.try_recv().unwrap().is_none());
    }

    /// Payloads are lent where they lie, if they are of the same user.
    fn reading_in_place(&mut self) {
        if !self.may.listed {
            return;
        }
        let mut subscriber = self.node.raw_subscriber("ok/raw").unwrap();
        self.asks("publish ok/raw said", "published");
        let sample = subscriber.recv_timeout(DEADLINE).unwrap().unwrap();
        let at = sample.as_ptr() as usize;
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let is_in_place = maps.lines().filter(|line| line.contains("/memfd:ringbus-log")).any(|line| {
            let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            let [start, end] = [start, end].map(|at| usize::from_str_radix(at, 16).unwrap());
            (start..end).contains(&at)
        });
        assert_eq!(is_in_place, self.may.unlisted);
        drop(sample);
        self.receives("said", "ok/raw");
    }

    fn subscribing(&mut self) {
        for (topic, allowed) in [("no/c", self.may.unlisted), ("ok/c", self.may.listed)] {
            let mut publisher = self.node.publisher(topic).unwrap();
            // The own subscriber reads it as well.
            let readers = if allowed { 2 } else { 1 };
            publisher.wait_for_subscribers(readers, DEADLINE).unwrap();
            publisher.publish("said").unwrap();
            self.receives("said", topic);
            match allowed {
                true => self.asks("receives", &format!("said on {topic}")),
                false => {
                    self.has_denied("subscribe", topic);
                    assert_eq!(publisher.stats().peers, 1);
                }
            }
        }
    }

    fn mail(&mut self) {
        for (name, allowed) in [("hidden", self.may.unlisted), ("home", self.may.listed)] {
            self.asks(&format!("send {name}"), if allowed { "yes" } else { "no" });
            let inbox = if name == "home" { &mut self.inbox } else { &mut self.hidden };
            match allowed {
                true => assert_eq!(*inbox.recv_timeout(DEADLINE).unwrap().unwrap(), "a letter"),
                false => assert!(inbox.try_recv().unwrap().is_none()),
            }
        }
        for (name, allowed) in [("other", self.may.unlisted), ("guest", self.may.listed)] {
            let access = format!("allow subscribe @to/{name} to uid ");
            assert_eq!(sent(self.node.send(name, name), &access), if allowed { "yes" } else { "no" });
            if allowed && name == "guest" {
                self.asks("gets", "guest");
            }
        }
    }

    fn broadcasting(&mut self) {
        self.asks("broadcast", "sent");
        match self.may.listed {
            true => assert_eq!(*self.broadcasts.recv_timeout(DEADLINE).unwrap().unwrap(), "to all"),
            false => self.has_denied("publish", "@all"),
        }
        // The guest hears its own one first.
        self.asks("hears", "to all");
        self.node.broadcast("from home").unwrap();
        match self.may.listed {
            true => self.asks("hears", "from home"),
            false => self.has_denied("subscribe", "@all"),
        }
    }

    fn calling(&mut self) {
        for (service, allowed) in [("no-home", self.may.unlisted), ("ok-home", self.may.listed)] {
            self.asks(&format!("call {service}"), if allowed { "yes" } else { "no" });
        }
        for (service, allowed) in [("no-guest", self.may.unlisted), ("ok-guest", self.may.listed)] {
            let called = self.node.client(service).unwrap().call::<_, u32>("add", &(2, 3));
            let access = format!("allow serve {service} to uid ");
            assert_eq!(outcome(called, &access), if allowed { "yes" } else { "no" });
            if !allowed {
                self.has_denied("serve", service);
            }
        }
    }
}

fn everything() -> String {
    let all = "allow publish,subscribe,call,serve";
    let whom = format!("to uid {}", geteuid());
    format!("{all} ** {whom}\n{all} @all {whom}\n{all} @to/* {whom}\n")
}

#[test]
fn each_user_may_do_what_the_list_says_and_no_more() {
    let mut users = vec![(geteuid().as_raw(), getegid().to_string(), YES)];
    if is_root("each_user_may_do_what_the_list_says_and_no_more") {
        users.push((NAMED, GROUP.to_string(), LISTED));
        users.push((IN_NAMED_GROUP, format!("12346,{GROUP},{NAMED_GROUP}"), LISTED));
        users.push((NOT_NAMED, GROUP.to_string(), NO));
    }
    for (uid, groups, may) in users {
        let dir = Dir::new();
        open_to_all(&dir);
        let mut home = Home::new(&dir, uid, &groups, may);
        home.publishing();
        home.reading_in_place();
        home.subscribing();
        home.mail();
        home.broadcasting();
        home.calling();
        let (own, others) = (home.node.denials().by_this_node, home.node.denials().by_others);
        assert_eq!((own > 0, others), (!may.unlisted, 0), "{uid}");
        if !may.unlisted {
            home.asks("got nothing", "nothing"); // that it was not to get
        }
        home.guest.finish();
    }
}

/// Both ends have a list: what one lets the other do, the other may not want done to itself.
#[test]
fn each_node_has_a_list_of_its_own() {
    if !is_root("each_node_has_a_list_of_its_own") {
        return; // there are no other users to try it with
    }
    let dir = Dir::new();
    open_to_all(&dir);
    let everything = everything().replace("uid 0", &format!("uid {NAMED}"));
    let node = join(dir.arg(), &GROUP.to_string(), &everything, "home");
    let mut subscriber = node.subscriber::<String>("**").unwrap();
    let args = [dir.arg(), &GROUP.to_string(), &NAMED.to_string(), &GROUP.to_string(), ""];
    let mut guest = Child::start("guest", &args);
    guest.expect("ready");
    let mut publisher = node.publisher("a/c").unwrap();
    publisher.publish("said").unwrap();
    assert_eq!(*subscriber.recv_timeout(DEADLINE).unwrap().unwrap(), "said");
    eventually("the guest has let go of it", || publisher.stats().peers == 1);
    assert_eq!(sent(node.send("guest", "x"), "allow publish @to/guest to uid 0"), "no");
    node.broadcast("to all").unwrap();
    let called = node.client("ok-guest").unwrap().call::<_, u32>("add", &(2, 3));
    assert_eq!(outcome(called, "allow call ok-guest to uid 0"), "no");
    eventually("all of it was told", || node.denials().by_others >= 2);
    let told: Vec<String> = node
        .denials()
        .latest
        .iter()
        .map(|denial| {
            assert!(!denial.by_this_node && denial.node.name() == "guest");
            format!("{} {}", denial.action, denial.topic)
        })
        .collect();
    assert_eq!(told, ["publish a/c", "publish @all"]);
    guest.tell("got nothing");
    guest.expect("nothing");
    guest.tell("denied mine");
    guest.expect("publish @all, publish a/c");
    guest.finish();
}

pub fn open_to_all(dir: &Dir) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
}
