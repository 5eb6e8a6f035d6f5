//! `fanfare-router`: takes in events and routes them, over Kafka and a CQL store.

use std::process::ExitCode;

/// Cheaper than the system's for the many small allocations of requests that cross threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    fanfare::run_service(std::env::args_os(), fanfare::serve::run_router)
}
