//! Puts the components of a role together over a backend.

use std::sync::Arc;
use std::time::Duration;

use fanfare_delivery_worker::Worker;
use fanfare_domain::Invalid;
use fanfare_router::front::access::KeyRing;
use fanfare_router::front::{FrontDeps, FrontDoor};
use fanfare_router::instruments::Instruments;
use fanfare_router::matching::Matcher;
use fanfare_router::routing::Routing;
use fanfare_service::Clock;
use fanfare_service::egress::EgressPolicy;
use fanfare_service::health::Condition;
use fanfare_service::telemetry::Metrics;
use fanfare_store::{Follower, Observer};

use super::addresses::Addresses;
use super::backend::{self, Backend};
use crate::config::{Config, Role};
use crate::failure::Failure;

/// How often the configuration is confirmed; well within `routing.freshness`.
pub(super) const CONFIRM_INTERVAL: Duration = Duration::from_millis(250);

/// Everything that runs, not running yet.
pub(super) struct Parts {
    pub(super) follower: Arc<Follower>,
    pub(super) router: Option<(Routing, FrontDoor)>,
    pub(super) worker: Option<Worker>,
}

/// What every component is built with.
struct Site<'a> {
    config: &'a Config,
    backend: &'a Backend,
    egress: Arc<EgressPolicy>,
    metrics: &'a Metrics,
    clock: Clock,
}

impl Parts {
    /// Builds what `role` needs on `backend`, saying in `ready` what it waits for meanwhile.
    pub(super) async fn assemble(
        config: &Config,
        role: Role,
        backend: &Backend,
        addresses: &Addresses,
        metrics: &Metrics,
        ready: &Condition,
    ) -> Result<Self, Failure> {
        let site = Site {
            config,
            backend,
            egress: Arc::new(egress(config, addresses)?),
            metrics,
            clock: Clock::system(),
        };
        let keys = KeyRing::try_new(&config.keys).map_err(|e| invalid(&e))?;
        let mut observers: Vec<Box<dyn Observer>> = Vec::new();
        let matcher = (role != Role::Worker).then(|| {
            let (matcher, matching) = Matcher::new();
            observers.push(Box::new(matching));
            matcher
        });
        let worker = match role {
            Role::Router => None,
            Role::Everything | Role::Worker => Some(site.worker(&mut observers)?),
        };
        let follower = Follower::new(backend.stores().config, observers);
        backend::load(&follower, config, ready).await?;
        let follower = Arc::new(follower);
        Ok(Self {
            router: matcher.map(|matcher| site.router(&follower, matcher, keys)),
            follower,
            worker,
        })
    }
}

impl Site<'_> {
    fn worker(&self, observers: &mut Vec<Box<dyn Observer>>) -> Result<Worker, Failure> {
        let (worker, lanes) = Worker::new(
            self.backend.log(),
            self.backend.stores(),
            self.egress.clone(),
            self.config.worker.clone(),
            &self.metrics.meter("fanfare-delivery-worker"),
            self.clock.clone(),
        )
        .map_err(|e| Failure::usage(e.to_string()))?;
        observers.push(Box::new(lanes));
        Ok(worker)
    }

    fn router(
        &self,
        follower: &Arc<Follower>,
        matcher: Matcher,
        keys: KeyRing,
    ) -> (Routing, FrontDoor) {
        let (log, stores) = (self.backend.log(), self.backend.stores());
        let meter = self.metrics.meter("fanfare-router");
        let routing = Routing::new(
            log.clone(),
            stores.clone(),
            follower.clone(),
            matcher,
            self.config.routing.clone(),
            Instruments::new(&meter),
            self.clock.clone(),
        );
        let deps = FrontDeps {
            log,
            stores,
            follower: follower.clone(),
            keys,
            egress: self.egress.clone(),
            clock: self.clock.clone(),
            meter,
        };
        let (front, management) = (self.config.front.clone(), self.config.management.clone());
        (routing, FrontDoor::new(front, management, deps))
    }
}

/// What may be called: never ourselves, whatever is opened.
fn egress(config: &Config, addresses: &Addresses) -> Result<EgressPolicy, Failure> {
    let policy = config.egress.build().map_err(|e| invalid(&e))?;
    Ok(policy.deny_listeners(addresses.all()))
}

fn invalid(invalid: &Invalid) -> Failure {
    Failure::usage(format!("configuration: {invalid}"))
}
