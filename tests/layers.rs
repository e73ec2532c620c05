//! The shape of the source tree: which layer may use which, where `unsafe` may stand, how long a file may be.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each part of the crate, and those that it may use. A new part needs a line here: its place in the order.
const MAY_USE: [(&str, &[&str]); 9] = [
    // Level 0: they know of nothing, or of the system alone.
    ("sys", &[]),
    ("segment", &["sys"]),
    ("frame", &[]),
    // Level 1
    ("ring", &["segment"]),
    ("wake", &["sys"]),
    // Level 2
    ("control", &["sys", "segment", "frame", "wake"]),
    ("pipe", &["sys", "segment", "ring", "wake"]),
    // Level 3
    ("bus", &["sys", "segment", "frame", "ring", "wake", "control"]),
    // On top: through the public API, or whatever it needs.
    ("cli", &["sys", "segment", "frame", "ring", "wake", "control", "bus"]),
];
/// The command is a user of the crate, so it may name what the front door exports.
const USES_THE_FRONT_DOOR: &str = "cli";
const UNSAFE: [&str; 3] = ["sys", "segment", "ring"];
const LINES: usize = 500;

struct Source {
    path: PathBuf,
    /// The top-level module; `None` for `lib.rs` and the binaries.
    part: Option<String>,
    /// Modules between the crate's root and this file's items.
    depth: usize,
    text: String,
}

impl Source {
    /// Its tokens, as far as they matter here: words, `::`, and single characters; no comments, no literals.
    fn tokens(&self) -> Vec<&str> {
        tokens(&self.text)
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(&root).unwrap().to_owned();
                let mut modules: Vec<_> =
                    path.with_extension("").iter().map(|name| name.to_str().unwrap().to_owned()).collect();
                if modules.last().is_some_and(|name| name == "mod" || name == "lib") {
                    modules.pop();
                }
                let part = modules.first().filter(|name| *name != "bin").cloned();
                found.push(Source { path, part, depth: modules.len(), text });
            }
        }
    }
    assert!(found.len() > 20, "this is the source tree");
    found
}

fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let len = if first.is_alphabetic() || first == '_' {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("::") {
            2
        } else if first == '"' {
            let hashes = tokens.iter().rev().take_while(|token| **token == "#").count();
            match tokens.get(tokens.len().wrapping_sub(hashes + 1)) {
                Some(&"r" | &"br") => raw_literal(rest, hashes),
                _ => literal(rest, '"'),
            }
        } else if let Some(char) = rest.strip_prefix('\'') {
            // A character, or a lifetime.
            let mut chars = char.chars();
            let (one, two) = (chars.next(), chars.next());
            if one == Some('\\') || two == Some('\'') { literal(rest, '\'') } else { 1 }
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(len);
        let skipped = token.trim().is_empty() || token.starts_with(['"', '\'']) || token.starts_with("//");
        if !skipped && !token.starts_with("/*") {
            tokens.push(token);
        }
        rest = after;
    }
    tokens
}

/// Length of a literal with its quotes.
fn literal(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of a literal without escapes, with its quotes; its hashes count for themselves.
fn raw_literal(text: &str, hashes: usize) -> usize {
    let end = format!("\"{}", "#".repeat(hashes));
    text[1..].find(&end).map_or(text.len(), |end| end + 2)
}

/// What a file names right below the crate's root, by `crate::…` or by enough `super`s.
fn uses<'t>(tokens: &[&'t str], depth: usize) -> BTreeSet<&'t str> {
    let mut found = BTreeSet::new();
    // For each open brace, whether it is an inline module's.
    let mut braces = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at] {
            "{" => braces.push(at >= 2 && tokens[at - 2] == "mod"),
            "}" => drop(braces.pop()),
            "crate" => {
                at += 1;
                root_names(tokens, at, &mut found);
                continue;
            }
            "super" => {
                let depth = depth + braces.iter().filter(|module| **module).count();
                let mut climbed = 1;
                while tokens[at + 1..].starts_with(&["::", "super"]) {
                    climbed += 1;
                    at += 2;
                }
                assert!(climbed <= depth, "supers beyond the root");
                if climbed == depth {
                    root_names(tokens, at + 1, &mut found);
                }
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// The names that follow the crate's root: one, or a group of them.
fn root_names<'t>(tokens: &[&'t str], at: usize, found: &mut BTreeSet<&'t str>) {
    // `pub(crate)`, `super` in a visibility: no path.
    if tokens.get(at) != Some(&"::") {
        return;
    }
    if tokens.get(at + 1) != Some(&"{") {
        found.extend(tokens.get(at + 1));
        return;
    }
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(at + 1) {
        match *token {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return;
        }
        if depth == 1 && matches!(*token, "{" | ",") && tokens.get(index + 1) != Some(&"}") {
            found.extend(tokens.get(index + 1));
        }
    }
}

#[test]
fn layers_use_only_those_below_them() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(part) = &source.part else { continue };
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| name == part) else {
            wrong.push(format!("{}: part {part} has no place in MAY_USE", source.path.display()));
            continue;
        };
        for used in uses(&source.tokens(), source.depth) {
            let is_part = MAY_USE.iter().any(|(name, _)| *name == used);
            let exported = !is_part && part == USES_THE_FRONT_DOOR;
            if used != part && !allowed.contains(&used) && !exported {
                wrong.push(format!("{}: {part} must not use crate::{used}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn unsafe_code_stands_where_it_may_and_is_forbidden_elsewhere() {
    let sources = sources();
    for source in &sources {
        let may = source.part.as_deref().is_some_and(|part| UNSAFE.contains(&part));
        assert!(may || !source.tokens().contains(&"unsafe"), "unsafe in {}", source.path.display());
    }
    for (part, _) in MAY_USE.iter().filter(|(part, _)| !UNSAFE.contains(part)) {
        let root = [format!("{part}/mod.rs"), format!("{part}.rs")].map(PathBuf::from);
        let Some(root) = sources.iter().find(|source| root.contains(&source.path)) else {
            assert!(sources.iter().all(|source| source.part.as_deref() != Some(part)), "{part} has no root");
            continue;
        };
        assert!(root.text.contains("#![forbid(unsafe_code)]"), "{} does not forbid it", root.path.display());
    }
}

#[test]
fn no_file_is_longer_than_can_be_read_in_a_sitting() {
    let long = sources().into_iter().map(|source| (source.path, source.text.lines().count()));
    let long: Vec<_> = long.filter(|(_, lines)| *lines > LINES).collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn these_tests_see_what_they_look_for() {
    let text = r##"
        //! [`crate::comment`]
        use crate::{plain::A, nested::{B, C}, last};
        pub(crate) fn f<'a>(_: &'a str) -> crate::path::D { "crate::literal \" unsafe"; r"\"; r#"" unsafe \"#; '"'; '\''; x }
        use super::sibling::E;
        mod tests { use super::super::not_root; use super::super::super::from_root; use super::*; }
        /* crate::block */ pub(in super::super) struct S; // unsafe
    "##;
    let tokens = tokens(text);
    let found: Vec<_> = uses(&tokens, 2).into_iter().collect();
    assert_eq!(found, ["from_root", "last", "nested", "path", "plain"]);
    assert!(!tokens.contains(&"unsafe"));
}
