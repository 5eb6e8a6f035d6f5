//! Reading the log's files: records of one lane in order, single records by position, and the way
//! on after damage.
//!
//! Only what is durable is read here, so whatever is not valid was damaged later. It is kept in
//! quarantine as it is, counted, and skipped.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fanfare_domain::Position;
use fanfare_event_log::Entry;

use crate::frame::{ALIGN, HEADER, Header, Kind, Lane};
use crate::segments::Segments;

/// Bytes read at once by a reader that is behind.
const CHUNK: usize = 256 << 10;
/// Bytes read at first for a single record: most fit.
const SINGLE: usize = 4 << 10;
/// Most bytes kept of one damaged stretch, and most files kept in all.
const QUARANTINE_MAX: (usize, u64) = (4 << 20, 1000);

/// A part of the log, read.
#[derive(Debug, Default)]
pub(crate) struct Stretch {
    /// The lane's records.
    pub(crate) entries: Vec<Entry>,
    /// Where to go on.
    pub(crate) next: u64,
}

/// Bytes that were found damaged.
pub(crate) struct Quarantine {
    dir: PathBuf,
    found: AtomicU64,
}

impl Quarantine {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            found: AtomicU64::new(0),
        }
    }

    /// Keeps damaged bytes as they are and raises an alarm.
    pub(crate) fn keep(&self, position: u64, bytes: &[u8]) {
        let found = self.found.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("{position:016x}.bin"));
        tracing::error!(
            position,
            bytes = bytes.len(),
            kept = %path.display(),
            "the log is damaged: bytes that were durable are not what was written"
        );
        if found < QUARANTINE_MAX.1 && !path.exists() {
            let kept = &bytes[..bytes.len().min(QUARANTINE_MAX.0)];
            if let Err(error) = std::fs::write(&path, kept) {
                tracing::error!(%error, "damaged bytes could not be kept");
            }
        }
    }
}

/// Reads about one chunk from `from` on, below `until`, which must be durable. Positions within a
/// frame count as the next one.
pub(crate) fn read_lane(
    segments: &Segments,
    quarantine: &Quarantine,
    lane: Lane,
    from: u64,
    until: u64,
) -> io::Result<Stretch> {
    let mut stretch = Stretch::default();
    let mut at = frame_start(segments, from)?;
    let mut wanted = CHUNK;
    let mut chunk = read(segments, at, wanted)?;
    let mut base = at;
    let start = at;
    while at < until && at.saturating_sub(start) < CHUNK as u64 {
        let rest = chunk.slice(usize::try_from(at - base).unwrap_or(0).min(chunk.len())..);
        let step = match step(&rest, at) {
            Step::Frame(header, payload) => {
                if header.matches(&payload) {
                    if header.kind == Kind::Record && header.lane == lane && at >= from {
                        stretch.entries.push(Entry {
                            position: Position(at),
                            bytes: payload,
                        });
                    }
                } else {
                    quarantine.keep(at, &rest[..header.frame_len().min(rest.len())]);
                }
                at += header.frame_len() as u64;
                continue;
            }
            Step::NextSegment => next_segment(segments, at).unwrap_or(until),
            Step::Short(len) if len > wanted || rest.len() < chunk.len() => {
                wanted = wanted.max(len);
                at
            }
            // No frame fits there, so the writer left it as it was.
            Step::Short(_) if is_leftover(segments, at) => {
                next_segment(segments, at).unwrap_or(until)
            }
            Step::Short(_) | Step::Damaged => skip_damage(segments, quarantine, at, until)?,
        };
        at = step;
        base = at;
        chunk = read(segments, at, wanted)?;
    }
    stretch.next = at.max(from);
    Ok(stretch)
}

/// The record at `position`; `None` if its segment is gone, or there is no sound record.
pub(crate) fn read_one(segments: &Segments, position: u64) -> io::Result<Option<Bytes>> {
    let mut bytes = read(segments, position, SINGLE)?;
    if let Step::Short(len) = step(&bytes, position) {
        bytes = read(segments, position, len)?;
    }
    Ok(match step(&bytes, position) {
        Step::Frame(header, payload) if header.kind == Kind::Record && header.matches(&payload) => {
            // A record that is kept must not pin what was read with it.
            Some(Bytes::copy_from_slice(&payload))
        }
        _ => None,
    })
}

/// The first valid header at or above `from`, below `until`, whatever lies between.
pub(crate) fn next_valid(
    segments: &Segments,
    from: u64,
    until: u64,
    valid: impl Fn(&Header) -> bool,
) -> io::Result<Option<(u64, Header)>> {
    let mut at = from.next_multiple_of(ALIGN as u64);
    while at < until {
        let bytes = read(segments, at, CHUNK)?;
        if bytes.len() < HEADER {
            match next_segment(segments, at) {
                Some(next) => at = next,
                None => return Ok(None),
            }
            continue;
        }
        let steps = (bytes.len() - HEADER) / ALIGN + 1;
        for step in 0..steps {
            let offset = step * ALIGN;
            let position = at + offset as u64;
            if let Some(header) = Header::decode(&bytes[offset..], position)
                && valid(&header)
                && position < until
            {
                return Ok(Some((position, header)));
            }
        }
        at += (steps * ALIGN) as u64;
    }
    Ok(None)
}

/// Reads up to `len` bytes at `position`, within one segment.
pub(crate) fn read(segments: &Segments, position: u64, len: usize) -> io::Result<Bytes> {
    let mut bytes = vec![0; len];
    let read = segments.read(position, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes.into())
}

/// Position of the first frame of the segment after the one that `position` lies in.
pub(crate) fn next_segment(segments: &Segments, position: u64) -> Option<u64> {
    let from = segments
        .find(position)
        .map_or(position, |segment| segment.header.end());
    segments.next_from(from).map(|next| next.header.first())
}

enum Step {
    Frame(Header, Bytes),
    /// This many bytes are needed to see the whole frame.
    Short(usize),
    NextSegment,
    Damaged,
}

fn step(bytes: &Bytes, position: u64) -> Step {
    if bytes.len() < HEADER {
        return if bytes.is_empty() {
            Step::NextSegment
        } else {
            Step::Short(HEADER)
        };
    }
    let Some(header) = Header::decode(bytes, position) else {
        return Step::Damaged;
    };
    if header.kind == Kind::End {
        return Step::NextSegment;
    }
    match bytes.get(HEADER..HEADER + header.length as usize) {
        Some(_) => {
            let payload = bytes.slice(HEADER..HEADER + header.length as usize);
            Step::Frame(header, payload)
        }
        None => Step::Short(header.frame_len()),
    }
}

/// Whether less is left of the segment at `position` than the smallest frame takes.
fn is_leftover(segments: &Segments, position: u64) -> bool {
    let segment = segments.find(position);
    segment.is_some_and(|segment| segment.header.end() - position < HEADER as u64)
}

/// Where the frame is that `from` lies in or before.
fn frame_start(segments: &Segments, from: u64) -> io::Result<u64> {
    let Some(segment) = segments.find(from) else {
        let next = segments.next_from(from);
        return Ok(next.map_or(from, |next| next.header.first()));
    };
    if from <= segment.header.first() {
        return Ok(segment.header.first());
    }
    let at = from & !(ALIGN as u64 - 1);
    let head = read(segments, at, HEADER)?;
    if at == from || Header::decode(&head, at).is_some() {
        return Ok(at);
    }
    Ok(from.next_multiple_of(ALIGN as u64))
}

fn skip_damage(
    segments: &Segments,
    quarantine: &Quarantine,
    at: u64,
    until: u64,
) -> io::Result<u64> {
    let sound = next_valid(segments, at + ALIGN as u64, until, |_| true)?;
    let next = sound.map_or(until, |(position, _)| position);
    let len = usize::try_from(next - at).unwrap_or(usize::MAX);
    quarantine.keep(at, &read(segments, at, len.min(QUARANTINE_MAX.0))?);
    Ok(next)
}
