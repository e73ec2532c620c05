//! Who may do what on a group's bus: nodes of three users try everything, between processes.
//!
//! Root can play other users. Whoever else runs these tests is one user only, and sees that the same user's nodes may
//! do everything, whatever the list says.

#[path = "../support/mod.rs"]
mod support;

mod guest;
mod matrix;
#[path = "../support/raw.rs"]
mod raw_peer;
mod segments;
mod strangers;

/// Not a test of its own but the second process of those here: does nothing unless one of them started it.
#[test]
fn child() {
    support::play(&[
        ("guest", guest::guest),
        ("gets at the socket", strangers::gets_at_the_socket),
        ("would write", segments::would_write),
        ("joins as a member", strangers::joins_as_a_member),
    ]);
}
