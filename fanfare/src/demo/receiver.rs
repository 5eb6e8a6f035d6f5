//! The demo's subscriber: a plain HTTP server that verifies each signature with the official
//! Standard Webhooks library, compares the bytes with what was published, answers as its endpoint
//! is meant to, and writes each POST down before it answers.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use fanfare_proto::v1;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use standardwebhooks::Webhook;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Place;
use super::endpoints::{Behaviour, CAST, Known, KnownEndpoint, Role};
use super::journal::{Journal, Receipt};
use super::screen::{Post, Screen};
use crate::connect::Server;
use crate::failure::Failure;

/// Most bytes of a body.
const BODY_MAX: usize = 2 * 1024 * 1024;
/// How long to look for the dead letter of a 410.
const DEAD_LETTER_WAIT: Duration = Duration::from_secs(5);

/// Bound, not serving yet.
pub(super) struct Receiver {
    listener: TcpListener,
    port: u16,
    base: String,
}

/// Serving.
pub(super) struct Serving {
    port: u16,
    base: String,
    desk: Arc<Desk>,
}

/// What every request is handled with.
struct Desk {
    secrets: RwLock<HashMap<String, Webhook>>,
    journal: Arc<Journal>,
    server: Server,
    screen: Arc<Screen>,
}

impl Receiver {
    /// Where the place says; on loopback on the port of the run before, or on another.
    pub(super) async fn bind(place: &Place, port_before: u16) -> Result<Self, Failure> {
        let bound = match place.listen {
            Some(addr) => TcpListener::bind(addr).await,
            None => match TcpListener::bind(("127.0.0.1", port_before)).await {
                Ok(listener) => Ok(listener),
                Err(_) => TcpListener::bind(("127.0.0.1", 0)).await,
            },
        };
        let cannot = |e| Failure::refused("DEMO", format!("the receiver cannot listen: {e}"));
        let listener = bound.map_err(cannot)?;
        let addr = listener.local_addr().map_err(cannot)?;
        let base = place.url.as_deref().map(|url| url.trim_end_matches('/'));
        Ok(Self {
            base: base.map_or_else(|| format!("http://{addr}"), str::to_owned),
            port: addr.port(),
            listener,
        })
    }

    /// Answers until `stop`.
    pub(super) fn serve(
        self,
        known: &Known,
        journal: Arc<Journal>,
        server: Server,
        screen: Arc<Screen>,
        stop: CancellationToken,
    ) -> Serving {
        let desk = Arc::new(Desk {
            secrets: RwLock::default(),
            journal,
            server,
            screen,
        });
        let serving = Serving {
            port: self.port,
            base: self.base,
            desk: desk.clone(),
        };
        serving.knows(&known.endpoints);
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = accept(self.listener, desk) => {}
            }
        });
        serving
    }
}

impl Serving {
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Where an endpoint is called.
    pub(super) fn url(&self, name: &str) -> String {
        format!("{}/{name}", self.base)
    }

    /// Where it is called.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Learns the secrets of endpoints.
    pub(super) fn knows(&self, endpoints: &[KnownEndpoint]) {
        let verifier = |e: &KnownEndpoint| Some((e.name.clone(), Webhook::new(&e.secret).ok()?));
        let secrets = endpoints.iter().filter_map(verifier).collect();
        if let Ok(mut known) = self.desk.secrets.write() {
            *known = secrets;
        }
    }
}

async fn accept(listener: TcpListener, desk: Arc<Desk>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let desk = desk.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let desk = desk.clone();
                async move { Ok::<_, Infallible>(desk.answer(request).await) }
            });
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new());
            // A connection that breaks is the sender's to tell.
            let _ = builder
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

impl Desk {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let name = request.uri().path().trim_start_matches('/').to_owned();
        let Some(role) = CAST.iter().find(|role| role.name == name) else {
            return answered(404);
        };
        let (head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, BODY_MAX).collect().await else {
            return answered(400);
        };
        answered(self.judge(role, &head.headers, &body.to_bytes()))
    }

    /// Verifies, decides, writes down, tells; answers the status.
    fn judge(self: &Arc<Self>, role: &'static Role, headers: &HeaderMap, body: &[u8]) -> u16 {
        let header = |name: &str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (delivery, event) = (header("webhook-id"), header("ce-id"));
        let signature_ok = self.verifies(role.name, headers, body);
        let status = match role.behaviour {
            _ if !signature_ok => 401,
            Behaviour::FailsTwice if self.journal.tries(&delivery) < 2 => 503,
            Behaviour::FailsTwice | Behaviour::Healthy => 200,
            Behaviour::Gone => 410,
        };
        let published = self.journal.event(&event);
        let tries = self.journal.received(Receipt {
            delivery: delivery.clone(),
            event: event.clone(),
            endpoint: role.name.to_owned(),
            status,
            signature_ok,
        });
        let post = Post {
            endpoint: role.name,
            event_type: header("ce-type"),
            status,
            tries,
            signature_ok,
            bytes_identical: published
                .as_ref()
                .map(|event| event.data.as_bytes() == body),
            latency: published
                .as_ref()
                .and_then(|e| e.published.map(|at| at.elapsed())),
        };
        if published.is_none_or(|event| event.told) {
            self.tell(post, delivery);
        }
        status
    }

    fn verifies(&self, name: &str, headers: &HeaderMap, body: &[u8]) -> bool {
        let secrets = self.secrets.read();
        let secret = secrets.as_ref().ok().and_then(|secrets| secrets.get(name));
        secret.is_some_and(|webhook| webhook.verify(body, headers).is_ok())
    }

    /// A 410 is told once the server says what it made of it.
    fn tell(self: &Arc<Self>, post: Post, delivery: String) {
        if post.status != 410 {
            return self.screen.post(&post, None);
        }
        let desk = self.clone();
        tokio::spawn(async move {
            let fate = desk.dead_letter(delivery).await;
            desk.screen.post(&post, Some(&fate));
        });
    }

    /// What the server says of a delivery that was answered 410.
    async fn dead_letter(&self, id: String) -> String {
        let until = tokio::time::Instant::now() + DEAD_LETTER_WAIT;
        loop {
            let request = v1::GetDeliveryRequest { id: id.clone() };
            let response = self.server.deliveries().get_delivery(request).await;
            let delivery = response
                .ok()
                .and_then(|r| r.into_inner().delivery)
                .unwrap_or_default();
            if delivery.state() == v1::DeliveryState::DeadLetter {
                return "gone: endpoint disabled, kept as a dead letter".to_owned();
            }
            if tokio::time::Instant::now() >= until {
                return "gone; not yet a dead letter".to_owned();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn answered(status: u16) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    response
}
