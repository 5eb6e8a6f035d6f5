//! The consumer's context: takes note of rebalances.

use std::collections::VecDeque;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
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
}

impl Context {
    pub(super) fn new(common: Common, member: Weak<Member>) -> Self {
        Self {
            common,
            member,
            turns: Mutex::default(),
            closing: AtomicBool::new(false),
        }
    }

    pub(super) fn next_turn(&self) -> Option<Turn> {
        self.turns.lock().pop_front()
    }

    /// From now on whatever is wanted back is given back at once: closing the consumer waits for it.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Common::write_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
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
        if self.closing.load(Ordering::Acquire) {
            // While it closes, the client takes any answer for "nothing is ours".
            if let Err(error) = consumer.unassign() {
                tracing::warn!(%error, "giving spans back while closing");
            }
            return;
        }
        let seats = seats(list);
        let turn = if err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
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

fn seats(list: &TopicPartitionList) -> Vec<Seat> {
    list.elements()
        .iter()
        .map(|element| Seat {
            topic: element.topic().into(),
            partition: element.partition(),
        })
        .collect()
}
