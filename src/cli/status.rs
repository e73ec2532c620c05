//! Statuses of calls as a shell reads and writes them.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::json::{Packed, Received};
use crate::{Code, Status};

/// Names and codes, in the order of their numbers.
const NAMES: [(&str, Code); 17] = [
    ("ok", Code::Ok),
    ("cancelled", Code::Cancelled),
    ("unknown", Code::Unknown),
    ("invalid_argument", Code::InvalidArgument),
    ("deadline_exceeded", Code::DeadlineExceeded),
    ("not_found", Code::NotFound),
    ("already_exists", Code::AlreadyExists),
    ("permission_denied", Code::PermissionDenied),
    ("resource_exhausted", Code::ResourceExhausted),
    ("failed_precondition", Code::FailedPrecondition),
    ("aborted", Code::Aborted),
    ("out_of_range", Code::OutOfRange),
    ("unimplemented", Code::Unimplemented),
    ("internal", Code::Internal),
    ("unavailable", Code::Unavailable),
    ("data_loss", Code::DataLoss),
    ("unauthenticated", Code::Unauthenticated),
];

/// Bytes of the details that are told in a line.
const LONGEST: usize = 64 << 10;

/// The code's name in JSON: `not_found`.
pub(super) fn name(code: Code) -> &'static str {
    NAMES.iter().find(|(_, known)| *known == code).map_or("unknown", |(name, _)| name)
}

/// The code of this name.
pub(super) fn code_of(name: &str) -> Option<Code> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, code)| *code)
}

/// The code with this number.
pub(super) fn code_at(number: u64) -> Option<Code> {
    NAMES.get(usize::try_from(number).ok()?).map(|(_, code)| *code)
}

/// A failed call, in a line for people.
pub(super) fn line(status: &Status) -> String {
    match details(status) {
        Some(details) => format!("{status}; details: {details}"),
        None => status.to_string(),
    }
}

/// In words, if they are no longer than a line of an error should be.
fn details(status: &Status) -> Option<String> {
    let details: Received = status.details()?;
    let shown = match details.value() {
        Ok(details) if details.bytes().len() > LONGEST => {
            Err(format!("{} bytes, which --json shows", details.bytes().len()))
        }
        details => details.and_then(Packed::shown).map(|shown| serde_json::to_string(&shown).ok()),
    };
    shown.unwrap_or_else(Some)
}

/// A failed call, as JSON: code, message, and details where there are any.
pub(super) struct Failed<'a>(pub(super) &'a Status);

impl Serialize for Failed<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(None)?;
        map.serialize_entry("status", name(self.0.code()))?;
        map.serialize_entry("code", &(self.0.code() as u8))?;
        map.serialize_entry("message", self.0.message())?;
        let details: Option<Received> = self.0.details();
        if let Some(details) = &details {
            match details.value().and_then(Packed::shown) {
                Ok(details) => map.serialize_entry("details", &details)?,
                Err(error) => map.serialize_entry("details", &format!("({error})"))?,
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_at_their_numbers() {
        for (number, (name, code)) in NAMES.iter().enumerate() {
            assert_eq!(*code as usize, number);
            assert_eq!(*code, Code::from_wire(number as u64));
            assert_eq!((code_of(name), super::name(*code)), (Some(*code), *name));
        }
        assert_eq!((code_of("Ok"), code_at(16), code_at(17)), (None, Some(Code::Unauthenticated), None));
    }

    #[test]
    fn details_are_shown_where_there_are_any() {
        let status = Status::not_found("no such task").with_details(&("task", 42));
        assert_eq!(line(&status), r#"not found: no such task; details: ["task",42]"#);
        assert_eq!(
            serde_json::to_string(&Failed(&status)).unwrap(),
            r#"{"status":"not_found","code":5,"message":"no such task","details":["task",42]}"#
        );
        let status = Status::aborted("");
        assert_eq!(line(&status), "aborted");
        assert_eq!(
            serde_json::to_string(&Failed(&status)).unwrap(),
            r#"{"status":"aborted","code":10,"message":""}"#
        );
    }
}
