use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use proptest::prelude::*;

use super::*;
use crate::MemoryStores;
use crate::conformance::fixtures::{endpoint, request, subscription, tenant};
use crate::error::StoreErrorKind;

fn put(entry: Entry) -> Write {
    Write::Put(Box::new(entry))
}

fn put_endpoint(owner: &TenantId, id: u64) -> Write {
    put(Entry::Endpoint(endpoint(owner, id)))
}

/// Writes at the current head.
async fn write(config: &Arc<dyn Configuration>, owner: &TenantId, writes: Vec<Write>) -> Head {
    let bucket = bucket_of(owner);
    let head = config.heads().await.unwrap()[usize::from(bucket)];
    config.write(bucket, head, writes).await.unwrap()
}

/// A change, and the head it made.
type Seen = (u64, Vec<Write>);

/// Remembers what it was told, and the head it was told at.
#[derive(Clone, Default)]
struct Witness(Arc<Lock<Vec<Seen>>>);

impl Witness {
    fn seen(&self) -> Vec<Seen> {
        self.0.lock().clone()
    }
}

impl Observer for Witness {
    fn changed(&mut self, writes: &[Write], after: &Catalog) {
        let head = after.head_of(&tenant("acme"));
        if !writes.is_empty() {
            self.0.lock().push((head.0, writes.to_vec()));
        }
    }
}

async fn follow(config: &Arc<dyn Configuration>) -> (Arc<Follower>, Witness) {
    let witness = Witness::default();
    let observers: Vec<Box<dyn Observer>> = vec![Box::new(witness.clone())];
    let follower = Follower::start(config.clone(), observers).await.unwrap();
    (follower, witness)
}

#[tokio::test]
async fn every_change_is_seen_once_and_in_order() {
    let config = MemoryStores::new().stores().config;
    let owner = tenant("acme");
    let (follower, witness) = follow(&config).await;
    let mut written = Vec::new();
    for id in 1..=5 {
        let writes = vec![
            put_endpoint(&owner, id),
            put(Entry::Subscription(subscription(&owner, id, id))),
        ];
        write(&config, &owner, writes.clone()).await;
        written.push((id, writes));
        if id % 2 == 0 {
            follower.refresh().await.unwrap();
        }
    }
    follower.refresh().await.unwrap();
    follower.refresh().await.unwrap();
    assert_eq!(witness.seen(), written);
    assert_eq!(follower.catalog().counts(), (5, 5));
}

#[tokio::test]
async fn what_was_there_before_is_loaded_and_told() {
    let config = MemoryStores::new().stores().config;
    let owner = tenant("acme");
    write(&config, &owner, vec![put_endpoint(&owner, 1)]).await;
    write(&config, &owner, vec![put(request(&owner, "r-1", 1))]).await;
    let (follower, witness) = follow(&config).await;
    let expected = vec![put_endpoint(&owner, 1), put(request(&owner, "r-1", 1))];
    assert_eq!(witness.seen(), [(2, expected)]);
    let catalog = follower.catalog();
    assert_eq!(catalog.endpoint(EndpointId(1)).unwrap().tenant, owner);
    let made = catalog.request(&owner, "r-1").map(|(_, made, _)| made);
    assert_eq!(made, Some(1));
}

#[tokio::test]
async fn a_follower_left_behind_loads_again_and_forgets_what_is_gone() {
    let config = MemoryStores::keeping_changes(3).stores().config;
    let owner = tenant("acme");
    write(
        &config,
        &owner,
        vec![put_endpoint(&owner, 1), put_endpoint(&owner, 2)],
    )
    .await;
    let (follower, witness) = follow(&config).await;
    let gone = EntryKey::Endpoint(owner.clone(), EndpointId(1));
    write(&config, &owner, vec![Write::Delete(gone.clone())]).await;
    for id in 3..=9 {
        write(&config, &owner, vec![put_endpoint(&owner, id)]).await;
    }
    follower.refresh().await.unwrap();
    let ids: Vec<_> = follower
        .catalog()
        .endpoints_of(&owner)
        .map(|e| e.id.0)
        .collect();
    assert_eq!(ids, (2..=9).collect::<Vec<_>>());
    let seen = witness.seen();
    let (head, last) = seen.last().unwrap();
    assert_eq!(*head, 9);
    assert_eq!(last[0], Write::Delete(gone));
    assert_eq!(seen.len(), 2);
}

/// Checks, when told of a change, that readers do not have it yet.
struct First {
    follower: Arc<Lock<Option<Arc<Follower>>>>,
    told: Arc<AtomicUsize>,
}

impl Observer for First {
    fn changed(&mut self, _: &[Write], after: &Catalog) {
        if let Some(follower) = &*self.follower.lock() {
            let owner = tenant("acme");
            assert!(follower.catalog().head_of(&owner) < after.head_of(&owner));
            self.told.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test]
async fn observers_are_told_before_anyone_sees_the_change() {
    let config = MemoryStores::new().stores().config;
    let owner = tenant("acme");
    let (slot, told) = (Arc::new(Lock::new(None)), Arc::new(AtomicUsize::new(0)));
    let first = First {
        follower: slot.clone(),
        told: told.clone(),
    };
    let follower = Follower::start(config.clone(), vec![Box::new(first)])
        .await
        .unwrap();
    *slot.lock() = Some(follower.clone());
    for id in 1..=3 {
        write(&config, &owner, vec![put_endpoint(&owner, id)]).await;
    }
    follower.refresh().await.unwrap();
    slot.lock().take();
    assert_eq!(told.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn concurrent_refreshes_apply_each_change_once() {
    let config = MemoryStores::new().stores().config;
    let owner = tenant("acme");
    let (follower, witness) = follow(&config).await;
    for id in 1..=20 {
        write(&config, &owner, vec![put_endpoint(&owner, id)]).await;
        let refresh = || {
            let follower = follower.clone();
            tokio::spawn(async move { follower.refresh().await })
        };
        for task in [refresh(), refresh(), refresh()] {
            task.await.unwrap().unwrap();
        }
    }
    let heads: Vec<_> = witness.seen().iter().map(|(head, _)| *head).collect();
    assert_eq!(heads, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_waiter_gets_the_change_it_waits_for() {
    let config = MemoryStores::new().stores().config;
    let owner = tenant("acme");
    let (follower, _) = follow(&config).await;
    let head = write(&config, &owner, vec![put_endpoint(&owner, 1)]).await;
    let waiter = tokio::spawn({
        let (follower, owner) = (follower.clone(), owner.clone());
        async move {
            follower.reached(&owner, head).await;
            follower.catalog().endpoint(EndpointId(1)).is_some()
        }
    });
    tokio::task::yield_now().await;
    assert!(!waiter.is_finished());
    follower.refresh().await.unwrap();
    assert!(waiter.await.unwrap());
    follower.reached(&owner, head).await;
}

#[tokio::test]
async fn a_store_that_is_away_confirms_nothing() {
    let memory = MemoryStores::new();
    let config = memory.stores().config;
    let (follower, _) = follow(&config).await;
    let moment = Instant::now();
    let waiter = tokio::spawn({
        let follower = follower.clone();
        async move { follower.confirmed_since(moment).await }
    });
    memory.go_away();
    let error = follower.refresh().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    tokio::task::yield_now().await;
    assert!(!waiter.is_finished());
    let since = moment.elapsed();
    assert!(follower.age() >= since);
    memory.come_back();
    follower.refresh().await.unwrap();
    waiter.await.unwrap();
    assert!(follower.age() <= moment.elapsed());
}

/// A configuration whose heads are read before a pause, as behind a slow network.
struct Slow {
    inner: Arc<dyn Configuration>,
    asked: tokio::sync::Notify,
    go_on: tokio::sync::Notify,
}

#[async_trait]
impl Configuration for Slow {
    async fn heads(&self) -> Result<Vec<Head>, StoreError> {
        let heads = self.inner.heads().await;
        self.asked.notify_one();
        self.go_on.notified().await;
        heads
    }

    async fn load(&self, bucket: u8) -> Result<(Head, Vec<Entry>), StoreError> {
        self.inner.load(bucket).await
    }

    async fn changes(
        &self,
        bucket: u8,
        after: Head,
    ) -> Result<Option<Vec<(Head, Vec<Write>)>>, StoreError> {
        self.inner.changes(bucket, after).await
    }

    async fn write(&self, b: u8, expected: Head, w: Vec<Write>) -> Result<Head, StoreError> {
        self.inner.write(b, expected, w).await
    }

    fn propagation(&self) -> Duration {
        self.inner.propagation()
    }
}

#[tokio::test]
async fn what_is_confirmed_is_the_moment_before_the_heads_were_asked_for() {
    let slow = Arc::new(Slow {
        inner: MemoryStores::new().stores().config,
        asked: tokio::sync::Notify::new(),
        go_on: tokio::sync::Notify::new(),
    });
    slow.go_on.notify_one();
    let follower = Follower::start(slow.clone(), vec![]).await.unwrap();
    slow.asked.notified().await;
    let refresh = tokio::spawn({
        let follower = follower.clone();
        async move { follower.refresh().await }
    });
    slow.asked.notified().await;
    // The heads have been read: a change from now on is not in them, so nor is it confirmed.
    let moment = Instant::now();
    slow.go_on.notify_one();
    refresh.await.unwrap().unwrap();
    let since = moment.elapsed();
    assert!(follower.age() > since);
}

#[tokio::test]
async fn a_moved_subscription_belongs_to_its_new_endpoint_only() {
    let config = MemoryStores::new().stores().config;
    let owner = tenant("acme");
    let (follower, _) = follow(&config).await;
    let at = |endpoint| put(Entry::Subscription(subscription(&owner, 5, endpoint)));
    write(
        &config,
        &owner,
        vec![put_endpoint(&owner, 1), put_endpoint(&owner, 2), at(1)],
    )
    .await;
    write(&config, &owner, vec![at(2)]).await;
    follower.refresh().await.unwrap();
    let catalog = follower.catalog();
    let of = |id| catalog.subscriptions_at(EndpointId(id)).count();
    assert_eq!((of(1), of(2)), (0, 1));
}

/// One change of a small world.
fn action() -> impl Strategy<Value = (u64, u64, bool)> {
    (0..6_u64, 0..3_u64, any::<bool>())
}

proptest! {
    /// Whatever is written, the catalog is what a map of the last writes is, by every index.
    #[test]
    fn the_catalog_is_the_last_writes(actions in proptest::collection::vec(action(), 0..60)) {
        let owners = [tenant("a"), tenant("b")];
        let mut catalog = Catalog::default();
        let mut model: BTreeMap<EntryKey, Entry> = BTreeMap::new();
        for (id, at, keep) in actions {
            // An id has one owner for ever, as ids are unique across tenants.
            let owner = &owners[usize::try_from(id % 2).unwrap()];
            for entry in [
                Entry::Endpoint(endpoint(owner, id)),
                Entry::Subscription(subscription(owner, id, at)),
                request(owner, &format!("r-{id}"), at),
            ] {
                let write = if keep { put(entry.clone()) } else { Write::Delete(entry.key()) };
                catalog.apply(&write);
                match write {
                    Write::Put(_) => model.insert(entry.key(), entry),
                    Write::Delete(key) => model.remove(&key),
                };
            }
        }
        for owner in &owners {
            let endpoints = catalog.endpoints_of(owner).map(|e| Entry::Endpoint((**e).clone()));
            let subs = catalog.subscriptions_of(owner).map(|s| Entry::Subscription((**s).clone()));
            let found: Vec<_> = endpoints.chain(subs).collect();
            let of_owner = |key: &EntryKey| match key {
                EntryKey::Endpoint(t, _) | EntryKey::Subscription(t, _) => t == owner,
                EntryKey::Request(..) => false,
            };
            let expected: Vec<_> = model.iter().filter(|(k, _)| of_owner(k)).map(|(_, e)| e.clone()).collect();
            prop_assert_eq!(found, expected);
        }
        for at in 0..3 {
            let found = catalog.subscriptions_at(EndpointId(at)).count();
            let is_at = |e: &&Entry| matches!(e, Entry::Subscription(s) if s.endpoint.0 == at);
            prop_assert_eq!(found, model.values().filter(is_at).count());
        }
        let keys: std::collections::BTreeSet<_> = (0..BUCKETS).flat_map(|b| catalog.keys(b).collect::<Vec<_>>()).collect();
        prop_assert!(keys.iter().eq(model.keys()));
    }
}
