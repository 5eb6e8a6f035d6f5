//! CloudEvents over HTTP: `POST /v1/events` in the structured, binary and batch modes of the
//! CloudEvents 1.0 HTTP binding.
//!
//! What arrives is turned into the same message that gRPC takes and goes through the same
//! [`Ingest`]. Data stays as it was sent, byte for byte: in structured mode that is the raw slice
//! of `data` in the body. One event is 202 with its id; a batch is 202 only if all of it was
//! accepted, otherwise the worst status, with a result per event; repeating the whole is safe.

mod binary;
mod json;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use fanfare_proto::v1;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tonic::Code;
use tonic::body::Body;

use super::caller::Caller;
use super::config::FrontConfig;
use super::errors::Refusal;
use super::ingest::{Accepted, Arrival, Ingest, Outcome, Refused};

/// What an envelope may be larger than the data in it.
const ENVELOPE_SLACK: usize = 64 * 1024;

/// Takes CloudEvents over HTTP.
pub(crate) struct CloudEvents {
    ingest: Arc<Ingest>,
    event_max_bytes: usize,
    batch_max_bytes: usize,
    batch_max_events: usize,
}

/// How a request carries its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Binary,
    Structured,
    Batch,
}

impl CloudEvents {
    pub(crate) fn new(config: &FrontConfig, ingest: Arc<Ingest>) -> Self {
        Self {
            ingest,
            event_max_bytes: config.event_max.as_usize(),
            batch_max_bytes: config.batch_max.as_usize(),
            batch_max_events: config.batch_max_events,
        }
    }

    /// Publishes what `request` carries for `caller`, and says what became of it.
    pub(crate) async fn post(
        &self,
        caller: &Caller,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        let (head, body) = request.into_parts();
        let mode = Mode::of(&head.headers)?;
        let body = self.read(mode, body).await?;
        match mode {
            Mode::Batch => self.post_batch(caller, &body).await,
            Mode::Structured => self.post_one(caller, json::event(&body)?).await,
            Mode::Binary => {
                let event = binary::event(&head.headers, body)?;
                self.post_one(caller, event).await
            }
        }
    }

    async fn post_one(&self, caller: &Caller, event: v1::Event) -> Result<Response<Body>, Refusal> {
        let arrival = self.ingest.check(caller, Some(event));
        let accepted = self.ingest.publish(arrival).await?;
        Ok(answer(StatusCode::ACCEPTED, &result(&accepted)))
    }

    async fn post_batch(&self, caller: &Caller, body: &Bytes) -> Result<Response<Body>, Refusal> {
        let events = json::batch(body, self.batch_max_events)?;
        let arrivals: Vec<Arrival> = events
            .into_iter()
            .map(|event| match event {
                Ok(event) => self.ingest.check(caller, Some(event)),
                Err(refusal) => Err(Refused::unordered(refusal)),
            })
            .collect();
        let outcomes = self.ingest.publish_all(arrivals).await;
        Ok(batch_answer(&outcomes))
    }

    async fn read(&self, mode: Mode, body: Incoming) -> Result<Bytes, Refusal> {
        let (reason, max) = match mode {
            Mode::Batch => ("BATCH_TOO_LARGE", self.batch_max_bytes),
            // As base64 or escaped text the data is up to twice as long.
            Mode::Structured => ("EVENT_TOO_LARGE", 2 * self.event_max_bytes + ENVELOPE_SLACK),
            Mode::Binary => ("EVENT_TOO_LARGE", self.event_max_bytes),
        };
        match Limited::new(body, max).collect().await {
            Ok(whole) => Ok(whole.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                let rule = format!("is more than the limit of {max} bytes; send less at once");
                Err(Refusal::field(reason, "body", rule))
            }
            Err(error) => {
                let rule = format!("could not be read ({error}); nothing was accepted");
                Err(Refusal::field("REQUEST_INVALID", "body", rule))
            }
        }
    }
}

impl Mode {
    fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        if let Some(coding) = headers.get(header::CONTENT_ENCODING)
            && coding.as_bytes() != b"identity"
        {
            return Err(not_supported("send it without a content-encoding"));
        }
        let kind = headers.get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let media = kind.split(';').next().unwrap_or_default().trim();
        match &*media.to_ascii_lowercase() {
            "application/cloudevents+json" => Ok(Self::Structured),
            "application/cloudevents-batch+json" => Ok(Self::Batch),
            other if other.starts_with("application/cloudevents") => {
                let what = "of the CloudEvents formats only JSON is taken: application/cloudevents+json \
                            or application/cloudevents-batch+json";
                Err(not_supported(what))
            }
            _ if headers.contains_key("ce-specversion") => Ok(Self::Binary),
            _ => {
                let what = "this is no CloudEvent: send ce-specversion, ce-id, ce-source and ce-type \
                            as headers, or content-type application/cloudevents+json";
                Err(Refusal::field("REQUEST_INVALID", "ce-specversion", what))
            }
        }
    }
}

fn not_supported(what: &str) -> Refusal {
    Refusal::new(Code::InvalidArgument, "MEDIA_TYPE_NOT_SUPPORTED", what)
}

/// The refusal of a required attribute that is missing.
fn missing(attribute: &str) -> Refusal {
    Refusal::field(
        "EVENT_FIELD_INVALID",
        format!("event.{attribute}"),
        "must be given",
    )
}

/// Sets one attribute of `event`; the ones with a field of their own go there, others are
/// extensions. `time` is RFC 3339.
fn set_attribute(event: &mut v1::Event, name: &str, value: String) -> Result<(), Refusal> {
    match name {
        "specversion" if value == "1.0" => {}
        "specversion" => {
            let rule = "must be 1.0, the version of CloudEvents taken here";
            return Err(Refusal::field(
                "EVENT_FIELD_INVALID",
                "event.specversion",
                rule,
            ));
        }
        "id" => event.id = value,
        "source" => event.source = value,
        "type" => event.r#type = value,
        "subject" => event.subject = Some(value),
        "datacontenttype" => event.data_content_type = value,
        "dataschema" => event.data_schema = Some(value),
        "partitionkey" => event.ordering_key = Some(value),
        "time" => {
            let time = fanfare_domain::Timestamp::parse_rfc3339(&value).ok_or_else(|| {
                let rule = "must be RFC 3339, for example 2026-01-02T03:04:05Z";
                Refusal::field("EVENT_FIELD_INVALID", "event.time", rule)
            })?;
            event.time = Some(super::wire::time_to(time));
        }
        other => {
            event.extensions.insert(other.to_owned(), value);
        }
    }
    Ok(())
}

/// What CloudEvents requires and gRPC fills in.
fn check_required(event: &v1::Event) -> Result<(), Refusal> {
    let required = [
        ("id", &event.id),
        ("source", &event.source),
        ("type", &event.r#type),
    ];
    match required.iter().find(|(_, value)| value.is_empty()) {
        Some((name, _)) => Err(missing(name)),
        None => Ok(()),
    }
}

fn result(accepted: &Accepted) -> Value {
    let mut result = json!({
        "id": accepted.id.as_str(),
        "source": accepted.source.as_str(),
        "accept_time": accepted.accept_time.to_string(),
        "duplicate": accepted.duplicate,
    });
    if let Some(note) = accepted.note {
        result["notes"] = json!([note]);
    }
    result
}

fn batch_answer(outcomes: &[Outcome]) -> Response<Body> {
    let results: Vec<Value> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(accepted) => result(accepted),
            Err(refusal) => json!({ "error": refusal.to_json() }),
        })
        .collect();
    let refusals = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    match refusals.max_by_key(|refusal| refusal.http_status()) {
        None => answer(StatusCode::ACCEPTED, &json!({ "results": results })),
        Some(worst) => worst.to_http_with(&json!({ "error": worst.to_json(), "results": results })),
    }
}

fn answer(status: StatusCode, body: &Value) -> Response<Body> {
    let mut answer = Response::new(Body::new(http_body_util::Full::from(body.to_string())));
    *answer.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer
}
