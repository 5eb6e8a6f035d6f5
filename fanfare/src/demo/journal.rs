//! What the demo remembers beyond a kill: each event before it is published and once it is
//! acknowledged, each POST before it is answered. One JSON object per line, appended.
//!
//! A kill of the process loses nothing of it: what was written is the kernel's. It is compared
//! with what the server says, so it must not come from the server.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use fanfare_proto::v1;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// A line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// About to be published.
    Intent {
        id: String,
        kind: String,
        data: String,
    },
    /// Acknowledged.
    Accepted { id: String },
    /// A POST came and is about to be answered.
    Received(Receipt),
    /// The demo was stopped, not killed.
    Stopped,
}

/// A POST as the receiver judged it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Receipt {
    /// `webhook-id`.
    pub(super) delivery: String,
    /// `ce-id`.
    pub(super) event: String,
    /// Name of the endpoint.
    pub(super) endpoint: String,
    /// What it was answered.
    pub(super) status: u16,
    /// Whether the signature verified.
    pub(super) signature_ok: bool,
}

/// An event that this demo published, or meant to.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// Its type.
    pub(super) kind: String,
    pub(super) data: String,
    pub(super) accepted: bool,
    /// Whether its deliveries are told on the screen.
    pub(super) told: bool,
    /// When it was published, in this run.
    pub(super) published: Option<Instant>,
}

/// What came of one delivery at the receiver.
#[derive(Clone, Debug, Default)]
pub(super) struct Delivery {
    pub(super) event: String,
    pub(super) endpoint: String,
    /// POSTs in all.
    pub(super) tries: u32,
    /// POSTs that were taken with a good signature: more than one is a repeat.
    pub(super) taken: u32,
}

/// How the run before ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastRun {
    None,
    Stopped,
    Killed,
}

/// The journal of a directory.
#[derive(Debug)]
pub(super) struct Journal(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    file: File,
    events: HashMap<String, Event>,
    deliveries: HashMap<String, Delivery>,
    last_run: LastRun,
}

impl Journal {
    /// Reads what earlier runs wrote. A line that a kill cut short is skipped.
    pub(super) fn open(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join("journal.ndjson");
        let cannot = |e: std::io::Error| {
            Failure::refused("DEMO", format!("cannot use {} ({e})", path.display()))
        };
        std::fs::create_dir_all(dir).map_err(cannot)?;
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .append(true)
            .read(true)
            .open(&path)
            .map_err(cannot)?;
        let mut inner = Inner {
            file: file.try_clone().map_err(cannot)?,
            events: HashMap::new(),
            deliveries: HashMap::new(),
            last_run: LastRun::None,
        };
        for line in BufReader::new(&file).lines() {
            if let Ok(line) = serde_json::from_str(&line.map_err(cannot)?) {
                inner.apply(line);
            }
        }
        // After a line without its end the next one would be lost with it.
        inner.file.write_all(b"\n").map_err(cannot)?;
        Ok(Self(Mutex::new(inner)))
    }

    /// How the run before ended.
    pub(super) fn last_run(&self) -> LastRun {
        self.inner().last_run
    }

    /// An event is about to be published.
    pub(super) fn intend(&self, event: &v1::Event, told: bool) {
        let data = match &event.payload {
            Some(v1::event::Payload::Data(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            Some(v1::event::Payload::Text(text)) => text.clone(),
            None => String::new(),
        };
        let mut inner = self.inner();
        inner.write(Line::Intent {
            id: event.id.clone(),
            kind: event.r#type.clone(),
            data,
        });
        if let Some(event) = inner.events.get_mut(&event.id) {
            event.told = told;
            event.published = Some(Instant::now());
        }
    }

    /// It was acknowledged.
    pub(super) fn accepted(&self, id: &str) {
        self.inner().write(Line::Accepted { id: id.to_owned() });
    }

    /// A POST is about to be answered; tells which try of its delivery it is.
    pub(super) fn received(&self, receipt: Receipt) -> u32 {
        let mut inner = self.inner();
        let id = receipt.delivery.clone();
        inner.write(Line::Received(receipt));
        inner
            .deliveries
            .get(&id)
            .map_or(1, |delivery| delivery.tries)
    }

    /// How many POSTs of a delivery came before.
    pub(super) fn tries(&self, delivery: &str) -> u32 {
        self.inner().deliveries.get(delivery).map_or(0, |d| d.tries)
    }

    /// The demo ends in order.
    pub(super) fn stopped(&self) {
        self.inner().write(Line::Stopped);
    }

    /// An event, if it is one of ours.
    pub(super) fn event(&self, id: &str) -> Option<Event> {
        self.inner().events.get(id).cloned()
    }

    /// Every event.
    pub(super) fn events(&self) -> Vec<(String, Event)> {
        let inner = self.inner();
        inner
            .events
            .iter()
            .map(|(id, event)| (id.clone(), event.clone()))
            .collect()
    }

    /// Every delivery that came.
    pub(super) fn deliveries(&self) -> Vec<(String, Delivery)> {
        let inner = self.inner();
        inner
            .deliveries
            .iter()
            .map(|(id, d)| (id.clone(), d.clone()))
            .collect()
    }

    /// Forgets what is settled, so that the journal does not grow from run to run.
    pub(super) fn forget_all(&self) {
        let mut inner = self.inner();
        if let Err(error) = inner.file.set_len(0) {
            tracing::warn!(%error, "the demo's journal could not be emptied");
            return;
        }
        inner.events.clear();
        inner.deliveries.clear();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Plain values: a panic elsewhere leaves them right.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn write(&mut self, line: Line) {
        let written = serde_json::to_vec(&line).map_err(std::io::Error::from);
        let written = written.and_then(|mut bytes| {
            bytes.push(b'\n');
            self.file.write_all(&bytes)
        });
        if let Err(error) = written {
            tracing::warn!(%error, "the demo's journal could not be written");
        }
        self.apply(line);
    }

    fn apply(&mut self, line: Line) {
        self.last_run = match line {
            Line::Stopped => LastRun::Stopped,
            _ => LastRun::Killed,
        };
        match line {
            Line::Intent { id, kind, data } => {
                let event = Event {
                    kind,
                    data,
                    accepted: false,
                    told: false,
                    published: None,
                };
                self.events.entry(id).or_insert(event);
            }
            Line::Accepted { id } => {
                if let Some(event) = self.events.get_mut(&id) {
                    event.accepted = true;
                }
            }
            Line::Received(receipt) => {
                let delivery = self.deliveries.entry(receipt.delivery).or_default();
                delivery.event = receipt.event;
                delivery.endpoint = receipt.endpoint;
                delivery.tries += 1;
                delivery.taken += u32::from(receipt.status == 200 && receipt.signature_ok);
            }
            Line::Stopped => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(status: u16) -> Receipt {
        Receipt {
            delivery: "dlv_1".into(),
            event: "e".into(),
            endpoint: "shop".into(),
            status,
            signature_ok: true,
        }
    }

    #[test]
    fn a_journal_remembers_what_a_kill_interrupted() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        assert_eq!(journal.last_run(), LastRun::None);
        let event = v1::Event {
            id: "e".into(),
            r#type: "order.paid".into(),
            ..v1::Event::default()
        };
        journal.intend(&event, true);
        journal.accepted("e");
        assert_eq!(journal.received(receipt(503)), 1);
        // The kill cuts a line short.
        journal.inner().file.write_all(b"{\"acc").unwrap();
        drop(journal);

        let journal = Journal::open(dir.path()).unwrap();
        assert_eq!(journal.last_run(), LastRun::Killed);
        assert!(journal.event("e").unwrap().accepted);
        assert_eq!(journal.received(receipt(200)), 2);
        assert_eq!(journal.deliveries()[0].1.taken, 1);
        journal.stopped();
        drop(journal);
        let journal = Journal::open(dir.path()).unwrap();
        assert_eq!(journal.last_run(), LastRun::Stopped);
        assert_eq!(
            journal.tries("dlv_1"),
            2,
            "the line after the cut one is there"
        );
    }
}
