//! What a service's errors are to a caller.

use std::convert::Infallible;
use std::error::Error;

use crate::bus::status::Status;

impl From<Infallible> for Status {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// The status that is the error or among its sources; `Unknown` if there is none, with the texts of all of them.
impl From<Box<dyn Error + Send + Sync>> for Status {
    fn from(error: Box<dyn Error + Send + Sync>) -> Self {
        let error = match error.downcast::<Status>() {
            Ok(status) => return *status,
            Err(error) => error,
        };
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            if let Some(status) = cause.downcast_ref::<Status>() {
                return status.clone();
            }
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Status::unknown(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Code;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Box<dyn Error + Send + Sync>);

    #[test]
    fn a_status_is_found_however_deep() {
        let status = Status::aborted("conflict").with_details(&7);
        let plain: Box<dyn Error + Send + Sync> = Box::new(status.clone());
        assert_eq!(Status::from(plain), status);
        let deep = Outer(Box::new(Outer(Box::new(status.clone()))));
        assert_eq!(Status::from(Box::new(deep) as Box<dyn Error + Send + Sync>), status);
    }

    #[test]
    fn other_errors_are_unknown_with_all_they_say() {
        let error: Box<dyn Error + Send + Sync> = Box::new(Outer(Box::new(Outer("inner".into()))));
        let status = Status::from(error);
        assert_eq!((status.code(), status.message()), (Code::Unknown, "outer: outer: inner"));
    }
}
