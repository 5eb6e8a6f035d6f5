//! The right to consume a span: how it is given, wanted back and lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use fanfare_domain::Position;

use super::Backend;
use super::fixtures::{
    Consumer, Member, append, bytes_of, commit, eventually, read, read_some, record, router,
    spread, texts, within,
};
use crate::error::LogErrorKind;
use crate::log::{Phase, Stream, Visibility};
use crate::progress::Progress;

fn up_to(position: Position) -> Progress {
    Progress {
        ceiling: Position(position.0 + 1),
        unsettled: Vec::new(),
    }
}

/// At least once: what the last holder read and did not commit.
pub async fn an_unsettled_record_is_read_again<B: Backend>(backend: B) {
    let log = backend.log();
    append(&*log, vec![record(1, "a"), record(1, "b")]).await;
    let mut member = Member::of_events(&log).await;
    let mut first = member.next_of(&*log, Stream::Events, 1).await;
    let entries = read(&mut first, 2).await;
    commit(&*log, &first, &up_to(entries[0].position)).await;
    backend.lose_lease(&first.lease).await;
    let mut second = member.next_of(&*log, Stream::Events, 1).await;
    let again = read(&mut second, 1).await;
    assert_eq!(texts(bytes_of(&again)), ["b"]);
    assert_eq!(again[0].position, entries[1].position);
    assert!(second.lease.epoch > first.lease.epoch, "epochs rise");
}

/// Refused, before and after the next holder commits, and nothing of it is kept.
pub async fn a_lost_lease_commits_nothing<B: Backend>(backend: B) {
    let log = backend.log();
    let batch = (0..3).map(|n| record(1, format!("r{n}"))).collect();
    let positions = append(&*log, batch).await;
    let mut member = Member::of_events(&log).await;
    let mut old = member.next_of(&*log, Stream::Events, 1).await;
    read(&mut old, 3).await;
    commit(&*log, &old, &up_to(positions[0])).await;
    backend.lose_lease(&old.lease).await;
    let refused = log.commit(&old.lease, &up_to(positions[2])).await;
    assert_eq!(refused.unwrap_err().kind(), LogErrorKind::LeaseLost);
    let mut new = member.next_of(&*log, Stream::Events, 1).await;
    assert_eq!(new.progress, up_to(positions[0]), "the refused one counts");
    read(&mut new, 2).await;
    commit(&*log, &new, &up_to(positions[1])).await;
    let refused = log.commit(&old.lease, &up_to(positions[2])).await;
    assert_eq!(refused.unwrap_err().kind(), LogErrorKind::LeaseLost);
    backend.lose_lease(&new.lease).await;
    let last = member.next_of(&*log, Stream::Events, 1).await;
    assert_eq!(last.progress, up_to(positions[1]));
}

/// Its records end, its phase says so, and its tenure is over: no store takes its writes.
pub async fn a_lost_lease_reads_nothing<B: Backend>(backend: B) {
    let log = backend.log();
    let mut member = Member::of_events(&log).await;
    let mut granted = member.next_of(&*log, Stream::Events, 1).await;
    assert!(granted.lease.tenure.is_current());
    backend.lose_lease(&granted.lease).await;
    // Commits are refused at once; a holder behind a network learns of it a little later.
    within("phase lost", granted.lease.reached(Phase::Lost)).await;
    append(&*log, vec![record(1, "a")]).await;
    assert!(read_some(&mut granted).await.is_empty());
    assert_eq!(granted.lease.phase(), Phase::Lost);
    assert!(!granted.lease.tenure.is_current());
}

/// The holder needs no revoke to give a span back.
pub async fn dropping_the_records_lets_go<B: Backend>(backend: B) {
    let log = backend.log();
    append(&*log, vec![record(1, "a")]).await;
    let mut member = Member::of_events(&log).await;
    let mut first = member.next_of(&*log, Stream::Events, 1).await;
    let entries = read(&mut first, 1).await;
    commit(&*log, &first, &up_to(entries[0].position)).await;
    drop(first.records);
    let second = member.next_of(&*log, Stream::Events, 1).await;
    assert_eq!(second.progress, up_to(entries[0].position));
    assert!(second.lease.epoch > first.lease.epoch);
    within("phase lost", first.lease.reached(Phase::Lost)).await;
    let refused = log.commit(&first.lease, &Progress::default()).await;
    assert_eq!(refused.unwrap_err().kind(), LogErrorKind::LeaseLost);
}

/// While it is wanted back a lease reads nothing new and still commits; then it moves.
pub async fn a_revoke_is_a_phase<B: Backend>(backend: B) {
    let log = backend.log();
    append(&*log, vec![record(1, "a")]).await;
    let mut leaving = Member::of_events(&log).await;
    let mut granted = leaving.next_of(&*log, Stream::Events, 1).await;
    let entries = read(&mut granted, 1).await;
    let left = tokio::spawn(leaving.leave());
    within("a revoke", granted.lease.reached(Phase::Revoking)).await;
    append(&*log, vec![record(1, "b")]).await;
    assert!(read_some(&mut granted).await.is_empty());
    assert_eq!(granted.lease.phase(), Phase::Revoking, "and not lost yet");
    commit(&*log, &granted, &up_to(entries[0].position)).await;
    drop(granted);
    within("leaving", left).await.unwrap();
    let mut staying = Member::of_events(&log).await;
    let mut granted = staying.next_of(&*log, Stream::Events, 1).await;
    let entries = read(&mut granted, 1).await;
    assert_eq!(texts(bytes_of(&entries)), ["b"]);
}

/// Each of two members gets spans, if there are two; never both the same.
pub async fn a_late_joiner_gets_its_share<B: Backend>(backend: B) {
    let log = backend.log();
    let spans = log.spans(Stream::Events).len();
    let first = Consumer::of_events(&log).await;
    eventually("the first has every span", || {
        let held = first.held().len();
        (held == spans).then_some(()).ok_or(format!("{held} held"))
    })
    .await;
    let second = Consumer::of_events(&log).await;
    eventually("the spans are shared", || {
        let held = [first.held(), second.held()];
        let indexes: BTreeSet<_> = held.iter().flatten().map(|l| l.span.index).collect();
        let fair = held.iter().all(|h| h.len() >= spans / 2);
        (fair && indexes.len() == spans)
            .then_some(())
            .ok_or(format!("{held:?}"))
    })
    .await;
    first.leave().await;
    eventually("the second has every span", || {
        let held = second.held().len();
        (held == spans).then_some(()).ok_or(format!("{held} held"))
    })
    .await;
}

/// It resolves when the holders have let go, and no sooner.
pub async fn leaving_waits_for_the_holder<B: Backend>(backend: B) {
    let log = backend.log();
    let mut member = Member::of_events(&log).await;
    let granted = member.next_of(&*log, Stream::Events, 1).await;
    let left = tokio::spawn(member.leave());
    within("a revoke", granted.lease.reached(Phase::Revoking)).await;
    assert!(!left.is_finished());
    let lease = granted.lease.clone();
    drop(granted);
    within("leaving", left).await.unwrap();
    assert_eq!(lease.phase(), Phase::Lost);
}

/// Members that settle, commit and let go when asked hand over without a repeat.
pub async fn nothing_repeats_when_members_come_and_go_politely<B: Backend>(backend: B) {
    let log = backend.log();
    let seen = Arc::default();
    let how = (Stream::Events, &router(), Visibility::Durable);
    let mut wanted = Vec::new();
    let mut members = vec![Consumer::start(&log, how, &seen).await];
    for round in 0..6 {
        let records = spread(&format!("round-{round}"), 20);
        wanted.extend(texts(records.iter().map(|r| &r.bytes)));
        append(&*log, records).await;
        if round % 3 == 2 {
            members.remove(0).leave().await;
        } else {
            members.push(Consumer::start(&log, how, &seen).await);
        }
        members[0].sees(&wanted[..wanted.len() / 2]).await;
    }
    members[0].sees(&wanted).await;
    let seen = seen.lock().clone();
    let once: BTreeSet<_> = seen.iter().map(|s| &s.text).collect();
    assert_eq!(once.len(), seen.len(), "repeated after a polite hand-over");
}

/// Leases taken away in the middle: records repeat, none is missed, and within one lease every
/// record comes once and in order.
pub async fn nothing_is_missed_when_leases_are_lost<B: Backend>(backend: B) {
    let log = backend.log();
    let consumer = Consumer::of_events(&log).await;
    let mut wanted = Vec::new();
    for round in 0..6 {
        let records = spread(&format!("round-{round}"), 20);
        wanted.extend(texts(records.iter().map(|r| &r.bytes)));
        append(&*log, records).await;
        if let Some(lease) = consumer.held().get(round % 2) {
            backend.lose_lease(lease).await;
        }
    }
    consumer.sees(&wanted).await;
    let seen = consumer.seen();
    let leases: BTreeSet<_> = seen.iter().map(|s| s.lease).collect();
    for lease in leases {
        let own: Vec<_> = seen.iter().filter(|s| s.lease == lease).collect();
        assert!(
            own.windows(2).all(|w| w[0].position < w[1].position),
            "out of order under {lease:?}: {own:?}"
        );
    }
}
