//! Follows the pages of a list until enough is there.

use std::future::Future;

use crate::args::ListArgs;
use crate::failure::Failure;

/// Most pages that are asked for: a page may be short, so pages are not rows.
const PAGES_MAX: usize = 100_000;

/// Collects rows page by page; `page` gets a token and answers rows and the next token.
pub async fn collect<T, F>(
    list: &ListArgs,
    mut page: impl FnMut(String) -> F,
) -> Result<Vec<T>, Failure>
where
    F: Future<Output = Result<(Vec<T>, String), Failure>>,
{
    let count_max = list.count_max();
    let mut rows = Vec::new();
    let mut token = String::new();
    for _ in 0..PAGES_MAX {
        let (more, next) = page(token).await?;
        rows.extend(more);
        if rows.len() >= count_max || next.is_empty() {
            break;
        }
        token = next;
    }
    rows.truncate(count_max);
    Ok(rows)
}
