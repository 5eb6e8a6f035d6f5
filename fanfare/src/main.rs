//! The `fanfare` binary: the server and its command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    fanfare::run(std::env::args_os())
}
