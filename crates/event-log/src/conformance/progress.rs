//! What a commit records is what the next holder is granted.

use fanfare_domain::Position;

use super::Backend;
use super::fixtures::{Member, append, bytes_of, commit, read, record, texts};
use crate::error::LogErrorKind;
use crate::log::{EventLog, Granted, Stream};
use crate::progress::{Progress, Tracker, Unsettled};

async fn lease_of_shard_1(log: &std::sync::Arc<dyn EventLog>) -> (Member, Granted) {
    let mut member = Member::of_events(log).await;
    let granted = member.next_of(&**log, Stream::Events, 1).await;
    (member, granted)
}

/// With nothing committed, every record there ever was is read.
pub async fn a_span_never_consumed_starts_at_the_beginning<B: Backend>(backend: B) {
    let log = backend.log();
    append(&*log, vec![record(1, "a"), record(1, "b")]).await;
    let (_member, mut granted) = lease_of_shard_1(&log).await;
    assert_eq!(granted.progress, Progress::default());
    let entries = read(&mut granted, 2).await;
    assert_eq!(texts(bytes_of(&entries)), ["a", "b"]);
}

/// The watermark and what is unsettled above it; records settled above it are read again, and the
/// tracker knows them.
pub async fn what_was_committed_is_granted<B: Backend>(backend: B) {
    let log = backend.log();
    let batch = (0..5).map(|n| record(1, format!("r{n}"))).collect();
    append(&*log, batch).await;
    let (mut member, mut granted) = lease_of_shard_1(&log).await;
    let mut tracker = Tracker::resume(&granted.progress);
    let entries = read(&mut granted, 5).await;
    for entry in &entries[..4] {
        tracker.take(entry.position, 1);
    }
    for settled in [0, 2] {
        tracker.settle(entries[settled].position, 0);
    }
    commit(&*log, &granted, &tracker.progress()).await;
    backend.lose_lease(&granted.lease).await;
    let mut next = member.next_of(&*log, Stream::Events, 1).await;
    assert_eq!(next.progress, tracker.progress());
    assert_eq!(next.progress.watermark(), entries[1].position);
    let again = read(&mut next, 4).await;
    let mut tracker = Tracker::resume(&next.progress);
    let open: Vec<_> = again
        .iter()
        .map(|e| tracker.take(e.position, 1) != 0)
        .collect();
    assert_eq!(texts(bytes_of(&again)), ["r1", "r2", "r3", "r4"]);
    assert_eq!(open, [true, false, true, true]);
}

/// Part by part.
pub async fn packed_parts_come_back<B: Backend>(backend: B) {
    let log = backend.log();
    let positions = append(&*log, vec![record(1, "a"), record(1, "b")]).await;
    let (mut member, mut granted) = lease_of_shard_1(&log).await;
    let mut tracker = Tracker::resume(&granted.progress);
    read(&mut granted, 2).await;
    tracker.take(positions[0], 64);
    tracker.take(positions[1], 3);
    for part in (0..64).filter(|part| part % 7 != 0) {
        tracker.settle(positions[0], part);
    }
    tracker.settle(positions[1], 1);
    commit(&*log, &granted, &tracker.progress()).await;
    backend.lose_lease(&granted.lease).await;
    let next = member.next_of(&*log, Stream::Events, 1).await;
    let mut tracker = Tracker::resume(&next.progress);
    let every_seventh = (0..64).step_by(7).fold(0u64, |bits, part| bits | 1 << part);
    assert_eq!(tracker.take(positions[0], 64), every_seventh);
    assert_eq!(tracker.take(positions[1], 3), 0b101);
}

/// Nothing is merged: a commit replaces the one before.
pub async fn the_last_commit_counts<B: Backend>(backend: B) {
    let log = backend.log();
    let batch = (0..3).map(|n| record(1, format!("r{n}"))).collect();
    let positions = append(&*log, batch).await;
    let (mut member, mut granted) = lease_of_shard_1(&log).await;
    read(&mut granted, 3).await;
    let mut last = Progress::default();
    for settled in 0..3 {
        last = Progress {
            ceiling: Position(positions[2].0 + 1),
            unsettled: (settled..3)
                .map(|n| Unsettled {
                    position: positions[n],
                    open: 1 << n,
                })
                .collect(),
        };
        commit(&*log, &granted, &last).await;
    }
    backend.lose_lease(&granted.lease).await;
    let next = member.next_of(&*log, Stream::Events, 1).await;
    assert_eq!(next.progress, last);
}

/// As after an `Unknown`.
pub async fn a_commit_may_be_repeated<B: Backend>(backend: B) {
    let log = backend.log();
    let positions = append(&*log, vec![record(1, "a"), record(1, "b")]).await;
    let (mut member, mut granted) = lease_of_shard_1(&log).await;
    read(&mut granted, 2).await;
    let progress = Progress {
        ceiling: Position(positions[0].0 + 1),
        unsettled: Vec::new(),
    };
    for _ in 0..3 {
        commit(&*log, &granted, &progress).await;
    }
    backend.lose_lease(&granted.lease).await;
    let mut next = member.next_of(&*log, Stream::Events, 1).await;
    assert_eq!(next.progress, progress);
    assert_eq!(texts(bytes_of(&read(&mut next, 1).await)), ["b"]);
}

/// More than [`EventLog::progress_max_bytes`] is refused, whole.
pub async fn too_large_a_commit_changes_nothing<B: Backend>(backend: B) {
    let log = backend.log();
    let (mut member, granted) = lease_of_shard_1(&log).await;
    let small = progress_of(1);
    commit(&*log, &granted, &small).await;
    let mut records = 1;
    while progress_of(records).encoded_len() <= log.progress_max_bytes() {
        records *= 2;
    }
    let refused = log.commit(&granted.lease, &progress_of(records)).await;
    assert_eq!(refused.unwrap_err().kind(), LogErrorKind::ProgressTooLarge);
    backend.lose_lease(&granted.lease).await;
    let next = member.next_of(&*log, Stream::Events, 1).await;
    assert_eq!(next.progress, small);
}

/// As much as [`EventLog::progress_max_bytes`] allows is taken, and comes back.
pub async fn a_full_commit_fits<B: Backend>(backend: B) {
    let log = backend.log();
    let (mut member, granted) = lease_of_shard_1(&log).await;
    // Enough for any store of metadata; an embedded log may allow much more.
    let max = log.progress_max_bytes().min(1 << 20);
    let per_record = (progress_of(2).encoded_len() - progress_of(1).encoded_len()).max(1);
    let mut records = max / per_record;
    while progress_of(records).encoded_len() > max {
        records -= 1;
    }
    let full = progress_of(records);
    commit(&*log, &granted, &full).await;
    backend.lose_lease(&granted.lease).await;
    let next = member.next_of(&*log, Stream::Events, 1).await;
    assert_eq!(next.progress, full);
}

/// `records` unsettled ones, each with 64 parts of which every other is open.
fn progress_of(records: usize) -> Progress {
    let position = |n: usize| Position(u64::try_from(n).unwrap() * 3);
    let unsettled = (0..records).map(|n| Unsettled {
        position: position(n),
        open: 0xaaaa_aaaa_aaaa_aaaa,
    });
    Progress {
        ceiling: position(records),
        unsettled: unsettled.collect(),
    }
}
