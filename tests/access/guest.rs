//! A node of another user, that does what it is told and says what came of it.

use std::time::Duration;

use nix::unistd::{Gid, Uid, geteuid, setgid, setgroups, setuid};
use ringbus::{Access, Bus, Code, Inbox, Node, SendError, Subscriber};

use crate::support::{DEADLINE, Parent};

/// Becomes a user with these groups, the first of them its own. Only root can.
pub fn become_user(uid: u32, groups: &[u32]) {
    if geteuid().as_raw() == uid {
        return;
    }
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).unwrap();
    setgid(groups[0]).unwrap();
    setuid(Uid::from_raw(uid)).unwrap();
}

/// Whether a call may be made.
pub fn outcome<T>(called: Result<T, ringbus::Status>, access: &str) -> &'static str {
    match called {
        Ok(_) => "yes",
        Err(status) => {
            assert_eq!(status.code(), Code::PermissionDenied, "{status}");
            assert!(status.message().contains(access), "{status}");
            "no"
        }
    }
}

/// Whether a message may be sent.
pub fn sent(sent: Result<(), SendError>, access: &str) -> &'static str {
    match sent {
        Ok(()) => "yes",
        Err(SendError::Denied { reason }) => {
            assert!(reason.contains(access), "{reason}");
            "no"
        }
        Err(error) => panic!("{error}"),
    }
}

pub fn join(dir: &str, group: &str, access: &str, name: &str) -> Node {
    let access: Access = access.parse().unwrap();
    Bus::builder("bus").dir(dir).group(group).allow(access).open().unwrap().join(name).unwrap()
}

/// `args`: directory, group, uid, its groups, its access list.
pub fn guest(parent: &mut Parent, args: &[&str]) {
    let [dir, group, uid, groups, access] = *args else { panic!("{args:?}") };
    let groups: Vec<u32> = groups.split(',').map(|gid| gid.parse().unwrap()).collect();
    become_user(uid.parse().unwrap(), &groups);
    let node = join(dir, group, access, "guest");
    let other = join(dir, group, access, "other");
    let mut guest = Guest {
        subscriber: node.subscriber("*/c").unwrap(),
        broadcasts: node.broadcasts().unwrap(),
        inboxes: [node.inbox().unwrap(), other.inbox().unwrap()],
        node: node.clone(),
    };
    let add = |_: &mut ringbus::Context, (a, b): (u32, u32)| Ok(a + b);
    let _servers =
        ["ok-guest", "no-guest"].map(|name| node.service(name).method("add", add).spawn().unwrap());
    parent.say("ready");
    while let Some(line) = parent.listen() {
        let words: Vec<&str> = line.split(' ').collect();
        parent.say(&guest.does(&words));
    }
}

struct Guest {
    node: Node,
    subscriber: Subscriber<String>,
    broadcasts: Subscriber<String>,
    inboxes: [Inbox<String>; 2],
}

impl Guest {
    fn does(&mut self, words: &[&str]) -> String {
        let text = |message: Option<ringbus::Message<String>>| message.expect("a message").clone();
        match *words {
            ["publish", topic, what] => {
                self.node.publisher(topic).unwrap().publish(what).unwrap();
                "published".to_owned()
            }
            // On a topic of its own choice in a log that was attached under this pattern.
            ["publish", "under", pattern, topic, what] => {
                self.node.publisher(pattern).unwrap().publish_to(topic, what).unwrap();
                "published".to_owned()
            }
            ["receives"] => {
                let message = self.subscriber.recv_timeout(DEADLINE).unwrap().expect("a message");
                format!("{} on {}", *message, message.topic())
            }
            ["hears"] => text(self.broadcasts.recv_timeout(DEADLINE).unwrap()),
            ["gets"] => text(self.inboxes[0].recv_timeout(DEADLINE).unwrap()),
            ["got", "nothing"] => {
                let [first, second] = &mut self.inboxes;
                let got =
                    [first.try_recv(), second.try_recv(), self.subscriber.try_recv()].map(Result::unwrap);
                assert!(got.iter().all(Option::is_none), "{got:?}");
                assert!(self.broadcasts.try_recv().unwrap().is_none());
                "nothing".to_owned()
            }
            ["call", service] => {
                let client = self.node.client(service).unwrap();
                let called = client.call::<_, u32>("add", &(2, 3));
                if called.is_err() {
                    let waited = client.wait_for_server(Duration::ZERO);
                    assert!(matches!(waited, Err(ringbus::WaitError::Denied { .. })), "{waited:?}");
                }
                outcome(called, &format!("allow call {service} to uid ")).to_owned()
            }
            ["send", name] => {
                sent(self.node.send(name, "a letter"), &format!("allow publish @to/{name} to uid "))
                    .to_owned()
            }
            ["broadcast"] => {
                self.node.broadcast("to all").unwrap();
                "sent".to_owned()
            }
            // What this node has been told, or has told others, that is not allowed.
            ["denied", whose] => {
                let denials = self.node.denials();
                let latest = denials.latest.iter().filter(|denial| denial.by_this_node == (whose == "mine"));
                let mut told: Vec<String> =
                    latest.map(|denial| format!("{} {}", denial.action, denial.topic)).collect();
                told.sort();
                told.join(", ")
            }
            _ => panic!("{words:?}"),
        }
    }
}
