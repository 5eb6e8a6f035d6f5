//! Where a span is read from when a lease is granted. Pure.

use fanfare_domain::Position;
use fanfare_event_log::Progress;

/// The records that there are: from the first to before the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Log start: the first record that retention has left.
    pub low: u64,
    /// Log end.
    pub high: u64,
}

/// Where to begin, and what went wrong before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// What to grant; reading begins at its watermark.
    pub progress: Progress,
    /// Records that were not settled and are gone. Not 0 is an alarm.
    pub lost: u64,
    /// What was recorded lies beyond the log's end: it is another log now.
    pub replaced: bool,
}

/// Decides.
///
/// `recorded` is what was committed; where that is missing, the shard's own checkpoint. With
/// neither the span is new and begins at its log start.
pub fn begin(recorded: Option<Progress>, extent: Extent) -> Start {
    let Some(progress) = recorded else {
        return Start {
            progress: from(extent.low),
            lost: 0,
            replaced: false,
        };
    };
    if progress.watermark().0 > extent.high {
        // To go on where the old log ended would pass over records of the new one.
        return Start {
            progress: from(extent.low),
            lost: 0,
            replaced: true,
        };
    }
    let lost = lost(&progress, extent.low);
    let low = Position(extent.low);
    Start {
        progress: Progress {
            ceiling: progress.ceiling.max(low),
            unsettled: progress
                .unsettled
                .into_iter()
                .filter(|u| u.position >= low)
                .collect(),
        },
        lost,
        replaced: false,
    }
}

fn from(low: u64) -> Progress {
    Progress {
        ceiling: Position(low),
        unsettled: Vec::new(),
    }
}

/// Unsettled records below the log start: those listed, and those never read.
fn lost(progress: &Progress, low: u64) -> u64 {
    let listed = progress.unsettled.iter().filter(|u| u.position.0 < low);
    let listed = u64::try_from(listed.count()).unwrap_or(u64::MAX);
    listed.saturating_add(low.saturating_sub(progress.ceiling.0))
}

#[cfg(test)]
mod tests {
    use fanfare_event_log::Unsettled;

    use super::*;

    fn progress(ceiling: u64, unsettled: &[u64]) -> Progress {
        Progress {
            ceiling: Position(ceiling),
            unsettled: unsettled
                .iter()
                .map(|at| Unsettled {
                    position: Position(*at),
                    open: 1,
                })
                .collect(),
        }
    }

    #[test]
    fn what_was_recorded_decides_and_what_is_gone_is_counted() {
        let extent = |low, high| Extent { low, high };
        let cases = [
            // recorded, extent, granted, lost, replaced
            (None, extent(0, 9), progress(0, &[]), 0, false),
            (None, extent(5, 9), progress(5, &[]), 0, false),
            (
                Some(progress(7, &[])),
                extent(5, 9),
                progress(7, &[]),
                0,
                false,
            ),
            (
                Some(progress(9, &[])),
                extent(5, 9),
                progress(9, &[]),
                0,
                false,
            ),
            (
                Some(progress(8, &[6])),
                extent(5, 9),
                progress(8, &[6]),
                0,
                false,
            ),
            (
                Some(progress(8, &[2, 6])),
                extent(5, 9),
                progress(8, &[6]),
                1,
                false,
            ),
            (
                Some(progress(3, &[])),
                extent(5, 9),
                progress(5, &[]),
                2,
                false,
            ),
            (
                Some(progress(3, &[1])),
                extent(5, 9),
                progress(5, &[]),
                3,
                false,
            ),
            (
                Some(progress(12, &[])),
                extent(0, 9),
                progress(0, &[]),
                0,
                true,
            ),
        ];
        for (recorded, extent, granted, lost, replaced) in cases {
            let wanted = Start {
                progress: granted,
                lost,
                replaced,
            };
            assert_eq!(begin(recorded.clone(), extent), wanted, "{recorded:?}");
        }
    }
}
