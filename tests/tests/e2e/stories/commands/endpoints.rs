//! `fanfare endpoint`.

use std::ops::ControlFlow;

use fanfare_tests::sink::{Answer, Gate, Script, Sink};
use fanfare_tests::world::{Said, said_to};
use fanfare_tests::{World, eventually};
use serde_json::{Value, json};

use super::{command, file, input, json, refusal, run, text};
use crate::refusals::refused;

const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

#[tokio::test]
async fn an_endpoint_is_made_with_its_settings() {
    let world = World::start().await;
    let sink = Sink::start(Script::ok()).await;
    let create = format!(
        "-o json endpoint create {} --event-type order.* --event-type invoice.sent --name Shop \
         --secret-file - --header x-team=shop --label team=shop --label env=test \
         --retry-schedule 5s,5m --timeout 7s --envelope structured",
        sink.url()
    );
    let said = said_to(&mut command(&world, &create), input(&world, SECRET)).await;
    let made = &said.json()[0];
    for (field, value) in [
        ("name", json!("Shop")),
        ("url", json!(sink.url())),
        ("state", json!("active")),
        ("secret", json!(SECRET)),
        ("headers", json!({"x-team": ""})),
        ("labels", json!({"team": "shop", "env": "test"})),
        ("retry_schedule", json!(["5s", "5m"])),
        ("timeout", json!("7s")),
        ("envelope", json!("structured")),
    ] {
        assert_eq!(made[field], value, "{field}");
    }
    let wanted = &made["subscription"]["event_types"];
    assert_eq!(*wanted, json!(["order.*", "invoice.sent"]));
    world.publish("order.paid", "{}").await;
    let post = &sink.receives(1).await[0];
    post.verify(SECRET).expect("the given secret signs");
    assert_eq!(post.json()["type"], "order.paid");
    assert_eq!(post.header("x-team"), "shop");
}

#[tokio::test]
async fn an_update_changes_what_it_names_and_keeps_the_rest() {
    let world = World::start().await;
    let (old, new) = (
        Sink::start(Script::ok()).await,
        Sink::start(Script::ok()).await,
    );
    let create = format!(
        "endpoint create {} --event-type ** --header x-team=shop --label team=shop --label env=test",
        old.url()
    );
    let made = &json(&world, &create).await[0];
    let (id, etag) = (text(&made["id"]), text(&made["etag"]));
    let update = format!(
        "endpoint update {id} --etag {etag} --url {} --name Store --header x-new=1 --label env=live \
         --remove-label team --timeout 8s --retry-schedule never --envelope structured",
        new.url()
    );
    let changed = &json(&world, &update).await[0];
    assert_eq!(changed["headers"], json!({"x-team": "", "x-new": ""}));
    assert_eq!(changed["labels"], json!({"env": "live"}));
    assert_eq!(changed["timeout"], "8s");
    world.publish("order.paid", "{}").await;
    let post = &new.receives(1).await[0];
    post.verify(&text(&made["secret"])).expect("it is the same");
    assert_eq!((post.header("x-team"), post.header("x-new")), ("shop", "1"));
    assert_eq!(post.json()["type"], "order.paid");
    assert_eq!(old.receipts().len(), 0);

    let said = run(&world, &format!("endpoint get {id}")).await;
    let url = new.url();
    for sight in [
        "Store",
        &url,
        "never",
        "x-new, x-team",
        "env=live",
        "structured",
    ] {
        assert!(said.ok().contains(sight), "{sight}: {said:?}");
    }
    assert!(
        !said.out.contains("whsec_"),
        "a secret is shown once: {said:?}"
    );
    let stale = refusal(&world, &update).await;
    assert_eq!(stale, (1, "ETAG_MISMATCH".to_owned()));
    assert_eq!(run(&world, &format!("endpoint update {id}")).await.code, 64);
}

#[tokio::test]
async fn endpoints_are_listed_paused_resumed_and_deleted() {
    let world = World::start().await;
    let sink = Sink::start(Script::ok()).await;
    let said = run(
        &world,
        &format!("endpoint create {} --label team=shop", sink.url()),
    )
    .await;
    assert!(said.ok().contains("whsec_"), "{said:?}");
    assert!(said.err.contains("no subscription was created"), "{said:?}");
    let shop = world.endpoint().await;
    let id = &*shop.endpoint.id;
    assert_eq!(json(&world, "endpoint list").await.len(), 2);
    let labelled = json(&world, "endpoint list --label team=shop").await;
    assert_eq!(
        (labelled.len(), &labelled[0]["url"]),
        (1, &json!(sink.url()))
    );

    let paused = &json(&world, &format!("endpoint pause {id} --reason moving")).await[0];
    assert_eq!(paused["state"], "paused");
    assert_eq!(paused["state_reason"], "moving");
    let listed = json(&world, "endpoint list --state paused").await;
    assert_eq!((listed.len(), &listed[0]["id"]), (1, &json!(id)));
    let said = run(&world, "endpoint list").await;
    assert!(said.ok().contains("paused (moving)"), "{said:?}");
    world.publish("order.paid", "{}").await;
    let parked = format!("delivery list --endpoint {id} --state parked");
    eventually("it to be parked", async || {
        match &json(&world, &parked).await[..] {
            [row] if row["parked_reason"] == "paused" => ControlFlow::Break(()),
            other => ControlFlow::Continue(format!("{other:?}")),
        }
    })
    .await;
    let said = run(&world, &format!("endpoint resume {id}")).await;
    assert!(said.ok().contains("active"), "{said:?}");
    shop.receives(1).await;

    let said = run(&world, &format!("endpoint delete {id}")).await;
    assert_eq!(said.ok(), format!("deleted  {id}\n"));
    let other = text(&labelled[0]["id"]);
    let gone = json(&world, &format!("endpoint delete {other}")).await;
    assert_eq!(gone, [json!({"id": other, "deleted": true})]);
    for noun in ["endpoint", "subscription"] {
        let left = json(&world, &format!("{noun} list")).await;
        assert_eq!(left.len(), 0, "{noun}");
    }
}

#[tokio::test]
async fn a_rotated_secret_signs_beside_the_old_one_for_the_overlap() {
    let world = World::start().await;
    let shop = world.endpoint().await;
    let rotate = format!("endpoint rotate-secret {}", shop.endpoint.id);
    let second = text(&json(&world, &rotate).await[0]["secret"]);
    world.publish("order.paid", "{}").await;
    let post = &shop.sink.receives(1).await[0];
    for secret in [&shop.endpoint.secret, &second] {
        post.verify(secret)
            .expect("the old and the new secret sign");
    }
    let file = file(&world, "secret.txt", SECRET);
    let said = run(
        &world,
        &format!("{rotate} --secret-file {file} --overlap 0s"),
    )
    .await;
    assert!(said.ok().contains(SECRET), "{said:?}");
    world.publish("order.paid", "{}").await;
    let post = &shop.sink.receives(2).await[1];
    post.verify(SECRET).expect("the newest secret signs");
    post.verify(&second).expect_err("its overlap is over");
}

#[tokio::test]
async fn a_test_shows_the_answer_and_exits_by_it() {
    let world = World::start().await;
    let shop = world.endpoint().wants(&["order.paid"]).await;
    let test = format!("endpoint test {}", shop.endpoint.id);
    let said = run(&world, &test).await;
    assert!(
        said.ok().starts_with("TRY") && said.out.contains("200"),
        "{said:?}"
    );
    assert_eq!(shop.receives(1).await[0].header("ce-type"), "fanfare.test");
    let data = r#"--event-type order.lost --data {"amount":1}"#;
    let said = run(&world, &format!("-o json {test} {data}")).await;
    assert_eq!(
        (said.code, &outcome(&said)["kind"]),
        (0, &json!("delivered"))
    );
    let post = &shop.receives(2).await[1];
    assert_eq!(post.body, r#"{"amount":1}"#);
    assert_eq!(post.header("ce-type"), "order.lost");

    shop.sink.follow(Script::always(Answer::status(500)));
    let said = run(&world, &format!("-o json {test}")).await;
    assert_eq!(outcome(&said)["http_status"], 500);
    assert_eq!(outcome(&said)["will_retry"], false);
    let (exit, error) = refused(&said);
    assert_eq!(
        (exit, &error["code"]),
        (1, &json!("TEST_FAILED")),
        "{error}"
    );
    // How long it may take is the endpoint's own setting.
    shop.sink.follow(Script::gated(&Gate::shut()));
    let update = format!("endpoint update {} --timeout 1s", shop.endpoint.id);
    run(&world, &update).await.ok();
    let said = run(&world, &format!("-o json {test}")).await;
    assert_eq!((said.code, &outcome(&said)["kind"]), (1, &json!("timeout")));
}

/// What the one attempt that was printed came to.
fn outcome(said: &Said) -> Value {
    let attempt: Value = serde_json::from_str(&said.out).expect("JSON");
    attempt["outcome"].clone()
}
