//! Lists, newest first, over partitions of one hour: the calendar says which there are, the slices
//! of one hour are merged, and a page ends after a bounded amount of reading, full or not.

use fanfare_store::{PAGE_MAX, Page, PageToken, StoreError};

use crate::calendar::{Calendar, Kind, SLOTS_MAX};
use crate::session::each;

/// Partitions that one hour of one owner is spread over.
pub(crate) const BUCKETS: i64 = 16;
/// Rows looked at for one page.
const LOOKED_MAX: usize = 5 * PAGE_MAX;

/// The slot of a second and a bucket.
pub(crate) fn slot(second: i64, bucket: i64) -> i64 {
    second.div_euclid(3600) * BUCKETS + bucket.rem_euclid(BUCKETS)
}

/// What is listed.
pub(crate) struct Listing<'a> {
    pub(crate) calendar: &'a Calendar,
    pub(crate) kind: Kind,
    pub(crate) owner: String,
    /// Unix seconds, both included.
    pub(crate) seconds: (i64, i64),
}

impl Listing<'_> {
    /// The page after `after`. `read` gives rows of a slot with keys below one, falling, at most
    /// so many; `keep` decodes one, `None` when it is not wanted.
    pub(crate) async fn page<R, F>(
        &self,
        after: Option<&PageToken>,
        limit: usize,
        read: impl Fn(i64, Vec<u8>, i32) -> F,
        keep: impl Fn(&[u8], &[u8]) -> Result<Option<R>, StoreError>,
    ) -> Result<Page<R>, StoreError>
    where
        F: Future<Output = Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError>>,
    {
        let limit = limit.clamp(1, PAGE_MAX);
        // No key is as long, so none is above.
        let mut below = after.map_or_else(|| vec![0xff; 40], |token| token.0.clone());
        let (mut kept, mut looked) = (Vec::new(), 0);
        let first = slot(self.seconds.0, 0);
        let mut last = slot(self.seconds.1, BUCKETS - 1);
        loop {
            let slots = self
                .calendar
                .falling(self.kind, &self.owner, (first, last))
                .await?;
            let full = slots.len() == usize::try_from(SLOTS_MAX).unwrap_or(0);
            let mut hours: Vec<&[i64]> = slots
                .chunk_by(|a, b| a.div_euclid(BUCKETS) == b.div_euclid(BUCKETS))
                .collect();
            if full && hours.len() > 1 {
                // The last hour may be cut; it is read again, whole.
                hours.pop();
            }
            for hour in &hours {
                loop {
                    let want = limit + 1 - kept.len();
                    let count = i32::try_from(want).unwrap_or(i32::MAX);
                    let parts = each(hour.iter(), |slot| read(*slot, below.clone(), count)).await?;
                    let mut rows: Vec<_> = parts.into_iter().flatten().collect();
                    rows.sort_by(|a, b| b.0.cmp(&a.0));
                    rows.truncate(want);
                    let ended = rows.len() < want;
                    for (key, row) in rows {
                        looked += 1;
                        if let Some(row) = keep(&key, &row)? {
                            kept.push((key.clone(), row));
                        }
                        below = key;
                    }
                    if kept.len() > limit {
                        return Ok(Page::cut(kept, limit));
                    }
                    if looked >= LOOKED_MAX {
                        let mut page = Page::cut(kept, limit);
                        page.next = Some(PageToken(below));
                        return Ok(page);
                    }
                    if ended {
                        break;
                    }
                }
            }
            match hours.last().and_then(|hour| hour.last()) {
                Some(slot) if full => last = slot.div_euclid(BUCKETS) * BUCKETS - 1,
                _ => return Ok(Page::cut(kept, limit)),
            }
        }
    }
}
