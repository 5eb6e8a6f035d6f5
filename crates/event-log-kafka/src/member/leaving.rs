//! How a consumer is closed so that its group hears of it.
//!
//! Who goes without a word holds its group up until its session ends: nothing is assigned, what the others
//! commit waits behind their part in the rebalance, and their leases run out. Closing the client is not
//! enough:
//!
//! - It leaves once it has given its spans back, and not at all when it has none (classic protocol).
//!   Unsubscribing makes it say so.
//! - A member whose first request to join is not answered has no name yet to leave under.
//! - The word that waits behind another request, such as our part in a rebalance, is given up after 5 s.
//!
//! So a consumer is closed when the group knows us and nothing of ours is on its way. That takes as long as
//! other members take to let go, at most, and never longer than a deadline; nobody is waited for while no
//! broker answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

use super::Standing;
use super::thread::{Polling, TICK};
use crate::config::GroupProtocol;
use crate::layout::Seat;

/// Requests that can follow one another in a rebalance: to join, for the partitions that there are, for our
/// part. With as many questions answered and no turn in between, none of them is on its way.
const QUESTIONS: usize = 4;
/// How long an answer is waited for before the brokers are looked for.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Why a consumer is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// It is to leave.
    Over,
    /// It does not do as it is told.
    Broken,
}

impl Polling {
    /// Leaves the group.
    pub(super) fn close(mut self, reason: Reason) {
        let deadline = self.leave_until();
        self.member.lose_all();
        if reason == Reason::Over {
            self.settle(deadline);
        }
        self.member.stop_mail();
        for index in &self.owned {
            self.member.slots[index].close();
        }
        self.consumer.context().close();
        if reason == Reason::Over {
            self.say_so(deadline);
        }
        // The thread that commits has a handle, too: the last one closes the consumer, which polls.
        while Arc::strong_count(&self.consumer) > 1 && Instant::now() < deadline {
            // The client's queue must be served; what comes out is ours no more.
            let _ = self.consumer.poll(TICK);
        }
    }

    fn leave_until(&self) -> Instant {
        let soon = Instant::now() + self.member.terms.config.commit_timeout();
        match self.member.state.lock().standing {
            Standing::Leaving(by) => by.max(soon),
            Standing::Joined | Standing::Ended => soon,
        }
    }

    /// Takes part in the group until it has taken us in and nothing of ours is on its way.
    fn settle(&mut self, deadline: Instant) {
        let mut quiet = 0;
        while quiet < QUESTIONS && Instant::now() < deadline {
            let turns = self.consumer.context().turns();
            let refused = matches!(self.consumer.poll(TICK), Some(Err(_)));
            if self.turn().is_err() || !self.is_answered(deadline) {
                return;
            }
            let now = self.consumer.context().turns();
            if now == 0 && refused {
                // Who cannot join need not leave.
                return;
            }
            let still = now == turns && self.is_in(now) && self.drain.is_none();
            quiet = if still { quiet + 1 } else { 0 };
        }
    }

    /// Whether the group has taken us in, judged by the turns there were. Brokers that balance the group
    /// answer a member that joins at once, and give no turn to one that gets nothing.
    fn is_in(&self, turns: u64) -> bool {
        turns > 0 || self.member.terms.config.group_protocol == GroupProtocol::Consumer
    }

    /// Makes the client say that we leave where closing it would not.
    fn say_so(&mut self, deadline: Instant) {
        let drain = self.drain.take();
        if drain.is_none() && !self.owned.is_empty() {
            return;
        }
        self.consumer.unsubscribe();
        // Not before: the generation after it is none of ours.
        if let Some(Err(error)) = drain.map(|drain| self.unassign(&drain.indexes)) {
            tracing::warn!(%error, "giving spans back while leaving");
        }
        // In a rebalance it is said once that is over.
        for _ in 0..QUESTIONS {
            let _ = self.consumer.poll(TICK);
            if !self.is_answered(deadline) {
                return;
            }
        }
    }

    /// Waits until the group's coordinator answers. It answers one request of ours after the other: those
    /// that were sent before are answered, too. False when it cannot or not in time.
    fn is_answered(&self, deadline: Instant) -> bool {
        loop {
            match self.ask_coordinator(deadline) {
                Ok(()) => return true,
                Err(error) if is_late(&error) && self.brokers_answer() => {}
                Err(error) => {
                    tracing::debug!(stream = ?self.member.stream, %error, "the group is not heard of");
                    return false;
                }
            }
            if Instant::now() >= deadline {
                return false;
            }
        }
    }

    fn ask_coordinator(&self, deadline: Instant) -> KafkaResult<()> {
        let Some(Seat { topic, partition }) = self.any_seat() else {
            return Ok(());
        };
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(topic, *partition);
        let left = deadline.saturating_duration_since(Instant::now());
        let offsets = self.consumer.committed_offsets(list, left.min(ANSWER_MAX));
        offsets.map(drop)
    }

    /// Asked on another connection than the coordinator's.
    fn brokers_answer(&self) -> bool {
        let topic = self.any_seat().map(|seat| &*seat.topic);
        self.consumer.fetch_metadata(topic, ANSWER_MAX).is_ok()
    }

    fn any_seat(&self) -> Option<&Seat> {
        self.member.slots.values().next().map(|slot| &slot.seat)
    }
}

fn is_late(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut)
}
