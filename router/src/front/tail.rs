//! Following events live: one tail of the log per process, shared by all who follow.
//!
//! ```text
//!   log ──tail──▶ one task ──┬─▶ bounded queue of one follower ──▶ its stream
//!                            └─▶ ...          full: counted as skipped, never waited for
//! ```
//!
//! The task runs while anyone follows and stops when nobody does. Each record is decoded once and
//! filtered per follower by tenant and pattern, so nobody learns of another tenant's events.
//! Best effort: a slow follower skips and is told how many; nothing durable depends on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fanfare_domain::{AcceptedEvent, TenantId, TypePattern};
use fanfare_event_log::{
    EventLog, LogErrorKind, ReadLimit, Record, Stream as LogStream, Tail, Tailed,
};
use fanfare_proto::v1;
use futures::Stream;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Code, Status};

use super::errors::Refusal;
use super::wire;

/// Most followers at once.
const FOLLOWERS_MAX: usize = 100;
/// Most answers, and most bytes of them, that wait for one follower.
const QUEUE: usize = 256;
const QUEUE_BYTES: usize = 2 * 1024 * 1024;
/// Most records and bytes read from the log at once, and put into one answer. Clients take
/// messages of up to 4 MiB by default.
const READ: ReadLimit = ReadLimit {
    records: 256,
    bytes: 1024 * 1024,
};
/// Between two tries to read a log that is not available.
const PAUSE: Duration = Duration::from_millis(200);

/// Everyone who follows. Clones share the followers.
#[derive(Clone)]
pub(crate) struct Tails {
    log: Arc<dyn EventLog>,
    followers: Arc<Mutex<Followers>>,
    /// One caller at a time starts the task.
    starting: Arc<tokio::sync::Mutex<()>>,
    tasks: TaskTracker,
    drain: CancellationToken,
}

#[derive(Default)]
struct Followers {
    each: Vec<Follower>,
    /// Whether the task runs. It decides to stop, and a follower decides that it need not start
    /// it, under the same lock.
    running: bool,
}

struct Follower {
    tenant: TenantId,
    patterns: Vec<TypePattern>,
    /// Events that did not fit since the last answer that did.
    skipped: u64,
    queue: mpsc::Sender<v1::TailEventsResponse>,
    queued_bytes: Arc<AtomicUsize>,
}

/// A follower's end.
struct Following {
    answers: mpsc::Receiver<v1::TailEventsResponse>,
    queued_bytes: Arc<AtomicUsize>,
    drain: CancellationToken,
}

impl Tails {
    /// Nobody follows yet. The task is one of `tasks` and ends with `drain`.
    pub(crate) fn new(
        log: Arc<dyn EventLog>,
        tasks: TaskTracker,
        drain: CancellationToken,
    ) -> Self {
        Self {
            log,
            followers: Arc::default(),
            starting: Arc::default(),
            tasks,
            drain,
        }
    }

    /// Follows the events of `tenant` that `patterns` select and that are accepted after this
    /// resolved. The stream ends with an error: at the drain, or when the log is closed.
    pub(crate) async fn follow(
        &self,
        tenant: TenantId,
        patterns: Vec<TypePattern>,
    ) -> Result<impl Stream<Item = Result<v1::TailEventsResponse, Status>> + use<>, Refusal> {
        let (queue, answers) = mpsc::channel(QUEUE);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        self.add(Follower {
            tenant,
            patterns,
            skipped: 0,
            queue,
            queued_bytes: queued_bytes.clone(),
        })
        .await?;
        let following = Following {
            answers,
            queued_bytes,
            drain: self.drain.clone(),
        };
        Ok(futures::stream::unfold(
            Some(following),
            |following| async {
                let mut following = following?;
                match following.next().await {
                    Ok(answer) => Some((Ok(answer), Some(following))),
                    Err(refusal) => Some((Err(refusal.into()), None)),
                }
            },
        ))
    }

    async fn add(&self, follower: Follower) -> Result<(), Refusal> {
        let _one = self.starting.lock().await;
        {
            let mut followers = self.followers.lock();
            followers.each.retain(|each| !each.queue.is_closed());
            if followers.each.len() >= FOLLOWERS_MAX {
                let what = format!("more than {FOLLOWERS_MAX} calls follow events; end one first");
                return Err(Refusal::new(
                    Code::ResourceExhausted,
                    "QUOTA_EXCEEDED",
                    what,
                ));
            }
            if followers.running {
                followers.each.push(follower);
                return Ok(());
            }
        }
        let tail = self.log.tail(LogStream::Events).await?;
        let mut followers = self.followers.lock();
        followers.running = true;
        followers.each.push(follower);
        self.tasks.spawn(self.clone().run(tail));
        Ok(())
    }

    /// Reads and hands out until nobody follows.
    async fn run(self, mut tail: Box<dyn Tail>) {
        loop {
            let tailed = tokio::select! {
                () = self.drain.cancelled() => break,
                tailed = tail.next(READ) => tailed,
            };
            match tailed {
                Ok(tailed) => {
                    if self.followers.lock().hand_out(&tailed).is_break() {
                        return;
                    }
                }
                Err(error) if error.kind() == LogErrorKind::Unavailable => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "events can no longer be followed");
                    break;
                }
            }
        }
        let mut followers = self.followers.lock();
        followers.running = false;
        followers.each.clear();
    }
}

impl Followers {
    /// Gives everyone what they asked for. Breaks when nobody is left.
    fn hand_out(&mut self, tailed: &Tailed) -> std::ops::ControlFlow<()> {
        let events: Vec<AcceptedEvent> = tailed
            .entries
            .iter()
            .filter_map(|(_, bytes)| match Record::decode(bytes) {
                Ok(Record::Event(event)) => Some(event),
                // The router finds and reports what is damaged.
                _ => None,
            })
            .collect();
        self.each.retain_mut(|each| {
            each.hand(&events, tailed.skipped);
            !each.queue.is_closed()
        });
        if self.each.is_empty() {
            self.running = false;
            return std::ops::ControlFlow::Break(());
        }
        std::ops::ControlFlow::Continue(())
    }
}

impl Follower {
    fn hand(&mut self, events: &[AcceptedEvent], skipped: u64) {
        self.skipped += skipped;
        let wanted: Vec<_> = events
            .iter()
            .filter(|event| event.tenant == self.tenant)
            .filter(|event| wire::selects(&self.patterns, &event.event.event_type))
            .map(|event| v1::TailedEvent {
                event: Some(wire::event_to(event.clone())),
                accept_time: Some(wire::time_to(event.accept_time)),
            })
            .collect();
        if wanted.is_empty() {
            return;
        }
        let count = wanted.len() as u64;
        let answer = v1::TailEventsResponse {
            events: wanted,
            skipped: self.skipped,
        };
        let bytes = answer.encoded_len();
        // Counted before it is sent, so that the other end never takes off more than was added.
        let waiting = self.queued_bytes.fetch_add(bytes, Ordering::AcqRel);
        if waiting + bytes > QUEUE_BYTES || self.queue.try_send(answer).is_err() {
            self.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
            self.skipped += count;
        } else {
            self.skipped = 0;
        }
    }
}

impl Following {
    async fn next(&mut self) -> Result<v1::TailEventsResponse, Refusal> {
        let Some(answer) = self.answers.recv().await else {
            return Err(if self.drain.is_cancelled() {
                Refusal::draining()
            } else {
                fanfare_event_log::LogError::new(LogErrorKind::Unavailable).into()
            });
        };
        self.queued_bytes
            .fetch_sub(answer.encoded_len(), Ordering::AcqRel);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use fanfare_store::conformance::fixtures;

    use super::*;

    fn follower(patterns: &[&str]) -> (Follower, Following) {
        let (queue, answers) = mpsc::channel(QUEUE);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let patterns = patterns.iter().map(TypePattern::try_new);
        let follower = Follower {
            tenant: fixtures::tenant("acme"),
            patterns: patterns.collect::<Result<_, _>>().unwrap(),
            skipped: 0,
            queue,
            queued_bytes: queued_bytes.clone(),
        };
        let following = Following {
            answers,
            queued_bytes,
            drain: CancellationToken::new(),
        };
        (follower, following)
    }

    /// Hands `event` to a follower that takes nothing until its queue is full, and then goes on.
    async fn skips_beyond(most: usize, event: AcceptedEvent) {
        let (mut follower, mut following) = follower(&[]);
        let events = [event.clone(), event];
        for _ in 0..most + 3 {
            follower.hand(&events, 0);
        }
        let first = following.next().await.unwrap();
        assert_eq!((first.events.len(), first.skipped), (2, 0));
        // There is room again, for one: it says what was missed, the next one has nothing to say.
        follower.hand(&events, 0);
        for _ in 1..most {
            assert_eq!(following.next().await.unwrap().skipped, 0);
        }
        let after = following.next().await.unwrap();
        assert_eq!((after.events.len(), after.skipped), (2, 6));
        follower.hand(&events, 0);
        assert_eq!(following.next().await.unwrap().skipped, 0);
        assert_eq!(following.queued_bytes.load(Ordering::Acquire), 0);
    }

    #[tokio::test]
    async fn what_does_not_fit_by_count_is_skipped_and_told() {
        skips_beyond(QUEUE, fixtures::event("e1", "{}")).await;
    }

    #[tokio::test]
    async fn what_does_not_fit_by_bytes_is_skipped_and_told() {
        let third = "1".repeat(QUEUE_BYTES / 7);
        skips_beyond(3, fixtures::event("e1", &third)).await;
    }

    #[tokio::test]
    async fn what_the_log_lost_is_told_and_what_nobody_asked_for_is_no_loss() {
        let (mut follower, mut following) = follower(&["order.*"]);
        let other = fixtures::event_of("other", "/shop", "e0", "{}", fixtures::second(0));
        follower.hand(&[other], 4);
        follower.hand(&[fixtures::event("e1", "{}")], 3);
        let told = following.next().await.unwrap();
        assert_eq!((told.events.len(), told.skipped), (1, 7));
    }
}
