//! Ending: in order, because of a failure, or as a crash would.

use std::sync::Arc;

use super::{Engine, notify};
use crate::front::State;

impl Engine {
    /// Whether appends are still taken.
    pub(crate) fn is_running(&self) -> bool {
        self.front.lock().state == State::Running
    }

    /// Whether the writer may still make something durable.
    pub(crate) fn is_writing(&self) -> bool {
        self.front.lock().state != State::Stopped
    }

    /// Resolves with a sentence when the engine stopped by itself.
    pub(crate) fn failed(&self) -> impl Future<Output = String> + Send + 'static {
        let mut failure = self.failure.subscribe();
        async move {
            let failed = match failure.wait_for(Option::is_some).await {
                Ok(sentence) => sentence.clone(),
                Err(_) => None,
            };
            match failed {
                Some(sentence) => sentence,
                None => std::future::pending().await,
            }
        }
    }

    /// Closes in order; see [`crate::Embedded::close`].
    pub(crate) async fn close(self: &Arc<Self>) {
        let engine = self.clone();
        let closing = tokio::task::spawn_blocking(move || engine.end(State::Closing));
        if let Err(panic) = closing.await {
            tracing::error!(%panic, "the engine was not closed in order");
        }
    }

    /// Stops taking anything and waits for the threads. [`State::Closing`] writes what was taken;
    /// [`State::Stopped`] forgets it, as a crash would.
    pub(crate) fn end(&self, state: State) {
        {
            let mut front = self.front.lock();
            if front.state != State::Stopped {
                front.state = state;
            }
        }
        self.wake_all();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the engine panicked");
            }
        }
        self.front.lock().state = State::Stopped;
        self.wake_all();
        *self.directory.lock() = None;
    }

    /// Stops everything because of `sentence`.
    pub(crate) fn fail(&self, sentence: &str) {
        tracing::error!("{sentence}");
        {
            let mut front = self.front.lock();
            front.state = State::Stopped;
            // Dropping the waiters tells them that nobody knows.
            drop(front.take());
        }
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                *failure = Some(sentence.to_owned());
            }
            first
        });
        self.wake_all();
    }

    fn wake_all(&self) {
        {
            let _front = self.front.lock();
            self.work.notify_all();
        }
        self.flush.raise();
        self.keep.raise();
        self.compact.raise();
        self.durable_grown.notify_all();
        notify(&self.placed_news, [true; 2]);
        self.grown([true; 2]);
        self.completed_news.notify_one();
    }
}
