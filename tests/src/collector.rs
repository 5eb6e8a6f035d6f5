//! An OpenTelemetry collector that keeps what it gets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::task::JoinSet;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::eventually;

/// A listening collector; dropping it closes it.
pub struct Collector {
    address: SocketAddr,
    kept: Kept,
    // Owns the serving task.
    _tasks: JoinSet<()>,
}

/// What came.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Batch>>);

#[derive(Default)]
struct Batch {
    services: Vec<String>,
    spans: Vec<Span>,
}

impl Collector {
    /// Listens on a free port of loopback.
    #[allow(clippy::unused_async)] // needs the runtime that it is called in
    pub async fn start() -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let incoming = TcpIncoming::bind(free).expect("a free port");
        let address = incoming.local_addr().expect("a bound socket's address");
        let kept = Kept::default();
        let serving = Server::builder()
            .add_service(TraceServiceServer::new(kept.clone()))
            .serve_with_incoming(incoming);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { serving.await.expect("it serves") });
        Self {
            address,
            kept,
            _tasks: tasks,
        }
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every span so far, in the order of their starts.
    pub fn spans(&self) -> Vec<Span> {
        let mut spans = self.kept.0.lock().unwrap().spans.clone();
        spans.sort_by_key(|span| span.start_time_unix_nano);
        spans
    }

    /// The names of the services that sent something.
    pub fn services(&self) -> Vec<String> {
        self.kept.0.lock().unwrap().services.clone()
    }

    /// Waits until `count` spans came.
    pub async fn receives(&self, count: usize) -> Vec<Span> {
        eventually("spans", async || {
            let spans = self.spans();
            if spans.len() >= count {
                ControlFlow::Break(spans)
            } else {
                let names: Vec<_> = spans.iter().map(|span| &span.name).collect();
                ControlFlow::Continue(format!("{names:?}"))
            }
        })
        .await
    }
}

/// Attributes as text, by name.
pub fn attributes(span: &Span) -> BTreeMap<String, String> {
    let pair = |pair: &KeyValue| (pair.key.clone(), text(pair));
    span.attributes.iter().map(pair).collect()
}

fn text(pair: &KeyValue) -> String {
    match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

#[async_trait::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut batch = self.0.lock().unwrap();
        for resource in request.into_inner().resource_spans {
            let about = resource.resource.unwrap_or_default().attributes;
            let name = about.iter().find(|pair| pair.key == "service.name");
            batch.services.extend(name.map(text));
            for scope in resource.scope_spans {
                batch.spans.extend(scope.spans);
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
