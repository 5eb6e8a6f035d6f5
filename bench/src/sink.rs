//! The receiver: a plain hyper server over kept-alive connections that answers 200 and counts.
//!
//! As a process it is told what to do on its standard input and answers on its standard output:
//! first its address, then `count N` whenever the count has changed (every 2 ms at most), and on
//! the line `latencies` the latencies since the last one, as JSON.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io::{BufRead, Write};
use std::process::Stdio;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdin};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use crate::child;
use crate::histogram::Histogram;

/// How every body starts; what follows is [`stamp`].
pub(crate) const BODY_START: &str = "{\"t\":\"";
/// Requests whose path begins like this are never answered, and not counted.
pub(crate) const HANG: &str = "hang";
const REPORT_EVERY: Duration = Duration::from_millis(2);

/// Sixteen digits of now, in microseconds.
pub(crate) fn stamp() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(0))
}

/// A sink in a process of its own.
pub(crate) struct Sink {
    child: Child,
    input: ChildStdin,
    address: String,
    count: watch::Receiver<u64>,
    latencies: mpsc::Receiver<Histogram>,
}

impl Sink {
    /// Starts one.
    pub(crate) async fn start() -> Result<Self> {
        let mut child = child::command(&["sink"])?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().context("piped")?;
        let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
        let address = lines.next_line().await?.context("the sink did not start")?;
        let (counts, count) = watch::channel(0);
        let (histograms, latencies) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(n) = line.strip_prefix("count ") {
                    counts.send_replace(n.parse().unwrap_or(0));
                } else if let Ok(histogram) = serde_json::from_str(&line) {
                    let _ = histograms.send(histogram).await;
                }
            }
        });
        Ok(Self {
            child,
            input,
            address,
            count,
            latencies,
        })
    }

    /// Its process; `None` once it has ended.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// A URL of it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// Requests so far.
    pub(crate) fn count(&self) -> u64 {
        *self.count.borrow()
    }

    /// Follows the count.
    pub(crate) fn counts(&self) -> watch::Receiver<u64> {
        self.count.clone()
    }

    /// Waits until it got `count` requests; fails when none comes for half a minute.
    pub(crate) async fn reaches(&self, count: u64) -> Result<()> {
        reaches(&mut self.counts(), count).await
    }

    /// Latencies since the last time this was asked.
    pub(crate) async fn latencies(&mut self) -> Result<Histogram> {
        self.input.write_all(b"latencies\n").await?;
        self.latencies.recv().await.context("the sink is gone")
    }
}

/// Waits until `counts` is at least `count`; fails when it stands still for half a minute.
pub(crate) async fn reaches(counts: &mut watch::Receiver<u64>, count: u64) -> Result<()> {
    loop {
        let now = *counts.borrow_and_update();
        if now >= count {
            return Ok(());
        }
        tokio::time::timeout(Duration::from_secs(30), counts.changed())
            .await
            .with_context(|| format!("deliveries stand still at {now} of {count}"))??;
    }
}

#[derive(Default)]
struct Seen {
    count: Cell<u64>,
    latencies: RefCell<Histogram>,
}

/// The process.
pub(crate) fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, serve())
}

async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let seen = Rc::new(Seen::default());
    let (asked, mut asks) = mpsc::channel(1);
    std::thread::spawn(move || {
        for _ in std::io::stdin().lock().lines() {
            let _ = asked.blocking_send(());
        }
        // Whoever started this is gone.
        std::process::exit(0);
    });
    let mut report = tokio::time::interval(REPORT_EVERY);
    let mut reported = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                tokio::task::spawn_local(connection(TokioIo::new(stream), seen.clone()));
            }
            _ = report.tick() => {
                let count = seen.count.get();
                if count != reported {
                    reported = count;
                    println!("count {count}");
                }
            }
            Some(()) = asks.recv() => {
                let latencies = seen.latencies.take();
                let mut out = std::io::stdout().lock();
                serde_json::to_writer(&mut out, &latencies)?;
                writeln!(out)?;
            }
        }
    }
}

async fn connection(io: TokioIo<tokio::net::TcpStream>, seen: Rc<Seen>) {
    let service = service_fn(move |request| answer(request, seen.clone()));
    // An error is a sender that went away.
    let _ = http1::Builder::new().serve_connection(io, service).await;
}

async fn answer(
    request: Request<Incoming>,
    seen: Rc<Seen>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    if request.uri().path()[1..].starts_with(HANG) {
        return std::future::pending().await;
    }
    let mut body = request.into_body();
    let mut first = None;
    while let Some(Ok(frame)) = body.frame().await {
        if let (None, Ok(data)) = (&first, frame.into_data()) {
            first = Some(data);
        }
    }
    seen.count.set(seen.count.get() + 1);
    if let Some(sent) = first.as_deref().and_then(stamp_of) {
        let took = stamp().saturating_sub(sent);
        seen.latencies.borrow_mut().add(Duration::from_micros(took));
    }
    Ok(Response::new(Empty::new()))
}

fn stamp_of(body: &[u8]) -> Option<u64> {
    let digits = body.strip_prefix(BODY_START.as_bytes())?.get(..16)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}
