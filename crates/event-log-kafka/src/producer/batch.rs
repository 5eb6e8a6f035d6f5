//! A batch that was handed to the client: answered once, by the record that is reported last.

use std::sync::Arc;

use fanfare_domain::Position;
use fanfare_event_log::{LogError, LogErrorKind};
use parking_lot::Mutex;
use rdkafka::error::KafkaError;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::layout::Seat;

pub(super) type Answer = oneshot::Receiver<Result<Vec<Position>, LogError>>;

/// What travels with a record through the client.
pub(crate) struct Ticket {
    pub(super) batch: Arc<Batch>,
    pub(super) index: usize,
    /// Where the record goes.
    pub(super) seat: Seat,
}

/// A batch on its way.
pub(crate) struct Batch(Mutex<State>);

struct State {
    positions: Vec<Position>,
    /// Records not reported yet.
    open: usize,
    written: usize,
    /// The kind to answer with, and the first error of that kind.
    failed: Option<(LogErrorKind, KafkaError)>,
    answer: Option<oneshot::Sender<Result<Vec<Position>, LogError>>>,
    /// Room in the queue, given back when every record is reported.
    room: Option<[OwnedSemaphorePermit; 2]>,
}

impl Batch {
    /// A batch of `records` (at least 1), none of them reported.
    pub(super) fn new(records: u32, room: [OwnedSemaphorePermit; 2]) -> (Arc<Self>, Answer) {
        let records = usize::try_from(records).unwrap_or(usize::MAX);
        let (answer, answered) = oneshot::channel();
        let state = State {
            positions: vec![Position::default(); records],
            open: records,
            written: 0,
            failed: None,
            answer: Some(answer),
            room: Some(room),
        };
        (Arc::new(Self(Mutex::new(state))), answered)
    }

    /// Record `index` lies at `position`, durably.
    pub(super) fn written(&self, index: usize, position: Position) {
        let mut state = self.0.lock();
        state.positions[index] = position;
        state.written += 1;
        state.reported();
    }

    /// Record `index` was not acknowledged.
    pub(super) fn failed(&self, _index: usize, kind: LogErrorKind, error: KafkaError) {
        let mut state = self.0.lock();
        // The worst news counts: with one indeterminate record the batch is indeterminate.
        let worse = |held: &(LogErrorKind, _)| kind == LogErrorKind::Unknown && held.0 != kind;
        if state.failed.as_ref().is_none_or(worse) {
            state.failed = Some((kind, error));
        }
        state.reported();
    }
}

impl State {
    fn reported(&mut self) {
        self.open -= 1;
        if self.open > 0 {
            return;
        }
        self.room = None;
        let positions = std::mem::take(&mut self.positions);
        let answer = match self.failed.take() {
            None => Ok(positions),
            // Part of it will be read: that is not "nothing was written".
            Some((_, error)) if self.written > 0 => {
                Err(LogError::because(LogErrorKind::Unknown, error))
            }
            Some((kind, error)) => Err(LogError::because(kind, error)),
        };
        if let Some(waiting) = self.answer.take() {
            // Whoever asked may be gone.
            let _ = waiting.send(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::error::RDKafkaErrorCode;
    use tokio::sync::Semaphore;

    use super::*;

    #[derive(Clone, Copy)]
    enum Report {
        Written(u64),
        Failed(LogErrorKind),
    }

    /// What a batch whose records are reported like this is answered with.
    fn answer(reports: &[Report]) -> Result<Vec<u64>, LogErrorKind> {
        let room = || Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let records = u32::try_from(reports.len()).unwrap();
        let (batch, mut answer) = Batch::new(records, [room(), room()]);
        for (index, report) in reports.iter().enumerate() {
            assert!(
                answer.try_recv().is_err(),
                "answered before the last report"
            );
            match *report {
                Report::Written(at) => batch.written(index, Position(at)),
                Report::Failed(kind) => {
                    let error = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
                    batch.failed(index, kind, error);
                }
            }
        }
        let answer = answer.try_recv().expect("answered by the last report");
        answer
            .map(|positions| positions.iter().map(|p| p.0).collect())
            .map_err(|error| error.kind())
    }

    #[test]
    fn the_worst_news_counts() {
        use LogErrorKind::{TooLarge, Unavailable, Unknown};
        use Report::{Failed, Written};
        assert_eq!(answer(&[Written(5), Written(6)]), Ok(vec![5, 6]));
        assert_eq!(answer(&[Failed(Unavailable); 2]), Err(Unavailable));
        assert_eq!(answer(&[Failed(TooLarge)]), Err(TooLarge));
        assert_eq!(
            answer(&[Failed(Unavailable), Failed(Unknown), Failed(Unavailable)]),
            Err(Unknown)
        );
        assert_eq!(answer(&[Written(5), Failed(Unavailable)]), Err(Unknown));
        assert_eq!(answer(&[Failed(Unavailable), Written(5)]), Err(Unknown));
    }

    #[test]
    fn room_is_given_back_with_the_last_report() {
        let bound = Arc::new(Semaphore::new(2));
        let room = [0, 1].map(|_| bound.clone().try_acquire_owned().unwrap());
        let (batch, _answer) = Batch::new(2, room);
        batch.written(0, Position(1));
        assert_eq!(bound.available_permits(), 0);
        batch.written(1, Position(2));
        assert_eq!(bound.available_permits(), 2);
    }
}
