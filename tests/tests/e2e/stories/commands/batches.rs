//! `fanfare event publish --batch`, and what has no answer.

use std::collections::BTreeSet;

use fanfare_tests::World;
use fanfare_tests::world::said_to;
use serde_json::{Value, json};

use super::{command, file, input, is_time, json, refusal, run, text};
use crate::refusals::refused;

#[tokio::test]
async fn a_batch_is_a_line_per_event_and_a_result_per_line() {
    let world = World::start().await;
    let shop = world.endpoint().await;
    let lines = [
        r#"{"specversion":"1.0","id":"a","source":"/shop","type":"order.paid","data":{"n": 1.0}}"#,
        "",
        r#"{"type":"order.paid","data":2}"#,
        r#"{"id":"c","type":"order/paid","data":0}"#,
        r#"{"id":"d","type":"order.paid","datacontenttype":"text/plain","data_base64":"Mw=="}"#,
    ];
    let batch = file(&world, "events.ndjson", &lines.join("\n"));
    let said = run(&world, &format!("-o json event publish --batch {batch}")).await;
    let error: Value = serde_json::from_str(&said.err).expect("an error");
    assert_eq!((said.code, &error["error"]["code"]), (1, &json!("REFUSED")));
    let rows = said.out.lines().map(serde_json::from_str);
    let rows: Vec<Value> = rows.collect::<Result<_, _>>().expect("JSON");
    let numbers: Vec<_> = rows.iter().map(|row| row["line"].as_u64()).collect();
    assert_eq!(numbers, [Some(1), Some(3), Some(4), Some(5)]);
    assert_eq!(
        (&rows[0]["id"], &rows[0]["duplicate"]),
        (&json!("a"), &json!(false))
    );
    assert_eq!(rows[2]["error"]["code"], "EVENT_TYPE_INVALID");
    assert!(is_time(&rows[3]["accept_time"]), "{rows:?}");
    let note = rows[3]["notes"][0].as_str().expect("a note");
    assert!(note.contains("the data is not JSON"), "{note}");
    assert_eq!(rows[0].get("notes"), None);

    // Again, corrected, from standard input: only what is new is published.
    let named = format!(r#"{{"id":{},"type":"order.paid","data":2}}"#, rows[1]["id"]);
    let corrected = lines[3].replace("order/paid", "order.paid");
    let again = [lines[0], &named, &corrected, lines[4]].join("\n");
    let mut publish = command(&world, "event publish --batch -");
    let said = said_to(&mut publish, input(&world, &again)).await;
    let (noted, sum) = said.ok().trim_end().rsplit_once('\n').expect("two lines");
    assert_eq!(sum, "published 1, accepted before 3, refused 0, unknown 0");
    assert!(noted.contains("the data is not JSON"), "{noted}");
    let posts = shop.receives_in_all(&world).await;
    let mut bodies: Vec<_> = posts.iter().map(|post| &post.body[..]).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, [b"0", b"2", b"3", &br#"{"n": 1.0}"#[..]]);
}

#[tokio::test]
async fn a_line_that_is_no_event_publishes_none() {
    let world = World::start().await;
    let lines = "{\"id\":\"x\",\"type\":\"order.paid\"}\n{\n";
    let broken = file(&world, "broken.ndjson", lines);
    let said = run(&world, &format!("event publish --batch {broken}")).await;
    assert_eq!(said.code, 64, "{said:?}");
    assert!(said.err.contains("line 2"), "{said:?}");
    let unknown = (1, "EVENT_NOT_FOUND".to_owned());
    assert_eq!(refusal(&world, "event get x").await, unknown);
}

/// The server dies between making an event durable and saying so.
#[tokio::test]
async fn what_had_no_answer_is_repeated_under_the_printed_ids() {
    let at = "ingest.appended";
    let mut world = World::with(|options| options.env("FANFARE_CRASH_AT", at)).await;
    let shop = world.endpoint().await;
    let said = run(&world, "-o json event publish order.paid --data 1").await;
    let (exit, error) = refused(&said);
    assert_eq!(
        (exit, &error["code"]),
        (75, &json!("UNKNOWN_OUTCOME")),
        "{error}"
    );
    let printed: Value = serde_json::from_str(&said.out).expect("JSON");
    let id = text(&printed["id"]);
    assert!(said.err.contains(&format!("--id {id}")), "{said:?}");
    world.exits().await;

    world.restart().await;
    let [unnamed, named] = [
        r#"{"type":"order.paid","data":2}"#,
        r#"{"id":"c","type":"order.paid","data":3}"#,
    ];
    let batch = file(&world, "events.ndjson", &[unnamed, named].join("\n"));
    let said = run(&world, &format!("event publish --batch {batch}")).await;
    assert_eq!(said.code, 75, "{said:?}");
    let first: Vec<_> = said.out.split_whitespace().take(3).collect();
    let ["line", "1", made] = first[..] else {
        panic!("{said:?}")
    };
    world.exits().await;

    world.options().environment.clear();
    world.restart().await;
    let again = format!("event publish order.paid --data 1 --id {id}");
    assert_eq!(json(&world, &again).await[0]["duplicate"], true);
    let mended = unnamed.replacen('{', &format!(r#"{{"id":"{made}","#), 1);
    let batch = file(&world, "events.ndjson", &[&mended, named].join("\n"));
    let said = run(&world, &format!("event publish --batch {batch}")).await;
    assert_eq!(
        said.ok(),
        "published 0, accepted before 2, refused 0, unknown 0\n"
    );
    let posts = shop.receives_in_all(&world).await;
    let came: BTreeSet<_> = posts.iter().map(|post| post.header("ce-id")).collect();
    assert_eq!(came, BTreeSet::from([&*id, made, "c"]));
}
