//! One attempt: on the line that is open, or on a new one, within one total deadline.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use bytes::Bytes;
use fanfare_domain::{Outcome, OutcomeKind, Timestamp};
use fanfare_service::Clock;
use futures::FutureExt;
use tokio::time::Instant;

use crate::answer::Answer;
use crate::callee::{Callee, Prepared};
use crate::connect::Connector;
use crate::letter::Delivery;
use crate::line::{Broken, Deadline, Line};
use crate::request;

/// What an attempt came to.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) number: u32,
    pub(crate) start: Timestamp,
    pub(crate) latency: Duration,
    pub(crate) outcome: Outcome,
    /// Start of the answer's body.
    pub(crate) answer: Bytes,
    pub(crate) truncated: bool,
}

/// What attempts are made with.
pub(crate) struct Outfit {
    pub(crate) connector: Connector,
    pub(crate) clock: Clock,
    /// How long a line may be idle, and how old it may become.
    pub(crate) line_ages: (Duration, Duration),
}

/// A sender's own line, and the timer of its attempts.
pub(crate) struct Phone {
    line: Option<Line>,
    deadline: Deadline,
}

impl Phone {
    pub(crate) fn new() -> Self {
        Self {
            line: None,
            deadline: Deadline::new(),
        }
    }

    /// Attempts `delivery` once. A panic on the way is an attempt that failed by our own fault.
    pub(crate) async fn attempt(
        &mut self,
        outfit: &Outfit,
        callee: &Callee,
        delivery: &Delivery,
    ) -> Attempt {
        let number = delivery.attempts() + 1;
        let (start, clock) = (outfit.clock.now(), Instant::now());
        let call = self.call(outfit, callee, delivery, number, start);
        let caught = AssertUnwindSafe(call).catch_unwind().await;
        let answered = caught.unwrap_or_else(|_| {
            tracing::error!(delivery = %delivery.id, "an attempt panicked; this is a bug");
            let message = "the attempt failed inside Fanfare";
            Err(Outcome::failed(OutcomeKind::Internal, message))
        });
        let (outcome, answer, truncated) = match answered {
            Ok(answer) => (answer.outcome, answer.body, answer.truncated),
            Err(outcome) => (printable(outcome), Bytes::new(), false),
        };
        Attempt {
            number,
            start,
            latency: clock.elapsed(),
            outcome,
            answer,
            truncated,
        }
    }

    /// Resolves when the idle line is closed by its peer, which ends it; never without a line.
    pub(crate) async fn hung_up(&mut self) {
        match &mut self.line {
            Some(line) => line.closed().await,
            None => std::future::pending().await,
        }
        self.line = None;
    }

    async fn call(
        &mut self,
        outfit: &Outfit,
        callee: &Callee,
        delivery: &Delivery,
        number: u32,
        now: Timestamp,
    ) -> Result<Answer, Outcome> {
        let prepared = callee
            .prepared(&outfit.connector.policy)
            .map_err(Outcome::clone)?;
        self.deadline.start(callee.endpoint.timeout);
        loop {
            let mut line = self.line(outfit, prepared).await?;
            let post = request::post(callee, prepared, delivery, number, now);
            match line.exchange(post, &mut self.deadline).await {
                Ok(answer) => {
                    self.line = answer.reusable.then_some(line);
                    return Ok(answer);
                }
                // Only a line that was used before is stale, so this ends with a new one.
                Err(Broken::Stale) => {}
                Err(Broken::Failed(outcome)) => return Err(outcome),
            }
        }
    }

    async fn line(&mut self, outfit: &Outfit, prepared: &Prepared) -> Result<Line, Outcome> {
        let open = self.line.take();
        let serves = |line: &Line| line.serves(&prepared.address, Instant::now(), outfit.line_ages);
        if let Some(line) = open.filter(serves) {
            return Ok(line);
        }
        let connecting = outfit.connector.connect(&prepared.address);
        let stream = self.deadline.bound(connecting).await??;
        Line::open(stream, prepared.address.clone()).await
    }
}

/// Messages end up on terminals: no control characters, whatever an error quotes, and no novels.
fn printable(mut outcome: Outcome) -> Outcome {
    const MESSAGE_MAX: usize = 300;
    let clean = |c: char| !c.is_control();
    if outcome.message.len() > MESSAGE_MAX || !outcome.message.chars().all(clean) {
        let kept = outcome.message.chars().filter(|c| clean(*c));
        outcome.message = kept.take(MESSAGE_MAX).collect();
    }
    outcome
}
