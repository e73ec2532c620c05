//! Reading and writing file descriptors: again and again while they would block, as the other peers spin.

use std::io::{ErrorKind, Read, Write};

use crate::job::Result;

/// Retries what would block, or was interrupted.
#[inline]
pub fn again(mut io: impl FnMut() -> std::io::Result<usize>) -> Result<usize> {
    loop {
        match io() {
            Ok(0) => return Err("the other process is gone".into()),
            Ok(n) => return Ok(n),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Fills the buffer from a stream of bytes.
pub fn read_all(from: &mut impl Read, buffer: &mut [u8]) -> Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        done += again(|| from.read(&mut buffer[done..]))?;
    }
    Ok(())
}

/// Writes the whole buffer to a stream of bytes.
pub fn write_all(to: &mut impl Write, buffer: &[u8]) -> Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        done += again(|| to.write(&buffer[done..]))?;
    }
    Ok(())
}
