//! `fanfare demo`: the demo of `fanfare serve --demo` against a server that runs already.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use fanfare_service::signals::Signals;

use crate::args::ConnectionArgs;
use crate::connect::Server;
use crate::demo::{self, Place};
use crate::failure::Failure;

/// `fanfare demo`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare demo
  fanfare demo --server http://fanfare:7400 --listen 0.0.0.0:8080 --url http://receiver:8080

It makes three endpoints that lead to its receiver, publishes, and verifies what arrives. The server
must be allowed to call the receiver: on one machine start it with --dev.")]
pub struct DemoArgs {
    #[command(flatten)]
    connection: ConnectionArgs,

    /// Where the receiver listens [default: a free port of 127.0.0.1]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,

    /// How the server reaches the receiver, if not by that address
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// What the demo remembers between two runs
    #[arg(long, value_name = "DIR", default_value = demo::DIR)]
    dir: PathBuf,
}

/// Runs it until a signal.
pub async fn run(args: DemoArgs) -> Result<(), Failure> {
    let signals = Signals::catch().map_err(|e| Failure::refused("SIGNALS", e.to_string()))?;
    let server = Server::connect(&args.connection).await?;
    let place = Place {
        dir: args.dir,
        listen: args.listen,
        url: args.url,
    };
    demo::run_against(server, &place, signals).await
}
