//! `fanfare serve --demo` and `fanfare demo`: the real server or one that runs already, a receiver
//! of its own, three endpoints and a stream of events, told live. Every figure is measured; nothing
//! is printed by rote.
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
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fanfare_service::signals::Signals;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::connect::Server;
use crate::failure::Failure;
use crate::serve::running::{Launch, Running};
use endpoints::Known;
use journal::Journal;
use publisher::Publisher;
use receiver::Receiver;
use screen::{Opening, Screen};

/// The demo's own directory.
pub const DIR: &str = "./fanfare-demo";

/// Retries are shortened to this, so that a person sees them.
const RETRY_DELAYS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(1)];

/// Where the demo keeps its journal, and where its receiver is.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its directory.
    pub dir: PathBuf,
    /// Where the receiver listens; none: on loopback, on the port of the run before.
    pub listen: Option<SocketAddr>,
    /// How the server reaches the receiver, if not by that address.
    pub url: Option<String>,
}

/// Everything but the server, before it starts.
struct Prepared {
    dir: PathBuf,
    is_new: bool,
    known: Known,
    journal: Arc<Journal>,
    receiver: Receiver,
    screen: Arc<Screen>,
    open: recovery::Open,
}

/// The demo at work.
struct Shown {
    journal: Arc<Journal>,
    stop: CancellationToken,
    told: JoinHandle<()>,
}

/// `fanfare serve --demo`: with the server in this process, until a signal.
pub async fn run(launch: &Launch<'_>, signals: Signals, started: Instant) -> Result<(), Failure> {
    let data_dir = &launch.config.storage.data_dir;
    let place = Place {
        dir: data_dir.join("demo"),
        listen: None,
        url: None,
    };
    // The receiver is there before the server, which at once goes on with what is under way.
    let prepared = Prepared::new(&place, started).await?;
    let running = Running::start(launch).await?;
    let server = Server::local(running.front()?).await?;
    let screen = prepared.screen.clone();
    let shown = prepared
        .show(server, data_dir, Some(std::process::id()))
        .await?;
    let ended = running.until_stopped(signals).await;
    shown.end();
    screen.note("stopped; what was under way is safe on disk and goes on with the next run");
    ended
}

/// `fanfare demo`: against a server that runs already, until a signal.
pub async fn run_against(
    server: Server,
    place: &Place,
    mut signals: Signals,
) -> Result<(), Failure> {
    let prepared = Prepared::new(place, Instant::now()).await?;
    let screen = prepared.screen.clone();
    let shown = prepared.show(server, &place.dir, None).await?;
    signals.next().await;
    shown.end();
    screen.note("stopped; what was under way is delivered when this runs again");
    Ok(())
}

impl Prepared {
    async fn new(place: &Place, started: Instant) -> Result<Self, Failure> {
        let is_new = !place.dir.exists();
        let known = Known::load(&place.dir)?;
        let journal = Arc::new(Journal::open(&place.dir)?);
        let receiver = Receiver::bind(place, known.receiver_port).await?;
        Ok(Self {
            dir: place.dir.clone(),
            is_new,
            receiver,
            known,
            screen: Arc::new(Screen::new(started)),
            open: recovery::open_at_start(&journal),
            journal,
        })
    }

    /// Makes the endpoints and tells the story. `killable` is the process that a person may kill.
    async fn show(
        self,
        server: Server,
        data: &Path,
        killable: Option<u32>,
    ) -> Result<Shown, Failure> {
        let (journal, screen) = (self.journal, self.screen);
        let stop = CancellationToken::new();
        let serving = self.receiver.serve(
            &self.known,
            journal.clone(),
            server.clone(),
            screen.clone(),
            stop.clone(),
        );
        endpoints::ensure(&self.dir, self.known, &server, &serving).await?;
        screen.opening(&Opening {
            server: &server.address,
            data,
            is_new: self.is_new,
            receiver: serving.base(),
        });
        let publisher = Publisher::new(server.clone(), journal.clone(), screen.clone());
        let telling = tell(
            self.open,
            publisher,
            server,
            journal.clone(),
            screen.clone(),
            killable,
        );
        let until = stop.clone();
        let told = tokio::spawn(async move {
            until.run_until_cancelled(telling).await;
        });
        Ok(Shown {
            journal: journal.clone(),
            stop,
            told,
        })
    }
}

impl Shown {
    fn end(self) {
        self.stop.cancel();
        // The story may have been cut short; it holds nothing that must be finished.
        self.told.abort();
        self.journal.stopped();
    }
}

/// What the last run left, the story, the tally, what to try, and then a trickle.
async fn tell(
    open: recovery::Open,
    publisher: Publisher,
    server: Server,
    journal: Arc<Journal>,
    screen: Arc<Screen>,
    killable: Option<u32>,
) {
    let told = async {
        recovery::look_after(open, &publisher, &server, &journal, &screen).await?;
        let published = story::tell(&publisher).await?;
        let tally = tally::of(&published, &server, &journal).await?;
        screen.tally(&tally);
        screen.what_to_try(&server.address, killable);
        publisher.trickle().await
    };
    let result: Result<(), Failure> = told.await;
    if let Err(failure) = result {
        screen.note(&format!("the demo stopped here: {}", failure.message()));
    }
}
