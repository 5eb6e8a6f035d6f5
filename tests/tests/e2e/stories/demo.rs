//! `make run`, which is `fanfare serve --demo`: what a person sees in the first five minutes.

use std::ops::ControlFlow;
use std::path::Path;

use fanfare_proto::v1::DeliveryState;
use fanfare_tests::server::Log;
use fanfare_tests::world::said;
use fanfare_tests::{World, binary, eventually};
use tempfile::TempDir;
use tokio::process::{Child, Command};

#[tokio::test]
async fn the_demo_delivers_before_ones_eyes_and_survives_a_kill() {
    let dir = TempDir::new().expect("a temporary directory");
    let (mut first, log) = demo(dir.path());
    let text = shows(&log, "Still running").await;
    for sight in [
        "signature ok",
        "bytes identical",
        "recovered",
        "410",
        "lost 0   repeated 0",
    ] {
        assert!(text.contains(sight), "no {sight:?} in\n{text}");
    }
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| line.contains(" event publish "))
    {
        // Printed commands work as printed.
        let mut bash = Command::new("bash");
        said(bash.args(["-ec", line]).current_dir(dir.path()))
            .await
            .ok();
    }
    first.kill().await.expect("a child can be killed");

    let (_second, log) = demo(dir.path());
    let text = shows(&log, "lost.").await;
    assert!(text.contains("The last run was killed"), "{text}");
    assert!(says_nothing_was_lost(&text), "{text}");
}

/// The server goes on without the demo, and the demo's short retries are soon over.
#[tokio::test]
async fn the_demo_of_a_running_server_gets_what_was_given_up_without_it() {
    let world = World::start().await;
    let dir = TempDir::new().expect("a temporary directory");
    let (mut first, log) = demo_of(&world.url(), dir.path());
    shows(&log, "Still running").await;
    let before = given_up(&world).await;
    first.kill().await.expect("a child can be killed");
    eventually("something to be given up", async || {
        match given_up(&world).await {
            now if now > before => ControlFlow::Break(()),
            now => ControlFlow::Continue(format!("{now} dead letters")),
        }
    })
    .await;
    let (_second, log) = demo_of(&world.url(), dir.path());
    let text = shows(&log, "lost.").await;
    assert!(text.contains("redriven now"), "{text}");
    assert!(says_nothing_was_lost(&text), "{text}");
}

/// With deliveries under way at the kill the verdict is the end of a sentence, without any it
/// is one of its own.
fn says_nothing_was_lost(text: &str) -> bool {
    text.to_lowercase().contains("nothing was lost")
}

async fn given_up(world: &World) -> usize {
    let states = [DeliveryState::DeadLetter];
    let listed = world.api().every_delivery(&states).await;
    listed.expect("listed").len()
}

fn demo_of(server: &str, dir: &Path) -> (Child, Log) {
    let mut command = Command::new(binary::fanfare());
    Log::of(command.args(["demo", "--server", server]).current_dir(dir))
}

/// Starts the demo on free ports in `dir`.
fn demo(dir: &Path) -> (Child, Log) {
    let mut command = Command::new(binary::fanfare());
    let free = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    Log::of(
        command
            .args(["serve", "--demo"])
            .args(free)
            .current_dir(dir),
    )
}

async fn shows(log: &Log, word: &str) -> String {
    eventually(&format!("the demo to show {word:?}"), async || {
        let text = log.text();
        if text.contains(word) {
            ControlFlow::Break(text)
        } else {
            ControlFlow::Continue(text)
        }
    })
    .await
}
