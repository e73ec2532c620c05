//! Locks on single bytes of a file that the kernel lets go of with their holder (`F_OFD_SETLK`, fcntl(2)).
//!
//! A lock belongs to the open file, not to the process: two that one process opened exclude each other, and
//! closing some other fd of the file lets go of nothing. Forked children share the open file, so a lock
//! outlives its process for as long as such a child lives and does not exec. The bytes need not exist.

use std::io;
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// Locks a byte of a file that is open for writing, until it is unlocked or every copy of the fd is closed;
/// false if another open file holds it.
pub fn try_lock(file: impl AsFd, byte: u32) -> io::Result<bool> {
    match super::retry(|| fcntl(&file, FcntlArg::F_OFD_SETLK(&one(libc::F_WRLCK, byte)))) {
        Ok(_) => Ok(true),
        // EACCES is what POSIX allows for the same.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Lets go of a byte, though forked children have copies of the fd.
pub fn unlock(file: impl AsFd, byte: u32) -> io::Result<()> {
    super::retry(|| fcntl(&file, FcntlArg::F_OFD_SETLK(&one(libc::F_UNLCK, byte))))?;
    Ok(())
}

/// Whether another open file holds a byte; takes nothing, so it keeps nobody from locking it.
pub fn is_locked(file: impl AsFd, byte: u32) -> io::Result<bool> {
    let mut found = one(libc::F_WRLCK, byte);
    super::retry(|| fcntl(&file, FcntlArg::F_OFD_GETLK(&mut found)))?;
    Ok(i32::from(found.l_type) != libc::F_UNLCK)
}

fn one(kind: i32, byte: u32) -> libc::flock {
    libc::flock { l_type: kind as _, l_whence: libc::SEEK_SET as _, l_start: byte.into(), l_len: 1, l_pid: 0 }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::poll::readable;
    use super::super::testing::{Child, DEADLINE, stay};
    use super::*;

    fn twice() -> (File, File) {
        let file = tempfile::NamedTempFile::new().unwrap();
        (file.reopen().unwrap(), file.reopen().unwrap())
    }

    #[test]
    fn a_byte_is_held_by_one_open_file() {
        let (one, other) = twice();
        assert!(!is_locked(&other, 1).unwrap());
        assert!(try_lock(&one, 1).unwrap());
        assert!(try_lock(&one, 1).unwrap(), "it has it");
        assert!(!is_locked(&one, 1).unwrap(), "no other has it");
        assert!(is_locked(&other, 1).unwrap() && !try_lock(&other, 1).unwrap());
        assert!(try_lock(&other, 0).unwrap() && try_lock(&other, 2).unwrap(), "other bytes are free");
        drop(one.try_clone().unwrap());
        assert!(is_locked(&other, 1).unwrap(), "a closed copy lets go of nothing");
        unlock(&one, 1).unwrap();
        assert!(!is_locked(&other, 1).unwrap() && try_lock(&other, 1).unwrap());
    }

    #[test]
    fn a_forked_child_keeps_a_lock_until_it_is_unlocked() {
        let (one, other) = twice();
        assert!(try_lock(&one, 0).unwrap() && try_lock(&one, 1).unwrap());
        let child = Child::spawn(stay);
        unlock(&one, 0).unwrap();
        drop(one);
        assert!(!is_locked(&other, 0).unwrap() && is_locked(&other, 1).unwrap());
        child.kill();
        child.wait();
    }

    #[test]
    fn a_killed_process_holds_nothing() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let (mut report, said) = std::io::pipe().unwrap();
        let child = Child::spawn(|| {
            let file = File::options().write(true).open(path.path()).unwrap();
            assert!(try_lock(&file, 0).unwrap());
            std::io::Write::write_all(&mut &said, &[1]).unwrap();
            stay();
        });
        assert!(readable(report.as_fd(), Some(DEADLINE)).unwrap());
        std::io::Read::read_exact(&mut report, &mut [0]).unwrap();
        let file = path.reopen().unwrap();
        assert!(is_locked(&file, 0).unwrap());
        child.kill();
        child.wait();
        // Other tests fork too, but none of them has opened this file with the lock.
        assert!(!is_locked(&file, 0).unwrap() && try_lock(&file, 0).unwrap());
    }
}
