//! Commits on their way to the broker: one request at a time, with all that came up meanwhile.
//!
//! The driver reports an asynchronous commit to nobody, so a thread of its own commits and waits.
//! Many spans that commit every few milliseconds share a request. Spans are given back to the group
//! only while no request is on its way (see [`super::thread`]): what is sent under a lease goes out
//! in the generation of that lease, or is refused by the broker.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

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

/// A commit that takes longer is worth a line in a log that somebody reads for it.
const SLOW: Duration = Duration::from_secs(1);

/// A commit of one span.
pub(super) struct Letter {
    pub(super) slot: Arc<Slot>,
    pub(super) bookmark: Bookmark,
    pub(super) purpose: Purpose,
    /// Keeps other commits of the span back until this one is answered.
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

/// Letters waiting, at most one per span.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: Vec<Letter>,
    /// To be sent each on its own: one of them was refused for what it is, and the answer to a
    /// request does not say which.
    apart: Vec<Letter>,
    /// A request is on its way.
    busy: bool,
    /// Which consumer sends. Rises with every one.
    round: u64,
}

impl Outbox {
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }
}

impl Letter {
    fn answer(self, answer: CommitAnswer) {
        drop(self.permit);
        if let Purpose::Holder(waiting) = self.purpose {
            // Whoever asked may be gone.
            let _ = waiting.send(answer);
        }
    }
}

/// Starts the thread that commits with `consumer` until [`Member::stop_mail`].
pub(super) fn start(member: &Arc<Member>, consumer: &Arc<Consumer>) -> KafkaResult<()> {
    let round = {
        let outbox = &mut member.state.lock().outbox;
        outbox.round += 1;
        outbox.busy = false;
        outbox.round
    };
    let (member, consumer) = (member.clone(), consumer.clone());
    thread::Builder::new()
        .name("kafka-commits".into())
        .spawn(move || run(&member, &consumer, round))
        .map(drop)
        .map_err(|error| KafkaError::ClientCreation(error.to_string()))
}

fn run(member: &Member, consumer: &Consumer, round: u64) {
    while let Some(letters) = member.next_batch(round) {
        // Before it is sent: what is proved by the answer is that we were a member afterwards.
        let sent = Instant::now();
        let answer = match commit(consumer, &letters) {
            Ok(()) => CommitAnswer::Ok,
            Err(error) => {
                tracing::debug!(stream = ?member.stream, %error, "a commit was not taken");
                of_commit(error.rdkafka_error_code())
            }
        };
        let (took, spans) = (sent.elapsed(), letters.len());
        if took > SLOW {
            tracing::debug!(stream = ?member.stream, spans, ?answer, ?took, "a commit was slow");
        }
        member.answered(letters, answer, sent, round);
    }
}

impl Member {
    /// Sends `letter` with the next request.
    pub(super) fn post(&self, letter: Letter) {
        self.state.lock().outbox.waiting.push(letter);
        self.mail.notify_all();
    }

    /// Ends the thread that commits, after the request on its way.
    pub(super) fn stop_mail(&self) {
        let outbox = &mut self.state.lock().outbox;
        outbox.round += 1;
        for letter in outbox.waiting.drain(..).chain(outbox.apart.drain(..)) {
            letter.answer(CommitAnswer::Again);
        }
        self.mail.notify_all();
    }

    /// Waits for letters whose leases are good; `None` when there is another round.
    fn next_batch(&self, round: u64) -> Option<Vec<Letter>> {
        let mut state = self.state.lock();
        loop {
            if state.outbox.round != round {
                return None;
            }
            let good = state.good_letters();
            if !good.is_empty() {
                state.outbox.busy = true;
                return Some(good);
            }
            self.mail.wait(&mut state);
        }
    }

    /// The broker has answered.
    fn answered(&self, letters: Vec<Letter>, answer: CommitAnswer, sent: Instant, round: u64) {
        let undelivered = {
            let mut state = self.state.lock();
            let present = state.outbox.round == round;
            if present {
                state.outbox.busy = false;
            }
            if answer == CommitAnswer::TooLarge && letters.len() > 1 && present {
                state.outbox.apart.extend(letters);
                return;
            }
            for letter in letters {
                if present {
                    state.take_answer(&letter, answer, (sent, self.terms.config.tenure()));
                }
                letter.answer(answer);
            }
            if state.expelled {
                std::mem::take(&mut state.ready)
            } else {
                std::collections::VecDeque::default()
            }
        };
        drop(undelivered);
    }
}

impl State {
    fn good_letters(&mut self) -> Vec<Letter> {
        let letters = match self.outbox.apart.pop() {
            Some(one) => vec![one],
            None => std::mem::take(&mut self.outbox.waiting),
        };
        let mut good = Vec::with_capacity(letters.len());
        for letter in letters {
            if self.may_commit(letter.slot.span.index, letter.bookmark.epoch) {
                good.push(letter);
            } else {
                letter.answer(CommitAnswer::Expelled);
            }
        }
        good
    }

    /// What an answer changes here. `proof` is when the request was sent, and how long its
    /// acknowledgement proves that we are a member.
    fn take_answer(
        &mut self,
        letter: &Letter,
        answer: CommitAnswer,
        (sent, length): (Instant, Duration),
    ) {
        let (index, epoch) = (letter.slot.span.index, letter.bookmark.epoch);
        match answer {
            CommitAnswer::Ok => {
                for tenancy in self.tenancies.values() {
                    tenancy.tenure.extend_until(sent + length);
                }
                let held = self.tenancies.get_mut(&index);
                if let Some(held) = held.filter(|held| held.epoch == epoch) {
                    held.recorded = letter.bookmark.clone();
                }
                let claim = self.claims.get_mut(&index);
                if let Some(claim) = claim.filter(|claim| claim.bookmark.epoch == epoch) {
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

/// Commits and waits. `Ok` says that every partition was recorded; an error that not all were.
fn commit(consumer: &Consumer, letters: &[Letter]) -> KafkaResult<()> {
    if consumer.assignment_lost() {
        // The client has no generation to commit in.
        return Err(KafkaError::ConsumerCommit(
            RDKafkaErrorCode::RebalanceInProgress,
        ));
    }
    let mut list = TopicPartitionList::with_capacity(letters.len());
    for letter in letters {
        let seat = &letter.slot.seat;
        let mut element = list.add_partition(&seat.topic, seat.partition);
        let offset = i64::try_from(letter.bookmark.offset()).unwrap_or(i64::MAX);
        element.set_offset(Offset::Offset(offset))?;
        element.set_metadata(letter.bookmark.metadata());
    }
    consumer.commit(&list, CommitMode::Sync)
}
