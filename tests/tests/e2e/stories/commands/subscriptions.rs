//! `fanfare subscription`.

use fanfare_tests::World;
use fanfare_tests::sink::{Script, Sink};
use serde_json::json;

use super::{json, refusal, run, text};

#[tokio::test]
async fn subscriptions_are_made_changed_and_deleted() {
    let world = World::start().await;
    let sink = Sink::start(Script::ok()).await;
    let endpoint = &json(&world, &format!("endpoint create {}", sink.url())).await[0];
    let endpoint = text(&endpoint["id"]);
    let create = format!("subscription create --endpoint {endpoint} --event-type");
    let made = &json(
        &world,
        &format!("{create} order.* --event-type invoice.sent"),
    )
    .await[0];
    let id = text(&made["id"]);
    assert_eq!(made["endpoint_id"], endpoint);
    assert_eq!(made["event_types"], json!(["order.*", "invoice.sent"]));
    let said = run(&world, &format!("{create} order.paid")).await;
    assert!(said.ok().contains("order.paid"), "{said:?}");
    assert!(
        said.err.contains("overlaps") && said.err.contains(&id),
        "{said:?}"
    );

    let list = format!("subscription list --endpoint {endpoint}");
    let listed = json(&world, &list).await;
    let [newest, oldest] = &listed[..] else {
        panic!("{listed:?}")
    };
    assert_eq!(newest["event_types"], json!(["order.paid"]));
    assert_eq!(oldest["id"], id);
    let said = run(&world, &list).await;
    assert_eq!(said.ok().lines().count(), 3, "{said:?}");
    world.publish("order.paid", "{}").await;
    sink.receives(2).await;

    let second = text(&newest["id"]);
    let said = run(&world, &format!("subscription delete {second}")).await;
    assert_eq!(said.ok(), format!("deleted  {second}\n"));
    let update = format!("subscription update {id} --event-type customer.**");
    let changed = json(&world, &update).await;
    assert_eq!(changed[0]["event_types"], json!(["customer.**"]));
    let get = format!("subscription get {id}");
    let said = run(&world, &get).await;
    assert!(
        said.ok().contains("customer.**") && said.out.contains(&endpoint),
        "{said:?}"
    );
    assert_eq!(json(&world, &get).await[0]["live"], true);
    world.publish("order.paid", "{}").await;
    world.publish("customer.address.changed", "{}").await;
    let post = &sink.receives(3).await[2];
    assert_eq!(post.header("ce-type"), "customer.address.changed");

    let gone = json(&world, &format!("subscription delete {id}")).await;
    assert_eq!(gone, [json!({"id": id, "deleted": true})]);
    let unknown = refusal(&world, &get).await;
    assert_eq!(unknown, (1, "SUBSCRIPTION_NOT_FOUND".to_owned()));
}
