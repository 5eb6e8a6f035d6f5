//! `fanfare delivery`.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use fanfare_tests::server::Log;
use fanfare_tests::sink::Script;
use fanfare_tests::world::Subscriber;
use fanfare_tests::{World, eventually};
use serde_json::{Value, json};

use super::{command, is_time, json, refusal, run};

#[tokio::test]
async fn a_delivery_is_found_by_event_endpoint_and_state_and_shows_its_attempts() {
    let world = World::start().await;
    let down = world.endpoint().wants(&["order.*"]).always(500);
    let down = down.retrying(&[]).await;
    let event = world.publish("order.paid", "{}").await.id;
    let id = world.dead(&event).await.id;
    let shop = world.endpoint().await;
    let other = world.publish("invoice.sent", "{}").await.id;
    world.delivered(&other).await;
    let of_endpoint = format!("--endpoint {}", shop.endpoint.id);
    for (filter, expected) in [
        (format!("--event {event}"), &event),
        (format!("--endpoint {}", down.endpoint.id), &event),
        ("--state dead_letter".to_owned(), &event),
        (format!("{of_endpoint} --state delivered"), &other),
    ] {
        let listed = json(&world, &format!("delivery list {filter}")).await;
        assert_eq!(listed.len(), 1, "{filter}: {listed:?}");
        assert_eq!(listed[0]["event_id"], *expected, "{filter}");
    }
    let none = format!("delivery list {of_endpoint} --state dead_letter");
    assert_eq!(json(&world, &none).await.len(), 0);
    let get = format!("delivery get {id}");
    let got = &json(&world, &get).await[0];
    assert_eq!(
        (&got["attempt_count"], &got["generation"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(got["dead_letter_reason"], "attempts_exhausted");
    assert!(
        is_time(&got["create_time"]) && is_time(&got["settle_time"]),
        "{got}"
    );
    assert_eq!(got["attempts"][0]["outcome"]["http_status"], 500);
    let said = run(&world, &get).await;
    assert!(said.ok().contains("\nTRY"), "{said:?}");
    assert!(
        said.out.contains("dead_letter (attempts_exhausted)"),
        "{said:?}"
    );
}

#[tokio::test]
async fn dead_letters_are_redriven_one_by_one_or_all_of_an_endpoint() {
    let world = World::start().await;
    let (down, ids) = three_dead_letters(&world).await;
    down.sink.follow(Script::ok());
    let redriven = json(&world, &format!("delivery redrive {}", ids[0])).await;
    assert_eq!(redriven, [json!({"id": ids[0], "redriven": true})]);
    assert_eq!(down.receives(1).await[0].id(), ids[0]);
    let event = &json(&world, &format!("delivery get {}", ids[0])).await[0]["event_id"];
    world.delivered(event.as_str().expect("an id")).await;
    let said = run(&world, &format!("delivery redrive {} {}", ids[0], ids[1])).await;
    assert_eq!(said.code, 1, "one of them is no dead letter: {said:?}");
    assert!(said.err.contains("1 were not redriven"), "{said:?}");
    let again = refusal(&world, &format!("delivery redrive {}", ids[0])).await;
    assert_eq!(again, (1, "DELIVERY_NOT_REDRIVABLE".to_owned()));

    let redrive = format!(
        "delivery redrive --endpoint {} --state dead_letter",
        down.endpoint.id
    );
    let said = run(&world, &format!("{redrive} --since 2100-01-01T00:00:00Z")).await;
    assert_eq!((said.code, &*said.err), (0, "no dead letters to redrive\n"));
    let said = run(&world, &redrive).await;
    assert!(
        said.ok().contains(&ids[2]) && said.out.contains("redriven"),
        "{said:?}"
    );
    let posts = down.receives(3).await;
    let came: BTreeSet<_> = posts.iter().map(|post| post.id().to_owned()).collect();
    assert_eq!(came, ids.into_iter().collect());
}

#[tokio::test]
async fn a_watched_list_shows_what_changes() {
    let world = World::start().await;
    let (down, ids) = three_dead_letters(&world).await;
    let watch = format!(
        "-o json delivery list --endpoint {} --watch",
        down.endpoint.id
    );
    let (_watching, log) = Log::of(&mut command(&world, &watch));
    let shows = async |state: &str, id: &str| {
        eventually(&format!("{state} to be shown"), async || {
            let text = log.text();
            let rows = text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            let mut rows = rows.filter(|row: &Value| row["id"] == id);
            if rows.any(|row| row["state"] == state) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(text)
            }
        })
        .await;
    };
    for id in &ids {
        shows("dead_letter", id).await;
    }
    down.sink.follow(Script::ok());
    run(&world, &format!("delivery redrive {}", ids[1]))
        .await
        .ok();
    shows("delivered", &ids[1]).await;
}

/// A subscriber that took nothing, and the ids of its deliveries.
async fn three_dead_letters(world: &World) -> (Subscriber, Vec<String>) {
    let down = world.endpoint().always(500).retrying(&[]).await;
    let mut ids = Vec::new();
    for n in 0..3 {
        let event = world.publish("order.paid", &n.to_string()).await.id;
        ids.push(world.dead(&event).await.id);
    }
    (down, ids)
}
