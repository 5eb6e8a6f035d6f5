//! Whether the process lives and whether it is ready, as named conditions with one sentence each.
//!
//! Liveness fails only when nothing but a restart helps. Readiness fails while the process should
//! not be given work. Who knows a condition sets it; nothing here polls.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often the log says a sentence that changes while its condition does not.
const SAID_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What a condition bears on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bears {
    /// Failing means: restart me.
    OnLiveness,
    /// Failing means: give me no work now.
    OnReadiness,
}

/// All conditions of a process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<Vec<State>>>);

/// One condition; whoever holds it says how it stands. Clones are the same condition.
#[derive(Clone, Debug)]
pub struct Condition {
    health: Health,
    index: usize,
}

/// How things stand: the answer to one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether every condition holds.
    pub ok: bool,
    /// One line per condition: `ok|failing name: sentence`.
    pub text: String,
}

#[derive(Debug)]
struct State {
    name: &'static str,
    bears: Bears,
    holds: bool,
    sentence: String,
    /// When the log last said how it stands.
    said: Option<Instant>,
}

impl Health {
    /// No conditions: alive and ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition that does not hold yet, for the reason in `sentence`.
    pub fn condition(
        &self,
        name: &'static str,
        bears: Bears,
        sentence: impl Into<String>,
    ) -> Condition {
        let mut states = self.states();
        states.push(State {
            name,
            bears,
            holds: false,
            sentence: sentence.into(),
            said: None,
        });
        Condition {
            health: self.clone(),
            index: states.len() - 1,
        }
    }

    /// Whether the process should go on living.
    pub fn liveness(&self) -> Report {
        self.report(|bears| bears == Bears::OnLiveness)
    }

    /// Whether the process should be given work: alive, and ready.
    pub fn readiness(&self) -> Report {
        self.report(|_| true)
    }

    fn report(&self, counts: impl Fn(Bears) -> bool) -> Report {
        let states = self.states();
        let relevant: Vec<_> = states.iter().filter(|s| counts(s.bears)).collect();
        let lines = relevant.iter().map(|s| {
            let how = if s.holds { "ok" } else { "failing" };
            format!("{how} {}: {}\n", s.name, s.sentence)
        });
        Report {
            ok: relevant.iter().all(|s| s.holds),
            text: lines.collect(),
        }
    }

    fn states(&self) -> std::sync::MutexGuard<'_, Vec<State>> {
        // A panic while holding it leaves plain values behind: they are still right.
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    /// Whether the log is to say how it stands from now on. The first symptom is often not the cause, so a
    /// sentence that changes while it fails is news, too, yet not each second.
    fn is_news(&self, holds: bool, sentence: &str, now: Instant) -> bool {
        let is_due = || {
            self.said
                .is_none_or(|at| now.duration_since(at) >= SAID_AGAIN_AFTER)
        };
        self.holds != holds || (!holds && self.sentence != sentence && is_due())
    }
}

impl Condition {
    /// It holds; `sentence` says what is well.
    pub fn holds(&self, sentence: impl Into<String>) {
        self.set(true, sentence.into());
    }

    /// It does not hold; `sentence` says what is wrong and what to do.
    pub fn fails(&self, sentence: impl Into<String>) {
        self.set(false, sentence.into());
    }

    fn set(&self, holds: bool, sentence: String) {
        let mut states = self.health.states();
        let state = &mut states[self.index];
        let now = Instant::now();
        if state.is_news(holds, &sentence, now) {
            tracing::info!(condition = state.name, holds, sentence, "health changed");
            state.said = Some(now);
        }
        state.holds = holds;
        state.sentence = sentence;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_needs_everything_and_liveness_only_its_own() {
        let health = Health::new();
        let engine = health.condition("engine", Bears::OnLiveness, "starting");
        let intake = health.condition("intake", Bears::OnReadiness, "starting");
        engine.holds("writes are durable");
        assert!(health.liveness().ok);
        assert!(!health.readiness().ok);
        intake.holds("accepting events");
        assert!(health.readiness().ok);
        engine.fails("an fsync failed: look at the disk, then restart");
        assert!(!health.liveness().ok);
        assert_eq!(
            health.readiness().text,
            "failing engine: an fsync failed: look at the disk, then restart\n\
             ok intake: accepting events\n"
        );
    }

    #[test]
    fn the_log_says_what_changes_and_the_cause_once_it_is_known() {
        let now = Instant::now();
        let state = |holds| State {
            name: "log",
            bears: Bears::OnReadiness,
            holds,
            sentence: "no leader".into(),
            said: Some(now),
        };
        let (soon, later) = (now + Duration::from_secs(1), now + SAID_AGAIN_AFTER);
        assert!(state(true).is_news(false, "no leader", soon));
        assert!(state(false).is_news(true, "at work", soon));
        assert!(state(false).is_news(false, "no brokers", later));
        assert!(!state(false).is_news(false, "no brokers", soon));
        assert!(!state(false).is_news(false, "no leader", later));
        assert!(!state(true).is_news(true, "still at work", later));
    }
}
