//! An access list as it is applied: names looked up, and what it means for one peer.

use super::scope::Scope;
use super::{Access, AccessError, Action, Whom};
use crate::bus::topic::Filter;
use crate::sys::credentials::{self, Credentials};

/// A list whose users and groups were looked up.
#[derive(Debug, Default)]
pub(in crate::bus) struct Rules(Vec<(Action, Scope, Who)>);

#[derive(Debug, Clone, Copy)]
enum Who {
    Uid(u32),
    Gid(u32),
}

/// What one peer may do to this node.
#[derive(Debug)]
pub(in crate::bus) enum Rights {
    /// It is of the same user.
    All,
    Some(Vec<(Action, Scope)>),
}

impl Rules {
    pub(in crate::bus) fn new(access: &Access) -> Result<Self, AccessError> {
        let rule = |rule: &super::Rule| Ok((rule.action, Scope::new(&rule.pattern)?, look_up(&rule.whom)?));
        access.rules.iter().map(rule).collect::<Result<_, AccessError>>().map(Self)
    }

    /// What a peer may do to a node of user `uid`.
    pub(in crate::bus) fn rights(&self, uid: u32, peer: &Credentials) -> Rights {
        if peer.uid == uid {
            return Rights::All;
        }
        let is_meant = |who| match who {
            Who::Uid(uid) => peer.uid == uid,
            Who::Gid(gid) => peer.is_in(gid),
        };
        let meant = self.0.iter().filter(|(.., who)| is_meant(*who));
        Rights::Some(meant.map(|(action, scope, _)| (*action, scope.clone())).collect())
    }
}

impl Rights {
    /// Whether all topics, or services, that the filter stands for are in reach.
    pub(in crate::bus) fn allow(&self, action: Action, filter: &Filter) -> bool {
        match self {
            Rights::All => true,
            Rights::Some(rules) => {
                rules.iter().any(|(allowed, scope)| *allowed == action && scope.covers(filter))
            }
        }
    }
}

fn look_up(whom: &Whom) -> Result<Who, AccessError> {
    let io = |name: &str| {
        let what = format!("look up {name:?}");
        move |source| AccessError::Io { what, source }
    };
    Ok(match whom {
        Whom::Uid(uid) => Who::Uid(*uid),
        Whom::Gid(gid) => Who::Gid(*gid),
        Whom::User(name) => {
            let found = credentials::uid_of_user(name).map_err(io(name))?;
            Who::Uid(found.ok_or_else(|| AccessError::User { name: name.clone() })?)
        }
        Whom::Group(name) => {
            let found = credentials::gid_of_group(name).map_err(io(name))?;
            Who::Gid(found.ok_or_else(|| AccessError::Group { name: name.clone() })?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> Credentials {
        Credentials { pid: 1, uid, gid, groups: groups.to_vec() }
    }

    #[test]
    fn rules_hold_for_those_whom_they_name_and_nobody_is_allowed_more() {
        let access = Access::publish("a/*").to_uid(10).and(Access::call("math").to_gid(20));
        let rules = Rules::new(&access).unwrap();
        let topic = |text: &str| Filter::from_peer(text).unwrap();
        for (credentials, publishes, calls) in [
            (peer(10, 10, &[]), true, false),
            (peer(10, 20, &[]), true, true),
            (peer(11, 20, &[]), false, true),
            (peer(11, 11, &[19, 20]), false, true),
            (peer(20, 10, &[]), false, false),
            (peer(0, 0, &[]), false, false),
        ] {
            let rights = rules.rights(7, &credentials);
            assert_eq!(rights.allow(Action::Publish, &topic("a/b")), publishes, "{credentials:?}");
            assert_eq!(rights.allow(Action::Call, &topic("math")), calls, "{credentials:?}");
            for (action, topic) in [
                (Action::Publish, topic("a/**")),
                (Action::Publish, topic("b")),
                (Action::Publish, topic("@all")),
                (Action::Subscribe, topic("a/b")),
                (Action::Serve, topic("math")),
                (Action::Call, topic("physics")),
            ] {
                assert!(!rights.allow(action, &topic), "{action} {topic}");
            }
        }
        let own = rules.rights(7, &peer(7, 1, &[]));
        assert!(Action::ALL.into_iter().all(|action| own.allow(action, &topic("@to/anybody"))));
    }

    #[test]
    fn names_are_looked_up() {
        let rules = Rules::new(&Access::publish("a").to_user("root").and(Access::call("b").to_group("root")));
        let rights = rules.unwrap().rights(7, &peer(0, 0, &[]));
        assert!(rights.allow(Action::Publish, &Filter::new("a").unwrap()));
        assert!(rights.allow(Action::Call, &Filter::new("b").unwrap()));
        let nobody = "no-such-name-here";
        let user = Rules::new(&Access::publish("a").to_user(nobody));
        assert!(matches!(user, Err(AccessError::User { name }) if name == nobody));
        let group = Rules::new(&Access::publish("a").to_group(nobody));
        assert!(matches!(group, Err(AccessError::Group { name }) if name == nobody));
        assert!(matches!(Rules::new(&Access::publish("a//b").to_uid(1)), Err(AccessError::Pattern(_))));
    }
}
