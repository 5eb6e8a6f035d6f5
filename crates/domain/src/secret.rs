//! Signing secrets, kept from being printed.
//!
//! Standard Webhooks spells a symmetric secret `whsec_` + base64 of 24 to 64 bytes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::RngCore;
use zeroize::Zeroizing;

use crate::invalid::{Invalid, Reason};

/// A symmetric signing secret. `Debug` never shows it; [`Secret::reveal`] is the one way out.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// A new secret of 32 random bytes.
    pub fn generate(rng: &mut impl RngCore) -> Self {
        let mut bytes = Zeroizing::new(vec![0; 32]);
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// Parses `whsec_…`; the error does not repeat the text.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let bytes = text
            .trim()
            .strip_prefix("whsec_")
            .and_then(|b64| STANDARD.decode(b64).ok())
            .filter(|bytes| (24..=64).contains(&bytes.len()));
        bytes.map(|b| Self(Zeroizing::new(b))).ok_or_else(|| {
            let rule =
                "must be 'whsec_' and base64 of 24 to 64 bytes; leave it out to have one made";
            Invalid::new(Reason::SecretInvalid, "secret", rule)
        })
    }

    /// The key bytes, for signing.
    pub fn key(&self) -> &[u8] {
        &self.0
    }

    /// `whsec_…`, for the answer to Create and Rotate and for the store; nowhere else.
    pub fn reveal(&self) -> String {
        format!("whsec_{}", STANDARD.encode(&*self.0))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("whsec_(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_survives_its_text_and_does_not_print() {
        let secret = Secret::generate(&mut rand::rng());
        assert_eq!(Secret::parse(&secret.reveal()).unwrap(), secret);
        assert!(!format!("{secret:?}").contains(&secret.reveal()[6..]));
    }

    #[test]
    fn weak_and_broken_secrets_are_refused() {
        for bad in [
            "",
            "whsec_",
            "whsec_AAAA",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_!!!!",
        ] {
            assert!(Secret::parse(bad).is_err(), "{bad}");
        }
    }
}
