use std::time::Duration;

use fanfare_domain::{
    BodyHash, Data, EndpointId, EndpointState, Envelope, EventKey, RetrySchedule, SubscriptionId,
    Target,
};
use proptest::prelude::*;

use super::attempt::Naming;
use super::listed::Listed;
use super::*;
use crate::conformance::fixtures;
use crate::{
    AttemptRow, Conflict, DeadLetter, Entry, EntryKey, EventSummary, Known, Parked, RetryRow,
    RetryState, Route, Write,
};

/// What every row promises: it comes back, and neither another kind's bytes nor changed ones do.
fn check<R: Row + PartialEq + std::fmt::Debug>(row: &R) {
    let bytes = row.seal();
    assert_eq!(R::open(&bytes).as_ref(), Ok(row));
    let middle = bytes.len() / 2;
    let mut flipped = bytes.clone();
    flipped[middle] ^= 4;
    assert_eq!(R::open(&flipped), Err(WireError::Damaged));
    assert_eq!(R::open(&bytes[..middle]), Err(WireError::Damaged));
}

fn time() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp::from_micros)
}

fn near_now() -> impl Strategy<Value = Timestamp> {
    (0..4_000_000_000_000_000_i64).prop_map(Timestamp::from_micros)
}

fn duration() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_micros)
}

fn any_place() -> impl Strategy<Value = Place> {
    (any::<u16>(), any::<u64>()).prop_map(|(span, position)| Place {
        span,
        position: Position(position),
    })
}

prop_compose! {
    fn event_ref()(
        tenant in "[A-Za-z0-9_.-]{1,64}",
        id in "[!-~]{1,255}",
        source in "[!-~]{1,255}",
        place in any_place(),
    ) -> EventRef {
        let key = EventKey {
            tenant: TenantId::try_new(tenant).unwrap(),
            id: EventId::try_new(id).unwrap(),
            source: Source::try_new(source).unwrap(),
        };
        EventRef::new(key, place)
    }
}

prop_compose! {
    fn outcome()(
        kind in proptest::sample::select(OutcomeKind::all().collect::<Vec<_>>()),
        http_status in proptest::option::of(any::<u16>()),
        retry_after in proptest::option::of(duration()),
        message in ".{0,80}",
    ) -> Outcome {
        Outcome { kind, http_status, retry_after, message }
    }
}

fn state() -> impl Strategy<Value = RetryState> {
    (0..3, time()).prop_map(|(tag, at)| match tag {
        0 => RetryState::DueAt(at),
        1 => RetryState::Delivered(at),
        _ => RetryState::DeadLetter(at),
    })
}

fn event_type() -> impl Strategy<Value = fanfare_domain::EventType> {
    "[A-Za-z0-9_-]{1,40}(\\.[a-z]{1,20}){0,3}"
        .prop_map(|text| fanfare_domain::EventType::try_new(text).unwrap())
}

prop_compose! {
    fn retry()(
        id in any::<[u8; 24]>(),
        event in event_ref(),
        numbers in any::<(u64, u32, u32, u32)>(),
        first_attempt in time(),
        last_outcome in outcome(),
        state in state(),
    ) -> RetryRow {
        RetryRow {
            delivery: fanfare_domain::DeliveryId::from_bytes(id),
            tenant: event.key.tenant.clone(),
            subscription: SubscriptionId(numbers.0),
            event,
            generation: numbers.1,
            attempts: numbers.2,
            attempts_before: numbers.3,
            first_attempt,
            last_outcome,
            state,
        }
    }
}

prop_compose! {
    fn parked()(
        id in any::<[u8; 24]>(),
        event in event_ref(),
        place in any_place(),
        numbers in any::<(u64, u32, u32)>(),
        reason in 1..=4_u8,
        since in time(),
    ) -> Parked {
        let delivery = fanfare_domain::DeliveryId::from_bytes(id);
        Parked {
            endpoint: delivery.endpoint(),
            key: crate::ParkedKey { place, part: numbers.1 },
            delivery,
            tenant: event.key.tenant.clone(),
            subscription: SubscriptionId(numbers.0),
            event,
            generation: numbers.2,
            reason: fanfare_domain::ParkedReason::from_code(reason).unwrap(),
            since,
        }
    }
}

prop_compose! {
    fn dead_letter()(
        id in any::<[u8; 24]>(),
        event in event_ref(),
        event_type in event_type(),
        numbers in any::<(u64, u32, u32)>(),
        reason in 1..=7_u8,
        at in time(),
        redriven in proptest::option::of(time()),
    ) -> DeadLetter {
        DeadLetter {
            delivery: fanfare_domain::DeliveryId::from_bytes(id),
            tenant: event.key.tenant.clone(),
            subscription: SubscriptionId(numbers.0),
            event,
            event_type,
            generation: numbers.1,
            reason: fanfare_domain::DeadLetterReason::from_code(reason).unwrap(),
            at,
            attempts: numbers.2,
            redriven,
        }
    }
}

prop_compose! {
    fn attempt_row()(
        id in any::<[u8; 24]>(),
        event in event_ref(),
        event_type in event_type(),
        numbers in any::<(u64, u32)>(),
        start in time(),
        latency in duration(),
        outcome in prop_oneof![any::<u16>().prop_map(Outcome::delivered), outcome()],
        next_attempt in proptest::option::of(time()),
        answer in proptest::collection::vec(any::<u8>(), 0..2000),
        answer_truncated in any::<bool>(),
    ) -> AttemptRow {
        AttemptRow {
            tenant: event.key.tenant.clone(),
            delivery: fanfare_domain::DeliveryId::from_bytes(id),
            subscription: SubscriptionId(numbers.0),
            event,
            event_type,
            number: numbers.1,
            start,
            latency,
            outcome,
            next_attempt,
            answer: answer.into(),
            answer_truncated,
        }
    }
}

prop_compose! {
    fn conflict()(place in any_place(), hash in any::<[u8; 16]>(), accept_time in time()) -> Conflict {
        Conflict { place, body_hash: BodyHash(hash), accept_time }
    }
}

prop_compose! {
    fn route()(
        route_time in time(),
        config_head in any::<u64>(),
        matched in proptest::collection::vec(any::<(u64, u64)>(), 0..100),
    ) -> Route {
        let target = |(endpoint, subscription)| Target {
            endpoint: EndpointId(endpoint),
            subscription: SubscriptionId(subscription),
        };
        Route { route_time, matched: matched.into_iter().map(target).collect(), config_head }
    }
}

prop_compose! {
    fn event_head()(
        record in conflict(),
        route in proptest::option::of(route()),
        conflicts in proptest::collection::vec(conflict(), 0..10),
    ) -> EventHead {
        EventHead {
            place: record.place,
            known: Known { body_hash: record.body_hash, accept_time: record.accept_time },
            route,
            conflicts,
        }
    }
}

prop_compose! {
    fn endpoint()(
        owner in "[A-Za-z0-9_.-]{1,64}",
        texts in (".{0,60}", ".{0,60}", ".{0,60}"),
        numbers in any::<(u64, u64)>(),
        state in 0..3_usize,
        old in proptest::collection::vec(("[A-Za-z0-9+/]{32}", time()), 0..=2),
        headers in proptest::collection::btree_map("[a-z-]{1,20}", ".{0,30}", 0..5),
        steps in proptest::option::of(proptest::collection::vec(100..1_000_000_u64, 0..30)),
        timeout in duration(),
        structured in any::<bool>(),
        times in (time(), time()),
    ) -> fanfare_domain::Endpoint {
        let secret = |text: &String| fanfare_domain::Secret::parse(&format!("whsec_{text}")).unwrap();
        let millis = |steps: Vec<u64>| steps.into_iter().map(Duration::from_millis).collect();
        fanfare_domain::Endpoint {
            id: EndpointId(numbers.0),
            tenant: TenantId::try_new(owner).unwrap(),
            name: texts.0,
            url: texts.1,
            state: [EndpointState::Active, EndpointState::Paused, EndpointState::Disabled][state],
            state_reason: texts.2,
            secret: secret(&"Ab0/".repeat(12)),
            old_secrets: old.iter().map(|(text, until)| (secret(text), *until)).collect(),
            labels: headers.clone(),
            headers,
            retry_schedule: steps.map(|steps| RetrySchedule::try_new(millis(steps)).unwrap()),
            timeout,
            envelope: if structured { Envelope::Structured } else { Envelope::Binary },
            create_time: times.0,
            update_time: times.1,
            version: numbers.1,
        }
    }
}

prop_compose! {
    fn subscription()(
        owner in "[A-Za-z0-9_.-]{1,64}",
        numbers in any::<(u64, u64, u64)>(),
        types in proptest::collection::vec("([a-z]{1,9}|\\*)(\\.([a-z]{1,9}|\\*)){0,3}(\\.\\*\\*)?", 1..50),
        times in (time(), time()),
    ) -> fanfare_domain::Subscription {
        let pattern = |text: &String| fanfare_domain::TypePattern::try_new(text).unwrap();
        fanfare_domain::Subscription {
            id: SubscriptionId(numbers.0),
            tenant: TenantId::try_new(owner).unwrap(),
            endpoint: EndpointId(numbers.1),
            event_types: types.iter().map(pattern).collect(),
            create_time: times.0,
            update_time: times.1,
            version: numbers.2,
        }
    }
}

prop_compose! {
    fn request()(
        owner in "[A-Za-z0-9_.-]{1,64}",
        request_id in "[!-~]{1,64}",
        hash in any::<[u8; 16]>(),
        made in any::<u64>(),
        at_micros in any::<i64>(),
    ) -> Entry {
        Entry::Request {
            tenant: TenantId::try_new(owner).unwrap(), request_id, hash, made, at_micros,
        }
    }
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        endpoint().prop_map(Entry::Endpoint),
        subscription().prop_map(Entry::Subscription),
        request(),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    (entry(), any::<bool>()).prop_map(|(entry, put)| {
        if put {
            Write::Put(Box::new(entry))
        } else {
            Write::Delete(entry.key())
        }
    })
}

prop_compose! {
    fn shard_state()(
        checkpoint in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
        due_cursor in time(),
        last_stamp in any::<u64>(),
    ) -> ShardState {
        ShardState { checkpoint, due_cursor, last_stamp }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn retry_rows_round_trip(row in retry()) {
        check(&row);
    }

    #[test]
    fn parked_rows_round_trip(row in parked()) {
        check(&row);
    }

    #[test]
    fn dead_letters_round_trip(row in dead_letter()) {
        check(&row);
    }

    #[test]
    fn event_heads_round_trip(row in event_head()) {
        check(&row);
    }

    #[test]
    fn entries_round_trip(entry in entry()) {
        check(&entry);
    }

    #[test]
    fn changes_round_trip(writes in proptest::collection::vec(write(), 1..8)) {
        check(&writes);
    }

    #[test]
    fn shard_states_round_trip(state in shard_state()) {
        check(&state);
    }

    #[test]
    fn whole_attempts_round_trip(row in attempt_row()) {
        let bytes = attempt::encode(&row, Naming::Whole);
        let group = attempt::group(&row.delivery);
        let attempt = attempt::decode(&group, &bytes).unwrap();
        prop_assert!(attempt.is_named());
        prop_assert_eq!(attempt.name(None), Some(row));
    }

    #[test]
    fn attempts_by_place_round_trip(row in attempt_row()) {
        let mut event = fixtures::event("x", "data");
        event.tenant = row.tenant.clone();
        event.event.id = row.event.key.id.clone();
        event.event.source = row.event.key.source.clone();
        event.event.event_type = row.event_type.clone();
        let bytes = attempt::encode(&row, Naming::ByPlace);
        let attempt = attempt::decode(&attempt::group(&row.delivery), &bytes).unwrap();
        prop_assert_eq!(attempt.name(Some(&event)), Some(row));
    }

    #[test]
    fn listed_events_round_trip(accept_time in near_now(), place in any_place(), matched in any::<u32>()) {
        let listed = Listed { accept_time, place, matched };
        prop_assert_eq!(Listed::unpack(accept_time.seconds(), &listed.pack()), Ok(listed));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut sealed = bytes.clone();
        if sealed.len() >= HEADER {
            sealed[0] = MAJOR;
            let crc = checksum(Kind::Retry, MAJOR, &sealed[HEADER..]);
            sealed[1..HEADER].copy_from_slice(&crc.to_le_bytes());
        }
        let _ = RetryRow::open(&sealed);
        let _ = Entry::open(&bytes);
        let _ = attempt::decode(&[0; attempt::GROUP], &bytes);
        let _ = Listed::unpack(0, &bytes);
    }
}

#[test]
fn a_row_of_another_kind_is_damaged() {
    let row = fixtures::retry(1, 1, RetryState::DueAt(fixtures::second(1)));
    assert_eq!(Parked::open(&row.seal()), Err(WireError::Damaged));
}

#[test]
fn a_newer_version_is_told_apart_from_damage() {
    let mut bytes = ShardState::default().seal();
    bytes[0] = 2;
    let crc = checksum(Kind::ShardState, 2, &bytes[HEADER..]);
    bytes[1..HEADER].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(ShardState::open(&bytes), Err(WireError::NewerVersion(2)));
    let group = [0; attempt::GROUP];
    assert_eq!(
        attempt::decode(&group, &[2]),
        Err(WireError::NewerVersion(2))
    );
}

#[test]
fn a_success_takes_few_bytes() {
    let mut row = fixtures::attempt(7, fixtures::second(0), 1, 1);
    // Places of a log of some gigabytes.
    row.event.place.position = Position(20_000_000_000);
    let by_place = attempt::encode(&row, Naming::ByPlace).len();
    assert!(by_place <= 50, "{by_place} bytes");
    let whole = attempt::encode(&row, Naming::Whole).len();
    assert!(whole <= 100, "{whole} bytes");
}

fn line((name, bytes): &(&str, Vec<u8>)) -> String {
    let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{name}: {}\n", hex.concat())
}

/// Bytes that earlier programs wrote and later ones must read. A line that changes is a new major.
fn summary() -> EventSummary {
    let event = fixtures::event("1", "a");
    EventSummary {
        event: EventRef::new(event.key(), fixtures::place(300)),
        event_type: event.event.event_type,
        accept_time: event.accept_time,
        size: 1,
        matched: 2,
    }
}

#[test]
fn bodies_and_summaries_round_trip() {
    check(&summary());
    let text = bytes::Bytes::from_static(b"a");
    for data in [Data::None, Data::Text(text.clone()), Data::Bytes(text)] {
        let mut body = fixtures::event("1", "a");
        body.event.data = data;
        check(&body);
        body.event.ordering_key = Some("k".into());
        body.event.subject = None;
        check(&body);
    }
}

#[test]
fn golden_bytes_are_read_for_ever() {
    let owner = fixtures::tenant("acme");
    let head = EventHead {
        place: fixtures::place(300),
        known: Known {
            body_hash: BodyHash([7; 16]),
            accept_time: fixtures::second(0),
        },
        route: Some(fixtures::route(5, &[1, 2])),
        conflicts: vec![Conflict {
            place: fixtures::place(400),
            body_hash: BodyHash([8; 16]),
            accept_time: fixtures::second(1),
        }],
    };
    let change = vec![
        Write::Put(Box::new(Entry::Subscription(fixtures::subscription(
            &owner, 2, 1,
        )))),
        Write::Delete(EntryKey::Endpoint(owner.clone(), EndpointId(1))),
    ];
    let success = fixtures::attempt(7, fixtures::second(0), 1, 1);
    let failure = fixtures::failed_attempt(
        fixtures::attempt(7, fixtures::second(0), 1, 2),
        Outcome::failed(OutcomeKind::Dns, "no such name"),
    );
    let listed = Listed {
        accept_time: fixtures::second(0).plus(Duration::from_micros(5)),
        place: fixtures::place(300),
        matched: 2,
    };
    let state = ShardState {
        checkpoint: Some(vec![1, 2, 3]),
        due_cursor: fixtures::second(0),
        last_stamp: 9,
    };
    let due = RetryState::DueAt(fixtures::second(9));
    let body = fixtures::event("1", "a");
    let summary = summary();
    let rows = [
        (
            "endpoint",
            Entry::Endpoint(fixtures::endpoint(&owner, 1)).seal(),
        ),
        ("request", fixtures::request(&owner, "r-1", 1).seal()),
        ("change", change.seal()),
        ("event head", head.seal()),
        ("retry", fixtures::retry(7, 1, due).seal()),
        ("parked", fixtures::parked(7, 1).seal()),
        (
            "dead letter",
            fixtures::dead_letter(7, 1, fixtures::second(3)).seal(),
        ),
        ("shard", state.seal()),
        ("success", attempt::encode(&success, Naming::ByPlace)),
        ("failure", attempt::encode(&failure, Naming::Whole)),
        ("listed", listed.pack()),
        ("body", body.seal()),
        ("summary", summary.seal()),
    ];
    let text = rows.iter().map(line).collect::<Vec<_>>().concat();
    assert_eq!(text, include_str!("golden.txt"), "now:\n{text}");
}
