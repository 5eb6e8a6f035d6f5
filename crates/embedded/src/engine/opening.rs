//! Opening a data directory: what lies there is read back, then the threads start.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::JoinHandle;

use fanfare_event_log::Stream;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, watch};

use super::{Engine, PROGRESS, Signal};
use crate::changes::{Derive, SpaceSpec};
use crate::directory::{Checkpoint, Directory};
use crate::disk::Disk;
use crate::flusher::{Compactor, Flusher};
use crate::frame::{Kind, SegmentHeader};
use crate::front::Front;
use crate::reading::Quarantine;
use crate::recovery::{self, Frame};
use crate::ring::Ring;
use crate::segments::Segments;
use crate::space::Keeper;
use crate::view::View;
use crate::writer::{self, Writer};
use crate::{EmbeddedConfig, OpenError};

impl Engine {
    /// Opens the directory with the given spaces, recovers, and starts the threads.
    pub(crate) async fn open(
        config: EmbeddedConfig,
        disk: impl Disk,
        spaces: &[SpaceSpec],
        derive: impl Derive,
    ) -> Result<Arc<Self>, OpenError> {
        let spaces = spaces.to_vec();
        let opening = tokio::task::spawn_blocking(move || {
            Self::recover(config, Arc::new(disk), &spaces, Box::new(derive))
        });
        let engine = opening
            .await
            .map_err(|panic| OpenError::io(Path::new("the data directory"), panic))??;
        engine.clone().start();
        Ok(engine)
    }

    fn recover(
        config: EmbeddedConfig,
        disk: Arc<dyn Disk>,
        spaces: &[SpaceSpec],
        derive: Box<dyn Derive>,
    ) -> Result<Arc<Self>, OpenError> {
        check(&config)?;
        let directory = Directory::open(&config.dir, config.spans)?;
        let checkpoint = Checkpoint {
            incarnation: directory.checkpoint()?.incarnation + 1,
            ..directory.checkpoint()?
        };
        directory.set_checkpoint(checkpoint)?;
        let log = directory.log();
        let (segments, spares) =
            Segments::load(disk.clone(), &log).map_err(|e| OpenError::io(&log, e))?;
        let specs: Vec<_> = [SpaceSpec::keyed(PROGRESS.0, "progress")]
            .into_iter()
            .chain(spaces.iter().copied())
            .collect();
        let position = checkpoint.position;
        let view = View::open(&directory.view(), &specs, position)
            .map_err(|e| OpenError::io(&directory.view(), e))?;
        let quarantine = Quarantine::new(directory.quarantine());
        let first = segments.list().first().map(SegmentHeader::first);
        let start = position.max(first.unwrap_or(0));
        let replay = |frame: Frame| replay(&view, &*derive, &frame);
        let incarnation = checkpoint.incarnation;
        let recovered = recovery::recover(&segments, &quarantine, start, incarnation, replay)
            .map_err(|e| OpenError::io(&log, e))?;
        if recovered.torn > 0 {
            let torn = recovered.torn;
            tracing::warn!(bytes = torn, "cut a group that a crash left half written");
        }
        recovery::make_durable(&segments, start, recovered.end)
            .map_err(|e| OpenError::io(&log, e))?;
        let front = front(&config, &segments, spares, incarnation, recovered.end)
            .map_err(|e| OpenError::io(&log, e))?;
        let end = front.position;
        let spans = directory.spans;
        let rings = (0..2 * spans).map(|_| Mutex::new(Ring::new(end, config.tail_bytes)));
        Ok(Arc::new(Self {
            front: Mutex::new(front),
            work: Condvar::new(),
            segments,
            quarantine,
            view,
            disk,
            directory: Mutex::new(Some(directory)),
            incarnation,
            spans,
            rings: rings.collect(),
            derive,
            durable: AtomicU64::new(end),
            wanted: AtomicU64::new(0),
            durable_lock: Mutex::new(()),
            durable_grown: Condvar::new(),
            persisted: AtomicU64::new(position),
            events_closed: AtomicBool::new(false),
            flush: Signal::default(),
            keep: Signal::default(),
            compact: Signal::default(),
            placed_news: [Notify::new(), Notify::new()],
            durable_news: [Notify::new(), Notify::new()],
            completed: Mutex::default(),
            completed_news: Notify::new(),
            room: Notify::new(),
            failure: watch::Sender::new(None),
            threads: Mutex::default(),
            config,
        }))
    }

    fn start(self: Arc<Self>) {
        tokio::spawn(writer::complete(self.clone()));
        let writer = Writer::new(self.clone());
        let flusher = Flusher::new(self.clone());
        let compactor = Compactor::new(self.clone());
        let keeper = Keeper::new(self.clone());
        let threads = [
            thread("fanfare-log", move || writer.run()),
            thread("fanfare-view", move || flusher.run()),
            thread("fanfare-compact", move || {
                give_way();
                compactor.run();
            }),
            thread("fanfare-room", move || keeper.run()),
        ];
        let mut running = self.threads.lock();
        for started in threads {
            match started {
                Ok(handle) => running.push(handle),
                Err(error) => self.fail(&format!("a thread could not be started ({error})")),
            }
        }
    }
}

/// Lets every other thread of the machine go first, by much and not for ever: what this thread does
/// nobody waits for, until there is so much of it that the flusher does.
fn give_way() {
    const NICE: i32 = 5;
    // On Linux a priority is a thread's own. Without it the work is done all the same.
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "merging runs at the priority of everything else");
    }
}

/// What a replayed frame means to the view.
fn replay(view: &View, derive: &dyn Derive, frame: &Frame) {
    match frame.kind {
        Kind::Record if frame.lane.stream() == Stream::Events => {
            let mut derived = Vec::new();
            derive.derive(frame.lane.span(), &frame.payload, &mut derived);
            for derived in derived {
                view.replay(frame.position, derived.at(frame.position));
            }
        }
        Kind::Changes => {
            let changes = crate::changes::decode(&frame.payload);
            if changes.is_none() {
                tracing::error!(frame.position, "changes of an unknown form were skipped");
            }
            for change in changes.into_iter().flatten() {
                view.replay(frame.position, change);
            }
        }
        Kind::Record | Kind::Seal | Kind::End => {}
    }
}

/// The front at `end`, in the segment that it lies in or the one that has to follow. Spares that
/// are not needed for that are given back: a crash may have left one half written.
fn front(
    config: &EmbeddedConfig,
    segments: &Segments,
    spares: Vec<PathBuf>,
    incarnation: u32,
    end: u64,
) -> std::io::Result<Front> {
    let capacity = config.segment_bytes;
    let (mut fitting, other): (Vec<_>, Vec<_>) = spares
        .into_iter()
        .partition(|spare| segments.spare_fits(spare, capacity));
    let here = if let Some(segment) = segments.find(end) {
        segments.target(&segment)?
    } else {
        let base = end;
        segments.prepare(SegmentHeader { base, capacity }, fitting.pop().as_deref())?
    };
    for spare in fitting.into_iter().chain(other) {
        segments.discard(&spare)?;
    }
    let mut ahead = VecDeque::new();
    let mut after = here.header.end();
    while let Some(next) = segments.find(after) {
        after = next.header.end();
        ahead.push_back(segments.target(&next)?);
    }
    let position = end.max(here.header.first());
    Ok(Front::new(incarnation, position, here, ahead))
}

fn check(config: &EmbeddedConfig) -> Result<(), OpenError> {
    let segment = config.segment_bytes;
    if !(1 << 16..=256 << 20).contains(&segment) || !segment.is_multiple_of(4096) {
        return Err(OpenError::invalid(
            "segment_bytes must be a multiple of 4 KiB from 64 KiB to 256 MiB",
        ));
    }
    if config.spans == 0 || !256u16.is_multiple_of(config.spans) {
        return Err(OpenError::invalid("spans must divide 256"));
    }
    if config.max_bytes < 4 * segment {
        return Err(OpenError::invalid("max_bytes must be at least 4 segments"));
    }
    Ok(())
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).spawn(run)
}
