//! PublishStream: a long call that publishes as it reads and answers in order.
//!
//! ```text
//!   read ──▶ batch of what is there ──▶ publish ──┐ several under way, bounded by what is
//!     ▲                                           │ unanswered
//!     └────── stop reading at the bound ◀─────────┴──▶ results, in order, one message per commit
//! ```
//!
//! One state machine per call and no task: dropping the response ends it. An event of an ordering
//! key waits until the earlier ones of its key are answered, because a refused one holds it back;
//! events read together go together, so an ordered stream still groups.
//!
//! On half-close, on a broken request, and on drain it stops reading, answers all it read, and
//! ends: well, with the error of the request, or with DRAINING.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;

use fanfare_proto::v1;
use futures::stream::FuturesOrdered;
use futures::{FutureExt as _, Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use super::caller::Caller;
use super::config::FrontConfig;
use super::errors::Refusal;
use super::events::result;
use super::ingest::{self, Arrival, Ingest, Outcome, Refused};

/// Most ordering keys of one call that may be held; a call that breaks more orders is ended.
const HELD_MAX: usize = 1_000;

/// Most events of a call without a result, at the default size of a batch.
const UNANSWERED_MAX: usize = 1_024;

/// Bounds of one batch, and of what a call may leave unanswered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unanswered {
    batch_events: usize,
    events: usize,
    bytes: usize,
}

impl Unanswered {
    pub(crate) fn of(config: &FrontConfig) -> Self {
        Self {
            batch_events: config.batch_max_events,
            events: config.batch_max_events.max(UNANSWERED_MAX),
            bytes: config.batch_max.as_usize(),
        }
    }

    /// Refuses a batch of no events, and of too many.
    pub(crate) fn check_batch(self, events: usize) -> Result<(), Refusal> {
        let most = self.batch_events;
        match events {
            0 => Err(Refusal::field(
                "REQUEST_INVALID",
                "events",
                "must not be empty",
            )),
            more if more > most => {
                let rule =
                    format!("are {more}, more than the {most} of one batch; send them in parts");
                Err(Refusal::field("BATCH_TOO_LARGE", "events", rule))
            }
            _ => Ok(()),
        }
    }
}

/// Publishes what `requests` brings; the stream of answers.
pub(crate) fn run(
    ingest: Arc<Ingest>,
    caller: Caller,
    requests: Streaming<v1::PublishStreamRequest>,
    bounds: Unanswered,
    drain: CancellationToken,
) -> impl Stream<Item = Result<v1::PublishStreamResponse, Status>> + Send {
    let call = Call {
        ingest,
        caller,
        requests,
        bounds,
        drain,
        reading: Reading::Open,
        sequence: 0,
        stash: None,
        under_way: FuturesOrdered::new(),
        events: 0,
        bytes: 0,
        keys: HashMap::new(),
        held: HashSet::new(),
    };
    futures::stream::unfold(call, |mut call| async {
        let answer = call.next().await?;
        Some((answer, call))
    })
}

/// One call.
struct Call {
    ingest: Arc<Ingest>,
    caller: Caller,
    requests: Streaming<v1::PublishStreamRequest>,
    bounds: Unanswered,
    drain: CancellationToken,
    reading: Reading,
    /// Of the last event that was read.
    sequence: u64,
    /// Read, but not to be published before what is under way of its ordering key.
    stash: Option<Read>,
    under_way: FuturesOrdered<Pin<Box<dyn Future<Output = Published> + Send>>>,
    /// Unanswered events and their bytes.
    events: usize,
    bytes: usize,
    /// Ordering keys that are being published, with how many events each.
    keys: HashMap<String, usize>,
    /// Ordering keys of which an event was refused.
    held: HashSet<String>,
}

/// Whether more is read, and how the call ends.
enum Reading {
    Open,
    /// No more; the call ends with this once everything is answered.
    Over(Result<(), Status>),
    Ended,
}

/// An event as read.
struct Read {
    sequence: u64,
    arrival: Arrival,
    ordering_key: Option<String>,
    size: usize,
}

/// Events that were published together.
struct Published {
    reads: Vec<(u64, Option<String>, usize)>,
    outcomes: Vec<Outcome>,
}

impl Call {
    /// The next answer; `None` at the end.
    async fn next(&mut self) -> Option<Result<v1::PublishStreamResponse, Status>> {
        loop {
            self.publish_stash();
            let may_read = self.may_read();
            if !may_read && self.under_way.is_empty() {
                return self.end();
            }
            tokio::select! {
                // Answers first: they make room for reading.
                biased;
                Some(published) = self.under_way.next(), if !self.under_way.is_empty() => {
                    return Some(Ok(self.answer(published)));
                }
                () = self.drain.cancelled(), if may_read => {
                    self.reading = Reading::Over(Err(Refusal::draining().into()));
                }
                read = self.requests.next(), if may_read => self.take(read),
            }
        }
    }

    fn may_read(&self) -> bool {
        matches!(self.reading, Reading::Open)
            && self.stash.is_none()
            && self.events < self.bounds.events
            && self.bytes < self.bounds.bytes
    }

    fn end(&mut self) -> Option<Result<v1::PublishStreamResponse, Status>> {
        match std::mem::replace(&mut self.reading, Reading::Ended) {
            Reading::Over(Err(status)) => Some(Err(status)),
            _ => None,
        }
    }

    /// Publishes `first` together with whatever else is there already.
    fn take(&mut self, first: Option<Result<v1::PublishStreamRequest, Status>>) {
        let mut batch = Vec::new();
        let mut next = Some(first);
        while let Some(read) = next {
            match read {
                Some(Ok(request)) => {
                    let read = self.check(request);
                    self.gather(&mut batch, read);
                }
                Some(Err(status)) => self.reading = Reading::Over(Err(broken(&status))),
                None => self.reading = Reading::Over(Ok(())),
            }
            let more = self.may_read() && batch.len() < self.bounds.batch_events;
            next = more.then(|| self.requests.next().now_or_never()).flatten();
        }
        self.publish(batch);
    }

    fn check(&mut self, request: v1::PublishStreamRequest) -> Read {
        let sequence = request.sequence;
        let event = request.event;
        let ordering_key = event.as_ref().and_then(|event| event.ordering_key.clone());
        let arrival = if sequence > self.sequence {
            self.sequence = sequence;
            self.ingest.check(&self.caller, event)
        } else {
            let last = self.sequence;
            let rule = format!("must be higher than that of the event before, which was {last}");
            Err(Refused {
                refusal: Refusal::field("SEQUENCE_INVALID", "sequence", rule),
                ordering_key: ordering_key.clone(),
            })
        };
        Read {
            sequence,
            size: arrival.as_ref().map_or(0, ingest::Checked::size),
            arrival,
            ordering_key,
        }
    }

    /// Adds to the batch, or puts aside what must wait for an earlier event of its order.
    fn gather(&mut self, batch: &mut Vec<Read>, read: Read) {
        if read
            .ordering_key
            .as_ref()
            .is_some_and(|key| self.keys.contains_key(key))
        {
            self.stash = Some(read);
        } else {
            self.events += 1;
            self.bytes += read.size;
            batch.push(read);
        }
    }

    /// Publishes what was put aside, once its order allows.
    fn publish_stash(&mut self) {
        if let Some(read) = self.stash.take() {
            let mut batch = Vec::new();
            self.gather(&mut batch, read);
            self.publish(batch);
        }
    }

    fn publish(&mut self, batch: Vec<Read>) {
        if batch.is_empty() {
            return;
        }
        let mut reads = Vec::with_capacity(batch.len());
        let mut arrivals = Vec::with_capacity(batch.len());
        for read in batch {
            if let Some(key) = &read.ordering_key {
                *self.keys.entry(key.clone()).or_default() += 1;
            }
            arrivals.push(match &read.ordering_key {
                Some(key) if self.held.contains(key) => Err(Refused::unordered(ingest::held())),
                _ => read.arrival,
            });
            reads.push((read.sequence, read.ordering_key, read.size));
        }
        let ingest = self.ingest.clone();
        self.under_way.push_back(Box::pin(async move {
            let outcomes = ingest.publish_all(arrivals).await;
            Published { reads, outcomes }
        }));
    }

    /// The results of `first` and of everything else that is answered by now.
    fn answer(&mut self, first: Published) -> v1::PublishStreamResponse {
        let mut results = Vec::new();
        let mut next = Some(first);
        while let Some(published) = next {
            self.settle(published, &mut results);
            next = self.under_way.next().now_or_never().flatten();
        }
        v1::PublishStreamResponse { results }
    }

    fn settle(&mut self, published: Published, results: &mut Vec<v1::PublishResult>) {
        let outcomes = published.outcomes.into_iter();
        for ((sequence, ordering_key, size), outcome) in published.reads.into_iter().zip(outcomes) {
            self.events -= 1;
            self.bytes -= size;
            if let Some(key) = ordering_key {
                self.release(key, &outcome);
            }
            results.push(result(sequence, &outcome));
        }
        if self.held.len() > HELD_MAX {
            let what = "events of too many ordering keys were refused; begin another call";
            let refusal = Refusal::new(Code::Aborted, "ORDER_HELD", what);
            self.reading = Reading::Over(Err(refusal.into()));
        }
    }

    /// One event of an order is answered.
    fn release(&mut self, key: String, outcome: &Outcome) {
        if let Some(under_way) = self.keys.get_mut(&key) {
            *under_way -= 1;
            if *under_way == 0 {
                self.keys.remove(&key);
            }
        }
        if outcome.is_err() {
            self.held.insert(key);
        }
    }
}

/// What ends a call whose requests cannot be read any further.
fn broken(status: &Status) -> Status {
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => Refusal::field(
            "EVENT_TOO_LARGE",
            "event",
            "is larger than any event may be; the call ends here",
        )
        .into(),
        _ => Refusal::field("REQUEST_INVALID", "request", status.message()).into(),
    }
}
