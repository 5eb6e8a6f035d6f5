//! Endpoints that hang next to healthy ones.

use std::time::Duration;

use crate::sink::{Gate, Sink};
use crate::world::World;

#[tokio::test]
async fn the_healthy_get_theirs_while_others_hang() {
    let mut world = World::new();
    world.config.in_flight = 40;
    world.config.queue_max = 400;
    world.start().await;
    let gate = Gate::shut();
    let (hanging, healthy) = (Sink::behind(&gate).await, Sink::start().await);
    for id in 1..=20 {
        let at = |e: &mut fanfare_domain::Endpoint| e.timeout = Duration::from_secs(30);
        world.endpoint_with(id, &hanging.url, at).await;
    }
    for id in 21..=30 {
        world.endpoint(id, &healthy.url).await;
    }
    let everybody: Vec<u64> = (1..=30).collect();
    for _ in 0..200 {
        world.publish("{}", &everybody).await;
    }
    healthy.receives(2000).await;
    // None of those that hang has ended, and they hold only their part.
    assert!((20..=30).contains(&hanging.count()), "{}", hanging.count());
    gate.open();
    hanging.receives(4000).await;
    world.all_settled(200).await;
    assert_eq!((healthy.count(), hanging.count()), (2000, 4000));
}

#[tokio::test]
async fn an_endpoint_has_at_most_its_share_in_flight() {
    let mut world = World::new();
    world.config.endpoint_in_flight = 4;
    world.start().await;
    let gate = Gate::shut();
    let sink = Sink::behind(&gate).await;
    world.endpoint(1, &sink.url).await;
    for _ in 0..50 {
        world.publish("{}", &[1]).await;
    }
    sink.receives(4).await;
    assert_eq!(sink.connections(), 4);
    gate.open();
    sink.receives(50).await;
    world.all_settled(50).await;
    assert_eq!((sink.count(), sink.connections()), (50, 4));
}
