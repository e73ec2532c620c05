//! Text in bytes that have come out of shared memory.

use std::str::Utf8Error;

/// As [`str::from_utf8`], and quicker for what most strings are: short, ASCII, and at any address. (Std looks at such
/// bytes one by one until it gets to an aligned word.)
///
/// # Errors
/// As [`str::from_utf8`].
#[inline(always)]
pub(crate) fn from_utf8(bytes: &[u8]) -> Result<&str, Utf8Error> {
    if is_ascii(bytes) {
        // SAFETY: no byte has its first bit set, so each is a character of ASCII, and together they are UTF-8.
        return Ok(unsafe { str::from_utf8_unchecked(bytes) });
    }
    str::from_utf8(bytes)
}

/// Whether no byte has its first bit set: by words, the last of which overlaps the one before.
#[inline(always)]
fn is_ascii(bytes: &[u8]) -> bool {
    const FIRST_BITS: u64 = u64::from_ne_bytes([0x80; 8]);
    let (words, _) = bytes.as_chunks();
    let word = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
    let Some(last) = bytes.last_chunk() else { return bytes.iter().all(u8::is_ascii) };
    let all = match words {
        [one] => word(one),
        [one, two] => word(one) | word(two),
        words => words.iter().fold(0, |all, one| all | word(one)),
    };
    (all | word(last)) & FIRST_BITS == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A byte that is no ASCII is seen wherever it stands, at every length and address.
    #[test]
    fn every_byte_is_looked_at() {
        let mut bytes = [b'a'; 80];
        for from in 0..8 {
            for to in from..bytes.len() {
                assert_eq!(from_utf8(&bytes[from..to]), str::from_utf8(&bytes[from..to]));
                for at in from..to {
                    bytes[at] = 0x80;
                    assert_eq!(
                        from_utf8(&bytes[from..to]),
                        str::from_utf8(&bytes[from..to]),
                        "{from} {to} {at}"
                    );
                    bytes[at] = b'a';
                }
            }
        }
    }

    proptest! {
        #[test]
        fn says_what_std_says(text: String, bytes: Vec<u8>) {
            prop_assert_eq!(from_utf8(text.as_bytes()), Ok(&text[..]));
            prop_assert_eq!(from_utf8(&bytes), str::from_utf8(&bytes));
        }
    }
}
