//! A line: one kept-alive connection to one endpoint, owned by one sender, which drives the
//! connection and the request in the same task. No pool, no second task, no wake-up between them.
//!
//! A line is used for one request at a time, ages out (idle and in all), and after either is made
//! anew, which vets the address anew. Whatever goes wrong with a request ends the line.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use fanfare_domain::{Outcome, OutcomeKind};
use http::Response;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, Sleep};

use crate::answer::{Answer, Reading};
use crate::callee::Address;
use crate::connect::{Allowance, Stream};
use crate::request::Post;

/// Largest head of a response, and most headers.
const HEAD_MAX: (usize, usize) = (32 * 1024, 64);
/// Most bytes read for one answer, interim responses and chunk framing included.
const READ_MAX: usize = 512 * 1024;

/// One connection.
pub(crate) struct Line {
    send: SendRequest<Full<Bytes>>,
    connection: Pin<Box<Connection<TokioIo<Stream>, Full<Bytes>>>>,
    allowance: Allowance,
    address: Address,
    opened: Instant,
    last_used: Instant,
    requests: u64,
}

/// Why there is no answer.
pub(crate) enum Broken {
    /// A used line turned out to be closed, and nothing of an answer came: the post may go out
    /// again on a new one.
    Stale,
    /// The attempt failed.
    Failed(Outcome),
}

/// The end of an attempt. One timer serves every attempt of a sender: it is moved only when it
/// fires too early, not for every attempt.
pub(crate) struct Deadline {
    sleep: Pin<Box<Sleep>>,
    at: Instant,
    total: Duration,
}

impl Deadline {
    pub(crate) fn new() -> Self {
        let at = Instant::now();
        Self {
            sleep: Box::pin(tokio::time::sleep_until(at)),
            at,
            total: Duration::ZERO,
        }
    }

    /// From now on `total` is left.
    pub(crate) fn start(&mut self, total: Duration) {
        self.total = total;
        self.at = Instant::now() + total;
        if self.sleep.deadline() > self.at {
            self.sleep.as_mut().reset(self.at);
        }
    }

    /// Runs `work` until it is done or the deadline passes.
    pub(crate) async fn bound<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Outcome> {
        let mut work = pin!(work);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            self.poll_passed(cx).map(Err)
        })
        .await
    }

    fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        // Looked at directly, too: a task that is kept busy by its peer never gets to its timer.
        while Instant::now() < self.at {
            match self.sleep.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => self.sleep.as_mut().reset(self.at),
            }
        }
        let message = format!("no complete answer within {:?}", self.total);
        Poll::Ready(Outcome::failed(OutcomeKind::Timeout, message))
    }
}

impl Line {
    /// Speaks HTTP/1.1 over `stream`.
    pub(crate) async fn open(stream: Stream, address: Address) -> Result<Self, Outcome> {
        let allowance = stream.allowance();
        let (send, connection) = http1::Builder::new()
            .writev(false)
            .max_header_size(HEAD_MAX.0)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failure(&error))?;
        let now = Instant::now();
        Ok(Self {
            send,
            connection: Box::pin(connection),
            allowance,
            address,
            opened: now,
            last_used: now,
            requests: 0,
        })
    }

    /// Whether the next request to `address` may go out on it, at `now`.
    pub(crate) fn serves(
        &self,
        address: &Address,
        now: Instant,
        (idle_max, lifetime): (Duration, Duration),
    ) -> bool {
        self.send.is_ready()
            && self.address == *address
            && now.duration_since(self.opened) < lifetime
            && now.duration_since(self.last_used) < idle_max
    }

    /// Resolves when the peer closes an idle line. Cancel safe.
    pub(crate) async fn closed(&mut self) {
        // Whether it closed well or badly, it is closed.
        let _ = self.connection.as_mut().await;
    }

    /// Sends `post` and reads the answer. After `Err`, or an answer that is not `complete`, the
    /// line is of no more use.
    pub(crate) async fn exchange(
        &mut self,
        post: Post,
        deadline: &mut Deadline,
    ) -> Result<Answer, Broken> {
        self.allowance.grant(READ_MAX);
        self.requests += 1;
        let is_reused = self.requests > 1;
        let sent = self.send.try_send_request(post);
        let response = match drive(self.connection.as_mut(), deadline, sent).await? {
            Ok(response) => response,
            Err(refused) => {
                // Unsent, or closed before a single byte of an answer: a server that gives up
                // idle connections looks like this, and it costs a real retry 5 seconds.
                let error = refused.error();
                let is_stale = error.is_canceled() || error.is_closed() || is_cut_off(error);
                return Err(if is_reused && is_stale {
                    Broken::Stale
                } else {
                    Broken::Failed(failure(error))
                });
            }
        };
        let answer = self.read(response, deadline).await?;
        self.last_used = Instant::now();
        Ok(answer)
    }

    async fn read(
        &mut self,
        response: Response<Incoming>,
        deadline: &mut Deadline,
    ) -> Result<Answer, Broken> {
        let (head, mut body) = response.into_parts();
        if head.headers.len() > HEAD_MAX.1 {
            let message = format!("the answer has more than {} headers", HEAD_MAX.1);
            return Err(Broken::Failed(Outcome::failed(
                OutcomeKind::BadResponse,
                message,
            )));
        }
        let mut reading = Reading::of(&head);
        while !reading.is_full() {
            let frame = drive(self.connection.as_mut(), deadline, body.frame()).await?;
            match frame {
                None => return Ok(reading.finish(self.is_reusable().await)),
                Some(Ok(frame)) => reading.take(frame),
                Some(Err(error)) => return Err(Broken::Failed(failure(&error))),
            }
        }
        Ok(reading.cut())
    }

    /// Lets the connection see the end of the exchange; whether it is still open then.
    async fn is_reusable(&mut self) -> bool {
        std::future::poll_fn(|cx| Poll::Ready(self.connection.as_mut().poll(cx).is_pending())).await
    }
}

/// Runs `work`, which makes progress only through `connection`, and `connection` with it.
///
/// `work` is polled without a waker of its own: what could wake it happens inside the poll of the
/// connection just before. That saves a wake-up, and so a poll, for every message between them.
async fn drive<T>(
    mut connection: Pin<&mut Connection<TokioIo<Stream>, Full<Bytes>>>,
    deadline: &mut Deadline,
    work: impl Future<Output = T>,
) -> Result<T, Broken> {
    // Not subject to tokio's budget, which would reschedule it through the waker it lacks.
    let mut work = pin!(tokio::task::coop::unconstrained(work));
    let mut open = true;
    std::future::poll_fn(|cx| {
        let mut silent = Context::from_waker(Waker::noop());
        // Twice: reading a body first asks the connection for it.
        for _ in 0..2 {
            if open {
                open = connection.as_mut().poll(cx).is_pending();
            }
            if let Poll::Ready(done) = work.as_mut().poll(&mut silent) {
                return Poll::Ready(Ok(done));
            }
        }
        deadline
            .poll_passed(cx)
            .map(|late| Err(Broken::Failed(late)))
    })
    .await
}

/// Closed in the middle, by the protocol or by the transport.
fn is_cut_off(error: &hyper::Error) -> bool {
    error.is_incomplete_message() || io_kind(error).is_some_and(is_reset)
}

fn is_reset(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        kind,
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    )
}

fn io_kind(error: &hyper::Error) -> Option<std::io::ErrorKind> {
    let source = std::error::Error::source(error)?;
    source
        .downcast_ref::<std::io::Error>()
        .map(std::io::Error::kind)
}

/// What an error of the exchange says about the endpoint.
fn failure(error: &hyper::Error) -> Outcome {
    let because = std::error::Error::source(error).map(|source| format!(": {source}"));
    let because = because.unwrap_or_default();
    if error.is_parse_too_large() {
        let message = format!("the answer's head is larger than {} bytes", HEAD_MAX.0);
        return Outcome::failed(OutcomeKind::BadResponse, message);
    }
    if error.is_parse() {
        return Outcome::failed(
            OutcomeKind::BadResponse,
            format!("the answer is not HTTP{because}"),
        );
    }
    if is_cut_off(error) || error.is_closed() || error.is_canceled() {
        let message = "the connection was closed before the answer was complete";
        return Outcome::failed(OutcomeKind::Connect, message);
    }
    Outcome::failed(OutcomeKind::BadResponse, format!("{error}{because}"))
}

impl From<Outcome> for Broken {
    fn from(outcome: Outcome) -> Self {
        Self::Failed(outcome)
    }
}
