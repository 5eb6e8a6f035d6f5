//! The comparison itself: pure, so that it is tested like any function.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::subscribers::{Pair, Wants};
use super::{Fate, Sent};

/// Who saw what: by subscriber and event id.
pub type Saw = BTreeMap<(usize, String), Pair>;

/// Deliveries that are visible dead letters: by subscriber and event id.
pub type Dead = BTreeSet<(usize, String)>;

/// Most examples kept per count.
const EXAMPLES: usize = 5;

/// What came of a run. All five must be zero, except DUP, which a crash bounds.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    /// The seed that makes the run again.
    pub seed: u64,
    /// Events the client was told are durable.
    pub acked: usize,
    /// Events refused for certain.
    pub refused: usize,
    /// Events the client knows nothing certain about.
    pub unknown: usize,
    /// Deliveries owed for acked events.
    pub owed: usize,
    /// Owed, and neither accepted by the subscriber nor a dead letter.
    pub lost: usize,
    /// Seen by a subscriber that should not have: never sent, refused, not wanted, other tenant.
    pub phantom: usize,
    /// POSTs that a subscriber accepted again after it had accepted the same delivery.
    pub dup: usize,
    /// Signature bad, body not the one published, or the `webhook-id` not constant.
    pub wrong: usize,
    /// Deliveries of one ordering key first seen out of order by an ordered subscriber.
    pub order: usize,
    /// The first of what was lost: subscriber and event.
    pub missing: Vec<(usize, String)>,
    /// Some of each, for a person.
    pub examples: Vec<String>,
}

/// Compares what a client was told with what its subscribers saw.
pub fn audit(
    seed: u64,
    told: &BTreeMap<String, Sent>,
    wants: &[Wants],
    saw: &Saw,
    dead: &Dead,
) -> Audit {
    let mut audit = Audit {
        seed,
        ..Audit::default()
    };
    for (id, sent) in told {
        audit.count_fate(sent.fate);
        if sent.fate == Fate::Acked {
            for subscriber in (0..wants.len()).filter(|index| wants[*index].includes(sent)) {
                audit.check_owed(subscriber, id, saw, dead);
            }
        }
    }
    for ((subscriber, id), pair) in saw {
        audit.check_seen(*subscriber, id, pair, told.get(id), &wants[*subscriber]);
    }
    audit.check_identity(saw);
    audit.check_order(told, wants, saw);
    audit
}

impl Audit {
    /// Panics with everything known unless nothing was lost, invented or damaged, and nothing is
    /// out of order, and at most `dup_max` POSTs were repeated.
    pub fn assert_clean(&self, dup_max: usize) {
        let clean = self.lost + self.phantom + self.wrong + self.order == 0 && self.dup <= dup_max;
        assert!(clean, "{self}\n(repeats allowed: {dup_max})");
    }

    fn count_fate(&mut self, fate: Fate) {
        match fate {
            Fate::Acked => self.acked += 1,
            Fate::Refused => self.refused += 1,
            Fate::Unknown => self.unknown += 1,
        }
    }

    fn check_owed(&mut self, subscriber: usize, id: &str, saw: &Saw, dead: &Dead) {
        self.owed += 1;
        let key = (subscriber, id.to_owned());
        let accepted = saw.get(&key).is_some_and(|pair| pair.accepted > 0);
        if !accepted && !dead.contains(&key) {
            self.lost += 1;
            if self.missing.len() < EXAMPLES {
                self.missing.push(key.clone());
            }
            self.example("LOST", subscriber, id, &format!("{:?}", saw.get(&key)));
        }
    }

    fn check_seen(
        &mut self,
        subscriber: usize,
        id: &str,
        pair: &Pair,
        sent: Option<&Sent>,
        wants: &Wants,
    ) {
        let phantom = match sent {
            None => Some("never sent"),
            Some(sent) if sent.fate == Fate::Refused => Some("refused"),
            Some(sent) if !wants.includes(sent) => Some("not wanted"),
            Some(_) => None,
        };
        if let Some(why) = phantom {
            self.phantom += 1;
            self.example("PHANTOM", subscriber, id, why);
        }
        self.dup += pair.accepted.saturating_sub(1) as usize;
        let other_body = sent.is_some_and(|sent| pair.bodies.iter().any(|body| *body != sent.body));
        if pair.unverified > 0 || other_body || pair.webhook_ids.len() != 1 {
            self.wrong += 1;
            self.example("WRONG", subscriber, id, &format!("{pair:?}"));
        }
    }

    /// A `webhook-id` names one delivery only.
    fn check_identity(&mut self, saw: &Saw) {
        let mut owners: BTreeMap<&str, &(usize, String)> = BTreeMap::new();
        for (key, pair) in saw {
            for id in &pair.webhook_ids {
                if let Some(other) = owners.insert(id, key) {
                    self.wrong += 1;
                    self.example("WRONG", key.0, &key.1, &format!("{id} is also {other:?}"));
                }
            }
        }
    }

    fn check_order(&mut self, told: &BTreeMap<String, Sent>, wants: &[Wants], saw: &Saw) {
        // Events of one subscriber and key, by their place among the acks.
        let mut lines: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for ((subscriber, id), pair) in saw {
            let key = told.get(id).and_then(|sent| sent.key.as_ref());
            if let (true, Some((key, place)), Some(at)) =
                (wants[*subscriber].ordered, key, pair.first_accepted)
            {
                lines
                    .entry((*subscriber, key))
                    .or_default()
                    .push((*place, at, id));
            }
        }
        for ((subscriber, _), mut line) in lines {
            line.sort_unstable();
            let mut latest = 0;
            for (_, at, id) in line {
                if at < latest {
                    self.order += 1;
                    self.example(
                        "ORDER",
                        subscriber,
                        id,
                        "overtaken by a later one of its key",
                    );
                }
                latest = latest.max(at);
            }
        }
    }

    fn example(&mut self, what: &str, subscriber: usize, id: &str, why: &str) {
        let same = self
            .examples
            .iter()
            .filter(|line| line.starts_with(what))
            .count();
        if same < EXAMPLES {
            self.examples.push(format!(
                "{what}: event {id} at subscriber {subscriber}: {why}"
            ));
        }
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}: acked {} refused {} unknown {} owed {} | LOST {} PHANTOM {} DUP {} WRONG {} ORDER {}",
            self.seed,
            self.acked,
            self.refused,
            self.unknown,
            self.owed,
            self.lost,
            self.phantom,
            self.dup,
            self.wrong,
            self.order
        )?;
        self.examples
            .iter()
            .try_for_each(|line| write!(f, "\n  {line}"))
    }
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
