//! Every process's copy of the configuration: an immutable [`Catalog`], swapped on change, and the
//! [`Follower`] that keeps it confirmed.
//!
//! "No rows" is not "no subscriptions": who routes or concludes "no such endpoint" asks how
//! recently the catalog was confirmed, and waits when that was too long ago.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use fanfare_domain::{Endpoint, EndpointId, Subscription, SubscriptionId, TenantId};
use parking_lot::Mutex as Lock;
use tokio::sync::{Mutex, watch};

use crate::config::{BUCKETS, Configuration, Entry, EntryKey, Head, Write, bucket_of};
use crate::error::StoreError;

/// The configuration as of some head of each bucket. Cloning is cheap: the maps are persistent.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    heads: [Head; BUCKETS as usize],
    endpoints: imbl::HashMap<EndpointId, Arc<Endpoint>>,
    subscriptions: imbl::HashMap<SubscriptionId, Arc<Subscription>>,
    /// Ids by owner, ordered, so that lists are cheap and stable.
    by_tenant: imbl::HashMap<TenantId, Owned>,
    by_endpoint: imbl::HashMap<EndpointId, imbl::OrdSet<SubscriptionId>>,
    requests: imbl::HashMap<(TenantId, String), ([u8; 16], u64, i64)>,
}

#[derive(Clone, Debug, Default)]
struct Owned {
    endpoints: imbl::OrdSet<EndpointId>,
    subscriptions: imbl::OrdSet<SubscriptionId>,
    /// By age, so that old ones are found and forgotten.
    requests: imbl::OrdSet<(i64, String)>,
}

/// Is told of every change, in order, before anyone sees the catalog that contains it.
pub trait Observer: Send {
    /// `writes` were applied; `after` is the catalog with them. Must not block.
    fn changed(&mut self, writes: &[Write], after: &Catalog);
}

/// Follows a [`Configuration`]: loads it, confirms its heads, applies what changed.
pub struct Follower {
    source: Arc<dyn Configuration>,
    catalog: ArcSwap<Catalog>,
    /// When the heads were last read and found reflected: the moment *before* they were asked for.
    confirmed: watch::Sender<Instant>,
    /// One refresh at a time; observers are called under it.
    refreshing: Mutex<()>,
    observers: Lock<Vec<Box<dyn Observer>>>,
}

impl Catalog {
    /// The head of a tenant's bucket that this reflects.
    pub fn head_of(&self, tenant: &TenantId) -> Head {
        self.heads[usize::from(bucket_of(tenant))]
    }

    /// An endpoint, whoever owns it: callers that act for a tenant compare its `tenant`.
    pub fn endpoint(&self, id: EndpointId) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(&id)
    }

    /// A subscription, whoever owns it.
    pub fn subscription(&self, id: SubscriptionId) -> Option<&Arc<Subscription>> {
        self.subscriptions.get(&id)
    }

    /// A tenant's endpoints, by id.
    pub fn endpoints_of(&self, tenant: &TenantId) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.by_tenant
            .get(tenant)
            .into_iter()
            .flat_map(|o| &o.endpoints)
            .filter_map(|id| self.endpoints.get(id))
    }

    /// A tenant's subscriptions, by id.
    pub fn subscriptions_of(&self, tenant: &TenantId) -> impl Iterator<Item = &Arc<Subscription>> {
        let ids = self
            .by_tenant
            .get(tenant)
            .into_iter()
            .flat_map(|o| &o.subscriptions);
        ids.filter_map(|id| self.subscriptions.get(id))
    }

    /// The subscriptions of an endpoint, by id.
    pub fn subscriptions_at(
        &self,
        endpoint: EndpointId,
    ) -> impl Iterator<Item = &Arc<Subscription>> {
        let ids = self.by_endpoint.get(&endpoint).into_iter().flatten();
        ids.filter_map(|id| self.subscriptions.get(id))
    }

    /// What a `request_id` made: hash of the request, number made, when in microseconds.
    pub fn request(&self, tenant: &TenantId, request_id: &str) -> Option<([u8; 16], u64, i64)> {
        self.requests
            .get(&(tenant.clone(), request_id.to_owned()))
            .copied()
    }

    /// The `request_id`s of a tenant that are older than `micros`, oldest first.
    pub fn requests_before(&self, tenant: &TenantId, micros: i64) -> impl Iterator<Item = &str> {
        let requests = self
            .by_tenant
            .get(tenant)
            .into_iter()
            .flat_map(|o| &o.requests);
        let old = requests.take_while(move |(at, _)| *at < micros);
        old.map(|(_, request_id)| &**request_id)
    }

    /// How many endpoints and subscriptions there are in all.
    pub fn counts(&self) -> (usize, usize) {
        (self.endpoints.len(), self.subscriptions.len())
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::Put(entry) => self.put(entry),
            Write::Delete(key) => self.delete(key),
        }
    }

    fn put(&mut self, entry: &Entry) {
        match entry {
            Entry::Endpoint(endpoint) => {
                self.by_tenant
                    .entry(endpoint.tenant.clone())
                    .or_default()
                    .endpoints
                    .insert(endpoint.id);
                self.endpoints
                    .insert(endpoint.id, Arc::new(endpoint.clone()));
            }
            Entry::Subscription(subscription) => {
                let owned = self.by_tenant.entry(subscription.tenant.clone());
                owned.or_default().subscriptions.insert(subscription.id);
                let id = subscription.id;
                let old = self
                    .subscriptions
                    .insert(id, Arc::new(subscription.clone()));
                if let Some(old) = old.filter(|old| old.endpoint != subscription.endpoint) {
                    self.detach(id, old.endpoint);
                }
                let at = self.by_endpoint.entry(subscription.endpoint);
                at.or_default().insert(id);
            }
            Entry::Request {
                tenant,
                request_id,
                hash,
                made,
                at_micros,
            } => {
                let key = (tenant.clone(), request_id.clone());
                let before = self.requests.insert(key, (*hash, *made, *at_micros));
                let owned = self.by_tenant.entry(tenant.clone()).or_default();
                if let Some((.., at)) = before {
                    owned.requests.remove(&(at, request_id.clone()));
                }
                owned.requests.insert((*at_micros, request_id.clone()));
            }
        }
    }

    fn delete(&mut self, key: &EntryKey) {
        match key {
            EntryKey::Endpoint(tenant, id) => {
                self.endpoints.remove(id);
                self.disown(tenant, |owned| owned.endpoints.remove(id));
            }
            EntryKey::Subscription(tenant, id) => {
                self.disown(tenant, |owned| owned.subscriptions.remove(id));
                if let Some(old) = self.subscriptions.remove(id) {
                    self.detach(*id, old.endpoint);
                }
            }
            EntryKey::Request(tenant, request_id) => {
                let removed = self.requests.remove(&(tenant.clone(), request_id.clone()));
                if let Some((.., at)) = removed
                    && let Some(owned) = self.by_tenant.get_mut(tenant)
                {
                    owned.requests.remove(&(at, request_id.clone()));
                }
            }
        }
    }
}

impl Catalog {
    /// Takes a subscription from the list of its endpoint.
    fn detach(&mut self, subscription: SubscriptionId, endpoint: EndpointId) {
        if let Some(ids) = self.by_endpoint.get_mut(&endpoint) {
            ids.remove(&subscription);
            if ids.is_empty() {
                self.by_endpoint.remove(&endpoint);
            }
        }
    }

    /// Takes something from what a tenant owns, and forgets a tenant that owns nothing.
    fn disown<T>(&mut self, tenant: &TenantId, take: impl FnOnce(&mut Owned) -> T) {
        if let Some(owned) = self.by_tenant.get_mut(tenant) {
            take(owned);
            if owned.endpoints.is_empty() && owned.subscriptions.is_empty() {
                self.by_tenant.remove(tenant);
            }
        }
    }
}

impl Follower {
    /// Loads the whole configuration, then follows it. `observers` see everything loaded as one
    /// list of writes per bucket.
    pub async fn start(
        source: Arc<dyn Configuration>,
        observers: Vec<Box<dyn Observer>>,
    ) -> Result<Arc<Self>, StoreError> {
        let follower = Self::new(source, observers);
        follower.load_all().await?;
        Ok(Arc::new(follower))
    }

    /// One that knows nothing before [`Self::load_all`].
    pub fn new(source: Arc<dyn Configuration>, observers: Vec<Box<dyn Observer>>) -> Self {
        Self {
            source,
            catalog: ArcSwap::default(),
            confirmed: watch::Sender::new(Instant::now()),
            refreshing: Mutex::new(()),
            observers: Lock::new(observers),
        }
    }

    /// Loads the whole configuration. May be repeated when it fails: observers are then told again
    /// of what was loaded before.
    pub async fn load_all(&self) -> Result<(), StoreError> {
        for bucket in 0..BUCKETS {
            self.load(bucket).await?;
        }
        self.refresh().await
    }

    /// The catalog as of the last refresh.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// How long ago the catalog was confirmed to be current.
    pub fn age(&self) -> Duration {
        self.confirmed.borrow().elapsed()
    }

    /// Confirms the heads now and applies what changed. Cancel safe: what was applied stays.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let _one = self.refreshing.lock().await;
        let asked = Instant::now();
        let heads = self.source.heads().await?;
        for (bucket, head) in (0..BUCKETS).zip(heads) {
            let seen = self.catalog.load().heads[usize::from(bucket)];
            if head <= seen {
                continue;
            }
            match self.source.changes(bucket, seen).await? {
                Some(changes) => changes
                    .into_iter()
                    .for_each(|(head, writes)| self.apply(bucket, head, &writes)),
                None => self.load(bucket).await?,
            }
        }
        self.confirmed.send_replace(asked);
        Ok(())
    }

    /// Waits until the catalog reflects `head` of `tenant`'s bucket. Cancel safe; the caller
    /// bounds the wait.
    pub async fn reached(&self, tenant: &TenantId, head: Head) {
        let mut confirmed = self.confirmed.subscribe();
        while self.catalog.load().head_of(tenant) < head {
            if confirmed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until the catalog was confirmed at or after `moment`. Cancel safe.
    pub async fn confirmed_since(&self, moment: Instant) {
        let mut confirmed = self.confirmed.subscribe();
        // An error means that the follower is being dropped: nobody waits for it any more.
        let _ = confirmed.wait_for(|at| *at >= moment).await;
    }

    /// Refreshes every `interval` for as long as it is polled; failures are logged by `failed`.
    pub async fn run(&self, interval: Duration, failed: impl Fn(&StoreError)) {
        loop {
            tokio::time::sleep(interval).await;
            if let Err(error) = self.refresh().await {
                failed(&error);
            }
        }
    }

    /// Replaces a bucket by what the store has: deletes what it no longer names.
    async fn load(&self, bucket: u8) -> Result<(), StoreError> {
        let (head, entries) = self.source.load(bucket).await?;
        let kept: std::collections::BTreeSet<EntryKey> = entries.iter().map(Entry::key).collect();
        let catalog = self.catalog.load_full();
        let stale = catalog
            .keys(bucket)
            .filter(|key| !kept.contains(key))
            .map(Write::Delete);
        let puts = entries.into_iter().map(|entry| Write::Put(Box::new(entry)));
        let writes: Vec<Write> = stale.chain(puts).collect();
        self.apply(bucket, head, &writes);
        Ok(())
    }

    fn apply(&self, bucket: u8, head: Head, writes: &[Write]) {
        let mut next = Catalog::clone(&self.catalog.load());
        for write in writes {
            next.apply(write);
        }
        next.heads[usize::from(bucket)] = head;
        self.observers
            .lock()
            .iter_mut()
            .for_each(|observer| observer.changed(writes, &next));
        self.catalog.store(Arc::new(next));
    }
}

impl Catalog {
    /// The keys of everything in a bucket.
    fn keys(&self, bucket: u8) -> impl Iterator<Item = EntryKey> {
        let owned = self
            .by_tenant
            .iter()
            .filter(move |(tenant, _)| bucket_of(tenant) == bucket);
        let entries = owned.flat_map(|(tenant, owned)| {
            let endpoints = owned
                .endpoints
                .iter()
                .map(|id| EntryKey::Endpoint(tenant.clone(), *id));
            let subs = owned
                .subscriptions
                .iter()
                .map(|id| EntryKey::Subscription(tenant.clone(), *id));
            endpoints.chain(subs)
        });
        let requests = self
            .requests
            .keys()
            .filter(move |(tenant, _)| bucket_of(tenant) == bucket);
        entries.chain(requests.map(|(tenant, id)| EntryKey::Request(tenant.clone(), id.clone())))
    }
}

#[cfg(test)]
mod tests;
