//! The intake of a shift: reads records and hands their deliveries to the lanes, in order.
//!
//! It waits for room in a commit, for the writing of what was set aside, while all permits are in
//! use, a little for lanes that are not stuck, and for the catalog that a record was routed by;
//! never for one endpoint. A first
//! try reads nothing from a store, with two exceptions: a body too large for its record, and what
//! an earlier owner may already have dealt with. The latter is everything below the inherited
//! ceiling and, because progress is committed a little later than it is made, as much above it as
//! an owner can hold: those are looked up, so that a delivery that failed once, was parked or gave
//! up does not start again from the beginning.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfare_domain::{Data, DeadLetterReason, DeliveryId, EventRef, Position, Target, Timestamp};
use fanfare_event_log::{
    DeliveryRecord, Entry, LogError, LogErrorKind, ReadLimit, Record, RecordError, Records,
    RedriveRecord,
};
use fanfare_service::Backoff;
use fanfare_store::{Head, StoreError};
use futures::FutureExt;

use crate::callee::Callee;
use crate::crew::Offer;
use crate::desk::{Aside, Done, Fate};
use crate::letter::{Delivery, Letter, Origin, Part};
use crate::owed;
use crate::redrive;
use crate::shift::Shift;
use crate::standing::Standing;

/// One read: the settler leaves room for what it can add to a commit.
const READ: ReadLimit = ReadLimit {
    records: 64,
    bytes: 1024 * 1024,
};
/// How long to wait for room in a commit before what waits in stuck lanes is parked to make some.
const SHED_AFTER: Duration = Duration::from_millis(50);
/// Clocks of router and worker may differ by this much.
const CLOCKS_APART: Duration = Duration::from_secs(5);
/// Bytes of a damaged record that its alarm shows.
const SHOWN_MAX: usize = 256;

/// Why the intake ended before its lease was wanted back.
pub(crate) enum Stop {
    /// The log said so.
    Log(LogError),
    /// The store said so.
    Store(StoreError),
    /// A record of a newer version: nobody who knows no better may go past it.
    Newer(Position, RecordError),
}

/// What an earlier owner may have dealt with.
pub(crate) struct Doubt {
    /// Everything below was read by it.
    pub(crate) ceiling: Position,
    /// Parts above the ceiling that it may have read as well.
    pub(crate) parts: usize,
    /// It can have read nothing that was routed later.
    pub(crate) until: Timestamp,
}

impl Doubt {
    pub(crate) fn new(ceiling: Position, parts: usize, granted: Timestamp) -> Self {
        Self {
            ceiling,
            parts,
            until: granted.plus(CLOCKS_APART),
        }
    }

    fn is_about(&mut self, position: Position, record: &DeliveryRecord) -> bool {
        if position < self.ceiling {
            return true;
        }
        let doubted = self.parts > 0 && record.route_time <= self.until;
        self.parts = self.parts.saturating_sub(record.targets.len());
        doubted
    }
}

/// Reads until the lease is wanted back.
pub(crate) async fn read_all(
    shift: &Arc<Shift>,
    records: &mut dyn Records,
    mut doubt: Doubt,
) -> Result<(), Stop> {
    let mut backoff = Backoff::new("read deliveries");
    loop {
        if shift.until_revoked(room(shift)).await.is_none() {
            return Ok(());
        }
        match records.read(READ).await {
            Ok(entries) if entries.is_empty() => return Ok(()),
            Ok(entries) => {
                backoff.reset();
                // Wanted back in between: what was not handed to a lane is left unsettled.
                match shift
                    .until_revoked(take_in(shift, entries, &mut doubt))
                    .await
                {
                    Some(taken) => taken?,
                    None => return Ok(()),
                }
            }
            Err(error) if error.kind() == LogErrorKind::Unavailable => backoff.wait(&error).await,
            Err(error) => return Err(Stop::Log(error)),
        }
    }
}

/// Waits until reading on makes sense.
async fn room(shift: &Arc<Shift>) {
    shift.desk.room().await;
    while tokio::time::timeout(SHED_AFTER, shift.settler.room())
        .await
        .is_err()
    {
        let now = tokio::time::Instant::now();
        shift
            .crew
            .alter(|lanes, moves| lanes.shed(shift.desk.shift, now, moves));
    }
}

/// A record of which something is open.
struct Taken {
    position: Position,
    record: Record,
    /// A bit for each part.
    open: u64,
    is_doubtful: bool,
}

impl Taken {
    /// The open deliveries that an earlier owner may have dealt with.
    fn doubted(&self) -> impl Iterator<Item = DeliveryId> {
        let record = match &self.record {
            Record::Delivery(record) if self.is_doubtful => Some(record),
            _ => None,
        };
        let parts = record.into_iter().flat_map(|record| {
            let (event, generation) = (&*record.event, record.generation);
            let seed = event.delivery_seed();
            let ids = record.targets.iter().map(move |target| {
                let Target {
                    endpoint,
                    subscription,
                } = *target;
                seed.delivery(endpoint, subscription, event.accept_time, generation)
            });
            ids.zip(0u32..)
        });
        parts.filter_map(|(id, index)| (self.open & (1 << index) != 0).then_some(id))
    }
}

async fn take_in(shift: &Arc<Shift>, entries: Vec<Entry>, doubt: &mut Doubt) -> Result<(), Stop> {
    let mut newer = Ok(());
    let mut all = Vec::with_capacity(entries.len());
    for entry in entries {
        let position = entry.position;
        match Record::decode(&entry.bytes) {
            Err(error @ RecordError::UnknownVersion(_)) => {
                newer = Err(Stop::Newer(position, error));
                break;
            }
            Ok(Record::Event(_)) | Err(RecordError::Damaged) => quarantine(shift, &entry),
            Ok(record) => {
                let open = shift.settler.take(position, record.parts());
                let is_doubtful = open != 0
                    && matches!(&record, Record::Delivery(record) if doubt.is_about(position, record));
                if open != 0 {
                    all.push(Taken {
                        position,
                        record,
                        open,
                        is_doubtful,
                    });
                }
            }
        }
    }
    // Of a whole read at once: one by one a new owner's first reads would wait for each answer.
    let known = known(shift, all.iter().flat_map(Taken::doubted).collect()).await;
    // Before each record, since one may be owed to many; once that was in vain, no more.
    let mut waits = true;
    for taken in all {
        waits = waits && shift.crew.room().await;
        take_in_record(shift, taken, &known).await?;
    }
    newer
}

async fn take_in_record(
    shift: &Arc<Shift>,
    taken: Taken,
    known: &HashSet<DeliveryId>,
) -> Result<(), Stop> {
    let Taken {
        position,
        record,
        open,
        ..
    } = taken;
    let taking = async {
        match record {
            Record::Delivery(record) => {
                shift.desk.ages.taken(position, record.route_time);
                deliver(shift, position, record, open, known).await;
                Ok(())
            }
            Record::Test(record) => {
                test(shift, position, record);
                Ok(())
            }
            Record::Redrive(record) => redrive(shift, position, &record, open).await,
            Record::Event(_) => Ok(()),
        }
    };
    AssertUnwindSafe(taking)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| {
            // One poison record must not stop its span for ever; nothing of it is settled, so the next
            // owner meets it again.
            tracing::error!(
                lease = ?shift.lease, position = position.0,
                "taking a record in panicked; this is a bug, and the record is left unsettled"
            );
            Ok(())
        })
}

async fn deliver(
    shift: &Arc<Shift>,
    position: Position,
    record: DeliveryRecord,
    open: u64,
    known: &HashSet<DeliveryId>,
) {
    let head = Head(record.config_head);
    let targets = record.targets.clone();
    let tenant = record.event.tenant.clone();
    let (letter, is_whole) = letter(shift, record).await;
    let seed = letter.seed();
    let parts = (0u32..)
        .zip(targets)
        .filter(|(index, _)| open & (1 << index) != 0);
    let mut deliveries: Vec<Delivery> = parts
        .map(|(index, target)| Delivery {
            id: letter.delivery_id(&seed, target),
            target,
            letter: letter.clone(),
            origin: Origin::Fresh(Part { position, index }),
        })
        .collect();
    if !known.is_empty() {
        deliveries = settle_known(shift, deliveries, known);
    }
    if !is_whole {
        return end_expired(shift, deliveries);
    }
    // "No such endpoint" is never concluded from a catalog older than the router's.
    let mut catalog = shift.crew.catalog();
    while catalog.head_of(&tenant) < head {
        shift.follower.reached(&tenant, head).await;
        catalog = shift.crew.catalog();
    }
    let offers = deliveries.into_iter().map(|delivery| Offer {
        standing: Standing::of(&catalog, &tenant, delivery.target),
        delivery,
    });
    shift.crew.offer(&shift.desk, &catalog, offers.collect());
}

/// The letter of a record, and whether it has its body. What is kept in memory does not keep the
/// buffer alive that it was read into.
async fn letter(shift: &Shift, record: DeliveryRecord) -> (Arc<Letter>, bool) {
    let mut event = record.event;
    let mut is_whole = true;
    if record.inline {
        if let Some(event) = Arc::get_mut(&mut event) {
            event.event.data = detached(&event.event.data);
        }
    } else {
        let reference = EventRef::new(event.key(), record.place);
        match owed::bodies(shift, &[reference]).await.pop().flatten() {
            Some(body) => event = body,
            None => is_whole = false,
        }
    }
    let letter = Letter::new(event, record.place, record.generation);
    (Arc::new(letter), is_whole)
}

fn detached(data: &Data) -> Data {
    match data {
        Data::None => Data::None,
        Data::Bytes(bytes) => Data::Bytes(Bytes::copy_from_slice(bytes)),
        Data::Text(bytes) => Data::Text(Bytes::copy_from_slice(bytes)),
    }
}

/// Settles those that an earlier owner has dealt with; answers the others.
fn settle_known(
    shift: &Shift,
    deliveries: Vec<Delivery>,
    known: &HashSet<DeliveryId>,
) -> Vec<Delivery> {
    let (known, unknown): (Vec<_>, Vec<_>) = deliveries
        .into_iter()
        .partition(|delivery| known.contains(&delivery.id));
    for delivery in known {
        if let Origin::Fresh(part) = delivery.origin {
            shift.settler.settle(part.position, part.index, None);
        }
    }
    unknown
}

/// Those of `ids` that an earlier owner has dealt with, once the store says so.
async fn known(shift: &Shift, ids: Vec<DeliveryId>) -> HashSet<DeliveryId> {
    let mut backoff = Backoff::new("look up what was delivered before");
    loop {
        match look_up(shift, &ids).await {
            Ok(known) => return known,
            Err(error) => backoff.wait(&error).await,
        }
    }
}

async fn look_up(shift: &Shift, ids: &[DeliveryId]) -> Result<HashSet<DeliveryId>, StoreError> {
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let stores = &shift.stores;
    let (retries, parked, dead) = futures::try_join!(
        stores.retries.get(ids),
        stores.parking.find(ids),
        stores.dead_letters.get(ids)
    )?;
    let found = ids.iter().zip(retries).zip(parked).zip(dead);
    let found = found.filter(|(((_, retry), parked), dead)| {
        retry.is_some() || parked.is_some() || dead.is_some()
    });
    Ok(found.map(|(((id, _), _), _)| *id).collect())
}

fn end_expired(shift: &Shift, deliveries: Vec<Delivery>) {
    for delivery in deliveries {
        shift.desk.hand_in(Done {
            delivery,
            fate: Fate::Aside(Aside::End(DeadLetterReason::Expired)),
            permit: None,
        });
    }
}

/// One attempt, whatever the state of the endpoint; settled without one when there is none.
fn test(shift: &Arc<Shift>, position: Position, record: DeliveryRecord) {
    let target = record.targets[0];
    let tenant = record.event.tenant.clone();
    let catalog = shift.crew.catalog();
    let endpoint = catalog.endpoint(target.endpoint);
    let Some(endpoint) = endpoint.filter(|endpoint| endpoint.tenant == tenant) else {
        return shift.settler.settle(position, 0, None);
    };
    let callee = Arc::new(Callee::new(endpoint.clone()));
    let letter = Arc::new(Letter::new(record.event, record.place, record.generation));
    let delivery = Delivery {
        id: letter.delivery_id(&letter.seed(), target),
        target,
        letter,
        origin: Origin::Test(Part { position, index: 0 }),
    };
    shift.crew.test(shift.desk.clone(), callee, delivery);
}

async fn redrive(
    shift: &Arc<Shift>,
    position: Position,
    record: &RedriveRecord,
    open: u64,
) -> Result<(), Stop> {
    let parts = (0u32..).zip(&record.deliveries);
    let open: Vec<(u32, DeliveryId)> = parts
        .filter(|(index, _)| open & (1 << index) != 0)
        .map(|(index, id)| (index, *id))
        .collect();
    let ids: Vec<DeliveryId> = open.iter().map(|(_, id)| *id).collect();
    let started = redrive::start_chains(shift, record, &ids).await;
    started.map_err(Stop::Store)?;
    for (index, _) in open {
        shift.settler.settle(position, index, None);
    }
    Ok(())
}

/// Reports a record that is no delivery and settles it: reading it again would not make it better.
/// Its bytes stay in the log, at the position that the alarm names; the first of them are shown.
fn quarantine(shift: &Shift, entry: &Entry) {
    let shown = &entry.bytes[..entry.bytes.len().min(SHOWN_MAX)];
    tracing::error!(
        lease = ?shift.lease,
        position = entry.position.0,
        length = entry.bytes.len(),
        bytes = ?shown,
        "a damaged record in the deliveries stream: what it owed cannot be delivered"
    );
    shift.crew.instruments.damaged();
    // How many parts it had is not known any more: as many as there can be.
    let open = shift.settler.take(entry.position, u64::BITS);
    for index in (0..u64::BITS).filter(|index| open & (1 << index) != 0) {
        shift.settler.settle(entry.position, index, None);
    }
}
