//! The support questions: what became of this event, of this delivery?

use std::net::TcpListener;
use std::ops::ControlFlow;
use std::process::Command;
use std::time::Duration;

use fanfare_proto::v1;
use fanfare_proto::v1::{Blame, DeliveryState, OutcomeKind};
use fanfare_tests::server::Log;
use fanfare_tests::sink::{Answer, Script};
use fanfare_tests::world::{fanfare, said};
use fanfare_tests::{World, binary, eventually};
use tempfile::TempDir;

#[tokio::test]
async fn an_event_that_nobody_wanted_says_so() {
    let world = World::start().await;
    world.endpoint().wants(&["invoice.*"]).await;
    let published = world.publish("order.paid", "{}").await;
    let routed = world.routed(&published.id).await;
    assert_eq!((routed.delivery_count, routed.deliveries.len()), (0, 0));
}

#[tokio::test]
async fn an_event_tells_its_data_and_each_delivery() {
    let world = World::start().await;
    let shop = world.endpoint().await;
    let later = Duration::from_hours(1);
    let down = world.endpoint().always(500).retrying(&[later]).await;
    let published = world.publish("order.paid", r#"{"amount":1}"#).await;
    shop.receives(1).await;
    world
        .delivery_in_at(&published.id, &down.endpoint.id, DeliveryState::Retrying)
        .await;
    world
        .delivery_in_at(&published.id, &shop.endpoint.id, DeliveryState::Delivered)
        .await;
    let told = world.api().event(&published.id).await.expect("it exists");
    let event = told.event.expect("it is kept");
    assert_eq!(event.r#type, "order.paid");
    assert_eq!(
        event.payload,
        Some(v1::event::Payload::Data(r#"{"amount":1}"#.into()))
    );
    assert_eq!(told.delivery_count, 2);
    assert!(told.accept_time.is_some() && told.route_time.is_some());
}

#[tokio::test]
async fn a_delivery_tells_every_attempt_with_the_answer() {
    let world = World::start().await;
    let first = Answer::status(503).body("<html>down for lunch</html>");
    let second = Answer::status(500).body(vec![b'x'; 40 * 1024]);
    let flaky = world
        .endpoint()
        .script(Script::then_ok([first, second]))
        .await;
    let published = world.publish("order.paid", "{}").await;
    let id = world.delivered(&published.id).await.id;
    let told = world.api().delivery(&id).await.expect("it exists");
    assert_eq!(told.endpoint_id, flaky.endpoint.id);
    assert_eq!(told.subscription_id, flaky.subscription.id);
    assert_eq!(
        (told.event_id, told.event_type),
        (published.id, "order.paid".to_owned())
    );
    assert_eq!(
        told.attempts.iter().map(|a| a.number).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    let outcome = |index: usize| told.attempts[index].outcome.clone().expect("it is kept");
    assert_eq!(outcome(0).http_status, Some(503));
    assert_eq!(
        (outcome(0).kind(), outcome(0).blame()),
        (OutcomeKind::HttpStatus, Blame::Endpoint)
    );
    assert!(outcome(0).will_retry && !outcome(2).will_retry);
    assert_eq!(
        told.attempts[0].response_body,
        &b"<html>down for lunch</html>"[..]
    );
    // At most 16 KiB of an answer are kept.
    assert_eq!(told.attempts[1].response_body.len(), 16 * 1024);
    assert!(told.attempts[1].response_truncated);
    assert_eq!(outcome(2).kind(), OutcomeKind::Delivered);
}

#[tokio::test]
async fn lists_are_newest_first_and_page_by_page() {
    let world = World::start().await;
    let shop = world.endpoint().await;
    let mut ids = Vec::new();
    for n in 0..7 {
        ids.push(world.publish("order.paid", &n.to_string()).await.id);
    }
    shop.receives(7).await;
    ids.reverse();
    let mut events = world.api().events();
    let mut listed = Vec::new();
    let mut request = v1::ListEventsRequest {
        page_size: 3,
        ..Default::default()
    };
    world.routed(&ids[0]).await;
    loop {
        let page = events
            .list_events(request.clone())
            .await
            .expect("listed")
            .into_inner();
        assert!(page.events.len() <= 3);
        listed.extend(page.events.into_iter().map(|event| event.id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(listed, ids);
}

#[tokio::test]
async fn deliveries_are_found_by_endpoint_and_state() {
    let world = World::start().await;
    let shop = world.endpoint().await;
    let later = Duration::from_hours(1);
    let down = world.endpoint().always(500).retrying(&[later]).await;
    let published = world.publish("order.paid", "{}").await;
    world
        .delivery_in_at(&published.id, &down.endpoint.id, DeliveryState::Retrying)
        .await;
    world
        .delivery_in_at(&published.id, &shop.endpoint.id, DeliveryState::Delivered)
        .await;
    let request = v1::ListDeliveriesRequest {
        endpoint_id: down.endpoint.id.clone(),
        ..Default::default()
    };
    let listed = world
        .api()
        .deliveries()
        .list_deliveries(request)
        .await
        .expect("listed");
    let listed = listed.into_inner().deliveries;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(listed[0].state(), DeliveryState::Retrying);
    let delivered = world
        .api()
        .every_delivery(&[DeliveryState::Delivered])
        .await
        .expect("listed");
    assert_eq!(delivered.len(), 1, "{delivered:?}");
    assert_eq!(delivered[0].endpoint_id, shop.endpoint.id);
}

#[tokio::test]
async fn a_server_says_whether_it_is_ready() {
    let world = World::start().await;
    let admin = format!("http://{}", world.server().addresses().admin_listen);
    let said = fanfare(None, &["ready", &admin]).await;
    assert!(said.ok().contains(&admin), "{said:?}");
}

#[tokio::test]
async fn a_service_that_waits_says_for_what() {
    // Ports that were free a moment ago.
    let [admin, nobody] = [(); 2].map(|()| {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        free.local_addr().expect("an address").to_string()
    });
    let mut command = tokio::process::Command::new(binary::built("fanfare-router"));
    command
        .args(["--listen", "127.0.0.1:0", "--admin-listen", &admin])
        .env("FANFARE__KAFKA__BOOTSTRAP_SERVERS", &nobody)
        .env("FANFARE__CQL__CONTACT_POINTS", &nobody);
    let (_router, _log) = Log::of(&mut command);
    let url = format!("http://{admin}");
    // First nobody answers, then it has not tried anything yet.
    let said = eventually(
        "the router to name what it waits for",
        async || match fanfare(None, &["ready", &url]).await {
            said if said.code != 0 && !said.err.contains(&nobody) => {
                ControlFlow::Continue(said.err)
            }
            said => ControlFlow::Break(said),
        },
    )
    .await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("not ready: "), "{said:?}");
}

#[tokio::test]
async fn a_migration_that_waits_says_for_what() {
    let mut command = tokio::process::Command::new(binary::built("fanfare"));
    command
        .arg("migrate")
        .env("FANFARE__STORAGE__MODE", "distributed")
        .env("FANFARE__CQL__CONTACT_POINTS", "127.0.0.1:1")
        .env("FANFARE__SERVER__BACKEND_WAIT", "3s");
    let said = said(&mut command).await;
    assert_eq!(said.code, 1, "{said:?}");
    let (waiting, gave_up) = said.err.split_once('\n').expect("two lines");
    assert!(waiting.starts_with("fanfare: waiting: cql: "), "{said:?}");
    assert!(waiting.contains("127.0.0.1:1"), "{said:?}");
    assert!(gave_up.contains("127.0.0.1:1"), "{said:?}");
}

/// As in an image, where the programs are one file.
#[tokio::test]
async fn the_binary_is_each_program_under_its_name() {
    let dir = TempDir::new().expect("a temporary directory");
    for name in ["fanfare", "fanfare-router", "fanfare-delivery-worker"] {
        let link = dir.path().join(name);
        std::os::unix::fs::symlink(binary::fanfare(), &link).expect("linked");
        let said = Command::new(&link).arg("--version").output();
        let said = said.expect("it runs").stdout;
        let version = format!("{name} {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(String::from_utf8_lossy(&said), version);
    }
}

#[tokio::test]
async fn a_tail_shows_events_as_they_are_accepted() {
    let world = World::start().await;
    let request = v1::TailEventsRequest {
        event_types: vec!["order.*".to_owned()],
    };
    let mut tail = world
        .api()
        .events()
        .tail_events(request)
        .await
        .expect("followed")
        .into_inner();
    world.publish("invoice.sent", "{}").await;
    world.publish("order.paid", r#"{"amount":1}"#).await;
    let mut seen = Vec::new();
    while seen.is_empty() {
        let message = tail
            .message()
            .await
            .expect("it goes on")
            .expect("it does not end");
        seen.extend(message.events);
    }
    let event = seen[0].event.clone().expect("a tailed event has its event");
    assert_eq!((event.r#type, seen.len()), ("order.paid".to_owned(), 1));
}
