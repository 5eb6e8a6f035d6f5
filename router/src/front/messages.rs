//! From values to messages of the gRPC surface, and back where it is not a matter of validation.

use std::time::Duration;

use fanfare_domain::{
    Blame, DeadLetterReason, DeliveryState, Endpoint, EndpointState, Envelope, Invalid, Outcome,
    OutcomeKind, ParkedReason, Reason, Subscription, Timestamp,
};
use fanfare_proto::v1;
use fanfare_store::AttemptRow;

use crate::inquiry::Delivery;

/// A point in time.
pub(super) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.seconds(),
        nanos: i32::try_from(at.micros().rem_euclid(1_000_000) * 1000).unwrap_or(0),
    }
}

/// A point in time as a caller names one; out of range saturates.
pub(super) fn time_of(at: &prost_types::Timestamp) -> Timestamp {
    let micros = at.seconds.saturating_mul(1_000_000);
    Timestamp::from_micros(micros.saturating_add(i64::from(at.nanos) / 1000))
}

/// A length of time; saturates.
pub(super) fn duration(length: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(length).unwrap_or(prost_types::Duration {
        seconds: i64::MAX,
        nanos: 0,
    })
}

/// A length of time as a caller names one.
pub(super) fn duration_of(
    field: &str,
    reason: Reason,
    length: prost_types::Duration,
) -> Result<Duration, Invalid> {
    Duration::try_from(length)
        .map_err(|_| Invalid::new(reason, field, "must not be negative or out of range"))
}

/// An endpoint without its secret and its headers' values.
pub(super) fn endpoint(endpoint: &Endpoint) -> v1::Endpoint {
    let schedule = endpoint.retry_schedule.as_ref();
    v1::Endpoint {
        id: endpoint.id.to_string(),
        name: endpoint.name.clone(),
        url: endpoint.url.clone(),
        state: endpoint_state(endpoint.state).into(),
        state_reason: endpoint.state_reason.clone(),
        secret: String::new(),
        headers: endpoint
            .headers
            .keys()
            .map(|name| (name.clone(), String::new()))
            .collect(),
        labels: endpoint.labels.clone(),
        retry_schedule: schedule.map(|schedule| v1::RetrySchedule {
            delays: schedule.steps().iter().copied().map(duration).collect(),
        }),
        timeout: Some(duration(endpoint.timeout)),
        envelope: match endpoint.envelope {
            Envelope::Binary => v1::Envelope::Binary,
            Envelope::Structured => v1::Envelope::Structured,
        }
        .into(),
        create_time: Some(timestamp(endpoint.create_time)),
        update_time: Some(timestamp(endpoint.update_time)),
        etag: etag(endpoint.version),
    }
}

/// An endpoint with its secret: the answer to Create and Rotate, and to nothing else.
pub(super) fn endpoint_with_secret(shown: &Endpoint) -> v1::Endpoint {
    v1::Endpoint {
        secret: shown.secret.reveal(),
        ..endpoint(shown)
    }
}

/// A subscription; `live` when every router matches by this version.
pub(super) fn subscription(subscription: &Subscription, live: bool) -> v1::Subscription {
    let patterns = subscription.event_types.iter();
    v1::Subscription {
        id: subscription.id.to_string(),
        endpoint_id: subscription.endpoint.to_string(),
        event_types: patterns.map(|p| p.as_str().to_owned()).collect(),
        live,
        filter: None,
        ordered: false,
        create_time: Some(timestamp(subscription.create_time)),
        update_time: Some(timestamp(subscription.update_time)),
        etag: etag(subscription.version),
    }
}

/// The etag of a version.
pub(super) fn etag(version: u64) -> String {
    format!("{version:x}")
}

/// A delivery without its attempts.
pub(super) fn delivery(delivery: &Delivery) -> v1::Delivery {
    let standing = &delivery.standing;
    v1::Delivery {
        id: delivery.id.to_string(),
        event_id: delivery.event.id.as_str().to_owned(),
        event_source: delivery.event.source.as_str().to_owned(),
        event_type: delivery
            .event_type
            .as_ref()
            .map_or_else(String::new, |event_type| event_type.as_str().to_owned()),
        endpoint_id: delivery.id.endpoint().to_string(),
        subscription_id: delivery.subscription.to_string(),
        generation: delivery.generation,
        state: delivery_state(standing.state).into(),
        dead_letter_reason: standing
            .dead_letter_reason
            .map_or(v1::DeadLetterReason::Unspecified, dead_letter_reason)
            .into(),
        parked_reason: standing
            .parked_reason
            .map_or(v1::ParkedReason::Unspecified, parked_reason)
            .into(),
        attempt_count: standing.attempts,
        next_attempt_time: standing.next_attempt.map(timestamp),
        create_time: Some(timestamp(delivery.id.published())),
        settle_time: standing.settled.map(timestamp),
        last_outcome: standing.last_outcome.as_ref().map(|last| {
            let will_retry = standing.state == DeliveryState::Retrying;
            outcome(last, will_retry)
        }),
        attempts: Vec::new(),
    }
}

/// One attempt.
pub(super) fn attempt(row: &AttemptRow) -> v1::Attempt {
    v1::Attempt {
        number: row.number,
        start_time: Some(timestamp(row.start)),
        latency: Some(duration(row.latency)),
        outcome: Some(outcome(&row.outcome, row.next_attempt.is_some())),
        response_body: row.answer.clone(),
        response_truncated: row.answer_truncated,
    }
}

fn outcome(outcome: &Outcome, will_retry: bool) -> v1::Outcome {
    v1::Outcome {
        kind: outcome_kind(outcome.kind).into(),
        blame: match outcome.blame() {
            None => v1::Blame::Unspecified,
            Some(Blame::Endpoint) => v1::Blame::Endpoint,
            Some(Blame::Policy) => v1::Blame::Policy,
            Some(Blame::Us) => v1::Blame::Us,
        }
        .into(),
        http_status: outcome.http_status.map(u32::from),
        message: outcome.message.clone(),
        will_retry,
    }
}

fn outcome_kind(kind: OutcomeKind) -> v1::OutcomeKind {
    match kind {
        OutcomeKind::Delivered => v1::OutcomeKind::Delivered,
        OutcomeKind::HttpStatus => v1::OutcomeKind::HttpStatus,
        OutcomeKind::Timeout => v1::OutcomeKind::Timeout,
        OutcomeKind::Dns => v1::OutcomeKind::Dns,
        OutcomeKind::Connect => v1::OutcomeKind::Connect,
        OutcomeKind::Tls => v1::OutcomeKind::Tls,
        OutcomeKind::BadResponse => v1::OutcomeKind::BadResponse,
        OutcomeKind::EgressDenied => v1::OutcomeKind::EgressDenied,
        OutcomeKind::Internal => v1::OutcomeKind::Internal,
    }
}

fn endpoint_state(state: EndpointState) -> v1::EndpointState {
    match state {
        EndpointState::Active => v1::EndpointState::Active,
        EndpointState::Paused => v1::EndpointState::Paused,
        EndpointState::Disabled => v1::EndpointState::Disabled,
    }
}

fn delivery_state(state: DeliveryState) -> v1::DeliveryState {
    match state {
        DeliveryState::Pending => v1::DeliveryState::Pending,
        DeliveryState::Retrying => v1::DeliveryState::Retrying,
        DeliveryState::Parked => v1::DeliveryState::Parked,
        DeliveryState::Delivered => v1::DeliveryState::Delivered,
        DeliveryState::DeadLetter => v1::DeliveryState::DeadLetter,
    }
}

/// The state that a caller named; `None` for one that this version does not know.
pub(super) fn delivery_state_of(state: i32) -> Option<DeliveryState> {
    match v1::DeliveryState::try_from(state).ok()? {
        v1::DeliveryState::Unspecified => None,
        v1::DeliveryState::Pending => Some(DeliveryState::Pending),
        v1::DeliveryState::Retrying => Some(DeliveryState::Retrying),
        v1::DeliveryState::Parked => Some(DeliveryState::Parked),
        v1::DeliveryState::Delivered => Some(DeliveryState::Delivered),
        v1::DeliveryState::DeadLetter => Some(DeliveryState::DeadLetter),
    }
}

fn dead_letter_reason(reason: DeadLetterReason) -> v1::DeadLetterReason {
    match reason {
        DeadLetterReason::AttemptsExhausted => v1::DeadLetterReason::AttemptsExhausted,
        DeadLetterReason::Gone => v1::DeadLetterReason::Gone,
        DeadLetterReason::EndpointDisabled => v1::DeadLetterReason::EndpointDisabled,
        DeadLetterReason::EndpointDeleted => v1::DeadLetterReason::EndpointDeleted,
        DeadLetterReason::SubscriptionDeleted => v1::DeadLetterReason::SubscriptionDeleted,
        DeadLetterReason::EgressDenied => v1::DeadLetterReason::EgressDenied,
        DeadLetterReason::Expired => v1::DeadLetterReason::Expired,
    }
}

fn parked_reason(reason: ParkedReason) -> v1::ParkedReason {
    match reason {
        ParkedReason::Paused => v1::ParkedReason::Paused,
        ParkedReason::Unhealthy => v1::ParkedReason::Unhealthy,
        ParkedReason::OverRate => v1::ParkedReason::OverRate,
        ParkedReason::LaneFull => v1::ParkedReason::LaneFull,
    }
}
