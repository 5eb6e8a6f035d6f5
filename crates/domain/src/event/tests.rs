use super::*;

fn event(data: &'static str) -> Event {
    Event {
        id: EventId::try_new("e-1").unwrap(),
        source: Source::try_new("/shop").unwrap(),
        event_type: EventType::try_new("order.paid").unwrap(),
        subject: None,
        time: None,
        data_content_type: "application/json".into(),
        data_schema: None,
        data: Data::Bytes(Bytes::from_static(data.as_bytes())),
        ordering_key: None,
        extensions: BTreeMap::new(),
    }
}

fn reason(event: &Event) -> Option<Reason> {
    event.check(&EventLimits::default()).err().map(|e| e.reason)
}

#[test]
fn time_and_trace_context_are_not_part_of_the_body() {
    let first = event("{}");
    let mut repeat = first.clone();
    repeat.time = Some(Timestamp::from_millis(5));
    repeat
        .extensions
        .insert("traceparent".into(), "00-x".into());
    assert_eq!(first.body_hash(), repeat.body_hash());
}

#[test]
fn everything_else_is_part_of_the_body() {
    let first = event("{}");
    let mut others = vec![event("{ }")];
    for change in [
        |e: &mut Event| e.subject = Some("x".into()),
        |e: &mut Event| e.data_schema = Some("x".into()),
        |e: &mut Event| e.ordering_key = Some("x".into()),
        |e: &mut Event| e.data = Data::Text(Bytes::from_static(b"{}")),
        |e: &mut Event| e.data_content_type = "text/plain".into(),
        |e: &mut Event| drop(e.extensions.insert("a".into(), "x".into())),
    ] {
        let mut other = first.clone();
        change(&mut other);
        others.push(other);
    }
    for other in others {
        assert_ne!(first.body_hash(), other.body_hash(), "{other:?}");
    }
}

#[test]
fn declared_json_must_be_json_of_bounded_depth() {
    assert_eq!(reason(&event(r#"{"a":[1,2]}"#)), None);
    assert_eq!(reason(&event("{")), Some(Reason::DataNotJson));
    assert_eq!(reason(&event("")), Some(Reason::DataNotJson));
    let mut latin = event("");
    latin.data = Data::Bytes(Bytes::from_static(b"\"\xe9\""));
    assert_eq!(reason(&latin), Some(Reason::DataNotJson));
    let mut deep = event("");
    deep.data = Data::Bytes(format!("{}{}", "[".repeat(1 << 16), "]".repeat(1 << 16)).into());
    assert_eq!(reason(&deep), Some(Reason::DataTooDeep));
    assert_eq!(reason(&event(r#"{"a":"[[[\"{{{","b":[{}]}"#)), None);
    let mut text = event("{");
    text.data_content_type = "text/plain".into();
    assert_eq!(reason(&text), None);
}

#[test]
fn sizes_and_names_are_bounded() {
    let mut big = event("");
    big.data = Data::Bytes(vec![b'1'; 256 * 1024 + 1].into());
    assert_eq!(reason(&big), Some(Reason::EventTooLarge));
    for name in ["", "Upper", "dash-ed", "type", "averyveryverylongname1"] {
        let mut bad = event("1");
        bad.extensions.insert(name.into(), String::new());
        assert_eq!(reason(&bad), Some(Reason::ExtensionInvalid), "{name}");
    }
    let mut split = event("1");
    split.extensions.insert("a".into(), "x\r\ny: z".into());
    assert_eq!(reason(&split), Some(Reason::ExtensionInvalid));
}

#[test]
fn json_media_types_are_recognised() {
    for json in [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/cloudevents+json",
        "text/json",
    ] {
        assert!(is_json(json), "{json}");
    }
    for other in ["", "json", "text/plain", "application/jsonp"] {
        assert!(!is_json(other), "{other}");
    }
}
