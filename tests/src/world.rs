//! A story's stage: one server on a directory of its own, and subscribers made in a line.
//!
//! With `FANFARE_STORIES_ON=services` the same stories are played by two routers and two workers on Kafka
//! and a CQL store: what is asked goes to the first router.

use std::future::{Future, IntoFuture};
use std::ops::ControlFlow;
use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::time::Duration;

use fanfare_proto::v1;
use fanfare_proto::v1::{DeliveryState, EndpointState};
use tempfile::TempDir;
use tokio::process::Command;

use crate::api::Api;
use crate::binary;
use crate::eventually;
use crate::fleet::{Fleet, Services};
use crate::server::{Exit, Options, Program, Server};
use crate::sink::{Answer, Gate, Receipt, Script, Sink};

/// Longest a command line may take.
const COMMAND_MAX: Duration = Duration::from_mins(1);

/// Who plays on services.
const CAST: [Program; 4] = [
    Program::Router,
    Program::Router,
    Program::Worker,
    Program::Worker,
];

/// A running server and its directory. Dropping it kills the server and removes the directory;
/// a test that failed shows what the server wrote.
pub struct World {
    dir: TempDir,
    options: Options,
    /// Its processes while it runs: one, or those of `CAST`.
    servers: Vec<Server>,
    past: String,
    /// The services with its topics and its keyspace, which goes after the processes are gone; none if it is one
    /// process with a directory.
    services: Option<Fleet>,
}

/// A subscriber: a sink, and the endpoint and subscription that lead to it.
pub struct Subscriber {
    /// What it sees.
    pub sink: Sink,
    /// The endpoint, as created, with its secret.
    pub endpoint: v1::Endpoint,
    /// The subscription, as created.
    pub subscription: v1::Subscription,
}

/// A subscriber in the making; `.await` makes it.
#[must_use = "await it"]
pub struct NewSubscriber<'a> {
    world: &'a World,
    script: Script,
    patterns: Vec<String>,
    endpoint: v1::Endpoint,
    tenant: Option<String>,
}

/// What a command came to.
#[derive(Debug)]
pub struct Said {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl World {
    /// A server for a laptop: loopback and plain http allowed, no keys.
    pub async fn start() -> Self {
        Self::with(|options| options).await
    }

    /// A server with other options.
    pub async fn with(change: impl FnOnce(Options) -> Options) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        Self::on(dir, change).await
    }

    /// A server on a given directory's `data`.
    pub async fn on(dir: TempDir, change: impl FnOnce(Options) -> Options) -> Self {
        let options = change(Options::dev(&dir.path().join("data")));
        let services = match std::env::var("FANFARE_STORIES_ON").as_deref() {
            Ok("services") => {
                let fleet = Fleet::prepare(Services::shared().await);
                fleet.migrate().await.ok();
                Some(fleet)
            }
            Ok(other) => panic!("FANFARE_STORIES_ON={other}: only services can be said"),
            Err(_) => None,
        };
        let mut world = Self {
            dir,
            options,
            servers: Vec::new(),
            past: String::new(),
            services,
        };
        world.restart().await;
        world
    }

    /// Whether all of it is one process, with a directory.
    pub fn is_one_process(&self) -> bool {
        self.services.is_none()
    }

    /// The server's directory.
    pub fn data_dir(&self) -> &Path {
        &self.options.dir
    }

    /// A directory for the test's own files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// How the next start is made.
    pub fn options(&mut self) -> &mut Options {
        &mut self.options
    }

    /// The running server.
    pub fn server(&self) -> &Server {
        self.servers.first().expect("the server runs")
    }

    /// `http://…` of the front door.
    pub fn url(&self) -> String {
        self.server().url()
    }

    /// Its gRPC surface.
    pub fn api(&self) -> Api {
        Api::new(&self.url())
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        for server in self.running() {
            self.past.push_str(&server.log().text());
            server.kill().await;
        }
    }

    /// SIGTERM; how it ended.
    pub async fn stop(&mut self) -> Exit {
        let mut exits = Vec::new();
        for server in self.running() {
            exits.push(server.stop().await);
        }
        self.over(exits)
    }

    /// Waits for the server to end by itself.
    pub async fn exits(&mut self) -> Exit {
        let mut exits = Vec::new();
        for server in self.running() {
            exits.push(server.exits().await);
        }
        self.over(exits)
    }

    fn running(&mut self) -> Vec<Server> {
        assert!(!self.servers.is_empty(), "the server runs");
        std::mem::take(&mut self.servers)
    }

    /// The first end that is not a good one, else the first.
    fn over(&mut self, mut exits: Vec<Exit>) -> Exit {
        for exit in &exits {
            self.past.push_str(&exit.log);
        }
        let bad = exits.iter().position(|exit| exit.code != Some(0));
        exits.swap_remove(bad.unwrap_or(0))
    }

    /// Starts it again on the same directory; it must become ready.
    pub async fn restart(&mut self) {
        assert!(self.servers.is_empty(), "the server still runs");
        for options in self.starts() {
            match Server::start(&options).await {
                Ok(server) => self.servers.push(server),
                Err(exit) => panic!("the server did not start: {exit:?}"),
            }
        }
    }

    /// How each process is started.
    fn starts(&self) -> Vec<Options> {
        let Some(services) = &self.services else {
            return vec![self.options.clone()];
        };
        let start = |(number, program)| {
            let dir = self.dir.path().join(format!("{program:?}-{number}"));
            std::fs::create_dir_all(&dir).expect("a directory");
            let mut options = Options::service(program, &dir, &services.config());
            options.environment.clone_from(&self.options.environment);
            options
        };
        CAST.into_iter().enumerate().map(start).collect()
    }

    /// Publishes an event of a type with JSON data.
    pub async fn publish(&self, event_type: &str, data: &str) -> v1::PublishResponse {
        let event = crate::api::event(event_type, data.to_owned());
        self.api()
            .publish(event)
            .await
            .expect("the event is accepted")
    }

    /// What became of an event, once it is routed.
    pub async fn routed(&self, event: &str) -> v1::GetEventResponse {
        eventually("the event to be routed", async || {
            match self.api().event(event).await {
                Ok(told) if told.route_time.is_some() => ControlFlow::Break(told),
                other => ControlFlow::Continue(format!("{other:?}")),
            }
        })
        .await
    }

    /// The delivery of an event with one subscriber, once it is delivered.
    pub async fn delivered(&self, event: &str) -> v1::Delivery {
        self.delivery_in(event, DeliveryState::Delivered).await
    }

    /// The delivery of an event with one subscriber, once it is a dead letter.
    pub async fn dead(&self, event: &str) -> v1::Delivery {
        self.delivery_in(event, DeliveryState::DeadLetter).await
    }

    /// The delivery of an event with one subscriber, once it is in `state`.
    pub async fn delivery_in(&self, event: &str, state: DeliveryState) -> v1::Delivery {
        self.delivery_where(event, |delivery| delivery.state() == state, state)
            .await
    }

    /// The delivery of an event to one of its endpoints, once it is in `state`.
    pub async fn delivery_in_at(
        &self,
        event: &str,
        endpoint: &str,
        state: DeliveryState,
    ) -> v1::Delivery {
        let here = |d: &v1::Delivery| d.endpoint_id == endpoint && d.state() == state;
        self.delivery_where(event, here, state).await
    }

    async fn delivery_where(
        &self,
        event: &str,
        wanted: impl Fn(&v1::Delivery) -> bool,
        state: DeliveryState,
    ) -> v1::Delivery {
        eventually(&format!("a delivery in state {state:?}"), async || {
            let told = self.api().event(event).await;
            match told
                .as_ref()
                .ok()
                .and_then(|told| told.deliveries.iter().find(|d| wanted(d)))
            {
                Some(delivery) => ControlFlow::Break(delivery.clone()),
                None => ControlFlow::Continue(format!("{told:?}")),
            }
        })
        .await
    }

    /// An endpoint, once it is in `state`.
    pub async fn endpoint_in(&self, id: &str, state: EndpointState) -> v1::Endpoint {
        eventually(&format!("the endpoint in state {state:?}"), async || {
            let request = v1::GetEndpointRequest { id: id.to_owned() };
            let told = self.api().endpoints().get_endpoint(request).await;
            match told.map(|told| told.into_inner().endpoint) {
                Ok(Some(endpoint)) if endpoint.state() == state => ControlFlow::Break(endpoint),
                other => ControlFlow::Continue(format!("{other:?}")),
            }
        })
        .await
    }

    /// Begins a subscriber that wants everything and answers 200.
    pub fn endpoint(&self) -> NewSubscriber<'_> {
        NewSubscriber {
            world: self,
            script: Script::ok(),
            patterns: vec!["**".to_owned()],
            endpoint: v1::Endpoint::default(),
            tenant: None,
        }
        .retrying(&[Duration::from_millis(100); 5])
    }

    /// Runs `fanfare …` against this server.
    pub async fn fanfare(&self, arguments: &[&str]) -> Said {
        said(&mut self.command(arguments)).await
    }

    /// `fanfare …` against this server, not started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        command(Some(&self.url()), arguments)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let now: String = self.servers.iter().map(|s| s.log().text()).collect();
            eprintln!("--- the server wrote ---\n{}{now}---", self.past);
        }
    }
}

/// Runs `fanfare …`, with `FANFARE_SERVER` set to `server` if there is one.
pub async fn fanfare(server: Option<&str>, arguments: &[&str]) -> Said {
    said(&mut command(server, arguments)).await
}

fn command(server: Option<&str>, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary::fanfare());
    command
        .args(arguments)
        .env_remove("FANFARE_TENANT")
        .env_remove("FANFARE_API_KEY");
    match server {
        Some(url) => command.env("FANFARE_SERVER", url),
        None => command.env_remove("FANFARE_SERVER"),
    };
    command
}

/// Runs a command to its end.
pub async fn said(command: &mut Command) -> Said {
    said_to(command, Stdio::null()).await
}

/// Runs a command, with its standard input, to its end.
pub async fn said_to(command: &mut Command, input: Stdio) -> Said {
    let output = command.stdin(input).kill_on_drop(true).output();
    let output = tokio::time::timeout(COMMAND_MAX, output)
        .await
        .unwrap_or_else(|_| panic!("{command:?} does not end"))
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Said {
    /// It ended with 0; its standard output.
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        &self.out
    }

    /// It ended with 0; its standard output as JSON, one value per line.
    pub fn json(&self) -> Vec<serde_json::Value> {
        let lines = self.ok().lines().filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }
}

impl NewSubscriber<'_> {
    /// Wants these patterns only.
    pub fn wants(mut self, patterns: &[&str]) -> Self {
        self.patterns = patterns
            .iter()
            .map(|pattern| (*pattern).to_owned())
            .collect();
        self
    }

    /// Answers by `script`.
    pub fn script(mut self, script: Script) -> Self {
        self.script = script;
        self
    }

    /// Refuses the first `times` tries of each delivery with 503, and then takes it.
    pub fn fail(self, times: usize) -> Self {
        self.script(Script::then_ok(vec![Answer::status(503); times]))
    }

    /// Answers every try with `status`.
    pub fn always(self, status: u16) -> Self {
        self.script(Script::always(Answer::status(status)))
    }

    /// Answers when `gate` opens.
    pub fn gated(self, gate: &Gate) -> Self {
        self.script(Script::gated(gate))
    }

    /// Is retried after these delays.
    pub fn retrying(self, delays: &[Duration]) -> Self {
        let delays = delays
            .iter()
            .map(|delay| (*delay).try_into().expect("short"))
            .collect();
        self.change(|endpoint| endpoint.retry_schedule = Some(v1::RetrySchedule { delays }))
    }

    /// Gets the whole CloudEvent as its body.
    pub fn structured(self) -> Self {
        self.change(|endpoint| endpoint.set_envelope(v1::Envelope::Structured))
    }

    /// With any other setting of the endpoint.
    pub fn change(mut self, change: impl FnOnce(&mut v1::Endpoint)) -> Self {
        change(&mut self.endpoint);
        self
    }

    /// Belongs to `tenant`.
    pub fn tenant(mut self, tenant: &str) -> Self {
        self.tenant = Some(tenant.to_owned());
        self
    }

    async fn create(mut self) -> Subscriber {
        let sink = Sink::start(self.script).await;
        if self.endpoint.url.is_empty() {
            self.endpoint.url = sink.url();
        }
        let request = v1::CreateEndpointRequest {
            endpoint: Some(self.endpoint),
            event_types: self.patterns,
            request_id: String::new(),
        };
        let api = self.world.api();
        let api = self
            .tenant
            .as_deref()
            .map_or(api.clone(), |tenant| api.tenant(tenant));
        let response = api.endpoints().create_endpoint(request).await;
        let response = response.expect("the endpoint is created").into_inner();
        Subscriber {
            sink,
            endpoint: response.endpoint.expect("the answer has the endpoint"),
            subscription: response.subscription.expect("patterns make a subscription"),
        }
    }
}

impl<'a> IntoFuture for NewSubscriber<'a> {
    type Output = Subscriber;
    type IntoFuture = Pin<Box<dyn Future<Output = Subscriber> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.create())
    }
}

impl Subscriber {
    /// Waits until at least `count` POSTs were taken; each must verify under the secret.
    pub async fn receives(&self, count: usize) -> Vec<Receipt> {
        let receipts = self.sink.receives(count).await;
        for receipt in &receipts {
            let verified = receipt.verify(&self.endpoint.secret);
            assert!(verified.is_ok(), "{verified:?}: {receipt:?}");
        }
        receipts
    }

    /// Everything that comes to a subscriber of everything: publishes one more event and waits for
    /// it, so that what was published before has had its turn. Without that last event.
    pub async fn receives_in_all(&self, world: &World) -> Vec<Receipt> {
        const LAST: &str = "tests.last";
        world.publish(LAST, "{}").await;
        let last = |receipt: &Receipt| receipt.header("ce-type") == LAST;
        eventually("the last event", async || {
            let accepted = self.sink.accepted();
            if accepted.iter().any(last) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(format!("{} others", accepted.len()))
            }
        })
        .await;
        self.sink
            .receipts()
            .into_iter()
            .filter(|receipt| !last(receipt))
            .collect()
    }
}
