//! What all lists have in common, and `fanfare status`.

use std::time::Duration;

use fanfare_proto::v1::DeliveryState;
use fanfare_tests::World;
use serde_json::json;

use super::{file, is_time, json, run, text};

/// A time that has not come.
const LATER: &str = "2100-01-01T00:00:00Z";

#[tokio::test]
async fn lists_have_a_limit_a_beginning_and_everything() {
    let world = World::start().await;
    let shop = world.endpoint().await;
    let lines = "{\"type\":\"invoice.sent\"}\n".repeat(60);
    let batch = file(&world, "events.ndjson", &lines);
    run(&world, &format!("event publish --batch {batch}"))
        .await
        .ok();
    let order = "event publish order.paid --id last --data {}";
    let accepted = text(&json(&world, order).await[0]["accept_time"]);
    shop.receives(61).await;
    world.delivered("last").await;

    for noun in ["event", "delivery"] {
        for (flags, count) in [
            ("", 50),
            ("--limit 55", 55),
            ("--all", 61),
            ("--all --since 1h", 61),
        ] {
            let listed = json(&world, &format!("{noun} list {flags}")).await;
            assert_eq!(listed.len(), count, "{noun} {flags}");
        }
    }
    for noun in ["event", "delivery", "endpoint", "subscription"] {
        let list = format!("{noun} list --since {LATER}");
        assert_eq!(json(&world, &list).await.len(), 0, "{noun}");
        let said = run(&world, &list).await;
        assert_eq!(said.ok(), "", "{noun}");
        assert!(
            !said.err.is_empty(),
            "{noun}: it says that there is nothing"
        );
    }
    let since = json(&world, &format!("event list --since {accepted}")).await;
    assert_eq!((since.len(), &since[0]["id"]), (1, &json!("last")));
    let orders = json(&world, "event list --event-type order.*").await;
    assert_eq!((orders.len(), &orders[0]["delivery_count"]), (1, &json!(1)));
    let newest = json(&world, "event list --limit 2").await;
    assert_eq!(newest[0]["id"], "last");
    assert_eq!(newest[1]["type"], "invoice.sent");
    let said = run(&world, "event list --limit 1").await;
    let [heads, row] = said.ok().lines().collect::<Vec<_>>()[..] else {
        panic!("{said:?}")
    };
    assert!(
        heads.starts_with("ACCEPTED") && row.ends_with("last"),
        "{said:?}"
    );
}

#[tokio::test]
async fn the_status_counts_what_is_open_however_old_it_is() {
    let world = World::start().await;
    let down = world.endpoint().wants(&["order.*"]).always(503);
    let down = down.retrying(&[Duration::from_hours(1)]).await;
    let paused = world.endpoint().wants(&["order.*"]).await;
    let id = &*paused.endpoint.id;
    run(&world, &format!("endpoint pause {id}")).await.ok();
    let event = world.publish("order.paid", "{}").await.id;
    let (retrying, parked) = (DeliveryState::Retrying, DeliveryState::Parked);
    world
        .delivery_in_at(&event, &down.endpoint.id, retrying)
        .await;
    world.delivery_in_at(&event, id, parked).await;
    // A page of deliveries looks at fewer events than these.
    let lines = "{\"type\":\"invoice.sent\"}\n".repeat(450);
    let batch = file(&world, "events.ndjson", &lines);
    run(&world, &format!("event publish --batch {batch}"))
        .await
        .ok();
    let last = world.publish("invoice.sent", "{}").await.id;
    world.routed(&last).await;

    let status = &json(&world, "status").await[0];
    for (field, count) in [
        ("endpoints", 2),
        ("endpoints_not_active", 1),
        ("subscriptions", 2),
        ("pending", 0),
        ("retrying", 1),
        ("parked", 1),
        ("dead_letters", 0),
    ] {
        assert_eq!(status[field], count, "{field}: {status}");
    }
    assert!(is_time(&status["last_event_time"]), "{status}");
    let said = run(&world, "status").await;
    let sight = "2, 1 of them paused or disabled";
    assert!(said.ok().contains(sight), "{said:?}");
}
