//! Access lists as text.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::scope::Scope;
use super::{Access, AccessError, Action, Rule, Whom};
use crate::sys::credentials;

/// Longest file that is read, in bytes.
const LONGEST: u64 = 1 << 20;

pub(super) fn parse(text: &str) -> Result<Access, AccessError> {
    let mut access = Access::none();
    for (line, text) in text.lines().enumerate() {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let rules = rules_of(text)?;
        let syntax = || AccessError::Syntax { line: line + 1, text: text.chars().take(80).collect() };
        access.rules.extend(rules.ok_or_else(syntax)?);
    }
    Ok(access)
}

/// The rules of one line; `None` if it is none.
fn rules_of(text: &str) -> Result<Option<Vec<Rule>>, AccessError> {
    let words: Vec<&str> = text.split_whitespace().collect();
    // On a command line `--allow` has said it already.
    let words = words.strip_prefix(&["allow"]).unwrap_or(&words);
    let [actions, pattern, "to", kind, whom] = *words else { return Ok(None) };
    let number = whom.parse();
    let whom = match (kind, number) {
        ("uid", Ok(uid)) => Whom::Uid(uid),
        ("uid", Err(_)) => Whom::User(whom.to_owned()),
        ("gid", Ok(gid)) => Whom::Gid(gid),
        ("gid", Err(_)) => Whom::Group(whom.to_owned()),
        _ => return Ok(None),
    };
    Scope::new(pattern)?;
    let named = |word: &str| Action::ALL.into_iter().find(|action| action.as_str() == word);
    let actions: Option<Vec<Action>> = actions.split(',').map(named).collect();
    let rule = |action| Rule { action, pattern: pattern.to_owned(), whom: whom.clone() };
    Ok(actions.map(|actions| actions.into_iter().map(rule).collect()))
}

pub(super) fn read(path: &Path) -> Result<Access, AccessError> {
    let shown = path.display();
    let io = |source| AccessError::Io { what: format!("read access list {shown}"), source };
    let file = File::open(path).map_err(io)?;
    let found = file.metadata().map_err(io)?;
    let is_trusted = [0, credentials::euid()].contains(&found.uid()) && found.mode() & 0o022 == 0;
    if found.is_file() && !is_trusted {
        return Err(AccessError::Writable { path: path.to_owned() });
    }
    if !found.is_file() || found.len() > LONGEST {
        return Err(io(io::Error::other("it is no file of at most 1 MiB")));
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).map_err(io)?;
    parse(&text)
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rule { action, pattern, whom } = self;
        write!(f, "allow {action} {pattern} to {whom}")
    }
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Whom::Uid(uid) => write!(f, "uid {uid}"),
            Whom::User(name) => write!(f, "uid {name}"),
            Whom::Gid(gid) => write!(f, "gid {gid}"),
            Whom::Group(name) => write!(f, "gid {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rules_are_read_a_line_each() {
        let text = "\n# who may do what\n\tallow publish,subscribe a/** to uid 7\nallow call math to gid robots\r\n\
                    serve math to uid alice\nallow subscribe @all to gid 9";
        let expected = Access::publish("a/**")
            .to_uid(7)
            .and(Access::subscribe("a/**").to_uid(7))
            .and(Access::call("math").to_group("robots"))
            .and(Access::serve("math").to_user("alice"))
            .and(Access::subscribe("@all").to_gid(9));
        assert_eq!(parse(text).unwrap(), expected);
        assert!(parse("").unwrap().is_empty() && parse("# allow\n\n").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_rule_is_refused_with_its_line() {
        for text in [
            "allow",
            "deny publish a to uid 1",
            "allow publish a to uid",
            "allow publish a to uid 1 2",
            "allow publish a to user 1",
            "allow publish a uid 1",
            "allow read a to uid 1",
            "allow publish, a to uid 1",
            "allow Publish a to uid 1",
            "allow allow publish a to uid 1",
        ] {
            match parse(&format!("\nallow publish a to uid 1\n{text}")) {
                Err(AccessError::Syntax { line: 3, text: told }) => assert_eq!(told, text),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert!(matches!(parse("allow publish a//b to uid 1"), Err(AccessError::Pattern(_))));
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access");
        fs::write(&path, "allow publish a to uid 1\n").unwrap();
        for (mode, is_refused) in
            [(0o644, false), (0o400, false), (0o664, true), (0o646, true), (0o777, true)]
        {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            match read(&path) {
                Err(AccessError::Writable { .. }) => assert!(is_refused, "{mode:o}"),
                other => assert_eq!(other.unwrap(), Access::publish("a").to_uid(1), "{mode:o}"),
            }
        }
        assert!(matches!(read(dir.path()), Err(AccessError::Io { .. })));
        assert!(matches!(read(&dir.path().join("none")), Err(AccessError::Io { .. })));
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        if crate::sys::testing::is_root("a_file_that_others_can_write_is_refused") {
            std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
            assert!(matches!(read(&path), Err(AccessError::Writable { .. })));
        }
    }

    proptest! {
        #[test]
        fn a_list_reads_back_as_it_is_written(
            rules in prop::collection::vec((0..4_u8, "[a-z*@#,]{1,4}", any::<bool>(), any::<u32>(), "[a-z]{1,4}"), 0..5)
        ) {
            let mut access = Access::none();
            for (action, pattern, by_name, number, name) in rules {
                if Scope::new(&pattern).is_err() {
                    continue;
                }
                let action = Action::from_wire(action).unwrap();
                let whom = match (by_name, number % 2) {
                    (true, 0) => Whom::User(name),
                    (true, _) => Whom::Group(name),
                    (false, 0) => Whom::Uid(number),
                    (false, _) => Whom::Gid(number),
                };
                access.rules.push(Rule { action, pattern, whom });
            }
            prop_assert_eq!(parse(&access.to_string()).unwrap(), access);
        }
    }
}
