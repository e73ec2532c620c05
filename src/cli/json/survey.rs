//! A look at JSON before it is read, so that what reading it takes is asked for.

use std::hint::black_box;

use super::convert::Bytes;

/// Zeros that the reader may add to a number.
const FRACTION: usize = 20;

/// What JSON says of itself before it is read. (Of other text it may say anything.)
#[derive(Debug, Default)]
pub(super) struct Survey<'a> {
    /// Bytes that it takes as MessagePack, at most.
    room: usize,
    /// The longest string that has an escape, or number: the reader puts them together in memory of its own.
    longest: usize,
    /// The first integer that is none of 64 bits, and which the reader takes for a float.
    pub(super) misfit: Option<&'a str>,
}

impl<'a> Survey<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let (bytes, mut survey, mut at) = (text.as_bytes(), Self::default(), 0);
        while let Some(byte) = bytes.get(at) {
            let begin = at;
            at += 1;
            match byte {
                b'"' => {
                    let mut is_escaped = false;
                    while bytes.get(at).is_some_and(|byte| *byte != b'"') {
                        is_escaped |= bytes[at] == b'\\';
                        at += if bytes[at] == b'\\' { 2 } else { 1 };
                    }
                    at += 1;
                    let len = at.min(bytes.len()) - begin;
                    survey.room = survey.room.saturating_add(len + 4);
                    if is_escaped {
                        survey.longest = survey.longest.max(len);
                    }
                }
                b'-' | b'0'..=b'9' => {
                    let is_part = |byte: &u8| matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E' | b'0'..=b'9');
                    at += bytes[at..].iter().take_while(|byte| is_part(byte)).count();
                    survey.number(&text[begin..at]);
                }
                b'[' | b'{' => survey.room += 5,
                b't' | b'f' | b'n' => survey.room += 1,
                _ => {}
            }
        }
        survey
    }

    fn number(&mut self, number: &'a str) {
        let digits = number.strip_prefix('-').unwrap_or(number);
        let is_integer = digits.bytes().all(|byte| byte.is_ascii_digit()) && number != "-0";
        self.longest = self.longest.max(number.len() + FRACTION);
        self.room += match number.len() {
            1 | 2 if is_integer => 1,
            3 | 4 if is_integer => 3,
            5..=9 if is_integer => 5,
            _ => 9,
        };
        // What begins with a zero is no number of JSON, and neither is a sign.
        let is_misfit = is_integer && digits.starts_with(|first| first != '0');
        if is_misfit && number.parse::<u64>().is_err() && number.parse::<i64>().is_err() {
            self.misfit = self.misfit.or(Some(number));
        }
    }

    /// Room for all of it, where the reader will find what it takes itself: it does not ask.
    pub(super) fn bytes(&self, has_forms: bool) -> Option<Bytes> {
        let bytes = Bytes::new(self.room, has_forms)?;
        // It doubles what it has, and there may be the old and the new at once.
        let mut probe = Vec::<u8>::new();
        probe.try_reserve_exact(self.longest.saturating_mul(3)).ok()?;
        black_box(&probe); // else it need not be made
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::convert::read;
    use super::*;

    #[test]
    fn the_room_that_is_asked_for_is_enough() {
        for text in [
            "[0,-1,-32,-33,10,99,-99,127,128,999,1000,-999,65535,99999,-9999,-99999,999999999,-99999999]",
            "[2147483648,-2147483648,18446744073709551615,-9223372036854775808,-0,1.5,1e9,-1E-9]",
            r#"[null,true,false,[],{},"",{"":""},{"$bin":"AAEC"},"\u00e9\n\"\\",[[[[1]]]]]"#,
            &format!("[{:?},{:?}]", "x".repeat(300), "é".repeat(70_000)),
        ] {
            let mut bytes = Bytes::default();
            read(text, &mut bytes).unwrap();
            let (taken, room) = (bytes.finish().unwrap().len(), Survey::of(text).room);
            assert!(taken <= room && room <= taken + 60, "{text:.80}: {taken} of {room}");
        }
    }

    #[test]
    fn the_longest_string_with_an_escape_or_number_is_found() {
        for (text, longest) in [
            (r#"["abc","a\"b","\\"]"#, 6),
            (r#"{"a\n":"long and plain"}"#, 5),
            (r#""plain""#, 0),
            (r#""\"#, 2),
            (r#""a"#, 0),
            (r#"["\n",12345]"#, 5 + FRACTION),
        ] {
            assert_eq!(Survey::of(text).longest, longest, "{text}");
        }
    }
}
