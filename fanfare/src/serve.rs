//! `fanfare serve`: everything in one process, on the embedded engine.
//!
//! In the order of a start: the configuration is composed and checked, the addresses are bound
//! ([`listeners`]), the engine is opened and the components are put together ([`assembly`]), the
//! addresses are written down ([`addresses`]) and the ready line is said. Then [`running`] waits
//! for a signal or a failure, and drains.
//!
//! A start that fails has changed nothing and says why in one sentence.

pub mod addresses;
pub mod assembly;
pub mod listeners;
pub mod running;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use fanfare_service::signals::Signals;
use fanfare_service::telemetry::{self, LogFormat};
use fanfare_service::traces;

use crate::config::Config;
use crate::demo;
use crate::failure::Failure;
use running::Running;

/// What is logged unless `RUST_LOG` says otherwise: of the view under the engine only what is
/// amiss, not its chores, and so of the demo, since it tells its own story.
const LOG_FILTER: &str = "info,fjall=warn,lsm_tree=warn";
const LOG_FILTER_DEMO: &str = "warn";

/// `fanfare serve`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare serve --dev
  fanfare serve --config fanfare.toml --data-dir /var/lib/fanfare
  fanfare serve --demo

SIGTERM and SIGINT drain: what is in flight is finished. A second one exits at once.")]
#[allow(clippy::struct_excessive_bools)] // each is a switch of the command line
pub struct ServeArgs {
    /// Settings; 'fanfare config default' prints them all
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The only state there is [default: ./fanfare-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// gRPC, HTTP and the web page; port 0 takes a free one [default: 127.0.0.1:7400]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,

    /// Probes and metrics; port 0 takes a free one [default: 127.0.0.1:7401]
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<SocketAddr>,

    /// On a laptop: loopback endpoints, localhost and plain http are allowed
    #[arg(long)]
    dev: bool,

    /// A network that may be called although it is not public; repeatable
    #[arg(long, value_name = "CIDR")]
    allow_egress: Vec<String>,

    /// A name that may be called whatever it resolves to; repeatable
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,

    /// Plain http endpoints are allowed
    #[arg(long)]
    allow_http: bool,

    /// Listen off loopback without keys
    #[arg(long)]
    insecure_no_auth: bool,

    /// Show it at work: a receiver, endpoints and events, in ./fanfare-demo
    #[arg(long)]
    demo: bool,

    /// How log lines look: text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

/// Serves until a signal.
pub fn run(args: ServeArgs) -> Result<(), Failure> {
    let demo = args.demo;
    let config = args.effective()?;
    config.check()?;
    let filter = if demo { LOG_FILTER_DEMO } else { LOG_FILTER };
    telemetry::start_logging(config.server.log_format, filter)
        .map_err(|e| Failure::usage(e.to_string()))?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads())
        .enable_all()
        .build()
        .map_err(|e| Failure::refused("RUNTIME", format!("cannot start: {e}")))?
        .block_on(async {
            let started = Instant::now();
            let signals =
                Signals::catch().map_err(|e| Failure::refused("SIGNALS", e.to_string()))?;
            traces::start("fanfare").map_err(|e| Failure::usage(e.to_string()))?;
            if demo {
                return demo::run(&config, signals, started).await;
            }
            let running = Running::start(&config).await?;
            eprintln!("fanfare is ready at http://{}", running.addresses().listen);
            let stopped = running.until_stopped(signals).await;
            traces::stop().await;
            stopped
        })
}

/// Threads of the runtime: one core is left to the storage threads and the kernel. Work that moves
/// between more threads than there are cores for costs a fifth more per delivery (measured on 2).
fn worker_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores - 1).max(1)
}

impl ServeArgs {
    /// The file and the environment under the flags.
    fn effective(self) -> Result<Config, Failure> {
        let mut config = Config::load(self.config.as_deref())?;
        let dir = self
            .data_dir
            .or_else(|| self.demo.then(|| demo::DIR.into()));
        set(&mut config.storage.data_dir, dir);
        set(&mut config.server.listen, self.listen);
        set(&mut config.server.admin_listen, self.admin_listen);
        set(&mut config.server.log_format, self.log_format);
        config.server.insecure_no_auth |= self.insecure_no_auth;
        config.egress.dev |= self.dev || self.demo;
        config.egress.allow_http |= self.allow_http;
        config.egress.allow_egress.extend(self.allow_egress);
        config.egress.allow_hosts.extend(self.allow_host);
        Ok(config)
    }
}

/// A flag that is given wins.
fn set<T>(setting: &mut T, flag: Option<T>) {
    if let Some(value) = flag {
        *setting = value;
    }
}
