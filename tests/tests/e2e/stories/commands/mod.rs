//! Every command of the command line against a real server: what it does, what it prints for
//! people and for programs, and how it ends.

mod batches;
mod deliveries;
mod endpoints;
mod events;
mod lists;
mod subscriptions;

use std::fs::File;
use std::process::Stdio;

use fanfare_tests::World;
use fanfare_tests::world::{Said, fanfare, said};
use serde_json::Value;
use tokio::process::Command;

use crate::refusals::refused;

#[tokio::test]
async fn key_and_tenant_come_from_the_environment_and_a_flag_wins() {
    let new = "-o json key new billing --tenant acme --tenant globex";
    let new = &fanfare(None, &words(new)).await.json()[0];
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("fanfare.toml");
    std::fs::write(&config, text(&new["stanza"])).expect("a file");
    let world = World::with(|options| options.with(&["--config", config.to_str().unwrap()])).await;
    let key = text(&new["key"]);
    let with = async |tenant: &str, line: &str| {
        let mut command = command(&world, &format!("-o json {line}"));
        command.env("FANFARE_API_KEY", &key);
        said(command.env("FANFARE_TENANT", tenant)).await
    };
    let publish = "event publish order.paid --id e1 --data {}";
    let published = &with("acme", publish).await.json()[0];
    assert_eq!(published["source"], "/billing", "the key's name");
    with("acme", "event get e1").await.ok();
    let elsewhere = with("globex", "event get e1").await;
    assert_eq!(refused(&elsewhere).1["code"], "EVENT_NOT_FOUND");
    let flag = with("globex", "event get e1 --tenant acme").await;
    flag.ok();
    assert_eq!(with("umbrella", publish).await.code, 77);
    let mut without = command(&world, publish);
    assert_eq!(said(without.env("FANFARE_TENANT", "acme")).await.code, 77);
}

#[tokio::test]
async fn every_shell_has_its_completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let said = fanfare(None, &["completion", shell]).await;
        assert!(said.ok().contains("rotate-secret"), "{shell}: {said:?}");
    }
    let script = fanfare(None, &["completion", "bash"]).await;
    let mut bash = Command::new("bash");
    bash.args(["-ec", &format!("{}\ncomplete -p fanfare", script.ok())]);
    let said = said(&mut bash).await;
    assert!(said.ok().ends_with(" fanfare\n"), "{said:?}");
}

/// `fanfare …` as it is typed, without quotes.
fn command(world: &World, line: &str) -> Command {
    world.command(&words(line))
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// For people.
async fn run(world: &World, line: &str) -> Said {
    said(&mut command(world, line)).await
}

/// With `-o json`; it must end with 0: a value per line.
async fn json(world: &World, line: &str) -> Vec<Value> {
    run(world, &format!("-o json {line}")).await.json()
}

/// With `-o json`; it must fail: its exit code and the error's.
async fn refusal(world: &World, line: &str) -> (i32, String) {
    let (exit, error) = refused(&run(world, &format!("-o json {line}")).await);
    (exit, text(&error["code"]))
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// RFC 3339, in UTC.
fn is_time(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    text.starts_with("20") && text.ends_with('Z')
}

/// A file of the test's own; its path.
fn file(world: &World, name: &str, text: &str) -> String {
    let path = world.dir().join(name);
    std::fs::write(&path, text).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

/// A standard input.
fn input(world: &World, text: &str) -> Stdio {
    let file = File::open(file(world, "input", text));
    file.expect("a file").into()
}
