//! `make run`, which is `fanfare serve --demo`: what a person sees in the first five minutes.

use std::ops::ControlFlow;
use std::path::Path;

use fanfare_tests::server::Log;
use fanfare_tests::world::said;
use fanfare_tests::{binary, eventually};
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
    assert!(text.contains("nothing was lost"), "{text}");
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
