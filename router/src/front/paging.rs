//! Pages of the public lists: sizes, and tokens that are bound to the tenant and filters they
//! were made for.
//!
//! A token is base64url of 8 bytes of hash over tenant and filters, then the store's own token.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fanfare_domain::TenantId;
use fanfare_store::{PAGE_MAX, PageToken};
use sha2::{Digest, Sha256};

use super::errors::Refusal;

/// Rows of a page when none are asked for.
const SIZE_DEFAULT: usize = 50;
const BOUND_BYTES: usize = 8;

/// One request for a page.
#[derive(Debug)]
pub(crate) struct Paging {
    /// How many rows, 1..=[`PAGE_MAX`].
    pub(crate) limit: usize,
    /// Where it starts, in the store's own terms.
    pub(crate) after: Option<PageToken>,
    bound: [u8; BOUND_BYTES],
}

impl Paging {
    /// Reads what a list was asked for. `filters` is whatever decides which rows are listed: the
    /// encoded request without its size and token.
    pub(crate) fn try_new(
        tenant: &TenantId,
        filters: &[u8],
        page_size: i32,
        page_token: &str,
    ) -> Result<Self, Refusal> {
        let limit = match usize::try_from(page_size) {
            Ok(0) => SIZE_DEFAULT,
            Ok(size) if size <= PAGE_MAX => size,
            _ => {
                let rule = format!("must be 1 to {PAGE_MAX}, or 0 for {SIZE_DEFAULT}");
                return Err(Refusal::field("PAGE_SIZE_INVALID", "page_size", rule));
            }
        };
        let bound = bound_to(tenant, filters);
        let after = match page_token {
            "" => None,
            text => Some(unbind(text, bound)?),
        };
        Ok(Self {
            limit,
            after,
            bound,
        })
    }

    /// The token of the next page; empty at the end.
    pub(crate) fn token(&self, next: Option<PageToken>) -> String {
        next.map_or(String::new(), |PageToken(inner)| {
            URL_SAFE_NO_PAD.encode([&self.bound[..], &inner].concat())
        })
    }
}

fn bound_to(tenant: &TenantId, filters: &[u8]) -> [u8; BOUND_BYTES] {
    let mut hash = Sha256::new();
    hash.update(tenant.as_str());
    hash.update([0]);
    hash.update(filters);
    let mut bound = [0; BOUND_BYTES];
    bound.copy_from_slice(&hash.finalize()[..BOUND_BYTES]);
    bound
}

fn unbind(text: &str, bound: [u8; BOUND_BYTES]) -> Result<PageToken, Refusal> {
    let bytes = URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
    match bytes.split_first_chunk() {
        Some((made_for, inner)) if *made_for == bound => Ok(PageToken(inner.to_vec())),
        _ => {
            let advice = "was not made for this list; repeat it with the filters of the \
                          first page, or start from the first page";
            Err(Refusal::field("PAGE_TOKEN_INVALID", "page_token", advice))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_the_list_it_was_made_for_only() {
        let acme = TenantId::try_new("acme").unwrap();
        let page = Paging::try_new(&acme, b"f", 0, "").unwrap();
        assert_eq!((page.limit, page.after.is_none()), (50, true));
        let token = page.token(Some(PageToken(vec![1, 2, 3])));
        let next = Paging::try_new(&acme, b"f", 7, &token).unwrap();
        assert_eq!(next.after, Some(PageToken(vec![1, 2, 3])));
        let other = TenantId::try_new("other").unwrap();
        for refused in [
            Paging::try_new(&acme, b"g", 7, &token),
            Paging::try_new(&other, b"f", 7, &token),
            Paging::try_new(&acme, b"f", 7, "?"),
        ] {
            assert_eq!(refused.unwrap_err().reason(), "PAGE_TOKEN_INVALID");
        }
    }

    #[test]
    fn a_page_has_a_size() {
        let acme = TenantId::try_new("acme").unwrap();
        for size in [-1, 1001] {
            let refused = Paging::try_new(&acme, b"", size, "").unwrap_err();
            assert_eq!(refused.reason(), "PAGE_SIZE_INVALID");
        }
        assert_eq!(Paging::try_new(&acme, b"", 1000, "").unwrap().limit, 1000);
    }
}
