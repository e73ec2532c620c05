//! Copies of large payloads.

/// Which way a copy takes that another process is going to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// As memcpy does: each line becomes this processor's own first. One that another processor has read since it was
    /// last written is taken back from there, and some processors wait for one such line after the other.
    Caches,
    /// By streaming (non-temporal) stores of whole lines: nobody's copy is asked for, and whoever reads them fetches them
    /// from memory. As [`Via::Caches`] on processors other than x86-64.
    Memory,
}

/// Bytes from which on it matters how they are copied.
pub const LONG: usize = 1024;

/// Copies all of `from` over all of `into`. Which way matters from a KiB on.
///
/// # Panics
/// If the slices differ in length.
#[inline]
pub fn copy(into: &mut [u8], from: &[u8], via: Via) {
    if from.len() < LONG {
        return into.copy_from_slice(from);
    }
    assert!(into.len() == from.len(), "as many bytes as there is room for");
    // SAFETY: both slices are so long, and `into` is nobody else's.
    unsafe { copy_long(into.as_mut_ptr(), from.as_ptr(), from.len(), via) }
}

/// A vector of these bytes; `None` if there is no memory for it.
pub fn to_vec(from: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(from.len()).ok()?;
    if from.len() < LONG {
        bytes.extend_from_slice(from);
    } else {
        // SAFETY: there is as much room, and all of it is written before it counts.
        unsafe {
            copy_long(bytes.as_mut_ptr(), from.as_ptr(), from.len(), Via::Caches);
            bytes.set_len(from.len());
        }
    }
    Some(bytes)
}

/// A string of its own; `None` if there is no memory for it.
pub fn to_string(from: &str) -> Option<String> {
    // SAFETY: the bytes of a string.
    to_vec(from.as_bytes()).map(|bytes| unsafe { String::from_utf8_unchecked(bytes) })
}

/// # Safety
/// `into` is writable, `from` readable, for so many bytes, at least a line, which do not overlap.
#[inline]
unsafe fn copy_long(
    into: *mut u8,
    from: *const u8,
    len: usize,
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables))] via: Via,
) {
    #[cfg(target_arch = "x86_64")]
    if via == Via::Memory || is_unlucky(into, from) {
        // SAFETY: the caller's promise.
        return unsafe { copy_lines(into, from, len, via) };
    }
    // SAFETY: the caller's promise.
    unsafe { into.copy_from_nonoverlapping(from, len) }
}

/// Bytes of a cache line. Of less than one, each streaming store would be a transfer to memory by itself.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Whether the C library's copy may take sixteen times as long as it should. It is one instruction from some KiB on (REP
/// MOVSB), which does so on an AMD processor (Zen 4; 64 KiB in 18.7 us and not in 1.1) where the destination's offset
/// within its page is 1 to 15 bytes above the source's: a matter of luck for whoever copies between two allocations.
#[cfg(target_arch = "x86_64")]
fn is_unlucky(into: *const u8, from: *const u8) -> bool {
    matches!(into.addr().wrapping_sub(from.addr()) % 4096, 1..=15)
}

/// Copies by whole lines of `into`, and what is before the first and behind the last one by itself: not as a line that
/// overlaps, for which one that is streamed would be fetched.
///
/// Streaming stores are not ordered with any others (Intel SDM volume 3, "Memory Ordering"), and so stand between two
/// fences: what was stored before is seen before them (a generation, by which a reader tells that it looks at a blob which
/// is written again), and what is stored afterwards is seen after them (a tail).
///
/// # Safety
/// `into` is writable, `from` readable, for so many bytes, at least a line, which do not overlap.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
unsafe fn copy_lines(into: *mut u8, from: *const u8, len: usize, via: Via) {
    use std::arch::x86_64::_mm_sfence;

    let first = into.addr().wrapping_neg() % LINE;
    let behind = len - (len - first) % LINE;
    // SAFETY: `first` is less than a line, and so no more than `len`; of lines, there is a whole number up to `behind`,
    // which is no more than `len` either; and SSE is a part of x86-64.
    unsafe {
        into.copy_from_nonoverlapping(from, first);
        into.add(behind).copy_from_nonoverlapping(from.add(behind), len - behind);
        match via {
            Via::Caches => {
                (first..behind).step_by(LINE).for_each(|at| copy_line(into.add(at), from.add(at)));
            }
            Via::Memory => {
                _mm_sfence();
                (first..behind).step_by(LINE).for_each(|at| stream_line(into.add(at), from.add(at)));
                _mm_sfence();
            }
        }
    }
}

/// In assembly, since the compiler makes a call of the C library's copy of a loop of such copies.
///
/// # Safety
/// `from` is readable, `into` writable, for a line.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn copy_line(into: *mut u8, from: *const u8) {
    // SAFETY: the caller's promise; nothing else is read, written or clobbered.
    unsafe {
        std::arch::asm!(
            "movups {a}, [{from}]",
            "movups {b}, [{from} + 16]",
            "movups {c}, [{from} + 32]",
            "movups {d}, [{from} + 48]",
            "movups [{into}], {a}",
            "movups [{into} + 16], {b}",
            "movups [{into} + 32], {c}",
            "movups [{into} + 48], {d}",
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            from = in(reg) from,
            into = in(reg) into,
            options(nostack, preserves_flags),
        );
    }
}

/// # Safety
/// As of [`copy_line`]; `into` is 16-byte aligned, and nobody looks at it before a fence.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn stream_line(into: *mut u8, from: *const u8) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};

    let (into, from) = (into.cast::<__m128i>(), from.cast::<__m128i>());
    // SAFETY: four blocks of 16 bytes are a line.
    unsafe {
        let blocks = [0, 1, 2, 3].map(|block| _mm_loadu_si128(from.add(block)));
        for (block, bytes) in blocks.into_iter().enumerate() {
            _mm_stream_si128(into.add(block), bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_ways_copy_all_and_nothing_beside_it(
            len in prop_oneof![0..3 * LONG, 60_000..70_000usize],
            before in prop_oneof![Just(0), 0..64usize], // bytes of a line
            above in prop_oneof![1..=15usize, 0..4096usize], // as in `is_unlucky`
            via in prop_oneof![Just(Via::Caches), Just(Via::Memory)],
        ) {
            let mut room = vec![0xa5; len + 200];
            let at = 128 - room.as_ptr().addr() % 64 + before;
            let source: Vec<u8> = (0..len + 4096).map(|at| ((at * 7) >> 3) as u8).collect();
            let from = room[at..].as_ptr().addr().wrapping_sub(above).wrapping_sub(source.as_ptr().addr()) % 4096;
            let from = &source[from..][..len];
            copy(&mut room[at..at + len], from, via);
            prop_assert!(room[at..at + len] == *from);
            prop_assert!(room[..at].iter().chain(&room[at + len..]).all(|byte| *byte == 0xa5));
            prop_assert!(to_vec(from).unwrap() == from);
        }
    }

    #[test]
    fn a_string_becomes_another_one() {
        for len in [0, 5, LONG - 1, LONG, 5000] {
            let string = "ä".repeat(len);
            assert_eq!(to_string(&string).unwrap(), string);
        }
    }

    #[test]
    #[should_panic(expected = "as many bytes as there is room for")]
    fn slices_of_two_lengths_are_refused() {
        copy(&mut [0; LONG], &[0; LONG + 1], Via::Memory);
    }
}
