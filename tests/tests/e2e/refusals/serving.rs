//! Servers that must not start, and what they say.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use fanfare_tests::World;
use fanfare_tests::server::{Exit, Options, Server};
use fanfare_tests::world::fanfare;
use tempfile::TempDir;

/// A configuration, and what the refusal must name.
const CONFIGURATIONS: &[(&str, &str)] = &[
    ("[server]\nlisten = 7400\n", "listen"),
    ("[server]\nlisten = \"nowhere\"\n", "listen"),
    ("[server]\nlisten_on = \"127.0.0.1:0\"\n", "listen_on"), // no such key
    ("[sever]\nlisten = \"127.0.0.1:0\"\n", "sever"),         // no such section
    ("[storage]\nretention = \"1 fortnight\"\n", "retention"),
    ("[storage]\nretention = \"1h\"\n", "retention"), // shorter than the retries may last
    ("[storage]\nmax_bytes = \"lots\"\n", "max_bytes"),
    (
        "[egress]\nallow_egress = [\"10.0.0.0/40\"]\n",
        "allow_egress",
    ),
    ("[server\n", "config.toml"), // no TOML
];

#[tokio::test]
async fn a_bad_configuration_exits_64_and_names_the_setting() {
    let dir = TempDir::new().expect("a temporary directory");
    let file = dir.path().join("config.toml");
    let path = file.to_str().expect("UTF-8");
    for (text, name) in CONFIGURATIONS {
        fs::write(&file, text).expect("a file");
        let options = Options::dev(&dir.path().join("data")).with(&["--config", path]);
        let exit = refuses(&options).await;
        assert_eq!(exit.code, Some(64), "{text}: {}", exit.log);
        assert!(exit.log.contains(name), "{text}: {}", exit.log);
        let said = fanfare(None, &["config", "check", "--config", path]).await;
        assert_eq!(said.code, 64, "{text}: {said:?}");
        assert!(said.err.contains(name), "{text}: {said:?}");
        assert!(
            !dir.path().join("data").exists(),
            "{text}: nothing was made"
        );
    }
}

#[tokio::test]
async fn a_bad_override_names_the_variable_or_setting() {
    let dir = TempDir::new().expect("a temporary directory");
    let options = Options::dev(dir.path()).env("FANFARE__STORAGE__RETENTION", "soon");
    let exit = refuses(&options).await;
    assert_eq!(exit.code, Some(64), "{}", exit.log);
    assert!(
        exit.log.to_lowercase().contains("retention"),
        "{}",
        exit.log
    );
}

#[tokio::test]
async fn a_configuration_file_that_is_not_there() {
    let dir = TempDir::new().expect("a temporary directory");
    let options = Options::dev(dir.path()).with(&["--config", "/nowhere/fanfare.toml"]);
    let exit = refuses(&options).await;
    assert_eq!(exit.code, Some(64), "{}", exit.log);
    assert!(exit.log.contains("/nowhere/fanfare.toml"), "{}", exit.log);
}

#[tokio::test]
async fn a_directory_in_use_names_the_other_process() {
    let world = World::start().await;
    let shop = world.endpoint().await;
    let exit = refuses(&Options::dev(world.data_dir())).await;
    assert_eq!(exit.code, Some(1), "{}", exit.log);
    assert!(
        exit.log.contains(&world.server().pid().to_string()),
        "it names the pid: {}",
        exit.log
    );
    assert!(
        exit.log.contains(&*world.data_dir().to_string_lossy()),
        "{}",
        exit.log
    );
    // The one that runs is not disturbed.
    world.publish("order.paid", "{}").await;
    shop.receives(1).await;
}

#[tokio::test]
async fn a_directory_of_a_newer_version_is_left_alone() {
    let mut world = World::start().await;
    world.publish("order.paid", "{}").await;
    world.stop().await;
    newer(world.data_dir());
    let before = everything(world.data_dir());
    let exit = refuses(&Options::dev(world.data_dir())).await;
    assert_eq!(exit.code, Some(1), "{}", exit.log);
    assert!(exit.log.contains("newer"), "{}", exit.log);
    assert_eq!(everything(world.data_dir()), before, "nothing was changed");
}

#[tokio::test]
async fn a_port_already_taken_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address");
    let dir = TempDir::new().expect("a temporary directory");
    for admin in [false, true] {
        let mut options = Options::dev(&dir.path().join("data"));
        *(if admin {
            &mut options.admin_listen
        } else {
            &mut options.listen
        }) = address;
        let exit = refuses(&options).await;
        assert_eq!(exit.code, Some(1), "{}", exit.log);
        assert!(exit.log.contains(&address.to_string()), "{}", exit.log);
        assert!(
            exit.log.contains("listen"),
            "it names the flag: {}",
            exit.log
        );
    }
}

#[tokio::test]
async fn off_loopback_without_keys() {
    let dir = TempDir::new().expect("a temporary directory");
    let options = Options {
        listen: "0.0.0.0:0".parse().expect("an address"),
        ..Options::dev(&dir.path().join("data"))
    };
    let exit = refuses(&options).await;
    assert_eq!(exit.code, Some(64), "{}", exit.log);
    assert!(exit.log.contains("--insecure-no-auth"), "{}", exit.log);
}

#[tokio::test]
async fn a_directory_that_cannot_be_made() {
    let dir = TempDir::new().expect("a temporary directory");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("a file");
    let exit = refuses(&Options::dev(&file.join("data"))).await;
    assert_eq!(exit.code, Some(1), "{}", exit.log);
    assert!(exit.log.contains(&*file.to_string_lossy()), "{}", exit.log);
}

/// Starts a server that must end by itself.
async fn refuses(options: &Options) -> Exit {
    match Server::start(options).await {
        Ok(_) => panic!("it started: {options:?}"),
        Err(exit) => exit,
    }
}

/// Makes a directory look as if a newer version had written it.
fn newer(data_dir: &Path) {
    let file = data_dir.join("VERSION");
    let version = fs::read_to_string(&file).expect("the directory says its version");
    assert!(version.starts_with("fanfare-embedded 1\n"), "{version}");
    fs::write(&file, version.replace("embedded 1", "embedded 2")).expect("a file");
}

/// Every file of a directory with its bytes.
fn everything(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry"))
        {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if entry.file_name() != "LOCK" {
                // The lock says who tried last, whatever came of it.
                found.push((entry.path(), fs::read(entry.path()).expect("a file")));
            }
        }
    }
    found.sort();
    found
}
