//! A reader's terminals: a scratch directory with the examples, and commands that go on in others.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::iter;
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::path::PathBuf;

use fanfare_tests::binary::repository;
use fanfare_tests::server::Log;
use fanfare_tests::world::said;
use fanfare_tests::{binary, eventually, foreign};
use tempfile::TempDir;
use tokio::process::{Child, Command};

pub(super) struct Terminal {
    dir: TempDir,
    /// What is printed, and what is meant here.
    replaced: Vec<(String, String)>,
    admin_port: u16,
    background: Vec<(String, Log, Child)>,
}

impl Terminal {
    pub(super) fn open() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let examples = dir.path().join("examples");
        fs::create_dir(&examples).expect("a folder");
        for file in fs::read_dir(repository().join("examples")).expect("there are examples") {
            let file = file.expect("an entry").path();
            let name = file.file_name().expect("a file has a name");
            fs::copy(&file, examples.join(name)).expect("it can be copied");
        }
        fs::create_dir(dir.path().join("bin")).expect("a folder");
        let ours = dir.path().join("bin/fanfare");
        std::os::unix::fs::symlink(binary::fanfare(), ours).expect("a link");
        let mut replaced: Vec<_> = ["7400", "3000", "3001"]
            .map(|port| (port.to_owned(), free_port().to_string()))
            .into();
        // Built with everything else; building it alone would build its dependencies again.
        let example = binary::built("examples/publish");
        let run = "cargo run --quiet -p fanfare-proto --features client --example publish --";
        replaced.push((run.to_owned(), example.to_string_lossy().into_owned()));
        Self {
            dir,
            replaced,
            admin_port: free_port(),
            background: Vec::new(),
        }
    }

    /// Runs a block to its end; it must succeed.
    pub(super) async fn runs(&self, commands: &str) {
        let mut bash = self.bash(commands);
        let said = said(&mut bash).await;
        assert_eq!(said.code, 0, "{commands}\n{said:?}");
    }

    /// Starts a block that goes on, and waits until it has printed `word`.
    pub(super) async fn starts(&mut self, commands: &str, word: &str) {
        let mut bash = self.bash(&format!("exec {commands}"));
        let (child, log) = Log::of(&mut bash);
        self.background.push((commands.to_owned(), log, child));
        self.shows(commands, word, 1).await;
    }

    /// Whether make has the target, without running it.
    pub(super) async fn asks_make(&self, commands: &str) {
        let mut bash = Command::new("bash");
        bash.args(["-ec", &format!("{commands} --dry-run")])
            .current_dir(repository());
        said(&mut bash).await.ok();
    }

    /// Waits until what goes on with `command` in it has printed `word` so many times.
    pub(super) async fn shows(&self, command: &str, word: &str, times: usize) {
        let mut all = self.background.iter();
        let (_, log, _) = all
            .find(|(line, ..)| line.contains(command))
            .expect("it was started");
        eventually(
            &format!("{command} to print {word} {times} times"),
            async || {
                let text = log.text();
                if text.matches(word).count() >= times {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(text)
                }
            },
        )
        .await;
    }

    fn meant(&self, commands: &str) -> String {
        // By way of marks: a port that is meant may contain one that is printed.
        let mark = |index: usize| format!("\u{1}{index}\u{1}");
        let mut text = commands.to_owned();
        for (index, (printed, _)) in self.replaced.iter().enumerate() {
            text = text.replace(printed, &mark(index));
        }
        for (index, (_, meant)) in self.replaced.iter().enumerate() {
            text = text.replace(&mark(index), meant);
        }
        text
    }

    fn bash(&self, commands: &str) -> Command {
        let commands = self.meant(commands);
        let address = |port: &str| format!("127.0.0.1:{port}");
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &commands])
            .current_dir(self.dir.path())
            .env("PATH", self.path())
            .env(
                "FANFARE_SERVER",
                format!("http://{}", address(&self.replaced[0].1)),
            )
            .env("FANFARE__SERVER__LISTEN", address(&self.replaced[0].1))
            .env(
                "FANFARE__SERVER__ADMIN_LISTEN",
                address(&self.admin_port.to_string()),
            );
        bash
    }

    /// The binary under test, then pip's Python and grpcurl, then the machine's programs.
    fn path(&self) -> OsString {
        let folder = |program: PathBuf| program.parent().expect("it lies in a folder").to_owned();
        let ours = self.dir.path().join("bin");
        let fetched = [folder(foreign::python()), folder(foreign::grpcurl())];
        let machine = env::var_os("PATH").unwrap_or_default();
        let all = iter::once(ours)
            .chain(fetched)
            .chain(env::split_paths(&machine));
        env::join_paths(all).expect("a PATH")
    }
}

/// A port that was free a moment ago: the README names ports, so 0 will not do.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}
