//! What every backend of [`Configuration`](crate::Configuration) does.

use fanfare_domain::{EndpointId, SubscriptionId, TenantId};

use super::fixtures::{endpoint, request, subscription, tenant};
use super::{Backend, CHANGES_KEPT_IN_TESTS};
use crate::config::{BUCKETS, bucket_of};
use crate::{Entry, EntryKey, Head, StoreErrorKind, Stores, Write};

fn put(entry: Entry) -> Write {
    Write::Put(Box::new(entry))
}

fn put_endpoint(owner: &TenantId, id: u64) -> Write {
    put(Entry::Endpoint(endpoint(owner, id)))
}

/// The entries of a bucket by key, so that the order of a load does not matter.
async fn loaded(stores: &Stores, bucket: u8) -> (Head, Vec<Entry>) {
    let (head, mut entries) = stores.config.load(bucket).await.unwrap();
    entries.sort_by_key(Entry::key);
    (head, entries)
}

/// Heads of zero, nothing to load, no changes.
pub async fn it_starts_empty<B: Backend>(backend: B) {
    let stores = backend.stores();
    assert_eq!(
        stores.config.heads().await.unwrap(),
        [Head(0); BUCKETS as usize]
    );
    assert_eq!(stores.config.load(3).await.unwrap(), (Head(0), vec![]));
    assert_eq!(
        stores.config.changes(3, Head(0)).await.unwrap(),
        Some(vec![])
    );
}

/// Entries of each kind come back field by field, in their last version.
pub async fn everything_written_is_loaded<B: Backend>(backend: B) {
    let stores = backend.stores();
    let owner = tenant("acme");
    let bucket = bucket_of(&owner);
    let entries = [
        Entry::Endpoint(endpoint(&owner, 1)),
        Entry::Subscription(subscription(&owner, 2, 1)),
        request(&owner, "r-1", u64::MAX),
    ];
    let writes = entries.iter().cloned().map(put).collect();
    let head = stores.config.write(bucket, Head(0), writes).await.unwrap();
    assert_eq!(head, Head(1));
    assert_eq!(loaded(&stores, bucket).await, (head, entries.to_vec()));

    let mut changed = endpoint(&owner, 1);
    changed.name = "renamed".into();
    changed.retry_schedule = None;
    let writes = vec![put(Entry::Endpoint(changed.clone()))];
    let head = stores.config.write(bucket, head, writes).await.unwrap();
    let (loaded_head, now) = loaded(&stores, bucket).await;
    assert_eq!((loaded_head, now.len()), (head, 3));
    assert_eq!(now[0], Entry::Endpoint(changed));
}

/// What was decided on an old head is refused and leaves nothing behind.
pub async fn a_write_on_an_old_head_is_refused<B: Backend>(backend: B) {
    let stores = backend.stores();
    let owner = tenant("acme");
    let bucket = bucket_of(&owner);
    stores
        .config
        .write(bucket, Head(0), vec![put_endpoint(&owner, 1)])
        .await
        .unwrap();
    let before = loaded(&stores, bucket).await;
    for wrong in [Head(0), Head(2)] {
        let answer = stores
            .config
            .write(bucket, wrong, vec![put_endpoint(&owner, 2)])
            .await;
        assert_eq!(answer.unwrap_err().kind(), StoreErrorKind::HeadMoved);
    }
    assert_eq!(loaded(&stores, bucket).await, before);
    assert_eq!(
        stores.config.changes(bucket, Head(1)).await.unwrap(),
        Some(vec![])
    );
}

/// Writers that race on one head: one wins, and exactly its entries are there.
pub async fn one_of_many_racing_writes_wins<B: Backend>(backend: B) {
    let owner = tenant("acme");
    let bucket = bucket_of(&owner);
    let race = |id: u64| {
        let (config, owner) = (backend.stores().config, owner.clone());
        let writes = vec![put_endpoint(&owner, id), put_endpoint(&owner, id + 100)];
        tokio::spawn(async move { (id, config.write(bucket, Head(0), writes).await) })
    };
    let racers: Vec<_> = (1..=8).map(race).collect();
    let mut winners = Vec::new();
    for racer in racers {
        match racer.await.unwrap() {
            (id, Ok(head)) => {
                assert_eq!(head, Head(1));
                winners.push(id);
            }
            (_, Err(error)) => assert_eq!(error.kind(), StoreErrorKind::HeadMoved),
        }
    }
    assert_eq!(winners.len(), 1);
    let expected = [winners[0], winners[0] + 100].map(|id| Entry::Endpoint(endpoint(&owner, id)));
    assert_eq!(
        loaded(&backend.stores(), bucket).await,
        (Head(1), expected.to_vec())
    );
}

/// A follower reads every change after the head it has, each one whole.
pub async fn the_feed_has_every_change_whole_and_in_order<B: Backend>(backend: B) {
    let stores = backend.stores();
    let owner = tenant("acme");
    let bucket = bucket_of(&owner);
    let written = [
        vec![
            put_endpoint(&owner, 1),
            put(Entry::Subscription(subscription(&owner, 2, 1))),
        ],
        vec![put_endpoint(&owner, 3)],
        vec![
            Write::Delete(EntryKey::Endpoint(owner.clone(), EndpointId(1))),
            Write::Delete(EntryKey::Subscription(owner.clone(), SubscriptionId(2))),
            put(request(&owner, "r-1", 3)),
        ],
    ];
    for (head, writes) in (0..).map(Head).zip(&written) {
        stores
            .config
            .write(bucket, head, writes.clone())
            .await
            .unwrap();
    }
    let numbered: Vec<_> = (1..).map(Head).zip(written).collect();
    for after in 0..=3 {
        let changes = stores
            .config
            .changes(bucket, Head(after))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(changes, numbered[usize::try_from(after).unwrap()..]);
    }
    assert_eq!(
        stores.config.heads().await.unwrap()[usize::from(bucket)],
        Head(3)
    );
}

/// A write moves its own bucket's head and no other.
pub async fn buckets_are_apart<B: Backend>(backend: B) {
    let stores = backend.stores();
    let names = ["a", "b", "c", "d", "e", "f"].map(tenant);
    let one = &names[0];
    let other = names
        .iter()
        .find(|n| bucket_of(n) != bucket_of(one))
        .unwrap();
    stores
        .config
        .write(bucket_of(one), Head(0), vec![put_endpoint(one, 1)])
        .await
        .unwrap();
    let writes = vec![put_endpoint(other, 2)];
    stores
        .config
        .write(bucket_of(other), Head(0), writes)
        .await
        .unwrap();
    let expected = vec![Entry::Endpoint(endpoint(one, 1))];
    assert_eq!(loaded(&stores, bucket_of(one)).await, (Head(1), expected));
    let moved = stores
        .config
        .heads()
        .await
        .unwrap()
        .iter()
        .filter(|h| **h == Head(1))
        .count();
    assert_eq!(moved, 2);
}

/// Deleting twice, or what never was, is a change like any other.
pub async fn deleting_is_idempotent<B: Backend>(backend: B) {
    let stores = backend.stores();
    let owner = tenant("acme");
    let bucket = bucket_of(&owner);
    let delete = || {
        vec![Write::Delete(EntryKey::Request(
            owner.clone(),
            "r-1".into(),
        ))]
    };
    stores
        .config
        .write(bucket, Head(0), vec![put(request(&owner, "r-1", 1))])
        .await
        .unwrap();
    stores
        .config
        .write(bucket, Head(1), delete())
        .await
        .unwrap();
    stores
        .config
        .write(bucket, Head(2), delete())
        .await
        .unwrap();
    assert_eq!(loaded(&stores, bucket).await, (Head(3), vec![]));
}

/// A configuration write is durable when it resolves, without anything after it.
pub async fn a_resolved_write_survives_a_crash<B: Backend>(backend: B) {
    let owner = tenant("acme");
    let bucket = bucket_of(&owner);
    let writes = vec![put_endpoint(&owner, 1), put(request(&owner, "r-1", 1))];
    backend
        .stores()
        .config
        .write(bucket, Head(0), writes.clone())
        .await
        .unwrap();
    let backend = backend.crash_and_reopen().await;
    let stores = backend.stores();
    let expected = [
        Entry::Endpoint(endpoint(&owner, 1)),
        request(&owner, "r-1", 1),
    ];
    assert_eq!(loaded(&stores, bucket).await, (Head(1), expected.to_vec()));
    let changes = stores.config.changes(bucket, Head(0)).await.unwrap();
    assert_eq!(changes, Some(vec![(Head(1), writes)]));
    stores
        .config
        .write(bucket, Head(1), vec![put_endpoint(&owner, 2)])
        .await
        .unwrap();
}

/// A follower far behind is told to load again rather than given a feed with a hole.
pub async fn the_feed_is_complete_or_refused<B: Backend>(backend: B) {
    let stores = backend.stores();
    let owner = tenant("acme");
    let bucket = bucket_of(&owner);
    let last = 3 * CHANGES_KEPT_IN_TESTS;
    for head in 0..last {
        let writes = vec![put_endpoint(&owner, head)];
        stores
            .config
            .write(bucket, Head(head), writes)
            .await
            .unwrap();
    }
    for after in 0..=last {
        let changes = stores.config.changes(bucket, Head(after)).await.unwrap();
        let heads: Option<Vec<_>> = changes.map(|c| c.iter().map(|(head, _)| head.0).collect());
        match heads {
            Some(heads) => assert_eq!(heads, (after + 1..=last).collect::<Vec<_>>()),
            None => assert!(
                after < last - CHANGES_KEPT_IN_TESTS,
                "{after} is not too old"
            ),
        }
    }
    assert_eq!(loaded(&stores, bucket).await.1.len() as u64, last);
}
