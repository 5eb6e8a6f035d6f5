//! One module per noun: its part of the command tree, and what its verbs do.

pub mod completion;
pub mod config;
pub mod delivery;
pub mod demo;
pub mod endpoint;
pub mod event;
pub mod key;
pub mod listen;
pub mod migrate;
pub mod paging;
pub mod ready;
pub mod status;
pub mod subscription;

use std::future::Future;

use crate::args::{Cli, Command};
use crate::failure::Failure;

/// Does what the command line says.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let format = cli.output;
    match cli.command {
        Command::Serve(args) => crate::serve::run(*args),
        Command::Event(args) => client(event::run(args, format)),
        Command::Endpoint(args) => client(endpoint::run(args, format)),
        Command::Subscription(args) => client(subscription::run(args, format)),
        Command::Delivery(args) => client(delivery::run(args, format)),
        Command::Listen(args) => client(listen::run(args, format)),
        Command::Demo(args) => client(demo::run(args)),
        Command::Ready(args) => client(ready::run(&args, format)),
        Command::Status(args) => client(status::run(&args, format)),
        Command::Key(args) => key::run(&args, format),
        Command::Config(args) => config::run(&args, format),
        Command::Migrate(args) => migrate::run(&args, format),
        Command::Completion(args) => completion::run(&args),
    }
}

/// Runs a client's work: one thread is enough.
fn client<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    // Only the first call installs it; there is no other provider in the program.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::refused("RUNTIME", format!("cannot start: {e}")))?
        .block_on(work)
}

/// That something is gone.
fn deleted(id: &str, format: crate::output::Format) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match format {
        crate::output::Format::Json => {
            writeln!(out, "{}", serde_json::json!({ "id": id, "deleted": true }))
        }
        crate::output::Format::Table => writeln!(out, "deleted  {id}"),
    }
}
