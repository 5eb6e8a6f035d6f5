//! A trial around a fleet.

use fanfare_tests::ledger::{Audience, Audit, Dead, Mix, Trial, seed};
use fanfare_tests::server::Program;
use fanfare_tests::{Fleet, Services};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{Mutex, MutexGuard};

/// Most POSTs of one worker in flight, or answered and not yet committed.
pub(crate) const IN_FLIGHT_MAX: usize = 64;
/// Most deliveries that one router has appended and not yet committed.
pub(crate) const OPEN_MAX: usize = 128;
/// What the death of one of each may repeat.
pub(crate) const REPEATS_MAX: usize = IN_FLIGHT_MAX + OPEN_MAX;

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A fleet under load.
pub(crate) struct Stage {
    pub(crate) fleet: Fleet,
    pub(crate) trial: Trial,
    pub(crate) rng: StdRng,
    _turn: MutexGuard<'static, ()>,
}

impl Stage {
    /// Two routers and two workers on shared services, with the mixed audience.
    pub(crate) async fn two_and_two() -> Self {
        let turn = ONE_AT_A_TIME.lock().await;
        Self::on(turn, Services::shared().await, &Audience::mixed()).await
    }

    async fn on(turn: MutexGuard<'static, ()>, services: Services, audience: &Audience) -> Self {
        let mut fleet = Fleet::prepare(services);
        fleet.env("FANFARE__WORKER__IN_FLIGHT", &IN_FLIGHT_MAX.to_string());
        fleet.env(
            "FANFARE__ROUTING__OPEN_DELIVERIES_MAX",
            &OPEN_MAX.to_string(),
        );
        fleet.migrate().await.ok();
        for program in [Program::Router, Program::Worker] {
            fleet.add(program).await;
            fleet.add(program).await;
        }
        let seed = seed();
        let mix = Mix {
            producers: 6,
            ..Mix::mixed()
        };
        let trial = Trial::spread(seed, &fleet.urls(), &mix, audience).await;
        Self {
            fleet,
            trial,
            rng: StdRng::seed_from_u64(seed),
            _turn: turn,
        }
    }

    /// Tells the producers which routers there are.
    pub(crate) fn spread(&self) {
        self.trial.spread_over(&self.fleet.urls());
    }

    /// Ends the load, waits until everything has arrived, stops everything cleanly, and audits.
    pub(crate) async fn end(mut self) -> Audit {
        let closing = self.trial.close().await;
        let settled = closing.settles().await;
        if settled.lost > 0 {
            for (subscriber, id) in &settled.missing {
                let event = self.fleet.api().event(id).await;
                println!("missing at subscriber {subscriber}: {id}: {event:#?}");
            }
        }
        for exit in self.fleet.stop_all().await {
            assert_eq!(exit.code, Some(0), "{}", exit.log);
        }
        let audit = closing.audit(&Dead::new());
        println!("{audit}");
        assert!(
            audit.acked > 0 && audit.owed > 0,
            "it proves nothing: {audit}"
        );
        audit
    }
}
