//! The `{"$…": …}` forms, in the MessagePack that their JSON was converted to: each is longer than what it stands for, so
//! that this is written where it stood.

use std::ops::Range;

use super::base64_decode;
use super::print::Token;

const FORMS: [&str; 4] = ["$bin", "$ext", "$float", "$map"];
/// Forms of what is printed, and is no value that could be sent.
const PRINTED: [&str; 2] = ["$raw", "$str"];

/// Turns the map of one entry that begins at `start` and ends `out` into what it stands for, if its key is a form's.
/// What is in it has been turned already.
///
/// # Errors
/// It does not hold what such a form holds, or stands for no value. Nothing can be said of `out` then.
pub(super) fn resolve(out: &mut Vec<u8>, start: usize) -> Result<(), String> {
    let mut rest = &out[start..];
    let (Ok(Token::Map(1)), Ok(Token::Str(key))) = (Token::read(&mut rest), Token::read(&mut rest)) else {
        return Ok(());
    };
    if let Some(form) = PRINTED.into_iter().find(|form| form.as_bytes() == key) {
        return Err(format!(
            "{form:?} is what `sub` prints of bytes that are no value; {{\"$bin\": …}} sends bytes as a value, \
             {{\"$map\":[[{form:?}, …]]}} a map of this key"
        ));
    }
    // Else it is a key of the user's own that happens to begin with `$`.
    let Some(form) = FORMS.into_iter().find(|form| form.as_bytes() == key) else { return Ok(()) };
    let at = out.len() - rest.len();
    let resolved = match form {
        "$bin" => binary(out, start, at),
        "$ext" => extension(out, start, at),
        "$float" => float(out, start, at),
        _ => map(out, start, at),
    };
    resolved.ok_or_else(|| format!("{form:?} does not hold what it should (see `ringbus sub --help`)"))
}

fn binary(out: &mut Vec<u8>, start: usize, at: usize) -> Option<()> {
    let data = bytes(out, at)?;
    let mut head = Vec::new();
    rmp::encode::write_bin_len(&mut head, data.len() as u32).ok()?;
    replace(out, start, &head, data)
}

fn extension(out: &mut Vec<u8>, start: usize, at: usize) -> Option<()> {
    let mut rest = &out[at..];
    let Ok(Token::Array(2)) = Token::read(&mut rest) else { return None };
    let kind = match Token::read(&mut rest) {
        Ok(Token::Unsigned(kind)) => i8::try_from(kind).ok()?,
        Ok(Token::Signed(kind)) => i8::try_from(kind).ok()?,
        _ => return None,
    };
    let at = out.len() - rest.len();
    let data = bytes(out, at)?;
    let mut head = Vec::new();
    rmp::encode::write_ext_meta(&mut head, data.len() as u32, kind).ok()?;
    replace(out, start, &head, data)
}

fn float(out: &mut Vec<u8>, start: usize, at: usize) -> Option<()> {
    let number = match Token::read(&mut &out[at..]) {
        Ok(Token::Str(b"NaN")) => f64::NAN,
        Ok(Token::Str(b"inf")) => f64::INFINITY,
        Ok(Token::Str(b"-inf")) => f64::NEG_INFINITY,
        _ => return None,
    };
    out.truncate(start);
    rmp::encode::write_f64(out, number).ok()
}

/// Leaves out that each entry is an array.
fn map(out: &mut Vec<u8>, start: usize, at: usize) -> Option<()> {
    let mut rest = &out[at..];
    let Ok(Token::Array(len)) = Token::read(&mut rest) else { return None };
    let mut from = out.len() - rest.len();
    let mut head = Vec::new();
    rmp::encode::write_map_len(&mut head, len as u32).ok()?;
    let mut to = start + head.len();
    out[start..to].copy_from_slice(&head);
    for _ in 0..len {
        let mut rest = &out[from..];
        let Ok(Token::Array(2)) = Token::read(&mut rest) else { return None };
        let entry = out.len() - rest.len();
        skip(&mut rest, 2)?;
        from = out.len() - rest.len();
        out.copy_within(entry..from, to);
        to += from - entry;
    }
    out.truncate(to);
    Some(())
}

/// Passes over so many values.
fn skip(rest: &mut &[u8], values: usize) -> Option<()> {
    let mut left = values;
    while left > 0 {
        left -= 1;
        match Token::read(rest).ok()? {
            Token::Array(len) => left += len,
            Token::Map(len) => left += 2 * len,
            _ => {}
        }
    }
    Some(())
}

/// Where the bytes are whose base64 is the string that begins here: in its place.
fn bytes(out: &mut [u8], at: usize) -> Option<Range<usize>> {
    let mut rest = &out[at..];
    let Ok(Token::Str(text)) = Token::read(&mut rest) else { return None };
    let end = out.len() - rest.len();
    let begin = end - text.len();
    let len = base64_decode(&mut out[begin..end])?;
    Some(begin..begin + len)
}

/// Ends `out` with this head and this part of it.
fn replace(out: &mut Vec<u8>, start: usize, head: &[u8], data: Range<usize>) -> Option<()> {
    let (to, len) = (start + head.len(), data.len());
    out.get_mut(start..to)?.copy_from_slice(head);
    out.copy_within(data, to);
    out.truncate(to + len);
    Some(())
}
