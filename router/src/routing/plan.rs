//! Which delivery records an event makes: a pure function of the event and its route.

use std::collections::BTreeMap;
use std::sync::Arc;

use fanfare_domain::{AcceptedEvent, Place, Shard, Target};
use fanfare_event_log::record::{INLINE_MAX, PARTS_MAX};
use fanfare_event_log::{DeliveryRecord, Outgoing, Record};
use fanfare_store::Route;

/// Most bytes that inline data may come to over all records of one event. Beyond it the records
/// refer to the event row, where the body is stored once.
const INLINE_TOTAL_MAX: usize = 16 * 1024 * 1024;

/// The records that owe `event`, accepted at `place`, to everyone in `route`: those of one span
/// of the deliveries stream together, at most 64 to a record, in the order of the route.
///
/// `span_of` says which span serves a target. The same route always makes the same records.
pub fn plan(
    event: &Arc<AcceptedEvent>,
    place: Place,
    route: &Route,
    span_of: impl Fn(&Target) -> u16,
) -> Vec<Outgoing> {
    let mut by_span: BTreeMap<u16, Vec<Target>> = BTreeMap::new();
    for target in route.matched.iter() {
        by_span.entry(span_of(target)).or_default().push(*target);
    }
    let packs = || {
        by_span
            .values()
            .flat_map(|targets| targets.chunks(PARTS_MAX))
    };
    let inline = is_inline(event.event.data.bytes().len(), packs().count());
    let subject: Arc<str> = event.event.event_type.subject().into();
    let pack = |targets: &[Target]| Outgoing {
        shard: Shard::of_endpoint(targets[0].endpoint),
        subject: subject.clone(),
        bytes: record(event, place, route, inline, targets).encode(),
    };
    packs().map(pack).collect()
}

/// Whether data of `len` bytes rides in each of `records` records.
fn is_inline(len: usize, records: usize) -> bool {
    len <= INLINE_MAX && len.saturating_mul(records) <= INLINE_TOTAL_MAX
}

fn record(
    event: &Arc<AcceptedEvent>,
    place: Place,
    route: &Route,
    inline: bool,
    targets: &[Target],
) -> Record {
    Record::Delivery(DeliveryRecord {
        event: event.clone(),
        inline,
        place,
        route_time: route.route_time,
        config_head: route.config_head,
        generation: 0,
        targets: targets.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fanfare_domain::{Data, EndpointId, Position, SubscriptionId, Timestamp};

    use super::*;
    use crate::routing::tests::accepted;

    const PLACE: Place = Place {
        span: 3,
        position: Position(77),
    };

    fn route(targets: u64) -> Route {
        let target = |i| Target {
            endpoint: EndpointId(i * 31),
            subscription: SubscriptionId(i),
        };
        Route {
            route_time: Timestamp::from_millis(5),
            matched: (0..targets).map(target).collect(),
            config_head: 9,
        }
    }

    fn event(data: usize) -> Arc<AcceptedEvent> {
        let mut event = accepted("e-1", "order.paid");
        event.event.data = Data::Bytes(Bytes::from(vec![b'1'; data]));
        Arc::new(event)
    }

    fn planned(data: usize, targets: u64, spans: u64) -> Vec<(Outgoing, DeliveryRecord)> {
        let span_of = |target: &Target| u16::try_from(target.endpoint.0 % spans).unwrap();
        let outgoing = plan(&event(data), PLACE, &route(targets), span_of);
        let decode = |out: Outgoing| match Record::decode(&out.bytes).unwrap() {
            Record::Delivery(record) => (out, record),
            other => panic!("not a delivery: {other:?}"),
        };
        outgoing.into_iter().map(decode).collect()
    }

    #[test]
    fn everyone_is_owed_once_in_packs_of_one_span() {
        for (targets, spans, records) in [
            (0, 1, 0),
            (1, 1, 1),
            (64, 1, 1),
            (65, 1, 2),
            (10_000, 4, 160),
        ] {
            let planned = planned(10, targets, spans);
            assert_eq!(planned.len(), records, "{targets} targets on {spans} spans");
            let mut owed = Vec::new();
            for (outgoing, record) in &planned {
                let span = |target: &Target| target.endpoint.0 % spans;
                let first = record.targets[0];
                assert!(record.targets.iter().all(|t| span(t) == span(&first)));
                assert_eq!(outgoing.shard, Shard::of_endpoint(first.endpoint));
                assert_eq!(&*outgoing.subject, "order");
                owed.extend(record.targets.iter().copied());
            }
            owed.sort_by_key(|target| target.subscription);
            assert_eq!(owed, route(targets).matched.to_vec());
        }
    }

    #[test]
    fn a_record_says_where_it_comes_from() {
        let (_, record) = planned(10, 1, 1).remove(0);
        assert_eq!((record.place, record.config_head), (PLACE, 9));
        assert_eq!(record.route_time, Timestamp::from_millis(5));
        assert_eq!(record.event, event(10));
    }

    #[test]
    fn data_rides_along_while_it_is_small_in_one_record_and_in_all() {
        for (data, targets, inline) in [
            (INLINE_MAX, 1, true),
            (INLINE_MAX + 1, 1, false),
            (INLINE_MAX, 256 * 64, true),
            (INLINE_MAX, 257 * 64, false),
        ] {
            for (outgoing, record) in planned(data, targets, 1) {
                assert_eq!(record.inline, inline, "{data} bytes to {targets}");
                assert_eq!(outgoing.bytes.len() > INLINE_MAX, inline);
                assert_eq!(record.event.event.data == Data::None, !inline);
            }
        }
    }
}
