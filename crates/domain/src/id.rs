//! Typed ids. What a tenant names is a validated string; what we name is a number with a prefix.
//!
//! Our ids print as `prefix_` + base32hex (`0-9a-v`, lower case): no dots, url-safe, and in the
//! same order as the bytes, so sorted text is sorted data.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::{Encoding, Specification};
use sha2::{Digest, Sha256};

use crate::event::BodyHash;
use crate::invalid::{Invalid, Reason};
use crate::time::Timestamp;

/// The owner of everything below it: 1..=64 bytes of `[A-Za-z0-9_.-]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Arc<str>);

/// A producer's name for one event: 1..=255 bytes of visible ASCII.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Arc<str>);

/// Where an event comes from (CloudEvents `source`, a URI reference): 1..=255 visible ASCII bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(Arc<str>);

/// `ep_…`: 64 random bits, unique across tenants because delivery ids locate themselves by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub u64);

/// `sub_…`: 64 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub u64);

/// `dlv_…`: deterministic, and locates itself: endpoint (8 bytes), published second (4), hash (12).
///
/// The hash covers tenant, source, event id, body hash, subscription and replay generation, so a
/// crash that routes an event again names its deliveries the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId([u8; 24]);

macro_rules! text_id {
    ($name:ident, $reason:expr, $field:literal, $max:literal, $rule:expr, $allowed:literal) => {
        impl $name {
            /// Validates; the error names the field and what is allowed.
            pub fn try_new(text: impl AsRef<str>) -> Result<Self, Invalid> {
                let text = text.as_ref();
                let rule: fn(u8) -> bool = $rule;
                if text.is_empty() || text.len() > $max || !text.bytes().all(rule) {
                    return Err(Invalid::new(
                        $reason,
                        $field,
                        concat!("must be 1 to ", $max, " bytes of ", $allowed),
                    ));
                }
                Ok(Self(text.into()))
            }

            /// The text as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    TenantId,
    Reason::TenantInvalid,
    "tenant",
    64,
    |b| b.is_ascii_alphanumeric() || b"_.-".contains(&b),
    "letters, digits, '_', '.' and '-'"
);
text_id!(
    EventId,
    Reason::EventIdInvalid,
    "event.id",
    255,
    |b| b.is_ascii_graphic(),
    "visible ASCII without spaces"
);
text_id!(
    Source,
    Reason::EventFieldInvalid,
    "event.source",
    255,
    |b| b.is_ascii_graphic(),
    "visible ASCII without spaces (a URI reference)"
);

/// base32hex without padding, lower case: keeps the order of the bytes.
fn base32() -> &'static Encoding {
    static ENCODING: std::sync::OnceLock<Encoding> = std::sync::OnceLock::new();
    ENCODING.get_or_init(|| {
        let mut spec = Specification::new();
        spec.symbols.push_str("0123456789abcdefghijklmnopqrstuv");
        spec.encoding()
            .expect("32 distinct symbols are a valid base32 alphabet")
    })
}

fn parse_prefixed<const N: usize>(
    text: &str,
    prefix: &str,
    what: &str,
) -> Result<[u8; N], Invalid> {
    text.strip_prefix(prefix)
        .and_then(|rest| base32().decode(rest.as_bytes()).ok())
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| {
            Invalid::new(
                Reason::IdInvalid,
                "id",
                format!("is not a {what} id ({prefix}…); copy it as printed"),
            )
        })
}

macro_rules! number_id {
    ($name:ident, $prefix:literal, $what:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(
                    f,
                    concat!($prefix, "{}"),
                    base32().encode(&self.0.to_be_bytes())
                )
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                parse_prefixed::<8>(text, $prefix, $what).map(|b| Self(u64::from_be_bytes(b)))
            }
        }
    };
}

number_id!(EndpointId, "ep_", "endpoint");
number_id!(SubscriptionId, "sub_", "subscription");

/// What a delivery id is made of besides its endpoint and time. Hashing it once per event and
/// once per subscription keeps the fan-out at one SHA-256 block each.
#[derive(Clone)]
pub struct DeliverySeed(Sha256);

impl DeliverySeed {
    /// The part that all deliveries of one event share.
    pub fn new(tenant: &TenantId, source: &Source, event: &EventId, body: &BodyHash) -> Self {
        let mut hash = Sha256::new();
        for part in [tenant.as_str(), source.as_str(), event.as_str()] {
            // Length first: no two different triples hash the same bytes.
            hash.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hash.update(body.0);
        Self(hash)
    }

    /// The id of the delivery owed to `subscription` at `endpoint`; `published` is the event's
    /// accept time, `generation` counts replays (0 for the original).
    pub fn delivery(
        &self,
        endpoint: EndpointId,
        subscription: SubscriptionId,
        published: Timestamp,
        generation: u32,
    ) -> DeliveryId {
        let mut hash = self.0.clone();
        hash.update(subscription.0.to_be_bytes());
        hash.update(generation.to_be_bytes());
        let digest = hash.finalize();
        let second = u32::try_from(published.seconds().max(0)).unwrap_or(u32::MAX);
        let mut id = [0; 24];
        id[..8].copy_from_slice(&endpoint.0.to_be_bytes());
        id[8..12].copy_from_slice(&second.to_be_bytes());
        id[12..].copy_from_slice(&digest[..12]);
        DeliveryId(id)
    }
}

impl DeliveryId {
    /// From its 24 bytes, as stored.
    pub const fn from_bytes(bytes: [u8; 24]) -> Self {
        Self(bytes)
    }

    /// Its 24 bytes: a key that sorts by endpoint, then published second.
    pub const fn as_bytes(&self) -> &[u8; 24] {
        &self.0
    }

    /// The endpoint it is owed to.
    pub fn endpoint(&self) -> EndpointId {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[..8]);
        EndpointId(u64::from_be_bytes(bytes))
    }

    /// When its event was accepted, in whole seconds.
    pub fn published(&self) -> Timestamp {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[8..12]);
        Timestamp::from_millis(i64::from(u32::from_be_bytes(bytes)) * 1000)
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dlv_{}", base32().encode(&self.0))
    }
}

impl fmt::Debug for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for DeliveryId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        parse_prefixed::<24>(text, "dlv_", "delivery").map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> DeliveryId {
        let seed = DeliverySeed::new(
            &TenantId::try_new("acme").unwrap(),
            &Source::try_new("/shop").unwrap(),
            &EventId::try_new("e-1").unwrap(),
            &BodyHash([7; 16]),
        );
        seed.delivery(
            EndpointId(42),
            SubscriptionId(9),
            Timestamp::from_millis(1_790_000_000_500),
            0,
        )
    }

    #[test]
    fn a_delivery_id_locates_itself_and_survives_printing() {
        let id = id();
        assert_eq!(id.endpoint(), EndpointId(42));
        assert_eq!(id.published().seconds(), 1_790_000_000);
        assert_eq!(id.to_string().parse::<DeliveryId>().unwrap(), id);
        assert!(!id.to_string().contains('.'));
    }

    #[test]
    fn a_delivery_id_never_changes_between_versions() {
        // A changed derivation would name a repeat differently and double every open delivery.
        assert_eq!(
            id().to_string(),
            "dlv_000000000002kqlh7e00d96au1kh4agdbbgqjpo"
        );
    }

    #[test]
    fn ids_that_are_not_ids_say_so() {
        for bad in ["", "ep_", "ep_zz", "dlv_0", "ep_00000000000000000"] {
            assert!(bad.parse::<EndpointId>().is_err(), "{bad}");
        }
        assert!(TenantId::try_new("a/b").is_err());
        assert!(EventId::try_new("a b").is_err());
        assert!(EventId::try_new("x".repeat(256)).is_err());
    }
}
