//! The CQL store: one node of three frozen, all of it away, away at start.

use std::ops::ControlFlow;
use std::time::Duration;

use fanfare_tests::server::{Options, Program, Server};
use fanfare_tests::{Fleet, Services, eventually, http};

use super::stage::{REPEATS_MAX, Stage, turn};

/// How long one node is frozen, and all of them are.
const ONE: Duration = Duration::from_secs(15);
const ALL: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make test-faults"]
async fn a_frozen_node_delays_and_a_store_that_is_away_is_waited_for() {
    let mut stage = Stage::with_own(0, 3).await;
    stage.trial.load().advances(300).await;
    let unknown = stage.trial.load().unknown();
    stage.nodes(|cql| cql.node(2).stop());
    tokio::time::sleep(ONE).await;
    stage.trial.load().advances(300).await;
    // No call took as long as a producer waits for one.
    assert_eq!(stage.trial.load().unknown(), unknown);
    stage.nodes(|cql| cql.node(2).cont());
    stage.trial.load().advances(100).await;

    stage.nodes(|cql| (0..3).try_for_each(|node| cql.node(node).stop()));
    stage.until_unready("the store has not answered").await;
    tokio::time::sleep(ALL).await;
    stage.nodes(|cql| (0..3).try_for_each(|node| cql.node(node).cont()));
    stage.until_ready().await;
    stage.trial.load().advances(100).await;
    stage.end().await.assert_clean(REPEATS_MAX);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_at_start_is_waited_for_and_named() {
    let _turn = turn().await;
    let mut fleet = Fleet::prepare(Services::own(0, 1).await);
    fleet.env("FANFARE__SERVER__BACKEND_WAIT", "5m");
    fleet.migrate().await.ok();
    fleet.services.cql.as_mut().unwrap().node(0).kill().unwrap();
    let mut options = fleet.options(Program::Router);
    options.admin_listen = free_address();
    let starting = Server::spawn(&options);
    until_waiting(&options, "contact_points").await;
    let live = format!("http://{}/livez", options.admin_listen);
    let live = http::get(&live).await.unwrap();
    assert_eq!(live.status, 200, "{}", live.text());
    fleet
        .services
        .cql
        .as_mut()
        .unwrap()
        .node(0)
        .restart()
        .unwrap();
    let server = starting.ready(&options).await.unwrap();
    assert_eq!(server.stop().await.code, Some(0));
}

/// It was there when it was opened, and is not when the configuration is read from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_goes_away_during_a_start_is_waited_for_and_named() {
    let _turn = turn().await;
    let mut fleet = Fleet::prepare(Services::own(1, 1).await);
    fleet.env("FANFARE__SERVER__BACKEND_WAIT", "5m");
    fleet.env("FANFARE__CQL__REQUEST_TIMEOUT_MS", "2000");
    fleet.migrate().await.ok();
    let mut kafka = fleet.services.kafka.take().unwrap();
    let mut cql = fleet.services.cql.take().unwrap();
    kafka.node(0).kill().unwrap();
    let mut options = fleet.options(Program::Router);
    options.admin_listen = free_address();
    let starting = Server::spawn(&options);
    // The store is opened before Kafka.
    until_waiting(&options, "bootstrap_servers").await;
    cql.node(0).stop().unwrap();
    kafka.node(0).restart().unwrap();
    until_waiting(&options, "the configuration cannot be loaded").await;
    cql.node(0).cont().unwrap();
    let server = starting.ready(&options).await.unwrap();
    assert_eq!(server.stop().await.code, Some(0));
}

/// Waits until a program that starts is not ready for a reason that contains `why`.
async fn until_waiting(options: &Options, why: &str) {
    let url = format!("http://{}/readyz", options.admin_listen);
    eventually(
        "readiness to name what is missing",
        async || match http::get(&url).await {
            Ok(answer) if answer.status == 503 && answer.text().contains(why) => {
                ControlFlow::Break(())
            }
            other => ControlFlow::Continue(format!("{other:?}")),
        },
    )
    .await;
}

fn free_address() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
