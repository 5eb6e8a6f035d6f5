//! What is particular to this backend; the contract itself is in the conformance suite.

use bytes::Bytes;

use super::*;
use crate::conformance::Backend;
use crate::conformance::fixtures::within;
use crate::log::{Granted, ReadLimit};

struct Memory<const SPANS: u16, const STEP: u64>(MemoryLog);

#[async_trait]
impl<const SPANS: u16, const STEP: u64> Backend for Memory<SPANS, STEP> {
    async fn create() -> Self {
        Self(MemoryLog::new(MemoryConfig {
            spans: SPANS,
            position_step: STEP,
            ..MemoryConfig::default()
        }))
    }

    fn log(&self) -> Arc<dyn EventLog> {
        Arc::new(self.0.clone())
    }

    async fn crash_and_reopen(self) -> Self {
        self.0.crash();
        self
    }

    async fn lose_lease(&self, lease: &Lease) {
        self.0.lose(lease);
    }
}

mod one_span {
    type Log = super::Memory<1, 1>;
    crate::log_conformance!(Log);
}

mod many_spans_with_gaps {
    type Log = super::Memory<8, 3>;
    crate::log_conformance!(Log);
}

const LIMIT: ReadLimit = ReadLimit {
    records: 100,
    bytes: 1 << 20,
};

fn log(mut config: MemoryConfig) -> MemoryLog {
    config.spans = 1;
    MemoryLog::new(config)
}

fn record(text: &'static str) -> Outgoing {
    Outgoing {
        shard: Shard(7),
        subject: "order".into(),
        bytes: Bytes::from_static(text.as_bytes()),
    }
}

async fn append(log: &MemoryLog, texts: &[&'static str]) -> Result<Vec<Position>, LogErrorKind> {
    let batch = texts.iter().map(|t| record(t)).collect();
    log.append(Stream::Events, batch)
        .await
        .map_err(|e| e.kind())
}

async fn join(log: &MemoryLog, visibility: Visibility) -> (Box<dyn Reader>, Granted) {
    let group = Group::new("router");
    let mut reader = log.join(Stream::Events, &group, visibility).await.unwrap();
    let granted = reader.next().await.unwrap();
    (reader, granted)
}

async fn texts(granted: &mut Granted) -> Vec<String> {
    let entries = within("records", granted.records.read(LIMIT))
        .await
        .unwrap();
    let text = |e: &crate::Entry| String::from_utf8(e.bytes.to_vec()).unwrap();
    entries.iter().map(text).collect()
}

fn manual() -> MemoryConfig {
    MemoryConfig {
        sync: SyncMode::Manual,
        ..MemoryConfig::default()
    }
}

#[tokio::test]
async fn an_append_waits_for_a_sync() {
    let log = log(manual());
    let mut append = std::pin::pin!(append(&log, &["a"]));
    assert!(poll_once(&mut append).await.is_none());
    log.sync();
    assert_eq!(append.await, Ok(vec![Position(0)]));
}

#[tokio::test]
async fn a_crash_drops_the_unsynced_tail_and_answers_unknown() {
    let log = log(manual());
    let mut first = Box::pin(append(&log, &["a"]));
    assert!(poll_once(&mut first).await.is_none());
    log.sync();
    let mut second = Box::pin(append(&log, &["b"]));
    assert!(poll_once(&mut second).await.is_none());
    let (mut reader, mut granted) = join(&log, Visibility::Ordered).await;
    assert_eq!(texts(&mut granted).await, ["a", "b"]);
    log.crash();
    assert_eq!(second.await, Err(LogErrorKind::Unknown));
    assert!(texts(&mut granted).await.is_empty());
    assert_eq!(
        reader.next().await.err().map(|e| e.kind()),
        Some(LogErrorKind::Closed)
    );
    let (_reader, mut granted) = join(&log, Visibility::Ordered).await;
    assert_eq!(texts(&mut granted).await, ["a"]);
}

#[tokio::test]
async fn only_what_is_synced_is_seen_as_durable() {
    let log = log(manual());
    let mut waiting = Box::pin(append(&log, &["a"]));
    assert!(poll_once(&mut waiting).await.is_none());
    let (_reader, mut granted) = join(&log, Visibility::Durable).await;
    let mut read = Box::pin(granted.records.read(LIMIT));
    assert!(poll_once(&mut read).await.is_none());
    log.sync();
    assert_eq!(read.await.unwrap().len(), 1);
}

#[tokio::test]
async fn memory_is_freed_once_every_group_settled() {
    let log = log(MemoryConfig {
        max_bytes: 4,
        position_step: 3,
        ..MemoryConfig::default()
    });
    let (_reader, mut granted) = join(&log, Visibility::Durable).await;
    append(&log, &["aa", "bb"]).await.unwrap();
    assert_eq!(append(&log, &["c"]).await, Err(LogErrorKind::Full));
    assert_eq!(texts(&mut granted).await, ["aa", "bb"]);
    let progress = Progress {
        ceiling: Position(4),
        unsettled: vec![crate::Unsettled {
            position: Position(3),
            open: 1,
        }],
    };
    log.commit(&granted.lease, &progress).await.unwrap();
    assert_eq!(log.bytes(), 2);
    assert_eq!(append(&log, &["c"]).await, Ok(vec![Position(6)]));
    assert_eq!(texts(&mut granted).await, ["c"]);
    let group = Group::new("router");
    assert_eq!(log.progress(Stream::Events, &group, 0), progress);
}

#[tokio::test]
async fn faults_refuse_stall_or_lose_the_answer() {
    let log = log(MemoryConfig::default());
    let (_reader, mut granted) = join(&log, Visibility::Durable).await;
    log.set_fault(Call::Append, Some(Fault::Refuse(LogErrorKind::Unavailable)));
    assert_eq!(append(&log, &["a"]).await, Err(LogErrorKind::Unavailable));
    log.set_fault(Call::Append, Some(Fault::LoseAnswer));
    assert_eq!(append(&log, &["b"]).await, Err(LogErrorKind::Unknown));
    log.set_fault(Call::Append, Some(Fault::Stall));
    let mut stalled = Box::pin(append(&log, &["c"]));
    assert!(poll_once(&mut stalled).await.is_none());
    assert_eq!(texts(&mut granted).await, ["b"]);
    log.set_fault(Call::Append, None);
    stalled.await.unwrap();
    assert_eq!(texts(&mut granted).await, ["c"]);
    log.close();
    assert_eq!(append(&log, &["d"]).await, Err(LogErrorKind::Closed));
}

/// Polls once and says what came of it.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        let polled = std::pin::Pin::new(&mut *future).poll(cx);
        std::task::Poll::Ready(match polled {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}
