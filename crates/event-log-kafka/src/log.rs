//! [`EventLog`] over Kafka.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use fanfare_domain::{Position, Shard};
use fanfare_event_log::{
    EventLog, Group, Lease, LogError, LogErrorKind, Outgoing, Progress, Reader, Span, Stream, Tail,
    Visibility,
};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::agreement::{Agreement, NoAgreement};
use crate::bookmark::Bookmark;
use crate::checkpoints::{Checkpoints, NoCheckpoints};
use crate::client::Common;
use crate::config::KafkaConfig;
use crate::error::OpenError;
use crate::layout::{Layout, Seat};
use crate::member::{Member, Terms};
use crate::producer::{Producer, Routed};
use crate::reader::KafkaReader;
use crate::security::Tokens;
use crate::stranded::Lookout;
use crate::tail::KafkaTail;
use crate::topics;

/// What a log needs of its program beside its configuration.
#[derive(Clone)]
pub struct Hooks {
    /// Decides where a group begins whose offsets are missing.
    pub checkpoints: Arc<dyn Checkpoints>,
    /// Says whether other programs of the log are configured alike.
    pub agreement: Arc<dyn Agreement>,
    /// Where OAUTHBEARER tokens come from.
    pub tokens: Option<Arc<dyn Tokens>>,
}

/// A log on Kafka. Dropping it writes what was handed over and leaves all groups, in the background.
pub struct KafkaLog {
    config: Arc<KafkaConfig>,
    layout: Arc<Layout>,
    common: Common,
    lookout: Lookout,
    checkpoints: Arc<dyn Checkpoints>,
    producers: Producers,
    members: Mutex<Vec<Weak<Member>>>,
    closed: AtomicBool,
    lost: Arc<AtomicU64>,
}

/// One for each stream: how long an append may take is a property of the client.
struct Producers {
    events: Producer,
    deliveries: Producer,
}

impl Producers {
    fn of(&self, stream: Stream) -> &Producer {
        match stream {
            Stream::Events => &self.events,
            Stream::Deliveries => &self.deliveries,
        }
    }
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            checkpoints: Arc::new(NoCheckpoints),
            agreement: Arc::new(NoAgreement),
            tokens: None,
        }
    }
}

impl KafkaLog {
    /// Opens the log: checks the configuration, then every topic that is there, then what the
    /// programs of the log agreed on, then creates the topics that are missing. A refusal has changed
    /// nothing.
    ///
    /// Errors: `Configuration`, `Unavailable`; each one sentence that says what to do.
    pub async fn open(config: KafkaConfig, hooks: Hooks) -> Result<Self, OpenError> {
        config.check()?;
        config.security.check_source(hooks.tokens.as_deref())?;
        let layout = Layout::new(&config);
        let common = Common {
            tokens: hooks.tokens,
        };
        topics::prepare(&config, &layout, &common, &*hooks.agreement).await?;
        let producers = Producers {
            events: Producer::new(&config, Stream::Events, common.clone())?,
            deliveries: Producer::new(&config, Stream::Deliveries, common.clone())?,
        };
        Ok(Self {
            lookout: Lookout::new(&config, &common)?,
            config: Arc::new(config),
            layout: Arc::new(layout),
            common,
            checkpoints: hooks.checkpoints,
            producers,
            members: Mutex::default(),
            closed: AtomicBool::new(false),
            lost: Arc::default(),
        })
    }

    /// Records that retention took before they were settled, since the log was opened. Anything but
    /// 0 is an alarm.
    pub fn records_lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Whether every span of `stream` could take a record now: it has a leader, and enough replicas
    /// in sync. Otherwise one sentence that says what is wrong. Takes up to `request_timeout_ms`
    /// for each topic.
    pub async fn check_writable(&self, stream: Stream) -> Result<(), String> {
        let names = self.layout.topic_names(stream).into_iter();
        let names = names.map(str::to_owned).collect();
        self.producers.of(stream).check_writable(names).await
    }

    /// Where everything lies.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The consumer group behind `group` on `stream`.
    pub fn consumer_group(&self, stream: Stream, group: &Group) -> String {
        self.config.group_id(stream, group)
    }

    /// Closes the log at once: leases are lost, readers end, appends are refused. What was handed
    /// over is still written. Resolves when every membership has ended.
    pub async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.producers.events.close();
        self.producers.deliveries.close();
        let members = self.living();
        for member in &members {
            member.abandon();
        }
        for member in members {
            member.ended().await;
        }
    }

    fn living(&self) -> Vec<Arc<Member>> {
        let mut members = self.members.lock();
        members.retain(|member| member.upgrade().is_some_and(|m| !m.has_ended()));
        members.iter().filter_map(Weak::upgrade).collect()
    }

    fn check_open(&self) -> Result<(), LogError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(LogErrorKind::Closed.into());
        }
        Ok(())
    }

    fn routed(&self, stream: Stream, outgoing: Outgoing) -> Routed {
        let (topic, _) = self.layout.route(stream, outgoing.shard, &outgoing.subject);
        let seat = Seat {
            topic: topic.name.clone(),
            partition: (u16::from(outgoing.shard.0) % topic.partitions).into(),
        };
        Routed {
            seat,
            bytes: outgoing.bytes,
        }
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        for member in self.living() {
            member.abandon();
        }
    }
}

#[async_trait]
impl EventLog for KafkaLog {
    fn spans(&self, stream: Stream) -> Vec<Span> {
        self.layout.spans(stream)
    }

    fn span_of(&self, stream: Stream, shard: Shard, subject: &str) -> Span {
        self.layout.route(stream, shard, subject).1
    }

    async fn append(
        &self,
        stream: Stream,
        batch: Vec<Outgoing>,
    ) -> Result<Vec<Position>, LogError> {
        self.check_open()?;
        let routed = batch
            .into_iter()
            .map(|outgoing| self.routed(stream, outgoing));
        self.producers.of(stream).append(routed.collect()).await
    }

    async fn join(
        &self,
        stream: Stream,
        group: &Group,
        // Whatever Kafka shows is durable already.
        _: Visibility,
    ) -> Result<Box<dyn Reader>, LogError> {
        self.check_open()?;
        let terms = Terms {
            config: self.config.clone(),
            layout: self.layout.clone(),
            checkpoints: self.checkpoints.clone(),
            common: self.common.clone(),
            lookout: self.lookout.clone(),
            lost: self.lost.clone(),
            runtime: Handle::current(),
        };
        let member = Member::join(stream, group.clone(), terms)?;
        let mut members = self.members.lock();
        members.retain(|member| member.strong_count() > 0);
        members.push(Arc::downgrade(&member));
        Ok(Box::new(KafkaReader::new(member)))
    }

    async fn tail(&self, stream: Stream) -> Result<Box<dyn Tail>, LogError> {
        self.check_open()?;
        let (config, layout) = (self.config.clone(), self.layout.clone());
        let tail = KafkaTail::follow(stream, config, layout, self.common.clone()).await?;
        Ok(Box::new(tail))
    }

    async fn commit(&self, lease: &Lease, progress: &Progress) -> Result<(), LogError> {
        self.check_open()?;
        if progress.encoded_len() > self.progress_max_bytes() {
            return Err(LogErrorKind::ProgressTooLarge.into());
        }
        let members = self.living();
        let Some(member) = members.iter().find(|member| member.grants(lease)) else {
            return Err(LogErrorKind::LeaseLost.into());
        };
        member.commit(lease, progress).await
    }

    fn progress_max_bytes(&self) -> usize {
        let bytes = self.config.commit_metadata_max_bytes;
        Bookmark::progress_max_bytes(usize::try_from(bytes).unwrap_or(usize::MAX))
    }
}
