//! Which records meet: 256 logical shards, for ever.
//!
//! An event's shard is a pure function of the event (its ordering key if given, else its
//! identity), a delivery's of its endpoint, so one endpoint meets one worker. A backend may hold
//! several shards in one sequence of records (see [`ShardSet`]); it never splits one.

use sha2::{Digest, Sha256};

use crate::event::{Event, EventKey};
use crate::id::{EndpointId, TenantId};

/// How many logical shards there are. Stored keys depend on it: it never changes.
pub const SHARDS: u16 = 256;

/// One of the 256 logical shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u8);

impl Shard {
    /// The shard of an event: by ordering key, so that one key's events meet in order; otherwise
    /// by identity, so that repeats of one event meet and the first can win.
    pub fn of_event(key: &EventKey, event: &Event) -> Self {
        match &event.ordering_key {
            Some(ordering) => Self::of(&[key.tenant.as_str().as_bytes(), ordering.as_bytes()]),
            None => Self::of_key(key),
        }
    }

    /// The shard of an event without an ordering key.
    pub fn of_key(key: &EventKey) -> Self {
        Self::of(&[
            key.tenant.as_str().as_bytes(),
            key.source.as_str().as_bytes(),
            key.id.as_str().as_bytes(),
        ])
    }

    /// The shard of everything owed to an endpoint.
    pub fn of_endpoint(endpoint: EndpointId) -> Self {
        Self::of(&[&endpoint.0.to_be_bytes()])
    }

    /// The shard of a tenant's configuration.
    pub fn of_tenant(tenant: &TenantId) -> Self {
        Self::of(&[tenant.as_str().as_bytes()])
    }

    fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize()[0])
    }
}

/// The shards that share one sequence of records: those with `shard % step == first`.
///
/// `step` divides 256; a single sequence for everything is `step = 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShardSet {
    first: u16,
    step: u16,
}

impl ShardSet {
    /// All 256 shards.
    pub const ALL: Self = Self { first: 0, step: 1 };

    /// The `index`-th of `count` sets; `None` unless `count` divides 256 and `index < count`.
    pub fn try_new(index: u16, count: u16) -> Option<Self> {
        (count > 0 && SHARDS.is_multiple_of(count) && index < count).then_some(Self {
            first: index,
            step: count,
        })
    }

    /// Whether `shard` is one of these.
    pub fn contains(self, shard: Shard) -> bool {
        u16::from(shard.0) % self.step == self.first
    }

    /// The shards, in rising order.
    pub fn iter(self) -> impl Iterator<Item = Shard> {
        (self.first..SHARDS)
            .step_by(usize::from(self.step))
            .filter_map(|s| u8::try_from(s).ok().map(Shard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_one_count_divide_all_shards() {
        for count in [1, 2, 4, 64, 256] {
            let mut seen = 0;
            for index in 0..count {
                let set = ShardSet::try_new(index, count).unwrap();
                seen += set.iter().inspect(|s| assert!(set.contains(*s))).count();
            }
            assert_eq!(seen, usize::from(SHARDS));
        }
        assert_eq!(ShardSet::try_new(0, 3), None);
        assert_eq!(ShardSet::try_new(4, 4), None);
    }

    #[test]
    fn the_shard_of_an_endpoint_never_changes() {
        assert_eq!(Shard::of_endpoint(EndpointId(1)), Shard(143));
    }
}
