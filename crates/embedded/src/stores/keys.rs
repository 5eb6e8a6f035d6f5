//! Keys of the view. Numbers are big endian, so that keys sort as what they stand for; names end
//! with a zero byte, which none contains, so no two lists of names make the same key.

use std::ops::Bound;

use fanfare_domain::{DeliveryId, EndpointId, Place, Position, ShardSet, TenantId, Timestamp};
use fanfare_store::ParkedKey;

/// A range of keys that owns its bounds.
pub(super) struct KeyRange {
    pub(super) from: Bound<Vec<u8>>,
    pub(super) to: Bound<Vec<u8>>,
}

impl KeyRange {
    /// Every key that begins with `prefix`, which is not all ones.
    pub(super) fn prefix(prefix: &[u8]) -> Self {
        Self {
            from: Bound::Included(prefix.to_vec()),
            to: after(prefix),
        }
    }

    pub(super) fn as_bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (
            self.from.as_ref().map(Vec::as_slice),
            self.to.as_ref().map(Vec::as_slice),
        )
    }
}

/// The bound below which lie the keys that begin with `prefix` or with less.
pub(super) fn after(prefix: &[u8]) -> Bound<Vec<u8>> {
    let mut next = prefix.to_vec();
    while let Some(last) = next.pop() {
        if let Some(higher) = last.checked_add(1) {
            next.push(higher);
            return Bound::Excluded(next);
        }
    }
    Bound::Unbounded
}

/// `names`, each with its end.
pub(super) fn names(names: &[&str]) -> Vec<u8> {
    let mut key = Vec::with_capacity(names.iter().map(|name| name.len() + 1).sum());
    for name in names {
        key.extend_from_slice(name.as_bytes());
        key.push(0);
    }
    key
}

/// A tenant, then anything.
pub(super) fn of_tenant(tenant: &TenantId, rest: &[u8]) -> Vec<u8> {
    let mut key = names(&[tenant.as_str()]);
    key.extend_from_slice(rest);
    key
}

/// The whole second of a moment, as in a delivery's id.
pub(super) fn second(at: Timestamp) -> [u8; 4] {
    u32::try_from(at.seconds().max(0))
        .unwrap_or(u32::MAX)
        .to_be_bytes()
}

/// Where a parked delivery stands among those of its endpoint.
pub(super) fn queue_place(key: ParkedKey) -> [u8; 14] {
    let mut out = [0; 14];
    out[..2].copy_from_slice(&key.place.span.to_be_bytes());
    out[2..10].copy_from_slice(&key.place.position.0.to_be_bytes());
    out[10..].copy_from_slice(&key.part.to_be_bytes());
    out
}

/// The key of a parked delivery.
pub(super) fn parked(endpoint: EndpointId, key: ParkedKey) -> [u8; 22] {
    let mut out = [0; 22];
    out[..8].copy_from_slice(&endpoint.0.to_be_bytes());
    out[8..].copy_from_slice(&queue_place(key));
    out
}

/// The inverse of [`parked`].
pub(super) fn parse_parked(key: &[u8]) -> Option<(EndpointId, ParkedKey)> {
    let (endpoint, place) = key.split_first_chunk::<8>()?;
    let (span, rest) = place.split_first_chunk::<2>()?;
    let (position, part) = rest.split_first_chunk::<8>()?;
    let place = Place {
        span: u16::from_be_bytes(*span),
        position: Position(u64::from_be_bytes(*position)),
    };
    let part = u32::from_be_bytes(part.try_into().ok()?);
    let endpoint = EndpointId(u64::from_be_bytes(*endpoint));
    Some((endpoint, ParkedKey { place, part }))
}

/// The delivery that a key ends with.
pub(super) fn delivery(key: &[u8]) -> Option<DeliveryId> {
    key.last_chunk::<24>().map(|id| DeliveryId::from_bytes(*id))
}

/// When the event was published whose delivery a key ends with.
pub(super) fn published_micros(key: &[u8], _: &[u8]) -> Option<i64> {
    delivery(key).map(|id| id.published().micros())
}

/// Whether an owner of `shards` is responsible for `endpoint`.
pub(super) fn covers(shards: ShardSet, endpoint: EndpointId) -> bool {
    // Hashing is most of the cost where one owner has everything.
    shards == ShardSet::ALL || shards.contains(fanfare_domain::Shard::of_endpoint(endpoint))
}
