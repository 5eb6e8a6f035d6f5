//! Where the next frame goes: the front of the log, under the engine's one lock.
//!
//! Placing is a pure matter of positions and buffers; no IO happens here. Frames are encoded into
//! the group that is open; the writer takes whole groups. A group ends where a segment ends.

use std::collections::VecDeque;

use bytes::Bytes;
use fanfare_event_log::{LogError, LogErrorKind};
use tokio::sync::oneshot;

use crate::frame::{Draft, HEADER, Kind, Lane, SEGMENT_HEADER, mark_last};
use crate::segments::Target;

/// The end of the log.
pub(crate) struct Front {
    pub(crate) incarnation: u32,
    /// Where the next frame goes.
    pub(crate) position: u64,
    here: Target,
    /// Prepared segments that follow.
    ahead: VecDeque<Target>,
    /// Groups that are complete and not handed to the writer yet.
    full: Vec<Group>,
    open: Group,
    /// Bytes of frames that are not known to be durable.
    pub(crate) unsynced: usize,
    pub(crate) state: State,
    /// No segment can be prepared for want of room: what does not fit is refused, not delayed.
    pub(crate) starved: bool,
    /// Buffers to use again.
    spare: Vec<Vec<u8>>,
}

/// Whether the log takes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It does.
    Running,
    /// What was taken is still written.
    Closing,
    /// Nothing is written any more.
    Stopped,
}

/// Frames that one write and one sync make durable.
pub(crate) struct Group {
    pub(crate) target: Target,
    pub(crate) start: u64,
    pub(crate) bytes: Vec<u8>,
    /// Offset in `bytes` of the last frame.
    last: usize,
    pub(crate) waiters: Vec<oneshot::Sender<()>>,
    /// Which streams have records up to here that nobody was told of.
    pub(crate) streams: [bool; 2],
}

/// Who may use the last of the room: what settles an accepted event goes before new events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Claim {
    /// New work: leaves two reserves.
    Events,
    /// What accepted events need: leaves one reserve.
    Deliveries,
    /// Settlements: may use everything.
    Changes,
}

impl Front {
    /// The front at `position` in `here`.
    pub(crate) fn new(
        incarnation: u32,
        position: u64,
        here: Target,
        ahead: VecDeque<Target>,
    ) -> Self {
        let open = Group::new(here.clone(), position, Vec::new());
        Self {
            incarnation,
            position,
            here,
            ahead,
            full: Vec::new(),
            open,
            unsynced: 0,
            state: State::Running,
            starved: false,
            spare: Vec::new(),
        }
    }

    /// Whether frames of these lengths can be placed, with `reserve` bytes to spare. Errors:
    /// `TooLarge` (never), `Unavailable` (soon), `Full` (when room returns), `Closed`.
    pub(crate) fn check(
        &self,
        lens: impl Iterator<Item = usize>,
        reserve: u64,
    ) -> Result<(), LogError> {
        match self.state {
            State::Running => self.fits(lens, reserve),
            State::Closing | State::Stopped => Err(LogError::new(LogErrorKind::Closed)),
        }
    }

    /// [`Front::check`], whoever asks and whatever the state.
    pub(crate) fn fits(
        &self,
        lens: impl Iterator<Item = usize>,
        reserve: u64,
    ) -> Result<(), LogError> {
        let usable = |target: &Target| target.header.capacity - SEGMENT_HEADER as u64;
        let mut left = self.here.header.end() - self.position;
        let mut rest: u64 = self.ahead.iter().map(usable).sum();
        let mut ahead = self.ahead.iter();
        for len in lens {
            let len = len as u64;
            if len > usable(&self.here) {
                return Err(LogError::new(LogErrorKind::TooLarge));
            }
            while left < len {
                let Some(next) = ahead.next() else {
                    return Err(self.no_room());
                };
                left = usable(next);
                rest -= left;
            }
            left -= len;
        }
        if left + rest < reserve {
            return Err(self.no_room());
        }
        Ok(())
    }

    /// Places a frame that [`Front::check`] found room for, and returns its position.
    pub(crate) fn place(&mut self, draft: &Draft) -> u64 {
        let len = draft.len() as u64;
        if self.here.header.end() - self.position < len {
            self.next_segment();
        }
        self.put(draft)
    }

    /// Whether there is anything to write.
    pub(crate) fn has_work(&self) -> bool {
        !self.full.is_empty() || !self.open.bytes.is_empty()
    }

    /// Someone to tell when everything placed so far is durable; which streams have more then.
    pub(crate) fn wait(&mut self, waiter: oneshot::Sender<()>, streams: [bool; 2]) {
        self.open.waiters.push(waiter);
        self.open.streams[0] |= streams[0];
        self.open.streams[1] |= streams[1];
    }

    /// Everything placed so far, in groups that are written one after the other.
    pub(crate) fn take(&mut self) -> Vec<Group> {
        if !self.open.bytes.is_empty() {
            self.close_group();
        }
        std::mem::take(&mut self.full)
    }

    /// Where what the writer has not taken yet starts.
    pub(crate) fn taken(&self) -> u64 {
        self.full.first().unwrap_or(&self.open).start
    }

    /// Takes back the buffer of a group that was written.
    pub(crate) fn give_back(&mut self, mut buffer: Vec<u8>) {
        self.unsynced -= buffer.len();
        // A buffer that one burst made large is not kept for ever.
        if self.spare.len() < 2 && buffer.capacity() <= 4 << 20 {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// A prepared segment that follows all others.
    pub(crate) fn extend(&mut self, target: Target) {
        self.ahead.push_back(target);
        self.starved = false;
    }

    /// How many prepared segments follow the current one, and where the last of them ends.
    pub(crate) fn prepared(&self) -> (usize, u64) {
        let last = self.ahead.back().unwrap_or(&self.here);
        (self.ahead.len(), last.header.end())
    }

    /// Base of the segment that is being written.
    pub(crate) fn base(&self) -> u64 {
        self.here.header.base
    }

    fn put(&mut self, draft: &Draft) -> u64 {
        let position = self.position;
        let group = u32::try_from(position - self.open.start).unwrap_or(u32::MAX);
        self.open.last = self.open.bytes.len();
        draft.encode(&mut self.open.bytes, position, self.incarnation, group);
        self.position += draft.len() as u64;
        self.unsynced += draft.len();
        position
    }

    fn next_segment(&mut self) {
        if self.here.header.end() - self.position >= HEADER as u64 {
            self.put(&Draft::new(Kind::End, Lane::NONE, Bytes::new()));
        }
        if let Some(next) = self.ahead.pop_front() {
            if !self.open.bytes.is_empty() {
                self.close_group();
            }
            self.position = next.header.first();
            self.here = next;
            let buffer = std::mem::take(&mut self.open.bytes);
            self.open = Group::new(self.here.clone(), self.position, buffer);
        }
    }

    fn close_group(&mut self) {
        let buffer = self.spare.pop().unwrap_or_default();
        let next = Group::new(self.here.clone(), self.position, buffer);
        let mut group = std::mem::replace(&mut self.open, next);
        let last = group.last;
        mark_last(&mut group.bytes[last..], group.start + last as u64);
        self.full.push(group);
    }

    fn no_room(&self) -> LogError {
        LogError::new(if self.starved {
            LogErrorKind::Full
        } else {
            LogErrorKind::Unavailable
        })
    }
}

impl Group {
    fn new(target: Target, start: u64, bytes: Vec<u8>) -> Self {
        Self {
            target,
            start,
            bytes,
            last: 0,
            waiters: Vec::new(),
            streams: [false; 2],
        }
    }

    /// Position after its last frame.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}
