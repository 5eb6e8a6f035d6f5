//! From settlements in any order to a watermark.
//!
//! A record carries 1..=64 parts (the deliveries packed into it) that settle one by one, in any
//! order. A [`Tracker`] knows which are open; its [`Progress`] is what a commit records: the
//! *ceiling* (everything below it was read) and the *unsettled* records below it. The *watermark*
//! follows: the first unsettled position, or the ceiling.

use std::collections::BTreeMap;

use fanfare_domain::Position;

/// How far a span was consumed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Every record below it was read.
    pub ceiling: Position,
    /// What is not settled below the ceiling, by rising position.
    pub unsettled: Vec<Unsettled>,
}

/// A record that is not settled, and which of its parts are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// Which record.
    pub position: Position,
    /// Bit i is set while part i is open. Never 0.
    pub open: u64,
}

/// Most bytes that one unsettled record adds to [`Progress::encode`]: two varints.
pub(crate) const UNSETTLED_MAX_BYTES: usize = 20;

/// Tracks the open parts of the records of one span.
#[derive(Debug, Default)]
pub struct Tracker {
    ceiling: Position,
    open: BTreeMap<Position, u64>,
    /// What the last holder left unsettled and this one has not read yet.
    inherited: BTreeMap<Position, u64>,
    inherited_ceiling: Position,
}

impl Progress {
    /// Everything below it is settled.
    pub fn watermark(&self) -> Position {
        self.unsettled
            .first()
            .map_or(self.ceiling, |first| first.position)
    }

    /// Whether part `part` of the record at `position` was read and is settled.
    pub fn is_settled(&self, position: Position, part: u32) -> bool {
        let found = self
            .unsettled
            .binary_search_by_key(&position, |u| u.position);
        let open = found.map_or(0, |index| self.unsettled[index].open);
        position < self.ceiling && open & 1u64.checked_shl(part).unwrap_or(0) == 0
    }

    /// Bytes of [`Progress::encode`].
    pub fn encoded_len(&self) -> usize {
        encoded_len(self.ceiling, self.unsettled.iter().copied())
    }

    /// Compact form: varints of the ceiling, then per record the distance to the one before and
    /// the open bits.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + 4 * self.unsettled.len());
        put_varint(&mut out, self.ceiling.0);
        let mut last = 0;
        for record in &self.unsettled {
            put_varint(&mut out, record.position.0.wrapping_sub(last));
            put_varint(&mut out, record.open);
            last = record.position.0;
        }
        out
    }

    /// The inverse of [`Progress::encode`]; `None` for anything it did not make.
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let ceiling = Position(take_varint(&mut bytes)?);
        let mut unsettled: Vec<Unsettled> = Vec::new();
        let mut last = 0u64;
        while !bytes.is_empty() {
            let distance = take_varint(&mut bytes)?;
            let position = Position(last.checked_add(distance)?);
            let open = take_varint(&mut bytes)?;
            let rises = unsettled.is_empty() || distance > 0;
            if open == 0 || !rises || position >= ceiling {
                return None;
            }
            unsettled.push(Unsettled { position, open });
            last = position.0;
        }
        Some(Self { ceiling, unsettled })
    }
}

impl Tracker {
    /// Continues from what was committed.
    pub fn resume(progress: &Progress) -> Self {
        Self {
            ceiling: progress.watermark(),
            open: BTreeMap::new(),
            inherited: progress
                .unsettled
                .iter()
                .map(|u| (u.position, u.open))
                .collect(),
            inherited_ceiling: progress.ceiling,
        }
    }

    /// Takes note of the record at `position` with `parts` parts (1..=64) and returns the open
    /// ones as bits: all of a new record, fewer or none (0) of one that an earlier holder settled.
    ///
    /// Positions are taken in rising order; one at or below an earlier one was taken before and
    /// returns 0.
    pub fn take(&mut self, position: Position, parts: u32) -> u64 {
        if position < self.ceiling {
            return 0;
        }
        self.ceiling = Position(position.0 + 1);
        // Gaps count as settled: what was inherited below and never came is gone for good.
        while let Some(first) = self.inherited.first_entry()
            && *first.key() < position
        {
            first.remove();
        }
        let all = u64::MAX >> (64 - parts.clamp(1, 64));
        let open = if position < self.inherited_ceiling {
            self.inherited.remove(&position).unwrap_or(0) & all
        } else {
            all
        };
        if open != 0 {
            self.open.insert(position, open);
        }
        open
    }

    /// Part `part` of the record at `position` is settled. Idempotent; unknown records are ignored.
    pub fn settle(&mut self, position: Position, part: u32) {
        let Some(open) = self.open.get_mut(&position) else {
            return;
        };
        *open &= !(1u64.checked_shl(part).unwrap_or(0));
        if *open == 0 {
            self.open.remove(&position);
        }
    }

    /// What to commit now.
    pub fn progress(&self) -> Progress {
        Progress {
            ceiling: self.committed_ceiling(),
            unsettled: self.unsettled().collect(),
        }
    }

    /// Whether [`Tracker::progress`] encodes to at most `bytes`. Cheap while it is well below.
    pub fn fits(&self, bytes: usize) -> bool {
        let records = self.open.len() + self.inherited.len();
        VARINT_MAX_BYTES + records * UNSETTLED_MAX_BYTES <= bytes
            || encoded_len(self.committed_ceiling(), self.unsettled()) <= bytes
    }

    /// How many records are open.
    pub fn open_records(&self) -> usize {
        self.open.len()
    }

    fn committed_ceiling(&self) -> Position {
        self.ceiling.max(self.inherited_ceiling)
    }

    /// Everything open lies below everything inherited that was not read yet.
    fn unsettled(&self) -> impl Iterator<Item = Unsettled> {
        let all = self.open.iter().chain(&self.inherited);
        all.map(|(position, open)| Unsettled {
            position: *position,
            open: *open,
        })
    }
}

fn encoded_len(ceiling: Position, unsettled: impl Iterator<Item = Unsettled>) -> usize {
    let mut last = 0;
    let records = unsettled.map(|record| {
        let distance = record.position.0.wrapping_sub(last);
        last = record.position.0;
        varint_len(distance) + varint_len(record.open)
    });
    varint_len(ceiling.0) + records.sum::<usize>()
}

/// Bytes of a varint of all 64 bits.
const VARINT_MAX_BYTES: usize = 10;

fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        // Over 64 bits, or not the shortest form.
        if (shift == 63 && bits > 1) || (shift > 0 && *byte == 0) {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests;
