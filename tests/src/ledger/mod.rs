//! The oracle: what a client was told against what subscribers saw.
//!
//! ```text
//!   Load ──publishes──▶ Fanfare ──POSTs──▶ Subscribers
//!     │ told: acked, refused, unknown          │ saw: webhook-id, event, signature, body, order
//!     └──────────────▶ audit() ◀───────────────┘
//!            LOST   PHANTOM   DUP   WRONG   ORDER
//! ```
//!
//! It knows an address, a client and receivers, never a process: it judges any deployment.
//! Everything random comes from one seed, which an [`Audit`] prints.

mod audit;
mod load;
mod subscribers;
mod trial;

use std::collections::BTreeMap;
use std::sync::Mutex;

pub use audit::{Audit, Dead, Saw, audit};
pub use load::{Load, Mix};
pub use subscribers::{Manners, Pair, Subscribers, Wants};
pub use trial::{Audience, Closing, Trial, number, register, seed, until};

/// What the client knows of one event's publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// OK was read: it must reach everyone who wants it.
    Acked,
    /// A definite refusal was read, and no earlier try was unknown: it must reach nobody.
    Refused,
    /// Neither: it may or may not arrive.
    Unknown,
}

/// One event as the client sent it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Whose it is.
    pub tenant: String,
    /// Its type.
    pub event_type: String,
    /// Its ordering key, and its place among the events of that key in the order of their acks.
    pub key: Option<(String, u64)>,
    /// Hash of its body; see [`fingerprint`].
    pub body: u64,
    /// How its publish ended.
    pub fate: Fate,
}

/// The client's side: every event it tried to publish, by id.
#[derive(Debug, Default)]
pub struct Told {
    events: Mutex<BTreeMap<String, Sent>>,
}

impl Told {
    /// Notes an event before its first try: its fate is unknown until [`Told::settle`].
    pub fn begin(&self, id: &str, sent: Sent) {
        let before = self.events.lock().unwrap().insert(id.to_owned(), sent);
        assert!(before.is_none(), "the test used event id {id} twice");
    }

    /// Notes how its publish ended.
    pub fn settle(&self, id: &str, fate: Fate) {
        let mut events = self.events.lock().unwrap();
        events.get_mut(id).expect("begun before it is settled").fate = fate;
    }

    /// How many ended so.
    pub fn count(&self, fate: Fate) -> usize {
        self.events
            .lock()
            .unwrap()
            .values()
            .filter(|sent| sent.fate == fate)
            .count()
    }

    /// A copy of everything.
    pub fn events(&self) -> BTreeMap<String, Sent> {
        self.events.lock().unwrap().clone()
    }
}

/// A hash of bytes that is the same in every run.
pub fn fingerprint(bytes: &[u8]) -> u64 {
    // FNV-1a: the bytes are compared, not defended.
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
