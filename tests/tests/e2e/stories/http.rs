//! CloudEvents over HTTP, in each of their three modes, on the same address as gRPC.

use fanfare_tests::World;
use fanfare_tests::http::post;
use serde_json::json;

#[tokio::test]
async fn structured_mode() {
    let world = World::start().await;
    let shop = world.endpoint().await;
    let body = r#"{"specversion":"1.0","id":"e1","source":"/shop","type":"order.paid",
        "subject":"order-17","region":"eu","data":{ "amount" : 1250.00 }}"#;
    let url = format!("{}/v1/events", world.url());
    let answer = post(
        &url,
        &[("content-type", "application/cloudevents+json")],
        body,
    )
    .await
    .unwrap();
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert!(answer.text().contains("e1"), "{}", answer.text());
    let post = &shop.receives(1).await[0];
    assert_eq!(
        post.body, r#"{ "amount" : 1250.00 }"#,
        "the raw slice, not a parser's idea of it"
    );
    assert_eq!(post.header("ce-id"), "e1");
    assert_eq!(post.header("ce-subject"), "order-17");
    assert_eq!(post.header("ce-region"), "eu");
}

#[tokio::test]
async fn binary_mode() {
    let world = World::start().await;
    let shop = world.endpoint().await;
    let headers = [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "e2"),
        ("ce-source", "/shop"),
        ("ce-type", "order.paid"),
        ("ce-region", "eu"),
    ];
    let url = format!("{}/v1/events", world.url());
    let answer = post(&url, &headers, r#"{"amount": 1}"#).await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.text());
    let post = &shop.receives(1).await[0];
    assert_eq!(post.body, r#"{"amount": 1}"#);
    assert_eq!(
        (post.header("ce-id"), post.header("ce-region")),
        ("e2", "eu")
    );
}

#[tokio::test]
async fn a_batch_is_202_only_if_all_are_accepted() {
    let world = World::start().await;
    let shop = world.endpoint().await;
    let event = |id: &str, kind: &str| json!({"specversion": "1.0", "id": id, "source": "/shop", "type": kind, "data": {"id": id}});
    let url = format!("{}/v1/events", world.url());
    let headers = [("content-type", "application/cloudevents-batch+json")];
    let good = json!([event("a", "order.paid"), event("b", "order.paid")]).to_string();
    assert_eq!(post(&url, &headers, good).await.unwrap().status, 202);
    let mixed = json!([
        event("a", "order.paid"),
        event("c", "order..paid"),
        event("d", "order.paid")
    ]);
    let answer = post(&url, &headers, mixed.to_string()).await.unwrap();
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(
        answer.text().contains("EVENT_TYPE_INVALID"),
        "{}",
        answer.text()
    );
    // The others of the batch were accepted; repeating the whole is safe.
    let posts = shop.receives_in_all(&world).await;
    let mut ids: Vec<_> = posts.iter().map(|post| post.header("ce-id")).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["a", "b", "d"]);
}

#[tokio::test]
async fn a_refusal_is_json_that_names_the_field() {
    let world = World::start().await;
    let url = format!("{}/v1/events", world.url());
    let headers = [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "e2"),
        ("ce-source", "/shop"),
        ("ce-type", "order/paid"),
    ];
    let answer = post(&url, &headers, "{}").await.unwrap();
    assert_eq!(answer.status, 400);
    let error = &answer.json()["error"];
    assert_eq!(error["code"], "EVENT_TYPE_INVALID", "{error}");
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| !text.is_empty()),
        "{error}"
    );
    assert!(
        error["violations"][0]["field"]
            .as_str()
            .is_some_and(|f| f.contains("type")),
        "{error}"
    );
}
