//! JSON as text that a terminal takes for nothing but text: the values may be anybody's.

use std::io::{self, Write};

use serde::ser::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

use super::super::is_obeyed;

/// Writes a value as JSON: the same value, whatever is escaped in it.
pub(in super::super) fn write(out: impl Write, value: &(impl Serialize + ?Sized)) -> io::Result<()> {
    value.serialize(&mut Serializer::with_formatter(out, Safe)).map_err(io::Error::from)
}

/// JSON without spaces, and with more escapes than it needs.
struct Safe;

impl Formatter for Safe {
    fn write_string_fragment<W: Write + ?Sized>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut plain = fragment;
        // Most strings are ASCII, and what that has of these but DEL is escaped anyway.
        if fragment.bytes().any(|byte| byte >= 0x7f) {
            while let Some((at, obeyed)) = plain.char_indices().find(|(_, c)| is_obeyed(*c)) {
                out.write_all(&plain.as_bytes()[..at])?;
                write!(out, "\\u{:04x}", u32::from(obeyed))?;
                plain = &plain[at + obeyed.len_utf8()..];
            }
        }
        out.write_all(plain.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped_and_the_value_stays_the_same() {
        let text = "é\u{9b}31m\u{7f}\u{202e}b\u{2066}\u{2028}\u{200f}\u{61c}\u{1b}\"\\ 中";
        let mut out = Vec::new();
        write(&mut out, &(text, [("k\u{85}", 1.5)])).unwrap();
        let written = String::from_utf8(out).unwrap();
        let escaped = r#"é\u009b31m\u007f\u202eb\u2066\u2028\u200f\u061c\u001b\"\\ 中"#;
        assert_eq!(written, format!(r#"["{escaped}",[["k\u0085",1.5]]]"#));
        let read: (String, Vec<(String, f64)>) = serde_json::from_str(&written).unwrap();
        assert_eq!(read, (text.to_owned(), vec![("k\u{85}".to_owned(), 1.5)]));
    }
}
