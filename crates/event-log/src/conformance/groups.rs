//! Groups consume the same records on their own.

use std::sync::Arc;

use super::Backend;
use super::fixtures::{Consumer, append_to, router, spread};
use crate::log::{Group, Stream, Visibility};
use crate::progress::Progress;

/// Each reads everything; a lease that one loses and a commit that one makes is its own affair.
pub async fn two_groups_do_not_disturb_each_other<B: Backend>(backend: B) {
    let log = backend.log();
    let wanted: Vec<_> = (0..30).map(|n| format!("r-{n}")).collect();
    let audit = Group::new("audit");
    let how = (Stream::Events, &audit, Visibility::Durable);
    // A log need not keep what its groups settled for one that comes later.
    let first = Consumer::of_events(&log).await;
    let second = Consumer::start(&log, how, &Arc::default()).await;
    append_to(&*log, Stream::Events, spread("r", 30)).await;
    first.sees(&wanted).await;
    second.sees(&wanted).await;
    for lease in first.held() {
        backend.lose_lease(&lease).await;
    }
    append_to(&*log, Stream::Events, spread("more", 30)).await;
    let more: Vec<_> = (0..30).map(|n| format!("more-{n}")).collect();
    first.sees(&more).await;
    second.sees(&more).await;
    assert_eq!(second.seen().len(), 60, "the second was disturbed");
    let epochs: std::collections::BTreeMap<_, _> =
        second.seen().into_iter().map(|s| s.lease).collect();
    assert!(epochs.len() <= log.spans(Stream::Events).len());
}

/// A group's leases and progress on one stream say nothing about the other.
pub async fn one_group_on_two_streams_is_two<B: Backend>(backend: B) {
    let log = backend.log();
    append_to(&*log, Stream::Events, spread("event", 20)).await;
    let events = Consumer::of_events(&log).await;
    let wanted: Vec<_> = (0..20).map(|n| format!("event-{n}")).collect();
    events.sees(&wanted).await;
    let mut member =
        super::fixtures::Member::join(&log, Stream::Deliveries, &router(), Visibility::Durable)
            .await;
    for granted in member.every_span(&*log, Stream::Deliveries).await {
        assert_eq!(granted.progress, Progress::default());
        assert_eq!(granted.lease.stream, Stream::Deliveries);
    }
}
