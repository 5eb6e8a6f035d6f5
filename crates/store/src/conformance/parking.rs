//! What every backend of [`Parking`](crate::Parking) does.

use fanfare_domain::{EndpointId, Shard, ShardSet, Tenure};

use super::fixtures::{delivery, parked, place, second};
use super::{Backend, refused};
use crate::{Parked, ParkedKey, Stores};

const HERE: EndpointId = EndpointId(7);

async fn park(stores: &Stores, rows: Vec<Parked>) {
    stores
        .parking
        .park(&Tenure::unlimited(), rows)
        .await
        .unwrap();
}

async fn unpark(stores: &Stores, rows: &[Parked]) {
    let keys = rows.iter().map(|row| row.key).collect();
    stores
        .parking
        .unpark(&Tenure::unlimited(), HERE, keys)
        .await
        .unwrap();
}

async fn peek(stores: &Stores, after: Option<ParkedKey>, limit: usize) -> Vec<Parked> {
    stores.parking.peek(HERE, after, limit).await.unwrap()
}

/// Order is that of the log, whatever the order of parking; parts of one record keep theirs.
pub async fn first_parked_first_out<B: Backend>(backend: B) {
    let stores = backend.stores();
    let mut rows: Vec<_> = (1..=30).map(|n| parked(7, n)).collect();
    // The last ten are parts of one record.
    for (part, row) in (0..).zip(&mut rows[20..]) {
        row.key = ParkedKey {
            place: place(500),
            part,
        };
    }
    let shuffled = [11, 3, 29, 0, 17]
        .iter()
        .flat_map(|start| rows.iter().cycle().skip(*start).step_by(7).take(30));
    for row in shuffled.chain(&rows) {
        park(&stores, vec![row.clone()]).await;
    }
    park(&stores, vec![parked(6, 1), parked(8, 1)]).await;
    assert_eq!(peek(&stores, None, 1000).await, rows);
    assert_eq!(peek(&stores, None, 4).await, rows[..4]);
    assert_eq!(peek(&stores, Some(rows[3].key), 5).await, rows[4..9]);
    assert_eq!(peek(&stores, Some(rows[22].key), 2).await, rows[23..25]);
    assert_eq!(peek(&stores, Some(rows[29].key), 5).await, []);
}

/// A crash that parks a delivery again leaves one row of it, in its place.
pub async fn parking_again_is_one_row<B: Backend>(backend: B) {
    let stores = backend.stores();
    let rows: Vec<_> = (1..=3).map(|n| parked(7, n)).collect();
    for _ in 0..3 {
        park(&stores, rows.clone()).await;
    }
    assert_eq!(peek(&stores, None, 100).await, rows);
    unpark(&stores, &rows).await;
    assert_eq!(peek(&stores, None, 100).await, []);
}

/// Draining goes on from the front; unparking is idempotent and leaves other queues alone.
pub async fn a_drained_front_is_not_seen_again<B: Backend>(backend: B) {
    let stores = backend.stores();
    let rows: Vec<_> = (0..2000).map(|n| parked(7, n)).collect();
    park(&stores, rows.clone()).await;
    park(&stores, vec![parked(8, 1)]).await;
    for drained in rows[..1990].chunks(100) {
        assert_eq!(peek(&stores, None, drained.len()).await, drained);
        unpark(&stores, drained).await;
    }
    unpark(&stores, &rows[..100]).await;
    assert_eq!(peek(&stores, None, 100).await, rows[1990..]);
    let other = stores.parking.peek(EndpointId(8), None, 10).await.unwrap();
    assert_eq!(other, [parked(8, 1)]);
}

/// Which of some deliveries are parked, one answer each.
pub async fn parked_deliveries_are_found<B: Backend>(backend: B) {
    let stores = backend.stores();
    let rows = [parked(7, 1), parked(7, 2), parked(9, 3)];
    park(&stores, rows.to_vec()).await;
    let unknown = delivery(7, second(0), 99);
    let ids = [rows[2].delivery, unknown, rows[0].delivery];
    let found = stores.parking.find(&ids).await.unwrap();
    assert_eq!(found, [Some(rows[2].clone()), None, Some(rows[0].clone())]);
    unpark(&stores, &rows[..1]).await;
    let found = stores
        .parking
        .find(&[rows[0].delivery, rows[1].delivery])
        .await
        .unwrap();
    assert_eq!(found, [None, Some(rows[1].clone())]);
}

/// A new owner is told which endpoints of its shards wait, and no others.
pub async fn endpoints_are_listed_while_they_wait<B: Backend>(backend: B) {
    let stores = backend.stores();
    assert_eq!(stores.parking.endpoints(ShardSet::ALL).await.unwrap(), []);
    park(
        &stores,
        (1..=20)
            .flat_map(|e| [parked(e, 1), parked(e, 2)])
            .collect(),
    )
    .await;
    for index in 0..2 {
        let shards = ShardSet::try_new(index, 2).unwrap();
        let mut found = stores.parking.endpoints(shards).await.unwrap();
        found.sort();
        let mine = (1..=20)
            .map(EndpointId)
            .filter(|e| shards.contains(Shard::of_endpoint(*e)));
        assert_eq!(found, mine.collect::<Vec<_>>());
    }
    unpark(&stores, &[parked(7, 1)]).await;
    assert!(
        stores
            .parking
            .endpoints(ShardSet::ALL)
            .await
            .unwrap()
            .contains(&HERE)
    );
    unpark(&stores, &[parked(7, 2)]).await;
    let left = stores.parking.endpoints(ShardSet::ALL).await.unwrap();
    assert_eq!((left.len(), left.contains(&HERE)), (19, false));
}

/// What waits still waits after a crash, and what was drained does not come back.
pub async fn synced_queues_survive_a_crash<B: Backend>(backend: B) {
    let rows: Vec<_> = (1..=20).map(|n| parked(7, n)).collect();
    let stores = backend.stores();
    park(&stores, rows.clone()).await;
    backend.sync().await;
    unpark(&stores, &rows[..5]).await;
    backend.sync().await;
    let backend = backend.crash_and_reopen().await;
    let stores = backend.stores();
    assert_eq!(peek(&stores, None, 100).await, rows[5..]);
    assert_eq!(
        stores.parking.endpoints(ShardSet::ALL).await.unwrap(),
        [HERE]
    );
    assert_eq!(
        stores.parking.find(&[rows[0].delivery]).await.unwrap(),
        [None]
    );
    unpark(&stores, &rows[5..]).await;
    assert_eq!(stores.parking.endpoints(ShardSet::ALL).await.unwrap(), []);
}

/// An owner that lost its shard neither parks nor drains.
pub async fn nothing_is_parked_without_tenure<B: Backend>(backend: B) {
    let stores = backend.stores();
    let tenure = Tenure::unlimited();
    let row = parked(7, 1);
    stores
        .parking
        .park(&tenure, vec![row.clone()])
        .await
        .unwrap();
    tenure.end();
    refused(stores.parking.park(&tenure, vec![parked(7, 2)]).await);
    refused(stores.parking.unpark(&tenure, HERE, vec![row.key]).await);
    assert_eq!(peek(&stores, None, 10).await, [row]);
}
