//! Lost answers, former owners, frozen nodes, and a whole store that goes away and comes back.

use std::time::{Duration, Instant};

use fanfare_domain::{Tenure, Timestamp};
use fanfare_store::config::bucket_of;
use fanfare_store::conformance::fixtures::{
    attempt, claim, endpoint, event, parked, place, retry, route, second, tenant,
};
use fanfare_store::{
    Claimed, Entry, Head, RetryRow, RetryState, ShardState, StoreErrorKind, Stores, Write,
};
use fanfare_store_scylla::{CqlConfig, migrate, open};

use crate::node;
use crate::proxy::{Lose, Proxy};

const LONG: Duration = Duration::from_mins(5);

/// A change whose answer, or which itself, is lost with its connection is made, once.
async fn a_lost_message_is_settled(lose: Lose) {
    let (mut config, _turn) = node::empty().await;
    let owner = tenant("lost-in-the-wire");
    let bucket = bucket_of(&owner);
    let proxy = Proxy::before(config.contact_points[0].clone(), b"lost-in-the-wire", lose).await;
    config.contact_points = vec![proxy.address.to_string()];
    let stores = open(&config).await.unwrap();
    let put = |id| vec![Write::Put(Box::new(Entry::Endpoint(endpoint(&owner, id))))];
    assert_eq!(
        stores.config.write(bucket, Head(0), put(1)).await.unwrap(),
        Head(1)
    );
    assert_eq!(proxy.lost(), 1);
    let (head, entries) = stores.config.load(bucket).await.unwrap();
    assert_eq!(
        (head, entries),
        (Head(1), vec![Entry::Endpoint(endpoint(&owner, 1))])
    );
    let late = stores.config.write(bucket, Head(0), put(2)).await;
    assert_eq!(late.unwrap_err().kind(), StoreErrorKind::HeadMoved);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_answer_is_lost_is_settled() {
    a_lost_message_is_settled(Lose::Answer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_lost_is_sent_again() {
    a_lost_message_is_settled(Lose::Request).await;
}

/// A former owner that does not know it yet writes into the void.
#[tokio::test]
async fn a_zombies_late_write_loses() {
    let (config, _turn) = node::empty().await;
    let stores = open(&config).await.unwrap();
    let now = u64::try_from(Timestamp::now().micros()).unwrap();
    let zombie = Tenure::lasting(LONG, 0);
    let owner = Tenure::lasting(LONG, now + 60_000_000);
    let row = |state| retry(1, 1, state);
    let settled = row(RetryState::Delivered(second(9)));
    stores
        .retries
        .put(&owner, vec![settled.clone()])
        .await
        .unwrap();
    let chain = row(RetryState::DueAt(second(5)));
    stores.retries.put(&zombie, vec![chain]).await.unwrap();
    let found = stores.retries.get(&[settled.delivery]).await.unwrap();
    assert_eq!(found, [Some(settled)]);

    let state = |n| ShardState {
        last_stamp: n,
        ..ShardState::default()
    };
    stores
        .shards
        .save(&owner, "deliveries", 0, state(2))
        .await
        .unwrap();
    stores
        .shards
        .save(&zombie, "deliveries", 0, state(1))
        .await
        .unwrap();
    assert_eq!(stores.shards.load("deliveries", 0).await.unwrap(), state(2));

    let waiting = parked(7, 1);
    stores
        .parking
        .park(&owner, vec![waiting.clone()])
        .await
        .unwrap();
    stores
        .parking
        .unpark(&zombie, waiting.endpoint, vec![waiting.key])
        .await
        .unwrap();
    let found = stores
        .parking
        .peek(waiting.endpoint, None, 10)
        .await
        .unwrap();
    assert_eq!(found, [waiting]);
}

async fn round(stores: &Stores, n: u64) -> Result<RetryRow, fanfare_store::StoreError> {
    let tenure = Tenure::unlimited();
    let event = event(&format!("e-{n}"), "data");
    let claims = vec![claim(&event, place(n), route(1, &[1]))];
    let answers = stores.events.claim(&tenure, claims).await?;
    assert!(
        matches!(answers[0], Claimed::Fresh | Claimed::Own(_)),
        "{answers:?}"
    );
    let row = retry(n, n, RetryState::DueAt(second(5)));
    stores.retries.put(&tenure, vec![row.clone()]).await?;
    stores
        .history
        .append(vec![attempt(7, second(0), n, 1)])
        .await?;
    Ok(row)
}

async fn rounds_are_bounded(stores: &Stores, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let start = Instant::now();
        let row = round(stores, n).await.unwrap();
        let found = stores.retries.get(&[row.delivery]).await.unwrap();
        assert_eq!(found, [Some(row)]);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(8), "round {n} took {took:?}");
    }
}

/// One of three frozen: nothing fails, nothing stalls. All gone: `Unavailable`, and what was
/// written is there when they are back.
#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_lose_one_and_then_all() {
    let mut cluster = fanfare_test_services::cql::start(3).unwrap();
    let config = CqlConfig {
        contact_points: cluster.addresses(),
        ..CqlConfig::default()
    };
    migrate(&config).await.unwrap();
    let stores = open(&config).await.unwrap();
    rounds_are_bounded(&stores, 0..10).await;
    for frozen in 0..3 {
        cluster.node(frozen).stop().unwrap();
        let from = 100 * (frozen as u64 + 1);
        rounds_are_bounded(&stores, from..from + 15).await;
        cluster.node(frozen).cont().unwrap();
        // A node that missed the quorum of its peers counts again once it answers.
        eventually(&stores, from + 50).await;
    }
    let kept = round(&stores, 500).await.unwrap();
    for node in 0..3 {
        cluster.node(node).kill().unwrap();
    }
    let away = round(&stores, 501).await;
    assert_eq!(away.unwrap_err().kind(), StoreErrorKind::Unavailable);
    for node in 0..3 {
        cluster.node(node).restart().unwrap();
    }
    eventually(&stores, 502).await;
    let found = stores.retries.get(&[kept.delivery]).await.unwrap();
    assert_eq!(found, [Some(kept)]);
}

/// Waits until a round succeeds.
async fn eventually(stores: &Stores, n: u64) {
    let deadline = Instant::now() + Duration::from_secs(90);
    let mut pause = tokio::time::interval(Duration::from_millis(200));
    loop {
        pause.tick().await;
        match round(stores, n).await {
            Ok(_) => return,
            Err(error) => assert!(Instant::now() < deadline, "still {error:?}"),
        }
    }
}
