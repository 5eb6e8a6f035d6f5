//! The CQL store: one node of three frozen, all of it away, away at start.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use fanfare_tests::api::{Api, event};
use fanfare_tests::server::{Options, Program, Server};
use fanfare_tests::sink::{Answer, Pace, Script, Sink};
use fanfare_tests::{Fleet, Services, eventually, http};
use tokio::time::Instant;

use super::stage::{REPEATS_MAX, Stage, endpoint, turn, until_readyz};

/// How long one node is frozen, and all of them are.
const ONE: Duration = Duration::from_secs(15);
const ALL: Duration = Duration::from_mins(1);
/// From publishing to the subscriber while one node is frozen: far above what a busy machine takes,
/// far below the 30 s that a driver without time-outs waits.
const ARRIVAL_MAX: Duration = Duration::from_secs(10);
/// Deliveries that wait for a slow endpoint when the store goes away: what a lane keeps in memory.
const WAITING: usize = 60;
/// How long it takes over each: with ten at a time it is not done before the outage is noticed.
const SLOW: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make test-faults"]
async fn a_frozen_node_delays_and_a_store_that_is_away_is_waited_for() {
    let mut stage = Stage::with_own(0, 3).await;
    stage.trial.load().advances(300).await;
    let unknown = stage.trial.load().unknown();
    let prompt = Beat::start(stage.fleet.api(), Pace::AtOnce).await;
    stage.nodes(|cql| cql.node(2).stop());
    let slowest = prompt.slowest_during(ONE).await;
    assert!(slowest < ARRIVAL_MAX, "one took {slowest:?}");
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

/// Events of a tenant of its own to one endpoint, beside the load.
struct Beat {
    api: Api,
    sink: Sink,
}

impl Beat {
    async fn start(api: Api, pace: Pace) -> Self {
        let tenant = format!("beat-{:08x}", rand::random::<u32>());
        let api = api.tenant(&tenant);
        let sink = Sink::start(Script::always(Answer::ok().pace(pace))).await;
        endpoint(&api, &sink, "beat").await;
        Self { api, sink }
    }

    async fn publish(&self) -> String {
        let published = self.api.publish(event("beat", "{}")).await;
        published.expect("accepted").id
    }

    /// Publishes twice a second for as long; the longest time from before a publish until its
    /// event has arrived.
    async fn slowest_during(&self, time: Duration) -> Duration {
        let end = Instant::now() + time;
        let mut sent = Vec::new();
        while Instant::now() < end {
            let before = SystemTime::now();
            sent.push((self.publish().await, before));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let arrived = self.sink.receives(sent.len()).await;
        let took = sent.iter().map(|(id, before)| {
            let first = arrived.iter().find(|post| post.header("ce-id") == id);
            let first = first.unwrap_or_else(|| panic!("{id} is not among {arrived:?}"));
            first.arrived.duration_since(*before).unwrap_or_default()
        });
        took.max().expect("something was published")
    }

    /// Publishes so many and waits until each is with the workers.
    async fn publish_routed(&self, count: usize) {
        let published = (0..count).map(|_| self.publish());
        for id in futures::future::join_all(published).await {
            eventually("it to be routed", async || {
                match self.api.event(&id).await {
                    Ok(told) if !told.deliveries.is_empty() => ControlFlow::Break(()),
                    other => ControlFlow::Continue(format!("{other:?}")),
                }
            })
            .await;
        }
    }
}

/// A first try that succeeds needs no store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_routed_is_sent_while_the_store_is_away() {
    let _turn = turn().await;
    let mut fleet = Fleet::start(Services::own(0, 1).await, 1, 1).await;
    let slow = Beat::start(fleet.api(), Pace::After(SLOW)).await;
    slow.publish_routed(WAITING).await;
    fleet.services.cql.as_mut().unwrap().node(0).stop().unwrap();
    let admin = fleet.server(Program::Worker, 0).addresses().admin_listen;
    until_unready(admin, "the store has not answered").await;
    let sent = slow.sink.receipts().len();
    assert!(sent < WAITING, "all were sent before: it proves nothing");
    slow.sink.receives(WAITING).await;
    fleet.services.cql.as_mut().unwrap().node(0).cont().unwrap();
    for exit in fleet.stop_all().await {
        assert_eq!(exit.code, Some(0), "{}", exit.log);
    }
    assert_eq!(slow.sink.receipts().len(), WAITING, "none was repeated");
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

/// It was there when it was opened, and is not when it is asked how others are configured.
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
    until_waiting(&options, "no node of the store answers").await;
    cql.node(0).cont().unwrap();
    let server = starting.ready(&options).await.unwrap();
    assert_eq!(server.stop().await.code, Some(0));
}

/// Waits until a program that starts is not ready for a reason that contains `why`.
async fn until_waiting(options: &Options, why: &str) {
    until_unready(options.admin_listen, why).await;
}

async fn until_unready(admin: SocketAddr, why: &str) {
    until_readyz(admin, |status, text| status == 503 && text.contains(why)).await;
}

fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
