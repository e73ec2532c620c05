//! Calls between processes: every call ends exactly once, with its answer or with a status that says why not.

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/raw.rs"]
mod raw_peer;

mod cancels;
mod closing;
mod deaths;
mod floods;
mod forks;
mod futures;
mod hostile;
mod many;
mod metadata;
mod raw;
mod servant;
mod statuses;

/// Not a test of its own but the second process of those here: does nothing unless one of them started it.
#[test]
fn child() {
    support::play(&[
        ("serves", servant::serves),
        ("calls and is killed", deaths::calls_and_is_killed),
        ("forks a client", forks::forks_a_client),
        ("forks a server", forks::forks_a_server),
        ("opens and closes", closing::opens_and_closes),
        ("serves clients that never ask", closing::serves_clients_that_never_ask),
        ("restarts", deaths::restarts),
        ("asks and is stopped", floods::asks_and_is_stopped),
    ]);
}
