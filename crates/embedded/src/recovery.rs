//! Reading the log back after a stop or a crash.
//!
//! ```text
//!   checkpoint                                     end of the log
//!       ▼                                                ▼
//!   ────┬───────┬───────┬──▒▒───┬───────┬───────┬───▒▒▒──┊ zeros or stale frames
//!       │ group │ group │ group │ group │ group │ group  ┊
//!       └───────┴───────┴───────┴───────┴───────┴────────┊
//!                          └ rot: a later group proves    └ torn: nothing proves that this group
//!                            that it was durable; kept      was durable, so nobody was told that
//!                            in quarantine and skipped      it was; cut as a whole
//! ```
//!
//! What is guaranteed: every frame of every group that was durable is replayed, unless its own
//! bytes rotted; nothing of a group that was not completely written is. A group that was durable,
//! that nothing follows (not even the seal that is written when the log falls idle) *and* that
//! rotted cannot be told from a torn one: that takes a power cut within 20 ms of it and a bit flip.
//! Its bytes are kept in quarantine too.

use std::io;

use bytes::Bytes;

use crate::frame::{HEADER, Header, Kind, Lane, Last};
use crate::reading::{self, Quarantine};
use crate::segments::Segments;

/// Most bytes of one read.
const READ: usize = 4 << 20;

/// A frame that is replayed.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) position: u64,
    pub(crate) kind: Kind,
    pub(crate) lane: Lane,
    pub(crate) payload: Bytes,
}

/// How the log was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// Where the next frame goes.
    pub(crate) end: u64,
    /// Frames replayed.
    pub(crate) frames: u64,
    /// Bytes of a torn group that were cut.
    pub(crate) torn: u64,
}

/// Replays the log from `start` on, which is a frame's place or the end. `incarnation` is the
/// highest that may have written.
pub(crate) fn recover(
    segments: &Segments,
    quarantine: &Quarantine,
    start: u64,
    incarnation: u32,
    replay: impl FnMut(Frame),
) -> io::Result<Recovered> {
    let mut scan = Scan {
        segments,
        quarantine,
        replay,
        at: start,
        start,
        lowest: 0,
        highest: incarnation,
        held: None,
        window: Window::default(),
        done: Recovered::default(),
    };
    while scan.step()? {}
    Ok(scan.finish())
}

/// Makes the replayed bytes from `start` to `end` durable by writing them again: after a kill they
/// may lie in the page cache alone, and after a failed sync the kernel may call them clean, so that
/// a sync without a write does nothing. The writer syncs a segment before it writes to another, so
/// what is in doubt lies in the last segment with frames; `end` may be the next one's beginning.
pub(crate) fn make_durable(segments: &Segments, start: u64, end: u64) -> io::Result<()> {
    let headers = segments.list();
    let last = headers.iter().rev().filter(|header| header.base < end);
    for header in last.take(2) {
        let Some(segment) = segments.find(header.base) else {
            continue;
        };
        let file = segments.target(&segment)?.file;
        let mut at = start.max(header.first());
        let to = end.min(header.end());
        while at < to {
            let len = usize::try_from(to - at).unwrap_or(READ).min(READ);
            let bytes = reading::read(segments, at, len)?;
            // A file that was cut where it was only prepared: no frame lies there.
            if bytes.is_empty() {
                break;
            }
            file.write_at(&bytes, at - header.base)?;
            at += bytes.len() as u64;
        }
        file.sync()?;
    }
    Ok(())
}

struct Scan<'a, F> {
    segments: &'a Segments,
    quarantine: &'a Quarantine,
    replay: F,
    at: u64,
    /// Durable before the replay began: never cut, though it may lie within a group.
    start: u64,
    /// Incarnations never fall along the log.
    lowest: u32,
    highest: u32,
    held: Option<Held>,
    window: Window,
    done: Recovered,
}

/// The group that is being read: replayed once it is complete, or proven to have been durable.
struct Held {
    start: u64,
    frames: Vec<Frame>,
    damaged: Vec<(u64, u64)>,
}

/// Bytes of the log that were read last.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Bytes,
}

impl<F: FnMut(Frame)> Scan<'_, F> {
    /// One frame, or one stretch of damage. False at the end of the log.
    fn step(&mut self) -> io::Result<bool> {
        let head = self.bytes(HEADER)?;
        if head.len() < HEADER {
            return Ok(self.next_segment());
        }
        let header = Header::decode(&head, self.at).filter(|header| self.fits(header));
        let Some(header) = header else {
            return self.damage();
        };
        let frame = self.bytes(header.frame_len())?;
        if frame.len() < header.frame_len() {
            return self.damage();
        }
        self.frame(header, &frame);
        Ok(true)
    }

    fn frame(&mut self, header: Header, frame: &Bytes) {
        self.lowest = header.incarnation;
        let position = self.at;
        self.group(header.group_start(position));
        self.at += header.frame_len() as u64;
        let payload = frame.slice(HEADER..HEADER + header.length as usize);
        let Some(held) = &mut self.held else {
            return;
        };
        if header.matches(&payload) {
            held.frames.push(Frame {
                position,
                kind: header.kind,
                lane: header.lane,
                payload,
            });
        } else {
            held.damaged.push((position, self.at));
        }
        if header.kind == Kind::End && !self.next_segment() {
            let segment = self.segments.find(position);
            self.at = segment.map_or(self.at, |segment| segment.header.end());
        }
        let clean = self.held.as_ref().is_some_and(|h| h.damaged.is_empty());
        if header.last == Last::Yes && clean {
            self.release();
        }
    }

    /// A frame of the group that starts at `start` was found: another group that is held was
    /// durable.
    fn group(&mut self, start: u64) {
        if self.held.as_ref().is_some_and(|held| held.start != start) {
            self.release();
        }
        self.held.get_or_insert(Held {
            start,
            frames: Vec::new(),
            damaged: Vec::new(),
        });
    }

    /// What lies here is no frame: the end, unless a valid one follows.
    fn damage(&mut self) -> io::Result<bool> {
        let from = self.at + 8;
        let found = reading::next_valid(self.segments, from, u64::MAX, |h| self.fits(h))?;
        let Some((position, header)) = found else {
            return Ok(false);
        };
        let damaged = (self.at, position);
        let start = header.group_start(position);
        if start > self.at {
            // It belongs to a later group, so what lies here was durable.
            match &mut self.held {
                Some(held) => held.damaged.push(damaged),
                None => self.quarantine(damaged),
            }
            self.group(start);
            if start < position
                && let Some(held) = &mut self.held
            {
                // The beginning of that group is damaged too.
                held.damaged.push((start, start));
            }
        } else {
            self.group(start);
            if let Some(held) = &mut self.held {
                held.damaged.push(damaged);
            }
        }
        self.at = position;
        Ok(true)
    }

    fn release(&mut self) {
        let Some(held) = self.held.take() else {
            return;
        };
        for damaged in held.damaged {
            self.quarantine(damaged);
        }
        for frame in held.frames {
            self.done.frames += 1;
            (self.replay)(frame);
        }
    }

    fn quarantine(&self, (from, to): (u64, u64)) {
        if from == to {
            return;
        }
        let len = usize::try_from(to - from).unwrap_or(usize::MAX).min(READ);
        match reading::read(self.segments, from, len) {
            Ok(bytes) => self.quarantine.keep(from, &bytes),
            Err(error) => tracing::error!(from, %error, "damaged bytes cannot be read"),
        }
    }

    /// Goes on in the next segment; false if there is none.
    fn next_segment(&mut self) -> bool {
        match reading::next_segment(self.segments, self.at) {
            Some(first) => {
                self.at = first;
                true
            }
            None => false,
        }
    }

    fn fits(&self, header: &Header) -> bool {
        (self.lowest..=self.highest).contains(&header.incarnation)
    }

    /// Up to `len` bytes here.
    fn bytes(&mut self, len: usize) -> io::Result<Bytes> {
        let end = self.window.start + self.window.bytes.len() as u64;
        if self.at < self.window.start || self.at + len as u64 > end {
            self.window = Window {
                start: self.at,
                bytes: reading::read(self.segments, self.at, len.max(READ))?,
            };
        }
        let offset = usize::try_from(self.at - self.window.start).unwrap_or(0);
        let most = (offset + len).min(self.window.bytes.len());
        Ok(self.window.bytes.slice(offset..most))
    }

    fn finish(mut self) -> Recovered {
        self.done.end = self.at;
        if let Some(held) = self.held.take() {
            self.done.end = held.start.max(self.start);
            self.done.torn = self.at - self.done.end;
            if !held.damaged.is_empty() {
                self.quarantine((self.done.end, self.at));
            }
        }
        self.done
    }
}
