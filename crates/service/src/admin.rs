//! The admin address: `/livez`, `/readyz`, `/metrics`. No tenant's data, no credentials, no
//! writes; it listens on a port of its own so that it can be kept inside.

use std::io;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::health::{Health, Report};
use crate::telemetry::Metrics;

/// Answers probes and scrapes on `listener` until `stop`; probes are answered during the drain.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    metrics: Metrics,
    stop: CancellationToken,
) -> io::Result<()> {
    let probes = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(health);
    let router = probes.merge(
        Router::new()
            .route("/metrics", get(scrape))
            .with_state(metrics),
    );
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

async fn livez(State(health): State<Health>) -> impl IntoResponse {
    answer(health.liveness())
}

async fn readyz(State(health): State<Health>) -> impl IntoResponse {
    answer(health.readiness())
}

async fn scrape(State(metrics): State<Metrics>) -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, metrics.render())
}

fn answer(report: Report) -> impl IntoResponse {
    let status = if report.ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, report.text)
}
