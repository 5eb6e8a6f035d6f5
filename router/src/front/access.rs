//! Who is calling, and for which tenant.
//!
//! A key is `ffk_` and 38 characters: 160 random bits and a checksum, so that a mistyped or cut key
//! is told from a revoked one. Only its SHA-256 is ever stored. A credential covers some tenants;
//! `fanfare-tenant` picks one of them. Without keys everything is open: the server only starts
//! like that on loopback, or when told to.

use std::fmt;
use std::sync::Arc;

use data_encoding::{BASE32HEX_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use fanfare_domain::trace::{TRACEPARENT, TraceParent};
use fanfare_domain::{Invalid, Reason, TenantId};
use http::HeaderMap;
use rand::Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use tonic::Code;

use super::caller::Caller;
use super::errors::Refusal;

/// Header and metadata key that picks the tenant.
pub const TENANT_HEADER: &str = "fanfare-tenant";
/// The tenant when none is picked.
pub const TENANT_DEFAULT: &str = "default";

const PREFIX: &str = "ffk_";
const RANDOM_BYTES: usize = 20;
const RANDOM_CHARS: usize = 32;
const CHECKSUM_CHARS: usize = 6;
const NAME_MAX: usize = 64;

/// One `[[keys]]` stanza of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeyStanza {
    /// For people, and the default source of events (`/name`): 1 to 64 of `[A-Za-z0-9_.-]`.
    pub name: String,
    /// The tenants it covers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<String>,
    /// Whether it covers every tenant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_tenants: bool,
    /// SHA-256 of the key's text, in hexadecimal.
    pub sha256: String,
}

/// The credentials that this server knows. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct KeyRing(Option<Arc<[Key]>>);

struct Key {
    name: Arc<str>,
    /// The tenants it covers; `None`: all.
    tenants: Option<Vec<TenantId>>,
    sha256: [u8; 32],
}

/// Makes a key: its text, to be shown once, and the stanza that admits it.
pub fn new_key(
    name: &str,
    tenants: Option<Vec<String>>,
    rng: &mut impl Rng,
) -> (String, KeyStanza) {
    let mut random = [0; RANDOM_BYTES];
    rng.fill(&mut random);
    let body = BASE32HEX_NOPAD.encode(&random).to_ascii_lowercase();
    let text = format!("{PREFIX}{body}{}", checksum(&body));
    let stanza = KeyStanza {
        name: name.into(),
        all_tenants: tenants.is_none(),
        tenants: tenants.unwrap_or_default(),
        sha256: HEXLOWER.encode(&Sha256::digest(&text)),
    };
    (text, stanza)
}

impl KeyRing {
    /// No keys: everyone may do everything, under any tenant's name.
    pub fn open() -> Self {
        Self(None)
    }

    /// The keys of a configuration. None at all is [`KeyRing::open`].
    ///
    /// Errors name the stanza and the field.
    pub fn try_new(stanzas: &[KeyStanza]) -> Result<Self, Invalid> {
        if stanzas.is_empty() {
            return Ok(Self::open());
        }
        let keys: Vec<Key> = stanzas.iter().map(Key::try_new).collect::<Result<_, _>>()?;
        let mut names: Vec<&str> = keys.iter().map(|key| &*key.name).collect();
        names.sort_unstable();
        let mut pairs = names.iter().zip(names.iter().skip(1));
        if let Some((twice, _)) = pairs.find(|(one, next)| one == next) {
            let rule = format!("the name {twice:?} is given twice");
            return Err(Invalid::new(Reason::IdInvalid, "keys.name", rule));
        }
        Ok(Self(Some(keys.into())))
    }

    /// Whether a credential is asked for at all.
    pub fn is_open(&self) -> bool {
        self.0.is_none()
    }

    /// Who calls, by the headers (or gRPC metadata) of a call.
    pub fn caller(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let tenant = match headers.get(TENANT_HEADER) {
            None => TENANT_DEFAULT,
            // What is not text is not a tenant's name either, and refused as one.
            Some(value) => value.to_str().unwrap_or(""),
        };
        let authorization = headers
            .get(http::header::AUTHORIZATION)
            .map(|value| value.to_str().unwrap_or(""));
        let mut caller = self.admit(authorization, tenant)?;
        let traceparent = headers.get(TRACEPARENT).and_then(|v| v.to_str().ok());
        let valid = traceparent.filter(|text| TraceParent::parse(text).is_some());
        caller.traceparent = valid.map(Arc::from);
        Ok(caller)
    }

    fn admit(&self, authorization: Option<&str>, tenant: &str) -> Result<Caller, Refusal> {
        let tenant = TenantId::try_new(tenant)?;
        let Some(keys) = &self.0 else {
            let credential = anonymous();
            return Ok(Caller {
                tenant,
                credential,
                traceparent: None,
            });
        };
        let key = find(keys, bearer(authorization)?)?;
        if !key.covers(&tenant) {
            let advice = format!(
                "this key does not cover the tenant {tenant}; name one that it covers in {TENANT_HEADER}"
            );
            let denied = Refusal::new(Code::PermissionDenied, "TENANT_NOT_ALLOWED", advice);
            return Err(denied);
        }
        Ok(Caller {
            tenant,
            credential: key.name.clone(),
            traceparent: None,
        })
    }
}

impl Key {
    fn try_new(stanza: &KeyStanza) -> Result<Self, Invalid> {
        let refuse = |field: &str, rule: &str| {
            let field = format!("keys[{}].{field}", stanza.name);
            Err(Invalid::new(Reason::IdInvalid, field, rule))
        };
        let name = &stanza.name;
        let named = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(named) {
            return refuse("name", "must be 1 to 64 letters, digits, '_', '.' and '-'");
        }
        let hash = HEXLOWER_PERMISSIVE.decode(stanza.sha256.as_bytes()).ok();
        let Some(sha256) = hash.and_then(|hash| hash.try_into().ok()) else {
            return refuse(
                "sha256",
                "must be 64 hexadecimal digits; make one with fanfare key new",
            );
        };
        if stanza.all_tenants != stanza.tenants.is_empty() {
            return refuse("tenants", "give either tenants or all_tenants = true");
        }
        let tenants = stanza
            .tenants
            .iter()
            .map(TenantId::try_new)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name: name.as_str().into(),
            tenants: (!stanza.all_tenants).then_some(tenants),
            sha256,
        })
    }

    fn covers(&self, tenant: &TenantId) -> bool {
        self.tenants.as_ref().is_none_or(|own| own.contains(tenant))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}", self.name)
    }
}

/// The key's text in `authorization: Bearer …`.
fn bearer(authorization: Option<&str>) -> Result<&str, Refusal> {
    let parts = authorization.and_then(|text| text.split_once(' '));
    match parts {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => Ok(key.trim()),
        _ => Err(unauthenticated(
            "CREDENTIAL_MISSING",
            "send authorization: Bearer ffk_…; fanfare key new makes a key",
        )),
    }
}

fn find<'a>(keys: &'a [Key], text: &str) -> Result<&'a Key, Refusal> {
    if !is_well_formed(text) {
        let advice = "this is not a whole Fanfare key (ffk_ and 38 characters); copy it again";
        return Err(unauthenticated("CREDENTIAL_INVALID", advice));
    }
    let hash: [u8; 32] = Sha256::digest(text).into();
    // All keys are compared, each in constant time: how long it takes says nothing.
    let mut found = None;
    for key in keys {
        if bool::from(key.sha256.ct_eq(&hash)) {
            found = Some(key);
        }
    }
    found.ok_or_else(|| {
        let advice = "this server does not know this key; ask for another";
        unauthenticated("CREDENTIAL_INVALID", advice)
    })
}

fn unauthenticated(reason: &'static str, advice: &str) -> Refusal {
    Refusal::new(Code::Unauthenticated, reason, advice)
}

fn is_well_formed(text: &str) -> bool {
    text.strip_prefix(PREFIX)
        .filter(|rest| rest.is_ascii() && rest.len() == RANDOM_CHARS + CHECKSUM_CHARS)
        .is_some_and(|rest| checksum(&rest[..RANDOM_CHARS]) == rest[RANDOM_CHARS..])
}

/// 30 bits of SHA-256: tells a slip of the hand, proves nothing.
fn checksum(body: &str) -> String {
    let digest = Sha256::digest(body);
    let mut text = BASE32HEX_NOPAD.encode(&digest[..5]).to_ascii_lowercase();
    text.truncate(CHECKSUM_CHARS);
    text
}

/// The name under which everyone calls when there are no keys.
fn anonymous() -> Arc<str> {
    static NAME: std::sync::OnceLock<Arc<str>> = std::sync::OnceLock::new();
    NAME.get_or_init(|| "anonymous".into()).clone()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn ring() -> (String, KeyRing) {
        let mut rng = StdRng::seed_from_u64(7);
        let tenants = vec!["acme".to_owned(), "default".to_owned()];
        let (text, stanza) = new_key("billing", Some(tenants), &mut rng);
        let (_, other) = new_key("ops", None, &mut rng);
        (text, KeyRing::try_new(&[stanza, other]).unwrap())
    }

    fn refused(ring: &KeyRing, authorization: Option<&str>, tenant: &str) -> &'static str {
        ring.admit(authorization, tenant).unwrap_err().reason()
    }

    #[test]
    fn a_key_admits_to_the_tenants_it_covers() {
        let (text, ring) = ring();
        assert_eq!(text.len(), 42);
        let bearer = format!("Bearer {text}");
        let caller = ring.admit(Some(&bearer), "acme").unwrap();
        assert_eq!(caller.tenant.as_str(), "acme");
        assert_eq!(&*caller.credential, "billing");
        assert_eq!(refused(&ring, Some(&bearer), "other"), "TENANT_NOT_ALLOWED");
        assert_eq!(refused(&ring, Some(&bearer), "a/b"), "TENANT_INVALID");
    }

    #[test]
    fn a_slip_a_stranger_and_nothing_are_told_apart_from_a_key() {
        let (text, ring) = ring();
        assert_eq!(refused(&ring, None, "acme"), "CREDENTIAL_MISSING");
        assert_eq!(
            refused(&ring, Some("Basic eA=="), "acme"),
            "CREDENTIAL_MISSING"
        );
        let cut = format!("Bearer {}", &text[..text.len() - 1]);
        assert_eq!(refused(&ring, Some(&cut), "acme"), "CREDENTIAL_INVALID");
        let (stranger, _) = new_key("x", None, &mut StdRng::seed_from_u64(8));
        let stranger = format!("Bearer {stranger}");
        assert_eq!(
            refused(&ring, Some(&stranger), "acme"),
            "CREDENTIAL_INVALID"
        );
    }

    #[test]
    fn without_keys_everything_is_open() {
        let ring = KeyRing::try_new(&[]).unwrap();
        assert!(ring.is_open());
        let caller = ring.caller(&HeaderMap::new()).unwrap();
        assert_eq!(caller.tenant.as_str(), "default");
    }

    #[test]
    fn a_bad_stanza_is_refused_by_field() {
        let (_, good) = new_key("a", None, &mut StdRng::seed_from_u64(1));
        let bad = |change: fn(&mut KeyStanza)| {
            let mut stanza = good.clone();
            change(&mut stanza);
            KeyRing::try_new(&[stanza]).unwrap_err().field
        };
        assert_eq!(bad(|s| s.sha256 = "12".into()), "keys[a].sha256");
        assert_eq!(bad(|s| s.tenants = vec!["x".into()]), "keys[a].tenants");
        assert_eq!(bad(|s| s.all_tenants = false), "keys[a].tenants");
        assert_eq!(bad(|s| s.name = "a b".into()), "keys[a b].name");
        let twice = KeyRing::try_new(&[good.clone(), good]).unwrap_err();
        assert_eq!(twice.field, "keys.name");
    }
}
