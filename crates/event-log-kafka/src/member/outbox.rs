//! Commits on their way to the broker: one request at a time, with all that came up meanwhile.
//!
//! The driver answers an asynchronous commit on the polling thread and says of which partitions it
//! was, but not which call; with one request on its way there is nothing to mix up. And many spans
//! that commit every few milliseconds share a request.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::context::Consumer;
use super::slot::Slot;
use super::{Member, State};
use crate::bookmark::Bookmark;
use crate::error::{CommitAnswer, of_commit};

/// A commit of one span.
pub(super) struct Letter {
    pub(super) slot: Arc<Slot>,
    pub(super) bookmark: Bookmark,
    pub(super) purpose: Purpose,
    /// Keeps other commits of the span back until this one is answered.
    #[expect(dead_code, reason = "held, and given back when it is dropped")]
    pub(super) permit: OwnedSemaphorePermit,
}

/// Who waits for the answer.
pub(super) enum Purpose {
    /// The holder of the lease.
    Holder(oneshot::Sender<CommitAnswer>),
    /// A span is claimed before its lease is granted.
    Claim,
    /// Nobody: it only shows that we still are a member.
    Renewal,
}

/// Letters waiting, and the request on its way. At most one letter per span in each.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: Vec<Letter>,
    sent: Option<(Vec<Letter>, Instant)>,
}

impl Outbox {
    /// The client is gone, and its answers with it.
    pub(super) fn clear(&mut self) {
        let sent = self.sent.take().map(|(letters, _)| letters);
        for letter in sent.into_iter().flatten().chain(self.waiting.drain(..)) {
            letter.answer(CommitAnswer::Unknown);
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.sent.is_none()
    }
}

impl Letter {
    fn answer(self, answer: CommitAnswer) {
        if let Purpose::Holder(waiting) = self.purpose {
            // Whoever asked may be gone.
            let _ = waiting.send(answer);
        }
    }
}

impl Member {
    /// Sends `letter` now, or with the next request.
    pub(super) fn post(&self, letter: Letter) {
        let mut state = self.state.lock();
        state.outbox.waiting.push(letter);
        state.send();
    }

    /// The broker has answered the request on its way.
    pub(super) fn answered(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let undelivered = {
            let mut state = self.state.lock();
            let Some((letters, at)) = state.outbox.sent.take() else {
                return;
            };
            let answers = Answers::new(result, offsets);
            for letter in letters {
                let answer = answers.of(&letter.slot);
                state.take_answer(&letter, answer, (at, self.terms.config.tenure()));
                letter.answer(answer);
            }
            state.send();
            if state.expelled {
                std::mem::take(&mut state.ready)
            } else {
                VecDeque::default()
            }
        };
        drop(undelivered);
    }
}

impl State {
    /// Sends all letters whose leases are good, unless a request is on its way.
    fn send(&mut self) {
        if self.outbox.sent.is_some() {
            return;
        }
        let mut good = Vec::new();
        for letter in std::mem::take(&mut self.outbox.waiting) {
            if self.may_commit(letter.slot.span.index, letter.bookmark.epoch) {
                good.push(letter);
            } else {
                letter.answer(CommitAnswer::Expelled);
            }
        }
        if good.is_empty() {
            return;
        }
        // Before it is sent: what is proved by the answer is that we were a member afterwards.
        let now = Instant::now();
        let sent = match &self.consumer {
            // Once it has lost its assignment the client has no generation to commit in.
            Some(consumer) if !consumer.assignment_lost() => commit(consumer, &good),
            _ => Err(KafkaError::ConsumerCommit(
                RDKafkaErrorCode::RebalanceInProgress,
            )),
        };
        match sent {
            Ok(()) => self.outbox.sent = Some((good, now)),
            Err(error) => {
                let answer = of_commit(error.rdkafka_error_code());
                for letter in good {
                    self.take_answer(&letter, answer, (now, std::time::Duration::ZERO));
                    letter.answer(answer);
                }
            }
        }
    }

    /// What an answer changes here. `proof` is when the request was sent, and how long its
    /// acknowledgement proves that we are a member.
    fn take_answer(
        &mut self,
        letter: &Letter,
        answer: CommitAnswer,
        (sent, length): (Instant, std::time::Duration),
    ) {
        let index = letter.slot.span.index;
        match answer {
            CommitAnswer::Ok => {
                for tenancy in self.tenancies.values() {
                    tenancy.tenure.extend_until(sent + length);
                }
                let held = self.tenancies.get_mut(&index);
                if let Some(held) = held.filter(|held| held.epoch == letter.bookmark.epoch) {
                    held.recorded = letter.bookmark.clone();
                }
                let claim = self.claims.get_mut(&index);
                if let Some(claim) =
                    claim.filter(|claim| claim.bookmark.epoch == letter.bookmark.epoch)
                {
                    claim.proof = Some(sent);
                }
            }
            CommitAnswer::Expelled => {
                self.expelled = true;
                self.lose_all();
            }
            CommitAnswer::Again | CommitAnswer::Unknown | CommitAnswer::TooLarge => {
                if matches!(letter.purpose, Purpose::Claim) {
                    self.claims.remove(&index);
                }
            }
        }
    }
}

fn commit(consumer: &Consumer, letters: &[Letter]) -> KafkaResult<()> {
    let mut list = TopicPartitionList::with_capacity(letters.len());
    for letter in letters {
        let seat = &letter.slot.seat;
        let mut element = list.add_partition(&seat.topic, seat.partition);
        let offset = i64::try_from(letter.bookmark.offset()).unwrap_or(i64::MAX);
        element.set_offset(Offset::Offset(offset))?;
        element.set_metadata(letter.bookmark.metadata());
    }
    consumer.commit(&list, CommitMode::Async)
}

/// The answers of one request, by partition.
struct Answers {
    whole: Option<RDKafkaErrorCode>,
    each: Vec<(String, i32, Option<RDKafkaErrorCode>)>,
}

impl Answers {
    fn new(result: KafkaResult<()>, offsets: &TopicPartitionList) -> Self {
        let code = |result: KafkaResult<()>| result.err().and_then(|e| e.rdkafka_error_code());
        let each = offsets.elements();
        let each = each
            .iter()
            .map(|e| (e.topic().to_owned(), e.partition(), code(e.error())));
        Self {
            whole: result
                .err()
                .map(|e| e.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
            each: each.collect(),
        }
    }

    fn of(&self, slot: &Slot) -> CommitAnswer {
        let seat = &slot.seat;
        let own = self
            .each
            .iter()
            .find(|(topic, partition, _)| **topic == *seat.topic && *partition == seat.partition);
        // When some partition has an error of its own, that is what the whole one stands for.
        let apart = self.each.iter().any(|(_, _, code)| code.is_some());
        match own {
            Some((_, _, code)) if apart => of_commit(*code),
            Some(_) => of_commit(self.whole),
            None => CommitAnswer::Unknown,
        }
    }
}
