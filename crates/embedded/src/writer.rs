//! The one thread that writes the log: takes the groups that are there, writes and syncs each,
//! then tells everyone who waits for them.
//!
//! While a group is synced the next one fills, so the slower the disk, the larger the groups.
//!
//! Invariants: groups are written in order, each only after the one before it is durable. After a
//! write or sync that failed nothing is written any more: what the disk holds is not known.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::engine::Engine;
use crate::frame::{Draft, Kind, Lane};
use crate::front::{Group, State};
use crate::segments::Target;

/// After this long without anything to write a seal says that the log is durable so far, so that
/// damage to its last group can be told from a torn write.
const SEAL_AFTER: Duration = Duration::from_millis(20);

/// What became durable and was not announced yet: who waits for it, and which streams it has
/// records of. Bounded by what may be unsynced.
#[derive(Default)]
pub(crate) struct Completed {
    waiters: Vec<oneshot::Sender<()>>,
    streams: [bool; 2],
}

/// The writer's state between groups.
pub(crate) struct Writer {
    engine: Arc<Engine>,
    group_delay: Duration,
    /// Written to, and not synced since.
    unsynced: Option<Target>,
    /// Nothing was written since the last seal.
    sealed: bool,
}

enum Work {
    Write(Vec<Group>),
    /// Someone needs what was written so far to be durable.
    Sync,
    Seal,
    Close,
    Stop,
}

impl Writer {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self {
            group_delay: engine.config.group_delay,
            engine,
            unsynced: None,
            sealed: true,
        }
    }

    /// Writes until the engine is closed or a write fails.
    pub(crate) fn run(mut self) {
        loop {
            let done = match self.next() {
                Work::Write(groups) => self.write(groups),
                Work::Sync => self.sync(),
                Work::Seal => self.seal(),
                Work::Close => {
                    if let Err(error) = self.seal().and_then(|()| self.sync()) {
                        self.engine.fail(&describe(&error));
                    }
                    return;
                }
                Work::Stop => return,
            };
            if let Err(error) = done {
                self.engine.fail(&describe(&error));
                return;
            }
        }
    }

    fn next(&mut self) -> Work {
        let mut front = self.engine.front.lock();
        loop {
            if front.state == State::Stopped {
                return Work::Stop;
            }
            if front.has_work() {
                break;
            }
            if self.engine.sync_wanted() {
                return Work::Sync;
            }
            if front.state == State::Closing {
                return Work::Close;
            }
            if self.sealed {
                self.engine.work.wait(&mut front);
            } else if self
                .engine
                .work
                .wait_for(&mut front, SEAL_AFTER)
                .timed_out()
            {
                return Work::Seal;
            }
        }
        if !self.group_delay.is_zero() {
            drop(front);
            std::thread::sleep(self.group_delay);
            front = self.engine.front.lock();
        }
        Work::Write(front.take())
    }

    fn write(&mut self, groups: Vec<Group>) -> io::Result<()> {
        self.sealed = false;
        for group in groups {
            self.sync_other(&group.target)?;
            let offset = group.start - group.target.header.base;
            group.target.file.write_at(&group.bytes, offset)?;
            group.target.file.sync()?;
            self.unsynced = None;
            self.publish(group);
        }
        Ok(())
    }

    /// A seal is written without a sync: it costs nothing, and the next sync covers it.
    fn seal(&mut self) -> io::Result<()> {
        let groups = {
            let mut front = self.engine.front.lock();
            let seal = Draft::new(Kind::Seal, Lane::NONE, bytes::Bytes::new());
            // Without room for it there is no seal; it is a help, not a need.
            if front.has_work() || front.fits([seal.len()].into_iter(), 0).is_err() {
                return Ok(());
            }
            front.place(&seal);
            front.take()
        };
        self.sealed = true;
        for group in groups {
            self.sync_other(&group.target)?;
            let offset = group.start - group.target.header.base;
            group.target.file.write_at(&group.bytes, offset)?;
            self.unsynced = Some(group.target.clone());
            self.engine.front.lock().give_back(group.bytes);
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let end = self.engine.front.lock().taken();
        if let Some(target) = self.unsynced.take() {
            target.file.sync()?;
        }
        self.engine.durable_reached(end);
        Ok(())
    }

    /// A seal in the segment before must be durable before anything in the next one is.
    fn sync_other(&mut self, target: &Target) -> io::Result<()> {
        match self.unsynced.take() {
            Some(other) if other.header.base != target.header.base => other.file.sync(),
            same => {
                self.unsynced = same;
                Ok(())
            }
        }
    }

    fn publish(&self, group: Group) {
        self.engine.durable_reached(group.end());
        self.engine.front.lock().give_back(group.bytes);
        let mut completed = self.engine.completed.lock();
        completed.waiters.extend(group.waiters);
        completed.streams[0] |= group.streams[0];
        completed.streams[1] |= group.streams[1];
        drop(completed);
        self.engine.completed_news.notify_one();
    }
}

/// Fires everyone who waits for a group from within the runtime, together: woken one by one from
/// the writer's thread, their replies would leave in as many writes. Ends with the engine.
pub(crate) async fn complete(engine: Arc<Engine>) {
    loop {
        engine.completed_news.notified().await;
        let running = engine.is_running();
        let completed = std::mem::take(&mut *engine.completed.lock());
        for waiter in completed.waiters {
            // Whoever gave up waiting does not need to know.
            let _ = waiter.send(());
        }
        engine.grown(completed.streams);
        if !running && !engine.is_writing() {
            return;
        }
    }
}

fn describe(error: &io::Error) -> String {
    format!(
        "the log could not be written ({error}); what the disk holds is not known, so nothing \
         more is written: check the disk, then start again"
    )
}
