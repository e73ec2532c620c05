//! Barriers run on other CPUs, so that a hot path needs none of its own (membarrier(2)).
//!
//! Registration belongs to the address space. The manual says nothing of fork(2); Linux copies it with
//! the address space (so a child may issue private barriers), and execve(2) clears it. Ports of a
//! parent are dead in a child anyway.
//!
//! A barrier that could not be issued must be replaced by a fence on *both* sides; hence the `bool`s.

use std::sync::OnceLock;

use nix::libc;

/// Which commands the kernel has, as a mask of `MEMBARRIER_CMD_*`; 0 when it has no membarrier, or a
/// seccomp filter or `nohz_full` takes it away.
pub fn query() -> i32 {
    static SUPPORTED: OnceLock<i32> = OnceLock::new();
    *SUPPORTED.get_or_init(|| command(libc::MEMBARRIER_CMD_QUERY).max(0))
}

/// Registers this process for [`private_expedited`], once; whether it worked.
///
/// Cheap while the process has a single thread, up to milliseconds later: do it early.
pub fn register_private() -> bool {
    static DONE: OnceLock<bool> = OnceLock::new();
    *DONE.get_or_init(|| command(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0)
}

/// Runs a full memory barrier on every running thread of this process; whether it worked.
///
/// When it returns true, each other thread has passed a point where all its earlier loads and stores
/// (in program order) are before all its later ones. False if [`register_private`] never succeeded.
#[must_use = "without the barrier both sides need a fence"]
pub fn private_expedited() -> bool {
    command(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0
}

/// Registers this process to be interrupted by [`global_expedited`] of any process, once; whether it
/// worked. Must be done before the first protocol that relies on it starts.
pub fn register_global() -> bool {
    static DONE: OnceLock<bool> = OnceLock::new();
    *DONE.get_or_init(|| command(libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED) == 0)
}

/// Runs a full memory barrier on every running thread of every process that called
/// [`register_global`]; whether it worked. The caller itself need not be registered.
#[must_use = "without the barrier both sides need a fence"]
pub fn global_expedited() -> bool {
    command(libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED) == 0
}

fn command(command: i32) -> i32 {
    // SAFETY: membarrier takes integers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) as i32 }
}

#[cfg(test)]
mod tests {
    use super::super::testing::passes_in_child;
    use super::*;

    fn has(command: i32) -> bool {
        query() & command != 0
    }

    #[test]
    fn barriers_work_where_the_kernel_says_so() {
        let private = has(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED);
        assert_eq!(register_private(), private);
        assert_eq!(private_expedited(), private);
        let global = has(libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED);
        assert_eq!(register_global(), global);
        assert_eq!(global_expedited(), global);
    }

    #[test]
    fn a_forked_child_inherits_the_registration() {
        let registered = register_private();
        passes_in_child(move || assert_eq!(private_expedited(), registered));
    }
}
