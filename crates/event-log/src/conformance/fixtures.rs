//! What the cases are written with.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use fanfare_domain::{Position, Shard};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::error::{LogError, LogErrorKind};
use crate::log::{
    Entry, EventLog, Granted, Group, Outgoing, Phase, ReadLimit, Reader, Stream, Visibility,
};
use crate::progress::Tracker;

/// The longest any single wait takes before the case fails.
pub const WITHIN: Duration = Duration::from_mins(1);

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Bounds that no case of a few small records meets.
pub const AMPLE: ReadLimit = ReadLimit {
    records: 1000,
    bytes: 8 << 20,
};

/// The group of most cases.
pub fn router() -> Group {
    Group::new("router")
}

/// A record of `shard`.
pub fn record(shard: u8, bytes: impl Into<Bytes>) -> Outgoing {
    Outgoing {
        shard: Shard(shard),
        subject: "order".into(),
        bytes: bytes.into(),
    }
}

/// `count` records of different text spread over the shards.
pub fn spread(prefix: &str, count: usize) -> Vec<Outgoing> {
    let one = |n: usize| {
        let shard = u8::try_from(n * 37 % 256).unwrap();
        record(shard, format!("{prefix}-{n}"))
    };
    (0..count).map(one).collect()
}

/// The text of each record.
pub fn texts<'a>(records: impl IntoIterator<Item = &'a Bytes>) -> Vec<String> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    records.into_iter().map(text).collect()
}

/// `future`, or a failure that says what was waited for.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let output = tokio::time::timeout(WITHIN, future).await;
    output.unwrap_or_else(|_| panic!("waited {WITHIN:?} in vain: {what}"))
}

/// Waits until `check` is `Ok`; fails with the last thing it said.
pub async fn eventually<T>(what: &str, mut check: impl FnMut() -> Result<T, String>) -> T {
    let started = tokio::time::Instant::now();
    loop {
        match check() {
            Ok(value) => return value,
            Err(status) => assert!(
                started.elapsed() < WITHIN,
                "waited {WITHIN:?} in vain: {what}; last seen: {status}"
            ),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Repeats `call` while the log says `Unavailable`, as callers do.
pub async fn available<T, F>(what: &str, mut call: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, LogError>>,
{
    let repeat = async {
        loop {
            match call().await {
                Err(error) if error.kind() == LogErrorKind::Unavailable => {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                other => return other.unwrap_or_else(|e| panic!("{what}: {e:?}")),
            }
        }
    };
    within(what, repeat).await
}

/// Appends to the events stream.
pub async fn append(log: &dyn EventLog, batch: Vec<Outgoing>) -> Vec<Position> {
    append_to(log, Stream::Events, batch).await
}

/// Appends.
pub async fn append_to(log: &dyn EventLog, stream: Stream, batch: Vec<Outgoing>) -> Vec<Position> {
    let count = batch.len();
    let append = || log.append(stream, batch.clone());
    let positions = available("append", append).await;
    assert_eq!(positions.len(), count, "one position per record");
    positions
}

/// Commits, and expects that it is taken.
pub async fn commit(log: &dyn EventLog, granted: &Granted, progress: &crate::Progress) {
    available("commit", || log.commit(&granted.lease, progress)).await;
}

/// Polls `future` at most `polls` times, letting others run in between; then drops it.
pub async fn cancelled_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        let polled = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// A reader that is polled all the time, as the seam asks for.
pub struct Member {
    granted: mpsc::Receiver<Granted>,
    /// Granted, and held without being read.
    others: Vec<Granted>,
    leave: CancellationToken,
    task: JoinHandle<()>,
}

impl Member {
    /// Joins `group` on `stream`.
    pub async fn join(
        log: &Arc<dyn EventLog>,
        stream: Stream,
        group: &Group,
        visibility: Visibility,
    ) -> Self {
        let reader = available("join", || log.join(stream, group, visibility)).await;
        let (sender, granted) = mpsc::channel(512);
        let leave = CancellationToken::new();
        let task = tokio::spawn(poll_reader(reader, sender, leave.clone()));
        Self {
            granted,
            others: Vec::new(),
            leave,
            task,
        }
    }

    /// Joins the usual group on the events stream.
    pub async fn of_events(log: &Arc<dyn EventLog>) -> Self {
        Self::join(log, Stream::Events, &router(), Visibility::Durable).await
    }

    /// The next lease; `None` once the log is closed or crashed.
    pub async fn next(&mut self) -> Option<Granted> {
        within("a lease", self.granted.recv()).await
    }

    /// The next lease of the span that holds `shard`.
    pub async fn next_of(&mut self, log: &dyn EventLog, stream: Stream, shard: u8) -> Granted {
        let span = log.span_of(stream, Shard(shard), "order");
        loop {
            let granted = self.next().await.unwrap();
            if granted.lease.span.index == span.index {
                return granted;
            }
            self.others.push(granted);
        }
    }

    /// One good lease for every span of `stream`, by index.
    pub async fn every_span(&mut self, log: &dyn EventLog, stream: Stream) -> Vec<Granted> {
        let count = log.spans(stream).len();
        let mut all = BTreeMap::new();
        while all.len() < count {
            let granted = self.next().await.unwrap();
            all.insert(granted.lease.span.index, granted);
            all.retain(|_, g: &mut Granted| g.lease.phase() == Phase::Held);
        }
        all.into_values().collect()
    }

    /// Leaves the group and waits for it.
    pub async fn leave(mut self) {
        self.leave.cancel();
        self.granted.close();
        while self.granted.try_recv().is_ok() {}
        self.others.clear();
        within("leaving the group", &mut self.task).await.unwrap();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn poll_reader(
    mut reader: Box<dyn Reader>,
    sender: mpsc::Sender<Granted>,
    leave: CancellationToken,
) {
    loop {
        let next = tokio::select! {
            () = leave.cancelled() => break,
            next = reader.next() => next,
        };
        match next {
            Ok(granted) => {
                let _ = sender.send(granted).await;
            }
            Err(error) if error.kind() == LogErrorKind::Unavailable => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(_) => return,
        }
    }
    reader.leave().await;
}

/// Reads until `count` records came.
pub async fn read(granted: &mut Granted, count: usize) -> Vec<Entry> {
    let mut entries = Vec::new();
    while entries.len() < count {
        let more = read_some(granted).await;
        assert!(!more.is_empty(), "{:?} ended", granted.lease);
        entries.extend(more);
    }
    assert_eq!(entries.len(), count, "{:?}", texts(bytes_of(&entries)));
    entries
}

/// One read; empty when the lease is no longer held.
pub async fn read_some(granted: &mut Granted) -> Vec<Entry> {
    let read = async {
        loop {
            match granted.records.read(AMPLE).await {
                Err(error) if error.kind() == LogErrorKind::Unavailable => {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                other => return other.unwrap(),
            }
        }
    };
    within("records", read).await
}

/// The bytes of each entry.
pub fn bytes_of(entries: &[Entry]) -> impl Iterator<Item = &Bytes> {
    entries.iter().map(|e| &e.bytes)
}

/// The first `count` records of `shard`'s span of the events stream, read by a new member that
/// commits nothing.
pub async fn read_shard(log: &Arc<dyn EventLog>, shard: u8, count: usize) -> Vec<Entry> {
    let mut member = Member::of_events(log).await;
    let mut granted = member.next_of(&**log, Stream::Events, shard).await;
    read(&mut granted, count).await
}

/// What a [`Consumer`] saw, in the order in which it saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Span and epoch of the lease.
    pub lease: (u16, u64),
    /// Where.
    pub position: Position,
    /// What.
    pub text: String,
}

/// A member that reads everything, settles each read and commits it; polite on a revoke.
pub struct Consumer {
    seen: Arc<Mutex<Vec<Seen>>>,
    leases: Arc<Mutex<Vec<crate::Lease>>>,
    leave: CancellationToken,
    task: JoinHandle<()>,
}

impl Consumer {
    /// Joins `group` on `stream`; what it sees is added to `seen`.
    pub async fn start(
        log: &Arc<dyn EventLog>,
        (stream, group, visibility): (Stream, &Group, Visibility),
        seen: &Arc<Mutex<Vec<Seen>>>,
    ) -> Self {
        let member = Member::join(log, stream, group, visibility).await;
        let leave = CancellationToken::new();
        let leases = Arc::default();
        let task = consume(
            log.clone(),
            member,
            (seen.clone(), Arc::clone(&leases)),
            leave.clone(),
        );
        Self {
            seen: seen.clone(),
            leases,
            leave,
            task: tokio::spawn(task),
        }
    }

    /// One that reads the events stream in the usual group.
    pub async fn of_events(log: &Arc<dyn EventLog>) -> Self {
        let seen = Arc::default();
        let how = (Stream::Events, &router(), Visibility::Durable);
        Self::start(log, how, &seen).await
    }

    /// What was seen so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// The leases that it holds now.
    pub fn held(&self) -> Vec<crate::Lease> {
        let mut leases = self.leases.lock();
        leases.retain(|l| l.phase() == Phase::Held);
        leases.clone()
    }

    /// Waits until each of `wanted` was seen.
    pub async fn sees(&self, wanted: &[String]) {
        eventually("all records are read", || {
            let seen = self.seen.lock();
            let missing = |w: &&String| !seen.iter().any(|s| s.text == **w);
            let missing: Vec<_> = wanted.iter().filter(missing).collect();
            if missing.is_empty() {
                Ok(())
            } else {
                Err(format!("{} missing, first {:?}", missing.len(), missing[0]))
            }
        })
        .await;
    }

    /// Leaves the group politely.
    pub async fn leave(mut self) {
        self.leave.cancel();
        within("the consumer to end", &mut self.task).await.unwrap();
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Sink = (Arc<Mutex<Vec<Seen>>>, Arc<Mutex<Vec<crate::Lease>>>);

async fn consume(
    log: Arc<dyn EventLog>,
    mut member: Member,
    (seen, leases): Sink,
    leave: CancellationToken,
) {
    let mut spans = JoinSet::new();
    loop {
        let granted = tokio::select! {
            () = leave.cancelled() => break,
            granted = member.granted.recv() => granted,
        };
        let Some(granted) = granted else { return };
        leases.lock().push(granted.lease.clone());
        spans.spawn(consume_span(log.clone(), granted, seen.clone()));
    }
    member.leave().await;
    while let Some(ended) = spans.join_next().await {
        ended.unwrap();
    }
}

async fn consume_span(log: Arc<dyn EventLog>, mut granted: Granted, seen: Arc<Mutex<Vec<Seen>>>) {
    let mut tracker = Tracker::resume(&granted.progress);
    let lease = (granted.lease.span.index, granted.lease.epoch);
    loop {
        let entries = match granted.records.read(AMPLE).await {
            Ok(entries) if entries.is_empty() => return,
            Ok(entries) => entries,
            Err(error) if error.kind() == LogErrorKind::Unavailable => {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            Err(_) => return,
        };
        for entry in &entries {
            if tracker.take(entry.position, 1) != 0 {
                seen.lock().push(Seen {
                    lease,
                    position: entry.position,
                    text: texts([&entry.bytes]).remove(0),
                });
                tracker.settle(entry.position, 0);
            }
        }
        loop {
            match log.commit(&granted.lease, &tracker.progress()).await {
                Ok(()) => break,
                Err(error) if may_repeat(&error) => tokio::time::sleep(LOOK_EVERY).await,
                Err(_) => return,
            }
        }
    }
}

fn may_repeat(error: &LogError) -> bool {
    matches!(
        error.kind(),
        LogErrorKind::Unavailable | LogErrorKind::Unknown
    )
}
