//! The whole front door on a real socket over memory backends, and what a management test asks of
//! it through the generated clients.

use std::sync::Arc;

use fanfare_domain::{TenantId, Timestamp};
use fanfare_event_log::memory::{MemoryConfig, MemoryLog};
use fanfare_event_log::{EventLog as _, Group, ReadLimit, Record, Stream, Visibility};
use fanfare_proto::v1;
use fanfare_proto::v1::delivery_service_client::DeliveryServiceClient;
use fanfare_proto::v1::endpoint_service_client::EndpointServiceClient;
use fanfare_proto::v1::subscription_service_client::SubscriptionServiceClient;
use fanfare_service::Clock;
use fanfare_service::egress::EgressPolicy;
use fanfare_store::memory::MemoryStores;
use fanfare_store::{Follower, Stores};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use super::access::KeyRing;
use super::{FrontConfig, FrontDeps, FrontDoor, ManagementConfig};

/// The moment at which the served clock stands.
pub(super) const NOW: Timestamp = Timestamp::from_millis(1_790_000_100_000);

/// A front door that is open.
pub(super) struct Served {
    pub(super) log: MemoryLog,
    pub(super) memory: MemoryStores,
    pub(super) stores: Stores,
    pub(super) follower: Arc<Follower>,
    pub(super) clock: Clock,
    channel: Channel,
    _drain: DropGuard,
}

/// Puts the tenant into each call.
#[derive(Clone)]
pub(super) struct AsTenant(&'static str);

type Calls = InterceptedService<Channel, AsTenant>;

/// Opens a front door; `acme` may have three endpoints of three subscriptions each.
pub(super) async fn serve() -> Served {
    let log = MemoryLog::new(MemoryConfig {
        spans: 2,
        ..MemoryConfig::default()
    });
    let memory = MemoryStores::new();
    let (stores, clock) = (memory.stores(), Clock::manual(NOW));
    let follower = Follower::start(stores.config.clone(), Vec::new())
        .await
        .unwrap();
    let deps = FrontDeps {
        log: Arc::new(log.clone()),
        stores: stores.clone(),
        follower: follower.clone(),
        keys: KeyRing::open(),
        egress: Arc::new(EgressPolicy::default()),
        clock: clock.clone(),
        meter: opentelemetry::global::meter("test"),
    };
    let quotas = ManagementConfig {
        endpoints_per_tenant_max: 3,
        subscriptions_per_endpoint_max: 3,
    };
    let door = FrontDoor::new(FrontConfig::default(), quotas, deps);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let drain = CancellationToken::new();
    tokio::spawn(door.serve(listener, drain.clone()));
    let channel = Channel::from_shared(address)
        .unwrap()
        .connect()
        .await
        .unwrap();
    Served {
        log,
        memory,
        stores,
        follower,
        clock,
        channel,
        _drain: drain.drop_guard(),
    }
}

impl Served {
    /// EndpointService as `acme`.
    pub(super) fn endpoints(&self) -> EndpointServiceClient<Calls> {
        self.endpoints_of("acme")
    }

    pub(super) fn endpoints_of(&self, tenant: &'static str) -> EndpointServiceClient<Calls> {
        EndpointServiceClient::with_interceptor(self.channel.clone(), AsTenant(tenant))
    }

    pub(super) fn subscriptions(&self) -> SubscriptionServiceClient<Calls> {
        self.subscriptions_of("acme")
    }

    pub(super) fn subscriptions_of(
        &self,
        tenant: &'static str,
    ) -> SubscriptionServiceClient<Calls> {
        SubscriptionServiceClient::with_interceptor(self.channel.clone(), AsTenant(tenant))
    }

    pub(super) fn deliveries(&self) -> DeliveryServiceClient<Calls> {
        self.deliveries_of("acme")
    }

    pub(super) fn deliveries_of(&self, tenant: &'static str) -> DeliveryServiceClient<Calls> {
        DeliveryServiceClient::with_interceptor(self.channel.clone(), AsTenant(tenant))
    }

    /// Creates an endpoint of `acme` that wants `patterns`.
    pub(super) async fn endpoint(&self, patterns: &[&str]) -> v1::CreateEndpointResponse {
        let request = create(patterns);
        self.endpoints()
            .create_endpoint(request)
            .await
            .unwrap()
            .into_inner()
    }

    /// Every record of the deliveries stream.
    pub(super) async fn records(&self) -> Vec<Record> {
        let group = Group::new("check");
        let joining = self
            .log
            .join(Stream::Deliveries, &group, Visibility::Durable);
        let mut reader = joining.await.unwrap();
        let (mut records, mut held) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            held.push(reader.next().await.unwrap());
        }
        for granted in &mut held {
            let limit = ReadLimit {
                records: usize::MAX,
                bytes: usize::MAX,
            };
            // What is durable is there at the first look.
            if let Some(read) = futures::FutureExt::now_or_never(granted.records.read(limit)) {
                let read = read.unwrap();
                records.extend(
                    read.iter()
                        .map(|entry| Record::decode(&entry.bytes).unwrap()),
                );
            }
        }
        records
    }
}

impl tonic::service::Interceptor for AsTenant {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert("fanfare-tenant", MetadataValue::from_static(self.0));
        Ok(request)
    }
}

/// A request for an endpoint that wants `patterns`.
pub(super) fn create(patterns: &[&str]) -> v1::CreateEndpointRequest {
    v1::CreateEndpointRequest {
        endpoint: Some(v1::Endpoint {
            url: "https://shop.example.com/hook".into(),
            ..v1::Endpoint::default()
        }),
        event_types: patterns.iter().map(|p| (*p).to_owned()).collect(),
        request_id: String::new(),
    }
}

/// Code and reason of a refusal.
pub(super) fn refused<T: std::fmt::Debug>(
    answer: Result<tonic::Response<T>, Status>,
) -> (Code, String) {
    let status = answer.expect_err("it should be refused");
    let reason = status
        .get_error_details()
        .error_info()
        .map(|info| info.reason.clone());
    (status.code(), reason.unwrap_or_default())
}

/// The field that a refusal names.
pub(super) fn refused_field<T: std::fmt::Debug>(
    answer: Result<tonic::Response<T>, Status>,
) -> (String, String) {
    let status = answer.expect_err("it should be refused");
    let details = status.get_error_details();
    let violations = details.bad_request().map(|b| b.field_violations.clone());
    let field = violations.and_then(|v| v.first().map(|v| v.field.clone()));
    let reason = details.error_info().map(|info| info.reason.clone());
    (reason.unwrap_or_default(), field.unwrap_or_default())
}

pub(super) fn acme() -> TenantId {
    TenantId::try_new("acme").unwrap()
}
