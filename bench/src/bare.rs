//! The reference: a bare loop that POSTs the same bodies to the same sink with the HTTP client that
//! deliveries are made with (hyper-util's pooled client), in a process of its own.
//!
//! `bare URL CONNECTIONS SECONDS [PER_SECOND]`: without a pace, each connection sends the next as
//! soon as it has its answer; with one, requests start evenly.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::sink::Sink;
use crate::{child, process, publish};

/// What a bare loop did.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Bare {
    /// POSTs answered.
    pub(crate) posts: u64,
    /// CPU of the whole process meanwhile, in microseconds.
    pub(crate) cpu_micros: u64,
    /// How long it took, in microseconds.
    pub(crate) wall_micros: u64,
}

impl Bare {
    /// CPU per POST in microseconds.
    pub(crate) fn cpu_per_post(&self) -> f64 {
        self.cpu_micros as f64 / self.posts as f64
    }

    /// POSTs per second.
    pub(crate) fn rate(&self) -> f64 {
        self.posts as f64 * 1e6 / self.wall_micros as f64
    }
}

/// At 64 connections, as fast as they go.
pub(crate) async fn flat_out(sink: &Sink, seconds: u64) -> Result<Bare> {
    child::answer(&["bare", &sink.url("bare"), "64", &seconds.to_string()]).await
}

/// At a steady pace.
pub(crate) async fn paced(sink: &Sink, seconds: u64, per_second: u64) -> Result<Bare> {
    let (seconds, per_second) = (seconds.to_string(), per_second.to_string());
    child::answer(&["bare", &sink.url("bare"), "64", &seconds, &per_second]).await
}

#[derive(Clone)]
struct Target {
    url: hyper::Uri,
    body: Bytes,
}

type Http = Client<HttpConnector, Full<Bytes>>;

/// The process.
pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let url: hyper::Uri = arguments.next().context("URL")?.parse()?;
    let connections: usize = arguments.next().context("CONNECTIONS")?.parse()?;
    let seconds: u64 = arguments.next().context("SECONDS")?.parse()?;
    let per_second: Option<u64> = arguments.next().map(|n| n.parse()).transpose()?;
    let length = Duration::from_secs(seconds);
    let target = Target {
        url,
        // Made once: the loop is to be as cheap as it can be.
        body: publish::body(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let bare = runtime.block_on(async {
        let http = client(connections);
        // Connections are opened before anything counts.
        closed_loop(&http, &target, connections, Duration::from_millis(300)).await?;
        let (cpu, started) = (process::cpu(std::process::id())?, Instant::now());
        let posts = match per_second {
            None => closed_loop(&http, &target, connections, length).await?,
            Some(pace) => steady(&http, &target, pace, length).await?,
        };
        anyhow::Ok(Bare {
            posts,
            cpu_micros: process::cpu(std::process::id())? - cpu,
            wall_micros: micros(started.elapsed()),
        })
    })?;
    println!("{}", serde_json::to_string(&bare)?);
    Ok(())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn client(connections: usize) -> Http {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(connections)
        // One copy into one buffer is cheaper for bodies of this size than a gathering write.
        .http1_writev(false)
        .build(connector)
}

async fn closed_loop(
    http: &Http,
    target: &Target,
    connections: usize,
    length: Duration,
) -> Result<u64> {
    let end = Instant::now() + length;
    let mut loops = JoinSet::new();
    for _ in 0..connections {
        let (http, target) = (http.clone(), target.clone());
        loops.spawn(async move {
            let mut posts = 0;
            while Instant::now() < end {
                post(&http, &target).await?;
                posts += 1;
            }
            anyhow::Ok(posts)
        });
    }
    let mut posts = 0;
    while let Some(ended) = loops.join_next().await {
        posts += ended??;
    }
    Ok(posts)
}

async fn steady(http: &Http, target: &Target, pace: u64, length: Duration) -> Result<u64> {
    let mut pacer = publish::Pacer::new(pace);
    let end = Instant::now() + length;
    let mut posts = JoinSet::new();
    let mut answered = 0;
    while Instant::now() < end {
        for _ in 0..pacer.due().await {
            let (http, target) = (http.clone(), target.clone());
            posts.spawn(async move { post(&http, &target).await });
        }
        while let Some(ended) = posts.try_join_next() {
            ended??;
            answered += 1;
        }
    }
    while let Some(ended) = posts.join_next().await {
        ended??;
        answered += 1;
    }
    Ok(answered)
}

async fn post(http: &Http, target: &Target) -> Result<()> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(target.url.clone())
        .header("content-type", "application/json")
        .body(Full::new(target.body.clone()))?;
    let response = http.request(request).await?;
    ensure!(response.status().is_success(), "{}", response.status());
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}
