//! The clerk: takes what was handed in at the desk, a batch every few milliseconds, has it written
//! and then settles it.
//!
//! First tries that were delivered need their history only, and are settled even while the store
//! is away. Everything else is written in an order in which a crash between two writes repeats
//! something and loses nothing: dead letters, then retry states (hints before states, as the store
//! promises), then parked rows; then what these replace is removed; then the records are settled.
//! Plans are written several at a time; while the store is away they wait, merged, bounded by the
//! permits they hold and by what the desk admits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fanfare_domain::EndpointId;
use fanfare_store::StoreError;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt};
use tokio_util::sync::CancellationToken;

use crate::disable;
use crate::plan::{Batch, Plan, Rules, Settled};
use crate::report;
use crate::shift::Shift;

/// How long outcomes are collected before they are written together.
const COLLECT: Duration = Duration::from_millis(2);
/// Plans that are written at the same time.
const WRITES_MAX: usize = 4;

/// Works until `finishing` is cancelled and everything handed in is settled.
///
/// Errors: the lease is lost or the store is closed; nothing more is written or settled.
pub(crate) async fn work(
    shift: &Arc<Shift>,
    finishing: CancellationToken,
) -> Result<(), StoreError> {
    let (mut writes, mut waiting) = (FuturesUnordered::new(), Plan::default());
    let ended = write_all(shift, &finishing, &mut writes, &mut waiting).await;
    if ended.is_err() {
        // What could not be written gives its permits back: they must start nothing here.
        shift.crew.close(shift.desk.shift);
    }
    ended
}

async fn write_all<'a>(
    shift: &'a Arc<Shift>,
    finishing: &CancellationToken,
    writes: &mut FuturesUnordered<BoxFuture<'a, Result<Plan, StoreError>>>,
    waiting: &mut Plan,
) -> Result<(), StoreError> {
    loop {
        if waiting.count > 0 && writes.len() < WRITES_MAX {
            writes.push(write(shift, std::mem::take(waiting)).boxed());
        }
        tokio::select! {
            biased;
            Some(written) = writes.next(), if !writes.is_empty() => {
                conclude(shift, written?);
            }
            () = shift.desk.something() => {
                if !finishing.is_cancelled() {
                    tokio::time::sleep(COLLECT).await;
                }
                waiting.merge(take_batch(shift).await);
            }
            () = finishing.cancelled(), if writes.is_empty() && waiting.count == 0 => return Ok(()),
        }
    }
}

/// Takes what was handed in; settles what needs no more than history and answers the rest.
async fn take_batch(shift: &Arc<Shift>) -> Plan {
    let done = shift.desk.take();
    let upcoming = &shift.desk.upcoming;
    let rules = Rules {
        span: shift.lease.span.index,
        now: shift.crew.outfit.clock.now(),
        not_behind: &|due| upcoming.not_behind(due),
    };
    shift.crew.instruments.handed_in(&done);
    let batch = Batch::sort(done, &rules);
    // From here on the cursor does not pass these hints.
    upcoming.expect(&batch.plan.due);
    shift.chronicle.record(batch.attempts).await;
    shift.desk.wrote(batch.plain.len());
    settle(shift, batch.plain);
    batch.plan
}

/// Writes a plan for as long as the lease is good.
async fn write(shift: &Arc<Shift>, plan: Plan) -> Result<Plan, StoreError> {
    let (stores, tenure) = (&shift.stores, &shift.lease.tenure);
    if !plan.dead_letters.is_empty() {
        let put = || stores.dead_letters.put(tenure, plan.dead_letters.clone());
        shift.write("write dead letters", put).await?;
    }
    if !plan.retries.is_empty() {
        let put = || stores.retries.put(tenure, plan.retries.clone());
        shift.write("write retry states", put).await?;
    }
    if !plan.parked.is_empty() {
        let park = || stores.parking.park(tenure, plan.parked.clone());
        shift.write("park deliveries", park).await?;
    }
    if !plan.forget.is_empty() {
        let forget = || stores.retries.forget(tenure, plan.forget.clone());
        shift.write("forget hints", forget).await?;
    }
    for (endpoint, keys) in &plan.unpark {
        let unpark = || stores.parking.unpark(tenure, *endpoint, keys.clone());
        shift.write("remove parked rows", unpark).await?;
    }
    Ok(plan)
}

/// A plan is written: tells everybody who waits for it.
fn conclude(shift: &Arc<Shift>, plan: Plan) {
    let (desk, crew) = (&shift.desk, &shift.crew);
    crew.instruments.wrote(&plan);
    report::wrote(&plan);
    desk.let_go(&plan.let_go);
    desk.upcoming.written(&plan.due);
    desk.upcoming.forgotten(&plan.forget);
    let mut parked: BTreeMap<EndpointId, usize> = BTreeMap::new();
    for row in &plan.parked {
        *parked.entry(row.endpoint).or_default() += 1;
    }
    crew.with_lanes(|lanes| {
        let key = |endpoint: &EndpointId| (desk.shift, *endpoint);
        for (endpoint, count) in &parked {
            lanes.parked_written(key(endpoint), *count);
        }
        for (endpoint, keys) in &plan.unpark {
            lanes.parked_settled(key(endpoint), keys.len());
        }
        for (endpoint, count) in &plan.put_back {
            lanes.parked_settled(key(endpoint), *count);
        }
    });
    desk.wrote(plan.count);
    settle(shift, plan.settle);
    for endpoint in plan.gone {
        disable::spawn(shift, endpoint);
    }
    drop(plan.permits);
}

fn settle(shift: &Shift, settled: Vec<Settled>) {
    for (part, permit) in settled {
        shift.settler.settle(part.position, part.index, permit);
    }
}
