//! The load: events of 1 KiB, published in each of the ways there are, never further ahead of the
//! deliveries than a bound, so that what is measured is a steady state and not a backlog.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use fanfare_domain::{AcceptedEvent, Data, Event, EventId, EventType, Source, TenantId, Timestamp};
use fanfare_event_log::record::encode_event;
use fanfare_proto::v1;
use fanfare_proto::v1::endpoint_service_client::EndpointServiceClient;
use fanfare_proto::v1::event::Payload;
use fanfare_proto::v1::event_service_client::EventServiceClient;
use fanfare_proto::v1::publish_result;
use futures::stream;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::sink::{self, BODY_START, Sink};

/// Bytes of every body.
const BODY_BYTES: usize = 1024;
/// Most deliveries that the load is ahead of the sink, unless it says otherwise.
const AHEAD_MAX: u64 = 2000;

/// Endpoints created at a time: in a cluster each waits until all routers know it, and a few that
/// come between each other are decided again.
const CREATING: usize = 4;

/// How events are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// One call with one stream, so many events unanswered.
    Stream {
        /// Most unanswered.
        window: usize,
    },
    /// Calls of 100 events, four at a time.
    Batch,
    /// One event a call, so many at a time.
    Unary {
        /// Most unanswered.
        window: usize,
    },
}

/// Where events go and what comes of each.
#[derive(Clone)]
pub(crate) struct Load {
    /// Of the server.
    pub(crate) channel: Channel,
    /// What event types and ids begin with: none is published twice to one server.
    pub(crate) name: &'static str,
    /// Deliveries that each event makes.
    pub(crate) fan_out: u64,
    /// Most deliveries that the load is ahead of the sink.
    pub(crate) ahead_max: u64,
    /// How many event types there are to publish in turn (`name.t0`, `name.t1`, …).
    pub(crate) types: u64,
    /// Counts what arrives at the sink; `None` when nothing is to wait for it.
    pub(crate) arrived: Option<watch::Receiver<u64>>,
    /// What had arrived when the load began.
    pub(crate) arrived_before: u64,
    /// Events published by this load and its clones.
    pub(crate) published: Arc<AtomicU64>,
}

/// A body, stamped with now.
pub(crate) fn body() -> Bytes {
    let start = format!("{BODY_START}{}\",\"pad\":\"", sink::stamp());
    let mut body = start.into_bytes();
    body.resize(BODY_BYTES - 2, b'x');
    body.extend(b"\"}");
    body.into()
}

/// What the router writes to the log of an event with such a body.
pub(crate) fn record() -> Result<Bytes> {
    let event = Event {
        id: EventId::try_new("bench-100000")?,
        source: Source::try_new("/bench")?,
        event_type: EventType::try_new("bench.t0")?,
        subject: None,
        time: Some(Timestamp::now()),
        data_content_type: "application/json".into(),
        data_schema: None,
        data: Data::Bytes(body()),
        ordering_key: None,
        extensions: BTreeMap::new(),
    };
    Ok(encode_event(&AcceptedEvent {
        tenant: TenantId::try_new("default")?,
        body_hash: event.body_hash(),
        accept_time: Timestamp::now(),
        event,
    }))
}

/// Starts things evenly: so many a second.
pub(crate) struct Pacer {
    started: Instant,
    per_second: u64,
    made: u64,
}

impl Pacer {
    /// From now on.
    pub(crate) fn new(per_second: u64) -> Self {
        Self {
            started: Instant::now(),
            per_second,
            made: 0,
        }
    }

    /// Waits up to a millisecond and says how many are to be started now.
    pub(crate) async fn due(&mut self) -> u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let elapsed = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let due = elapsed * self.per_second / 1_000_000;
        let now = due - self.made;
        self.made = due;
        now
    }
}

/// Creates an endpoint at `url` that wants `pattern`.
pub(crate) async fn subscribe(channel: Channel, url: String, pattern: &str) -> Result<()> {
    let request = v1::CreateEndpointRequest {
        endpoint: Some(v1::Endpoint {
            url,
            ..v1::Endpoint::default()
        }),
        event_types: vec![pattern.to_owned()],
        ..v1::CreateEndpointRequest::default()
    };
    let mut client = EndpointServiceClient::new(channel);
    client.create_endpoint(request).await?;
    Ok(())
}

impl Load {
    /// Events of one type whose deliveries, if there are any, nobody waits for.
    pub(crate) fn unwatched(channel: Channel, name: &'static str) -> Self {
        Self {
            channel,
            name,
            fan_out: 0,
            ahead_max: AHEAD_MAX,
            types: 1,
            arrived: None,
            arrived_before: 0,
            published: Arc::default(),
        }
    }

    /// Creates `endpoints` endpoints that deliver to `sink`, `fan_out` for every event.
    pub(crate) async fn subscribed(
        channel: Channel,
        name: &'static str,
        sink: &Sink,
        endpoints: u64,
        fan_out: u64,
    ) -> Result<Self> {
        let types = endpoints / fan_out;
        let creating = (0..endpoints).map(|n| {
            let (channel, url) = (channel.clone(), sink.url(&format!("e{n}")));
            let pattern = format!("{name}.t{}", n % types);
            async move { subscribe(channel, url, &pattern).await }
        });
        let creating = stream::iter(creating).buffer_unordered(CREATING);
        creating.try_collect::<()>().await?;
        Ok(Self {
            fan_out,
            types,
            arrived: Some(sink.counts()),
            arrived_before: sink.count(),
            ..Self::unwatched(channel.clone(), name)
        })
    }

    /// The same events through another server; both count as one load.
    pub(crate) fn through(&self, channel: Channel) -> Self {
        Self {
            channel,
            ..self.clone()
        }
    }

    /// The same without waiting for deliveries.
    pub(crate) fn unwaited(&self) -> Self {
        Self {
            arrived: None,
            ..self.clone()
        }
    }

    /// Events published so far.
    pub(crate) fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// What the sink has when everything published so far has arrived once.
    pub(crate) fn owed(&self) -> u64 {
        self.arrived_before + self.published() * self.fan_out
    }

    /// Publishes for `length`; the events that were acknowledged. `pace` is events per second,
    /// `None`: as fast as it goes.
    pub(crate) async fn run(&self, way: Way, length: Duration, pace: Option<u64>) -> Result<u64> {
        let before = self.published();
        let end = Instant::now() + length;
        match (way, pace) {
            (Way::Unary { window }, None) => self.each(window, 1, end).await?,
            (Way::Batch, None) => self.each(4, 100, end).await?,
            (Way::Stream { window }, pace) => self.stream(window, end, u64::MAX, pace).await?,
            (_, Some(pace)) => self.steady(pace, end).await?,
        }
        Ok(self.published() - before)
    }

    /// Publishes exactly `count` events over a stream.
    pub(crate) async fn exactly(&self, count: u64, window: usize) -> Result<()> {
        let end = Instant::now() + Duration::from_hours(1);
        self.stream(window, end, count, None).await
    }

    /// So many callers, each with the next call as soon as it has its answer.
    async fn each(&self, callers: usize, batch: u64, end: Instant) -> Result<()> {
        let mut tasks = JoinSet::new();
        for _ in 0..callers {
            let load = self.clone();
            tasks.spawn(async move {
                while Instant::now() < end {
                    load.keep_close().await?;
                    load.call(batch).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// One event a call, evenly.
    async fn steady(&self, pace: u64, end: Instant) -> Result<()> {
        let mut pacer = Pacer::new(pace);
        let mut calls = JoinSet::new();
        while Instant::now() < end {
            for _ in 0..pacer.due().await {
                let load = self.clone();
                calls.spawn(async move { load.call(1).await });
            }
            while let Some(ended) = calls.try_join_next() {
                ended??;
            }
            ensure!(calls.len() < 10_000, "the server does not keep up");
        }
        while let Some(ended) = calls.join_next().await {
            ended??;
        }
        Ok(())
    }

    async fn call(&self, batch: u64) -> Result<()> {
        let mut client = self.client();
        let first = self.published.fetch_add(batch, Ordering::Relaxed);
        if batch == 1 {
            let event = Some(self.event(first));
            client.publish(v1::PublishRequest { event }).await?;
            return Ok(());
        }
        let events = (first..first + batch).map(|n| self.event(n)).collect();
        let answer = client
            .publish_batch(v1::PublishBatchRequest { events })
            .await?;
        answer.into_inner().results.iter().try_for_each(accepted)
    }

    async fn stream(
        &self,
        window: usize,
        end: Instant,
        count: u64,
        pace: Option<u64>,
    ) -> Result<()> {
        let (sender, receiver) = mpsc::channel(window);
        let unanswered = Arc::new(Semaphore::new(window));
        let permits = unanswered.clone();
        let load = self.clone();
        let sending = tokio::spawn(async move {
            let mut pacer = pace.map(Pacer::new);
            let mut due = 0;
            for sequence in 1..=count {
                if Instant::now() >= end {
                    break;
                }
                while due == 0 {
                    due = match &mut pacer {
                        Some(pacer) => pacer.due().await,
                        None => u64::MAX,
                    };
                }
                due -= 1;
                load.keep_close().await?;
                permits.acquire().await?.forget();
                let n = load.published.fetch_add(1, Ordering::Relaxed);
                let event = Some(load.event(n));
                let request = v1::PublishStreamRequest { sequence, event };
                sender
                    .send(request)
                    .await
                    .context("the stream ended early")?;
            }
            anyhow::Ok(())
        });
        let requests = stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|request| (request, receiver))
        });
        let mut answers = self.client().publish_stream(requests).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            unanswered.add_permits(answer.results.len());
            answer.results.iter().try_for_each(accepted)?;
        }
        sending.await?
    }

    fn client(&self) -> EventServiceClient<Channel> {
        EventServiceClient::new(self.channel.clone())
    }

    fn event(&self, n: u64) -> v1::Event {
        v1::Event {
            id: format!("{}-{n}", self.name),
            source: "/bench".into(),
            r#type: format!("{}.t{}", self.name, n % self.types),
            payload: Some(Payload::Data(body())),
            ..v1::Event::default()
        }
    }

    /// Waits while too much is published and not delivered.
    async fn keep_close(&self) -> Result<()> {
        let Some(mut arrived) = self.arrived.clone() else {
            return Ok(());
        };
        let enough = self.owed().saturating_sub(self.ahead_max);
        sink::reaches(&mut arrived, enough).await
    }
}

fn accepted(result: &v1::PublishResult) -> Result<()> {
    match &result.result {
        Some(publish_result::Result::Accepted(_)) => Ok(()),
        other => bail!("not accepted: {other:?}"),
    }
}
