//! The three servers: `fanfare serve`, everything in one process, and the services of a cluster,
//! `fanfare-router` and `fanfare-delivery-worker`. They differ in what they start ([`Role`]).
//!
//! In the order of a start: the configuration is composed ([`flags`]) and checked, the addresses
//! are bound ([`listeners`]), the backend is opened ([`backend`]), the components are put together
//! ([`assembly`]), the addresses are written down ([`addresses`]) and the ready line is said. Then
//! [`running`] waits for a signal or a failure, and drains; [`watch`] keeps readiness true.
//!
//! A start that fails has changed nothing and says why in one sentence.

pub mod addresses;
pub mod assembly;
pub mod backend;
pub mod flags;
pub mod listeners;
pub mod running;
pub mod watch;

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, Parser};
use fanfare_service::signals::Signals;
use fanfare_service::{telemetry, traces};

use crate::config::{Config, Role, StorageMode};
use crate::demo;
use crate::failure::Failure;
use flags::{CommonFlags, FrontFlags};
use running::{Launch, Running};

/// What is logged unless `RUST_LOG` says otherwise: of what lies under the backends only what is
/// amiss, not its chores, and so of the demo, which tells of deliveries itself.
const LOG_FILTER: &str = "info,fjall=warn,lsm_tree=warn,scylla=error";
const LOG_FILTER_DEMO: &str = "warn,fanfare_delivery_worker::report=error";

/// `fanfare serve`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare serve --dev
  fanfare serve --config fanfare.toml --data-dir /var/lib/fanfare
  fanfare serve --demo

SIGTERM and SIGINT drain: what is in flight is finished. A second one exits at once.")]
pub struct ServeArgs {
    #[command(flatten)]
    common: CommonFlags,

    #[command(flatten)]
    front: FrontFlags,

    /// The only state there is [default: ./fanfare-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Show it at work: a receiver, endpoints and events, in ./fanfare-demo
    #[arg(long)]
    demo: bool,
}

/// Takes in events and routes them: one of any number, over Kafka and a CQL store.
#[derive(Debug, Parser)]
#[command(
    name = "fanfare-router",
    version,
    after_help = "Example:
  fanfare-router --config fanfare.toml

SIGTERM and SIGINT drain: what was taken in is routed and handed over. A second one exits at once."
)]
pub struct RouterArgs {
    #[command(flatten)]
    common: CommonFlags,

    #[command(flatten)]
    front: FrontFlags,
}

/// Delivers: one of any number, over Kafka and a CQL store.
#[derive(Debug, Parser)]
#[command(
    name = "fanfare-delivery-worker",
    version,
    after_help = "Example:
  fanfare-delivery-worker --config fanfare.toml

SIGTERM and SIGINT drain: what is in flight is finished and committed. A second one exits at once."
)]
pub struct WorkerArgs {
    #[command(flatten)]
    common: CommonFlags,
}

/// `fanfare serve`, until a signal.
pub fn run(args: ServeArgs) -> Result<(), Failure> {
    let mut config = Config::load(args.common.config.as_deref())?;
    let dir = args
        .data_dir
        .or_else(|| args.demo.then(|| demo::DIR.into()));
    flags::set(&mut config.storage.data_dir, dir);
    let addresses_file = args.common.apply(&mut config);
    args.front.apply(&mut config);
    config.egress.dev |= args.demo;
    let beside_the_data = || {
        let embedded = config.storage.mode == StorageMode::Embedded;
        embedded.then(|| config.storage.data_dir.join("addresses.json"))
    };
    let launch = Launch {
        addresses_file: addresses_file.or_else(beside_the_data),
        config: &config,
        role: Role::Everything,
    };
    start(&launch, args.demo)
}

/// `fanfare-router`, until a signal.
pub fn run_router(args: RouterArgs) -> Result<(), Failure> {
    let mut config = service_config(&args.common)?;
    let addresses_file = args.common.apply(&mut config);
    args.front.apply(&mut config);
    let launch = Launch {
        config: &config,
        role: Role::Router,
        addresses_file,
    };
    start(&launch, false)
}

/// `fanfare-delivery-worker`, until a signal.
pub fn run_worker(args: WorkerArgs) -> Result<(), Failure> {
    let mut config = service_config(&args.common)?;
    let addresses_file = args.common.apply(&mut config);
    let launch = Launch {
        config: &config,
        role: Role::Worker,
        addresses_file,
    };
    start(&launch, false)
}

/// A service has no directory: it is one of several over Kafka and a CQL store.
fn service_config(common: &CommonFlags) -> Result<Config, Failure> {
    let mut config = Config::load(common.config.as_deref())?;
    config.storage.mode = StorageMode::Distributed;
    Ok(config)
}

fn start(launch: &Launch<'_>, demo: bool) -> Result<(), Failure> {
    let config = launch.config;
    config.check(launch.role)?;
    let filter = if demo { LOG_FILTER_DEMO } else { LOG_FILTER };
    telemetry::start_logging(config.server.log_format, filter)
        .map_err(|e| Failure::usage(e.to_string()))?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads())
        .enable_all()
        .build()
        .map_err(|e| Failure::refused("RUNTIME", format!("cannot start: {e}")))?
        .block_on(async {
            traces::start(launch.role.program()).map_err(|e| Failure::usage(e.to_string()))?;
            let served = serve(launch, demo).await;
            traces::stop().await;
            served
        })
}

async fn serve(launch: &Launch<'_>, demo: bool) -> Result<(), Failure> {
    let started = Instant::now();
    let mut signals = Signals::catch().map_err(|e| Failure::refused("SIGNALS", e.to_string()))?;
    if demo {
        return demo::run(launch, signals, started).await;
    }
    let running = tokio::select! {
        running = Running::start(launch) => running?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped before it was ready");
            return Ok(());
        }
    };
    let addresses = running.addresses();
    match addresses.listen {
        Some(listen) => eprintln!("{} is ready at http://{listen}", launch.role.program()),
        None => eprintln!(
            "{} is ready, see http://{}/readyz",
            launch.role.program(),
            addresses.admin_listen
        ),
    }
    running.until_stopped(signals).await
}

/// Threads of the runtime: one core is left to the storage threads and the kernel. Work that moves
/// between more threads than there are cores for costs a fifth more per delivery (measured on 2).
fn worker_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores - 1).max(1)
}
