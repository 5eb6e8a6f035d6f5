//! Keys of the overlay's maps: compared by their first bytes, which lie in the map's nodes, before
//! anything is followed elsewhere.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Bound;

use bytes::Bytes;

/// A key.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    prefix: u64,
    bytes: Bytes,
}

/// What keys are looked up by.
pub(crate) struct Probe<'a> {
    prefix: u64,
    bytes: &'a [u8],
}

/// What both are, so that one finds the other.
pub(crate) trait Sorted {
    fn prefix(&self) -> u64;
    fn bytes(&self) -> &[u8];
}

impl Key {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self {
            prefix: prefix(&bytes),
            bytes,
        }
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl<'a> Probe<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            prefix: prefix(bytes),
            bytes,
        }
    }

    pub(crate) fn bound(bound: Bound<&'a [u8]>) -> Bound<Self> {
        bound.map(Self::new)
    }
}

/// As a bound of what a map is asked for.
pub(crate) fn sorted<'a>(bound: &'a Bound<Probe<'_>>) -> Bound<&'a (dyn Sorted + 'a)> {
    bound.as_ref().map(|probe| probe as &dyn Sorted)
}

/// The first eight bytes as a number; zeros where there are fewer, which sort lowest as nothing
/// does.
fn prefix(bytes: &[u8]) -> u64 {
    let mut first = [0; 8];
    let len = bytes.len().min(8);
    first[..len].copy_from_slice(&bytes[..len]);
    u64::from_be_bytes(first)
}

impl Sorted for Key {
    fn prefix(&self) -> u64 {
        self.prefix
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Sorted for Probe<'_> {
    fn prefix(&self) -> u64 {
        self.prefix
    }

    fn bytes(&self) -> &[u8] {
        self.bytes
    }
}

impl PartialEq for dyn Sorted + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for dyn Sorted + '_ {}

impl PartialOrd for dyn Sorted + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Sorted + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_bytes = || self.bytes().cmp(other.bytes());
        self.prefix().cmp(&other.prefix()).then_with(by_bytes)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_bytes = || self.bytes.cmp(&other.bytes);
        self.prefix.cmp(&other.prefix).then_with(by_bytes)
    }
}

impl<'a> Borrow<dyn Sorted + 'a> for Key {
    fn borrow(&self) -> &(dyn Sorted + 'a) {
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(0..3u8, 0..12)
    }

    proptest! {
        #[test]
        fn keys_sort_as_their_bytes_do(a in bytes(), b in bytes()) {
            let (key_a, key_b) = (Key::new(a.clone().into()), Key::new(b.clone().into()));
            prop_assert_eq!(key_a.cmp(&key_b), a.cmp(&b));
            let (probe_a, probe_b) = (Probe::new(&a), Probe::new(&b));
            prop_assert_eq!((&probe_a as &dyn Sorted).cmp(&probe_b), a.cmp(&b));
            prop_assert_eq!(Borrow::<dyn Sorted>::borrow(&key_a).cmp(&probe_b), a.cmp(&b));
        }
    }
}
