//! SIGKILL at random points under load.

use std::time::Duration;

use fanfare_tests::ledger::number;
use fanfare_tests::server::Server;
use rand::Rng;

use super::{REPEATS_MAX, Siege};

/// Kills per run of the suite; `make torture` asks for more.
const KILLS: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_kills_under_load() {
    let asked = std::env::var("FANFARE_KILLS").ok();
    let kills = asked.map_or(KILLS, |text| number("FANFARE_KILLS", &text));
    let mut siege = Siege::begin(|options| options).await;
    let (mut killed, mut open) = (0, 0);
    while killed < kills {
        siege
            .trial
            .load()
            .advances(siege.rng.random_range(1..400))
            .await;
        // Not always in the wake of an answer.
        tokio::time::sleep(Duration::from_micros(siege.rng.random_range(0..5_000))).await;
        open += siege.trial.subscribers().open();
        siege.world.kill().await;
        killed += 1;
        while siege.rng.random_ratio(1, 5) && killed < kills {
            kill_while_it_recovers(&mut siege).await;
            killed += 1;
        }
        siege.restart().await;
    }
    let audit = siege.end().await;
    println!(
        "{killed} kills, {open} POSTs open at them, {} repeated",
        audit.dup
    );
    audit.assert_clean(killed * REPEATS_MAX);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_loop() {
    let mut siege = Siege::begin(|options| options).await;
    siege.trial.load().advances(200).await;
    for _ in 0..10 {
        // Killed as soon as it is ready, before it can have worked off what lies there.
        siege.world.kill().await;
        siege.restart().await;
    }
    siege.end().await.assert_clean(11 * REPEATS_MAX);
}

/// Starts it and kills it before it is ready, or just after.
async fn kill_while_it_recovers(siege: &mut Siege) {
    let starting = Server::spawn(siege.world.options());
    tokio::time::sleep(Duration::from_micros(siege.rng.random_range(0..300_000))).await;
    starting.kill().await;
}
