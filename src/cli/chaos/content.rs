//! What messages are made of: told by who sends them and their number, so that every byte can be checked.

use super::dice::mix;
use super::protocol::Note;

/// Life and number, at the beginning of a message of bytes.
pub(super) const HEAD: usize = 16;

/// Mostly small messages, some of a few KiB, and a few that are too large for the log.
pub(super) fn length(life: u64, number: u64) -> usize {
    let word = word(life, number, u64::MAX);
    let (size, share) = (word as usize >> 8, word % 100);
    match share {
        0..90 => size % 240,
        90..98 => size % 8_000,
        _ => 16_000 + size % 100_000,
    }
}

/// Writes the message of this number; `bytes` holds [`HEAD`] bytes and those of [`length`].
pub(super) fn write(life: u64, number: u64, bytes: &mut [u8]) {
    let (head, body) = bytes.split_at_mut(HEAD);
    head[..8].copy_from_slice(&life.to_le_bytes());
    head[8..].copy_from_slice(&number.to_le_bytes());
    for (at, chunk) in body.chunks_mut(8).enumerate() {
        let word = word(life, number, at as u64).to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

/// The life and the number of a message of bytes, if it is whole.
pub(super) fn read(bytes: &[u8]) -> Option<(u64, u64)> {
    let (head, body) = bytes.split_at_checked(HEAD)?;
    let life = u64::from_le_bytes(head[..8].try_into().ok()?);
    let number = u64::from_le_bytes(head[8..].try_into().ok()?);
    let is_whole = body.len() == length(life, number)
        && body
            .chunks(8)
            .enumerate()
            .all(|(at, chunk)| chunk == &word(life, number, at as u64).to_le_bytes()[..chunk.len()]);
    is_whole.then_some((life, number))
}

/// The value of this number.
pub(super) fn note(life: u64, number: u64) -> Note {
    let letter = |at| char::from(b'a' + (word(life, number, at) % 26) as u8);
    Note { life, number, text: (0..length(life, number) as u64 / 8).map(letter).collect() }
}

pub(super) fn is_whole(value: &Note) -> bool {
    *value == note(value.life, value.number)
}

fn word(life: u64, number: u64, at: u64) -> u64 {
    mix(life.rotate_left(48) ^ number.rotate_left(20) ^ at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_is_noticed() {
        for number in 0..200 {
            let mut bytes = vec![0; HEAD + length(7, number)];
            write(7, number, &mut bytes);
            assert_eq!(read(&bytes), Some((7, number)));
            assert_eq!(read(&bytes[..bytes.len() - 1]), None);
            for at in [0, 8, HEAD, bytes.len() / 2, bytes.len() - 1] {
                if at < bytes.len() {
                    bytes[at] ^= 1;
                    assert_eq!(read(&bytes), None, "byte {at} of {}", bytes.len());
                    bytes[at] ^= 1;
                }
            }
            let mut value = note(7, number);
            assert!(is_whole(&value));
            value.text.push('a');
            assert!(!is_whole(&value));
        }
    }

    #[test]
    fn there_are_messages_of_all_sizes() {
        let sizes: Vec<usize> = (0..1000).map(|number| length(1, number)).collect();
        assert!(sizes.iter().any(|size| *size > 64 * 1024) && sizes.iter().any(|size| *size < 16));
        assert!(sizes.iter().any(|size| (1000..10_000).contains(size)));
    }
}
