//! The `ringbus` command; everything is in the library, behind the feature `cli`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ringbus::cli::main()
}
