//! Why a value could not be read.

use std::fmt::{self, Display, Write};

/// Longest text of an error, in bytes, but for the mark that there was more: it may quote what a peer sent.
const LONGEST: usize = 512;

/// Why a value could not be read, in words.
#[derive(Debug)]
pub(crate) struct DecodeError(Box<str>);

impl Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DecodeError {}

impl serde::de::Error for DecodeError {
    #[cold]
    fn custom<T: Display>(message: T) -> Self {
        let mut text = Text(String::new());
        let _ = write!(text, "{message}"); // an error: it is longer
        Self(text.0.into())
    }
}

impl From<rmp_serde::decode::Error> for DecodeError {
    #[cold]
    fn from(error: rmp_serde::decode::Error) -> Self {
        serde::de::Error::custom(error)
    }
}

/// Takes no more than the longest text.
struct Text(String);

impl Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = LONGEST.saturating_sub(self.0.len());
        if part.len() <= room {
            self.0.push_str(part);
            return Ok(());
        }
        self.0.push_str(&part[..part.floor_char_boundary(room)]);
        self.0.push('…');
        Err(fmt::Error)
    }
}
