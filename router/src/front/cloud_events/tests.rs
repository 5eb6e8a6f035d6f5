use super::*;

fn structured(text: &str) -> Result<v1::Event, Refusal> {
    json::event(&Bytes::copy_from_slice(text.as_bytes()))
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(n, v)| (http::HeaderName::from_static(n), v.parse().unwrap()))
        .collect()
}

const REQUIRED: [(&str, &str); 4] = [
    ("ce-specversion", "1.0"),
    ("ce-id", "1"),
    ("ce-source", "/s"),
    ("ce-type", "a.b"),
];

fn field(refused: Result<v1::Event, Refusal>) -> String {
    refused.unwrap_err().to_json()["violations"][0]["field"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn structured_data_keeps_its_bytes() {
    let event = structured(
        r#"{"specversion":"1.0","id":"1","source":"/s","type":"a.b","data" : { "x" : 1.0,  "y":[] },"n":7,"b":true,"nil":null}"#,
    )
    .unwrap();
    assert_eq!(
        event.payload,
        Some(v1::event::Payload::Data(r#"{ "x" : 1.0,  "y":[] }"#.into()))
    );
    assert_eq!(event.extensions["n"], "7");
    assert_eq!(event.extensions["b"], "true");
    assert!(!event.extensions.contains_key("nil"));
}

#[test]
fn text_and_binary_data_are_what_their_member_says() {
    let rest = r#""specversion":"1.0","id":"1","source":"/s","type":"a","#;
    let text = structured(&format!(
        r#"{{{rest}"datacontenttype":"text/plain","data":"a\nb"}}"#
    ))
    .unwrap();
    assert_eq!(text.payload, Some(v1::event::Payload::Text("a\nb".into())));
    let binary = structured(&format!(
        r#"{{{rest}"datacontenttype":"image/png","data_base64":"AAE="}}"#
    ))
    .unwrap();
    assert_eq!(
        binary.payload,
        Some(v1::event::Payload::Data(Bytes::from_static(&[0, 1])))
    );
}

#[test]
fn malformed_envelopes_name_what_is_wrong() {
    let rest = r#""specversion":"1.0","id":"1","source":"/s","type":"a""#;
    for (text, want) in [
        (String::new(), "body"),
        ("[]".into(), "body"),
        (format!("{{{rest},\"id\":\"2\"}}"), "body"),
        (
            r#"{"specversion":"1.0","id":"1","source":"/s"}"#.into(),
            "event.type",
        ),
        (
            r#"{"id":"1","source":"/s","type":"a"}"#.into(),
            "event.specversion",
        ),
        (
            r#"{"specversion":"0.3","id":"1","source":"/s","type":"a"}"#.into(),
            "event.specversion",
        ),
        (format!("{{{rest},\"time\":\"yesterday\"}}"), "event.time"),
        (format!("{{{rest},\"subject\":{{}}}}"), "event.subject"),
        (format!("{{{rest},\"n\":1.5}}"), "event.n"),
        (
            format!("{{{rest},\"data\":1,\"data_base64\":\"\"}}"),
            "event.data",
        ),
        (
            format!("{{{rest},\"data_base64\":\"!\"}}"),
            "event.data_base64",
        ),
        (
            format!("{{{rest},\"datacontenttype\":\"text/plain\",\"data\":{{}}}}"),
            "event.data",
        ),
    ] {
        assert_eq!(field(structured(&text)), want, "{text}");
    }
}

#[test]
fn a_malformed_event_does_not_spoil_its_batch() {
    let good = r#"{"specversion":"1.0","id":"1","source":"/s","type":"a"}"#;
    let events = json::batch(&Bytes::from(format!("[{good},{{}},{good}]")), 3).unwrap();
    assert_eq!(
        events.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [true, false, true]
    );
    assert!(json::batch(&Bytes::from(format!("[{good},{good}]")), 1).is_err());
    assert!(json::batch(&Bytes::from(good), 1).is_err());
}

#[test]
fn binary_attributes_are_decoded_as_the_binding_says() {
    let mut all = headers(&REQUIRED);
    for (raw, want) in [
        ("Euro%20%E2%82%AC", "Euro €"),
        ("\"a\\\"b\"", "a\"b"),
        ("100%", "100%"),
        ("%zz", "%zz"),
    ] {
        all.insert("ce-subject", raw.parse().unwrap());
        let event = binary::event(&all, Bytes::new()).unwrap();
        assert_eq!(event.subject.as_deref(), Some(want));
        assert_eq!(event.payload, None);
    }
    all.insert("ce-subject", "%ff".parse().unwrap());
    assert_eq!(field(binary::event(&all, Bytes::new())), "ce-subject");
}

#[test]
fn binary_data_is_the_body_and_attributes_come_once() {
    let mut all = headers(&REQUIRED);
    all.insert("content-type", "text/xml".parse().unwrap());
    let event = binary::event(&all, Bytes::from_static(b"<a/>")).unwrap();
    assert_eq!(event.data_content_type, "text/xml");
    assert_eq!(event.payload, Some(v1::event::Payload::Data("<a/>".into())));
    all.append("ce-id", "2".parse().unwrap());
    assert_eq!(field(binary::event(&all, Bytes::new())), "ce-id");
}

#[test]
fn the_mode_is_what_the_content_type_says() {
    for (kind, mode) in [
        ("application/cloudevents+json", Some(Mode::Structured)),
        (
            "Application/CloudEvents+JSON; charset=utf-8",
            Some(Mode::Structured),
        ),
        ("application/cloudevents-batch+json", Some(Mode::Batch)),
        ("application/cloudevents+avro", None),
        ("application/json", None),
    ] {
        assert_eq!(
            Mode::of(&headers(&[("content-type", kind)])).ok(),
            mode,
            "{kind}"
        );
    }
    assert_eq!(Mode::of(&headers(&REQUIRED)).ok(), Some(Mode::Binary));
    let packed = headers(&[
        ("content-type", "application/cloudevents+json"),
        ("content-encoding", "gzip"),
    ]);
    assert!(Mode::of(&packed).is_err());
}
