//! A process leaves its group while another member takes long to give a span back. The rebalance waits for
//! that one, and what others ask the group's coordinator waits behind their part in the rebalance.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use fanfare_event_log::conformance::fixtures::{Member, available, eventually};
use fanfare_event_log::{EventLog, Granted, Phase};
use fanfare_event_log_kafka::{KafkaConfig, KafkaLog};
use tokio::time::{Instant, timeout};

use crate::world;

const THIS: &str = "faults::leaving::who_leaves_while_another_drains_has_left";
const ROLE: &str = "FANFARE_TEST_LEAVING";
const HOLDING: &str = "holding all";
const SPANS: u16 = 8;
const SESSION: Duration = Duration::from_secs(3);
/// Longer than an answer to a commit is waited for.
const DRAIN: Duration = Duration::from_secs(6);

/// One that was forgotten in the group would hold it up for a session: the others could commit nothing, and
/// their leases would run out.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_while_another_drains_has_left() {
    if let Ok(config) = env::var(ROLE) {
        return hold_and_leave(serde_json::from_str(&config).expect("a configuration")).await;
    }
    let config = KafkaConfig {
        event_partitions: SPANS,
        session_timeout_ms: 3_000,
        commit_timeout_ms: 1_000,
        ..world::config().await
    };
    // The first member leads the group.
    let mut leaver = start_leaver(&config);
    let mut second = Holder::join(&config).await;
    second.holds(4).await;
    let mut third = Holder::join(&config).await;
    second.keeps_what_is_wanted_back().await;
    second.commits_for(SESSION / 2).await;
    drop(leaver.stdin.take());
    second.commits_for(DRAIN).await;

    second.held.retain(|g| g.lease.phase() == Phase::Held);
    let kept: Vec<_> = second.held.iter().map(|g| g.lease.clone()).collect();
    let until = Instant::now() + 2 * SESSION + Duration::from_secs(1);
    while Instant::now() < until {
        tokio::join!(second.look(), third.look());
    }
    let lost = kept.iter().filter(|lease| lease.phase() == Phase::Lost);
    assert_eq!(lost.count(), 0, "leases ran out");
    assert_eq!(second.held.len() + third.held.len(), usize::from(SPANS));
    let ended = leaver.wait().expect("it ends");
    assert!(ended.success(), "{ended}");
}

fn start_leaver(config: &KafkaConfig) -> Child {
    let config = serde_json::to_string(config).expect("a configuration");
    let mut child = Command::new(env::current_exe().expect("this test"))
        .args(["--exact", THIS, "--nocapture"])
        .env(ROLE, config)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let said = BufReader::new(child.stdout.take().expect("its output")).lines();
    let mut said = said.map(|line| line.expect("a line"));
    assert!(said.any(|line| line == HOLDING), "it ended");
    child
}

/// Holds what it is granted until its input ends; then the process ends.
async fn hold_and_leave(config: KafkaConfig) {
    let mut holder = Holder::join(&config).await;
    holder.holds(SPANS.into()).await;
    println!("\n{HOLDING}");
    let told = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    while !told.is_finished() {
        holder.look().await;
    }
    holder.held.clear();
    holder.member.leave().await;
    holder.log.close().await;
    std::process::exit(0);
}

/// A member that lets go of what is wanted back.
pub(super) struct Holder {
    pub(super) config: KafkaConfig,
    pub(super) log: Arc<KafkaLog>,
    pub(super) member: Member,
    pub(super) held: Vec<Granted>,
}

impl Holder {
    pub(super) async fn join(config: &KafkaConfig) -> Self {
        let log = Arc::new(world::open(config).await);
        let seam: Arc<dyn EventLog> = log.clone();
        Self {
            config: config.clone(),
            log,
            member: Member::of_events(&seam).await,
            held: Vec::new(),
        }
    }

    pub(super) async fn look(&mut self) {
        self.take().await;
        self.held.retain(|g| g.lease.phase() == Phase::Held);
    }

    pub(super) async fn take(&mut self) {
        let next = timeout(Duration::from_millis(20), self.member.next());
        if let Ok(Some(granted)) = next.await {
            self.held.push(granted);
        }
    }

    pub(super) async fn holds(&mut self, count: usize) {
        let until = Instant::now() + Duration::from_secs(30);
        while self.held.len() != count {
            assert!(Instant::now() < until, "{} held", self.held.len());
            self.look().await;
        }
    }

    pub(super) async fn keeps_what_is_wanted_back(&mut self) {
        eventually("something is wanted back", || {
            let wanted = |g: &&Granted| g.lease.phase() == Phase::Revoking;
            let count = self.held.iter().filter(wanted).count();
            (count > 0).then_some(()).ok_or("nothing is".to_owned())
        })
        .await;
    }

    /// It commits, what it drains included.
    pub(super) async fn commits_for(&mut self, lasting: Duration) {
        let until = Instant::now() + lasting;
        while Instant::now() < until {
            for granted in &self.held {
                let progress = granted.progress.clone();
                available("commit", || self.log.commit(&granted.lease, &progress)).await;
            }
            self.take().await;
        }
    }
}
