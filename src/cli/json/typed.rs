//! What a user has typed, as a value: straight from the text, and with what that takes asked for first.

use super::convert::{Bytes, read};
use super::{Packed, TOO_LARGE};

const ADVICE: &str = "correct it, or pass it as text with --text";

/// Reads what a user has typed: JSON if it can be, else text as it is.
///
/// # Errors
/// It begins as only JSON does, and is not; it is JSON with an integer that no integer of MessagePack can hold; or there is
/// no memory for it.
pub(in super::super) fn parse_lenient(text: &str) -> Result<Packed, String> {
    let too_large = |error| format!("a value of {} bytes of JSON is {error}", text.len());
    let survey = Survey::of(text);
    let mut bytes = survey.room().ok_or_else(|| too_large(TOO_LARGE.to_owned()))?;
    match read(text.as_bytes(), &mut bytes) {
        Ok(()) => {}
        Err(error) if text.trim_start().starts_with(['{', '[', '"']) => {
            return Err(format!("{} begins like JSON, but is not: {error}: {ADVICE}", shortened(text)));
        }
        Err(_) => return Packed::text(text),
    }
    if let Some(error) = bytes.broken() {
        return Err(format!("{}: {error}: {ADVICE}", shortened(text)));
    }
    if let Some(integer) = survey.misfit {
        return Err(format!(
            "{}: an integer is from {} to {}, which {} is not (a float has a point or an exponent): {ADVICE}",
            shortened(text),
            i64::MIN,
            u64::MAX,
            shortened(integer)
        ));
    }
    bytes.finish().map(Packed).map_err(too_large)
}

fn shortened(text: &str) -> String {
    let mut short: String = text.trim_start().chars().take(40).collect();
    if short.len() < text.trim_start().len() {
        short.push('…');
    }
    short
}

/// What JSON says of itself before it is read. (Of other text it may say anything.)
#[derive(Debug, Default)]
struct Survey<'a> {
    /// Bytes that it takes as MessagePack, at most.
    room: usize,
    /// The longest string that has an escape: the reader puts it together in memory of its own.
    escaped: usize,
    /// The first integer that is none of 64 bits, and which the reader takes for a float.
    misfit: Option<&'a str>,
}

impl<'a> Survey<'a> {
    fn of(text: &'a str) -> Self {
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
                        survey.escaped = survey.escaped.max(len);
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
        self.room += match number.len() {
            1 | 2 if is_integer => 1,
            3 | 4 if is_integer => 3,
            5..=9 if is_integer => 5,
            _ => 9,
        };
        if is_integer && number.parse::<u64>().is_err() && number.parse::<i64>().is_err() {
            self.misfit = self.misfit.or(Some(number));
        }
    }

    /// Room for all of it, where the reader will find what it takes itself: it does not ask.
    fn room(&self) -> Option<Bytes> {
        let bytes = Bytes::with_forms(self.room)?;
        // It doubles what it has, and there may be the old and the new at once.
        Vec::<u8>::new().try_reserve_exact(self.escaped.saturating_mul(3)).ok()?;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
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
            read(text.as_bytes(), &mut bytes).unwrap();
            let (taken, room) = (bytes.finish().unwrap().len(), Survey::of(text).room);
            assert!(taken <= room && room <= taken + 60, "{text:.80}: {taken} of {room}");
        }
    }

    #[test]
    fn the_longest_string_with_an_escape_is_found() {
        for (text, escaped) in [
            (r#"["abc","a\"b","\\"]"#, 6),
            (r#"{"a\n":"long and plain"}"#, 5),
            (r#""plain""#, 0),
            (r#""\"#, 2),
            (r#""a"#, 0),
        ] {
            assert_eq!(Survey::of(text).escaped, escaped, "{text}");
        }
    }

    #[test]
    fn integers_that_fit_nowhere_are_refused() {
        for integer in ["18446744073709551616", "-9223372036854775809", "123456789012345678901234567890"] {
            for text in [integer.to_owned(), format!(r#"{{"a":["1",{integer}]}}"#)] {
                let told = parse_lenient(&text).unwrap_err();
                assert!(told.contains(&format!("18446744073709551615, which {integer} is not")), "{told}");
                assert!(told.contains("--text"), "{told}");
            }
        }
        for text in
            [r#""18446744073709551616""#, "18446744073709551616.0", "1e30", "18446744073709551616 mice"]
        {
            assert!(parse_lenient(text).is_ok(), "{text}");
        }
    }
}
