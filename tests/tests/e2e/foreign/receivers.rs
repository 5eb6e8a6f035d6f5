//! The README's receivers, run as they are, verify real deliveries. (In Rust the official library
//! verifies every delivery of every story.)

use std::fs;
use std::path::Path;
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fanfare_proto::v1;
use fanfare_tests::binary::repository;
use fanfare_tests::{World, foreign};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// Bodies that are easy to get wrong: white space, escapes, more than ASCII, an empty object.
const BODIES: &[&str] = &[
    "{}",
    "{ \"name\" : \"Zo\u{eb} \u{1F389}\" , \"path\":\"a\\/b\" }",
    "[1, 2.50, 1e3, null]",
    "\"text\"",
];

#[tokio::test]
async fn node_verifies_what_we_sign() {
    // Node looks for packages beside the program, so it runs as a copy beside them.
    let modules = foreign::node_modules();
    let program = modules
        .parent()
        .expect("it lies in a folder")
        .join("receive.mjs");
    fs::copy(repository().join("examples/receive.mjs"), &program).expect("it can be copied");
    let mut node = Command::new("node");
    node.arg(program);
    verifies(node).await;
}

#[tokio::test]
async fn python_verifies_what_we_sign() {
    let mut python = Command::new(foreign::python());
    python.arg(repository().join("examples/receive.py"));
    verifies(python).await;
}

/// Starts a receiver and delivers to it; it must verify each body, and refuse a wrong signature.
async fn verifies(receiver: Command) {
    let world = World::start().await;
    let secret = format!("whsec_{}", STANDARD.encode([7; 32]));
    let mut receiver = Receiver::start(receiver, world.dir(), &secret).await;
    create_endpoint(&world, &receiver.url(), &secret).await;
    for body in BODIES {
        let published = world.publish("order.paid", body).await;
        let delivery = world.delivered(&published.id).await;
        let said = receiver.line().await;
        assert_eq!(
            said,
            format!("verified {} order.paid {}", delivery.id, body.len())
        );
    }
    // The same receiver knows a signature that is not its own.
    let other = format!("whsec_{}", STANDARD.encode([8; 32]));
    create_endpoint(&world, &format!("{}other", receiver.url()), &other).await;
    world.publish("order.paid", "{}").await;
    let said = [receiver.line().await, receiver.line().await];
    assert!(
        said.iter().any(|line| line.starts_with("refused ")),
        "{said:?}"
    );
}

async fn create_endpoint(world: &World, url: &str, secret: &str) {
    let endpoint = v1::Endpoint {
        url: url.to_owned(),
        secret: secret.to_owned(),
        retry_schedule: Some(v1::RetrySchedule { delays: Vec::new() }),
        ..v1::Endpoint::default()
    };
    let request = v1::CreateEndpointRequest {
        endpoint: Some(endpoint),
        event_types: vec!["order.*".to_owned()],
        request_id: String::new(),
    };
    world
        .api()
        .endpoints()
        .create_endpoint(request)
        .await
        .expect("created");
}

/// A receiver in another language, as a process.
struct Receiver {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    port: String,
}

impl Receiver {
    async fn start(mut command: Command, dir: &Path, secret: &str) -> Self {
        let file = dir.join("secret.txt");
        fs::write(&file, format!("{secret}\n")).expect("a file");
        command
            .arg(file)
            .arg("0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut receiver = Self {
            _child: child,
            lines,
            port: String::new(),
        };
        let said = receiver.line().await;
        let port = said
            .strip_prefix("listening on ")
            .expect("it says its port");
        port.clone_into(&mut receiver.port);
        receiver
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    async fn line(&mut self) -> String {
        let line =
            tokio::time::timeout(fanfare_tests::eventually::PATIENCE, self.lines.next_line());
        let line = line
            .await
            .expect("the receiver says something")
            .expect("it can be read");
        line.expect("the receiver still runs")
    }
}
