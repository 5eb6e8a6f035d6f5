//! DeliveryService through a real client, over rows as the worker leaves them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fanfare_domain::{
    AcceptedEvent, DeadLetterReason, DeliveryId, EndpointId, EventRef, EventType, Outcome,
    ParkedReason, Place, Position, SubscriptionId, Target, Tenure, Timestamp,
};
use fanfare_event_log::Record;
use fanfare_proto::v1;
use fanfare_store::conformance::fixtures;
use fanfare_store::{
    AttemptRow, Claim, DeadLetter, EventRow, Parked, ParkedKey, RetryRow, RetryState, Route,
};
use tonic::Code;

use super::super::served::{NOW, Served, acme, refused, refused_field, serve};
use crate::inquiry::delivery_ids;

/// An event owed to one subscription of each of some endpoints.
struct Owed {
    row: EventRow,
    ids: Vec<DeliveryId>,
}

impl Owed {
    fn reference(&self) -> EventRef {
        EventRef::new(self.row.event.key(), self.row.place)
    }
}

/// Routes the `n`-th event, accepted at second `n`, to `endpoints`.
async fn route(served: &Served, n: u64, endpoints: &[EndpointId]) -> Owed {
    let accepted = NOW
        .minus(Duration::from_secs(1000))
        .plus(Duration::from_secs(n));
    let event: AcceptedEvent =
        fixtures::event_of("acme", "/shop", &format!("e-{n}"), "{}", accepted);
    let target = |endpoint: &EndpointId| Target {
        endpoint: *endpoint,
        subscription: SubscriptionId(endpoint.0 ^ 1),
    };
    let claim = Claim {
        event: Arc::new(event.clone()),
        place: Place {
            span: 0,
            position: Position(n),
        },
        route: Route {
            route_time: accepted,
            matched: endpoints.iter().map(target).collect(),
            config_head: 1,
        },
    };
    let tenure = Tenure::unlimited();
    served
        .stores
        .events
        .claim(&tenure, vec![claim])
        .await
        .unwrap();
    let row = served
        .stores
        .events
        .get(&acme(), &event.event.id)
        .await
        .unwrap()
        .remove(0);
    let ids = delivery_ids(&row, &row.route.as_ref().unwrap().matched);
    Owed { row, ids }
}

async fn attempted(served: &Served, owed: &Owed, i: usize, number: u32, outcome: Outcome) {
    let start = owed
        .row
        .event
        .accept_time
        .plus(Duration::from_secs(u64::from(number)));
    let next_attempt = (!outcome.is_delivered()).then(|| start.plus(Duration::from_secs(5)));
    let row = AttemptRow {
        delivery: owed.ids[i],
        event: owed.reference(),
        number,
        start,
        outcome,
        next_attempt,
        ..fixtures::attempt(1, start, 1, number)
    };
    served.stores.history.append(vec![row]).await.unwrap();
}

async fn retrying(served: &Served, owed: &Owed, i: usize, attempts: u32, state: RetryState) {
    let row = RetryRow {
        delivery: owed.ids[i],
        event: owed.reference(),
        attempts,
        generation: 0,
        state,
        ..fixtures::retry(1, 1, state)
    };
    served
        .stores
        .retries
        .put(&Tenure::unlimited(), vec![row])
        .await
        .unwrap();
}

async fn parked(served: &Served, owed: &Owed, i: usize) {
    let row = Parked {
        endpoint: owed.ids[i].endpoint(),
        key: ParkedKey {
            place: owed.row.place,
            part: 0,
        },
        delivery: owed.ids[i],
        event: owed.reference(),
        generation: 0,
        reason: ParkedReason::Paused,
        ..fixtures::parked(1, 1)
    };
    served
        .stores
        .parking
        .park(&Tenure::unlimited(), vec![row])
        .await
        .unwrap();
}

async fn died(served: &Served, owed: &Owed, i: usize, subscription: SubscriptionId, attempts: u32) {
    let row = DeadLetter {
        delivery: owed.ids[i],
        subscription,
        event: owed.reference(),
        event_type: EventType::try_new("order.paid").unwrap(),
        generation: 0,
        reason: DeadLetterReason::Gone,
        attempts,
        ..fixtures::dead_letter(1, 1, NOW)
    };
    served
        .stores
        .dead_letters
        .put(&Tenure::unlimited(), vec![row])
        .await
        .unwrap();
}

async fn list(served: &Served, request: v1::ListDeliveriesRequest) -> Vec<v1::Delivery> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let page = v1::ListDeliveriesRequest {
            page_token: token,
            ..request.clone()
        };
        let page = served
            .deliveries()
            .list_deliveries(page)
            .await
            .unwrap()
            .into_inner();
        let size = usize::try_from(request.page_size).unwrap();
        assert!(size == 0 || page.deliveries.len() <= size);
        all.extend(page.deliveries);
        token = page.next_page_token;
        if token.is_empty() {
            return all;
        }
    }
}

fn ids(deliveries: &[v1::Delivery]) -> Vec<String> {
    deliveries
        .iter()
        .map(|delivery| delivery.id.clone())
        .collect()
}

/// One event to five endpoints, one in each state.
async fn in_every_state(served: &Served) -> Owed {
    let endpoints: Vec<_> = (10..15).map(EndpointId).collect();
    let owed = route(served, 1, &endpoints).await;
    attempted(served, &owed, 1, 1, Outcome::status(503, None)).await;
    retrying(served, &owed, 1, 1, RetryState::DueAt(NOW)).await;
    parked(served, &owed, 2).await;
    attempted(served, &owed, 3, 1, Outcome::delivered(200)).await;
    died(served, &owed, 4, SubscriptionId(1), 0).await;
    owed
}

#[tokio::test]
async fn the_deliveries_of_an_event_are_listed_with_their_states() {
    use v1::DeliveryState::{DeadLetter, Delivered, Parked, Pending, Retrying};
    let served = serve().await;
    let owed = in_every_state(&served).await;
    for page_size in [0, 1, 2, 5] {
        let request = v1::ListDeliveriesRequest {
            event_id: "e-1".into(),
            page_size,
            ..v1::ListDeliveriesRequest::default()
        };
        let listed = list(&served, request).await;
        let states: Vec<_> = listed.iter().map(v1::Delivery::state).collect();
        assert_eq!(states, [Pending, Retrying, Parked, Delivered, DeadLetter]);
        assert_eq!(
            ids(&listed),
            owed.ids.iter().map(ToString::to_string).collect::<Vec<_>>()
        );
        assert!(
            listed
                .iter()
                .all(|d| d.event_type == "order.paid" && d.event_id == "e-1")
        );
        assert!(listed[1].next_attempt_time.is_some() && listed[1].attempt_count == 1);
        assert_eq!(listed[2].parked_reason(), v1::ParkedReason::Paused);
        assert!(listed[3].settle_time.is_some());
        assert_eq!(listed[4].dead_letter_reason(), v1::DeadLetterReason::Gone);
    }
    let request = v1::ListDeliveriesRequest {
        event_id: "e-1".into(),
        states: vec![Parked.into(), Delivered.into()],
        ..v1::ListDeliveriesRequest::default()
    };
    assert_eq!(list(&served, request).await.len(), 2);
    let missing = v1::ListDeliveriesRequest {
        event_id: "e-9".into(),
        ..v1::ListDeliveriesRequest::default()
    };
    let missing = served.deliveries().list_deliveries(missing).await;
    assert_eq!(refused(missing), (Code::NotFound, "EVENT_NOT_FOUND".into()));
}

#[tokio::test]
async fn a_state_is_listed_by_endpoint_alone_too() {
    use v1::DeliveryState::{DeadLetter, Delivered, Parked, Pending, Retrying};
    let served = serve().await;
    let owed = in_every_state(&served).await;
    let all = [Pending, Retrying, Parked, Delivered, DeadLetter];
    for (i, state) in all.into_iter().enumerate() {
        for wanted in all {
            let request = v1::ListDeliveriesRequest {
                endpoint_id: owed.ids[i].endpoint().to_string(),
                states: vec![wanted.into()],
                ..v1::ListDeliveriesRequest::default()
            };
            let listed = list(&served, request).await;
            let want = usize::from(wanted == state);
            assert_eq!(
                listed.len(),
                want,
                "{wanted:?} of the one that is {state:?}"
            );
        }
    }
    let dead = v1::ListDeliveriesRequest {
        states: vec![DeadLetter.into()],
        ..v1::ListDeliveriesRequest::default()
    };
    assert_eq!(ids(&list(&served, dead).await), [owed.ids[4].to_string()]);
}

#[tokio::test]
async fn an_endpoints_deliveries_come_once_each_however_the_pages_fall() {
    let served = serve().await;
    let endpoint = EndpointId(10);
    let mut want = BTreeSet::new();
    for n in 0..12 {
        let owed = route(&served, n, &[endpoint, EndpointId(11)]).await;
        match n % 4 {
            0 => parked(&served, &owed, 0).await,
            1 => died(&served, &owed, 0, SubscriptionId(1), 0).await,
            _ => {
                for number in 1..=3 {
                    attempted(&served, &owed, 0, number, Outcome::status(500, None)).await;
                }
                retrying(&served, &owed, 0, 3, RetryState::DueAt(NOW)).await;
            }
        }
        want.insert(owed.ids[0].to_string());
    }
    for page_size in [1, 2, 5, 100] {
        let request = v1::ListDeliveriesRequest {
            endpoint_id: endpoint.to_string(),
            page_size,
            ..v1::ListDeliveriesRequest::default()
        };
        let listed = ids(&list(&served, request).await);
        assert_eq!(listed.len(), want.len(), "pages of {page_size}: {listed:?}");
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), want);
    }
}

#[tokio::test]
async fn all_deliveries_are_walked_newest_event_first() {
    let served = serve().await;
    let mut want = Vec::new();
    for n in 0..50 {
        let endpoints: Vec<_> = (10..10 + n % 4).map(EndpointId).collect();
        let owed = route(&served, n, &endpoints).await;
        want.splice(0..0, owed.ids.iter().map(ToString::to_string));
    }
    for page_size in [1, 3, 7, 1000] {
        let request = v1::ListDeliveriesRequest {
            page_size,
            ..v1::ListDeliveriesRequest::default()
        };
        assert_eq!(
            ids(&list(&served, request).await),
            want,
            "pages of {page_size}"
        );
    }
    let recent = v1::ListDeliveriesRequest {
        since: Some(super::super::messages::timestamp(
            NOW.minus(Duration::from_mins(16)),
        )),
        ..v1::ListDeliveriesRequest::default()
    };
    assert_eq!(
        list(&served, recent).await.len(),
        (40..50).map(|n| n % 4).sum::<usize>()
    );
}

#[tokio::test]
async fn a_delivery_is_found_with_its_attempts_and_before_its_first() {
    let served = serve().await;
    let owed = in_every_state(&served).await;
    let get = |id: DeliveryId| v1::GetDeliveryRequest { id: id.to_string() };
    for (i, attempts) in [(0, 0), (1, 1), (2, 0), (3, 1), (4, 0)] {
        let got = served
            .deliveries()
            .get_delivery(get(owed.ids[i]))
            .await
            .unwrap();
        let got = got.into_inner().delivery.unwrap();
        assert_eq!((got.attempts.len(), &*got.event_id), (attempts, "e-1"));
        assert_eq!(got.event_type, "order.paid");
    }
    let missing = fixtures::delivery(10, Timestamp::from_millis(0), 5);
    let gone = (Code::NotFound, "DELIVERY_NOT_FOUND".to_owned());
    assert_eq!(
        refused(served.deliveries().get_delivery(get(missing)).await),
        gone
    );
    for id in &owed.ids {
        let theirs = served.deliveries_of("globex").get_delivery(get(*id)).await;
        assert_eq!(refused(theirs), gone);
    }
}

#[tokio::test]
async fn a_redrive_asks_for_dead_letters_only_and_is_packed() {
    let served = serve().await;
    let made = served.endpoint(&["order.*"]).await;
    let endpoint: EndpointId = made.endpoint.unwrap().id.parse().unwrap();
    let subscription: SubscriptionId = made.subscription.unwrap().id.parse().unwrap();
    let mut dead = Vec::new();
    for n in 0..70 {
        let owed = route(&served, n, &[endpoint]).await;
        died(&served, &owed, 0, subscription, 3).await;
        dead.push(owed.ids[0]);
    }
    let other = route(&served, 100, &[EndpointId(10), EndpointId(11)]).await;
    attempted(&served, &other, 0, 1, Outcome::delivered(200)).await;
    died(&served, &other, 1, subscription, 1).await;
    let nobodys = fixtures::delivery(10, NOW, 5);
    let mut asked = dead.clone();
    asked.extend([dead[0], other.ids[0], other.ids[1], nobodys]);
    let request = v1::RedriveDeliveriesRequest {
        ids: asked.iter().map(ToString::to_string).collect(),
    };
    let results = served
        .deliveries()
        .redrive_deliveries(request)
        .await
        .unwrap();
    let results = results.into_inner().results;
    let codes: Vec<_> = results
        .iter()
        .map(|r| r.error.as_ref().map(|e| Code::from(e.code)))
        .collect();
    assert!(codes[..71].iter().all(Option::is_none));
    let refused = [
        Code::FailedPrecondition,
        Code::FailedPrecondition,
        Code::NotFound,
    ];
    assert_eq!(codes[71..], refused.map(Some));
    let mut sizes = Vec::new();
    let mut redriven = BTreeSet::new();
    for record in served.records().await {
        let Record::Redrive(record) = record else {
            panic!("not a redrive: {record:?}");
        };
        sizes.push(record.deliveries.len());
        redriven.extend(record.deliveries);
    }
    assert_eq!(sizes, [64, 6], "one endpoint is one span");
    assert_eq!(redriven, dead.into_iter().collect());
}

#[tokio::test]
async fn what_cannot_be_redriven_says_why() {
    let served = serve().await;
    let made = served.endpoint(&["order.*"]).await;
    let endpoint: EndpointId = made.endpoint.unwrap().id.parse().unwrap();
    let subscription: SubscriptionId = made.subscription.unwrap().id.parse().unwrap();
    let owed = route(&served, 1, &[endpoint]).await;
    died(&served, &owed, 0, SubscriptionId(77), 3).await;
    let ask = || async {
        let request = v1::RedriveDeliveriesRequest {
            ids: vec![owed.ids[0].to_string()],
        };
        let answer = served
            .deliveries()
            .redrive_deliveries(request)
            .await
            .unwrap();
        let error = answer.into_inner().results.remove(0).error;
        error.map_or_else(String::new, |error| error.message)
    };
    assert!(
        ask().await.contains("subscription"),
        "its subscription is gone"
    );
    died(&served, &owed, 0, subscription, 3).await;
    assert_eq!(ask().await, "");
    let delete = v1::DeleteEndpointRequest {
        id: endpoint.to_string(),
        etag: String::new(),
    };
    served.endpoints().delete_endpoint(delete).await.unwrap();
    assert!(ask().await.contains("endpoint"), "its endpoint is gone");
    for ids in [
        vec![],
        vec!["dlv_0".to_owned()],
        vec![owed.ids[0].to_string(); 1001],
    ] {
        let request = v1::RedriveDeliveriesRequest { ids };
        let (reason, _) = refused_field(served.deliveries().redrive_deliveries(request).await);
        assert!(
            ["BATCH_TOO_LARGE", "ID_INVALID"].contains(&&*reason),
            "{reason}"
        );
    }
}
