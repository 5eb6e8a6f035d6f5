//! The bytes of the log: frames, and how damage in them is told apart from their end.
//!
//! A segment is a file that covers a range of positions. A position is a byte of the log counted
//! from its creation; it is never used twice.
//!
//! ```text
//!  segment file                                    position of a frame = base + offset in the file
//!  ┌────────────────────┬───────┬───────┬────────┬─────┬──────────────────────────────┐
//!  │ segment header, 64 │ frame │ frame │ frame  │ End │ not written yet: zeros, or   │
//!  └────────────────────┴───────┴───────┴────────┴─────┤ frames of a recycled segment │
//!                        ◄── one group ──►◄─ next ...   └──────────────────────────────┘
//!
//!  frame, padded to 8 bytes                                            all numbers little endian
//!   0        4      5       6      8             12       16            20           24
//!  ┌────────┬──────┬───────┬──────┬─────────────┬────────┬─────────────┬────────────┬─────────┐
//!  │ length │ kind │ flags │ lane │ incarnation │ group  │ payload CRC │ header CRC │ payload │
//!  │ u32    │ u8   │ u8    │ u16  │ u32         │ u32    │ u32         │ u32        │ length  │
//!  └────────┴──────┴───────┴──────┴─────────────┴────────┴─────────────┴────────────┴─────────┘
//!   length       of the payload, without padding
//!   flags        1 = last frame of its group
//!   lane         of a record: stream and span; otherwise 0
//!   incarnation  how often the directory had been opened when this was written
//!   group        distance in bytes from the first frame of the group, which is what one write and
//!                one fdatasync made durable; a group never spans segments
//!   header CRC   CRC-32C of the frame's position (u64) and bytes 0..20
//! ```
//!
//! - The position is part of the header's checksum, so a stale frame of a recycled segment is
//!   never valid where it lies. Incarnations never fall along the log, so neither is what a crash
//!   left behind the end that recovery decided on.
//! - A group is written only after the one before it was synced. So a valid frame *proves* that
//!   every group before its own was durable: damage there is rot, to be quarantined and skipped.
//!   Damage in a group that nothing follows is a torn write, and the whole group is cut.

use bytes::Bytes;
use fanfare_event_log::Stream;

/// Bytes of a frame before its payload.
pub(crate) const HEADER: usize = 24;
/// Bytes of a segment before its first frame.
pub(crate) const SEGMENT_HEADER: usize = 64;
/// Frames start at multiples of it.
pub(crate) const ALIGN: usize = 8;

const SEGMENT_MAGIC: &[u8; 8] = b"FANFLOG1";
const LAST: u8 = 1;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A record of a stream.
    Record,
    /// Changes of the view; see [`crate::changes`].
    Changes,
    /// Nothing: says that everything before it is durable.
    Seal,
    /// Nothing: the log goes on in the next segment.
    End,
}

/// One sequence of records: a stream's span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Lane(u16);

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) length: u32,
    pub(crate) kind: Kind,
    pub(crate) last: Last,
    pub(crate) lane: Lane,
    pub(crate) incarnation: u32,
    pub(crate) group: u32,
    pub(crate) payload_crc: u32,
}

/// Whether a frame ends its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    Yes,
    No,
}

/// A frame to write: its payload's checksum is made outside of any lock.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) kind: Kind,
    pub(crate) lane: Lane,
    pub(crate) payload: Bytes,
    payload_crc: u32,
}

/// What is written at the start of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Position of the segment's first byte.
    pub(crate) base: u64,
    /// Bytes of the file.
    pub(crate) capacity: u64,
}

impl Lane {
    pub(crate) const NONE: Self = Self(0);
    const DELIVERIES: u16 = 1 << 15;

    pub(crate) fn new(stream: Stream, span: u16) -> Self {
        match stream {
            Stream::Events => Self(span),
            Stream::Deliveries => Self(span | Self::DELIVERIES),
        }
    }

    pub(crate) fn stream(self) -> Stream {
        if self.0 & Self::DELIVERIES == 0 {
            Stream::Events
        } else {
            Stream::Deliveries
        }
    }

    pub(crate) fn span(self) -> u16 {
        self.0 & !Self::DELIVERIES
    }
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Record => 1,
            Self::Changes => 2,
            Self::Seal => 3,
            Self::End => 4,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Record),
            2 => Some(Self::Changes),
            3 => Some(Self::Seal),
            4 => Some(Self::End),
            _ => None,
        }
    }
}

impl Draft {
    pub(crate) fn new(kind: Kind, lane: Lane, payload: Bytes) -> Self {
        let payload_crc = crc32c::crc32c(&payload);
        Self {
            kind,
            lane,
            payload,
            payload_crc,
        }
    }

    /// Bytes of the frame, padding included.
    pub(crate) fn len(&self) -> usize {
        padded(self.payload.len())
    }

    /// Appends the frame to a group's buffer. It is not the last of its group until
    /// [`mark_last`] says so.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, position: u64, incarnation: u32, group: u32) {
        let start = out.len();
        let header = Header {
            length: u32::try_from(self.payload.len()).unwrap_or(u32::MAX),
            kind: self.kind,
            last: Last::No,
            lane: self.lane,
            incarnation,
            group,
            payload_crc: self.payload_crc,
        };
        out.extend_from_slice(&header.encode(position));
        out.extend_from_slice(&self.payload);
        out.resize(start + self.len(), 0);
    }
}

impl Header {
    /// Bytes of the whole frame.
    pub(crate) fn frame_len(&self) -> usize {
        padded(self.length as usize)
    }

    /// Bytes from this frame's position to the next one's, which after an `End` is in the next
    /// segment.
    pub(crate) fn group_start(&self, position: u64) -> u64 {
        position.saturating_sub(u64::from(self.group))
    }

    /// The header that `bytes` start with, if it is one that was written for `position`.
    pub(crate) fn decode(bytes: &[u8], position: u64) -> Option<Self> {
        let head = bytes.get(..HEADER)?;
        let crc = u32_at(head, 20);
        if crc != checksum(head, position) {
            return None;
        }
        Some(Self {
            length: u32_at(head, 0),
            kind: Kind::from_number(head[4])?,
            last: if head[5] & LAST == 0 {
                Last::No
            } else {
                Last::Yes
            },
            lane: Lane(u16::from_le_bytes([head[6], head[7]])),
            incarnation: u32_at(head, 8),
            group: u32_at(head, 12),
            payload_crc: u32_at(head, 16),
        })
    }

    /// Whether `payload` is what was written.
    pub(crate) fn matches(&self, payload: &[u8]) -> bool {
        payload.len() == self.length as usize && crc32c::crc32c(payload) == self.payload_crc
    }

    fn encode(&self, position: u64) -> [u8; HEADER] {
        let mut head = [0; HEADER];
        head[0..4].copy_from_slice(&self.length.to_le_bytes());
        head[4] = self.kind.number();
        head[5] = match self.last {
            Last::Yes => LAST,
            Last::No => 0,
        };
        head[6..8].copy_from_slice(&self.lane.0.to_le_bytes());
        head[8..12].copy_from_slice(&self.incarnation.to_le_bytes());
        head[12..16].copy_from_slice(&self.group.to_le_bytes());
        head[16..20].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = checksum(&head, position);
        head[20..24].copy_from_slice(&crc.to_le_bytes());
        head
    }
}

/// Marks the frame that starts `frame` as the last of its group.
pub(crate) fn mark_last(frame: &mut [u8], position: u64) {
    frame[5] |= LAST;
    let crc = checksum(frame, position);
    frame[20..24].copy_from_slice(&crc.to_le_bytes());
}

/// Bytes of a frame with a payload of `payload` bytes.
pub(crate) fn padded(payload: usize) -> usize {
    (HEADER + payload).next_multiple_of(ALIGN)
}

impl SegmentHeader {
    /// Position after the segment's last byte.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.capacity
    }

    /// Position of its first frame.
    pub(crate) fn first(&self) -> u64 {
        self.base + SEGMENT_HEADER as u64
    }

    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut out = [0; SEGMENT_HEADER];
        out[0..8].copy_from_slice(SEGMENT_MAGIC);
        out[8..16].copy_from_slice(&self.base.to_le_bytes());
        out[16..24].copy_from_slice(&self.capacity.to_le_bytes());
        let crc = crc32c::crc32c(&out[..24]);
        out[24..28].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..SEGMENT_HEADER)?;
        let whole = head[..8] == *SEGMENT_MAGIC && u32_at(head, 24) == crc32c::crc32c(&head[..24]);
        whole.then(|| Self {
            base: u64_at(head, 8),
            capacity: u64_at(head, 16),
        })
    }
}

fn checksum(head: &[u8], position: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&position.to_le_bytes()), &head[..20])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(out)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(payload: &'static [u8], position: u64) -> Vec<u8> {
        let draft = Draft::new(
            Kind::Record,
            Lane::new(Stream::Deliveries, 3),
            Bytes::from_static(payload),
        );
        let mut out = Vec::new();
        draft.encode(&mut out, position, 7, 48);
        out
    }

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let mut frame = framed(b"hello", 1064);
        assert_eq!(frame.len(), 32, "24 + 5, padded to 8");
        mark_last(&mut frame, 1064);
        let header = Header::decode(&frame, 1064).unwrap();
        assert_eq!(header.kind, Kind::Record);
        assert_eq!(header.last, Last::Yes);
        assert_eq!(
            (header.lane.stream(), header.lane.span()),
            (Stream::Deliveries, 3)
        );
        assert_eq!((header.incarnation, header.group_start(1064)), (7, 1016));
        assert!(header.matches(&frame[HEADER..HEADER + 5]));
        assert!(!header.matches(b"jello"));
    }

    #[test]
    fn a_frame_is_valid_only_where_it_was_written() {
        let frame = framed(b"hello", 1064);
        assert!(Header::decode(&frame, 1064).is_some());
        assert!(Header::decode(&frame, 1072).is_none());
    }

    #[test]
    fn any_flipped_bit_of_a_header_is_found() {
        let frame = framed(b"hello", 1064);
        for bit in 0..HEADER * 8 {
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bad, 1064).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn zeros_are_no_frame() {
        assert!(Header::decode(&[0; HEADER], 0).is_none());
        assert!(Header::decode(&[0; HEADER], 64).is_none());
        assert!(SegmentHeader::decode(&[0; SEGMENT_HEADER]).is_none());
    }

    #[test]
    fn a_segment_says_what_it_covers() {
        let header = SegmentHeader {
            base: 8192,
            capacity: 4096,
        };
        assert_eq!(SegmentHeader::decode(&header.encode()), Some(header));
        assert_eq!((header.first(), header.end()), (8256, 12288));
    }
}
