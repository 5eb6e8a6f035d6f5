//! The client's side under load: producers that publish, are cut off, and publish again.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fanfare_proto::v1;
use fanfare_proto::v1::event_service_client::EventServiceClient;
use futures::StreamExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::{Fate, Sent, Told, Wants, fingerprint};
use crate::eventually::{PATIENCE, eventually};

/// How long a producer waits before it knocks again.
const PAUSE: Duration = Duration::from_millis(5);
/// Longest wait for the answer to one call; a killed server answers by cutting the connection.
const CALL_MAX: Duration = Duration::from_secs(30);

/// What the producers send.
#[derive(Clone, Debug)]
pub struct Mix {
    /// Event types, equally likely.
    pub types: Vec<String>,
    /// Tenant.
    pub tenant: String,
    /// Producers side by side. One in three each calls unary, batch and stream.
    pub producers: usize,
    /// Of 1,000 events, how many carry 100 KiB: more than a delivery record takes inline.
    pub large: u32,
    /// Of 100 events with an unknown outcome, how many are not published again.
    pub abandoned: u32,
    /// Deliveries owed beyond the POSTs so far at which producers wait: however much faster a
    /// deployment accepts than it delivers, a trial ends.
    pub backlog: u64,
}

/// Producers at work. Dropping it stops them at once; [`Load::finish`] stops them properly.
pub struct Load {
    told: Arc<Told>,
    answers: Arc<AtomicU64>,
    unknown: Arc<AtomicU64>,
    running: watch::Sender<bool>,
    producers: JoinSet<()>,
}

impl Load {
    /// Starts producers against whatever `addresses` (`http://host:port` each) say at the time; a
    /// producer that one of them fails goes to the next.
    pub fn start(
        seed: u64,
        mix: &Mix,
        addresses: &watch::Receiver<Vec<String>>,
        posts: &Arc<AtomicU64>,
        wants: &[Wants],
    ) -> Self {
        let told = Arc::new(Told::default());
        let (answers, unknown) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let owed = Arc::new(AtomicU64::new(0));
        let running = watch::Sender::new(true);
        let mut producers = JoinSet::new();
        for index in 0..mix.producers {
            let producer = Producer {
                name: format!("{seed}-{index}"),
                rng: StdRng::seed_from_u64(seed.wrapping_add(index as u64)),
                mix: mix.clone(),
                addresses: addresses.clone(),
                turn: index,
                running: running.subscribe(),
                told: told.clone(),
                answers: answers.clone(),
                unknown: unknown.clone(),
                wants: wants.to_vec(),
                owed: owed.clone(),
                posts: posts.clone(),
                sent: 0,
                client: None,
            };
            producers.spawn(producer.run(index));
        }
        Self {
            told,
            answers,
            unknown,
            running,
            producers,
        }
    }

    /// Answers read so far, of whatever kind: a clock that stands still when nothing moves.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Events whose outcome was unknown to whoever published them, some time or other.
    pub fn unknown(&self) -> u64 {
        self.unknown.load(Ordering::Relaxed)
    }

    /// Waits until `more` answers were read after now.
    pub async fn advances(&self, more: u64) {
        let goal = self.answers() + more;
        eventually("answers to producers", async || match self.answers() {
            now if now >= goal => ControlFlow::Break(()),
            now => ControlFlow::Continue(format!("{now} of {goal}")),
        })
        .await;
    }

    /// Lets each producer finish what it has in hand and returns what they were told.
    pub async fn finish(mut self) -> Arc<Told> {
        self.running.send_replace(false);
        let all = async {
            while let Some(ended) = self.producers.join_next().await {
                ended.expect("a producer does not panic");
            }
        };
        let ended = tokio::time::timeout(PATIENCE, all).await;
        ended.expect("producers finish what they have in hand");
        self.told
    }
}

/// One producer: makes a few events, publishes them, and repeats those it knows nothing about.
struct Producer {
    name: String,
    rng: StdRng,
    mix: Mix,
    addresses: watch::Receiver<Vec<String>>,
    /// Which of them is tried next.
    turn: usize,
    running: watch::Receiver<bool>,
    told: Arc<Told>,
    answers: Arc<AtomicU64>,
    unknown: Arc<AtomicU64>,
    wants: Vec<Wants>,
    /// Deliveries of what was acknowledged, of all producers.
    owed: Arc<AtomicU64>,
    posts: Arc<AtomicU64>,
    sent: u64,
    client: Option<(String, EventServiceClient<Channel>)>,
}

/// What one try came to, per event.
enum Answer {
    /// Durable.
    Acked,
    /// Refused, and nothing was published by this try.
    Refused,
    /// Not published by this try, and worth another.
    Later,
    /// May have been published.
    Unknown,
}

/// An event on its way.
struct InHand {
    event: v1::Event,
    /// Whether some try of it may have been published.
    doubtful: bool,
}

impl Producer {
    async fn run(mut self, index: usize) {
        while *self.running.borrow() {
            if self.is_ahead() {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let count = match index % 3 {
                0 => 1,
                _ => self.rng.random_range(1..40),
            };
            let keyed = index.is_multiple_of(3);
            let mut hand: Vec<_> = (0..count).map(|_| self.make(keyed)).collect();
            while !hand.is_empty() {
                let answers = self.publish(index % 3, &hand).await;
                hand = self.sort(hand, answers);
                if !hand.is_empty() {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn is_ahead(&self) -> bool {
        let owed = self.owed.load(Ordering::Relaxed);
        owed > self.posts.load(Ordering::Relaxed) + self.mix.backlog
    }

    /// How many deliveries an event makes.
    fn owed_by(&self, event: &v1::Event) -> u64 {
        let covers = |wants: &&Wants| wants.covers(&self.mix.tenant, &event.r#type);
        self.wants.iter().filter(covers).count() as u64
    }

    /// Makes an event and notes that it is about to be sent. One of a producer that sends one at
    /// a time is `keyed`: its place among the acks is its place among what was sent.
    fn make(&mut self, keyed: bool) -> InHand {
        self.sent += 1;
        let id = format!("{}-{}", self.name, self.sent);
        let event_type = self
            .mix
            .types
            .choose(&mut self.rng)
            .expect("a mix has types")
            .clone();
        let large = self.rng.random_ratio(self.mix.large, 1_000);
        let filler = if large {
            100 * 1024
        } else {
            self.rng.random_range(0..2_000)
        };
        let data = format!(
            r#"{{"id":"{id}","n":{},"filler":"{}"}}"#,
            self.sent,
            "x".repeat(filler)
        );
        let sent = Sent {
            tenant: self.mix.tenant.clone(),
            event_type: event_type.clone(),
            key: keyed.then(|| (self.name.clone(), self.sent)),
            body: fingerprint(data.as_bytes()),
            fate: Fate::Unknown,
        };
        self.told.begin(&id, sent);
        let event = v1::Event {
            id,
            source: "/ledger".to_owned(),
            ordering_key: keyed.then(|| self.name.clone()),
            r#type: event_type,
            payload: Some(v1::event::Payload::Data(Bytes::from(data))),
            ..v1::Event::default()
        };
        InHand {
            event,
            doubtful: false,
        }
    }

    /// Settles what is certain and returns the rest, to be published again.
    fn sort(&mut self, hand: Vec<InHand>, answers: Vec<Answer>) -> Vec<InHand> {
        assert_eq!(hand.len(), answers.len(), "one answer per event");
        let mut again = Vec::new();
        for (mut event, answer) in hand.into_iter().zip(answers) {
            self.answers.fetch_add(1, Ordering::Relaxed);
            if matches!(answer, Answer::Unknown) {
                self.unknown.fetch_add(1, Ordering::Relaxed);
            }
            match answer {
                Answer::Acked => {
                    self.owed
                        .fetch_add(self.owed_by(&event.event), Ordering::Relaxed);
                    self.told.settle(&event.event.id, Fate::Acked);
                }
                Answer::Refused if event.doubtful => {}
                Answer::Refused => self.told.settle(&event.event.id, Fate::Refused),
                // Not worth waiting for any more: as good as refused.
                Answer::Later if !*self.running.borrow() && !event.doubtful => {
                    self.told.settle(&event.event.id, Fate::Refused);
                }
                Answer::Later => again.push(event),
                Answer::Unknown if self.rng.random_ratio(self.mix.abandoned, 100) => {}
                Answer::Unknown => {
                    event.doubtful = true;
                    again.push(event);
                }
            }
        }
        again
    }

    /// One try of all in hand, in the way of producer `kind`.
    async fn publish(&mut self, kind: usize, hand: &[InHand]) -> Vec<Answer> {
        let Some(mut client) = self.connect().await else {
            return hand.iter().map(|_| Answer::Later).collect();
        };
        let events: Vec<_> = hand.iter().map(|event| event.event.clone()).collect();
        let count = events.len();
        let tried = match kind {
            0 => unary(&mut client, events, &self.mix.tenant).await,
            1 => batch(&mut client, events, &self.mix.tenant).await,
            _ => stream(&mut client, events, &self.mix.tenant).await,
        };
        tried.unwrap_or_else(|status| {
            (self.client, self.turn) = (None, self.turn + 1);
            (0..count).map(|_| judge(&status)).collect()
        })
    }

    /// A client for one of the current addresses; none if nobody listens there.
    async fn connect(&mut self) -> Option<EventServiceClient<Channel>> {
        let addresses = self.addresses.borrow().clone();
        let known = self.client.as_ref().map(|(known, _)| known);
        if known.is_none_or(|known| !addresses.contains(known)) {
            let address = addresses[self.turn % addresses.len()].clone();
            let endpoint = Endpoint::from_shared(address.clone()).expect("the address is a URL");
            let Ok(channel) = endpoint.timeout(CALL_MAX).connect().await else {
                self.turn += 1;
                return None;
            };
            self.client = Some((address, EventServiceClient::new(channel)));
        }
        self.client.as_ref().map(|(_, client)| client.clone())
    }
}

async fn unary(
    client: &mut EventServiceClient<Channel>,
    events: Vec<v1::Event>,
    tenant: &str,
) -> Result<Vec<Answer>, Status> {
    let mut answers = Vec::new();
    for event in events {
        let id = event.id.clone();
        let request = v1::PublishRequest { event: Some(event) };
        let response = client
            .publish(tenanted(request, tenant))
            .await?
            .into_inner();
        assert_eq!(
            response.id, id,
            "an answer is about the event that was sent"
        );
        answers.push(Answer::Acked);
    }
    Ok(answers)
}

async fn batch(
    client: &mut EventServiceClient<Channel>,
    events: Vec<v1::Event>,
    tenant: &str,
) -> Result<Vec<Answer>, Status> {
    let request = v1::PublishBatchRequest { events };
    let response = client
        .publish_batch(tenanted(request, tenant))
        .await?
        .into_inner();
    Ok(response.results.into_iter().map(answer).collect())
}

async fn stream(
    client: &mut EventServiceClient<Channel>,
    events: Vec<v1::Event>,
    tenant: &str,
) -> Result<Vec<Answer>, Status> {
    let count = events.len();
    let requests: Vec<_> = (1..)
        .zip(events)
        .map(|(sequence, event)| v1::PublishStreamRequest {
            sequence,
            event: Some(event),
        })
        .collect();
    let request = tenanted(futures::stream::iter(requests), tenant);
    let mut responses = client.publish_stream(request).await?.into_inner();
    let mut answers = Vec::new();
    while let Some(Ok(response)) = responses.next().await {
        answers.extend(response.results.into_iter().map(answer));
    }
    // No result, however the call ended, means unknown.
    answers.resize_with(count, || Answer::Unknown);
    Ok(answers)
}

fn tenanted<T>(message: T, tenant: &str) -> Request<T> {
    let mut request = Request::new(message);
    let tenant = tenant.parse().expect("a tenant is ASCII");
    request.metadata_mut().insert("fanfare-tenant", tenant);
    request
}

fn answer(result: v1::PublishResult) -> Answer {
    use v1::publish_result::Result as Outcome;
    match result.result {
        Some(Outcome::Accepted(_)) => Answer::Acked,
        Some(Outcome::Error(error)) => {
            judge(&Status::new(Code::from_i32(error.code), error.message))
        }
        None => panic!("a result says neither accepted nor refused"),
    }
}

/// What a refusal means. Only refusals before anything was written are certain.
fn judge(status: &Status) -> Answer {
    match status.code() {
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented => Answer::Refused,
        Code::ResourceExhausted => Answer::Later,
        Code::AlreadyExists => panic!("an id was used for two bodies: {status:?}"),
        _ => Answer::Unknown,
    }
}
