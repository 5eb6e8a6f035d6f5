//! What is asked of the engine: records to append and changes of the view, in one order.
//!
//! ```text
//!   payload of a Changes frame: changes one after the other, lengths as varints
//!     1 space key-length key value-length value     put
//!     2 space key-length key                        delete
//!     3 space group-length group row-length row     pack: one more row of a group
//! ```

use bytes::Bytes;
use fanfare_event_log::Stream;

use crate::frame::{Draft, Kind, Lane};

/// A named part of the view. Numbers are stored: they never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Space(pub(crate) u8);

/// What a space holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Keys with one value each: [`Batch::put`], [`Batch::delete`].
    Keyed,
    /// Groups of rows that are only ever added to: [`Batch::pack`]. Rows of a group that come
    /// near each other in time are stored as one. No group is a prefix of another.
    Packed,
}

/// When a stored entry was written, from its key and value.
pub(crate) type WrittenMicros = fn(&[u8], &[u8]) -> Option<i64>;

/// Declares a space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpaceSpec {
    /// Its number: 1..=63. 0 is the engine's own.
    pub(crate) space: Space,
    /// Its directory's name.
    pub(crate) name: &'static str,
    /// What it holds.
    pub(crate) shape: Shape,
    /// Says when an entry of a keyed space, or a row group of a packed one, is no longer wanted,
    /// from its stored key and value: entries older than the retention vanish when they are next
    /// compacted.
    pub(crate) written_micros: Option<WrittenMicros>,
    /// Whether a delete may take back a put in memory; see [`SpaceSpec::fleeting`].
    pub(crate) fleeting: bool,
}

/// One change of the view. A key is 1..=60,000 bytes and not the single byte 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Sets a key.
    Put {
        space: Space,
        key: Bytes,
        value: Bytes,
    },
    /// Removes a key.
    Delete { space: Space, key: Bytes },
    /// Adds a row to a group.
    Pack {
        space: Space,
        group: Bytes,
        row: Bytes,
    },
}

/// A put that an appended record implies; see [`Derive`].
#[derive(Clone, Debug)]
pub(crate) struct Derived {
    pub(crate) space: Space,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) stamp: Stamp,
}

/// Where the record's position is appended, as 8 bytes big endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stamp {
    Key,
    Value,
}

/// What records of the events stream mean to the view. A pure function of the bytes, because it
/// is asked when the record is appended and again when the log is replayed. Called outside of any
/// lock.
pub(crate) trait Derive: Send + Sync + 'static {
    /// Adds the puts that `record` of the span implies.
    fn derive(&self, span: u16, record: &Bytes, out: &mut Vec<Derived>);
}

/// Nothing is derived.
impl Derive for () {
    fn derive(&self, _: u16, _: &Bytes, _: &mut Vec<Derived>) {}
}

/// Records and changes to submit together: their order is kept, and unless a segment ends between
/// them a crash keeps all or none.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) items: Vec<Item>,
}

#[derive(Debug)]
pub(crate) enum Item {
    Record { lane: Lane, bytes: Bytes },
    Changes(Vec<Change>),
}

/// An item that is ready to be placed: encoded and checksummed.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) draft: Draft,
    pub(crate) effect: Effect,
}

#[derive(Debug)]
pub(crate) enum Effect {
    Record { bytes: Bytes, derived: Vec<Derived> },
    Changes(Vec<Change>),
}

impl Batch {
    /// Appends a record to a span of a stream.
    pub(crate) fn append(&mut self, stream: Stream, span: u16, bytes: Bytes) {
        let lane = Lane::new(stream, span);
        self.items.push(Item::Record { lane, bytes });
    }

    /// Sets a key.
    pub(crate) fn put(&mut self, space: Space, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.change(Change::Put {
            space,
            key: key.into(),
            value: value.into(),
        });
    }

    /// Removes a key; removing what is not there is fine.
    pub(crate) fn delete(&mut self, space: Space, key: impl Into<Bytes>) {
        self.change(Change::Delete {
            space,
            key: key.into(),
        });
    }

    /// Adds a row to a group of a packed space.
    pub(crate) fn pack(&mut self, space: Space, group: impl Into<Bytes>, row: impl Into<Bytes>) {
        self.change(Change::Pack {
            space,
            group: group.into(),
            row: row.into(),
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn ready(self, derive: &dyn Derive) -> Vec<Ready> {
        let one = |item| match item {
            Item::Record { lane, bytes } => {
                let mut derived = Vec::new();
                if lane.stream() == Stream::Events {
                    derive.derive(lane.span(), &bytes, &mut derived);
                }
                Ready {
                    draft: Draft::new(Kind::Record, lane, bytes.clone()),
                    effect: Effect::Record { bytes, derived },
                }
            }
            Item::Changes(changes) => Ready {
                draft: Draft::new(Kind::Changes, Lane::NONE, encode(&changes)),
                effect: Effect::Changes(changes),
            },
        };
        self.items.into_iter().map(one).collect()
    }

    fn change(&mut self, change: Change) {
        if let Some(Item::Changes(changes)) = self.items.last_mut() {
            changes.push(change);
        } else {
            self.items.push(Item::Changes(vec![change]));
        }
    }
}

impl Derived {
    /// The change that it is for a record at `position`.
    pub(crate) fn at(mut self, position: u64) -> Change {
        let place = position.to_be_bytes();
        if self.stamp != Stamp::Value {
            self.key.extend_from_slice(&place);
        }
        if self.stamp != Stamp::Key {
            self.value.extend_from_slice(&place);
        }
        Change::Put {
            space: self.space,
            key: self.key.into(),
            value: self.value.into(),
        }
    }
}

/// The payload of a Changes frame.
pub(crate) fn encode(changes: &[Change]) -> Bytes {
    let mut out = Vec::with_capacity(changes.iter().map(Change::size).sum());
    for change in changes {
        match change {
            Change::Put { space, key, value } => {
                out.extend_from_slice(&[1, space.0]);
                put_bytes(&mut out, key);
                put_bytes(&mut out, value);
            }
            Change::Delete { space, key } => {
                out.extend_from_slice(&[2, space.0]);
                put_bytes(&mut out, key);
            }
            Change::Pack { space, group, row } => {
                out.extend_from_slice(&[3, space.0]);
                put_bytes(&mut out, group);
                put_bytes(&mut out, row);
            }
        }
    }
    out.into()
}

/// The inverse of [`encode`]; `None` for anything that it did not make.
pub(crate) fn decode(mut payload: &[u8]) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    while let [tag, space, rest @ ..] = payload {
        let space = Space(*space);
        payload = rest;
        let key = Bytes::copy_from_slice(take_bytes(&mut payload)?);
        changes.push(match tag {
            1 => Change::Put {
                space,
                key,
                value: Bytes::copy_from_slice(take_bytes(&mut payload)?),
            },
            2 => Change::Delete { space, key },
            3 => Change::Pack {
                space,
                group: key,
                row: Bytes::copy_from_slice(take_bytes(&mut payload)?),
            },
            _ => return None,
        });
    }
    payload.is_empty().then_some(changes)
}

impl Change {
    fn size(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len() + value.len() + 12,
            Self::Delete { key, .. } => key.len() + 7,
            Self::Pack { group, row, .. } => group.len() + row.len() + 12,
        }
    }
}

/// Appends `bytes` with their length before them.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length.to_le_bytes()[0] | 0x80);
        length >>= 7;
    }
    out.push(length.to_le_bytes()[0]);
    out.extend_from_slice(bytes);
}

/// Takes what [`put_bytes`] appended.
pub(crate) fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut length = 0usize;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let (taken, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            return Some(taken);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn change() -> impl Strategy<Value = Change> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
        (0..3u8, any::<u8>(), bytes(), bytes()).prop_map(|(tag, space, key, value)| {
            let space = Space(space);
            match tag {
                0 => Change::Put { space, key, value },
                1 => Change::Delete { space, key },
                _ => Change::Pack {
                    space,
                    group: key,
                    row: value,
                },
            }
        })
    }

    proptest! {
        #[test]
        fn changes_are_read_as_they_were_written(changes in proptest::collection::vec(change(), 0..20)) {
            prop_assert_eq!(decode(&encode(&changes)), Some(changes));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            decode(&bytes);
        }
    }

    #[test]
    fn neighbouring_changes_share_a_frame() {
        let mut batch = Batch::default();
        batch.put(Space(1), &b"a"[..], &b"1"[..]);
        batch.delete(Space(1), &b"b"[..]);
        batch.append(Stream::Events, 0, Bytes::from_static(b"e"));
        batch.put(Space(1), &b"c"[..], &b"3"[..]);
        assert_eq!(batch.items.len(), 3);
    }

    #[test]
    fn a_derived_put_carries_the_position() {
        let derived = |stamp| Derived {
            space: Space(2),
            key: b"k".to_vec(),
            value: b"v".to_vec(),
            stamp,
        };
        for (stamp, key, value) in [
            (Stamp::Key, &b"k\0\0\0\0\0\0\0\x05"[..], &b"v"[..]),
            (Stamp::Value, &b"k"[..], &b"v\0\0\0\0\0\0\0\x05"[..]),
        ] {
            let put = Change::Put {
                space: Space(2),
                key: Bytes::from_static(key),
                value: Bytes::from_static(value),
            };
            assert_eq!(derived(stamp).at(5), put);
        }
    }
}
