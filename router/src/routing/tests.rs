//! Routing over the memory log and the memory stores: what is owed, after whatever happened.

mod simulation;
mod world;

use bytes::{BufMut, BytesMut};
use fanfare_domain::EndpointState;
use fanfare_event_log::memory::{Call, Fault, SyncMode};
use fanfare_event_log::{LogErrorKind, Record};

use super::*;
pub(super) use world::accepted;
use world::{Settings, World};

#[tokio::test(start_paused = true)]
async fn every_event_is_owed_to_whoever_matches() {
    let mut world = World::new(Settings::default()).await;
    world.subscribe(1, 10, &["order.*"]).await;
    world.subscribe(2, 20, &["order.paid", "**"]).await;
    world.subscribe(3, 20, &["invoice.*"]).await;
    world.start();
    world.publish(&accepted("e-1", "order.paid")).await;
    world.publish(&accepted("e-2", "customer.created")).await;
    world.publish(&accepted("e-3", "invoice.sent")).await;
    world.settled().await;
    assert_eq!(world.owed("e-1").await, [1, 2]);
    assert_eq!(world.owed("e-2").await, [2]);
    assert_eq!(world.owed("e-3").await, [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_nobody_wants_is_routed_and_settled() {
    let mut world = World::new(Settings::default()).await;
    world.start();
    world.publish(&accepted("e-1", "order.paid")).await;
    world.settled().await;
    let row = world.row("e-1").await;
    assert!(row.route.is_some_and(|route| route.matched.is_empty()));
    assert!(world.deliveries().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_repeat_and_a_conflict_are_dropped_and_the_conflict_is_kept() {
    let mut world = World::new(Settings::default()).await;
    world.subscribe(1, 10, &["**"]).await;
    world.start();
    let first = accepted("e-1", "order.paid");
    world.publish(&first).await;
    world.publish(&first).await;
    world.publish(&accepted("e-1", "order.sent")).await;
    world.settled().await;
    assert_eq!(world.deliveries().await.len(), 1);
    let row = world.row("e-1").await;
    assert_eq!(row.event.body_hash, first.body_hash);
    assert_eq!(row.conflicts.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_event_read_and_not_claimed_before_a_crash_is_owed() {
    let mut world = World::new(Settings::default()).await;
    world.subscribe(1, 10, &["**"]).await;
    world.publish(&accepted("e-1", "order.paid")).await;
    world.stores.go_away();
    world.start();
    world.while_idle().await;
    assert!(!world.is_claimed("e-1"), "there is a store after all");
    world.crash();
    world.stores.come_back();
    world.start();
    world.settled().await;
    assert_eq!(world.owed("e-1").await, [1]);
}

#[tokio::test(start_paused = true)]
async fn an_event_claimed_before_a_crash_is_owed_to_whom_it_matched_then() {
    let settings = Settings {
        sync: SyncMode::Manual,
        ..Settings::default()
    };
    let mut world = World::new(settings).await;
    world.subscribe(1, 10, &["**"]).await;
    world.publish(&accepted("e-1", "order.paid")).await;
    world.log.set_fault(Call::Append, Some(Fault::Stall));
    world.start();
    world
        .until("the event is claimed", || world.is_claimed("e-1"))
        .await;
    world.crash();
    world.subscribe(2, 20, &["**"]).await;
    world.log.set_fault(Call::Append, None);
    world.start();
    world.settled().await;
    assert_eq!(world.owed("e-1").await, [1]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_routed_by_a_configuration_that_is_not_confirmed() {
    let settings = Settings {
        freshness: Duration::from_millis(50),
        ..Settings::default()
    };
    let mut world = World::new(settings).await;
    world.start();
    // Confirmations age by the real clock, whatever the test's is.
    while world.follower.age() <= Duration::from_millis(60) {
        std::thread::yield_now();
    }
    world.publish(&accepted("e-1", "order.paid")).await;
    world.while_idle().await;
    assert!(!world.is_claimed("e-1"), "routed by an old configuration");
    world.subscribe(1, 10, &["**"]).await;
    world.settled().await;
    assert_eq!(world.owed("e-1").await, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_disabled_endpoint_is_owed_nothing_and_a_paused_one_is() {
    let mut world = World::new(Settings::default()).await;
    for (id, state) in [(1, EndpointState::Disabled), (2, EndpointState::Paused)] {
        world.subscribe(id, id * 10, &["**"]).await;
        world.set_state(id * 10, state).await;
    }
    world.start();
    world.publish(&accepted("e-1", "order.paid")).await;
    world.settled().await;
    assert_eq!(world.owed("e-1").await, [2]);
    world.set_state(10, EndpointState::Active).await;
    world.delete_endpoint(20).await;
    world.publish(&accepted("e-2", "order.paid")).await;
    world.settled().await;
    assert_eq!(world.owed("e-2").await, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_fan_out_larger_than_all_room_works() {
    let settings = Settings {
        open_deliveries_max: 100,
        ..Settings::default()
    };
    let mut world = World::new(settings).await;
    world.subscribe_many(3000).await;
    world.start();
    for i in 0..5 {
        world
            .publish(&accepted(&format!("e-{i}"), "order.paid"))
            .await;
    }
    world.settled().await;
    for i in 0..5 {
        assert_eq!(
            world.owed(&format!("e-{i}")).await,
            (1..=3000).collect::<Vec<_>>()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn deliveries_keep_the_order_of_their_events() {
    let settings = Settings {
        spans: 1,
        ..Settings::default()
    };
    let mut world = World::new(settings).await;
    world.subscribe(1, 10, &["**"]).await;
    world.start();
    for i in 0..2000 {
        world
            .publish(&accepted(&format!("e-{i}"), "order.paid"))
            .await;
    }
    world.settled().await;
    let deliveries = world.deliveries().await;
    let places: Vec<_> = deliveries.iter().map(|record| record.place).collect();
    assert_eq!(places.len(), 2000);
    assert!(places.is_sorted());
}

#[tokio::test(start_paused = true)]
async fn whatever_is_away_is_waited_for() {
    let mut world = World::new(Settings::default()).await;
    world.subscribe(1, 10, &["**"]).await;
    world.start();
    world.stores.go_away();
    world.publish(&accepted("e-1", "order.paid")).await;
    world.while_idle().await;
    world.stores.come_back();
    world.settled().await;
    for (i, fault) in [
        Fault::Refuse(LogErrorKind::Unavailable),
        Fault::Refuse(LogErrorKind::Full),
        Fault::LoseAnswer,
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("late-{i}");
        world.drain().await;
        world.publish(&accepted(&id, "order.paid")).await;
        world.log.set_fault(Call::Append, Some(fault));
        world.log.set_fault(Call::Commit, Some(fault));
        world.start();
        world.while_idle().await;
        world.log.set_fault(Call::Append, None);
        world.log.set_fault(Call::Commit, None);
        world.settled().await;
        assert_eq!(world.owed(&id).await, [1], "{fault:?}");
    }
    assert_eq!(world.owed("e-1").await, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_leaves_nothing_to_repeat() {
    let mut world = World::new(Settings::default()).await;
    world.subscribe(1, 10, &["**"]).await;
    world.start();
    for i in 0..500 {
        world
            .publish(&accepted(&format!("a-{i}"), "order.paid"))
            .await;
    }
    world.drain().await;
    let routed_once = world.deliveries().await.len();
    assert!(world.unsettled_routed().await.is_empty());
    world.start();
    world.settled().await;
    let deliveries = world.deliveries().await;
    assert!(deliveries.len() >= routed_once);
    assert_eq!(deliveries.len(), 500, "none twice, none missing");
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_a_store_that_is_away() {
    let mut world = World::new(Settings::default()).await;
    world.subscribe(1, 10, &["**"]).await;
    world.start();
    world.stores.go_away();
    world.publish(&accepted("e-1", "order.paid")).await;
    world.while_idle().await;
    world.drain().await;
    world.stores.come_back();
    world.start();
    world.settled().await;
    assert_eq!(world.owed("e-1").await, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_router_that_lost_its_lease_commits_nothing() {
    let settings = Settings {
        revoke_deadline: Duration::from_millis(200),
        ..Settings::default()
    };
    let mut world = World::new(settings).await;
    world.subscribe(1, 10, &["**"]).await;
    for i in 0..50 {
        world
            .publish(&accepted(&format!("e-{i}"), "order.paid"))
            .await;
    }
    world.log.set_fault(Call::Append, Some(Fault::Stall));
    world.start();
    world
        .until("all is claimed", || {
            (0..50).all(|i| world.is_claimed(&format!("e-{i}")))
        })
        .await;
    // A second router takes half of the spans from the first, which cannot finish in time.
    world.start();
    world.while_idle().await;
    assert_eq!(
        world.committed(),
        0,
        "nothing is durable, so nothing may be committed"
    );
    world.log.set_fault(Call::Append, None);
    world.settled().await;
    for i in 0..50 {
        assert_eq!(world.owed(&format!("e-{i}")).await, [1]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_is_settled_and_the_next_is_routed() {
    let settings = Settings {
        spans: 1,
        ..Settings::default()
    };
    let mut world = World::new(settings).await;
    world.subscribe(1, 10, &["**"]).await;
    world.start();
    let mut bytes = BytesMut::from(&Record::Event(accepted("e-0", "order.paid")).encode()[..]);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    world.publish_bytes(bytes.freeze()).await;
    world.publish(&accepted("e-1", "order.paid")).await;
    world.settled().await;
    assert_eq!(world.deliveries().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_record_of_a_newer_version_holds_its_span_until_it_is_let_go() {
    let settings = Settings {
        spans: 1,
        ..Settings::default()
    };
    let mut world = World::new(settings).await;
    world.subscribe(1, 10, &["**"]).await;
    world.start();
    world.publish(&accepted("e-0", "order.paid")).await;
    world.publish_bytes(of_newer_version()).await;
    world.publish(&accepted("e-1", "order.paid")).await;
    world
        .until("what came before is committed", || world.committed() == 1)
        .await;
    world.while_idle().await;
    assert!(!world.is_claimed("e-1"), "nothing goes past it");
    world.drain().await;
    assert_eq!(world.committed(), 1);
}

/// A well-formed record of major version 9.
fn of_newer_version() -> bytes::Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_slice(&[9, 1]);
    bytes.put_u32_le(crc32c::crc32c(&[9, 1]));
    bytes.freeze()
}
