//! What readiness rests on while a process of a cluster runs: whether the log takes records,
//! whether the store answers, whether deliveries move. Lag alone is an alarm, not a reason to take
//! a process out.

use std::sync::Arc;
use std::time::Duration;

use fanfare_event_log::Stream;
use fanfare_event_log_kafka::KafkaLog;
use fanfare_service::HumanDuration;
use fanfare_service::health::{Bears, Condition, Health};
use fanfare_store::Follower;
use tokio::time::Instant;

use crate::config::Role;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The store has not answered for this long: beyond a node that is replaced by its neighbour.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Ages are looked at once a second, so the same delivery's birth wobbles by about that.
const WOBBLE: Duration = Duration::from_secs(5);

/// Looks at the log.
pub(super) async fn log(log: Arc<KafkaLog>, role: Role, health: Health) {
    let condition = health.condition("log", Bears::OnReadiness, "not looked at yet");
    let stream = match role {
        Role::Worker => Stream::Deliveries,
        Role::Everything | Role::Router => Stream::Events,
    };
    loop {
        match log.check_writable(stream).await {
            Ok(()) => condition.holds("records can be appended"),
            Err(sentence) => condition.fails(sentence),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Looks at the store, by when the configuration was last confirmed.
pub(super) async fn store(follower: Arc<Follower>, health: Health) {
    let condition = health.condition("store", Bears::OnReadiness, "not looked at yet");
    loop {
        let age = follower.age();
        if age <= SILENCE_MAX {
            condition.holds("the store answers");
        } else {
            let age = HumanDuration::from_secs(age.as_secs());
            condition.fails(format!("the store has not answered for {age}; see to it"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Looks at how old the oldest delivery is, and whether it has been the same for `stall_max`: it is
/// settled after the longest attempt, one way or the other.
pub(super) async fn deliveries(age: impl Fn() -> Duration, stall_max: Duration, health: Health) {
    let condition = health.condition("deliveries", Bears::OnReadiness, "not looked at yet");
    let mut stall = Stall::new(stall_max, Instant::now());
    loop {
        stall.look(age(), Instant::now()).tell(&condition);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Since when the oldest delivery is the same.
struct Stall {
    max: Duration,
    oldest: Option<Instant>,
    since: Instant,
}

/// How deliveries go.
#[derive(Debug, PartialEq, Eq)]
enum Movement {
    Moving { age: Duration },
    Stalled { age: Duration },
}

impl Stall {
    fn new(max: Duration, now: Instant) -> Self {
        Self {
            max,
            oldest: None,
            since: now,
        }
    }

    fn look(&mut self, age: Duration, now: Instant) -> Movement {
        let born = (!age.is_zero()).then(|| now.checked_sub(age)).flatten();
        let is_same = match (born, self.oldest) {
            (Some(born), Some(oldest)) => {
                born.saturating_duration_since(oldest) < WOBBLE
                    && oldest.saturating_duration_since(born) < WOBBLE
            }
            _ => false,
        };
        if !is_same {
            (self.oldest, self.since) = (born, now);
        }
        if is_same && now.duration_since(self.since) >= self.max {
            Movement::Stalled { age }
        } else {
            Movement::Moving { age }
        }
    }
}

impl Movement {
    fn tell(&self, condition: &Condition) {
        let (Self::Moving { age } | Self::Stalled { age }) = self;
        let age = HumanDuration::from_secs(age.as_secs());
        match self {
            Self::Moving { .. } => condition.holds(format!("moving; the oldest is {age} old")),
            Self::Stalled { .. } => condition.fails(format!(
                "the oldest delivery has been owed for {age} and nothing moves; see the log of this process"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL_MAX: Duration = Duration::from_mins(2);

    #[test]
    fn only_the_same_oldest_delivery_for_long_is_a_stall() {
        let start = Instant::now() + Duration::from_hours(1);
        let mut stall = Stall::new(STALL_MAX, start);
        let at = |secs| start + Duration::from_secs(secs);
        // A backlog that is worked off: old, but never the same.
        for second in (0..600).step_by(2) {
            let age = Duration::from_secs(3000 - 5 * second);
            assert_eq!(stall.look(age, at(second)), Movement::Moving { age });
        }
        // One that stays.
        for second in 0..STALL_MAX.as_secs() {
            let age = Duration::from_secs(100 + second);
            assert_eq!(stall.look(age, at(600 + second)), Movement::Moving { age });
        }
        let age = Duration::from_secs(101) + STALL_MAX;
        let stalled = stall.look(age, at(601) + STALL_MAX);
        assert_eq!(stalled, Movement::Stalled { age });
        let idle = stall.look(Duration::ZERO, at(603) + STALL_MAX);
        assert_eq!(
            idle,
            Movement::Moving {
                age: Duration::ZERO
            }
        );
    }
}
