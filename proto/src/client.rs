//! The client that backend services use: publishes without losing and without doubling.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use fanfare_proto::client::{Client, event};
//!
//! let client = Client::builder("http://127.0.0.1:7400").tenant("acme").connect().await?;
//! let id = client.publish(event("order.paid", r#"{"amount":1250}"#)).await?;
//! println!("durable: {id}");
//! # Ok(())
//! # }
//! ```
//!
//! An event gets its id before it is sent first, so every retry is a repeat that the server
//! recognises. What is worth retrying is retried with backoff, as long as the server's own advice
//! and the deadline allow. A [`PublishError`] says which of two things happened: the event was
//! *refused*, nothing of it exists; or its fate is *unknown*, publish the same event again.
//!
//! - [`Client::publish`] and [`Client::publish_batch`] are single calls.
//! - [`Client::publisher`] keeps a stream open and many events under way: the fast one.
//! - [`Client::endpoints`] and the like are the generated clients, with the same credential.

mod connect;
mod error;
mod publisher;
mod retry;

use bytes::Bytes;
use prost::Message as _;
use tokio::time::Instant;
use tonic::Status;
use uuid::Uuid;

use crate::v1;
use crate::v1::delivery_service_client::DeliveryServiceClient;
use crate::v1::endpoint_service_client::EndpointServiceClient;
use crate::v1::event_service_client::EventServiceClient;
use crate::v1::publish_result::Result as Published;
use crate::v1::subscription_service_client::SubscriptionServiceClient;

pub use connect::{Channelled, ClientBuilder, ConnectError, ConnectErrorKind, Identity};
pub use error::{EventId, PublishError, PublishErrorKind, is_unreachable, reason};
pub use publisher::{Publisher, Ticket};
pub use retry::RetryPolicy;
use retry::{Retries, Verdict};

/// Most events of one batch, and most encoded bytes, with room for the envelope.
const BATCH_EVENTS_MAX: usize = 1_000;
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024 - 64 * 1024;
/// Most bytes of one answer: a page of 1,000 deliveries fits well within.
const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// A connection to a server, for one tenant. Clones share it.
#[derive(Clone)]
pub struct Client {
    channel: Channelled,
    policy: RetryPolicy,
}

/// An event of `event_type` with JSON data and an id of its own; set further fields as needed.
pub fn event(event_type: impl Into<String>, data: impl Into<Bytes>) -> v1::Event {
    v1::Event {
        id: new_id(),
        r#type: event_type.into(),
        payload: Some(v1::event::Payload::Data(data.into())),
        ..v1::Event::default()
    }
}

impl Client {
    /// Begins to describe a connection to `server`, for example `http://127.0.0.1:7400`.
    pub fn builder(server: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(server.into())
    }

    /// Publishes one event; `Ok` means that it is durable. Retries until the policy's deadline.
    ///
    /// An event without an id gets one first; it is in the answer, whatever that is. Dropping the
    /// future leaves the event's fate unknown.
    pub async fn publish(&self, mut event: v1::Event) -> Result<EventId, PublishError> {
        let id = name(&mut event);
        let mut retries = Retries::new(&self.policy);
        loop {
            let request = self.request(v1::PublishRequest {
                event: Some(event.clone()),
            });
            match self.events().publish(request).await {
                Ok(_) => return Ok(id),
                Err(status) => match retries.after(&status, Instant::now()) {
                    Verdict::Again(pause) => tokio::time::sleep(pause).await,
                    Verdict::Over(kind) => return Err(PublishError::new(kind, event, status)),
                },
            }
        }
    }

    /// Publishes events, in as few calls as the limits allow; one result each, in their order.
    /// Not atomic. Only what is worth it is retried.
    pub async fn publish_batch(
        &self,
        mut events: Vec<v1::Event>,
    ) -> Vec<Result<EventId, PublishError>> {
        for event in &mut events {
            name(event);
        }
        let mut results = Vec::with_capacity(events.len());
        for part in parts(events) {
            results.extend(self.publish_part(part).await);
        }
        results
    }

    async fn publish_part(&self, events: Vec<v1::Event>) -> Vec<Result<EventId, PublishError>> {
        let mut results: Vec<_> = events.iter().map(|_| None).collect();
        let mut open: Vec<Attempted> = (0..)
            .zip(events)
            .map(|(index, event)| Attempted {
                index,
                event,
                retries: Retries::new(&self.policy),
            })
            .collect();
        while !open.is_empty() {
            let answers = self.call_batch(&open).await;
            let (mut again, mut pause) = (Vec::new(), std::time::Duration::ZERO);
            for (mut one, answer) in open.into_iter().zip(answers) {
                let status = match answer {
                    Ok(()) => {
                        results[one.index] = Some(Ok(EventId::of(&one.event)));
                        continue;
                    }
                    Err(status) => status,
                };
                match one.retries.after(&status, Instant::now()) {
                    Verdict::Again(after) => {
                        pause = pause.max(after);
                        again.push(one);
                    }
                    Verdict::Over(kind) => {
                        let error = PublishError::new(kind, one.event, status);
                        results[one.index] = Some(Err(error));
                    }
                }
            }
            if !again.is_empty() {
                tokio::time::sleep(pause).await;
            }
            open = again;
        }
        // Every event left the loop with a result.
        results.into_iter().flatten().collect()
    }

    /// One call; one answer per event, the same for all when the call failed.
    async fn call_batch(&self, open: &[Attempted]) -> Vec<Result<(), Status>> {
        let events = open.iter().map(|one| one.event.clone()).collect();
        let request = self.request(v1::PublishBatchRequest { events });
        match self.events().publish_batch(request).await {
            Ok(answer) => {
                let mut results = answer.into_inner().results.into_iter();
                open.iter().map(|_| outcome(results.next())).collect()
            }
            Err(status) => open.iter().map(|_| Err(status.clone())).collect(),
        }
    }

    /// Keeps a stream open and publishes through it, many events at a time.
    pub fn publisher(&self) -> Publisher {
        Publisher::start(self.clone())
    }

    /// The generated client of EventService.
    pub fn events(&self) -> EventServiceClient<Channelled> {
        EventServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_MAX)
    }

    /// The generated client of EndpointService.
    pub fn endpoints(&self) -> EndpointServiceClient<Channelled> {
        EndpointServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_MAX)
    }

    /// The generated client of SubscriptionService.
    pub fn subscriptions(&self) -> SubscriptionServiceClient<Channelled> {
        SubscriptionServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_MAX)
    }

    /// The generated client of DeliveryService.
    pub fn deliveries(&self) -> DeliveryServiceClient<Channelled> {
        DeliveryServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_MAX)
    }

    /// A request that carries the deadline of one try.
    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.policy.try_timeout);
        request
    }
}

/// An event of a batch, until it has a result.
struct Attempted {
    index: usize,
    event: v1::Event,
    retries: Retries,
}

/// Gives an event an id if it has none; its id.
fn name(event: &mut v1::Event) -> EventId {
    if event.id.is_empty() {
        event.id = new_id();
    }
    EventId::of(event)
}

/// UUIDv7: unique, and in the order of time.
fn new_id() -> String {
    Uuid::now_v7().to_string()
}

/// What a result says: accepted, or the status of the refusal.
fn outcome(result: Option<v1::PublishResult>) -> Result<(), Status> {
    match result.and_then(|result| result.result) {
        Some(Published::Accepted(_)) => Ok(()),
        Some(Published::Error(error)) => Err(error::status_of(&error)),
        None => Err(Status::unknown("the server gave no result for this event")),
    }
}

/// Cuts events into what one call takes.
fn parts(events: Vec<v1::Event>) -> Vec<Vec<v1::Event>> {
    let mut parts = Vec::new();
    let (mut part, mut bytes) = (Vec::new(), 0);
    for event in events {
        // Its own length and tag are a few bytes more.
        let size = event.encoded_len() + 8;
        let full = part.len() == BATCH_EVENTS_MAX || bytes + size > BATCH_BYTES_MAX;
        if full && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += size;
        part.push(event);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_into_calls_within_both_limits_and_keep_their_order() {
        let events = |count: usize, bytes: usize| -> Vec<v1::Event> {
            (0..count)
                .map(|_| event("a.b", vec![b'1'; bytes]))
                .collect()
        };
        let many = events(2_500, 10);
        let cut = parts(many.clone());
        assert_eq!(
            cut.iter().map(Vec::len).collect::<Vec<_>>(),
            [1_000, 1_000, 500]
        );
        assert_eq!(cut.concat(), many);
        for part in parts(events(40, 256 * 1024)) {
            let request = v1::PublishBatchRequest { events: part };
            assert!(request.encoded_len() <= BATCH_BYTES_MAX);
        }
        assert_eq!(parts(events(1, 8 * 1024 * 1024)).len(), 1);
        assert!(parts(Vec::new()).is_empty());
    }

    #[test]
    fn an_event_is_named_once() {
        let mut nameless = v1::Event::default();
        let id = name(&mut nameless);
        assert_eq!(name(&mut nameless), id);
    }
}
