//! Redriving: dead letters are delivered again, under the same ids. Decided here, done by the
//! owner of their shard, who reads it in the log in turn with everything else.

use std::collections::{BTreeMap, BTreeSet};

use fanfare_domain::{DeliveryId, EndpointState, Shard, TenantId};
use fanfare_event_log::record::PARTS_MAX;
use fanfare_event_log::{Outgoing, Record, RedriveRecord, Stream};
use fanfare_proto::v1;
use fanfare_store::{Catalog, DeadLetter};
use tonic::Code;

use super::super::errors::Refusal;
use super::Deliveries;

/// Most ids of one call.
const IDS_MAX: usize = 1000;

/// Asks for `ids` to be redriven; one result per id, once what will be is durable.
pub(super) async fn redrive(
    service: &Deliveries,
    tenant: &TenantId,
    ids: &[String],
) -> Result<Vec<v1::RedriveResult>, Refusal> {
    if ids.is_empty() || ids.len() > IDS_MAX {
        let rule = format!("must be 1 to {IDS_MAX} ids");
        return Err(Refusal::field("BATCH_TOO_LARGE", "ids", rule));
    }
    let ids: Vec<DeliveryId> = ids.iter().map(|id| id.parse()).collect::<Result<_, _>>()?;
    let decided = decide(service, tenant, &ids).await?;
    let granted: Vec<&DeadLetter> = decided.iter().flatten().collect();
    let batch = pack(service, tenant, &granted);
    service
        .management
        .log
        .append(Stream::Deliveries, batch)
        .await?;
    let result = |(id, decided): (DeliveryId, Result<DeadLetter, Refusal>)| v1::RedriveResult {
        id: id.to_string(),
        error: decided.err().map(|refusal| refusal.to_message()),
    };
    Ok(ids.into_iter().zip(decided).map(result).collect())
}

async fn decide(
    service: &Deliveries,
    tenant: &TenantId,
    ids: &[DeliveryId],
) -> Result<Vec<Result<DeadLetter, Refusal>>, Refusal> {
    let letters = service.management.stores.dead_letters.get(ids).await?;
    let letters = letters
        .into_iter()
        .map(|l| l.filter(|l| l.tenant == *tenant));
    let letters: Vec<_> = ids.iter().copied().zip(letters).collect();
    let others = letters.iter().filter(|(_, letter)| letter.is_none());
    let others: Vec<_> = others.map(|(id, _)| *id).collect();
    let mut others = service.inquiry.by_id(tenant, &others).await?.into_iter();
    let catalog = service.management.follower.catalog();
    let decide = |(id, letter): (DeliveryId, Option<DeadLetter>)| match letter {
        Some(letter) => check(&catalog, &letter).map(|()| letter),
        None => Err(match others.next().flatten() {
            Some(other) => not_redrivable(format!(
                "delivery {id} is {}; only dead letters can be redriven",
                other.standing.state.as_str()
            )),
            None => Refusal::not_found("DELIVERY_NOT_FOUND", id),
        }),
    };
    Ok(letters.into_iter().map(decide).collect())
}

/// Whether a dead letter can be delivered again.
fn check(catalog: &Catalog, letter: &DeadLetter) -> Result<(), Refusal> {
    let id = letter.delivery;
    if letter.redriven.is_some_and(|at| at >= letter.at) {
        return Err(not_redrivable(format!(
            "delivery {id} was redriven already and is under way"
        )));
    }
    let Some(endpoint) = catalog.endpoint(id.endpoint()) else {
        return Err(not_redrivable(format!(
            "the endpoint of delivery {id} was deleted; there is nowhere to send it"
        )));
    };
    if endpoint.state == EndpointState::Disabled {
        let what = format!(
            "endpoint {} is disabled; resume it, then redrive",
            endpoint.id
        );
        let (code, reason) = (Code::FailedPrecondition, "ENDPOINT_DISABLED");
        return Err(Refusal::new(code, reason, what));
    }
    if catalog.subscription(letter.subscription).is_none() {
        return Err(not_redrivable(format!(
            "the subscription of delivery {id} was deleted; nobody wants it any more"
        )));
    }
    Ok(())
}

fn not_redrivable(what: String) -> Refusal {
    Refusal::new(Code::FailedPrecondition, "DELIVERY_NOT_REDRIVABLE", what)
}

/// The records that ask for `letters`, each once: those of one span together.
fn pack(service: &Deliveries, tenant: &TenantId, letters: &[&DeadLetter]) -> Vec<Outgoing> {
    let log = &service.management.log;
    let mut by_span: BTreeMap<u16, Vec<&DeadLetter>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for letter in letters.iter().filter(|letter| seen.insert(letter.delivery)) {
        let shard = Shard::of_endpoint(letter.delivery.endpoint());
        let span = log.span_of(Stream::Deliveries, shard, letter.event_type.subject());
        by_span.entry(span.index).or_default().push(letter);
    }
    let record = |letters: &[&DeadLetter]| Outgoing {
        shard: Shard::of_endpoint(letters[0].delivery.endpoint()),
        subject: letters[0].event_type.subject().into(),
        bytes: Record::Redrive(RedriveRecord {
            tenant: tenant.clone(),
            at: service.management.clock.now(),
            deliveries: letters.iter().map(|letter| letter.delivery).collect(),
        })
        .encode(),
    };
    let packs = by_span
        .values()
        .flat_map(|letters| letters.chunks(PARTS_MAX));
    packs.map(record).collect()
}
