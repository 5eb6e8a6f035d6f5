//! `make run`, which is `fanfare serve --demo`: what a person sees in the first five minutes.

use std::ops::ControlFlow;
use std::path::Path;

use fanfare_proto::v1::DeliveryState;
use fanfare_tests::server::Log;
use fanfare_tests::sink::{Script, Sink};
use fanfare_tests::world::{fanfare, said};
use fanfare_tests::{World, binary, eventually};
use tempfile::TempDir;
use tokio::process::{Child, Command};

#[tokio::test]
async fn the_demo_delivers_before_ones_eyes_and_survives_a_kill() {
    let dir = TempDir::new().expect("a temporary directory");
    let (mut first, log) = demo(dir.path());
    let text = shows(&log, "Now try to lose one").await;
    for sight in [
        "signature ok",
        "bytes identical",
        "recovered",
        "410",
        "lost 0   repeated 0",
    ] {
        assert!(text.contains(sight), "no {sight:?} in\n{text}");
    }
    let (commands, kill, again) = printed(&text);
    let [publish, listen, list] = &commands[..] else {
        panic!("three commands in\n{text}")
    };
    let published = said(&mut bash(publish, dir.path())).await;
    assert_eq!(
        published.ok().matches("delivered").count(),
        2,
        "{published:?}"
    );
    let listed = said(&mut bash(list, dir.path())).await;
    assert!(listed.ok().contains("dead_letter (gone)"), "{listed:?}");
    // Nobody listens where it says, or somebody else does.
    let laptop = Sink::start(Script::ok()).await;
    let listen = listen.replace("http://localhost:3000/hook", &laptop.url());
    let (listening, shown) = Log::of(&mut bash(&format!("exec {listen}"), dir.path()));
    laptop.receives(1).await;
    shows(&shown, "200 in").await;
    drop(listening);

    leave_something_under_way(list).await;
    said(&mut bash(kill, dir.path())).await.ok();
    first.wait().await.expect("it was killed");
    let (_second, log) = Log::of(&mut bash(&format!("exec {again}"), dir.path()));
    let text = shows(&log, "lost.").await;
    assert!(text.contains("The last run was killed with"), "{text}");
    assert!(!text.contains("killed with 0 deliveries"), "{text}");
    assert!(text.contains("nothing was lost."), "{text}");
}

/// The commands that the demo prints to try, and the two halves of the one that kills it and starts
/// it again.
fn printed(text: &str) -> (Vec<&str>, &str, &str) {
    let lines = text.lines().map(str::trim);
    let tried = lines
        .clone()
        .skip_while(|line| !line.contains("Try, in another terminal"));
    let tried = tried
        .skip(1)
        .take_while(|line| !line.starts_with("Now try to lose one:"));
    let lose = lines
        .clone()
        .find_map(|line| line.strip_prefix("Now try to lose one:  "));
    let (kill, again) = lose
        .and_then(|line| line.split_once(" && "))
        .expect("a command that kills");
    (tried.collect(), kill, again)
}

/// Pauses an endpoint until two events wait for it, so that the first was acknowledged to the demo;
/// the next run resumes it. `list` is a command that the demo printed: it names the server.
async fn leave_something_under_way(list: &str) {
    let server = list.rsplit(' ').next().expect("it ends with the server");
    let ask = async |arguments: &[&str]| {
        let json = ["-o", "json", "--server", server];
        fanfare(None, &[arguments, &json].concat()).await.json()
    };
    let endpoints = ask(&["endpoint", "list"]).await;
    let ledger = endpoints
        .iter()
        .find(|endpoint| endpoint["name"] == "ledger");
    let id = ledger
        .and_then(|ledger| ledger["id"].as_str())
        .expect("there is one");
    ask(&["endpoint", "pause", id]).await;
    eventually("two events to wait for the ledger", async || {
        let parked = ask(&["delivery", "list", "--endpoint", id, "--state", "parked"]).await;
        match parked.len() {
            0 | 1 => ControlFlow::Continue(format!("{parked:?}")),
            _ => ControlFlow::Break(()),
        }
    })
    .await;
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

/// A line that was printed, as it is typed into a terminal in `dir`.
fn bash(line: &str, dir: &Path) -> Command {
    let mut bash = Command::new("bash");
    bash.args(["-ec", line]).current_dir(dir);
    bash
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
