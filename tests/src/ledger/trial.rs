//! A run: subscribers that are registered, producers at work, and the audit at the end.
//!
//! It is given an address that may change while the deployment behind it is killed, moved and
//! restarted; what does that to it is not its business.

use std::fmt::Display;
use std::ops::ControlFlow;
use std::time::Duration;

use fanfare_proto::v1;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Audit, Dead, Load, Manners, Mix, Subscribers, Told, Wants, audit};
use crate::api::Api;
use crate::eventually::PATIENCE;

/// How long between two looks at whether everything has arrived.
const LOOK: Duration = Duration::from_millis(200);

/// Producers and subscribers around a deployment.
pub struct Trial {
    seed: u64,
    addresses: watch::Sender<Vec<String>>,
    subscribers: Subscribers,
    load: Load,
}

/// A trial whose producers have ended.
pub struct Closing {
    seed: u64,
    subscribers: Subscribers,
    told: std::sync::Arc<Told>,
}

/// Who subscribes in a trial, and how they behave.
#[derive(Clone, Debug)]
pub struct Audience(pub Vec<(Wants, Manners)>);

impl Audience {
    /// Everyone a deployment should cope with: a plain one, one that refuses at first, a slow one
    /// that wants everything, and another tenant's, who must get nothing.
    pub fn mixed() -> Self {
        let plain = Manners::default();
        let stumbling = Manners {
            stumbles: 10,
            refusals: 2,
            ..plain
        };
        let slow = Manners {
            delay: Duration::from_millis(3),
            ..plain
        };
        Self(vec![
            (Wants::new("default", &["order.**"]), plain),
            (
                Wants::new("default", &["order.paid", "invoice.sent"]),
                stumbling,
            ),
            (Wants::new("default", &["**"]), slow),
            (Wants::new("other", &["**"]), plain),
        ])
    }

    /// The mixed one, and enough plain ones that want a little for every process of a cluster to
    /// have some: an endpoint belongs to one partition, and so to one worker.
    pub fn widespread() -> Self {
        let few = ["chat", "invoice.sent"];
        let more = (0..8).map(|i| {
            (
                Wants::new("default", &[few[i % few.len()]]),
                Manners::default(),
            )
        });
        let Self(mut all) = Self::mixed();
        all.extend(more);
        Self(all)
    }

    /// The same, and each takes this long over every answer.
    #[must_use]
    pub fn taking(mut self, delay: Duration) -> Self {
        for (_, manners) in &mut self.0 {
            manners.delay = delay;
        }
        self
    }
}

impl Mix {
    /// Twelve producers of everything.
    pub fn mixed() -> Self {
        let types = [
            "order.created",
            "order.paid",
            "order.paid.late",
            "invoice.sent",
            "chat",
        ];
        Self {
            types: types.map(str::to_owned).to_vec(),
            tenant: "default".to_owned(),
            producers: 12,
            large: 2,
            abandoned: 20,
            backlog: 20_000,
        }
    }
}

impl Trial {
    /// Registers the audience at `url` and lets the producers loose on it.
    pub async fn start(seed: u64, url: &str, mix: &Mix, audience: &Audience) -> Self {
        Self::spread(seed, &[url.to_owned()], mix, audience).await
    }

    /// Registers the audience at the first of `urls` and lets the producers loose on all.
    pub async fn spread(seed: u64, urls: &[String], mix: &Mix, audience: &Audience) -> Self {
        println!("seed {seed}");
        let subscribers = Subscribers::start().await;
        for (wants, manners) in &audience.0 {
            register(&subscribers, &urls[0], wants, *manners).await;
        }
        let addresses = watch::Sender::new(urls.to_vec());
        let wants: Vec<_> = audience.0.iter().map(|(wants, _)| wants.clone()).collect();
        let load = Load::start(
            seed,
            mix,
            &addresses.subscribe(),
            &subscribers.posts_counter(),
            &wants,
        );
        Self {
            seed,
            addresses,
            subscribers,
            load,
        }
    }

    /// From now on the deployment is reached at `url`.
    pub fn moved(&self, url: &str) {
        self.spread_over(&[url.to_owned()]);
    }

    /// From now on the deployment is reached at each of `urls`.
    pub fn spread_over(&self, urls: &[String]) {
        self.addresses.send_replace(urls.to_vec());
    }

    /// The subscribers.
    pub fn subscribers(&self) -> &Subscribers {
        &self.subscribers
    }

    /// The producers.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// Lets the producers finish what they have in hand.
    pub async fn close(self) -> Closing {
        let told = self.load.finish().await;
        Closing {
            seed: self.seed,
            subscribers: self.subscribers,
            told,
        }
    }
}

impl Closing {
    /// Waits until nothing that was acknowledged is missing, for as long as something still comes.
    pub async fn settles(&self) -> Audit {
        let (mut posts, mut since) = (0, Instant::now());
        loop {
            let audit = self.audit(&Dead::new());
            let now = self.subscribers.posts();
            if now != posts {
                (posts, since) = (now, Instant::now());
            }
            if audit.lost == 0 || since.elapsed() > PATIENCE {
                return audit;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Compares what was told with what was seen so far.
    pub fn audit(&self, dead: &Dead) -> Audit {
        let (told, saw) = (self.told.events(), self.subscribers.saw());
        audit(self.seed, &told, &self.subscribers.wants(), &saw, dead)
    }

    /// The subscribers.
    pub fn subscribers(&self) -> &Subscribers {
        &self.subscribers
    }
}

/// Adds a hook, and the endpoint and subscription that lead to it.
pub async fn register(subscribers: &Subscribers, url: &str, wants: &Wants, manners: Manners) {
    let (index, hook) = subscribers.add(wants.clone(), manners);
    let delay = Duration::from_millis(200).try_into().expect("short");
    let request = v1::CreateEndpointRequest {
        endpoint: Some(v1::Endpoint {
            url: hook,
            retry_schedule: Some(v1::RetrySchedule {
                delays: vec![delay; 20],
            }),
            ..v1::Endpoint::default()
        }),
        event_types: wants.patterns.clone(),
        request_id: String::new(),
    };
    let mut endpoints = Api::new(url).tenant(&wants.tenant).endpoints();
    let created = endpoints
        .create_endpoint(request)
        .await
        .expect("created")
        .into_inner();
    subscribers.trust(index, &created.endpoint.expect("the answer has it").secret);
}

/// The seed of a run: `FANFARE_SEED` to repeat one, otherwise a new one.
pub fn seed() -> u64 {
    std::env::var("FANFARE_SEED")
        .ok()
        .map_or_else(rand::random, |text| number("FANFARE_SEED", &text))
}

/// A number that someone set.
pub fn number<T: std::str::FromStr<Err: Display>>(name: &str, text: &str) -> T {
    text.parse()
        .unwrap_or_else(|error| panic!("{name}={text}: {error}"))
}

/// Waits until a subscriber side counter of `trial` satisfies `enough`.
pub async fn until(what: &str, mut count: impl FnMut() -> u64, enough: u64) {
    crate::eventually(what, async || match count() {
        now if now >= enough => ControlFlow::Break(()),
        now => ControlFlow::Continue(format!("{now} of {enough}")),
    })
    .await;
}
