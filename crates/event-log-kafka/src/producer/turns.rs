//! Turns: of each partition one group of records is with the client at a time; what comes meanwhile
//! waits and goes next, together.
//!
//! So groups are as large as the brokers are slow, and nothing lingers that could go. It also keeps
//! the client's thread asleep: librdkafka has at most five *messages* of a partition in flight when
//! it is idempotent, and polls without waiting while more of them are due than may go.
//!
//! Invariant: a waiting record was never handed to the client, so what becomes of it is known.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use fanfare_event_log::LogErrorKind;
use parking_lot::Mutex;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::batch::Ticket;
use crate::layout::Seat;

/// Most records of one group. The client cuts it into requests of at most as many.
const GROUP_MAX: usize = 10_000;

/// A record on its way to the client.
pub(crate) struct Parcel {
    pub(super) bytes: Bytes,
    pub(super) ticket: Box<Ticket>,
}

/// Whose turn it is, by partition.
#[derive(Default)]
pub(super) struct Turns(Mutex<State>);

#[derive(Default)]
struct State {
    lines: HashMap<Seat, Line>,
    /// Nothing is taken in or handed out any more.
    closed: bool,
}

#[derive(Default)]
struct Line {
    /// Records with the client that it has not reported.
    out: usize,
    waiting: VecDeque<Parcel>,
}

impl Turns {
    /// Takes parcels in; those whose turn it is, in their order.
    pub(super) fn take(&self, parcels: Vec<Parcel>) -> Vec<Parcel> {
        let mut state = self.0.lock();
        if state.closed {
            drop(state);
            refuse(parcels);
            return Vec::new();
        }
        let mut seats: Vec<Seat> = Vec::new();
        for parcel in parcels {
            let seat = &parcel.ticket.seat;
            if !seats.contains(seat) {
                seats.push(seat.clone());
            }
            let line = state.lines.entry(seat.clone()).or_default();
            line.waiting.push_back(parcel);
        }
        let mut next = Vec::new();
        for seat in &seats {
            next.extend(
                state
                    .lines
                    .get_mut(seat)
                    .map(Line::next)
                    .unwrap_or_default(),
            );
        }
        next
    }

    /// The client reported a record of `seat`; those whose turn it is now. After a report that the
    /// partition cannot be written the others are refused: they would wait as long again.
    pub(super) fn reported(&self, seat: &Seat, failed: Option<LogErrorKind>) -> Vec<Parcel> {
        let mut state = self.0.lock();
        let Some(line) = state.lines.get_mut(seat) else {
            return Vec::new();
        };
        line.out = line.out.saturating_sub(1);
        match failed {
            Some(LogErrorKind::Unavailable | LogErrorKind::Unknown) => {
                let refused = std::mem::take(&mut line.waiting);
                drop(state);
                refuse(refused);
                Vec::new()
            }
            _ => line.next(),
        }
    }

    /// Refuses what waits and what comes.
    pub(super) fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        let waiting: Vec<_> = state
            .lines
            .values_mut()
            .flat_map(|line| std::mem::take(&mut line.waiting))
            .collect();
        drop(state);
        refuse(waiting);
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.0.lock();
        state.lines.values().all(|line| line.waiting.is_empty())
    }
}

impl Line {
    fn next(&mut self) -> Vec<Parcel> {
        if self.out > 0 {
            return Vec::new();
        }
        let count = self.waiting.len().min(GROUP_MAX);
        self.out = count;
        self.waiting.drain(..count).collect()
    }
}

/// Answers parcels that were never handed over.
pub(super) fn refuse(parcels: impl IntoIterator<Item = Parcel>) {
    for Parcel { ticket, .. } in parcels {
        let error = KafkaError::MessageProduction(RDKafkaErrorCode::PurgeQueue);
        ticket
            .batch
            .failed(ticket.index, LogErrorKind::Unavailable, error);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::super::batch::{Answer, Batch};
    use super::*;

    fn seat(partition: i32) -> Seat {
        Seat {
            topic: "t".into(),
            partition,
        }
    }

    /// A batch of one record for each of `partitions`.
    fn batch(partitions: &[i32]) -> (Vec<Parcel>, Answer) {
        let room = || Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let records = u32::try_from(partitions.len()).unwrap();
        let (batch, answer) = Batch::new(records, [room(), room()]);
        let parcel = |(index, partition): (usize, &i32)| Parcel {
            bytes: Bytes::new(),
            ticket: Box::new(Ticket {
                batch: batch.clone(),
                index,
                seat: seat(*partition),
            }),
        };
        let parcels = partitions.iter().enumerate().map(parcel).collect();
        (parcels, answer)
    }

    fn partitions(parcels: &[Parcel]) -> Vec<i32> {
        parcels.iter().map(|p| p.ticket.seat.partition).collect()
    }

    #[test]
    fn what_comes_while_a_group_is_out_goes_next_together() {
        let turns = Turns::default();
        assert_eq!(partitions(&turns.take(batch(&[0, 1, 0]).0)), [0, 0, 1]);
        assert_eq!(partitions(&turns.take(batch(&[0, 2]).0)), [2]);
        assert!(turns.take(batch(&[0]).0).is_empty());
        assert!(turns.reported(&seat(0), None).is_empty());
        assert!(!turns.is_empty());
        assert_eq!(partitions(&turns.reported(&seat(0), None)), [0, 0]);
        assert!(turns.reported(&seat(1), None).is_empty());
        assert!(turns.is_empty());
    }

    #[test]
    fn a_partition_that_cannot_be_written_refuses_who_waits_and_goes_on() {
        let turns = Turns::default();
        turns.take(batch(&[0]).0);
        let (waiting, mut answer) = batch(&[0]);
        assert!(turns.take(waiting).is_empty());
        let failed = Some(LogErrorKind::Unknown);
        assert!(turns.reported(&seat(0), failed).is_empty());
        let refused = answer.try_recv().unwrap().unwrap_err();
        assert_eq!(refused.kind(), LogErrorKind::Unavailable);
        assert_eq!(partitions(&turns.take(batch(&[0]).0)), [0]);
    }

    #[test]
    fn nothing_goes_out_after_the_end() {
        let turns = Turns::default();
        turns.take(batch(&[0]).0);
        let (waiting, mut first) = batch(&[0]);
        turns.take(waiting);
        turns.close();
        let (late, mut second) = batch(&[1]);
        assert!(turns.take(late).is_empty());
        for answer in [&mut first, &mut second] {
            let refused = answer.try_recv().unwrap().unwrap_err();
            assert_eq!(refused.kind(), LogErrorKind::Unavailable);
        }
        assert!(turns.reported(&seat(0), None).is_empty());
    }
}
