//! Things break under load, and the ledger is compared: LOST = PHANTOM = WRONG = 0, and DUP is
//! bounded by what was in flight. Each run has a seed and prints it.

mod crash_points;
mod damage;
mod disk;
mod kill;
mod stop;

use fanfare_tests::World;
use fanfare_tests::ledger::{Audience, Audit, Closing, Dead, Mix, Trial, seed};
use fanfare_tests::server::{Exit, Options, Server};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Most POSTs of one server in flight, or answered and not yet committed, in these tests.
const IN_FLIGHT_MAX: usize = 64;

/// Most deliveries that its router has appended and not yet committed: a crash may append them
/// again, under the same ids, after they were delivered.
const OPEN_MAX: usize = 128;

/// What one crash may repeat.
const REPEATS_MAX: usize = IN_FLIGHT_MAX + OPEN_MAX;

/// A trial around one server process that is about to suffer.
struct Siege {
    world: World,
    trial: Trial,
    rng: StdRng,
}

impl Siege {
    async fn begin(change: impl FnOnce(Options) -> Options) -> Self {
        Self::before(Audience::mixed(), change).await
    }

    async fn before(audience: Audience, change: impl FnOnce(Options) -> Options) -> Self {
        Self::of(
            World::with(|options| change(bounded(options))).await,
            audience,
        )
        .await
    }

    /// Around a world that runs already.
    async fn of(world: World, audience: Audience) -> Self {
        let seed = seed();
        let trial = Trial::start(seed, &world.url(), &Mix::mixed(), &audience).await;
        Self {
            world,
            trial,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// Starts the server again and tells the producers where it is.
    async fn restart(&mut self) {
        self.world.restart().await;
        self.trial.moved(&self.world.url());
    }

    /// Starts a server that dies by itself under the load, perhaps before it is ready.
    async fn dies(&mut self) -> Exit {
        match Server::start(self.world.options()).await {
            Ok(server) => {
                self.trial.moved(&server.url());
                server.exits().await
            }
            Err(exit) => exit,
        }
    }

    /// Ends the load, waits until everything has arrived, stops the server cleanly, and audits.
    async fn end(self) -> Audit {
        let mut world = self.world;
        let closing = self.trial.close().await;
        ended(&mut world, &closing).await
    }
}

/// Waits until everything has arrived and the server has stopped, so that nothing more can come.
async fn ended(world: &mut World, closing: &Closing) -> Audit {
    let settled = closing.settles().await;
    if settled.lost > 0 {
        explain(world, &settled).await;
    }
    let exit = world.stop().await;
    assert_eq!(exit.code, Some(0), "{}", exit.log);
    let audit = closing.audit(&Dead::new());
    println!("{audit}");
    assert!(
        audit.acked > 0 && audit.owed > 0,
        "the run proves nothing: {audit}"
    );
    audit
}

/// Prints what the server itself knows of deliveries that are missing, while it can be asked.
async fn explain(world: &World, audit: &Audit) {
    for (subscriber, id) in &audit.missing {
        let event = world.api().event(id).await;
        println!("missing at subscriber {subscriber}: {id}: {event:#?}");
    }
    println!("{}", world.server().log().text());
}

/// With little in flight, so that the bound on repeats says something.
fn bounded(options: Options) -> Options {
    options
        .env("FANFARE__WORKER__IN_FLIGHT", &IN_FLIGHT_MAX.to_string())
        .env(
            "FANFARE__ROUTING__OPEN_DELIVERIES_MAX",
            &OPEN_MAX.to_string(),
        )
}
