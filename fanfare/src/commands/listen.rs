//! `fanfare listen`: events come to a laptop as signed webhooks, from any server, without an
//! endpoint and without leaving anything behind.
//!
//! It follows the server's live tail, signs with a secret of this session and POSTs as a worker
//! would. Live and best effort: nothing is retried, and what was skipped is said.

mod request;

use std::time::{Duration, Instant};

use clap::Args;
use fanfare_delivery_worker::sign::Signer;
use fanfare_domain::{EndpointId, Secret, Timestamp};
use fanfare_proto::v1;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use tokio::task::JoinSet;
use url::Url;

use crate::args::ConnectionArgs;
use crate::connect::Server;
use crate::failure::Failure;
use crate::output::{Format, Row};
use request::Session;

/// Deadline of one forwarded POST, as an endpoint's default.
const POST_WAIT: Duration = Duration::from_secs(15);
/// Most POSTs under way at once.
const POSTS_MAX: usize = 16;
/// Most bytes read of an answer.
const ANSWER_MAX: usize = 64 * 1024;

/// `fanfare listen`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare listen
  fanfare listen --event-type 'order.**' --forward-to http://localhost:3000/hook")]
pub struct ListenArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Only types that match this pattern; repeatable
    #[arg(long = "event-type", value_name = "PATTERN")]
    event_types: Vec<String>,
    /// Where to POST, by plain http; without it events are only shown
    #[arg(long, value_name = "URL", value_parser = target)]
    forward_to: Option<Url>,
}

/// What became of one event.
#[derive(Serialize)]
struct ForwardRow {
    event_id: String,
    event_type: String,
    webhook_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Row for ForwardRow {
    const COLUMNS: &'static [&'static str] = &["EVENT TYPE", "EVENT", "RESULT"];

    fn cells(&self) -> Vec<String> {
        let result = match (&self.error, self.http_status, self.latency_ms) {
            (Some(error), ..) => error.clone(),
            (None, Some(status), Some(ms)) => format!("{status} in {ms:.1} ms"),
            _ => String::new(),
        };
        vec![self.event_type.clone(), self.event_id.clone(), result]
    }
}

/// Follows and forwards until interrupted.
pub async fn run(args: ListenArgs, format: Format) -> Result<(), Failure> {
    let server = Server::connect(&args.connection).await?;
    let request = v1::TailEventsRequest {
        event_types: args.event_types,
    };
    let response = server.events().tail_events(request).await;
    let mut events = response.map_err(|s| server.failed(&s))?.into_inner();
    let secret = Secret::generate(&mut rand::rng());
    introduce(&secret, args.forward_to.as_ref(), format);
    let session = Session {
        endpoint: EndpointId(rand::random()),
        tenant: args
            .connection
            .tenant
            .unwrap_or_else(|| "default".to_owned()),
        signer: Signer::new(&secret),
    };
    let forward = Forward {
        session,
        target: args.forward_to,
        client: client(),
    };
    let mut posts = JoinSet::new();
    loop {
        tokio::select! {
            Some(row) = posts.join_next() => print(row, format)?,
            message = events.message(), if posts.len() < POSTS_MAX => {
                let message = message.map_err(|s| server.failed(&s))?;
                let Some(message) = message else {
                    return Err(Failure::unreachable(&server.address, "it ended the stream"));
                };
                if message.skipped > 0 {
                    format.note(&format!("({} events were skipped)", message.skipped));
                }
                for tailed in message.events {
                    if posts.len() >= POSTS_MAX
                        && let Some(row) = posts.join_next().await
                    {
                        print(row, format)?;
                    }
                    posts.spawn(forward.clone().event(tailed));
                }
            }
        }
    }
}

/// Where a session sends, and as whom.
#[derive(Clone)]
struct Forward {
    session: Session,
    target: Option<Url>,
    client: Client<HttpConnector, Full<bytes::Bytes>>,
}

impl Forward {
    async fn event(self, tailed: v1::TailedEvent) -> ForwardRow {
        let event = tailed.event.unwrap_or_default();
        let accepted = tailed
            .accept_time
            .as_ref()
            .map(crate::output::value::timestamp);
        let webhook_id = self
            .session
            .webhook_id(&event, accepted.unwrap_or_default());
        let mut row = ForwardRow {
            event_id: event.id.clone(),
            event_type: event.r#type.clone(),
            webhook_id,
            http_status: None,
            latency_ms: None,
            error: None,
        };
        let Some(target) = &self.target else {
            return row;
        };
        let started = Instant::now();
        let request = self
            .session
            .request(target, &row.webhook_id, event, Timestamp::now());
        let answered = match request {
            Ok(request) => tokio::time::timeout(POST_WAIT, self.post(request)).await,
            Err(error) => Ok(Err(error)),
        };
        match answered {
            Ok(Ok(status)) => row.http_status = Some(status),
            Ok(Err(error)) => row.error = Some(error),
            Err(_) => row.error = Some("no answer within 15 s".to_owned()),
        }
        row.latency_ms = Some(started.elapsed().as_secs_f64() * 1000.0);
        row
    }

    /// The status, once the body was read: as an attempt of a worker counts.
    async fn post(&self, request: http::Request<Full<bytes::Bytes>>) -> Result<u16, String> {
        let response = self.client.request(request).await;
        let response = response.map_err(|e| crate::connect::innermost(&e))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_MAX)
            .collect()
            .await;
        body.map_err(|e| format!("{status}, but its body did not come: {e}"))?;
        Ok(status)
    }
}

/// Says with what to verify; the secret is this session's and nobody else's.
fn introduce(secret: &Secret, target: Option<&Url>, format: Format) {
    let to = match target {
        Some(url) => format!("forwarding to {url}, signed"),
        None => "showing events; forward them with --forward-to URL, signed".to_owned(),
    };
    eprintln!("{to} with this session's secret: {}", secret.reveal());
    format.note("stop with Ctrl-C; nothing is left behind");
}

fn print(row: Result<ForwardRow, tokio::task::JoinError>, format: Format) -> Result<(), Failure> {
    let row = row.map_err(|e| Failure::refused("FORWARD", format!("forwarding failed: {e}")))?;
    Ok(format.next(&row)?)
}

fn client() -> Client<HttpConnector, Full<bytes::Bytes>> {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .build(HttpConnector::new())
}

fn target(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|e| format!("{e}"))?;
    if url.scheme() != "http" {
        return Err(
            "only plain http is forwarded to, as a program on this machine speaks it; write it like http://localhost:3000/hook"
                .to_owned(),
        );
    }
    Ok(url)
}
