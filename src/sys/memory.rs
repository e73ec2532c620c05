//! Memory that the process may not have (malloc(3)): what a peer says the size of is no reason to end.

use std::alloc::{Layout, alloc_zeroed};
use std::io;

/// `len` zeros. Large ones are fresh pages of the kernel's, and are not written.
///
/// # Errors
/// `OutOfMemory`, in words for whoever sent so much.
pub fn zeroed(len: usize) -> io::Result<Vec<u8>> {
    if len == 0 {
        return Ok(Vec::new());
    }
    let layout = Layout::array::<u8>(len).map_err(|_| none(len))?;
    // SAFETY: the layout's size is not zero.
    let memory = unsafe { alloc_zeroed(layout) };
    if memory.is_null() {
        return Err(none(len));
    }
    // SAFETY: the global allocator has just given `len` bytes with the alignment of `u8`, to this function alone, and all
    // of them are initialised; `len` fits `isize`, as every layout's size does.
    Ok(unsafe { Vec::from_raw_parts(memory, len, len) })
}

fn none(len: usize) -> io::Error {
    let text = format!("this process has no memory for {len} bytes: raise its limit (`ulimit -v`)");
    io::Error::new(io::ErrorKind::OutOfMemory, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_zeros_or_an_error() {
        for len in [0, 1, 4096, 1 << 20] {
            let mut memory = zeroed(len).unwrap();
            assert!(memory.len() == len && memory.iter().all(|byte| *byte == 0));
            memory.fill(1);
        }
        for len in [usize::MAX, isize::MAX as usize, 1 << 56] {
            let error = zeroed(len).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
            assert!(error.to_string().contains("ulimit -v"), "{error}");
        }
    }
}
