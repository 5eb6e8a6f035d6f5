//! Pages: bounded answers to lists, newest first, with an opaque token for the next.

use fanfare_domain::{Invalid, Reason};

use crate::error::{StoreError, StoreErrorKind};

/// Most rows of one page.
pub const PAGE_MAX: usize = 1000;

/// A bounded part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows, newest first.
    pub rows: Vec<T>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<PageToken>,
}

/// Where a page starts: the backend's bytes, opaque to everyone else. The API binds it to the
/// filters it was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken(pub Vec<u8>);

impl<T> Page<T> {
    /// A page with nothing after it.
    pub fn last(rows: Vec<T>) -> Self {
        Self { rows, next: None }
    }

    /// The first `limit` (brought into `1..=PAGE_MAX`) of `rows`, each with the key that it is
    /// listed by; the last key is the token, unless nothing comes after it.
    pub fn cut<K: AsRef<[u8]>>(rows: impl IntoIterator<Item = (K, T)>, limit: usize) -> Self {
        let limit = limit.clamp(1, PAGE_MAX);
        let mut page = Self::last(Vec::new());
        let mut last = None;
        for (key, row) in rows {
            if page.rows.len() == limit {
                page.next = last.map(|key: K| PageToken(key.as_ref().to_vec()));
                return page;
            }
            page.rows.push(row);
            last = Some(key);
        }
        page
    }
}

impl PageToken {
    /// The key of `N` bytes that a page ended with; `BadToken` when it is none.
    pub fn key<const N: usize>(&self) -> Result<[u8; N], StoreError> {
        let bad = |_| StoreError::new(StoreErrorKind::BadToken);
        self.0.as_slice().try_into().map_err(bad)
    }

    /// The refusal of a token that this backend did not make.
    pub fn invalid() -> Invalid {
        Invalid::new(
            Reason::IdInvalid,
            "page_token",
            "is not one that this server gave out; start from the first page",
        )
    }
}
