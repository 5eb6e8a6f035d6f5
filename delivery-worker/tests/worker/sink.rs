//! Receivers: one that speaks HTTP and does as it is told, and one that is only a socket.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::world::eventually;

/// A request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    /// The delivery it is.
    pub(crate) fn id(&self) -> String {
        self.header("webhook-id").to_owned()
    }
}

/// An HTTP receiver.
pub(crate) struct Sink {
    pub(crate) url: String,
    received: Arc<Mutex<Vec<Received>>>,
    connections: Arc<AtomicUsize>,
    _serving: AbortOnDropHandle<()>,
}

/// What a sink answers to the n-th request (from 0).
type Answer = Response<Full<Bytes>>;

pub(crate) fn status(code: u16) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from_static(b"ok")));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap();
    answer
}

impl Sink {
    /// Answers 200 to everything.
    pub(crate) async fn start() -> Self {
        Self::answering(|_, _| status(200)).await
    }

    /// Answers these statuses, the last one for ever.
    pub(crate) async fn statuses(codes: &[u16]) -> Self {
        let codes = codes.to_vec();
        Self::answering(move |n, _| status(codes[n.min(codes.len() - 1)])).await
    }

    pub(crate) async fn answering(
        answer: impl Fn(usize, &Received) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::gated(answer, None).await
    }

    /// Answers nothing until `gate` is opened, then 200.
    pub(crate) async fn behind(gate: &Arc<Gate>) -> Self {
        Self::gated(|_, _| status(200), Some(gate.clone())).await
    }

    async fn gated(
        answer: impl Fn(usize, &Received) -> Answer + Send + Sync + 'static,
        gate: Option<Arc<Gate>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?x=1", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (answer, keep, count) = (Arc::new(answer), received.clone(), connections.clone());
        let serving = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                let (answer, keep, gate) = (answer.clone(), keep.clone(), gate.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (answer, keep, gate) = (answer.clone(), keep.clone(), gate.clone());
                    async move {
                        let (head, body) = request.into_parts();
                        let received = Received {
                            path: head.uri.to_string(),
                            headers: head.headers,
                            body: body.collect().await.unwrap().to_bytes(),
                        };
                        let n = {
                            let mut keep = keep.lock();
                            keep.push(received.clone());
                            keep.len() - 1
                        };
                        if let Some(gate) = gate {
                            gate.passed().await;
                        }
                        Ok::<_, Infallible>(answer(n, &received))
                    }
                });
                // A worker that is killed cuts its connections; that is no failure of the sink.
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
            }
        });
        Self {
            url,
            received,
            connections,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.received.lock().len()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Waits until `count` requests came.
    pub(crate) async fn receives(&self, count: usize) -> Vec<Received> {
        eventually(async || {
            let got = self.count();
            (got >= count)
                .then_some(())
                .ok_or_else(|| format!("{got} of {count} requests"))
        })
        .await;
        self.received()
    }
}

/// Holds answers back until it is opened.
#[derive(Default)]
pub(crate) struct Gate {
    open: std::sync::atomic::AtomicBool,
    opened: Notify,
}

impl Gate {
    pub(crate) fn shut() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn open(&self) {
        self.open.store(true, Ordering::Release);
        self.opened.notify_waiters();
    }

    async fn passed(&self) {
        loop {
            let opened = self.opened.notified();
            if self.open.load(Ordering::Acquire) {
                return;
            }
            opened.await;
        }
    }
}

/// A socket that does anything.
pub(crate) struct RawServer {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    _serving: AbortOnDropHandle<()>,
}

impl RawServer {
    pub(crate) async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = accepted.clone();
        let serving = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                // What goes wrong with it goes wrong on purpose.
                tokio::spawn(serve(socket));
            }
        });
        Self {
            address,
            accepted,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}
