//! A server that is not there, or does not know the caller.

use std::net::TcpListener;

use fanfare_tests::World;
use fanfare_tests::world::fanfare;

use super::refused;

/// Commands that need a server.
const COMMANDS: &[&[&str]] = &[
    &[
        "event",
        "publish",
        "order.paid",
        "--data",
        "{}",
        "--id",
        "e1",
    ],
    &["event", "get", "e1"],
    &["endpoint", "list"],
    &["delivery", "list"],
    &["status"],
];

#[tokio::test]
async fn no_server_exits_69_and_names_where_it_looked() {
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", free.local_addr().expect("an address"));
    drop(free);
    for command in COMMANDS {
        let said = fanfare(Some(&url), &[&["-o", "json"], *command].concat()).await;
        let (exit, error) = refused(&said);
        assert_eq!(exit, 69, "{command:?}: {said:?}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(
            message.contains(&url) && message.contains("--server"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn no_admin_address_exits_69_and_names_where_it_looked() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", free.local_addr().expect("an address"));
    drop(free);
    let said = fanfare(None, &["-o", "json", "ready", &url]).await;
    let (exit, error) = refused(&said);
    assert_eq!(exit, 69, "{said:?}");
    assert!(
        error["message"].as_str().is_some_and(|m| m.contains(&url)),
        "{error}"
    );
    // The front door is no admin address.
    let world = World::start().await;
    let said = fanfare(None, &["ready", &world.url()]).await;
    assert_eq!(said.code, 69, "{said:?}");
}

#[tokio::test]
async fn a_wrong_command_line_exits_64() {
    for command in [
        &["event", "publsh"][..],
        &["event", "publish"],
        &["endpoint", "create"],
    ] {
        let said = fanfare(None, command).await;
        assert_eq!(said.code, 64, "{command:?}: {said:?}");
        assert!(!said.err.is_empty());
    }
    let said = fanfare(None, &["listen", "--forward-to", "https://localhost/hook"]).await;
    assert_eq!(said.code, 64, "{said:?}");
    assert!(said.err.contains("only plain http"), "{said:?}");
}

#[tokio::test]
async fn a_missing_or_wrong_key_exits_77() {
    let said = fanfare(None, &["key", "new", "billing", "--tenant", "acme"]).await;
    let text = format!("{}{}", said.ok(), said.err);
    let key = word(&text, "ffk_");
    let hash = text
        .split("sha256 = \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let stanza = format!(
        "[[keys]]\nname = \"billing\"\ntenants = [\"acme\"]\nsha256 = \"{}\"\n",
        hash.expect("it prints the stanza")
    );
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("fanfare.toml");
    std::fs::write(&config, stanza).expect("a file");
    let world = World::with(|options| options.with(&["--config", config.to_str().unwrap()])).await;

    let with_key = async |key: &str, arguments: &[&str]| {
        let file = dir.path().join("key");
        std::fs::write(&file, key).expect("a file");
        let file = file.to_str().expect("UTF-8").to_owned();
        world
            .fanfare(&[arguments, &["--api-key-file", &file]].concat())
            .await
    };
    let list = ["endpoint", "list", "--tenant", "acme"];
    with_key(&key, &list).await.ok();
    assert_eq!(world.fanfare(&list).await.code, 77);
    let mut wrong = key.clone();
    wrong.replace_range(4..6, if &key[4..6] == "00" { "11" } else { "00" });
    assert_eq!(with_key(&wrong, &list).await.code, 77);
    assert_eq!(
        with_key(&key, &["endpoint", "list", "--tenant", "umbrella"])
            .await
            .code,
        77
    );
}

/// The word that begins with `prefix`.
fn word(text: &str, prefix: &str) -> String {
    let rest = &text[text.find(prefix).expect("it is there")..];
    rest.chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect()
}
