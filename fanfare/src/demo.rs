//! `fanfare serve --demo`: the real server, a receiver of its own, three endpoints and a stream of
//! events, told live. Every figure is measured; nothing is printed by rote.
//!
//! - [`journal`] is what the demo remembers beyond a kill: what it published, what arrived.
//! - [`receiver`] is the subscriber: it verifies signatures with the official library and compares
//!   bytes, misbehaves where its endpoint is meant to, and writes down what it took.
//! - [`endpoints`] makes the three endpoints, or finds them again.
//! - [`publisher`] publishes; [`recovery`] looks after what the last run left open; [`tally`] counts.
//! - [`screen`] prints.
//!
//! It goes through the front door like everyone else: nothing here reaches into the server.

mod endpoints;
mod journal;
mod publisher;
mod receiver;
mod recovery;
mod screen;
mod story;
mod tally;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fanfare_service::signals::Signals;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::connect::Server;
use crate::failure::Failure;
use crate::serve::running::Running;
use endpoints::Known;
use journal::Journal;
use publisher::Publisher;
use receiver::Receiver;
use screen::Screen;

/// The demo's own directory.
pub const DIR: &str = "./fanfare-demo";

/// Retries are shortened to this, so that a person sees them.
const RETRY_DELAYS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(1)];

/// Runs it until a signal.
pub async fn run(config: &Config, signals: Signals, started: Instant) -> Result<(), Failure> {
    let dir = config.storage.data_dir.join("demo");
    let is_new = !dir.exists();
    let screen = Arc::new(Screen::new(started));
    let known = Known::load(&dir)?;
    let journal = Arc::new(Journal::open(&dir)?);
    // The receiver is there before the server, which at once goes on with what is under way.
    let receiver = Receiver::bind(known.receiver_port).await?;
    let stop = CancellationToken::new();
    let open = recovery::open_at_start(&journal);

    let running = Running::start(config).await?;
    let server = Server::local(running.addresses().listen).await?;
    let serving = receiver.serve(
        &known,
        journal.clone(),
        server.clone(),
        screen.clone(),
        stop.clone(),
    );
    endpoints::ensure(&dir, known, &server, &serving).await?;
    screen.opening(config, running.addresses().listen, is_new, serving.port());

    let publisher = Publisher::new(server.clone(), journal.clone(), screen.clone());
    let listen = running.addresses().listen;
    let shown = show(
        open,
        publisher,
        server,
        journal.clone(),
        screen.clone(),
        listen,
        stop.clone(),
    );
    let shown = tokio::spawn(shown);
    let ended = running.until_stopped(signals).await;
    stop.cancel();
    // The story may have been cut short; it holds nothing that must be finished.
    shown.abort();
    journal.stopped();
    screen.ending();
    ended
}

/// What the last run left, the story, the tally, what to try, and then a trickle.
async fn show(
    open: recovery::Open,
    publisher: Publisher,
    server: Server,
    journal: Arc<Journal>,
    screen: Arc<Screen>,
    listen: SocketAddr,
    stop: CancellationToken,
) {
    let told = async {
        recovery::look_after(open, &publisher, &server, &journal, &screen).await?;
        let published = story::tell(&publisher).await?;
        let tally = tally::of(&published, &server, &journal).await?;
        screen.tally(&tally);
        screen.what_to_try(listen);
        publisher.trickle(&stop).await
    };
    let result: Result<(), Failure> = tokio::select! {
        () = stop.cancelled() => Ok(()),
        result = told => result,
    };
    if let Err(failure) = result {
        screen.note(&format!("the demo stopped here: {}", failure.message()));
    }
}
