//! Things break under load, and the ledger is compared: LOST = PHANTOM = WRONG = 0, and DUP is
//! bounded by what was in flight. Each run has a seed and prints it.

mod crash_points;
mod damage;
mod disk;
mod kill;
mod stop;

use fanfare_tests::World;
use fanfare_tests::ledger::{Audience, Audit, Closing, Dead, Mix, Trial, seed};
use fanfare_tests::server::Options;
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Most POSTs of one server in flight in these tests: what one crash may repeat.
const IN_FLIGHT_MAX: usize = 64;

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

    /// Ends the load, waits until everything has arrived, stops the server cleanly, and audits.
    async fn end(self) -> Audit {
        let mut world = self.world;
        let closing = self.trial.close().await;
        ended(&mut world, &closing).await
    }
}

/// Waits until everything has arrived and the server has stopped, so that nothing more can come.
async fn ended(world: &mut World, closing: &Closing) -> Audit {
    closing.settles().await;
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

/// At most [`IN_FLIGHT_MAX`] POSTs at a time.
fn bounded(options: Options) -> Options {
    options.env("FANFARE__WORKER__IN_FLIGHT", &IN_FLIGHT_MAX.to_string())
}
