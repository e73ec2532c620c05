//! Which CPUs a thread may run on (sched_setaffinity(2)); for benchmarks and the command line.

use std::io;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Zero means the calling thread.
const SELF: Pid = Pid::from_raw(0);

/// The CPUs that the calling thread may run on, in ascending order.
pub fn allowed() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(SELF)?;
    Ok((0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect())
}

/// Binds the calling thread to one CPU.
///
/// # Errors
/// `EINVAL` when there is no such CPU, or a cpuset forbids it.
pub fn pin(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(SELF, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_has_one_cpu() {
        std::thread::spawn(|| {
            let cpu = allowed().unwrap()[0];
            pin(cpu).unwrap();
            assert_eq!(allowed().unwrap(), [cpu]);
            pin(usize::MAX).unwrap_err();
        })
        .join()
        .unwrap();
    }
}
