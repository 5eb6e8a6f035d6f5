//! A few stories of one machine, told on a cluster: what a person does works through any router.

use std::ops::ControlFlow;

use fanfare_proto::v1::{Delivery, DeliveryState};
use fanfare_tests::server::Program;
use fanfare_tests::sink::{Answer, Script, Sink};
use fanfare_tests::{Fleet, Services, eventually};
use serde_json::Value;

use super::stage::{endpoint, turn};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_of_one_router_gets_events_of_the_other() {
    let _turn = turn().await;
    let mut fleet = Fleet::start(Services::shared().await, 2, 2).await;
    let sink = Sink::start(Script::then_ok(vec![Answer::status(503)])).await;
    let urls = fleet.urls();
    let retry = ["--retry-schedule", "100ms,100ms"];
    let mut create = vec![
        "endpoint",
        "create",
        "-o",
        "json",
        "--event-type",
        "order.*",
    ];
    let url = sink.url();
    create.extend(retry);
    create.push(&url);
    let made = fleet.fanfare(&create).await;
    let endpoint = made.json()[0]["endpoint"]["id"]
        .as_str()
        .or(made.json()[0]["id"].as_str())
        .unwrap()
        .to_owned();
    // Whoever created it was told when every router has it.
    let mut publish = vec![
        "event",
        "publish",
        "order.paid",
        "-o",
        "json",
        "--data",
        "{}",
    ];
    publish.extend(["--server", &urls[1]]);
    let published = fleet.fanfare(&publish).await.json();
    let id = published[0]["id"].as_str().unwrap().to_owned();
    let delivery = delivered(&fleet, &id).await;
    assert_eq!(delivery.endpoint_id, endpoint);
    let told = fleet
        .fanfare(&["delivery", "get", &delivery.id, "-o", "json"])
        .await;
    let attempts: Vec<Value> = told.json()[0]["attempts"].as_array().unwrap().clone();
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    let status = fleet.fanfare(&["status", "-o", "json"]).await;
    assert_eq!(status.json()[0]["endpoints"], 1, "{status:?}");
    for exit in fleet.stop_all().await {
        assert_eq!(exit.code, Some(0), "{}", exit.log);
    }
}

/// `fanfare serve` takes, routes and sends by itself on Kafka and a store, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_serve_on_a_cluster_goes_on_after_a_kill() {
    let _turn = turn().await;
    let mut fleet = Fleet::prepare(Services::shared().await);
    fleet.migrate().await.ok();
    fleet.add(Program::Serve).await;
    let sink = Sink::start(Script::then_ok([Answer::status(503)])).await;
    endpoint(&fleet.api(), &sink, "order.paid").await;
    let event = || fanfare_tests::api::event("order.paid", "{}");
    let first = fleet.api().publish(event()).await.unwrap().id;
    sink.attempts(1).await;
    fleet.kill(Program::Serve, 0).await;
    fleet.restart(Program::Serve, 0).await;
    let second = fleet.api().publish(event()).await.unwrap().id;
    for id in [&first, &second] {
        let delivery = delivered(&fleet, id).await;
        let told = sink.accepted().into_iter().map(|post| post.id().to_owned());
        assert!(told.collect::<Vec<_>>().contains(&delivery.id), "{id}");
    }
    for exit in fleet.stop_all().await {
        assert_eq!(exit.code, Some(0), "{}", exit.log);
    }
}

/// The delivery of an event that is owed once.
async fn delivered(fleet: &Fleet, id: &str) -> Delivery {
    eventually("the delivery", async || {
        let told = fleet.api().event(id).await;
        match told.as_ref().ok().and_then(|told| told.deliveries.first()) {
            Some(one) if one.state() == DeliveryState::Delivered => ControlFlow::Break(one.clone()),
            _ => ControlFlow::Continue(format!("{told:?}")),
        }
    })
    .await
}
