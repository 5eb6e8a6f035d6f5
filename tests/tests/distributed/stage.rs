//! A trial around a fleet.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use fanfare_proto::v1;
use fanfare_test_services::Cluster;
use fanfare_tests::api::Api;
use fanfare_tests::ledger::{Audience, Audit, Dead, Mix, Trial, seed};
use fanfare_tests::server::Program;
use fanfare_tests::sink::Sink;
use fanfare_tests::{Fleet, Services, eventually, http};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Most POSTs of one worker in flight, or answered and not yet committed.
pub(crate) const IN_FLIGHT_MAX: usize = 64;
/// Most deliveries that one router has appended and not yet committed.
pub(crate) const OPEN_MAX: usize = 128;
/// What the death of one of each may repeat.
pub(crate) const REPEATS_MAX: usize = IN_FLIGHT_MAX + OPEN_MAX;

/// Waits for one's turn, which lasts until it is dropped.
pub(crate) async fn turn() -> SemaphorePermit<'static> {
    TURNS.acquire().await.unwrap()
}

/// With little in flight, so that the bound on repeats says something.
pub(crate) fn bounded(fleet: &mut Fleet) {
    fleet.env("FANFARE__WORKER__IN_FLIGHT", &IN_FLIGHT_MAX.to_string());
    fleet.env(
        "FANFARE__ROUTING__OPEN_DELIVERIES_MAX",
        &OPEN_MAX.to_string(),
    );
}

/// Makes an endpoint for events of a type, which are tried three times in short order; its id.
pub(crate) async fn endpoint(api: &Api, sink: &Sink, event_type: &str) -> String {
    let soon = Duration::from_millis(100).try_into().unwrap();
    let request = v1::CreateEndpointRequest {
        endpoint: Some(v1::Endpoint {
            url: sink.url(),
            retry_schedule: Some(v1::RetrySchedule {
                delays: vec![soon; 2],
            }),
            ..v1::Endpoint::default()
        }),
        event_types: vec![event_type.to_owned()],
        // Repeated as the API asks for, it is made once.
        request_id: format!("{:016x}", rand::random::<u64>()),
    };
    eventually("the endpoint to be made", async || {
        match api.endpoints().create_endpoint(request.clone()).await {
            Ok(created) => ControlFlow::Break(created.into_inner().endpoint.unwrap().id),
            Err(status) if status.code() == tonic::Code::Unavailable => {
                ControlFlow::Continue(status.to_string())
            }
            Err(status) => panic!("it is refused: {status}"),
        }
    })
    .await
}

/// Waits until `/readyz` of a process answers what is wanted.
pub(crate) async fn until_readyz(admin: SocketAddr, wanted: impl Fn(u16, &str) -> bool) {
    let url = format!("http://{admin}/readyz");
    eventually("readiness to change", async || {
        match http::get(&url).await {
            Ok(answer) if wanted(answer.status, &answer.text()) => ControlFlow::Break(()),
            other => ControlFlow::Continue(format!("{other:?}")),
        }
    })
    .await;
}

/// How many tests run at a time: most of their time they wait for sessions to end and for services to return.
static TURNS: Semaphore = Semaphore::const_new(2);

/// A fleet under load.
pub(crate) struct Stage {
    pub(crate) fleet: Fleet,
    pub(crate) trial: Trial,
    pub(crate) rng: StdRng,
    _turn: SemaphorePermit<'static>,
}

impl Stage {
    /// Two routers and two workers on shared services, with the widespread audience.
    pub(crate) async fn two_and_two() -> Self {
        Self::two_and_two_for(&Audience::widespread()).await
    }

    /// The same, for an audience.
    pub(crate) async fn two_and_two_for(audience: &Audience) -> Self {
        Self::on(Services::shared(), (2, 2), audience).await
    }

    /// One router and one worker, for an audience.
    pub(crate) async fn one_and_one(audience: &Audience) -> Self {
        Self::on(Services::shared(), (1, 1), audience).await
    }

    /// Two routers and two workers on so many brokers and nodes of its own; 0: the shared ones.
    pub(crate) async fn with_own(brokers: usize, nodes: usize) -> Self {
        let audience = Audience::widespread();
        Self::on(Services::own(brokers, nodes), (2, 2), &audience).await
    }

    /// The same, with environment variables of every process.
    pub(crate) async fn with_own_where(
        brokers: usize,
        nodes: usize,
        environment: &[(&str, &str)],
    ) -> Self {
        let audience = Audience::widespread();
        Self::of(
            Services::own(brokers, nodes),
            (2, 2),
            &audience,
            environment,
        )
        .await
    }

    async fn on(
        services: impl Future<Output = Services>,
        processes: (usize, usize),
        audience: &Audience,
    ) -> Self {
        Self::of(services, processes, audience, &[]).await
    }

    async fn of(
        services: impl Future<Output = Services>,
        (routers, workers): (usize, usize),
        audience: &Audience,
        environment: &[(&str, &str)],
    ) -> Self {
        let turn = turn().await;
        let mut fleet = Fleet::prepare(services.await);
        bounded(&mut fleet);
        for (name, value) in environment {
            fleet.env(name, value);
        }
        fleet.migrate().await.ok();
        for _ in 0..routers {
            fleet.add(Program::Router).await;
        }
        for _ in 0..workers {
            fleet.add(Program::Worker).await;
        }
        let seed = seed();
        let mix = Mix {
            producers: 6,
            backlog: 1_000,
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

    /// Does something to the brokers, which are its own.
    pub(crate) fn brokers(&mut self, what: impl FnOnce(&mut Cluster) -> anyhow::Result<()>) {
        let kafka = self.fleet.services.kafka.as_mut();
        what(kafka.expect("brokers of its own")).expect("it can be done to a broker");
    }

    /// Does something to the nodes, which are its own.
    pub(crate) fn nodes(&mut self, what: impl FnOnce(&mut Cluster) -> anyhow::Result<()>) {
        let cql = self.fleet.services.cql.as_mut();
        what(cql.expect("nodes of its own")).expect("it can be done to a node");
    }

    /// Waits until no router is ready, for a reason that contains `why`; all stay alive.
    pub(crate) async fn until_unready(&self, why: &str) {
        for number in 0..2 {
            let named = |status, text: &str| status == 503 && text.contains(why);
            until_readyz(self.admin(number), named).await;
            let url = format!("http://{}/livez", self.admin(number));
            assert_eq!(http::get(&url).await.unwrap().status, 200);
        }
    }

    /// Waits until every router is ready.
    pub(crate) async fn until_ready(&self) {
        for number in 0..2 {
            until_readyz(self.admin(number), |status, _| status == 200).await;
        }
    }

    fn admin(&self, router: usize) -> SocketAddr {
        let server = self.fleet.server(Program::Router, router);
        server.addresses().admin_listen
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
