//! A restart loses nothing and forgets nothing, however the server went.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fanfare_proto::client::{self, Client, RetryPolicy};
use fanfare_proto::v1::{self, DeliveryState};
use fanfare_tests::World;
use fanfare_tests::api::named;
use fanfare_tests::eventually::{PATIENCE, eventually};
use fanfare_tests::server::Options;
use fanfare_tests::sink::{Gate, Receipt, Script};
use futures::future::join_all;
use futures::join;

#[tokio::test]
async fn a_clean_stop_exits_with_0_and_removes_the_addresses() {
    let mut world = World::start().await;
    let exit = world.stop().await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(!world.data_dir().join("addresses.json").exists());
}

#[tokio::test]
async fn endpoints_events_and_deliveries_are_still_there() {
    let mut world = World::start().await;
    let shop = world.endpoint().await;
    let published = world.publish("order.paid", r#"{"n":1}"#).await;
    shop.receives(1).await;
    let before = world.delivered(&published.id).await;
    for kill in [true, false] {
        if kill {
            world.kill().await;
        } else {
            world.stop().await;
        }
        world.restart().await;
        let told = world
            .api()
            .event(&published.id)
            .await
            .expect("it is still known");
        assert_eq!(told.accept_time, published.accept_time);
        assert_eq!(world.delivered(&published.id).await.id, before.id);
        let again = world
            .api()
            .publish(named(&published.id, "order.paid", r#"{"n":1}"#))
            .await;
        // A router looks nothing up to answer: it says so of what it saw itself.
        assert!(
            again.expect("accepted").duplicate || !world.is_one_process(),
            "a repeat is known across restarts"
        );
    }
    world.publish("order.paid", r#"{"n":2}"#).await;
    let posts = shop.receives_in_all(&world).await;
    assert_eq!(posts.last().expect("it came").body, r#"{"n":2}"#);
    // A kill may have what came before it come again; a repeat is never another event.
    let deliveries: BTreeSet<_> = posts.iter().map(Receipt::id).collect();
    assert_eq!(deliveries.len(), 2);
}

#[tokio::test]
async fn a_retry_survives_a_kill_and_keeps_its_count() {
    let mut world = World::start().await;
    let soon = Duration::from_secs(1);
    let down = world
        .endpoint()
        .always(503)
        .retrying(&[soon, soon, soon, soon])
        .await;
    let published = world.publish("order.paid", "{}").await;
    world
        .delivery_in(&published.id, DeliveryState::Retrying)
        .await;
    world.kill().await;
    down.sink.follow(Script::ok());
    world.restart().await;
    let post = &down.receives(1).await[0];
    let delivery = world.delivered(&published.id).await;
    assert_eq!(delivery.id, post.id());
    assert_eq!(delivery.attempt_count as usize, down.sink.receipts().len());
}

#[tokio::test]
async fn what_was_parked_is_still_owed_after_a_kill() {
    let mut world = World::start().await;
    let gate = Gate::shut();
    let stuck = world.endpoint().gated(&gate).await;
    for n in 0..50 {
        world.publish("order.paid", &n.to_string()).await;
    }
    stuck.sink.attempts(1).await;
    world.kill().await;
    gate.open();
    world.restart().await;
    // Those in flight at the kill come twice; every one comes.
    eventually("each event to arrive", async || {
        let bodies: BTreeSet<_> = stuck
            .sink
            .accepted()
            .into_iter()
            .map(|post| post.body)
            .collect();
        match bodies.len() {
            50 => ControlFlow::Break(()),
            some => ControlFlow::Continue(format!("{some} of 50")),
        }
    })
    .await;
}

#[tokio::test]
async fn the_rust_client_carries_single_events_through_a_kill() {
    through_a_kill(async |client| {
        let mut told = Vec::new();
        for _ in 0..3 {
            told.push(client.publish(order()).await);
        }
        told
    })
    .await;
}

#[tokio::test]
async fn the_rust_client_carries_batches_through_a_kill() {
    through_a_kill(async |client| {
        let mut told = Vec::new();
        for _ in 0..3 {
            told.extend(client.publish_batch(vec![order(), order()]).await);
        }
        told
    })
    .await;
}

#[tokio::test]
async fn the_rust_client_carries_a_stream_through_a_kill() {
    through_a_kill(async |client| {
        let publisher = client.publisher();
        let mut told = vec![publisher.send(order()).await.await];
        let mut tickets = Vec::new();
        for _ in 0..500 {
            tickets.push(publisher.send(order()).await);
        }
        told.extend(join_all(tickets).await);
        told
    })
    .await;
}

/// Publishes while the server dies at its second append, which is durable and not answered, and comes
/// back where it was: everything is acknowledged and delivered, and nothing is two events.
async fn through_a_kill(publish: impl AsyncFnOnce(&Client) -> Vec<Published>) {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("an address");
    drop(free);
    let mut world = World::with(|options| Options {
        listen: address,
        ..options.env("FANFARE_CRASH_AT", "ingest.appended:2")
    })
    .await;
    let shop = world.endpoint().await;
    let patient = RetryPolicy {
        give_up_after: PATIENCE,
        ..RetryPolicy::default()
    };
    let client = Client::builder(world.url()).retry(patient).connect().await;
    let client = client.expect("it connects");
    let killed = async {
        let exit = world.exits().await;
        assert_eq!(exit.code, None, "a signal ends it: {exit:?}");
        world.options().environment.clear();
        world.restart().await;
    };
    let (told, ()) = join!(publish(&client), killed);
    let count = told.len();
    let acknowledged = told.into_iter().map(|told| told.expect("acknowledged"));
    let acknowledged: BTreeSet<_> = acknowledged.map(String::from).collect();
    assert_eq!(acknowledged.len(), count);
    // What was in flight at the kill may come twice, and then it is the same delivery.
    let posts = shop.receives_in_all(&world).await;
    let came = posts.iter().map(|post| post.header("ce-id").to_owned());
    assert_eq!(came.collect::<BTreeSet<_>>(), acknowledged);
    let deliveries: BTreeSet<_> = posts.iter().map(Receipt::id).collect();
    assert_eq!(deliveries.len(), count);
}

type Published = Result<client::EventId, client::PublishError>;

fn order() -> v1::Event {
    client::event("order.paid", "{}")
}

/// What docs/operate.md says of backups: `data` copied as it lies there, and put back later.
#[tokio::test]
async fn a_copy_of_a_stopped_servers_directory_is_a_backup() {
    let mut world = World::start().await;
    let shop = world.endpoint().await;
    let paused = world.endpoint().await;
    let id = &paused.endpoint.id;
    world.fanfare(&["endpoint", "pause", id]).await.ok();
    let before = world.publish("order.paid", r#"{"n":1}"#).await.id;
    shop.receives(1).await;
    world.stop().await;
    let (data, backup) = (world.data_dir().to_owned(), world.dir().join("backup"));
    copy(&data, &backup);

    world.restart().await;
    let after = world.publish("order.paid", r#"{"n":2}"#).await.id;
    shop.receives(2).await;
    world.stop().await;
    std::fs::remove_dir_all(&data).expect("removed");
    copy(&backup, &data);

    world.restart().await;
    let known = world.api().event(&before).await.expect("it is known");
    assert_eq!(known.deliveries.len(), 2);
    let forgotten = world.api().event(&after).await.expect_err("not in it");
    assert_eq!(forgotten.code(), tonic::Code::NotFound);
    world.fanfare(&["endpoint", "resume", id]).await.ok();
    assert_eq!(paused.receives(1).await[0].body, r#"{"n":1}"#);
    assert_eq!(shop.receives_in_all(&world).await.len(), 2, "none twice");
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.expect("cp starts").success());
}
