//! The front door: everything a producer, an operator or a program asks of Fanfare, on one
//! address.
//!
//! In the order of a request: [`listener`] holds the connections, [`dispatch`] finds out who asks
//! ([`access`], [`caller`]) and whether there is room, a service answers.
//!
//! - Publishing: [`events`] and [`publish_stream`] over gRPC, [`cloud_events`] over HTTP; all of it
//!   goes through [`ingest`]. [`tail`] follows what was accepted.
//! - Managing: [`endpoints`], [`subscriptions`] and [`deliveries`], on what [`management`] shares.
//! - [`errors`] is the one way to refuse; `wire` and `messages` are the messages, `paging` the lists.
//!
//! It keeps nothing of its own but a window of recent identities: the log and the stores are the
//! truth. When the log is away, publishing says so and everything else goes on.

pub mod access;
pub mod caller;
mod cloud_events;
pub mod config;
pub mod deliveries;
mod dispatch;
pub mod endpoints;
pub mod errors;
mod events;
mod ingest;
mod instruments;
mod listener;
pub mod management;
mod messages;
mod newest;
pub(crate) mod paging;
mod publish_stream;
#[cfg(test)]
mod served;
pub mod subscriptions;
mod tail;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;

use fanfare_event_log::EventLog;
use fanfare_proto::v1::delivery_service_server::{self, DeliveryServiceServer};
use fanfare_proto::v1::endpoint_service_server::{self, EndpointServiceServer};
use fanfare_proto::v1::event_service_server::{self, EventServiceServer};
use fanfare_proto::v1::subscription_service_server::{self, SubscriptionServiceServer};
use fanfare_service::Clock;
use fanfare_service::egress::EgressPolicy;
use fanfare_store::{Follower, Stores};
use opentelemetry::metrics::Meter;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::inquiry::Inquiry;
use access::KeyRing;
use cloud_events::CloudEvents;
pub use config::FrontConfig;
use deliveries::Deliveries;
use dispatch::{Dispatch, Room};
use endpoints::Endpoints;
use events::Events;
use ingest::Ingest;
use instruments::Instruments;
use listener::Connections;
use management::Management;
pub use management::ManagementConfig;
use publish_stream::Unanswered;
use subscriptions::Subscriptions;
use tail::Tails;

/// What a message may be larger than the events in it.
const MESSAGE_SLACK: usize = 64 * 1024;

/// What the front door works with.
#[derive(Clone)]
pub struct FrontDeps {
    /// Takes what is published.
    pub log: Arc<dyn EventLog>,
    /// Configuration, events, and what became of deliveries.
    pub stores: Stores,
    /// The configuration as this process sees it.
    pub follower: Arc<Follower>,
    /// Who may call.
    pub keys: KeyRing,
    /// Which URLs may be stored.
    pub egress: Arc<EgressPolicy>,
    /// The time of accepting and of changes.
    pub clock: Clock,
    /// Where to count.
    pub meter: Meter,
}

/// The front door, before it is opened.
pub struct FrontDoor {
    config: FrontConfig,
    management: ManagementConfig,
    deps: FrontDeps,
}

impl FrontDoor {
    /// A closed door. `config` and `management` are checked ([`FrontConfig::check`]).
    pub fn new(config: FrontConfig, management: ManagementConfig, deps: FrontDeps) -> Self {
        Self {
            config,
            management,
            deps,
        }
    }

    /// Serves `listener` until `drain` is cancelled and everything that was read is answered.
    ///
    /// The drain has no deadline of its own (an attempt to answer has): the caller bounds it.
    /// Dropping the future stops accepting; connections then end when their tasks are done.
    pub async fn serve(self, listener: TcpListener, drain: CancellationToken) {
        let tasks = TaskTracker::new();
        let (health, health_service) = tonic_health::server::health_reporter();
        let dispatch = self.dispatch(health_service, &tasks, &drain);
        report_health(&health, ServingStatus::Serving).await;
        let connections = Connections::new(&self.config, dispatch, tasks.clone(), drain);
        connections.accept(listener).await;
        report_health(&health, ServingStatus::NotServing).await;
        tasks.close();
        tasks.wait().await;
    }

    fn dispatch<H>(
        &self,
        health: tonic_health::pb::health_server::HealthServer<H>,
        tasks: &TaskTracker,
        drain: &CancellationToken,
    ) -> Dispatch
    where
        H: tonic_health::pb::health_server::Health,
    {
        let instruments = Instruments::new(&self.deps.meter);
        let ingest = Arc::new(Ingest::new(
            &self.config,
            self.deps.log.clone(),
            self.deps.stores.events.clone(),
            self.deps.clock.clone(),
            instruments.clone(),
        ));
        let events = Events {
            ingest: ingest.clone(),
            tails: Tails::new(self.deps.log.clone(), tasks.clone(), drain.clone()),
            stores: self.deps.stores.clone(),
            inquiry: Inquiry::new(self.deps.stores.clone()),
            limits: Unanswered::of(&self.config),
            drain: drain.clone(),
        };
        let message_max = self.config.batch_max.as_usize() + MESSAGE_SLACK;
        Dispatch {
            keys: self.deps.keys.clone(),
            events: EventServiceServer::new(events)
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(message_max),
            services: self.services().add_service(health),
            cloud_events: CloudEvents::new(&self.config, ingest),
            room: Room {
                calls: Arc::new(Semaphore::new(self.config.calls_max)),
                streams: Arc::new(Semaphore::new(self.config.streams_max)),
            },
            call_timeout: self.config.call_timeout.0,
            instruments,
        }
    }

    /// Every service but EventService and health.
    fn services(&self) -> Routes {
        let management = Arc::new(Management {
            log: self.deps.log.clone(),
            stores: self.deps.stores.clone(),
            follower: self.deps.follower.clone(),
            egress: self.deps.egress.clone(),
            config: self.management.clone(),
            clock: self.deps.clock.clone(),
        });
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(fanfare_proto::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        Routes::new(EndpointServiceServer::new(Endpoints::new(
            management.clone(),
        )))
        .add_service(SubscriptionServiceServer::new(Subscriptions::new(
            management.clone(),
        )))
        .add_service(DeliveryServiceServer::new(Deliveries::new(management)))
        .add_service(
            reflection()
                .build_v1()
                .expect("descriptors that this build made"),
        )
        .add_service(
            reflection()
                .build_v1alpha()
                .expect("descriptors that this build made"),
        )
        .prepare()
    }
}

async fn report_health(health: &HealthReporter, status: ServingStatus) {
    for service in [
        "",
        event_service_server::SERVICE_NAME,
        endpoint_service_server::SERVICE_NAME,
        subscription_service_server::SERVICE_NAME,
        delivery_service_server::SERVICE_NAME,
    ] {
        health.set_service_status(service, status).await;
    }
}
