//! Random bytes from the kernel (getrandom(2)).

use std::io;

use nix::errno::Errno;
use nix::libc;

/// A random 128-bit id: unique without asking anybody.
///
/// Waits for the kernel's generator only in the first moments after boot.
pub fn id128() -> io::Result<[u8; 16]> {
    let mut id = [0u8; 16];
    let filled = super::retry(|| {
        // SAFETY: the kernel writes at most `id.len()` bytes into `id`, which outlives the call.
        Errno::result(unsafe { libc::getrandom(id.as_mut_ptr().cast(), id.len(), 0) })
    })?;
    // getrandom(2) never returns fewer bytes for requests up to 256 bytes; an all-zero tail would not be
    // an id, so this is checked all the same.
    if filled as usize == id.len() { Ok(id) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ() {
        assert_ne!(id128().unwrap(), id128().unwrap());
    }
}
