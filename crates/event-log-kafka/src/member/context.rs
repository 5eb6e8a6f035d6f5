//! The consumer's context: takes note of rebalances.

use std::collections::VecDeque;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};

use super::Member;
use crate::client::Common;
use crate::layout::Seat;

pub(crate) type Consumer = BaseConsumer<Context>;

/// What the group wants of us. It waits until we have said that it is so.
pub(super) enum Turn {
    /// These are ours now.
    Assign(Vec<Seat>),
    /// These are to be given back.
    Revoke(Vec<Seat>),
    /// These are not ours any more.
    Lost(Vec<Seat>),
}

/// The consumer's context. All its calls are made on the polling thread.
pub(crate) struct Context {
    common: Common,
    member: Weak<Member>,
    turns: Mutex<VecDeque<Turn>>,
    closing: AtomicBool,
    /// The client said that all brokers are down, and nobody has heard of it yet.
    down: AtomicBool,
    /// Turns that came.
    count: AtomicU64,
}

impl Context {
    pub(super) fn new(common: Common, member: Weak<Member>) -> Self {
        Self {
            common,
            member,
            turns: Mutex::default(),
            closing: AtomicBool::new(false),
            down: AtomicBool::new(false),
            count: AtomicU64::new(0),
        }
    }

    pub(super) fn next_turn(&self) -> Option<Turn> {
        self.turns.lock().pop_front()
    }

    /// From now on the group has its way at once: closing the consumer waits for it.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Whether all brokers were said to be down since this was asked last.
    pub(super) fn went_down(&self) -> bool {
        self.down.swap(false, Ordering::Relaxed)
    }

    /// How many turns there have been. The first is the group's word that we are a member.
    pub(super) fn turns(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Common::write_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.down.store(true, Ordering::Relaxed);
        }
        Common::write_error(&error, reason);
    }

    fn generate_oauth_token(
        &self,
        _: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.common.token()
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        err: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let assigned = err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            let answered = if assigned {
                take(consumer, list)
            } else {
                give_back(consumer, list)
            };
            if let Err(error) = answered {
                tracing::warn!(%error, "answering the group while leaving");
            }
            return;
        }
        let seats = seats(list);
        let turn = if assigned {
            Turn::Assign(seats)
        } else if consumer.assignment_lost() {
            // Not a moment later: others may hold these spans already.
            if let Some(member) = self.member.upgrade() {
                member.lose_all();
            }
            Turn::Lost(seats)
        } else {
            Turn::Revoke(seats)
        };
        self.turns.lock().push_back(turn);
    }
}

/// Nothing of it is read: the client stands at the ends.
fn take(consumer: &Consumer, list: &mut TopicPartitionList) -> KafkaResult<()> {
    list.set_all_offsets(Offset::End)?;
    consumer.incremental_assign(list)
}

/// The client waits for an answer even where it had not been told yet that they are ours.
fn give_back(consumer: &Consumer, list: &TopicPartitionList) -> KafkaResult<()> {
    let given_back = consumer.incremental_unassign(list);
    given_back.or_else(|_| consumer.incremental_unassign(&TopicPartitionList::new()))
}

fn seats(list: &TopicPartitionList) -> Vec<Seat> {
    list.elements()
        .iter()
        .map(|element| Seat {
            topic: element.topic().into(),
            partition: element.partition(),
        })
        .collect()
}

#[cfg(test)]
mod tests;
