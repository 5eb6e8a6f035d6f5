//! The engine as a whole, on the real disk.

use std::ops::Bound;
use std::path::Path;

use bytes::Bytes;
use fanfare_event_log::{ReadLimit, Stream};

use crate::changes::{Batch, Space, SpaceSpec};
use crate::disk::RealDisk;
use crate::disk::faulty::FaultyDisk;
use crate::engine::Engine;
use crate::frame::Lane;
use crate::front::State;
use crate::view::Direction;
use crate::{Embedded, EmbeddedConfig, OpenErrorKind};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;

const SPACES: &[SpaceSpec] = &[SpaceSpec::keyed(1, "keys"), SpaceSpec::packed(2, "rows")];
const KEYS: Space = Space(1);
const ROWS: Space = Space(2);
const ALL: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Unbounded);

fn config(dir: &Path) -> EmbeddedConfig {
    EmbeddedConfig {
        dir: dir.to_owned(),
        segment_bytes: 64 << 10,
        free_bytes_min: 1 << 20,
        ..EmbeddedConfig::default()
    }
}

async fn open(dir: &Path) -> Arc<Engine> {
    Engine::open(config(dir), RealDisk, SPACES, ())
        .await
        .unwrap()
}

async fn append(engine: &Engine, records: impl IntoIterator<Item = Vec<u8>>) -> Vec<u64> {
    let mut batch = Batch::default();
    for record in records {
        batch.append(Stream::Events, 0, record.into());
    }
    let placed = engine.write(batch).await.unwrap();
    let positions = placed.durable().await.unwrap();
    positions.into_iter().map(|p| p.0).collect()
}

fn all_events(engine: &Engine) -> Vec<(u64, Bytes)> {
    let lane = Lane::new(Stream::Events, 0);
    let mut out = Vec::new();
    let mut from = 0;
    let floor = engine.recent_from(lane);
    while from < floor {
        let stretch = engine.older(lane, from, floor).unwrap();
        out.extend(stretch.entries.into_iter().map(|e| (e.position.0, e.bytes)));
        assert!(stretch.next > from);
        from = stretch.next;
    }
    let all = ReadLimit {
        records: usize::MAX,
        bytes: usize::MAX,
    };
    let recent = engine.recent(lane, from, u64::MAX, all).unwrap();
    out.extend(recent.into_iter().map(|e| (e.position.0, e.bytes)));
    out
}

#[tokio::test]
async fn what_was_appended_is_read_after_a_restart_and_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for round in 0..4u8 {
        let engine = open(dir.path()).await;
        for n in 0..50 {
            let record = vec![round * 50 + n; 700];
            let positions = append(&engine, [record.clone(), record.clone()]).await;
            expected.extend(positions.iter().map(|p| (*p, Bytes::from(record.clone()))));
        }
        assert_eq!(all_events(&engine), expected);
        engine.end(if round % 2 == 0 {
            State::Stopped
        } else {
            State::Closing
        });
    }
    let engine = open(dir.path()).await;
    assert_eq!(all_events(&engine), expected);
    let (position, bytes) = &expected[17];
    let read = engine
        .read_at(0, fanfare_domain::Position(*position))
        .unwrap();
    assert_eq!(read.as_ref(), Some(bytes));
    engine.end(State::Closing);
}

#[tokio::test]
async fn the_view_is_as_the_log_says_after_a_restart_and_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..4u32 {
        let engine = open(dir.path()).await;
        let mut batch = Batch::default();
        batch.put(KEYS, round.to_be_bytes().to_vec(), &b"here"[..]);
        batch.put(KEYS, &b"gone"[..], &b"x"[..]);
        batch.pack(ROWS, &b"group"[..], round.to_be_bytes().to_vec());
        engine.write(batch).await.unwrap();
        let mut batch = Batch::default();
        batch.delete(KEYS, &b"gone"[..]);
        engine.write(batch).await.unwrap().durable().await.unwrap();
        engine.end(if round % 2 == 0 {
            State::Stopped
        } else {
            State::Closing
        });
        let engine = open(dir.path()).await;
        assert_eq!(engine.get(KEYS, b"gone").unwrap(), None);
        let keys = engine.scan(KEYS, ALL, Direction::Forward, 100).unwrap();
        let keys: Vec<_> = keys.into_iter().map(|(key, _)| key).collect();
        let expected: Vec<_> = (0..=round)
            .map(|n| Bytes::copy_from_slice(&n.to_be_bytes()))
            .collect();
        assert_eq!(keys, expected);
        let chunks = engine.packed(ROWS, ALL, Direction::Forward, 100).unwrap();
        let rows: Vec<_> = chunks.into_iter().flat_map(|chunk| chunk.rows).collect();
        assert_eq!(rows, expected);
        engine.end(State::Stopped);
    }
}

#[tokio::test]
async fn what_a_restart_found_in_the_page_cache_alone_outlives_a_power_cut() {
    for seed in 0..16 {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::new(64 << 20);
        let open = || Engine::open(config(dir.path()), disk.clone(), SPACES, ());
        let engine = open().await.unwrap();
        let write = async || {
            let mut batch = Batch::default();
            batch.append(Stream::Events, 0, vec![7; 3000].into());
            engine.write(batch).await.unwrap().durable().await
        };
        write().await.unwrap();
        disk.fail_syncs();
        write().await.unwrap_err();
        engine.end(State::Stopped);
        drop(engine);
        disk.heal();

        let engine = open().await.unwrap();
        let seen = all_events(&engine);
        assert_eq!(seen.len(), 2, "seed {seed}: the page cache has both");
        engine.end(State::Stopped);
        drop(engine);

        disk.crash(&mut StdRng::seed_from_u64(seed));
        let engine = open().await.unwrap();
        assert!(all_events(&engine) == seen, "seed {seed}: one was lost");
        engine.end(State::Stopped);
    }
}

#[tokio::test]
async fn a_directory_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let first = Embedded::open(config(dir.path())).await.unwrap();
    let error = Embedded::open(config(dir.path())).await.err().unwrap();
    let pid = Some(std::process::id());
    assert_eq!(error.kind(), OpenErrorKind::InUse { pid });
    first.close().await;
    Embedded::open(config(dir.path()))
        .await
        .unwrap()
        .close()
        .await;
}

#[tokio::test]
async fn a_directory_of_a_newer_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("VERSION"), "fanfare-embedded 99\nspans 1\n").unwrap();
    let error = Embedded::open(config(dir.path())).await.err().unwrap();
    assert_eq!(error.kind(), OpenErrorKind::NewerVersion);
    assert!(error.to_string().contains("format 99"), "{error}");
}

#[tokio::test]
async fn what_a_crash_left_of_a_spare_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let reopened = async || {
        Embedded::open(config(dir.path()))
            .await
            .unwrap()
            .close()
            .await;
    };
    reopened().await;
    let log = dir.path().join("log");
    std::fs::write(log.join("spare-new"), [0; 4096]).unwrap();
    reopened().await;
    let names = std::fs::read_dir(&log).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    let is_spare = |name: &&std::ffi::OsString| name.to_string_lossy().starts_with("spare-");
    assert_eq!(names.iter().find(is_spare), None);
}
