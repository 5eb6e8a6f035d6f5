//! `fanfare status`: whether the server is well, and what is open, at a glance.

use clap::Args;
use fanfare_proto::v1;
use serde::Serialize;

use crate::args::ConnectionArgs;
use crate::connect::Server;
use crate::failure::Failure;
use crate::output::value::time;
use crate::output::{Format, Sheet};

/// Counting stops here: a glance, not an audit.
const COUNT_MAX: usize = 1000;
/// Whatever the endpoint.
const ANY: &str = "";

/// `fanfare status`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare status
  fanfare status --server http://fanfare.internal:7400 -o json")]
pub struct StatusArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// What a glance shows; counts end at 1,000. Pending are those of the newest events: older ones are
/// retrying, parked or settled unless the workers are far behind, and then the newest are pending, too.
#[derive(Serialize)]
struct StatusSheet {
    server: String,
    tenant: String,
    endpoints: usize,
    endpoints_not_active: usize,
    subscriptions: usize,
    pending: usize,
    retrying: usize,
    parked: usize,
    dead_letters: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_event_time: Option<String>,
}

impl Sheet for StatusSheet {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let not_active = match self.endpoints_not_active {
            0 => String::new(),
            n => format!(", {n} of them paused or disabled"),
        };
        let last = self.last_event_time.clone();
        vec![
            ("server", format!("{} answers", self.server)),
            ("tenant", self.tenant.clone()),
            (
                "endpoints",
                format!("{}{not_active}", count(self.endpoints)),
            ),
            ("subscriptions", count(self.subscriptions)),
            ("pending", count(self.pending)),
            ("retrying", count(self.retrying)),
            ("parked", count(self.parked)),
            ("dead letters", count(self.dead_letters)),
            ("last event", last.unwrap_or_else(|| "none yet".to_owned())),
        ]
    }
}

/// Asks and prints.
pub async fn run(args: &StatusArgs, format: Format) -> Result<(), Failure> {
    let server = &Server::connect(&args.connection).await?;
    let failed = |s: tonic::Status| server.failed(&s);
    let request = v1::ListEndpointsRequest {
        page_size: 1000,
        ..v1::ListEndpointsRequest::default()
    };
    let endpoints = server
        .endpoints()
        .list_endpoints(request)
        .await
        .map_err(failed)?;
    let endpoints = endpoints.into_inner().endpoints;
    let request = v1::ListSubscriptionsRequest {
        page_size: 1000,
        ..v1::ListSubscriptionsRequest::default()
    };
    let subscriptions = server.subscriptions().list_subscriptions(request).await;
    let request = v1::ListEventsRequest {
        page_size: 1,
        ..v1::ListEventsRequest::default()
    };
    let events = server
        .events()
        .list_events(request)
        .await
        .map_err(failed)?
        .into_inner();
    let (mut retrying, mut parked) = (0, 0);
    for endpoint in &endpoints {
        retrying += in_state(server, &endpoint.id, v1::DeliveryState::Retrying).await?;
        parked += in_state(server, &endpoint.id, v1::DeliveryState::Parked).await?;
    }
    let active = v1::EndpointState::Active;
    let last = events.events.first().and_then(|e| e.accept_time);
    format.sheet(&StatusSheet {
        server: server.address.clone(),
        tenant: args
            .connection
            .tenant
            .clone()
            .unwrap_or_else(|| "default".to_owned()),
        endpoints_not_active: endpoints.iter().filter(|e| e.state() != active).count(),
        endpoints: endpoints.len(),
        subscriptions: subscriptions
            .map_err(failed)?
            .into_inner()
            .subscriptions
            .len(),
        pending: in_state(server, ANY, v1::DeliveryState::Pending).await?,
        retrying: retrying.min(COUNT_MAX),
        parked: parked.min(COUNT_MAX),
        dead_letters: in_state(server, ANY, v1::DeliveryState::DeadLetter).await?,
        last_event_time: time(last.as_ref()),
    })?;
    Ok(())
}

/// How many deliveries to `endpoint` are in `state`. What is retrying or parked is asked for by
/// endpoint: over all endpoints the first page shows that of the newest events only.
async fn in_state(
    server: &Server,
    endpoint: &str,
    state: v1::DeliveryState,
) -> Result<usize, Failure> {
    let request = v1::ListDeliveriesRequest {
        page_size: 1000,
        endpoint_id: endpoint.to_owned(),
        states: vec![state.into()],
        ..v1::ListDeliveriesRequest::default()
    };
    let response = server.deliveries().list_deliveries(request).await;
    let page = response.map_err(|s| server.failed(&s))?.into_inner();
    Ok(page.deliveries.len())
}

fn count(n: usize) -> String {
    if n >= COUNT_MAX {
        return "1000 or more".to_owned();
    }
    n.to_string()
}
