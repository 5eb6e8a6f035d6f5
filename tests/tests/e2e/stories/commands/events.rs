//! `fanfare event publish`, `get` and `tail`.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use fanfare_tests::sink::{Script, Sink};
use fanfare_tests::world::{Said, said, said_to};
use fanfare_tests::{World, eventually};
use serde_json::{Value, json};

use super::{command, file, input, is_time, json, run, text};
use crate::refusals::refused;

#[tokio::test]
async fn an_event_is_published_with_its_attributes_and_found_again() {
    let world = World::start().await;
    let shop = world.endpoint().await;
    let attributes = "--content-type text/plain --id e1 --source /shop --subject order-17 \
                      --key customer-9 --extension region=eu --extension team=x";
    let publish = format!("-o json event publish order.paid - {attributes}");
    let said = said_to(&mut command(&world, &publish), input(&world, "Zoë")).await;
    let published = &said.json()[0];
    assert_eq!(published["id"], "e1");
    assert_eq!(published["source"], "/shop");
    assert_eq!(published["duplicate"], false);
    assert!(is_time(&published["accept_time"]), "{published}");
    let note = published["notes"][0].as_str().expect("a note");
    assert!(note.contains("the data is not JSON"), "{note}");
    let post = &shop.receives(1).await[0];
    assert_eq!(post.body, "Zoë");
    for (header, value) in [
        ("content-type", "text/plain"),
        ("ce-id", "e1"),
        ("ce-source", "/shop"),
        ("ce-subject", "order-17"),
        ("ce-partitionkey", "customer-9"),
        ("ce-region", "eu"),
        ("ce-team", "x"),
    ] {
        assert_eq!(post.header(header), value, "{header}");
    }
    let again = format!("event publish order.paid --data Zoë {attributes}");
    let said = run(&world, &again).await;
    assert!(said.ok().contains("accepted before"), "{said:?}");
    assert!(said.err.contains("the data is not JSON"), "{said:?}");

    world.delivered("e1").await;
    let event = &json(&world, "event get e1 --source /shop").await[0];
    assert_eq!(event["type"], "order.paid");
    assert_eq!(event["data_base64"], "Wm/Dqw==");
    assert_eq!(event["data_content_type"], "text/plain");
    assert_eq!(event["ordering_key"], "customer-9");
    assert_eq!(event["extensions"], json!({"region": "eu", "team": "x"}));
    assert_eq!(event["delivery_count"], 1);
    assert_eq!(event["deliveries"][0]["state"], "delivered");
    assert_eq!(event["deliveries"][0]["endpoint_id"], shop.endpoint.id);
    let said = run(&world, "event get e1").await;
    let sights = [
        "routed; 1 delivery",
        "customer-9",
        "region=eu",
        "delivered",
        "Zoë",
    ];
    for sight in sights {
        assert!(said.ok().contains(sight), "{sight}: {said:?}");
    }
}

#[tokio::test]
async fn data_of_a_file_arrives_byte_for_byte() {
    let world = World::start().await;
    let shop = world.endpoint().await;
    let data = "{ \"amount\" : 1250.00,\n\"amount\": 1e3 }\n";
    let file = file(&world, "data.json", data);
    let said = run(
        &world,
        &format!("event publish order.paid --data-file {file}"),
    )
    .await;
    assert!(said.ok().contains("durable"), "{said:?}");
    assert_eq!(shop.receives(1).await[0].body, data);
}

#[tokio::test]
async fn waiting_prints_each_outcome_and_exits_by_the_worst() {
    let world = World::start().await;
    let shop = world.endpoint().wants(&["order.*"]).await;
    let down = world.endpoint().wants(&["order.lost"]).always(500);
    let down = down.retrying(&[]).await;
    let busy = world.endpoint().wants(&["order.late"]).always(503);
    let busy = busy.retrying(&[Duration::from_hours(1)]).await;
    let [shop, down, busy] = [&shop, &down, &busy].map(|one| one.endpoint.id.clone());
    let publish = "event publish --data {} --wait";

    let said = run(&world, &format!("-o json {publish} order.paid")).await;
    assert_eq!(outcomes(&said), set(&[(&shop, "delivered")]));
    let said = run(&world, &format!("{publish} order.paid")).await;
    let (published, outcome) = said.ok().trim_end().rsplit_once('\n').expect("lines");
    assert!(published.contains("durable"), "{said:?}");
    assert!(
        outcome.contains("delivered") && outcome.contains(&shop),
        "{said:?}"
    );

    let said = run(&world, &format!("-o json {publish} order.lost")).await;
    assert_eq!(
        outcomes(&said),
        set(&[(&shop, "delivered"), (&down, "dead_letter")])
    );
    let (exit, error) = refused(&said);
    assert_eq!(
        (exit, &error["code"]),
        (1, &json!("DEAD_LETTER")),
        "{error}"
    );
    let said = run(&world, &format!("{publish} order.lost")).await;
    assert!(
        said.out.contains("dead_letter (attempts_exhausted)"),
        "{said:?}"
    );
    assert!(said.err.contains("fanfare delivery redrive"), "{said:?}");

    let said = run(
        &world,
        &format!("-o json {publish} order.late --wait-timeout 2s"),
    )
    .await;
    assert_eq!(
        outcomes(&said),
        set(&[(&shop, "delivered"), (&busy, "retrying")])
    );
    let (exit, error) = refused(&said);
    assert_eq!(
        (exit, &error["code"]),
        (75, &json!("UNKNOWN_OUTCOME")),
        "{error}"
    );

    let said = run(&world, &format!("{publish} invoice.sent")).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.contains("no subscription wanted it"), "{said:?}");
}

/// Endpoint and state of each delivery that was printed after the event.
fn outcomes(said: &Said) -> BTreeSet<(String, String)> {
    let rows = said.out.lines().skip(1);
    let rows = rows.map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    rows.map(|row| (text(&row["endpoint_id"]), text(&row["state"])))
        .collect()
}

fn set(all: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    let owned = |(endpoint, state): &(&str, &str)| (endpoint.to_string(), state.to_string());
    all.iter().map(owned).collect()
}

/// An answer names the first 100 deliveries of an event: the others count, too.
#[tokio::test]
async fn waiting_and_asking_tell_of_more_than_100_deliveries() {
    const OWED: usize = 103;
    let setting = "FANFARE__MANAGEMENT__ENDPOINTS_PER_TENANT_MAX";
    let world = World::with(|options| options.env(setting, &OWED.to_string())).await;
    let shop = Sink::start(Script::ok()).await;
    for _ in 0..OWED {
        let another = world.endpoint();
        another.change(|endpoint| endpoint.url = shop.url()).await;
    }
    let told = json(&world, "event publish order.paid --id e1 --data {} --wait").await;
    let delivered = told.iter().filter(|row| row["state"] == "delivered");
    assert_eq!((told.len(), delivered.count()), (1 + OWED, OWED));
    let event = &json(&world, "event get e1").await[0];
    assert_eq!(event["deliveries"].as_array().map(Vec::len), Some(OWED));
}

#[tokio::test]
async fn a_tail_prints_what_is_accepted_and_ends_at_its_limit() {
    let world = World::start().await;
    let rows = tail(&world, "json").await.json();
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(row["type"], "order.paid");
        assert_eq!(row["data"], json!({"amount": 1}));
        assert!(is_time(&row["accept_time"]), "{row}");
    }
    let said = tail(&world, "table").await;
    let lines: Vec<_> = said.ok().lines().collect();
    assert_eq!(lines.len(), 2, "{said:?}");
    for line in lines {
        assert!(
            line.contains("order.paid") && line.contains("amount"),
            "{line}"
        );
    }
}

/// Follows two events. It does so from some moment after its start: publishes until it has them.
async fn tail(world: &World, format: &str) -> Said {
    let line = format!("-o {format} event tail --event-type order.** --limit 2");
    let mut command = command(world, &line);
    let following = tokio::spawn(async move { said(&mut command).await });
    eventually("the tail to end", async || {
        world.publish("invoice.sent", "{}").await;
        world.publish("order.paid", r#"{"amount":1}"#).await;
        if following.is_finished() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue("it goes on")
        }
    })
    .await;
    following.await.expect("it does not panic")
}
