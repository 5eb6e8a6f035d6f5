use proptest::prelude::*;

use fanfare_domain::{BodyHash, Event, EventId, EventType, Source};

use super::*;

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9äß ./:-]{0,20}"
}

fn data() -> impl Strategy<Value = Data> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
    prop_oneof![
        Just(Data::None),
        bytes().prop_map(Data::Bytes),
        text().prop_map(|t| Data::Text(Bytes::from(t))),
    ]
}

prop_compose! {
    fn accepted()(
        id in "[!-~]{1,40}",
        tenant in "[a-z][a-z0-9-]{0,20}[a-z0-9]",
        event_type in "[A-Za-z0-9_-]{1,10}(\\.[A-Za-z0-9_-]{1,10}){0,3}",
        subject in proptest::option::of(text()),
        time in proptest::option::of(any::<i64>()),
        data in data(),
        data_schema in proptest::option::of(text()),
        ordering_key in proptest::option::of(text()),
        extensions in proptest::collection::btree_map("[a-z0-9]{1,20}", text(), 0..4),
        accept_time in any::<i64>(),
        hash in any::<[u8; 16]>(),
    ) -> AcceptedEvent {
        AcceptedEvent {
            tenant: TenantId::try_new(&tenant).unwrap(),
            event: Event {
                id: EventId::try_new(&id).unwrap(),
                source: Source::try_new("/shop/1").unwrap(),
                event_type: EventType::try_new(&event_type).unwrap(),
                subject,
                time: time.map(Timestamp::from_micros),
                data_content_type: "application/json".into(),
                data_schema,
                data,
                ordering_key,
                extensions,
            },
            accept_time: Timestamp::from_micros(accept_time),
            body_hash: BodyHash(hash),
        }
    }
}

prop_compose! {
    fn delivery()(
        event in accepted(),
        inline in any::<bool>(),
        span in any::<u16>(),
        numbers in any::<(u64, i64, u64, u32)>(),
        targets in proptest::collection::vec(any::<(u64, u64)>(), 1..=PARTS_MAX),
    ) -> DeliveryRecord {
        let (position, route_time, config_head, generation) = numbers;
        let mut event = event;
        if !inline {
            event.event.data = Data::None;
        }
        DeliveryRecord {
            event: Arc::new(event),
            inline,
            place: Place { span, position: Position(position) },
            route_time: Timestamp::from_micros(route_time),
            config_head,
            generation,
            targets: targets
                .into_iter()
                .map(|(endpoint, subscription)| Target {
                    endpoint: EndpointId(endpoint),
                    subscription: SubscriptionId(subscription),
                })
                .collect(),
        }
    }
}

prop_compose! {
    fn redrive()(
        at in any::<i64>(),
        deliveries in proptest::collection::vec(any::<[u8; 24]>(), 1..=PARTS_MAX),
    ) -> RedriveRecord {
        RedriveRecord {
            tenant: TenantId::try_new("shop").unwrap(),
            at: Timestamp::from_micros(at),
            deliveries: deliveries.into_iter().map(DeliveryId::from_bytes).collect(),
        }
    }
}

fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        accepted().prop_map(Record::Event),
        delivery().prop_map(Record::Delivery),
        redrive().prop_map(Record::Redrive),
        delivery().prop_map(Record::Test),
    ]
}

proptest! {
    #[test]
    fn a_record_comes_back(record in record()) {
        let bytes = record.encode();
        prop_assert_eq!(Record::decode(&bytes), Ok(record));
    }

    #[test]
    fn a_flipped_bit_is_noticed(record in record(), bit in any::<prop::sample::Index>()) {
        let mut bytes = record.encode().to_vec();
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(Record::decode(&bytes.into()), Err(RecordError::Damaged));
    }

    #[test]
    fn a_cut_record_is_noticed(record in record(), at in any::<prop::sample::Index>()) {
        let bytes = record.encode();
        let cut = bytes.slice(..at.index(bytes.len()));
        prop_assert_eq!(Record::decode(&cut), Err(RecordError::Damaged));
    }

    /// With a checksum that fits, too: whatever is read is something that we would write.
    #[test]
    fn any_bytes_are_read_without_a_panic(
        kind in any::<u8>(),
        body in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut bytes = vec![MAJOR, kind, 0, 0, 0, 0];
        bytes.extend(body);
        let crc = checksum(&bytes);
        bytes[2..HEADER].copy_from_slice(&crc.to_le_bytes());
        if let Ok(record) = Record::decode(&bytes.into()) {
            prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
        }
    }
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let mut bytes = golden_event().encode().to_vec();
    bytes[0] = MAJOR + 1;
    let crc = checksum(&bytes);
    bytes[2..HEADER].copy_from_slice(&crc.to_le_bytes());
    let newer = Err(RecordError::UnknownVersion(MAJOR + 1));
    assert_eq!(Record::decode(&bytes.into()), newer);
}

#[test]
fn fields_that_a_newer_program_adds_are_skipped() {
    let mut bytes = golden_event().encode().to_vec();
    // Field 1000, a varint.
    bytes.extend([0xc0, 0x3e, 0x07]);
    let crc = checksum(&bytes);
    bytes[2..HEADER].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(Record::decode(&bytes.into()), Ok(golden_event()));
}

#[test]
fn data_that_is_not_inline_is_left_out() {
    let Record::Delivery(mut record) = golden_delivery() else {
        unreachable!("it is a delivery")
    };
    record.inline = false;
    let Ok(Record::Delivery(read)) = Record::decode(&Record::Delivery(record).encode()) else {
        panic!("not a delivery")
    };
    assert_eq!(read.event.event.data, Data::None);
    assert!(!read.inline);
}

#[test]
#[should_panic(expected = "1 to 64 parts")]
fn more_parts_than_can_settle_are_never_written() {
    let Record::Delivery(mut record) = golden_delivery() else {
        unreachable!("it is a delivery")
    };
    record.targets = record.targets.repeat(PARTS_MAX);
    Record::Delivery(record).encode();
}

/// What is in logs today must be readable for ever: these bytes never change.
#[test]
fn the_format_does_not_drift() {
    let golden = [
        (golden_event(), GOLDEN_EVENT),
        (golden_delivery(), GOLDEN_DELIVERY),
        (golden_redrive(), GOLDEN_REDRIVE),
        (golden_test(), GOLDEN_TEST),
    ];
    for (record, hex) in golden {
        let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
        let written = data_encoding::HEXLOWER.encode(&record.encode());
        assert_eq!(written, hex, "{record:?}");
        assert_eq!(Record::decode(&bytes.into()), Ok(record));
    }
}

const GOLDEN_EVENT: &str = "0101c5542a130a0473686f701203652d311a052f74696c6c220a6f726465722e706169642a036f2d3730013a106170706c69636174696f6e2f6a736f6e420575726e3a734a077b2261223a317d5a016b62130a0b7472616365706172656e74120430302d31688080afa2dbffad06721030313233343536373839616263646566";
const GOLDEN_DELIVERY: &str = "0102007a60670a750a0473686f701203652d311a052f74696c6c220a6f726465722e706169642a036f2d3730013a106170706c69636174696f6e2f6a736f6e420575726e3a73520268695a016b62130a0b7472616365706172656e74120430302d31688080afa2dbffad067210303132333435363738396162636465661001180320ac02288280afa2dbffad06300c3801422005000000000000000600000000000000feffffffffffffffffffffffffffffff";
const GOLDEN_REDRIVE: &str =
    "0103f0a9434d0a0473686f70109a011a18303132333435363738396162636465666768696a6b6c6d6e";
const GOLDEN_TEST: &str = "0104a35729c60a750a0473686f701203652d311a052f74696c6c220a6f726465722e706169642a036f2d3730013a106170706c69636174696f6e2f6a736f6e420575726e3a73520268695a016b62130a0b7472616365706172656e74120430302d31688080afa2dbffad067210303132333435363738396162636465661001180320ac02288280afa2dbffad06300c3801422005000000000000000600000000000000feffffffffffffffffffffffffffffff";

fn golden_event() -> Record {
    Record::Event(AcceptedEvent {
        tenant: TenantId::try_new("shop").unwrap(),
        event: Event {
            id: EventId::try_new("e-1").unwrap(),
            source: Source::try_new("/till").unwrap(),
            event_type: EventType::try_new("order.paid").unwrap(),
            subject: Some("o-7".into()),
            time: Some(Timestamp::from_micros(-1)),
            data_content_type: "application/json".into(),
            data_schema: Some("urn:s".into()),
            data: Data::Bytes(Bytes::from_static(b"{\"a\":1}")),
            ordering_key: Some("k".into()),
            extensions: [("traceparent".into(), "00-1".into())].into(),
        },
        accept_time: Timestamp::from_micros(1_790_000_000_000_000),
        body_hash: BodyHash(*b"0123456789abcdef"),
    })
}

fn golden_delivery() -> Record {
    let Record::Event(mut event) = golden_event() else {
        unreachable!("it is an event")
    };
    event.event.data = Data::Text(Bytes::from_static(b"hi"));
    let target = |n| Target {
        endpoint: EndpointId(n),
        subscription: SubscriptionId(n + 1),
    };
    Record::Delivery(DeliveryRecord {
        event: Arc::new(event),
        inline: true,
        place: Place {
            span: 3,
            position: Position(300),
        },
        route_time: Timestamp::from_micros(1_790_000_000_000_001),
        config_head: 12,
        generation: 1,
        targets: vec![target(5), target(u64::MAX - 1)],
    })
}

fn golden_test() -> Record {
    match golden_delivery() {
        Record::Delivery(record) => Record::Test(record),
        other => other,
    }
}

fn golden_redrive() -> Record {
    Record::Redrive(RedriveRecord {
        tenant: TenantId::try_new("shop").unwrap(),
        at: Timestamp::from_micros(77),
        deliveries: vec![DeliveryId::from_bytes(*b"0123456789abcdefghijklmn")],
    })
}
