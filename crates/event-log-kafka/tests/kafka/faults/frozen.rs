//! A process that is frozen past its session and comes back.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fanfare_domain::Position;
use fanfare_event_log::conformance::fixtures::{
    Member, append, bytes_of, commit, read, record, texts,
};
use fanfare_event_log::{EventLog, Progress, Stream};
use fanfare_event_log_kafka::KafkaConfig;
use rustix::process::{Pid, Signal, kill_process};

use crate::world;

const THIS: &str = "faults::frozen::a_holder_that_was_frozen_commits_nothing_when_it_returns";
/// Shorter than the session, longer than a busy machine lets a thread wait.
const FROZEN_MIN: Duration = Duration::from_secs(2);
const ROLE: &str = "FANFARE_TEST_FROZEN";

/// Runs itself once more, as the process that holds the lease and is frozen.
#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_was_frozen_commits_nothing_when_it_returns() {
    if let Ok(config) = env::var(ROLE) {
        return hold(serde_json::from_str(&config).expect("a configuration")).await;
    }
    let config = KafkaConfig {
        event_partitions: 1,
        session_timeout_ms: 3_000,
        ..world::config().await
    };
    let log: Arc<dyn EventLog> = Arc::new(world::open(&config).await);
    let batch = vec![record(0, "a"), record(0, "b"), record(0, "c")];
    let positions = append(&*log, batch).await;
    let mut holder = Holder::start(&config);
    assert_eq!(holder.says(), "holding a b c");

    holder.signal(Signal::STOP);
    let mut member = Member::of_events(&log).await;
    let mut granted = member.next_of(&*log, Stream::Events, 0).await;
    let entries = read(&mut granted, 3).await;
    assert_eq!(texts(bytes_of(&entries)), ["a", "b", "c"]);
    let progress = |n: usize| Progress {
        ceiling: Position(positions[n].0 + 1),
        unsettled: Vec::new(),
    };
    commit(&*log, &granted, &progress(0)).await;

    // It wakes up in the middle of its work, before its client has heard anything.
    holder.signal(Signal::CONT);
    assert_eq!(holder.says(), "tenure over, commit refused: LeaseLost");
    commit(&*log, &granted, &progress(1)).await;
    drop(granted);
    member.leave().await;
    let mut next = Member::of_events(&log).await;
    let last = next.next_of(&*log, Stream::Events, 0).await;
    assert_eq!(last.progress, progress(1));
}

/// Holds a lease, and commits the moment it notices that time has passed without it.
async fn hold(config: KafkaConfig) {
    let log: Arc<dyn EventLog> = Arc::new(world::open(&config).await);
    let mut member = Member::of_events(&log).await;
    let mut granted = member.next_of(&*log, Stream::Events, 0).await;
    let entries = read(&mut granted, 3).await;
    // Before it is said that we hold: the freeze may come right after.
    let mut before = Instant::now();
    println!("\nholding {}", texts(bytes_of(&entries)).join(" "));
    let frozen = tokio::task::spawn_blocking(move || {
        // Only being frozen makes one short wait long.
        while before.elapsed() < FROZEN_MIN {
            before = Instant::now();
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    frozen.await.expect("not interrupted");
    let tenure = if granted.lease.tenure.is_current() {
        "good"
    } else {
        "over"
    };
    let progress = Progress {
        ceiling: Position(entries[2].position.0 + 1),
        unsettled: Vec::new(),
    };
    let answer = match log.commit(&granted.lease, &progress).await {
        Ok(()) => "taken".to_owned(),
        Err(error) => format!("refused: {:?}", error.kind()),
    };
    println!("\ntenure {tenure}, commit {answer}");
    std::io::stdout().flush().expect("written");
}

struct Holder {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Holder {
    fn start(config: &KafkaConfig) -> Self {
        let mut child = Command::new(env::current_exe().expect("this test"))
            .args(["--exact", THIS, "--nocapture"])
            .env(
                ROLE,
                serde_json::to_string(config).expect("a configuration"),
            )
            .stdout(Stdio::piped())
            .spawn()
            .expect("a holder");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, output }
    }

    /// The next line that is not the test runner's.
    fn says(&mut self) -> String {
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).expect("a line");
            assert!(read > 0, "the holder ended");
            if line.starts_with("holding") || line.starts_with("tenure") {
                return line.trim().to_owned();
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process"), signal).expect("signalled");
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
