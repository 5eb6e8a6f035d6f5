//! The `fanfare` binary: the server and its command line; under the name of a service, that one.

use std::process::ExitCode;

/// Cheaper than the system's for the many small allocations of requests that cross threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    fanfare::run_by_name(std::env::args_os())
}
