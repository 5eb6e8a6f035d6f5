//! Testing an endpoint: one signed POST now, never retried, whatever the endpoint's state.
//!
//! The test is a record in the log like any delivery, so it takes the same way out, through the
//! same guard, and its attempt is found in the history like any other.

use std::sync::Arc;
use std::time::Duration;

use fanfare_domain::{
    AcceptedEvent, Data, DeliveryId, DeliverySeed, Endpoint, Event, EventId, EventLimits,
    EventType, Place, Shard, Source, SubscriptionId, Target, TenantId, Timestamp,
};
use fanfare_event_log::record::INLINE_MAX;
use fanfare_event_log::{DeliveryRecord, Outgoing, Record, Stream};
use fanfare_proto::v1;
use fanfare_store::AttemptRow;
use tonic::Code;

use super::super::errors::Refusal;
use super::super::management::Management;
use super::super::messages;
use super::{found, parse_id};

/// How long beyond the endpoint's own deadline the attempt may take to show up.
const SLACK: Duration = Duration::from_secs(2);
/// Between two looks at the history.
const LOOK_INTERVAL: Duration = Duration::from_millis(25);
/// The source of test events.
const SOURCE: &str = "/fanfare/test";
/// No subscription asked for it.
const NOBODY: SubscriptionId = SubscriptionId(0);

/// Sends a test and waits for its attempt.
pub(super) async fn test(
    management: &Management,
    tenant: &TenantId,
    request: v1::TestEndpointRequest,
) -> Result<v1::TestEndpointResponse, Refusal> {
    let id = parse_id(&request.id)?;
    let catalog = management.follower.catalog();
    let endpoint = found(&catalog, tenant, id)?;
    let now = management.clock.now();
    let event = test_event(tenant, request.event.unwrap_or_default(), now)?;
    let delivery = delivery_id(&event, &endpoint);
    let record = DeliveryRecord {
        inline: true,
        place: Place::default(),
        route_time: now,
        config_head: catalog.head_of(tenant).0,
        generation: 0,
        targets: vec![Target {
            endpoint: endpoint.id,
            subscription: NOBODY,
        }],
        event: Arc::new(event),
    };
    let outgoing = Outgoing {
        shard: Shard::of_endpoint(endpoint.id),
        subject: record.event.event.event_type.subject().into(),
        bytes: Record::Test(record).encode(),
    };
    management
        .log
        .append(Stream::Deliveries, vec![outgoing])
        .await?;
    let patience = endpoint.timeout + SLACK;
    let attempt = tokio::time::timeout(patience, attempt_of(management, tenant, delivery)).await;
    let attempt = attempt.map_err(|_| no_attempt(patience))??;
    Ok(v1::TestEndpointResponse {
        delivery_id: delivery.to_string(),
        attempt: Some(messages::attempt(&attempt)),
    })
}

/// The event that a test sends.
fn test_event(
    tenant: &TenantId,
    given: v1::TestEvent,
    now: Timestamp,
) -> Result<AcceptedEvent, Refusal> {
    let event_type = match &*given.r#type {
        "" => "fanfare.test",
        given => given,
    };
    let (data, data_content_type) = match (given.data.is_empty(), &*given.data_content_type) {
        (true, "") => {
            let data = r#"{"message":"This is a test of this endpoint by Fanfare."}"#;
            (data.into(), "application/json".into())
        }
        (_, "") => (given.data, "application/json".into()),
        _ => (given.data, given.data_content_type),
    };
    let event = Event {
        id: EventId::try_new(format!("test-{:016x}", rand::random::<u64>()))?,
        source: Source::try_new(SOURCE)?,
        event_type: EventType::try_new(event_type)?,
        subject: None,
        time: Some(now),
        data_content_type,
        data_schema: None,
        data: Data::Bytes(data),
        ordering_key: None,
        extensions: std::collections::BTreeMap::new(),
    };
    event.check(&EventLimits {
        event_max_bytes: INLINE_MAX,
        ..EventLimits::default()
    })?;
    Ok(AcceptedEvent {
        tenant: tenant.clone(),
        body_hash: event.body_hash(),
        event,
        accept_time: now,
    })
}

fn delivery_id(event: &AcceptedEvent, endpoint: &Endpoint) -> DeliveryId {
    let names = &event.event;
    let seed = DeliverySeed::new(&event.tenant, &names.source, &names.id, &event.body_hash);
    seed.delivery(endpoint.id, NOBODY, event.accept_time, 0)
}

/// Looks at the history until the attempt is there.
async fn attempt_of(
    management: &Management,
    tenant: &TenantId,
    delivery: DeliveryId,
) -> Result<AttemptRow, Refusal> {
    loop {
        let attempts = management
            .stores
            .history
            .attempts(tenant, delivery, 1)
            .await;
        if let Some(attempt) = attempts?.into_iter().next() {
            return Ok(attempt);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn no_attempt(patience: Duration) -> Refusal {
    let what = format!(
        "the test was taken, but no attempt showed up within {} s; the delivery worker is behind \
         or not running",
        patience.as_secs()
    );
    Refusal::new(Code::DeadlineExceeded, "ATTEMPT_NOT_SEEN", what)
}
