//! The socket side: reads each POST whole, asks what to answer, answers it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::answer::Trickle;
use super::receipt::text;
use super::{Answer, Pace};

/// One POST, read to its end.
#[derive(Debug)]
pub struct Arrival {
    /// Path and query.
    pub path: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The body, byte for byte.
    pub body: Bytes,
    /// When its last byte was read.
    pub arrived: SystemTime,
}

/// Decides about each POST. Called before anything is answered.
pub trait Receive: Send + Sync + 'static {
    /// What to answer.
    fn receive(&self, arrival: Arrival) -> Answer;
}

/// A listening receiver; dropping it cuts every connection.
pub struct SinkServer {
    address: SocketAddr,
    open: Arc<AtomicUsize>,
    // Owns the accepting task, and through it every connection.
    _tasks: JoinSet<()>,
}

type Body = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

/// Serves `receive` on a free port of loopback.
pub async fn serve(receive: Arc<dyn Receive>) -> SinkServer {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener
        .local_addr()
        .expect("a bound socket has an address");
    let open = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    tasks.spawn(accept(listener, receive, open.clone()));
    SinkServer {
        address,
        open,
        _tasks: tasks,
    }
}

impl SinkServer {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests received and not answered yet.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

impl Arrival {
    /// A header as text; empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        text(&self.headers, name)
    }
}

async fn accept(listener: TcpListener, receive: Arc<dyn Receive>, open: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                connections.spawn(converse(stream, receive.clone(), open.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(stream: TcpStream, receive: Arc<dyn Receive>, open: Arc<AtomicUsize>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let (receive, open) = (receive.clone(), open.clone());
        async move { respond(request, &*receive, &open).await }
    });
    // A peer that was killed ends its connections badly; that is what these tests are for.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn respond(
    request: Request<Incoming>,
    receive: &dyn Receive,
    open: &Arc<AtomicUsize>,
) -> Result<Response<Body>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map_err(std::io::Error::other)?
        .to_bytes();
    let _open = Open::count(open);
    let answer = receive.receive(Arrival {
        path: head.uri.to_string(),
        headers: head.headers,
        body,
        arrived: SystemTime::now(),
    });
    match &answer.pace {
        Pace::AtOnce => {}
        Pace::After(delay) => tokio::time::sleep(*delay).await,
        Pace::Gated(gate) => gate.opened().await,
        Pace::Cut => return Err(std::io::Error::other("cut, as told")),
    }
    Ok(response(answer))
}

fn response(answer: Answer) -> Response<Body> {
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    if answer.trickle == Trickle::No {
        response = response.header("content-length", answer.body.len());
    }
    let some = (!answer.body.is_empty()).then(|| Ok(Frame::data(answer.body)));
    let whole = stream::iter(some);
    let body = match answer.trickle {
        Trickle::No => whole.boxed(),
        Trickle::Every(period) => whole.chain(drip(period)).boxed(),
    };
    response
        .body(StreamBody::new(body))
        .expect("the script's headers are valid")
}

fn drip(period: Duration) -> impl futures::Stream<Item = Result<Frame<Bytes>, Infallible>> {
    stream::unfold((), move |()| async move {
        tokio::time::sleep(period).await;
        Some((Ok(Frame::data(Bytes::from_static(b"."))), ()))
    })
}

/// Counts one open request for as long as it lives.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn count(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::SeqCst);
        Self(open.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
