//! Permits: how many attempts may be under way or uncommitted, and who may use how many.
//!
//! Lanes that fail use at most half of them, together with lanes of which nothing is known yet at
//! most three quarters: hanging endpoints cannot take everybody's, and a healthy one that is new
//! finds some even while all that fail hang. Within that, the less is left, the fewer one lane may
//! use at a time: with `n` lanes that take all they can, something is always left for the next.

use std::time::Duration;

use tokio::time::Instant;

/// Which permits a lane may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Its last attempt was delivered, not long ago if it is busy.
    Proven,
    /// Nothing is known of it.
    New,
    /// Its last attempt failed, or it has been busy for a while without a success.
    Failing,
}

impl Class {
    pub(super) const ALL: [Self; 3] = [Self::Proven, Self::New, Self::Failing];

    pub(super) fn index(self) -> usize {
        match self {
            Self::Proven => 0,
            Self::New => 1,
            Self::Failing => 2,
        }
    }
}

/// The permits of a worker.
#[derive(Debug)]
pub(super) struct Permits {
    total: usize,
    /// Most that one lane uses while all are free.
    lane_max: usize,
    held: [usize; 3],
    /// When one was last taken or given back.
    moved: [Option<Instant>; 3],
}

impl Permits {
    pub(super) fn new(total: usize, lane_max: usize) -> Self {
        Self {
            total,
            lane_max,
            held: [0; 3],
            moved: [None; 3],
        }
    }

    /// Permits in use.
    pub(super) fn in_use(&self) -> usize {
        self.held.iter().sum()
    }

    /// Permits of `class` in use.
    pub(super) fn held(&self, class: Class) -> usize {
        self.held[class.index()]
    }

    /// Permits that a lane of `class` could take now.
    pub(super) fn left(&self, class: Class) -> usize {
        let [_, new, failing] = self.held;
        let free = self.total - self.in_use();
        let unproven = self.pool(Class::New).saturating_sub(new + failing);
        let failed = self.pool(Class::Failing).saturating_sub(failing);
        match class {
            Class::Proven => free,
            Class::New => free.min(unproven),
            Class::Failing => free.min(unproven).min(failed),
        }
    }

    /// Most permits that lanes of `class`, and of those below it, use together. At least one.
    fn pool(&self, class: Class) -> usize {
        let pool = match class {
            Class::Proven => self.total,
            Class::New => self.total * 3 / 4,
            Class::Failing => self.total / 2,
        };
        pool.max(1)
    }

    /// Most attempts that one lane of `class` may have under way now: as the part of its pool that
    /// is left.
    pub(super) fn share(&self, class: Class) -> usize {
        let share = (self.left(class) * self.lane_max).div_ceil(self.pool(class));
        share.clamp(1, self.lane_max)
    }

    /// Whether one of `class` was taken or given back within the last `patience`.
    pub(super) fn is_flowing(&self, class: Class, patience: Duration, now: Instant) -> bool {
        let moved = self.moved[class.index()];
        moved.is_some_and(|moved| now.saturating_duration_since(moved) < patience)
    }

    pub(super) fn take(&mut self, class: Class, now: Instant) {
        self.held[class.index()] += 1;
        self.moved[class.index()] = Some(now);
    }

    pub(super) fn give_back(&mut self, class: Class, now: Instant) {
        self.held[class.index()] -= 1;
        self.moved[class.index()] = Some(now);
    }
}
