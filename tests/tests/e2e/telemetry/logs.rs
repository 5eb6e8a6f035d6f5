//! Lines that a support person finds by an id.

use std::ops::ControlFlow;
use std::time::Duration;

use fanfare_tests::World;
use fanfare_tests::api::named;
use fanfare_tests::eventually;
use serde_json::Value;

const SOON: Duration = Duration::from_millis(100);

/// The JSON line that says `message`, once it was written.
async fn line(world: &World, message: &str) -> Value {
    eventually("a line of the log", async || {
        let text = world.server().log().text();
        let lines = text.lines().filter_map(|l| serde_json::from_str(l).ok());
        let mut found = lines.filter(|line: &Value| line["message"] == message);
        match found.next() {
            Some(line) => ControlFlow::Break(line),
            None => ControlFlow::Continue(text),
        }
    })
    .await
}

#[tokio::test]
async fn failures_are_told_as_json_with_every_id() {
    let world = World::with(|options| options.with(&["--log-format", "json"])).await;
    let broken = world
        .endpoint()
        .tenant("acme")
        .always(400)
        .retrying(&[SOON])
        .await;
    let api = world.api().tenant("acme");
    let accepted = api.publish(named("e1", "order.paid", "{}")).await;
    accepted.expect("accepted");
    let posts = broken.sink.attempts(1).await;
    for message in ["an attempt failed", "a delivery is a dead letter"] {
        let line = line(&world, message).await;
        assert_eq!(line["event_id"], "e1", "{line}");
        assert_eq!(line["delivery_id"], posts[0].id(), "{line}");
        assert_eq!(line["endpoint_id"], *broken.endpoint.id, "{line}");
        assert_eq!(line["tenant"], "acme", "{line}");
    }
    let refused = api.publish(named("e2", "not a type", "{}")).await;
    refused.expect_err("refused");
    let line = line(&world, "a publish is refused").await;
    assert_eq!(
        (&line["event_id"], &line["tenant"]),
        (&"e2".into(), &"acme".into())
    );
}

#[tokio::test]
async fn a_paused_endpoints_deliveries_are_told_as_parked() {
    let world = World::with(|options| options.with(&["--log-format", "json"])).await;
    let shop = world.endpoint().await;
    let paused = world
        .fanfare(&["endpoint", "pause", &shop.endpoint.id])
        .await;
    paused.ok();
    let published = world.publish("order.paid", "{}").await;
    let line = line(&world, "a delivery is parked").await;
    assert_eq!(line["event_id"], *published.id, "{line}");
    assert_eq!(line["endpoint_id"], *shop.endpoint.id, "{line}");
    assert_eq!(line["tenant"], "default", "{line}");
    assert!(line["delivery_id"].is_string(), "{line}");
}

#[tokio::test]
async fn a_dead_endpoint_does_not_flood_the_log() {
    let world = World::with(|options| options.with(&["--log-format", "json"])).await;
    let dead = world.endpoint().always(400).retrying(&[SOON]).await;
    let began = std::time::Instant::now();
    for _ in 0..200 {
        world.publish("order.paid", "{}").await;
    }
    dead.sink.attempts(200).await;
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    let text = world.server().log().text();
    let lines = text.matches("\"an attempt failed\"").count();
    // Ten a second, and the clock's seconds need not begin with ours.
    assert!(
        (1..=10 * (seconds + 2)).contains(&lines),
        "{lines} in {seconds} s"
    );
}
