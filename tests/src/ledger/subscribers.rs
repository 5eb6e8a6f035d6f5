//! The subscribers' side: one receiver, many hooks, and what each has seen of each event.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use standardwebhooks::Webhook;

use super::{Saw, Sent, fingerprint};
use crate::sink::{Answer, Arrival, Pace, Receive, SinkServer, serve};

/// Which events a subscriber should get: the oracle's own idea of matching.
#[derive(Clone, Debug)]
pub struct Wants {
    /// Whose subscription it is.
    pub tenant: String,
    /// Exact types, or `prefix.**`.
    pub patterns: Vec<String>,
    /// Whether it asked for order per key.
    pub ordered: bool,
}

/// How a subscriber behaves, decided per delivery from its id so that a run can be repeated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manners {
    /// Of 100 deliveries, how many are answered 503 at first.
    pub stumbles: u64,
    /// How many times such a delivery is refused before it is taken.
    pub refusals: u32,
    /// How long it takes over each answer.
    pub delay: Duration,
}

/// Everything one subscriber saw of one event.
#[derive(Clone, Debug, Default)]
pub struct Pair {
    /// Distinct `webhook-id`s; one, if all is well.
    pub webhook_ids: Vec<String>,
    /// Distinct hashes of bodies; one, if all is well.
    pub bodies: Vec<u64>,
    /// POSTs.
    pub attempts: u32,
    /// POSTs that were answered 2xx.
    pub accepted: u32,
    /// POSTs whose signature the official library refused.
    pub unverified: u32,
    /// When it was first answered 2xx, as a count of all POSTs.
    pub first_accepted: Option<u64>,
}

/// A set of subscribers on one address.
pub struct Subscribers {
    server: SinkServer,
    book: Arc<Book>,
}

#[derive(Default)]
struct Book {
    hooks: Mutex<Vec<Hook>>,
    saw: Mutex<Saw>,
    posts: Arc<AtomicU64>,
}

struct Hook {
    wants: Wants,
    manners: Manners,
    secrets: Vec<Webhook>,
}

impl Wants {
    /// Of a tenant, by patterns: exact types, or `prefix.**`.
    pub fn new(tenant: &str, patterns: &[&str]) -> Self {
        Self {
            tenant: tenant.to_owned(),
            patterns: patterns
                .iter()
                .map(|pattern| (*pattern).to_owned())
                .collect(),
            ordered: false,
        }
    }

    /// Whether `sent` is owed to it.
    pub fn includes(&self, sent: &Sent) -> bool {
        self.covers(&sent.tenant, &sent.event_type)
    }

    /// Whether events of a type are owed to it.
    pub fn covers(&self, tenant: &str, event_type: &str) -> bool {
        self.tenant == tenant && self.patterns.iter().any(|p| matches(p, event_type))
    }
}

fn matches(pattern: &str, event_type: &str) -> bool {
    match pattern.strip_suffix("**") {
        Some(prefix) => event_type.len() > prefix.len() && event_type.starts_with(prefix),
        None => pattern == event_type,
    }
}

impl Subscribers {
    /// Starts the receiver, with no hook yet.
    pub async fn start() -> Self {
        let book = Arc::new(Book::default());
        Self {
            server: serve(book.clone()).await,
            book,
        }
    }

    /// Adds a hook and returns its number and its URL. It verifies nothing until [`Self::trust`].
    pub fn add(&self, wants: Wants, manners: Manners) -> (usize, String) {
        let mut hooks = self.book.hooks.lock().unwrap();
        hooks.push(Hook {
            wants,
            manners,
            secrets: Vec::new(),
        });
        let index = hooks.len() - 1;
        (index, format!("http://{}/{index}", self.server.address()))
    }

    /// Accepts signatures under `secret` at hook `index`, besides those it accepts already.
    pub fn trust(&self, index: usize, secret: &str) {
        let secret = Webhook::new(secret).expect("a whsec_ secret");
        self.book.hooks.lock().unwrap()[index].secrets.push(secret);
    }

    /// Changes how hook `index` behaves from now on.
    pub fn behave(&self, index: usize, manners: Manners) {
        self.book.hooks.lock().unwrap()[index].manners = manners;
    }

    /// What every hook wants, by number.
    pub fn wants(&self) -> Vec<Wants> {
        self.book
            .hooks
            .lock()
            .unwrap()
            .iter()
            .map(|hook| hook.wants.clone())
            .collect()
    }

    /// A copy of everything seen.
    pub fn saw(&self) -> Saw {
        self.book.saw.lock().unwrap().clone()
    }

    /// POSTs so far.
    pub fn posts(&self) -> u64 {
        self.book.posts.load(Ordering::Relaxed)
    }

    /// The counter of them.
    pub(super) fn posts_counter(&self) -> Arc<AtomicU64> {
        self.book.posts.clone()
    }

    /// POSTs read and not answered yet.
    pub fn open(&self) -> usize {
        self.server.open()
    }
}

impl Receive for Book {
    fn receive(&self, arrival: Arrival) -> Answer {
        let post = self.posts.fetch_add(1, Ordering::Relaxed) + 1;
        let index: usize = arrival.path[1..]
            .parse()
            .expect("the path is a hook's number");
        let hooks = self.hooks.lock().unwrap();
        let hook = &hooks[index];
        let verified = hook
            .secrets
            .iter()
            .any(|key| key.verify(&arrival.body, &arrival.headers).is_ok());
        let mut saw = self.saw.lock().unwrap();
        let pair = saw
            .entry((index, arrival.header("ce-id").to_owned()))
            .or_default();
        let answer = hook
            .manners
            .answer(arrival.header("webhook-id"), pair.attempts);
        pair.note(&arrival, verified, (answer.status == 200).then_some(post));
        answer
    }
}

impl Pair {
    fn note(&mut self, arrival: &Arrival, verified: bool, accepted: Option<u64>) {
        add_new(
            &mut self.webhook_ids,
            arrival.header("webhook-id").to_owned(),
        );
        add_new(&mut self.bodies, fingerprint(&arrival.body));
        self.attempts += 1;
        self.accepted += u32::from(accepted.is_some());
        self.unverified += u32::from(!verified);
        self.first_accepted = self.first_accepted.or(accepted);
    }
}

fn add_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

impl Manners {
    fn answer(&self, webhook_id: &str, attempts_before: u32) -> Answer {
        let stumbles = fingerprint(webhook_id.as_bytes()) % 100 < self.stumbles;
        let status = if stumbles && attempts_before < self.refusals {
            503
        } else {
            200
        };
        let pace = if self.delay.is_zero() {
            Pace::AtOnce
        } else {
            Pace::After(self.delay)
        };
        Answer::status(status).pace(pace)
    }
}
