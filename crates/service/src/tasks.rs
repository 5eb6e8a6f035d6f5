//! Every task of a process has a name, an owner and a policy for when it ends.
//!
//! [`Tasks`] is the owner. A vital task that ends, fails or panics before the drain began is a
//! failure of the process: [`Tasks::failure`] tells whoever waits for signals. A [`Drain`] runs
//! the phases of an orderly end under one deadline.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What it means when a task ends before the drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnEnd {
    /// The process cannot go on without it.
    Vital,
    /// It had something to do and did it. A panic or an error is logged.
    Passing,
}

/// Why the process cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {task} task {what}")]
pub struct Failure {
    task: &'static str,
    what: String,
}

/// The tasks of a process. Clones own the same tasks.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    draining: CancellationToken,
    failure: watch::Sender<Option<Failure>>,
}

/// The phases of an orderly end, under one deadline.
#[derive(Debug)]
pub struct Drain {
    deadline: Instant,
    overdue: Vec<&'static str>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self {
            tracker: TaskTracker::new(),
            draining: CancellationToken::new(),
            failure: watch::Sender::new(None),
        }
    }
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Spawns `work` under `name`. Its error says in one sentence what happened. The handle
    /// resolves when it has ended, however; dropping the handle changes nothing.
    pub fn spawn<E: fmt::Display + Send + 'static>(
        &self,
        name: &'static str,
        on_end: OnEnd,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) -> JoinHandle<()> {
        let work = tokio::spawn(work);
        let tasks = self.clone();
        self.tracker.spawn(async move {
            let what = match work.await {
                Ok(Ok(())) => "ended",
                Ok(Err(error)) => &format!("failed: {error}"),
                Err(error) if error.is_panic() => "panicked; its message is on stderr",
                Err(_) => return,
            };
            tasks.ended(name, on_end, what);
        })
    }

    /// Spawns work that cannot fail.
    pub fn run(
        &self,
        name: &'static str,
        on_end: OnEnd,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        self.spawn(name, on_end, async {
            work.await;
            Ok::<(), std::convert::Infallible>(())
        })
    }

    /// Cancelled when the drain begins.
    pub fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Begins the drain: from now on tasks may end.
    pub fn begin_drain(&self) {
        self.draining.cancel();
    }

    /// Resolves with the first failure of a vital task. Cancel safe.
    pub async fn failure(&self) -> Failure {
        let mut failure = self.failure.subscribe();
        match failure.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(failure)) => failure.clone(),
            // `self` holds the sender, and `wait_for` only returns a failure.
            _ => std::future::pending().await,
        }
    }

    /// Resolves when every task has ended; none is spawned after this. Cancel safe.
    pub async fn ended_all(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    fn ended(&self, task: &'static str, on_end: OnEnd, what: &str) {
        if on_end == OnEnd::Vital && !self.draining.is_cancelled() {
            tracing::error!(task, what, "a task that must run is gone");
            let what = what.to_owned();
            self.failure.send_if_modified(|first| {
                let is_first = first.is_none();
                first.get_or_insert(Failure { task, what });
                is_first
            });
        } else if what == "ended" {
            tracing::debug!(task, "task ended");
        } else {
            tracing::error!(task, what, "task ended badly");
        }
    }
}

impl Drain {
    /// Starts the clock.
    pub fn within(time: Duration) -> Self {
        Self {
            deadline: Instant::now() + time,
            overdue: Vec::new(),
        }
    }

    /// Runs one phase until it is done or the common deadline has passed.
    pub async fn phase<T>(
        &mut self,
        name: &'static str,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let started = Instant::now();
        if let Ok(done) = tokio::time::timeout_at(self.deadline, work).await {
            tracing::debug!(phase = name, took = ?started.elapsed(), "drained");
            return Some(done);
        }
        tracing::warn!(
            phase = name,
            "the drain deadline passed before this phase was done"
        );
        self.overdue.push(name);
        None
    }

    /// The phases that the deadline cut short.
    pub fn overdue(&self) -> &[&'static str] {
        &self.overdue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_vital_task_that_ends_fails_the_process() {
        let tasks = Tasks::new();
        tasks.run("idle", OnEnd::Passing, async {});
        tasks.spawn("reader", OnEnd::Vital, async { Err("the log is closed") });
        let failure = tasks.failure().await;
        assert_eq!(
            failure.to_string(),
            "the reader task failed: the log is closed"
        );
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_too() {
        let tasks = Tasks::new();
        tasks.run("reader", OnEnd::Vital, async { panic!("on purpose") });
        assert!(tasks.failure().await.to_string().contains("panicked"));
    }

    #[tokio::test]
    async fn in_a_drain_tasks_may_end() {
        let tasks = Tasks::new();
        let draining = tasks.draining();
        tasks.run("reader", OnEnd::Vital, async move {
            draining.cancelled().await;
        });
        tasks.begin_drain();
        tasks.ended_all().await;
        assert!(tasks.failure.borrow().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn phases_share_one_deadline() {
        let mut drain = Drain::within(Duration::from_secs(2));
        assert_eq!(drain.phase("quick", async { 1 }).await, Some(1));
        assert_eq!(
            drain.phase("stuck", std::future::pending::<()>()).await,
            None
        );
        assert_eq!(
            drain.phase("late", std::future::pending::<()>()).await,
            None
        );
        assert_eq!(drain.overdue(), ["stuck", "late"]);
    }
}
