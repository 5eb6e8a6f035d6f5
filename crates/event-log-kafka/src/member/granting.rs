//! From an assigned span to a lease: what was committed is read, claimed under a higher epoch, and
//! only when the broker has acknowledged the claim is the lease granted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fanfare_domain::Tenure;
use fanfare_event_log::{Granted, Lease, Progress};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::outbox::{Letter, Purpose};
use super::slot::Slot;
use super::thread::{PAUSE, Polling};
use super::{Claim, Standing, Tenancy};
use crate::bookmark::Bookmark;
use crate::layout::Seat;
use crate::reader::KafkaRecords;
use crate::start::{self, Extent};

/// How long the client may take to move to another position.
const SEEK_MAX: Duration = Duration::from_secs(1);

/// Spans that are let go are claimed together.
const CLAIM_EVERY: Duration = Duration::from_millis(30);

/// A span to claim, and its right to commit.
type Wanted = (Arc<Slot>, OwnedSemaphorePermit);

impl Polling {
    /// Claims the spans that are assigned to us and that nobody holds.
    pub(super) fn claim(&mut self) {
        if Instant::now() < self.claim_at {
            return;
        }
        let wanted = self.unclaimed();
        if wanted.is_empty() {
            return;
        }
        self.claim_at = Instant::now() + CLAIM_EVERY;
        if let Err(error) = self.claim_all(wanted) {
            tracing::warn!(%error, "spans cannot be claimed yet");
            self.claim_at = Instant::now() + PAUSE;
        }
    }

    fn unclaimed(&self) -> Vec<Wanted> {
        let state = self.member.state.lock();
        if state.standing != Standing::Joined || state.expelled || self.consumer.assignment_lost() {
            return Vec::new();
        }
        let free = self.owned.iter().filter(|index| {
            let taken = state.tenancies.contains_key(index) || state.claims.contains_key(index);
            !taken && !self.is_draining(**index)
        });
        free.filter_map(|index| {
            let slot = &self.member.slots[index];
            // A commit on its way must be answered first, or it could come after the claim.
            let permit = Semaphore::try_acquire_owned(slot.commits.clone()).ok()?;
            Some((slot.clone(), permit))
        })
        .collect()
    }

    fn claim_all(&mut self, wanted: Vec<Wanted>) -> KafkaResult<()> {
        let seats: Vec<_> = wanted.iter().map(|(slot, _)| slot.seat.clone()).collect();
        let committed = self.committed(&seats)?;
        let low = self.ends(&seats, Offset::Beginning)?;
        let high = self.ends(&seats, Offset::End)?;
        for (slot, permit) in wanted {
            let (Some(low), Some(high)) = (low.get(&slot.seat), high.get(&slot.seat)) else {
                continue;
            };
            let extent = Extent {
                low: *low,
                high: *high,
            };
            match self.recorded(&slot, committed.get(&slot.seat)) {
                Some((epoch, progress)) => self.post_claim(slot, permit, epoch, progress, extent),
                None => self.claim_at = Instant::now() + PAUSE,
            }
        }
        Ok(())
    }

    /// What the group committed, where it did.
    fn committed(&self, seats: &[Seat]) -> KafkaResult<BTreeMap<Seat, (u64, String)>> {
        let timeout = self.member.terms.config.request_timeout();
        let mut list = TopicPartitionList::with_capacity(seats.len());
        for seat in seats {
            list.add_partition(&seat.topic, seat.partition);
        }
        let answer = self.consumer.committed_offsets(list, timeout)?;
        let mut committed = BTreeMap::new();
        for element in answer.elements() {
            element.error()?;
            if let Offset::Offset(offset) = element.offset() {
                let offset = u64::try_from(offset).unwrap_or_default();
                let seat = Seat {
                    topic: element.topic().into(),
                    partition: element.partition(),
                };
                committed.insert(seat, (offset, element.metadata().to_owned()));
            }
        }
        Ok(committed)
    }

    /// Log starts or log ends.
    fn ends(&self, seats: &[Seat], which: Offset) -> KafkaResult<BTreeMap<Seat, u64>> {
        let timeout = self.member.terms.config.request_timeout();
        let mut list = TopicPartitionList::with_capacity(seats.len());
        for seat in seats {
            list.add_partition_offset(&seat.topic, seat.partition, which)?;
        }
        let answer = self.consumer.offsets_for_times(list, timeout)?;
        let mut ends = BTreeMap::new();
        for element in answer.elements() {
            element.error()?;
            let Offset::Offset(offset) = element.offset() else {
                return Err(KafkaError::OffsetFetch(RDKafkaErrorCode::NoOffset));
            };
            let seat = Seat {
                topic: element.topic().into(),
                partition: element.partition(),
            };
            ends.insert(seat, u64::try_from(offset).unwrap_or_default());
        }
        Ok(ends)
    }

    /// Epoch and progress as committed, else from the checkpoint; `None` holds the span.
    fn recorded(
        &self,
        slot: &Slot,
        committed: Option<&(u64, String)>,
    ) -> Option<(u64, Option<Progress>)> {
        if let Some((offset, metadata)) = committed {
            let Some(bookmark) = Bookmark::read(*offset, metadata) else {
                tracing::error!(
                    topic = &*slot.seat.topic,
                    partition = slot.seat.partition,
                    "the committed metadata is not from this version; the span is held"
                );
                return None;
            };
            return Some((bookmark.epoch, Some(bookmark.progress)));
        }
        let terms = &self.member.terms;
        let load = terms
            .checkpoints
            .load(self.member.stream, &self.member.group, slot.span);
        let timeout = terms.config.request_timeout();
        let loaded = terms
            .runtime
            .block_on(async { tokio::time::timeout(timeout, load).await });
        match loaded {
            Ok(Ok(progress)) => Some((0, progress)),
            Ok(Err(error)) => {
                tracing::warn!(
                    error,
                    span = slot.span.index,
                    "no checkpoint; the span is held"
                );
                None
            }
            Err(_) => {
                tracing::warn!(
                    span = slot.span.index,
                    "no checkpoint in time; the span is held"
                );
                None
            }
        }
    }

    fn post_claim(
        &self,
        slot: Arc<Slot>,
        permit: OwnedSemaphorePermit,
        epoch: u64,
        progress: Option<Progress>,
        extent: Extent,
    ) {
        let start = start::begin(progress, extent);
        if start.replaced {
            tracing::error!(
                topic = &*slot.seat.topic,
                partition = slot.seat.partition,
                log_end = extent.high,
                "what was committed lies beyond the log's end: the topic was made anew or lost \
                 records; reading from its start"
            );
        }
        let bookmark = Bookmark {
            // The clock keeps it rising when the group's offsets, and so the last one, are gone.
            epoch: (epoch + 1).max(now_micros()),
            progress: start.progress,
        };
        let claim = Claim {
            bookmark: bookmark.clone(),
            lost: start.lost,
            proof: None,
        };
        self.member
            .state
            .lock()
            .claims
            .insert(slot.span.index, claim);
        self.member.post(Letter {
            slot,
            bookmark,
            purpose: Purpose::Claim,
            permit,
        });
    }

    /// Grants what was claimed and acknowledged, once the client stands where it begins.
    pub(super) fn grant(&mut self) {
        let acknowledged: Vec<_> = {
            let state = self.member.state.lock();
            let done = state
                .claims
                .iter()
                .filter(|(_, claim)| claim.proof.is_some());
            done.map(|(index, claim)| (*index, claim.bookmark.offset()))
                .collect()
        };
        if acknowledged.is_empty() {
            return;
        }
        match self.seek(&acknowledged) {
            Ok(there) => there.into_iter().for_each(|index| self.grant_one(index)),
            // The client may still be taking the assignment up.
            Err(error) => tracing::debug!(%error, "cannot seek yet"),
        }
    }

    /// Moves the client; returns the spans where it did.
    fn seek(&self, spans: &[(u16, u64)]) -> KafkaResult<Vec<u16>> {
        let mut list = TopicPartitionList::with_capacity(spans.len());
        for (index, offset) in spans {
            let seat = &self.member.slots[index].seat;
            let offset = Offset::Offset(i64::try_from(*offset).unwrap_or(i64::MAX));
            list.add_partition_offset(&seat.topic, seat.partition, offset)?;
        }
        let answer = self.consumer.seek_partitions(list, SEEK_MAX)?;
        let there = spans.iter().map(|(index, _)| *index).filter(|index| {
            let seat = &self.member.slots[index].seat;
            let found = answer.find_partition(&seat.topic, seat.partition);
            found.is_some_and(|element| element.error().is_ok())
        });
        Ok(there.collect())
    }

    fn grant_one(&self, index: u16) {
        let (member, slot) = (&self.member, &self.member.slots[&index]);
        let mut state = member.state.lock();
        // It may have been taken away while the client moved.
        let Some(claim) = state.claims.remove(&index) else {
            return;
        };
        let Some(proof) = claim.proof.filter(|_| state.standing == Standing::Joined) else {
            return;
        };
        let epoch = claim.bookmark.epoch;
        let tenure = Tenure::lasting(Duration::ZERO, epoch);
        tenure.extend_until(proof + member.terms.config.tenure());
        let group = member.group.clone();
        let (lease, keeper) = Lease::grant(member.stream, group, slot.span, epoch, tenure.clone());
        slot.open_for(epoch);
        let progress = claim.bookmark.progress.clone();
        let recorded = claim.bookmark;
        state.tenancies.insert(
            index,
            Tenancy {
                keeper,
                epoch,
                tenure,
                recorded,
            },
        );
        let records = KafkaRecords::new(lease.clone(), slot.clone(), member.clone());
        state.ready.push_back(Granted {
            lease,
            progress,
            records: Box::new(records),
        });
        drop(state);
        member.news.send_replace(());
        self.say_what_is_lost(slot, claim.lost);
    }

    fn say_what_is_lost(&self, slot: &Slot, lost: u64) {
        if lost > 0 {
            self.member.terms.lost.fetch_add(lost, Ordering::Relaxed);
            tracing::error!(
                topic = &*slot.seat.topic,
                partition = slot.seat.partition,
                lost,
                "retention took records before they were settled; they are lost"
            );
        }
    }
}

fn now_micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
}
