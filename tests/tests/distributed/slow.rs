//! Slow endpoints: what a kill repeats around one, and what a worker says that waits for it.

use std::time::Duration;

use fanfare_proto::v1;
use fanfare_tests::ledger::{Audience, Manners, Wants};
use fanfare_tests::server::Program;
use fanfare_tests::sink::{Gate, Script, Sink};
use fanfare_tests::{Fleet, Services, http};

use super::stage::{IN_FLIGHT_MAX, Stage, turn, until_readyz};

/// Far longer than everything else takes, shorter than an attempt may.
const SLOW: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_repeats_what_was_in_flight_and_not_what_lies_behind_a_slow_one() {
    let slow = Manners {
        delay: SLOW,
        ..Manners::default()
    };
    let audience = Audience(vec![
        (Wants::new("default", &["order.**"]), Manners::default()),
        (Wants::new("default", &["invoice.sent"]), Manners::default()),
        (Wants::new("default", &["chat"]), slow),
    ]);
    let mut stage = Stage::one_and_one(&audience).await;
    // Long enough that slow ones hold the watermark back, with far more than what is in flight
    // settled above it.
    let settled = 20 * IN_FLIGHT_MAX as u64;
    stage.trial.load().advances(settled).await;
    stage.fleet.kill(Program::Worker, 0).await;
    // What will be repeated is decided; waiting for the slow one would show nothing more.
    stage.trial.subscribers().behave(2, Manners::default());
    stage.fleet.restart(Program::Worker, 0).await;
    stage.end().await.assert_clean(IN_FLIGHT_MAX);
}

/// Deliveries that do not move are no reason to end a worker, and one to look at it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_oldest_delivery_stays_is_not_ready_until_it_moves() {
    let _turn = turn().await;
    let mut fleet = Fleet::prepare(Services::shared().await);
    fleet.env("FANFARE__WORKER__STALL_MAX", "10s");
    fleet.migrate().await.ok();
    fleet.add(Program::Router).await;
    fleet.add(Program::Worker).await;
    let gate = Gate::shut();
    let sink = Sink::start(Script::gated(&gate)).await;
    let api = fleet.api();
    let request = v1::CreateEndpointRequest {
        endpoint: Some(v1::Endpoint {
            url: sink.url(),
            // The longest that an endpoint may ask for.
            timeout: Some(Duration::from_secs(30).try_into().unwrap()),
            ..v1::Endpoint::default()
        }),
        event_types: vec!["order.paid".into()],
        request_id: String::new(),
    };
    api.endpoints().create_endpoint(request).await.unwrap();
    let published = fleet.fanfare(&["event", "publish", "order.paid"]).await;
    published.ok();
    let admin = fleet.server(Program::Worker, 0).addresses().admin_listen;
    until_readyz(admin, |status, text| {
        status == 503 && text.contains("nothing moves")
    })
    .await;
    let alive = http::get(&format!("http://{admin}/livez")).await.unwrap();
    assert_eq!(alive.status, 200);
    gate.open();
    until_readyz(admin, |status, _| status == 200).await;
    for exit in fleet.stop_all().await {
        assert_eq!(exit.code, Some(0), "{}", exit.log);
    }
}
