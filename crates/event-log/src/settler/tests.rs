use std::sync::atomic::{AtomicUsize, Ordering};

use fanfare_domain::Shard;

use super::*;
use crate::conformance::fixtures::{eventually, within};
use crate::log::{Granted, Group, Outgoing, Reader, Stream, Visibility};
use crate::memory::{Call, Fault, MemoryConfig, MemoryLog};
use crate::progress::Unsettled;

/// Says when it is dropped.
struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

struct World {
    log: MemoryLog,
    settler: Arc<Settler<Permit>>,
    positions: Vec<Position>,
    dropped: Arc<AtomicUsize>,
    run: tokio::task::JoinHandle<Result<(), LogError>>,
    granted: Granted,
    reader: Box<dyn Reader>,
}

impl World {
    /// A settler of one span with `records` records, which it has taken with 2 parts each.
    async fn new(records: usize) -> Self {
        Self::with(records, MemoryConfig::default()).await
    }

    async fn with(records: usize, config: MemoryConfig) -> Self {
        let log = MemoryLog::new(MemoryConfig { spans: 1, ..config });
        let record = Outgoing {
            shard: Shard(0),
            subject: "order".into(),
            bytes: "r".into(),
        };
        let batch = vec![record; records];
        let positions = log.append(Stream::Events, batch).await.unwrap();
        let group = Group::new("router");
        let mut reader = log
            .join(Stream::Events, &group, Visibility::Durable)
            .await
            .unwrap();
        let granted = reader.next().await.unwrap();
        let settler = Arc::new(Settler::new(
            Arc::new(log.clone()),
            granted.lease.clone(),
            &granted.progress,
            Duration::from_millis(5),
        ));
        for position in &positions {
            assert_eq!(settler.take(*position, 2), 0b11);
        }
        let running = settler.clone();
        Self {
            log,
            settler,
            positions,
            dropped: Arc::default(),
            run: tokio::spawn(async move { running.run().await }),
            granted,
            reader,
        }
    }

    fn settle(&self, record: usize, part: u32) {
        let permit = Permit(self.dropped.clone());
        self.settler.settle(self.positions[record], part, permit);
    }

    fn committed(&self) -> Progress {
        self.log
            .progress(Stream::Events, &self.granted.lease.group, 0)
    }

    fn dropped(&self) -> usize {
        self.dropped.load(Ordering::SeqCst)
    }

    async fn drops(&self, count: usize) {
        eventually("permits are dropped", || {
            let dropped = self.dropped();
            let enough = dropped == count;
            enough.then_some(()).ok_or(format!("{dropped} of {count}"))
        })
        .await;
    }

    fn open(&self, record: usize, open: u64) -> Unsettled {
        Unsettled {
            position: self.positions[record],
            open,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_is_settled_is_committed() {
    let world = World::new(3).await;
    world.settle(2, 0);
    world.settle(2, 1);
    world.settle(0, 1);
    world.drops(3).await;
    let committed = world.committed();
    assert_eq!(
        committed.unsettled,
        [world.open(0, 0b01), world.open(1, 0b11)]
    );
    assert_eq!(committed.watermark(), world.positions[0]);
    world.settle(0, 0);
    world.drops(4).await;
    assert_eq!(world.committed().watermark(), world.positions[1]);
    assert_eq!(world.settler.open_records(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_held_until_the_commit_is_acknowledged() {
    let world = World::new(2).await;
    world.log.set_fault(Call::Commit, Some(Fault::Stall));
    world.settle(0, 0);
    tokio::time::sleep(Duration::from_mins(1)).await;
    world.settle(0, 1);
    assert_eq!(
        (world.dropped(), world.committed()),
        (0, Progress::default())
    );
    world.log.set_fault(Call::Commit, None);
    world.drops(2).await;
    assert_eq!(world.committed().unsettled, [world.open(1, 0b11)]);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_away_is_waited_for() {
    for kind in [
        LogErrorKind::Unavailable,
        LogErrorKind::Unknown,
        LogErrorKind::Full,
    ] {
        let world = World::new(1).await;
        world.log.set_fault(Call::Commit, Some(Fault::Refuse(kind)));
        world.settle(0, 0);
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(world.dropped(), 0, "{kind:?}");
        world.settle(0, 1);
        world.log.set_fault(Call::Commit, None);
        world.drops(2).await;
        assert_eq!(world.committed().unsettled, []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_ends_it() {
    let world = World::new(1).await;
    world.log.lose(&world.granted.lease);
    world.settle(0, 0);
    let ended = within("the settler to end", world.run).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), LogErrorKind::LeaseLost);
    within("room, as nothing more is read", world.settler.room()).await;
}

#[tokio::test(start_paused = true)]
async fn finishing_commits_the_rest_and_no_more() {
    let world = World::new(2).await;
    world.settle(1, 0);
    world.settler.finish();
    within("the settler to end", world.run)
        .await
        .unwrap()
        .unwrap();
    let group = &world.granted.lease.group;
    let committed = world.log.progress(Stream::Events, group, 0);
    assert_eq!(committed.unsettled.len(), 2);
    assert_eq!(committed.unsettled[1].open, 0b10);
    assert_eq!(world.dropped.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn finishing_with_nothing_settled_ends_at_once() {
    let world = World::new(1).await;
    world.settler.finish();
    within("the settler to end", world.run)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn finishing_waits_for_a_log_that_is_away() {
    let world = World::new(1).await;
    let refuse = Fault::Refuse(LogErrorKind::Unavailable);
    world.log.set_fault(Call::Commit, Some(refuse));
    world.settle(0, 0);
    world.settler.finish();
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(!world.run.is_finished());
    world.log.set_fault(Call::Commit, None);
    within("the settler to end", world.run)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(world.dropped.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_list_blocks_the_reader_until_enough_is_settled() {
    let config = MemoryConfig {
        progress_max_bytes: ROOM_MARGIN + 50,
        ..MemoryConfig::default()
    };
    let world = World::with(100, config).await;
    let settler = world.settler.clone();
    let mut room = tokio::spawn(async move { settler.room().await });
    let waited = tokio::time::timeout(Duration::from_mins(1), &mut room).await;
    assert!(waited.is_err(), "100 records of 2 bytes are over 50");
    for record in 10..100 {
        world.settle(record, 0);
        world.settle(record, 1);
    }
    within("room", room).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_revoked_reader_is_not_kept_waiting_for_room() {
    let config = MemoryConfig {
        progress_max_bytes: ROOM_MARGIN,
        ..MemoryConfig::default()
    };
    let mut world = World::with(100, config).await;
    let settler = world.settler.clone();
    let room = tokio::spawn(async move { settler.room().await });
    let leave = world.reader.leave();
    within("leaving, or room", async {
        tokio::select! {
            () = leave => {}
            room = room => room.unwrap(),
        }
    })
    .await;
    assert_eq!(world.granted.lease.phase(), Phase::Revoking);
}

/// A list that the last holder left nearly full is read again, whatever its size.
#[tokio::test(start_paused = true)]
async fn an_inherited_full_list_does_not_block_the_reader() {
    let world = World::new(0).await;
    let unsettled = (0..1000).map(|n| Unsettled {
        position: Position(n),
        open: u64::MAX,
    });
    let inherited = Progress {
        ceiling: Position(1000),
        unsettled: unsettled.collect(),
    };
    assert!(inherited.encoded_len() > world.log.progress_max_bytes());
    let log = Arc::new(world.log.clone());
    let lease = world.granted.lease.clone();
    let settler = Settler::<()>::new(log, lease, &inherited, Duration::ZERO);
    within("room", settler.room()).await;
    assert_eq!(settler.take(Position(0), 64), u64::MAX);
    let wait = tokio::time::timeout(Duration::from_mins(1), settler.room());
    assert!(wait.await.is_err(), "something is open now");
}

/// What does not fit is held until enough is settled for it to fit.
#[tokio::test(start_paused = true)]
async fn a_commit_that_is_too_large_waits_for_settlements() {
    let config = MemoryConfig {
        progress_max_bytes: 20,
        ..MemoryConfig::default()
    };
    let world = World::with(100, config).await;
    world.settle(0, 0);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(
        (world.dropped(), world.committed()),
        (0, Progress::default())
    );
    for record in 1..100 {
        world.settle(record, 0);
        world.settle(record, 1);
    }
    world.drops(199).await;
    assert_eq!(world.committed().unsettled, [world.open(0, 0b10)]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_is_too_large_to_the_end_is_an_error() {
    let config = MemoryConfig {
        progress_max_bytes: 20,
        ..MemoryConfig::default()
    };
    let world = World::with(100, config).await;
    world.settle(0, 0);
    world.settler.finish();
    let ended = within("the settler to end", world.run).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), LogErrorKind::ProgressTooLarge);
}

/// Settlements from many threads, each awaited to its commit: a lost wake-up would hang it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_wake_up_is_lost() {
    let world = World::new(400).await;
    let mut tasks = tokio::task::JoinSet::new();
    for positions in world.positions.chunks(100) {
        let (settler, positions) = (world.settler.clone(), positions.to_vec());
        tasks.spawn(async move {
            for position in positions {
                let dropped = Arc::new(AtomicUsize::new(0));
                settler.settle(position, 0, Permit(dropped.clone()));
                settler.settle(position, 1, Permit(dropped.clone()));
                eventually("the commit", || {
                    let permits = dropped.load(Ordering::SeqCst);
                    (permits == 2).then_some(()).ok_or(permits.to_string())
                })
                .await;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert_eq!(world.committed().unsettled, []);
}

#[tokio::test]
async fn a_part_is_committed_when_that_is_acknowledged() {
    let world = World::new(2).await;
    world.log.set_fault(Call::Commit, Some(Fault::Stall));
    world.settle(0, 1);
    let (settler, position) = (world.settler.clone(), world.positions[0]);
    let waiting = tokio::spawn(async move { settler.committed(position, 1).await });
    world.settle(1, 0);
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    world.log.set_fault(Call::Commit, None);
    within("the commit", waiting).await.unwrap();
    let committed = world.committed();
    assert!(committed.is_settled(position, 1) && !committed.is_settled(position, 0));
}

#[tokio::test]
async fn nobody_waits_for_a_commit_that_will_not_come() {
    let world = World::new(1).await;
    world.log.lose(&world.granted.lease);
    world.settle(0, 0);
    within("the end", world.settler.committed(world.positions[0], 0)).await;
}
