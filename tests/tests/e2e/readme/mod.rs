//! Every `sh` block of the README is run, in its order, except for those of make.
//!
//! Three things differ from a reader's terminal: ports are free ones instead of 7400, 3000 and
//! 3001; `fanfare` is the binary under test; and what a reader has on the machine (pip's Python,
//! grpcurl) comes from `.cache`.
//!
//! Of `make run`, `make test` and `make run-distributed` it is only checked, by `--dry-run`, that make
//! has them and knows their commands: the first builds for release, the second runs this very test,
//! the third starts Kafka and Cassandra. What `make run` executes once it has built,
//! `fanfare serve --demo`, is run by `stories/demo.rs`, and so is `fanfare demo`, which
//! `make run-distributed` executes, against one server; routers, workers, Kafka and Cassandra are
//! what the tests in `distributed` run.

mod blocks;
mod terminal;

use std::fs;
use std::path::Path;

use fanfare_tests::binary::repository;

use blocks::{Block, blocks};
use terminal::Terminal;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_works_as_printed() {
    let readme = fs::read_to_string(repository().join("README.md")).expect("there is a README");
    let blocks = blocks(&readme);
    assert!(blocks.len() > 10, "{blocks:?}");
    let mut terminal = Terminal::open();
    for Block { commands, until } in &blocks {
        match until {
            Some(word) => terminal.starts(commands, word).await,
            None if commands.starts_with("make ") => terminal.asks_make(commands).await,
            None => terminal.runs(commands).await,
        }
    }
    // Four orders were published by hand and one by the Rust example; each reached both receivers.
    terminal.shows("receive.mjs", "verified dlv_", 5).await;
    terminal.shows("receive.py", "verified dlv_", 5).await;
}

#[test]
fn every_file_it_links_to_is_there() {
    for name in ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"] {
        let text = fs::read_to_string(repository().join(name)).expect("it is there");
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let local = !link.starts_with("http") && !link.starts_with('#');
            assert!(
                !local || exists(link),
                "{name} links to {link}, which is not there"
            );
        }
    }
}

fn exists(link: &str) -> bool {
    let path = link.split('#').next().unwrap_or_default();
    repository().join(Path::new(path)).exists()
}
