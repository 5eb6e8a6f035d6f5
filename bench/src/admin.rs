//! What a program counts itself, from its admin address.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// Whether it says that it is ready.
pub(crate) async fn is_ready(admin: SocketAddr) -> Result<bool> {
    Ok(get(admin, "/readyz").await?.0.is_success())
}

/// The sum of a counter over its labels.
pub(crate) async fn counter(admin: SocketAddr, name: &str) -> Result<u64> {
    let (status, body) = get(admin, "/metrics").await?;
    ensure!(status.is_success(), "/metrics says {status}");
    let values: Vec<f64> = std::str::from_utf8(&body)?
        .lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with(['{', ' ']))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse().ok())
        .collect();
    ensure!(!values.is_empty(), "{admin} has no metric {name}");
    Ok(values.iter().sum::<f64>() as u64)
}

async fn get(admin: SocketAddr, path: &str) -> Result<(StatusCode, Bytes)> {
    let request = Request::get(format!("http://{admin}{path}")).body(Full::<Bytes>::default())?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}
