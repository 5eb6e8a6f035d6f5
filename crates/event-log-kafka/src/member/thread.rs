//! The thread that polls a member's consumer.
//!
//! It never waits for a holder. What it waits for are short questions to the brokers before a
//! grant. When the client breaks for good, all leases are lost and another client joins.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fanfare_event_log::{LogError, LogErrorKind};
use rdkafka::TopicPartitionList;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;
use tokio::sync::Semaphore;

use super::context::{Consumer, Context, Turn};
use super::leaving::Reason;
use super::outbox::{Letter, Purpose};
use super::{Member, Standing, outbox};
use crate::error::unavailable;
use crate::layout::Seat;
use crate::stranded::Watch;

/// How long one poll waits, and so how late a dropped lease is noticed.
pub(super) const TICK: Duration = Duration::from_millis(10);
/// How long to wait after something failed.
pub(super) const PAUSE: Duration = Duration::from_millis(250);

/// Starts it.
pub(super) fn start(member: &Arc<Member>) -> Result<(), LogError> {
    let consumer = connect(member)?;
    let member = member.clone();
    let started = thread::Builder::new()
        .name("kafka-member".into())
        .spawn(move || run(&member, consumer));
    match started {
        Ok(_) => Ok(()),
        Err(error) => Err(LogError::because(LogErrorKind::Unavailable, error)),
    }
}

fn connect(member: &Arc<Member>) -> Result<Arc<Consumer>, LogError> {
    let terms = &member.terms;
    let properties = terms
        .config
        .consumer(member.stream, &member.group)
        .map_err(|error| LogError::because(LogErrorKind::Unavailable, error))?;
    let context = Context::new(terms.common.clone(), Arc::downgrade(member));
    let consumer = Consumer::from_config_and_context(&properties, context).map_err(unavailable)?;
    consumer
        .subscribe(&terms.layout.topic_names(member.stream))
        .map_err(unavailable)?;
    Ok(Arc::new(consumer))
}

fn run(member: &Arc<Member>, first: Arc<Consumer>) {
    let mut next = Some(first);
    loop {
        match next.take().map_or_else(|| connect(member), Ok) {
            Ok(consumer) => match outbox::start(member, &consumer) {
                Ok(()) => Polling::new(member.clone(), consumer).run(),
                Err(error) => tracing::error!(%error, "cannot commit; trying again"),
            },
            Err(error) => tracing::error!(%error, "cannot join the group; trying again"),
        }
        if member.may_end() {
            return;
        }
        thread::sleep(PAUSE);
    }
}

impl Member {
    /// Whether the member is leaving; it has ended then.
    fn may_end(&self) -> bool {
        let mut state = self.state.lock();
        if state.standing == Standing::Joined {
            return false;
        }
        state.standing = Standing::Ended;
        drop(state);
        self.news.send_replace(());
        true
    }
}

/// One consumer being polled.
pub(super) struct Polling {
    pub(super) member: Arc<Member>,
    pub(super) consumer: Arc<Consumer>,
    /// Spans that the group assigned to us.
    pub(super) owned: BTreeSet<u16>,
    pub(super) drain: Option<Drain>,
    /// Everything is drained and another client joins, by this time.
    restart: Option<Instant>,
    /// When spans may be claimed.
    pub(super) claim_at: Instant,
    renewed: Instant,
    watch: Watch,
}

/// Spans that are wanted back.
pub(super) struct Drain {
    pub(super) indexes: BTreeSet<u16>,
    deadline: Instant,
}

impl Polling {
    fn new(member: Arc<Member>, consumer: Arc<Consumer>) -> Self {
        let now = Instant::now();
        member.state.lock().expelled = false;
        Self {
            member,
            consumer,
            owned: BTreeSet::new(),
            drain: None,
            restart: None,
            claim_at: now,
            renewed: now,
            watch: Watch::new(),
        }
    }

    fn run(mut self) {
        let mut reason = Reason::Over;
        while !self.is_over() {
            match self.consumer.poll(TICK) {
                None | Some(Ok(_)) => {}
                Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                    tracing::error!(%code, "the consumer is replaced after a fatal error");
                    reason = Reason::Broken;
                    break;
                }
                Some(Err(error)) => tracing::debug!(%error, "consumer"),
            }
            if let Err(error) = self.turn() {
                tracing::error!(%error, "the consumer is replaced");
                reason = Reason::Broken;
                break;
            }
        }
        self.close(reason);
    }

    /// One look at everything. An error says that the client does not do as it is told.
    pub(super) fn turn(&mut self) -> KafkaResult<()> {
        while let Some(turn) = self.consumer.context().next_turn() {
            self.member.state.lock().expelled = false;
            match turn {
                Turn::Assign(seats) => self.assign(&seats)?,
                Turn::Revoke(seats) => self.revoke(&seats),
                Turn::Lost(seats) => self.give_up(&seats),
            }
        }
        self.look_for_brokers()?;
        self.finish_drain()?;
        self.expire();
        self.look_for_gaps();
        self.claim();
        self.grant();
        self.renew();
        Ok(())
    }

    /// An error says that the client lost sight of brokers that are there.
    fn look_for_brokers(&mut self) -> KafkaResult<()> {
        if self.consumer.context().went_down() {
            self.watch.suspect();
        }
        let (consumer, lookout) = (&self.consumer, &self.member.terms.lookout);
        let look = || {
            let (consumer, lookout) = (consumer.clone(), lookout.clone());
            move || lookout.sight(consumer.client())
        };
        if self.watch.is_stranded(look) {
            return Err(KafkaError::Global(RDKafkaErrorCode::AllBrokersDown));
        }
        Ok(())
    }

    fn indexes(&self, seats: &[Seat]) -> BTreeSet<u16> {
        let span = |seat| self.member.terms.layout.span_at(seat);
        seats.iter().filter_map(span).map(|s| s.index).collect()
    }

    /// Takes spans up. Nothing of them is read before they are claimed: the client stands at their
    /// ends. Partitions that are not in use stay with us and are not read.
    fn assign(&mut self, seats: &[Seat]) -> KafkaResult<()> {
        let indexes = self.indexes(seats);
        tracing::debug!(stream = ?self.member.stream, spans = ?indexes, "spans are assigned");
        if indexes.len() < seats.len() {
            tracing::warn!(
                unused = seats.len() - indexes.len(),
                "partitions were added to topics; they stay unused"
            );
        }
        for index in &indexes {
            if !self.member.slots[index].split(&self.consumer) {
                return Err(KafkaError::Subscription(format!(
                    "no queue for span {index}"
                )));
            }
        }
        self.consumer.incremental_assign(&self.list(&indexes)?)?;
        self.owned.extend(indexes);
        Ok(())
    }

    /// Asks the holders to finish; the group waits meanwhile.
    fn revoke(&mut self, seats: &[Seat]) {
        let indexes = self.indexes(seats);
        tracing::debug!(stream = ?self.member.stream, spans = ?indexes, "spans are wanted back");
        let undelivered = {
            let mut state = self.member.state.lock();
            for index in &indexes {
                state.claims.remove(index);
                if let Some(tenancy) = state.tenancies.get(index) {
                    tenancy.keeper.revoke();
                }
            }
            let ready = std::mem::take(&mut state.ready).into_iter();
            let (wanted, kept): (VecDeque<_>, _) =
                ready.partition(|granted| indexes.contains(&granted.lease.span.index));
            state.ready = kept;
            wanted
        };
        // Nobody took them up: dropping them lets go.
        drop(undelivered);
        self.drain = Some(Drain {
            indexes,
            deadline: Instant::now() + self.member.terms.config.drain_timeout(),
        });
    }

    /// The leases are lost already; nobody is waited for.
    fn give_up(&mut self, seats: &[Seat]) {
        let mut indexes = self.indexes(seats);
        tracing::debug!(stream = ?self.member.stream, spans = ?indexes, "spans are lost");
        // What was being drained is lost with the rest.
        if let Some(drain) = self.drain.take() {
            indexes.extend(drain.indexes);
        }
        self.drain = Some(Drain {
            indexes,
            deadline: Instant::now(),
        });
    }

    /// Gives back what was wanted once the holders have let go, or their time is over.
    fn finish_drain(&mut self) -> KafkaResult<()> {
        let Some(drain) = &self.drain else {
            return Ok(());
        };
        {
            let mut state = self.member.state.lock();
            let held = drain
                .indexes
                .iter()
                .filter(|i| state.tenancies.contains_key(i));
            let held = held.count();
            if held > 0 && Instant::now() < drain.deadline {
                return Ok(());
            }
            if held > 0 {
                tracing::warn!(
                    held,
                    "leases are taken from holders that did not let go in time"
                );
            }
            state.tenancies.retain(|i, _| !drain.indexes.contains(i));
            // Giving back is what lets the client go on to another generation; a commit that was
            // taken up in this one must not be sent in that one.
            if state.outbox.is_busy() {
                return Ok(());
            }
        }
        let indexes = self.drain.take().map(|drain| drain.indexes);
        self.unassign(&indexes.unwrap_or_default())
    }

    pub(super) fn unassign(&mut self, indexes: &BTreeSet<u16>) -> KafkaResult<()> {
        let ours: BTreeSet<_> = indexes.intersection(&self.owned).copied().collect();
        tracing::debug!(stream = ?self.member.stream, spans = ?ours, "spans are given back");
        for index in &ours {
            self.member.slots[index].close();
            self.owned.remove(index);
        }
        // What was lost while it was being drained needs no draining any more.
        if self
            .drain
            .as_ref()
            .is_some_and(|d| d.indexes.is_subset(&ours))
        {
            self.drain = None;
        }
        self.consumer.incremental_unassign(&self.list(&ours)?)
    }

    fn list(&self, indexes: &BTreeSet<u16>) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(indexes.len());
        for index in indexes {
            let seat = &self.member.slots[index].seat;
            list.add_partition_offset(&seat.topic, seat.partition, Offset::End)?;
        }
        Ok(list)
    }

    /// Spans that are wanted back.
    pub(super) fn is_draining(&self, index: u16) -> bool {
        let drained = self.drain.as_ref();
        self.restart.is_some() || drained.is_some_and(|drain| drain.indexes.contains(&index))
    }

    /// Takes leases away whose tenure nobody could prolong: their holders can write nothing any more.
    fn expire(&mut self) {
        let mut state = self.member.state.lock();
        state.tenancies.retain(|index, tenancy| {
            let current = tenancy.tenure.is_current();
            if !current {
                tracing::warn!(
                    span = index,
                    "a lease ran out: the brokers did not answer in time"
                );
            }
            current
        });
    }

    /// A position that the log does not have stops the client for good on that partition. Whether
    /// records are lost is found, counted and said when the span is claimed anew.
    fn look_for_gaps(&mut self) {
        let mut slots = self.owned.iter().map(|index| &self.member.slots[index]);
        let Some(slot) = slots.find(|slot| slot.is_out_of_range()) else {
            return;
        };
        if self.restart.is_none() {
            tracing::error!(
                topic = &*slot.seat.topic,
                partition = slot.seat.partition,
                "what is to be read next is not in the log any more; leaving the group to begin anew"
            );
            let state = self.member.state.lock();
            state.tenancies.values().for_each(|t| t.keeper.revoke());
            self.restart = Some(Instant::now() + self.member.terms.config.drain_timeout());
        }
    }

    /// Shows the broker, and by its answer us, that we are a member: when nobody commits, what was
    /// committed last is committed again.
    fn renew(&mut self) {
        let every = self.member.terms.config.tenure() / 5;
        if self.renewed.elapsed() < every {
            return;
        }
        let letter = {
            let state = self.member.state.lock();
            if state.outbox.is_busy() || state.expelled {
                return;
            }
            state.tenancies.iter().find_map(|(index, tenancy)| {
                let slot = &self.member.slots[index];
                Some(Letter {
                    permit: Semaphore::try_acquire_owned(slot.commits.clone()).ok()?,
                    slot: slot.clone(),
                    bookmark: tenancy.recorded.clone(),
                    purpose: Purpose::Renewal,
                })
            })
        };
        if let Some(letter) = letter {
            self.renewed = Instant::now();
            self.member.post(letter);
        }
    }

    /// Whether this consumer is to be closed. Not while a request is on its way: it may wait behind our
    /// part in a rebalance, and so would the word that we leave. A member that went without it holds
    /// its group up until its session ends, and the leases of the others run out meanwhile.
    fn is_over(&self) -> bool {
        let state = self.member.state.lock();
        let by = match (state.standing, self.restart) {
            (Standing::Leaving(by), _) | (Standing::Joined, Some(by)) => by,
            (Standing::Ended, _) => return true,
            (Standing::Joined, None) => return false,
        };
        let idle = state.tenancies.is_empty() && !state.outbox.is_busy();
        idle || Instant::now() >= by
    }
}
