//! What the tests of these layers share: forked children, in which a lowered limit or a death harms no
//! other test.
//!
//! Tests run in parallel, so a child also inherits the open fds of others for as long as it lives: a test
//! that expects a hang-up waits for it (`poll::readable`) rather than looking once.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// How long a test waits for what has to happen before it fails.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// A forked child. It is killed if it outlives a minute.
pub struct Child(Pid);

impl Child {
    /// Runs `body` in a forked child, whose exit code says whether it panicked.
    ///
    /// The test binary has threads, so the body keeps to system calls, comparisons and malloc (which
    /// glibc makes safe after fork); it leaves by `_exit`, running no destructor of the parent's.
    pub fn spawn(body: impl FnOnce()) -> Self {
        // SAFETY: the child keeps to what is said above.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Parent { child } => Self(child),
            ForkResult::Child => {
                // SAFETY: plain calls on integers; the last ends this process at once.
                unsafe {
                    libc::alarm(60);
                    let passed = catch_unwind(AssertUnwindSafe(body)).is_ok();
                    libc::_exit(if passed { 0 } else { 101 })
                }
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.0.as_raw()
    }

    /// Kills it with SIGKILL.
    pub fn kill(&self) {
        kill(self.pid());
    }

    /// Reaps the child and says how it ended.
    pub fn wait(self) -> WaitStatus {
        waitpid(self.0, None).expect("waitpid")
    }
}

/// Whether this is root, who can play other users. If not, the test's output says what it cannot show here.
pub fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        // Past the harness, which shows the output of failed tests only.
        let _ = writeln!(std::io::stderr(), "{test}: not shown, or in part: that takes root");
    }
    root
}

/// Kills a process that this test has made.
pub fn kill(pid: i32) {
    // SAFETY: takes two integers.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
}

/// Stays until killed.
pub fn stay() {
    loop {
        std::thread::park();
    }
}

/// Runs `check` in a forked child and fails if it panicked or was killed.
#[track_caller]
pub fn passes_in_child(check: impl FnOnce()) {
    let status = Child::spawn(check).wait();
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "the child ended with {status:?}");
}

/// The errno of a result that has to be an error.
#[track_caller]
pub fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    let error = result.expect_err("an error");
    error.raw_os_error().unwrap_or_else(|| panic!("an errno, not {error}"))
}
