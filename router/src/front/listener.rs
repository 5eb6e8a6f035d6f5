//! Connections: one listener for gRPC without TLS (HTTP/2 with prior knowledge), HTTP/1.1 and
//! HTTP/2.
//!
//! Invariants: one task per connection, all owned by one tracker; a connection that does not send
//! the head of its first request in time is closed, whatever it speaks; there are never more than
//! `connections_max`. On drain nothing new is accepted, every connection says so (GOAWAY, or
//! `connection: close`), and what was read is answered.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::FrontConfig;
use super::dispatch::Dispatch;
use super::instruments::Instruments;

/// Most bytes of a request's head.
const HEAD_MAX: u32 = 32 * 1024;
/// HTTP/2 windows: room for a batch on its way without asking.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Resets by the client that may wait to be accepted: what a flood of them costs at most.
const RESETS_MAX: usize = 64;
/// After a failed accept, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves connections.
pub(crate) struct Connections {
    builder: Builder<TokioExecutor>,
    dispatch: Arc<Dispatch>,
    room: Arc<Semaphore>,
    first_request_within: Duration,
    instruments: Instruments,
    tasks: TaskTracker,
    drain: CancellationToken,
}

impl Connections {
    pub(crate) fn new(
        config: &FrontConfig,
        dispatch: Dispatch,
        tasks: TaskTracker,
        drain: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            builder: builder(config),
            room: Arc::new(Semaphore::new(config.connections_max)),
            first_request_within: config.header_timeout.0,
            instruments: dispatch.instruments.clone(),
            dispatch: Arc::new(dispatch),
            tasks,
            drain,
        })
    }

    /// Accepts until the drain begins.
    pub(crate) async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                () = self.drain.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => self.clone().open(stream),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn open(self: Arc<Self>, stream: TcpStream) {
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
            // Closing is the only answer that costs nothing.
            self.instruments.shed("connection");
            return;
        };
        // Without it, small answers wait for acks; failing to set it is only slower.
        let _ = stream.set_nodelay(true);
        let tasks = self.tasks.clone();
        tasks.spawn(async move {
            self.instruments.connected(1);
            self.serve(stream).await;
            self.instruments.connected(-1);
            drop(room);
        });
    }

    /// Serves one connection until it ends.
    async fn serve(&self, stream: TcpStream) {
        let asked = Arc::new(AtomicBool::new(false));
        let service = service_fn({
            let (dispatch, asked) = (self.dispatch.clone(), asked.clone());
            move |request: Request<Incoming>| {
                asked.store(true, Ordering::Relaxed);
                let dispatch = dispatch.clone();
                async move { Ok::<_, Infallible>(dispatch.answer(request).await) }
            }
        });
        let connection = self.builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let mut first_request = pin!(tokio::time::sleep(self.first_request_within));
        let (mut watching, mut open) = (true, true);
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended badly");
                    }
                    return;
                }
                () = &mut first_request, if watching => {
                    if !asked.load(Ordering::Relaxed) {
                        self.instruments.shed("silent connection");
                        return;
                    }
                    watching = false;
                }
                () = self.drain.cancelled(), if open => {
                    connection.as_mut().graceful_shutdown();
                    open = false;
                }
            }
        }
    }
}

fn builder(config: &FrontConfig) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout.0)
        .max_buf_size(HEAD_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.calls_per_connection_max)
        .max_header_list_size(HEAD_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(config.keepalive_interval.0)
        .keep_alive_timeout(config.keepalive_timeout.0);
    builder
}
