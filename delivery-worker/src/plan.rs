//! What must be written for a batch of deliveries that left memory: a pure function of what became
//! of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use fanfare_domain::{
    DeadLetterReason, DeliveryId, Endpoint, EndpointId, ParkedReason, Place, Timestamp, Verdict,
};
use fanfare_store::{AttemptRow, DeadLetter, DueHint, Parked, ParkedKey, RetryRow, RetryState};

use crate::attempt::Attempt;
use crate::crew::Permit;
use crate::desk::{Aside, Done, Fate, Tried};
use crate::letter::{Delivery, Origin, Part};

/// A part to settle, and the permit that its commit gives back.
pub(crate) type Settled = (Part, Option<Permit>);

/// A batch, sorted by what must happen to it.
#[derive(Default)]
pub(crate) struct Batch {
    /// For the history.
    pub(crate) attempts: Vec<AttemptRow>,
    /// Delivered at the first try, or a test: nothing but history to write.
    pub(crate) plain: Vec<Settled>,
    /// Everything else.
    pub(crate) plan: Plan,
}

/// Writes, and what follows once they are durable. Plans can be merged.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) dead_letters: Vec<DeadLetter>,
    pub(crate) retries: Vec<RetryRow>,
    /// The hints of those of `retries` that are due.
    pub(crate) due: Vec<DueHint>,
    pub(crate) parked: Vec<Parked>,
    /// Hints that fired and parked rows whose fate is written by the above.
    pub(crate) forget: Vec<DueHint>,
    pub(crate) unpark: BTreeMap<EndpointId, Vec<ParkedKey>>,
    /// Rows that are parked still and no longer in hand.
    pub(crate) put_back: BTreeMap<EndpointId, usize>,
    pub(crate) settle: Vec<Settled>,
    pub(crate) let_go: Vec<DeliveryId>,
    /// Endpoints that answered 410, as they were called.
    pub(crate) gone: Vec<Arc<Endpoint>>,
    /// Of deliveries that are no part of a record: given back when all is written.
    pub(crate) permits: Vec<Permit>,
    /// How many deliveries it is about.
    pub(crate) count: usize,
}

/// What the sorting goes by.
pub(crate) struct Rules<'a> {
    /// The span that records were read from.
    pub(crate) span: u16,
    pub(crate) now: Timestamp,
    /// The moment to write instead of one that may no longer be written.
    pub(crate) not_behind: &'a (dyn Fn(Timestamp) -> Timestamp + Sync),
}

impl Batch {
    /// Sorts what was handed in.
    pub(crate) fn sort(done: Vec<Done>, rules: &Rules<'_>) -> Self {
        let mut batch = Self::default();
        for Done {
            delivery,
            fate,
            permit,
        } in done
        {
            match fate {
                Fate::Attempted(tried) => batch.tried(&delivery, tried, permit, rules),
                Fate::Aside(aside) => batch.plan.aside(&delivery, aside, rules),
            }
        }
        batch
    }

    fn tried(
        &mut self,
        delivery: &Delivery,
        tried: Tried,
        permit: Option<Permit>,
        rules: &Rules<'_>,
    ) {
        let Tried {
            attempt,
            verdict,
            callee,
        } = tried;
        if let Origin::Test(part) = delivery.origin {
            // Tried once, whatever came of it.
            self.attempts.push(attempt_row(delivery, attempt, None));
            return self.plain.push((part, permit));
        }
        let plan = &mut self.plan;
        let mut next_attempt = None;
        match verdict {
            Verdict::Delivered => {
                if let Origin::Fresh(part) = delivery.origin {
                    self.attempts.push(attempt_row(delivery, attempt, None));
                    return self.plain.push((part, permit));
                }
                if delivery.chain().is_some() {
                    let state = RetryState::Delivered(rules.now);
                    plan.retries.push(retry_row(delivery, &attempt, state));
                }
            }
            Verdict::RetryAt(at) => {
                let at = (rules.not_behind)(at);
                next_attempt = Some(at);
                plan.retry_at(delivery, &attempt, at);
            }
            Verdict::DeadLetter(reason) => plan.give_up(delivery, Some(&attempt), reason, rules),
            Verdict::DisableEndpoint => {
                plan.give_up(delivery, Some(&attempt), DeadLetterReason::Gone, rules);
                plan.gone.push(callee.endpoint.clone());
            }
        }
        self.attempts
            .push(attempt_row(delivery, attempt, next_attempt));
        self.plan.leave(delivery, permit);
    }
}

impl Plan {
    /// Adds another plan to this one.
    pub(crate) fn merge(&mut self, other: Self) {
        self.dead_letters.extend(other.dead_letters);
        self.retries.extend(other.retries);
        self.due.extend(other.due);
        self.parked.extend(other.parked);
        self.forget.extend(other.forget);
        for (endpoint, keys) in other.unpark {
            self.unpark.entry(endpoint).or_default().extend(keys);
        }
        for (endpoint, count) in other.put_back {
            *self.put_back.entry(endpoint).or_default() += count;
        }
        self.settle.extend(other.settle);
        self.let_go.extend(other.let_go);
        self.gone.extend(other.gone);
        self.permits.extend(other.permits);
        self.count += other.count;
    }

    fn aside(&mut self, delivery: &Delivery, aside: Aside, rules: &Rules<'_>) {
        match (aside, &delivery.origin) {
            (Aside::End(reason), _) => self.give_up(delivery, None, reason, rules),
            (Aside::Park(_), Origin::Parked(..)) => {
                // Its row is there already.
                *self.put_back.entry(delivery.endpoint()).or_default() += 1;
                self.let_go.push(delivery.id);
                self.count += 1;
                return;
            }
            (Aside::Park(reason), Origin::Fresh(part) | Origin::Test(part)) => {
                let key = ParkedKey {
                    place: Place {
                        span: rules.span,
                        position: part.position,
                    },
                    part: part.index,
                };
                self.park(delivery, key, reason, rules);
            }
            (Aside::Park(reason), Origin::Retry(..)) => {
                self.park(delivery, retry_key(delivery), reason, rules);
            }
        }
        self.leave(delivery, None);
    }

    /// What is left to do about a delivery once its fate is written.
    fn leave(&mut self, delivery: &Delivery, permit: Option<Permit>) {
        self.count += 1;
        match &delivery.origin {
            Origin::Fresh(part) | Origin::Test(part) => {
                return self.settle.push((*part, permit));
            }
            Origin::Parked(key, _) => {
                let keys = self.unpark.entry(delivery.endpoint()).or_default();
                keys.push(*key);
            }
            Origin::Retry(hint, _) => self.forget.push(*hint),
        }
        self.let_go.push(delivery.id);
        self.permits.extend(permit);
    }

    fn retry_at(&mut self, delivery: &Delivery, attempt: &Attempt, at: Timestamp) {
        let state = RetryState::DueAt(at);
        self.retries.push(retry_row(delivery, attempt, state));
        self.due.push(DueHint {
            due: at,
            delivery: delivery.id,
        });
    }

    /// A dead letter; and when there is a chain, its end.
    fn give_up(
        &mut self,
        delivery: &Delivery,
        attempt: Option<&Attempt>,
        reason: DeadLetterReason,
        rules: &Rules<'_>,
    ) {
        let letter = &delivery.letter;
        self.dead_letters.push(DeadLetter {
            delivery: delivery.id,
            tenant: letter.event.tenant.clone(),
            subscription: delivery.target.subscription,
            event: letter.reference.clone(),
            event_type: letter.event.event.event_type.clone(),
            generation: letter.generation,
            reason,
            at: rules.now,
            attempts: attempt.map_or(delivery.attempts(), |attempt| attempt.number),
            redriven: None,
        });
        let state = RetryState::DeadLetter(rules.now);
        match (delivery.chain(), attempt) {
            (Some(_), Some(attempt)) => self.retries.push(retry_row(delivery, attempt, state)),
            (Some(chain), None) => self.retries.push(RetryRow {
                state,
                ..chain.clone()
            }),
            // Never retried: the dead letter says it all.
            (None, _) => {}
        }
    }

    fn park(
        &mut self,
        delivery: &Delivery,
        key: ParkedKey,
        reason: ParkedReason,
        rules: &Rules<'_>,
    ) {
        self.parked.push(Parked {
            endpoint: delivery.endpoint(),
            key,
            delivery: delivery.id,
            tenant: delivery.letter.event.tenant.clone(),
            subscription: delivery.target.subscription,
            event: delivery.letter.reference.clone(),
            generation: delivery.letter.generation,
            reason,
            since: rules.now,
        });
    }
}

/// A retry has no delivery record: it stands where its event lies, in a part that no record has
/// and that no other delivery of the event to this endpoint has.
fn retry_key(delivery: &Delivery) -> ParkedKey {
    let [.., a, b, c, d] = *delivery.id.as_bytes();
    ParkedKey {
        place: delivery.letter.reference.place,
        part: u32::from_be_bytes([a, b, c, d]) | 1 << 31,
    }
}

fn retry_row(delivery: &Delivery, attempt: &Attempt, state: RetryState) -> RetryRow {
    let chain = delivery.chain();
    RetryRow {
        delivery: delivery.id,
        tenant: delivery.letter.event.tenant.clone(),
        subscription: delivery.target.subscription,
        event: delivery.letter.reference.clone(),
        generation: delivery.letter.generation,
        attempts: attempt.number,
        attempts_before: chain.map_or(0, |row| row.attempts_before),
        first_attempt: chain.map_or(attempt.start, |row| row.first_attempt),
        last_outcome: attempt.outcome.clone(),
        state,
    }
}

fn attempt_row(
    delivery: &Delivery,
    attempt: Attempt,
    next_attempt: Option<Timestamp>,
) -> AttemptRow {
    let letter = &delivery.letter;
    AttemptRow {
        tenant: letter.event.tenant.clone(),
        delivery: delivery.id,
        subscription: delivery.target.subscription,
        event: letter.reference.clone(),
        event_type: letter.event.event.event_type.clone(),
        number: attempt.number,
        start: attempt.start,
        latency: attempt.latency,
        outcome: attempt.outcome,
        next_attempt,
        answer: attempt.answer,
        answer_truncated: attempt.truncated,
    }
}
