//! Thin, safe wrappers of the Linux calls that the bus needs, one call family a file.
