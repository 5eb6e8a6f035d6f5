//! Which subscriptions want an event: an immutable index, swapped on change.
//!
//! ```text
//!   tenant ──▶ exact   "order.paid" ──▶ targets          one hash look-up
//!          └─▶ trie    order ─ * ─ eu ──▶ targets        as many steps as the type has parts,
//!                        └──── ** ──▶ targets            twice where a '*' branches
//! ```
//!
//! [`Matcher`] answers, [`Feed`] is the [`Observer`] that keeps it current. All maps are
//! persistent: a change copies the path to what it touches, so one change among 100k
//! subscriptions costs microseconds, and readers never wait for it.
//!
//! Invariants: several patterns of one subscription that match make one target; targets rise by
//! subscription id; paused endpoints match (their worker parks), disabled and deleted ones do not;
//! an index is never older than the catalog that was published after it, so a [`Matched`] found
//! after the catalog was confirmed is at least that fresh, and its `config_head` never names a
//! configuration older than what it matched.
//!
//! It holds no data of its own and cannot fail. Whether it is fresh enough to be believed is asked
//! of the follower, not of it: "no rows" is not "no subscriptions".

mod targets;
mod text_map;
mod trie;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use fanfare_domain::{
    EndpointState, EventType, Subscription, SubscriptionId, Target, TenantId, TypePattern,
};
use fanfare_store::config::{BUCKETS, bucket_of};
use fanfare_store::{Catalog, EntryKey, Head, Observer, Write};

use targets::Targets;
use text_map::TextMap;
use trie::Trie;

/// Answers which subscriptions want an event. Cheap to clone; clones answer alike.
#[derive(Clone)]
pub struct Matcher(Arc<ArcSwap<Index>>);

/// Keeps a [`Matcher`] current.
pub struct Feed {
    published: Arc<ArcSwap<Index>>,
    /// The next index; shares everything untouched with the published one.
    index: Index,
    /// What is in the index, by subscription, as it was put there: what to take out again.
    indexed: HashMap<SubscriptionId, Arc<Subscription>>,
}

/// What an event matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched {
    /// Who is owed a delivery, by rising subscription id.
    pub targets: Vec<Target>,
    /// Head of the tenant's configuration bucket that says so.
    pub config_head: Head,
}

#[derive(Clone, Default)]
struct Index {
    heads: [Head; BUCKETS as usize],
    tenants: imbl::HashMap<TenantId, Arc<TenantIndex>>,
}

#[derive(Clone, Default)]
struct TenantIndex {
    exact: TextMap<Targets>,
    patterns: Trie,
}

impl Matcher {
    /// An empty index and what feeds it.
    #[allow(clippy::new_ret_no_self)] // the two halves are made together or not at all
    pub fn new() -> (Self, Feed) {
        let published = Arc::new(ArcSwap::default());
        let feed = Feed {
            published: published.clone(),
            index: Index::default(),
            indexed: HashMap::new(),
        };
        (Self(published), feed)
    }

    /// Who wants an event of `event_type` of `tenant`, by rising subscription id.
    pub fn matches(&self, tenant: &TenantId, event_type: &EventType) -> Vec<Target> {
        self.matched(tenant, event_type).targets
    }

    /// [`Matcher::matches`], and the configuration that says so.
    pub fn matched(&self, tenant: &TenantId, event_type: &EventType) -> Matched {
        let index = self.0.load();
        let targets = index
            .tenants
            .get(tenant)
            .map_or_else(Vec::new, |tenant| tenant.matches(event_type));
        Matched {
            targets,
            config_head: index.heads[usize::from(bucket_of(tenant))],
        }
    }
}

impl TenantIndex {
    fn matches(&self, event_type: &EventType) -> Vec<Target> {
        let mut found = Vec::new();
        found.extend(self.exact.get(event_type.as_str()));
        self.patterns.collect(event_type, &mut found);
        Targets::union(&found)
    }

    fn insert(&mut self, pattern: &TypePattern, target: Target) {
        if pattern.is_exact() {
            self.exact.entry(pattern.into()).insert(target);
        } else {
            self.patterns.insert(pattern, target);
        }
    }

    fn remove(&mut self, pattern: &TypePattern, subscription: SubscriptionId) {
        if pattern.is_exact() {
            self.exact.update(pattern.as_str(), |targets| {
                targets.remove(subscription);
                targets.is_empty()
            });
        } else {
            self.patterns.remove(pattern, subscription);
        }
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.patterns.is_empty()
    }
}

impl Index {
    fn insert(&mut self, subscription: &Subscription) {
        let tenant = self.tenants.entry(subscription.tenant.clone());
        let tenant = Arc::make_mut(tenant.or_default());
        for pattern in &subscription.event_types {
            let target = Target {
                endpoint: subscription.endpoint,
                subscription: subscription.id,
            };
            tenant.insert(pattern, target);
        }
    }

    fn remove(&mut self, subscription: &Subscription) {
        let Some(tenant) = self.tenants.get_mut(&subscription.tenant) else {
            return;
        };
        let tenant = Arc::make_mut(tenant);
        for pattern in &subscription.event_types {
            tenant.remove(pattern, subscription.id);
        }
        if tenant.is_empty() {
            self.tenants.remove(&subscription.tenant);
        }
    }
}

impl Observer for Feed {
    fn changed(&mut self, writes: &[Write], after: &Catalog) {
        for write in writes {
            self.follow(write, after);
        }
        self.published.store(Arc::new(self.index.clone()));
    }
}

impl Feed {
    fn follow(&mut self, write: &Write, after: &Catalog) {
        let key = match write {
            Write::Put(entry) => entry.key(),
            Write::Delete(key) => key.clone(),
        };
        let tenant = match &key {
            EntryKey::Endpoint(tenant, endpoint) => {
                // Its state decides about all its subscriptions.
                let ids: Vec<_> = after.subscriptions_at(*endpoint).map(|s| s.id).collect();
                for id in ids {
                    self.settle(id, after);
                }
                tenant
            }
            EntryKey::Subscription(tenant, id) => {
                self.settle(*id, after);
                tenant
            }
            EntryKey::Request(tenant, _) => tenant,
        };
        self.index.heads[usize::from(bucket_of(tenant))] = after.head_of(tenant);
    }

    /// Brings the index in line with what the catalog says about one subscription.
    fn settle(&mut self, id: SubscriptionId, after: &Catalog) {
        let wanted = after.subscription(id).filter(|s| is_live(s, after));
        if let (Some(wanted), Some(indexed)) = (wanted, self.indexed.get(&id))
            && Arc::ptr_eq(wanted, indexed)
        {
            return;
        }
        if let Some(old) = self.indexed.remove(&id) {
            self.index.remove(&old);
        }
        if let Some(subscription) = wanted {
            self.index.insert(subscription);
            self.indexed.insert(id, subscription.clone());
        }
    }
}

/// Whether new events make deliveries for it.
fn is_live(subscription: &Subscription, catalog: &Catalog) -> bool {
    catalog
        .endpoint(subscription.endpoint)
        .is_some_and(|endpoint| match endpoint.state {
            EndpointState::Active | EndpointState::Paused => true,
            EndpointState::Disabled => false,
        })
}

#[cfg(test)]
mod tests;
