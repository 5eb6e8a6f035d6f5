//! One request, one answer: who asks, whether there is room, by when it must be answered, and who
//! answers it.
//!
//! ```text
//!   /fanfare.v1.…        access ─▶ room ─▶ deadline ─▶ its service
//!   /grpc.health…, /grpc.reflection…                   open to everyone, they hold no tenant data
//!   /v1/events           access ─▶ room ─▶ deadline ─▶ CloudEvents over HTTP
//!   anything else        404, or UNIMPLEMENTED to a gRPC client
//! ```
//!
//! Room is taken before anything is read or accepted, so refusing for overload is always safe to
//! repeat. A panic in a service is answered as INTERNAL and takes nothing else with it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfare_proto::v1::event_service_server::EventServiceServer;
use futures::FutureExt as _;
use http::{HeaderMap, Method, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::service::Routes;
use tonic::{Code, Status};

use super::access::KeyRing;
use super::cloud_events::CloudEvents;
use super::errors::Refusal;
use super::events::Events;
use super::instruments::Instruments;

/// Services of ours, by the start of their path.
const OURS: &str = "/fanfare.v1.";
const EVENTS: &str = "/fanfare.v1.EventService/";
/// Calls that stay open: they have room and no deadline of their own.
const STREAMS: [&str; 2] = [
    "/fanfare.v1.EventService/PublishStream",
    "/fanfare.v1.EventService/TailEvents",
];

/// Answers requests. Shared by all connections.
pub(crate) struct Dispatch {
    pub(crate) keys: KeyRing,
    /// The hot path goes to its service directly.
    pub(crate) events: EventServiceServer<Events>,
    /// Every other service.
    pub(crate) services: Routes,
    pub(crate) cloud_events: CloudEvents,
    pub(crate) room: Room,
    pub(crate) call_timeout: Duration,
    pub(crate) instruments: Instruments,
}

/// Room for calls, and for streams that stay open.
pub(crate) struct Room {
    pub(crate) calls: Arc<Semaphore>,
    pub(crate) streams: Arc<Semaphore>,
}

impl Dispatch {
    /// The answer to `request`. Never fails: what goes wrong is an answer too.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let speaks = Speaks::of(&request);
        let answered = AssertUnwindSafe(self.route(request)).catch_unwind().await;
        match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(refusal)) => speaks.refuse(&refusal),
            Err(_) => {
                tracing::error!("a call panicked; its message is on stderr");
                let what =
                    "the server failed on this call; if it published, repeat it with the same id";
                speaks.refuse(&Refusal::new(Code::Internal, "INTERNAL", what))
            }
        }
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let path = request.uri().path();
        if path.starts_with(OURS) {
            if STREAMS.contains(&path) {
                return self.open_stream(request).await;
            }
            return self.call(request).await;
        }
        if path == "/v1/events" {
            return self.post_events(request).await;
        }
        if path.starts_with("/grpc.") || is_grpc(request.headers()) {
            return Ok(self.pass(request).await);
        }
        let what = format!("there is nothing at {path}; events go to /v1/events");
        Err(Refusal::new(Code::NotFound, "NOT_FOUND", what))
    }

    /// One answer to one message.
    async fn call(&self, mut request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let _room = self.take(&self.room.calls, "call")?;
        let caller = self.keys.caller(request.headers())?;
        let deadline = deadline(request.headers(), self.call_timeout);
        request.extensions_mut().insert(caller);
        let answer = tokio::time::timeout(deadline, self.pass(request)).await;
        Ok(explained(answer.map_err(|_| too_late())?))
    }

    /// A call that stays open; its room is given back when its answers end.
    async fn open_stream(&self, mut request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let room = self.take(&self.room.streams, "stream")?;
        let caller = self.keys.caller(request.headers())?;
        request.extensions_mut().insert(caller);
        let answer = tokio::time::timeout(self.call_timeout, self.pass(request)).await;
        let answer = explained(answer.map_err(|_| too_late())?);
        Ok(answer.map(|body| Body::new(Roomed { body, _room: room })))
    }

    async fn post_events(&self, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        if request.method() != Method::POST {
            let what = "POST CloudEvents to /v1/events";
            return Err(Refusal::new(
                Code::Unimplemented,
                "METHOD_NOT_ALLOWED",
                what,
            ));
        }
        let _room = self.take(&self.room.calls, "call")?;
        let caller = self.keys.caller(request.headers())?;
        let answer = self.cloud_events.post(&caller, request);
        let answer = tokio::time::timeout(self.call_timeout, answer).await;
        answer.map_err(|_| too_late())?
    }

    async fn pass(&self, request: Request<Incoming>) -> Response<Body> {
        let answer = if request.uri().path().starts_with(EVENTS) {
            self.events.clone().call(request).await
        } else {
            self.services.clone().call(request).await
        };
        match answer {
            Ok(answer) => answer,
            Err(never) => match never {},
        }
    }

    fn take(
        &self,
        room: &Arc<Semaphore>,
        what: &'static str,
    ) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(room).try_acquire_owned().map_err(|_| {
            self.instruments.shed(what);
            Refusal::overloaded()
        })
    }
}

/// The language a refusal must be said in.
#[derive(Clone, Copy)]
enum Speaks {
    Grpc,
    Http,
}

impl Speaks {
    fn of(request: &Request<Incoming>) -> Self {
        if is_grpc(request.headers()) || request.uri().path().starts_with(OURS) {
            Self::Grpc
        } else {
            Self::Http
        }
    }

    fn refuse(self, refusal: &Refusal) -> Response<Body> {
        match self {
            Self::Grpc => Status::from(refusal.clone()).into_http(),
            Self::Http => refusal.to_http(),
        }
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(http::header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn too_late() -> Refusal {
    let what = "the deadline passed before there was an answer; a publish may have happened: \
                repeat it with the same id";
    Refusal::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", what)
        .retry_after(Duration::from_millis(100))
}

/// When the call must be answered: what the client asks for, capped.
fn deadline(headers: &HeaderMap, most: Duration) -> Duration {
    let asked = headers.get("grpc-timeout");
    let asked = asked.and_then(|value| grpc_timeout(value.to_str().ok()?));
    asked.map_or(most, |asked| asked.min(most))
}

/// `grpc-timeout`: at most 8 digits and a unit.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Gives the errors that tonic itself makes, when a message does not fit or does not parse, the
/// details that all errors have.
fn explained(answer: Response<Body>) -> Response<Body> {
    let Some(status) = answer.extensions().get::<Status>() else {
        return answer;
    };
    if !status.details().is_empty() {
        return answer;
    }
    let refusal = match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => Refusal::field(
            "BATCH_TOO_LARGE",
            "request",
            "is larger than a message may be; send fewer or smaller events at once",
        ),
        Code::Internal | Code::Unknown => {
            Refusal::field("REQUEST_INVALID", "request", status.message())
        }
        _ => return answer,
    };
    Status::from(refusal).into_http()
}

/// A body that holds its room until it has ended.
struct Roomed {
    body: Body,
    _room: OwnedSemaphorePermit,
}

impl HttpBody for Roomed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Status>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_honoured_and_capped() {
        let most = Duration::from_secs(30);
        for (text, want) in [
            ("5S", Duration::from_secs(5)),
            ("250m", Duration::from_millis(250)),
            ("99999999H", most),
            ("100000000S", most),
            ("", most),
            ("S", most),
            ("5x", most),
            ("5é", most),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(
                "grpc-timeout",
                http::HeaderValue::from_bytes(text.as_bytes()).unwrap(),
            );
            assert_eq!(deadline(&headers, most), want, "{text}");
        }
    }
}
