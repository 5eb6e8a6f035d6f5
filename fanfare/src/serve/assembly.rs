//! Puts the components together over the embedded engine: the only place that names an adapter.

use std::sync::Arc;
use std::time::Duration;

use fanfare_delivery_worker::Worker;
use fanfare_domain::Invalid;
use fanfare_embedded::{Embedded, OpenError};
use fanfare_router::front::access::KeyRing;
use fanfare_router::front::{FrontDeps, FrontDoor};
use fanfare_router::instruments::Instruments;
use fanfare_router::matching::Matcher;
use fanfare_router::routing::Routing;
use fanfare_service::Clock;
use fanfare_service::egress::EgressPolicy;
use fanfare_service::telemetry::Metrics;
use fanfare_store::Follower;

use super::addresses::Addresses;
use crate::config::Config;
use crate::failure::Failure;

/// How often the configuration is confirmed; well within `routing.freshness`.
pub(super) const CONFIRM_INTERVAL: Duration = Duration::from_millis(250);

/// Everything that runs, not running yet.
pub(super) struct Parts {
    pub(super) engine: Embedded,
    pub(super) follower: Arc<Follower>,
    pub(super) routing: Routing,
    pub(super) worker: Worker,
    pub(super) front: FrontDoor,
}

impl Parts {
    /// Opens the engine and builds the rest on it.
    pub(super) async fn assemble(
        config: &Config,
        addresses: &Addresses,
        metrics: &Metrics,
    ) -> Result<Self, Failure> {
        let egress = Arc::new(egress(config, addresses)?);
        let keys = KeyRing::try_new(&config.keys).map_err(|e| invalid(&e))?;
        let engine = Embedded::open(config.storage.engine())
            .await
            .map_err(|e| open_failed(&e))?;
        let (log, stores) = (engine.log(), engine.stores());
        let clock = Clock::system();
        let (matcher, matching) = Matcher::new();
        let (worker, lanes) = Worker::new(
            log.clone(),
            stores.clone(),
            egress.clone(),
            config.worker.clone(),
            &metrics.meter("fanfare-delivery-worker"),
            clock.clone(),
        )
        .map_err(|e| Failure::usage(e.to_string()))?;
        let observers: Vec<Box<dyn fanfare_store::Observer>> =
            vec![Box::new(matching), Box::new(lanes)];
        let follower = Follower::start(stores.config.clone(), observers)
            .await
            .map_err(|e| {
                Failure::refused("STORE", format!("cannot load the configuration: {e}"))
            })?;
        let meter = metrics.meter("fanfare-router");
        let routing = Routing::new(
            log.clone(),
            stores.clone(),
            follower.clone(),
            matcher,
            config.routing.clone(),
            Instruments::new(&meter),
            clock.clone(),
        );
        let deps = FrontDeps {
            log,
            stores,
            follower: follower.clone(),
            keys,
            egress,
            clock,
            meter,
        };
        Ok(Self {
            engine,
            follower,
            routing,
            worker,
            front: FrontDoor::new(config.front.clone(), config.management.clone(), deps),
        })
    }
}

/// What may be called: never ourselves, whatever is opened.
fn egress(config: &Config, addresses: &Addresses) -> Result<EgressPolicy, Failure> {
    let policy = config.egress.build().map_err(|e| invalid(&e))?;
    Ok(policy.deny_listeners([addresses.listen, addresses.admin_listen]))
}

fn invalid(invalid: &Invalid) -> Failure {
    Failure::usage(format!("configuration: {invalid}"))
}

fn open_failed(error: &OpenError) -> Failure {
    let cause = std::error::Error::source(error).map(|cause| format!(" ({cause})"));
    Failure::refused("DATA_DIR", format!("{error}{}", cause.unwrap_or_default()))
}
