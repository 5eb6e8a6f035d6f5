//! The history's writer: batches of attempts, never in the way of a delivery.
//!
//! While the history can be written, a batch is settled after its rows; while it cannot, rows wait
//! within a bound and are then dropped, oldest first, and counted: they are missing in the history
//! and nowhere else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use fanfare_service::Backoff;
use fanfare_store::{AttemptRow, History};
use opentelemetry::metrics::Counter;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// Longest wait for a batch's rows; after that the history counts as away.
const PATIENCE: Duration = Duration::from_millis(250);
/// Most rows of one append.
const APPEND_MAX: usize = 1000;

/// See the module.
pub(crate) struct Chronicle {
    history: Arc<dyn History>,
    rows: Mutex<VecDeque<AttemptRow>>,
    backlog_max: usize,
    dropped: Counter<u64>,
    more: Notify,
    progress: watch::Sender<Progress>,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    /// Rows taken in since the start, and rows that are written or dropped.
    taken: u64,
    gone: u64,
    is_away: bool,
}

impl Chronicle {
    pub(crate) fn new(
        history: Arc<dyn History>,
        backlog_max: usize,
        dropped: Counter<u64>,
    ) -> Self {
        Self {
            history,
            rows: Mutex::default(),
            backlog_max,
            dropped,
            more: Notify::new(),
            progress: watch::Sender::new(Progress {
                taken: 0,
                gone: 0,
                is_away: false,
            }),
        }
    }

    /// Takes rows; returns when they are written, or soon when that may take long.
    pub(crate) async fn record(&self, rows: Vec<AttemptRow>) {
        if rows.is_empty() {
            return;
        }
        let count = rows.len() as u64;
        let mut upto = 0;
        let excess = {
            let mut kept = self.rows.lock();
            kept.extend(rows);
            let excess = kept.len().saturating_sub(self.backlog_max);
            kept.drain(..excess);
            excess as u64
        };
        self.progress.send_modify(|progress| {
            progress.taken += count;
            progress.gone += excess;
            upto = progress.taken;
        });
        if excess > 0 {
            self.dropped.add(excess, &[]);
        }
        self.more.notify_one();
        let mut progress = self.progress.subscribe();
        let written = progress.wait_for(|now| now.gone >= upto || now.is_away);
        if tokio::time::timeout(PATIENCE, written).await.is_err() {
            self.progress
                .send_modify(|progress| progress.is_away = true);
        }
    }

    /// Writes until `finishing` is cancelled and nothing is left, or the history is away then.
    pub(crate) async fn write(&self, finishing: CancellationToken) {
        let mut backoff = Backoff::new("write the history");
        loop {
            let rows = self.next();
            if rows.is_empty() {
                tokio::select! {
                    () = self.more.notified() => continue,
                    () = finishing.cancelled() => return,
                }
            }
            let count = rows.len() as u64;
            match self.history.append(rows.clone()).await {
                Ok(()) => {
                    backoff.reset();
                    self.progress.send_modify(|progress| {
                        progress.gone += count;
                        progress.is_away = false;
                    });
                }
                Err(error) => {
                    self.give_back(rows);
                    self.progress
                        .send_modify(|progress| progress.is_away = true);
                    if finishing.is_cancelled() {
                        tracing::warn!(%error, count, "attempts are missing in the history");
                        return;
                    }
                    backoff.wait(&error).await;
                }
            }
        }
    }

    fn next(&self) -> Vec<AttemptRow> {
        let mut rows = self.rows.lock();
        let count = rows.len().min(APPEND_MAX);
        rows.drain(..count).collect()
    }

    fn give_back(&self, rows: Vec<AttemptRow>) {
        let mut kept = self.rows.lock();
        for row in rows.into_iter().rev() {
            kept.push_front(row);
        }
    }
}
