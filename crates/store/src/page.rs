//! Pages: bounded answers to lists, newest first, with an opaque token for the next.

use fanfare_domain::{Invalid, Reason};

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
}

impl PageToken {
    /// The refusal of a token that this backend did not make.
    pub fn invalid() -> Invalid {
        Invalid::new(
            Reason::IdInvalid,
            "page_token",
            "is not one that this server gave out; start from the first page",
        )
    }
}
