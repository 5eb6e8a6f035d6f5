//! A real subscriber: an HTTP server on loopback that remembers what it got and answers as told.
//!
//! [`Sink`] is what stories use: it keeps every [`Receipt`] and follows a [`Script`]. Underneath,
//! [`serve`] turns each POST into an [`Arrival`] for any [`Receive`], which is how the ledger
//! counts a million of them without keeping bodies.

mod answer;
mod receipt;
mod script;
mod server;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard};

pub use answer::{Answer, Gate, Pace};
pub use receipt::Receipt;
pub use script::Script;
pub use server::{Arrival, Receive, SinkServer, serve};

use crate::eventually;

/// One receiver with an address of its own.
pub struct Sink {
    server: SinkServer,
    book: Arc<Book>,
}

/// What it was told and what it saw.
struct Book {
    state: Mutex<State>,
}

struct State {
    script: Script,
    receipts: Vec<Receipt>,
    attempts: HashMap<String, u32>,
}

impl Sink {
    /// Starts on a free port of loopback and answers by `script`.
    pub async fn start(script: Script) -> Self {
        let state = State {
            script,
            receipts: Vec::new(),
            attempts: HashMap::new(),
        };
        let book = Arc::new(Book {
            state: Mutex::new(state),
        });
        Self {
            server: serve(book.clone()).await,
            book,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Where an endpoint should call it.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address())
    }

    /// From now on answers by `script`.
    pub fn follow(&self, script: Script) {
        self.book.lock().script = script;
    }

    /// Everything received so far, in order of arrival.
    pub fn receipts(&self) -> Vec<Receipt> {
        self.book.lock().receipts.clone()
    }

    /// Receipts that were answered 2xx, in order of arrival.
    pub fn accepted(&self) -> Vec<Receipt> {
        self.receipts()
            .into_iter()
            .filter(Receipt::accepted)
            .collect()
    }

    /// Waits until at least `count` POSTs were answered 2xx and returns them.
    pub async fn receives(&self, count: usize) -> Vec<Receipt> {
        self.waits_for(&format!("{count} deliveries"), count, Self::accepted)
            .await
    }

    /// Waits until at least `count` POSTs came, whatever they were answered, and returns them.
    pub async fn attempts(&self, count: usize) -> Vec<Receipt> {
        self.waits_for(&format!("{count} attempts"), count, Self::receipts)
            .await
    }

    /// How many requests are open: received and not answered yet.
    pub fn open(&self) -> usize {
        self.server.open()
    }

    async fn waits_for(
        &self,
        what: &str,
        count: usize,
        seen: impl Fn(&Self) -> Vec<Receipt>,
    ) -> Vec<Receipt> {
        eventually(what, async || {
            let receipts = seen(self);
            if receipts.len() >= count {
                ControlFlow::Break(receipts)
            } else {
                ControlFlow::Continue(summary(&self.receipts()))
            }
        })
        .await
    }
}

impl Book {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no test panics while it holds this")
    }
}

impl Receive for Book {
    fn receive(&self, arrival: Arrival) -> Answer {
        let state = &mut *self.lock();
        let id = arrival.header("webhook-id").to_owned();
        let attempt = state
            .attempts
            .entry(id)
            .and_modify(|n| *n += 1)
            .or_insert(1);
        let answer = state.script.answer(*attempt);
        state
            .receipts
            .push(Receipt::new(arrival, *attempt, &answer));
        answer
    }
}

fn summary(receipts: &[Receipt]) -> String {
    let mut text = format!("{} POSTs came", receipts.len());
    for receipt in receipts.iter().rev().take(8).rev() {
        let _ = write!(
            text,
            "; {} try {} -> {}",
            receipt.header("ce-type"),
            receipt.attempt,
            receipt.answered
        );
    }
    text
}
