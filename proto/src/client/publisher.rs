//! A stream that stays open: many events under way at once, each with its own outcome.
//!
//! One task owns the call. What has no result when a call breaks, and what the server refused for
//! the moment only, goes out again in its order on the next call; events of one ordering key
//! therefore keep their order across calls. Bounded: [`Publisher::send`] waits for room.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::error::{EventId, PublishError, PublishErrorKind, reason};
use super::retry::{Retries, RetryPolicy, Verdict};
use super::{Client, name, outcome};
use crate::v1;

/// Most events, and about how many bytes, without an outcome: what the server reads ahead.
const UNANSWERED_MAX: usize = 1_024;
const UNANSWERED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Publishes through one open stream. Dropping it publishes what was handed over.
#[derive(Debug)]
pub struct Publisher {
    queue: mpsc::Sender<Waiting>,
    policy: RetryPolicy,
    task: JoinHandle<()>,
}

/// Resolves with what became of an event. Dropping it changes nothing for the event.
#[derive(Debug)]
pub struct Ticket {
    id: EventId,
    outcome: oneshot::Receiver<Result<EventId, PublishError>>,
}

/// An event without an outcome.
#[derive(Debug)]
struct Waiting {
    event: v1::Event,
    retries: Retries,
    outcome: oneshot::Sender<Result<EventId, PublishError>>,
}

impl Publisher {
    pub(super) fn start(client: Client) -> Self {
        let (queue, waiting) = mpsc::channel(UNANSWERED_MAX / 4);
        let policy = client.policy.clone();
        let work = Work {
            client,
            queue: waiting,
            intake: Intake::Open,
            unanswered: VecDeque::new(),
            bytes: 0,
        };
        Self {
            queue,
            policy,
            task: tokio::spawn(work.run()),
        }
    }

    /// Hands an event over, once there is room; the ticket resolves with its outcome. The event
    /// gets an id if it has none.
    ///
    /// Cancel safe: a dropped `send` either handed the event over or did not.
    pub async fn send(&self, mut event: v1::Event) -> Ticket {
        let id = name(&mut event);
        let (sender, outcome) = oneshot::channel();
        let waiting = Waiting {
            event,
            retries: Retries::new(&self.policy),
            outcome: sender,
        };
        // The task ends only after the queue does; otherwise the ticket tells.
        let _ = self.queue.send(waiting).await;
        Ticket { id, outcome }
    }

    /// Resolves when everything handed over has its outcome.
    pub async fn close(self) {
        drop(self.queue);
        // A panic in the task shows in the tickets.
        let _ = self.task.await;
    }
}

impl Ticket {
    /// The id that the event has.
    pub fn event_id(&self) -> &EventId {
        &self.id
    }
}

impl Future for Ticket {
    type Output = Result<EventId, PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.outcome).poll(cx).map(|outcome| {
            outcome.unwrap_or_else(|_| {
                let event = v1::Event {
                    id: self.id.clone().into(),
                    ..v1::Event::default()
                };
                let status = Status::cancelled("the publisher ended before this event's outcome");
                Err(PublishError::new(PublishErrorKind::Unknown, event, status))
            })
        })
    }
}

/// The task.
struct Work {
    client: Client,
    queue: mpsc::Receiver<Waiting>,
    intake: Intake,
    /// In their order. The first ones are sent, in the current call.
    unanswered: VecDeque<Waiting>,
    bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Intake {
    Open,
    Closed,
}

/// One call.
struct Call {
    /// `None` once nothing more is sent.
    requests: Option<mpsc::Sender<v1::PublishStreamRequest>>,
    answers: Streaming<v1::PublishStreamResponse>,
    sequence: u64,
    /// How many of the unanswered events are sent.
    sent: usize,
    /// When the last answer came, or the first of them was sent after that.
    progress: Instant,
    /// Refused for the moment: for the next call, before everything else.
    again: VecDeque<Waiting>,
    held: HashSet<String>,
    pause: Duration,
}

impl Work {
    async fn run(mut self) {
        while self.has_work().await {
            let pause = match self.open().await {
                Ok(mut call) => {
                    let ended = self.converse(&mut call).await;
                    self.finish(call, ended)
                }
                Err(status) => self.judge_all(&status),
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Waits for an event; false when there will be none.
    async fn has_work(&mut self) -> bool {
        if self.unanswered.is_empty() {
            match self.queue.recv().await {
                Some(waiting) => self.push(waiting),
                None => return false,
            }
        }
        true
    }

    fn push(&mut self, waiting: Waiting) {
        self.bytes += waiting.event.encoded_len();
        self.unanswered.push_back(waiting);
    }

    fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.unanswered.pop_front()?;
        self.bytes -= waiting.event.encoded_len();
        Some(waiting)
    }

    async fn open(&self) -> Result<Call, Status> {
        let (requests, stream) = mpsc::channel(UNANSWERED_MAX / 4);
        let stream = ReceiverStream::new(stream);
        let mut events = self.client.events();
        let opening = events.publish_stream(stream);
        let answers = tokio::time::timeout(self.client.policy.try_timeout, opening)
            .await
            .map_err(|_| Status::deadline_exceeded("the stream did not open in time"))??;
        Ok(Call {
            requests: Some(requests),
            answers: answers.into_inner(),
            sequence: 0,
            sent: 0,
            progress: Instant::now(),
            again: VecDeque::new(),
            held: HashSet::new(),
            pause: Duration::ZERO,
        })
    }

    /// Sends and takes answers until the call ends; how it ended.
    async fn converse(&mut self, call: &mut Call) -> Result<(), Status> {
        let answer_within = self.client.policy.try_timeout;
        loop {
            let has_next = call.sent < self.unanswered.len();
            if self.intake == Intake::Closed && !has_next {
                call.requests = None;
            }
            let has_room =
                self.unanswered.len() < UNANSWERED_MAX && self.bytes < UNANSWERED_BYTES_MAX;
            let takes_more = call.requests.is_some() && self.intake == Intake::Open;
            tokio::select! {
                biased;
                answer = call.answers.message() => match answer? {
                    Some(answer) => self.settle(call, answer),
                    None => return Ok(()),
                },
                taken = send(call.requests.as_ref(), call.sequence + 1, self.unanswered.get(call.sent)) => {
                    match taken {
                        Taken::Yes => {
                            if call.sent == 0 {
                                call.progress = Instant::now();
                            }
                            call.sequence += 1;
                            call.sent += 1;
                        }
                        // The call is over; its answers say how.
                        Taken::Never => call.requests = None,
                    }
                }
                () = tokio::time::sleep_until(call.progress + answer_within), if call.sent > 0 => {
                    return Err(Status::deadline_exceeded("the stream stands still"));
                }
                waiting = self.queue.recv(), if takes_more && has_room && !has_next => match waiting {
                    Some(waiting) => self.push(waiting),
                    None => self.intake = Intake::Closed,
                },
            }
        }
    }

    fn settle(&mut self, call: &mut Call, answer: v1::PublishStreamResponse) {
        call.progress = Instant::now();
        for result in answer.results {
            if call.sent == 0 {
                return;
            }
            call.sent -= 1;
            let Some(waiting) = self.pop() else { return };
            match outcome(Some(result)) {
                Ok(()) => waiting.accepted(),
                Err(status) => call.refused(waiting, status),
            }
        }
    }

    /// What is left of a call that ended, for the next one; how long to wait before it.
    fn finish(&mut self, call: Call, ended: Result<(), Status>) -> Duration {
        let status = match ended {
            Ok(()) => Status::unavailable("the stream ended before this event's outcome"),
            Err(status) => status,
        };
        let mut pause = call.pause;
        let mut left = call.again;
        for _ in 0..call.sent {
            if let Some(mut waiting) = self.pop() {
                waiting.retries.broke_off();
                pause = pause.max(waiting.judge(status.clone(), &mut left));
            }
        }
        for waiting in left.into_iter().rev() {
            self.bytes += waiting.event.encoded_len();
            self.unanswered.push_front(waiting);
        }
        pause
    }

    /// No call could be opened: nothing was sent.
    fn judge_all(&mut self, status: &Status) -> Duration {
        let mut left = VecDeque::new();
        let mut pause = Duration::ZERO;
        while let Some(waiting) = self.pop() {
            pause = pause.max(waiting.judge(status.clone(), &mut left));
        }
        for waiting in left {
            self.push(waiting);
        }
        pause
    }
}

impl Call {
    /// An event was refused: for good, or for the next call.
    fn refused(&mut self, waiting: Waiting, status: Status) {
        let key = waiting.event.ordering_key.clone();
        let behind = key.as_ref().is_some_and(|key| self.held.contains(key));
        if behind && reason(&status).as_deref() == Some("ORDER_HELD") {
            // What it waits for is sent again, so it is too.
            self.again.push_back(waiting);
            return;
        }
        let kept = self.again.len();
        let pause = waiting.judge(status, &mut self.again);
        if self.again.len() > kept {
            self.pause = self.pause.max(pause);
            self.held.extend(key);
            // The rest of its order must not overtake it: this call takes nothing more.
            self.requests = None;
        }
    }
}

impl Waiting {
    fn accepted(self) {
        let id = EventId::of(&self.event);
        let _ = self.outcome.send(Ok(id));
    }

    /// Goes to `left` if another try can help, after the pause that is returned; otherwise its
    /// outcome is told.
    fn judge(mut self, status: Status, left: &mut VecDeque<Self>) -> Duration {
        match self.retries.after(&status, Instant::now()) {
            Verdict::Again(pause) => {
                left.push_back(self);
                pause
            }
            Verdict::Over(kind) => {
                let error = PublishError::new(kind, self.event, status);
                let _ = self.outcome.send(Err(error));
                Duration::ZERO
            }
        }
    }
}

/// Whether a call took a request.
enum Taken {
    Yes,
    Never,
}

/// Sends `next` once the call has room; waits for ever when there is nothing to send, or nothing to
/// send it through. Cancel safe: it is sent when this resolves, and only then.
async fn send(
    requests: Option<&mpsc::Sender<v1::PublishStreamRequest>>,
    sequence: u64,
    next: Option<&Waiting>,
) -> Taken {
    let (Some(requests), Some(next)) = (requests, next) else {
        return std::future::pending().await;
    };
    match requests.reserve().await {
        Ok(room) => {
            let event = Some(next.event.clone());
            room.send(v1::PublishStreamRequest { sequence, event });
            Taken::Yes
        }
        Err(_) => Taken::Never,
    }
}
