//! Standard Webhooks signatures: `v1`, HMAC-SHA256 over `id.timestamp.body`, raw bytes as sent.
//!
//! A [`Signer`] is keyed once per endpoint; signing clones the keyed state, which costs less than
//! hashing the key again. While a secret is rotated, the old ones sign too, until their overlap
//! has passed. The oracle of the tests is the official `standardwebhooks` crate.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fanfare_domain::{Endpoint, Secret, Timestamp};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The value of `webhook-signature` for some secrets.
#[derive(Clone)]
pub struct Signer {
    /// Each with the moment it stops signing; the current secret has none.
    keys: Vec<(Hmac<Sha256>, Option<Timestamp>)>,
}

/// Longest text of one signature: `v1,` and base64 of 32 bytes.
const SIGNATURE_LEN: usize = 3 + 44;

impl Signer {
    /// Signs with one secret, always.
    pub fn new(secret: &Secret) -> Self {
        Self {
            keys: vec![(keyed(secret), None)],
        }
    }

    /// Signs as an endpoint asks: its current secret, and old ones while their overlap lasts.
    pub fn of(endpoint: &Endpoint) -> Self {
        let mut signer = Self::new(&endpoint.secret);
        let old = endpoint.old_secrets.iter();
        signer
            .keys
            .extend(old.map(|(secret, until)| (keyed(secret), Some(*until))));
        signer
    }

    /// The header's value: one signature per secret that signs at `now`, newest first, separated
    /// by spaces. The signed timestamp is `now` in whole Unix seconds.
    pub fn sign(&self, id: &str, now: Timestamp, body: &[u8]) -> String {
        let seconds = now.seconds().to_string();
        let mut out = String::with_capacity(SIGNATURE_LEN);
        for (key, until) in &self.keys {
            if until.is_some_and(|until| until <= now) {
                continue;
            }
            let mut mac = key.clone();
            for part in [id.as_bytes(), b".", seconds.as_bytes(), b".", body] {
                mac.update(part);
            }
            if !out.is_empty() {
                out.push(' ');
            }
            out.push_str("v1,");
            STANDARD.encode_string(mac.finalize().into_bytes(), &mut out);
        }
        out
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({} keys)", self.keys.len())
    }
}

fn keyed(secret: &Secret) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret.key()).expect("HMAC takes keys of every length")
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use proptest::prelude::*;
    use serde_json::Value;
    use standardwebhooks::Webhook;

    use super::*;

    fn secret(key: &[u8]) -> Secret {
        Secret::parse(&format!("whsec_{}", STANDARD.encode(key))).unwrap()
    }

    #[test]
    fn published_vectors_come_out_byte_for_byte() {
        let text = include_str!("../../tests/cases/signature_vectors.json");
        let vectors: Vec<Value> = serde_json::from_str(text).unwrap();
        let ours = vectors
            .iter()
            .filter(|v| v["scheme"] == "standard-webhooks");
        let mut checked = 0;
        for vector in ours {
            let part = |name: &str| vector[name].as_str().unwrap();
            let signer = Signer::new(&Secret::parse(part("secret")).unwrap());
            let at = Timestamp::from_millis(vector["timestamp"].as_i64().unwrap() * 1000);
            let signature = signer.sign(part("id"), at, part("body").as_bytes());
            assert_eq!(signature, part("signature"));
            checked += 1;
        }
        assert_eq!(checked, 2);
    }

    proptest! {
        #[test]
        fn the_official_library_verifies_what_we_sign(
            key in proptest::collection::vec(any::<u8>(), 24..=64),
            old in proptest::collection::vec(any::<u8>(), 24..=64),
            id in "[a-z0-9_]{1,60}",
            body in ".{0,300}",
        ) {
            let now = Timestamp::now();
            let mut signer = Signer::new(&secret(&key));
            signer.keys.push((keyed(&secret(&old)), Some(now.plus(std::time::Duration::from_secs(9)))));
            let mut headers = HeaderMap::new();
            headers.insert("webhook-id", id.parse().unwrap());
            headers.insert("webhook-timestamp", now.seconds().to_string().parse().unwrap());
            headers.insert("webhook-signature", signer.sign(&id, now, body.as_bytes()).parse().unwrap());
            for secret in [key, old] {
                let oracle = Webhook::from_bytes(secret).unwrap();
                prop_assert!(oracle.verify(body.as_bytes(), &headers).is_ok());
                let tampered = format!("{body}x");
                prop_assert!(oracle.verify(tampered.as_bytes(), &headers).is_err());
            }
        }
    }

    #[test]
    fn an_old_secret_stops_signing_when_its_overlap_has_passed() {
        let until = Timestamp::from_millis(10_000);
        let mut signer = Signer::new(&secret(&[1; 32]));
        signer.keys.push((keyed(&secret(&[2; 32])), Some(until)));
        let before = signer.sign(
            "dlv_1",
            until.minus(std::time::Duration::from_millis(1)),
            b"{}",
        );
        assert_eq!(before.split(' ').count(), 2);
        assert_eq!(signer.sign("dlv_1", until, b"{}").split(' ').count(), 1);
    }
}
