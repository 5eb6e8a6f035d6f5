//! Pages of what is held in memory: newest first, by creation time and number.

use fanfare_domain::Timestamp;
use fanfare_store::{Page, PageToken};

use super::errors::Refusal;
use super::paging::Paging;

/// A row and what it is listed by.
pub(super) struct Listed<T> {
    key: [u8; 16],
    row: T,
}

impl<T> Listed<T> {
    /// Lists `row` by when it was created, then by its number.
    pub(super) fn new(created: Timestamp, number: u64, row: T) -> Self {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&created.key());
        key[8..].copy_from_slice(&number.to_be_bytes());
        Self { key, row }
    }
}

/// The page of `rows` that `paging` asks for, and the token of the next.
pub(super) fn newest_first<T>(
    paging: &Paging,
    mut rows: Vec<Listed<T>>,
) -> Result<(Vec<T>, String), Refusal> {
    if let Some(after) = &paging.after {
        let after: [u8; 16] = after.key()?;
        rows.retain(|row| row.key < after);
    }
    rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.key));
    let page = Page::cut(rows.into_iter().map(|row| (row.key, row.row)), paging.limit);
    let next: Option<PageToken> = page.next;
    Ok((page.rows, paging.token(next)))
}
