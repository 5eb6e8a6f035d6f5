//! A sender: one task with one line, sending the deliveries of one lane one after another for as
//! long as there are any, then resting a while beside its open line.

use std::sync::Arc;
use std::time::Duration;

use fanfare_domain::retry::decide;
use fanfare_domain::{DeadLetterReason, Verdict};
use fanfare_service::crash;

use crate::attempt::{Attempt, Phone};
use crate::callee::Callee;
use crate::crew::{Assignment, Crew, Turn};
use crate::desk::{Done, Fate, Tried};
use crate::lanes::Ended;
use crate::letter::{Delivery, Origin};
use crate::report;
use crate::seat::{Call, Seat};

/// After this many failures in a row a sender takes a breath before each attempt: an endpoint
/// that refuses at once must not cost as much as all the others together.
const FAILURES_MAX: u32 = 10;
const BREATH: Duration = Duration::from_millis(20);

/// Sends until there is nothing to do for a while.
pub(crate) async fn run(crew: Arc<Crew>, first: Assignment) {
    let seat = Arc::new(Seat::new());
    let mut phone = Phone::new();
    let mut failures = 0;
    let mut assignment = first;
    loop {
        let Assignment {
            lane,
            desk,
            callee,
            delivery,
            permit,
        } = assignment;
        let mut done = send(&crew, &mut phone, callee, delivery).await;
        let ended = how(&done.fate);
        done.permit = Some(permit);
        desk.come_back(done);
        drop(desk);
        failures = match ended {
            Ended::Delivered(_) => 0,
            Ended::Failed => failures + 1,
        };
        if failures > FAILURES_MAX {
            tokio::time::sleep(BREATH).await;
        }
        assignment = match crew.next(lane, &seat, ended) {
            Turn::Go(assignment) => assignment,
            Turn::Leave => return,
            Turn::Rest => loop {
                tokio::select! {
                    biased;
                    call = seat.called() => match call {
                        Call::Go(assignment) => break assignment,
                        Call::Leave => return,
                    },
                    () = phone.hung_up() => {}
                    () = tokio::time::sleep(crew.connection_idle) => {
                        if crew.with_lanes(|lanes| lanes.may_leave(lane, &seat)) {
                            return;
                        }
                    }
                }
            },
        };
    }
}

/// Attempts a delivery once and decides what follows.
pub(crate) async fn send(
    crew: &Crew,
    phone: &mut Phone,
    callee: Arc<Callee>,
    delivery: Delivery,
) -> Done {
    let attempt = phone.attempt(&crew.outfit, &callee, &delivery).await;
    if attempt.outcome.is_delivered() {
        crash::point("worker.answered");
    }
    let verdict = judge(crew, &callee, &delivery, &attempt);
    report::attempted(&callee, &delivery, &attempt, &verdict);
    Done {
        delivery,
        fate: Fate::Attempted(Tried {
            attempt,
            verdict,
            callee,
        }),
        permit: None,
    }
}

fn judge(crew: &Crew, callee: &Callee, delivery: &Delivery, attempt: &Attempt) -> Verdict {
    if attempt.outcome.is_delivered() {
        return Verdict::Delivered;
    }
    if matches!(delivery.origin, Origin::Test(_)) {
        // Never again, and no dead letter either: see the plan.
        return Verdict::DeadLetter(DeadLetterReason::AttemptsExhausted);
    }
    let chain = delivery.chain();
    let before = chain.map_or(0, |row| row.attempts_before);
    let first = chain.map_or(attempt.start, |row| row.first_attempt);
    let schedule = callee.endpoint.retry_schedule.as_ref();
    decide(
        &attempt.outcome,
        attempt.number.saturating_sub(before),
        first,
        schedule.unwrap_or(&crew.schedule),
        crew.outfit.clock.now(),
        &mut rand::rng(),
    )
}

fn how(fate: &Fate) -> Ended {
    match fate {
        Fate::Attempted(tried) if tried.attempt.outcome.is_delivered() => {
            Ended::Delivered(tried.attempt.latency)
        }
        _ => Ended::Failed,
    }
}
