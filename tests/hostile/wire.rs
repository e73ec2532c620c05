//! MessagePack with something wrong about it.

use crate::random::Random;

/// A marker with a 16-bit length.
pub fn length(bytes: &mut Vec<u8>, marker: u8, len: usize) {
    bytes.push(marker);
    bytes.extend(u16::try_from(len).unwrap().to_be_bytes());
}

/// How long the marker at the start of these bytes is with its length or number, and how many bytes of text or binary
/// follow.
fn token(bytes: &[u8]) -> (usize, usize) {
    let number = |len: usize| {
        let digits = bytes.get(1..1 + len).unwrap_or_default();
        digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit))
    };
    match bytes[0] {
        0xa0..=0xbf => (1, usize::from(bytes[0] & 0x1f)),
        0xc4 | 0xd9 => (2, number(1)),
        0xc5 | 0xda => (3, number(2)),
        0xc6 | 0xdb => (5, number(4)),
        0xcc | 0xd0 | 0xd4 => (2, 0),
        0xcd | 0xd1 | 0xdc | 0xde => (3, 0),
        0xca | 0xce | 0xd2 | 0xdd | 0xdf => (5, 0),
        0xcb | 0xcf | 0xd3 => (9, 0),
        _ => (1, 0),
    }
}

/// Where the values begin: of up to 64 of them, one; and how long its marker and number are.
fn value(bytes: &[u8], random: &mut Random) -> (usize, usize) {
    let (mut at, mut found, mut left) = (0, (0, 0), random.below(24));
    while at < bytes.len() {
        let (marker, body) = token(&bytes[at..]);
        found = (at, marker.min(bytes.len() - at));
        if left == 0 {
            break;
        }
        (left, at) = (left - 1, at.saturating_add(marker).saturating_add(body));
    }
    found
}

/// Changes one thing.
pub fn harm(bytes: &mut Vec<u8>, random: &mut Random) {
    if bytes.is_empty() {
        return bytes.push(random.next() as u8);
    }
    let (at, len) = value(bytes, random);
    match random.below(16) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => {
            let any = random.index(bytes.len());
            bytes[any] = random.next() as u8;
        }
        2 => bytes.truncate(random.index(bytes.len() + 1)),
        3 => bytes.extend((0..random.below(20)).map(|_| random.next() as u8)),
        4 => drop(bytes.splice(at..at + len, [0xc0])),
        5 => drop(bytes.splice(at..at, vec![random.pick(&[0x91, 0x81, 0x92, 0xc0]); random.index(40)])),
        // Another length or count, of the same kind or another.
        6..10 => {
            let marker = random.pick(&[0xc6, 0xdb, 0xdd, 0xdf, 0xce, 0xd2, 0xc9]);
            let number = match random.below(4) {
                0 => u32::MAX - random.below(3) as u32,
                1 => random.next() as u32,
                2 => bytes.len() as u32,
                _ => random.below(70) as u32,
            };
            let number = number.to_be_bytes();
            bytes.splice(at..at + len, [marker, number[0], number[1], number[2], number[3]]);
        }
        10 => {
            let number = random.word().to_be_bytes();
            let marker = random.pick(&[0xcf, 0xd3, 0xcb]);
            bytes.splice(at..at + len, std::iter::once(marker).chain(number));
        }
        11 => {
            bytes[at] = random.pick(&[0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc1, 0xc2, 0xe0, 0x7f, 0xc7, 0xd8])
        }
        12 => bytes[at] = bytes[at].wrapping_add(1),
        13 => bytes[at] = bytes[at].wrapping_sub(1),
        14 => {
            // A piece twice.
            let piece = bytes[at..].iter().take(random.index(40)).copied().collect::<Vec<_>>();
            bytes.splice(at..at, piece);
        }
        _ => bytes[at] = random.next() as u8,
    }
}
