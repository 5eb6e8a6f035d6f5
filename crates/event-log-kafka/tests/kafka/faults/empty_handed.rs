//! Members leave that hold nothing: those that came last, while others hold all there is.
//!
//! The session is longer than any wait here. A member that went and is still counted on holds its group up
//! until its session ends, so whatever waits for the group fails.

use std::time::Duration;

use fanfare_event_log::conformance::fixtures::{router, within};
use fanfare_event_log::{Phase, Stream};
use fanfare_event_log_kafka::KafkaConfig;
use fanfare_event_log_kafka::config::GroupProtocol;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::leaving::Holder;
use crate::{admin, world};

/// From before a member is known to long after it was told that there is nothing for it.
const MOMENTS: u32 = 40;
const APART: Duration = Duration::from_millis(25);

async fn config(spans: u16) -> KafkaConfig {
    KafkaConfig {
        event_partitions: spans,
        session_timeout_ms: 300_000,
        ..world::config().await
    }
}

/// At whatever moment after it came.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_with_nothing_has_left() {
    let config = config(1).await;
    let mut first = Holder::join(&config).await;
    first.holds(1).await;
    for moment in (0..MOMENTS).map(|step| APART * step) {
        let second = Holder::join(&config).await;
        first.looks_for(moment).await;
        second.member.leave().await;
        let left = first.members().await;
        assert_eq!(left, 1, "members are left when one went after {moment:?}");
    }
    // Nor does anybody wait for one whose name was not known yet.
    let mut last = Holder::join(&config).await;
    first.held.clear();
    first.member.leave().await;
    last.holds(1).await;
}

/// Brokers that balance the group tell a member nothing for which there is nothing. It does not wait until it
/// would have to have drained.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_brokers_with_nothing_has_left() {
    let config = KafkaConfig {
        group_protocol: GroupProtocol::Consumer,
        session_timeout_ms: 45_000,
        drain_timeout_ms: 300_000,
        ..config(1).await
    };
    let mut first = Holder::join(&config).await;
    first.holds(1).await;
    for moment in (0..MOMENTS / 4).map(|step| APART * 4 * step) {
        let second = Holder::join(&config).await;
        first.looks_for(moment).await;
        second.member.leave().await;
    }
    let mut last = Holder::join(&config).await;
    first.held.clear();
    first.member.leave().await;
    last.holds(1).await;
}

/// Some of them were given something by then, or are about to be.
#[tokio::test(flavor = "multi_thread")]
async fn who_come_and_go_at_once_have_left() {
    const SPANS: usize = 4;
    let config = config(4).await;
    let mut first = Holder::join(&config).await;
    first.holds(SPANS).await;
    for moment in (0..MOMENTS / 2).map(|step| APART * 2 * step) {
        let (second, third) = tokio::join!(Holder::join(&config), Holder::join(&config));
        let mut others = [second, third, Holder::join(&config).await];
        let until = Instant::now() + moment;
        while Instant::now() < until {
            first.look().await;
            for other in &mut others {
                other.look().await;
            }
        }
        let gone = others.map(|other| Going::Leaves.start(other));
        while !gone.iter().all(JoinHandle::is_finished) {
            first.look().await;
        }
        let left = first.members().await;
        assert_eq!(
            left, 1,
            "members are left when others went after {moment:?}"
        );
        within("all is held again", first.holds(SPANS)).await;
    }
}

/// How a member goes.
#[derive(Clone, Copy, Debug)]
enum Going {
    Leaves,
    ClosesItsLog,
}

impl Going {
    fn start(self, mut member: Holder) -> JoinHandle<()> {
        member.held.clear();
        tokio::spawn(async move {
            match self {
                Self::Leaves => member.member.leave().await,
                Self::ClosesItsLog => member.log.close().await,
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_while_waiting_to_be_let_in_has_left() {
    // The client gives up on being heard after 5 s.
    for drained in [0, 1, 7] {
        let story = goes_while_another_drains(Going::Leaves, Duration::from_secs(drained));
        within("it leaves, and the others go on", story).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_closes_its_log_while_waiting_to_be_let_in_has_left() {
    let story = goes_while_another_drains(Going::ClosesItsLog, Duration::from_secs(7));
    within("it closes its log, and the others go on", story).await;
}

/// The group waits for the one that drains, and it for an answer to its request to join.
async fn goes_while_another_drains(going: Going, drained: Duration) {
    const SPANS: usize = 4;
    let config = config(4).await;
    let mut first = Holder::join(&config).await;
    first.holds(SPANS).await;
    let mut second = Holder::join(&config).await;
    first.keeps_what_is_wanted_back().await;
    let third = Holder::join(&config).await;
    while first.members().await < 3 {
        first.take().await;
    }
    let gone = going.start(third);
    first.commits_for(drained).await;
    first
        .held
        .retain(|granted| granted.lease.phase() == Phase::Held);
    while !gone.is_finished() {
        tokio::join!(first.look(), second.look());
    }
    gone.await.expect("it went");
    assert_eq!(first.members().await, 2, "{going:?} after {drained:?}");
    while first.held.len() + second.held.len() < SPANS || second.held.is_empty() {
        tokio::join!(first.look(), second.look());
    }
}

impl Holder {
    async fn looks_for(&mut self, lasting: Duration) {
        let until = Instant::now() + lasting;
        while Instant::now() < until {
            self.look().await;
        }
    }

    /// How many members the brokers count in the group.
    async fn members(&self) -> usize {
        let group = self.log.consumer_group(Stream::Events, &router());
        let config = self.config.clone();
        let members = tokio::task::spawn_blocking(move || admin::members(&config, &group));
        members.await.expect("not interrupted")
    }
}
