//! What a commit says: an offset and a string of metadata.
//!
//! ```text
//!   offset     the watermark
//!   metadata   "f1." + base64url( varint epoch, encoded progress )
//! ```
//!
//! The epoch is that of the lease that commits; the next grant takes a higher one. Metadata that is
//! empty was set by an operator's tool: the offset alone counts. Any other is from a newer version
//! or damaged: nobody guesses, the span is held.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fanfare_domain::Position;
use fanfare_event_log::Progress;

const PREFIX: &str = "f1.";
/// Longest varint of 64 bits.
const EPOCH_BYTES: usize = 10;

/// A committed place in a span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bookmark {
    /// Of the lease that committed; 0 when nobody of ours did.
    pub epoch: u64,
    /// How far the span was consumed.
    pub progress: Progress,
}

impl Bookmark {
    /// The offset to commit.
    pub fn offset(&self) -> u64 {
        self.progress.watermark().0
    }

    /// The metadata to commit.
    pub fn metadata(&self) -> String {
        let mut bytes = Vec::with_capacity(EPOCH_BYTES + self.progress.encoded_len());
        let mut epoch = self.epoch;
        while epoch >= 0x80 {
            bytes.push(epoch.to_le_bytes()[0] | 0x80);
            epoch >>= 7;
        }
        bytes.push(epoch.to_le_bytes()[0]);
        bytes.extend(self.progress.encode());
        let mut text = PREFIX.to_owned();
        URL_SAFE_NO_PAD.encode_string(bytes, &mut text);
        text
    }

    /// Reads a commit; `None` when the metadata is not ours to read.
    pub fn read(offset: u64, metadata: &str) -> Option<Self> {
        if metadata.is_empty() {
            let progress = Progress {
                ceiling: Position(offset),
                unsettled: Vec::new(),
            };
            return Some(Self { epoch: 0, progress });
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(metadata.strip_prefix(PREFIX)?)
            .ok()?;
        let end = bytes.iter().position(|byte| byte & 0x80 == 0)?;
        let (epoch, progress) = bytes.split_at(end + 1);
        if epoch.len() > EPOCH_BYTES {
            return None;
        }
        let epoch = epoch
            .iter()
            .rev()
            .fold(0u64, |sum, byte| sum << 7 | u64::from(byte & 0x7f));
        let bookmark = Self {
            epoch,
            progress: Progress::decode(progress)?,
        };
        // An offset that was moved without the metadata is an operator's, too.
        (bookmark.offset() == offset).then_some(bookmark)
    }

    /// Most bytes of encoded progress when the metadata may have `metadata_bytes`.
    pub fn progress_max_bytes(metadata_bytes: usize) -> usize {
        (metadata_bytes.saturating_sub(PREFIX.len()) / 4 * 3).saturating_sub(EPOCH_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use fanfare_event_log::Unsettled;

    use super::*;

    fn bookmark(epoch: u64, unsettled: u64) -> Bookmark {
        let unsettled = (0..unsettled).map(|n| Unsettled {
            position: Position(n * 3),
            open: u64::MAX,
        });
        let progress = Progress {
            ceiling: Position(1_000_000),
            unsettled: unsettled.collect(),
        };
        Bookmark { epoch, progress }
    }

    #[test]
    fn what_is_written_is_read() {
        for epoch in [0, 1, 127, 128, 1_700_000_000_000_000, u64::MAX] {
            for unsettled in [0, 1, 200] {
                let written = bookmark(epoch, unsettled);
                let read = Bookmark::read(written.offset(), &written.metadata());
                assert_eq!(read, Some(written));
            }
        }
    }

    #[test]
    fn a_full_list_fits_into_the_metadata() {
        for bytes in [100, 1024, 4096] {
            let max = Bookmark::progress_max_bytes(bytes);
            let mut full = bookmark(u64::MAX, 0);
            for more in 0.. {
                let next = bookmark(u64::MAX, more);
                if next.progress.encoded_len() > max {
                    break;
                }
                full = next;
            }
            assert!(full.metadata().len() <= bytes, "{bytes}");
        }
    }

    #[test]
    fn an_operators_offset_counts_alone() {
        let read = Bookmark::read(42, "").unwrap();
        assert_eq!((read.epoch, read.offset()), (0, 42));
    }

    #[test]
    fn what_is_not_ours_is_not_guessed_at() {
        let ours = bookmark(5, 1);
        let cases = [
            (ours.offset() + 1, ours.metadata()),
            (0, "f2.AAAA".to_owned()),
            (0, "f1.".to_owned()),
            (0, "f1.!".to_owned()),
            (0, "f1.gICAgICAgICAgIAA".to_owned()),
            (0, "hello".to_owned()),
        ];
        for (offset, metadata) in cases {
            assert_eq!(Bookmark::read(offset, &metadata), None, "{metadata}");
        }
    }
}
