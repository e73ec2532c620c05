//! What a user has typed, as a value: straight from the text, and with what that takes asked for first.

use super::convert::read;
use super::survey::Survey;
use super::{Packed, TOO_LARGE};

const ADVICE: &str = "correct it, or pass it as text with --text";

/// Reads what a user has typed: JSON if it can be, else text as it is.
///
/// # Errors
/// It begins as only JSON does, and is not; it is JSON with an integer that no integer of MessagePack can hold, or a float
/// beyond all floats; or there is no memory for it.
pub(in super::super) fn parse_lenient(text: &str) -> Result<Packed, String> {
    let too_large = |error| format!("a value of {} bytes of JSON is {error}", text.len());
    let survey = Survey::of(text);
    let mut bytes = survey.bytes(true).ok_or_else(|| too_large(TOO_LARGE.to_owned()))?;
    let misfit = |integer: &str| {
        let (least, most) = (i64::MIN, u64::MAX);
        let (text, integer) = (shortened(text), shortened(integer));
        Err(format!(
            "{text}: an integer is from {least} to {most}, which {integer} is not (a float has a point or an exponent): {ADVICE}"
        ))
    };
    match read(text, &mut bytes) {
        Ok(()) => {}
        // Beyond floats as well: to the reader it is no number.
        Err(_) if survey.misfit == Some(text.trim()) => return misfit(text),
        Err(error) if text.trim_start().starts_with(['{', '[', '"']) => {
            return Err(format!("{} begins like JSON, but is not: {error}: {ADVICE}", shortened(text)));
        }
        Err(_) if is_beyond_floats(text.trim()) => {
            return Err(format!("{}: no float is as large: {ADVICE}", shortened(text)));
        }
        Err(_) => {
            drop(bytes); // both may be large
            return Packed::text(text);
        }
    }
    if let Some(error) = bytes.broken() {
        return Err(format!("{}: {error}: {ADVICE}", shortened(text)));
    }
    if let Some(integer) = survey.misfit {
        return misfit(integer);
    }
    bytes.finish().map(Packed).map_err(too_large)
}

/// Whether it is a number, and larger than any.
fn is_beyond_floats(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text); // not `inf`, which is a word
    digits.starts_with(|digit: char| digit.is_ascii_digit()) && text.parse().is_ok_and(f64::is_infinite)
}

fn shortened(text: &str) -> String {
    let mut short: String = text.trim_start().chars().take(40).collect();
    if short.len() < text.trim_start().len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_that_fit_nowhere_are_refused() {
        for text in ["1e400", "-1e400", " 1.5E+309 ", "[1e400]"] {
            assert!(parse_lenient(text).unwrap_err().contains("--text"), "{text}");
        }
        for text in ["1e308", "inf", "-inf", "1e400 mice", "Infinity", "e400"] {
            assert!(parse_lenient(text).is_ok(), "{text}");
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
        assert!(parse_lenient(&"9".repeat(400)).unwrap_err().contains("an integer is from"));
        for text in [
            r#""18446744073709551616""#,
            "18446744073709551616.0",
            "1e30",
            "18446744073709551616 mice",
            "018446744073709551616",
            "-",
        ] {
            assert!(parse_lenient(text).is_ok(), "{text}");
        }
    }
}
