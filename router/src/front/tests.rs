//! The whole front door on a real socket, over the memory log and stores.

mod draining;
mod limits;
mod streaming;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fanfare_event_log::LogErrorKind;
use fanfare_event_log::conformance::fixtures::{eventually, within};
use fanfare_event_log::memory::{Call, Fault, MemoryConfig, MemoryLog, SyncMode};
use fanfare_proto::v1;
use fanfare_proto::v1::event_service_client::EventServiceClient;
use fanfare_proto::v1::publish_result::Result as Published;
use fanfare_service::Clock;
use fanfare_service::egress::EgressPolicy;
use fanfare_store::Follower;
use fanfare_store::memory::MemoryStores;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::*;

struct Door {
    log: MemoryLog,
    address: String,
    events: EventServiceClient<Channel>,
    served: tokio::task::JoinHandle<()>,
    drain: DropGuard,
}

async fn door() -> Door {
    door_with(FrontConfig::default(), SyncMode::Automatic).await
}

/// A door over a log of one span that syncs by itself, or only when it is told to.
async fn door_with(config: FrontConfig, sync: SyncMode) -> Door {
    let log = MemoryLog::new(MemoryConfig {
        spans: 1,
        sync,
        ..MemoryConfig::default()
    });
    let stores = MemoryStores::new().stores();
    let deps = FrontDeps {
        log: Arc::new(log.clone()),
        follower: Follower::start(stores.config.clone(), Vec::new())
            .await
            .unwrap(),
        stores,
        keys: KeyRing::open(),
        egress: Arc::new(EgressPolicy::default()),
        clock: Clock::system(),
        meter: opentelemetry::global::meter("test"),
    };
    let door = FrontDoor::new(config, ManagementConfig::default(), deps);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let drain = CancellationToken::new();
    let served = tokio::spawn(door.serve(listener, drain.clone()));
    let channel = Channel::from_shared(address.clone())
        .unwrap()
        .connect()
        .await
        .unwrap();
    Door {
        log,
        address,
        events: EventServiceClient::new(channel),
        served,
        drain: drain.drop_guard(),
    }
}

fn event(id: &str, data: &'static str) -> v1::Event {
    v1::Event {
        id: id.into(),
        source: "/shop".into(),
        r#type: "order.paid".into(),
        payload: Some(v1::event::Payload::Data(data.into())),
        ..v1::Event::default()
    }
}

async fn publish(door: &Door, event: v1::Event) -> Result<v1::PublishResponse, Status> {
    let request = v1::PublishRequest { event: Some(event) };
    door.events
        .clone()
        .publish(request)
        .await
        .map(tonic::Response::into_inner)
}

/// Repeats a question until it has the answer; fails when that takes too long.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

fn reason(status: &Status) -> String {
    status
        .get_error_details()
        .error_info()
        .map(|info| info.reason.clone())
        .unwrap_or_default()
}

fn outcome(result: &v1::PublishResult) -> Code {
    match result.result.as_ref().unwrap() {
        Published::Accepted(_) => Code::Ok,
        Published::Error(status) => Code::from(status.code),
    }
}

#[tokio::test]
async fn a_repeat_is_answered_as_one_and_another_body_is_a_conflict() {
    let door = door().await;
    let first = publish(&door, event("e1", "{}")).await.unwrap();
    assert!(!first.duplicate);
    let again = publish(&door, event("e1", "{}")).await.unwrap();
    assert!(again.duplicate);
    assert_eq!(again.accept_time, first.accept_time);
    let conflict = publish(&door, event("e1", "[]")).await.unwrap_err();
    assert_eq!(
        (conflict.code(), reason(&conflict).as_str()),
        (Code::AlreadyExists, "EVENT_ID_CONFLICT")
    );
}

#[tokio::test]
async fn concurrent_publishes_of_one_identity_make_one_event() {
    let door = door().await;
    let calls = (0..32).map(|_| publish(&door, event("same", "{}")));
    let answers = futures::future::join_all(calls).await;
    let fresh = answers
        .iter()
        .filter(|answer| !answer.as_ref().unwrap().duplicate)
        .count();
    assert_eq!(fresh, 1);
}

#[tokio::test]
async fn what_the_log_says_is_what_the_caller_hears() {
    let door = door().await;
    for (fault, code, want) in [
        (LogErrorKind::Unknown, Code::Unavailable, "PUBLISH_UNKNOWN"),
        (LogErrorKind::Full, Code::ResourceExhausted, "STORAGE_FULL"),
        (
            LogErrorKind::Unavailable,
            Code::Unavailable,
            "LOG_UNAVAILABLE",
        ),
        (LogErrorKind::Closed, Code::Unavailable, "DRAINING"),
        (
            LogErrorKind::TooLarge,
            Code::InvalidArgument,
            "EVENT_TOO_LARGE",
        ),
    ] {
        door.log.set_fault(Call::Append, Some(Fault::Refuse(fault)));
        let refused = publish(&door, event("e2", "{}")).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (code, want));
        assert_eq!(can_retry(&refused), code == Code::Unavailable, "{want}");
    }
    door.log.set_fault(Call::Append, None);
    assert!(!publish(&door, event("e2", "{}")).await.unwrap().duplicate);
}

#[tokio::test]
async fn hostile_events_are_refused_by_field() {
    let door = door().await;
    let with = |change: fn(&mut v1::Event)| {
        let mut event = event("", "{}");
        change(&mut event);
        event
    };
    for (event, want, field) in [
        (
            with(|e| e.r#type = "../etc".into()),
            "EVENT_TYPE_INVALID",
            "event.type",
        ),
        (
            with(|e| e.r#type = "a\0b".into()),
            "EVENT_TYPE_INVALID",
            "event.type",
        ),
        (
            with(|e| e.r#type = "a".repeat(1 << 20)),
            "EVENT_TYPE_INVALID",
            "event.type",
        ),
        (
            with(|e| e.id = "a b".into()),
            "EVENT_ID_INVALID",
            "event.id",
        ),
        (event("", "{"), "DATA_NOT_JSON", "event.data"),
        (
            with(|e| {
                e.payload = Some(v1::event::Payload::Text(
                    "[".repeat(9_000) + &"]".repeat(9_000),
                ));
            }),
            "DATA_TOO_DEEP",
            "event.data",
        ),
        (
            with(|e| e.payload = Some(v1::event::Payload::Text("1".repeat(300 << 10)))),
            "EVENT_TOO_LARGE",
            "event.data",
        ),
        (
            with(|e| drop(e.extensions.insert("Bad".into(), String::new()))),
            "EXTENSION_INVALID",
            "event.extensions[Bad]",
        ),
    ] {
        let refused = publish(&door, event).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::InvalidArgument, want)
        );
        let details = refused.get_error_details();
        assert_eq!(
            details.bad_request().unwrap().field_violations[0].field,
            field
        );
    }
}

#[tokio::test]
async fn a_batch_answers_for_each_event_in_order() {
    let door = door().await;
    let mut bad = event("b2", "{}");
    bad.r#type = String::new();
    let events = vec![
        event("b1", "{}"),
        bad,
        event("b1", "{}"),
        event("b1", "[]"),
        event("b3", "{}"),
    ];
    let answer = door
        .events
        .clone()
        .publish_batch(v1::PublishBatchRequest { events })
        .await
        .unwrap();
    let codes: Vec<_> = answer.get_ref().results.iter().map(outcome).collect();
    assert_eq!(
        codes,
        [
            Code::Ok,
            Code::InvalidArgument,
            Code::Ok,
            Code::AlreadyExists,
            Code::Ok
        ]
    );
    let many = (0..1001).map(|i| event(&format!("m{i}"), "{}")).collect();
    let refused = door
        .events
        .clone()
        .publish_batch(v1::PublishBatchRequest { events: many })
        .await;
    assert_eq!(reason(&refused.unwrap_err()), "BATCH_TOO_LARGE");
}

#[tokio::test]
async fn a_stream_answers_all_it_read_and_holds_back_what_follows_a_refused_event() {
    let door = door().await;
    let keyed = |id: &str, key: &str, data| v1::Event {
        ordering_key: Some(key.into()),
        ..event(id, data)
    };
    let events = [
        keyed("s1", "a", "{}"),
        keyed("s2", "a", "{"),
        keyed("s3", "a", "{}"),
        keyed("s4", "b", "{}"),
        event("s5", "{}"),
    ];
    let requests = (1..)
        .zip(events)
        .map(|(sequence, event)| v1::PublishStreamRequest {
            sequence,
            event: Some(event),
        });
    let requests: Vec<_> = requests.collect();
    let mut answers = door
        .events
        .clone()
        .publish_stream(tokio_stream::iter(requests))
        .await
        .unwrap()
        .into_inner();
    let mut results = Vec::new();
    while let Some(answer) = answers.next().await {
        results.extend(
            answer
                .unwrap()
                .results
                .iter()
                .map(|r| (r.sequence, outcome(r))),
        );
    }
    let want = [
        (1, Code::Ok),
        (2, Code::InvalidArgument),
        (3, Code::Aborted),
        (4, Code::Ok),
        (5, Code::Ok),
    ];
    assert_eq!(results, want);
}

#[tokio::test]
async fn cloud_events_over_http_and_over_grpc_are_the_same_events() {
    let door = door().await;
    let binary = BTreeMap::from([
        ("ce-specversion", "1.0"),
        ("ce-id", "h1"),
        ("ce-source", "/shop"),
        ("ce-type", "order.paid"),
        ("content-type", "application/json"),
    ]);
    let (status, body) = post(&door, &binary, "{}").await;
    assert_eq!((status, body["id"].as_str()), (202, Some("h1")));
    assert!(publish(&door, event("h1", "{}")).await.unwrap().duplicate);

    let structured = BTreeMap::from([("content-type", "application/cloudevents+json")]);
    let text = r#"{"specversion":"1.0","id":"h1","source":"/shop","type":"order.paid","data":[]}"#;
    let (status, body) = post(&door, &structured, text).await;
    assert_eq!(
        (status, body["error"]["code"].as_str()),
        (409, Some("EVENT_ID_CONFLICT"))
    );

    let batch = BTreeMap::from([("content-type", "application/cloudevents-batch+json")]);
    let (status, body) = post(
        &door,
        &batch,
        format!("[{},{{}}]", text.replace("h1", "h2")),
    )
    .await;
    assert_eq!(
        (status, body["results"][0]["id"].as_str()),
        (400, Some("h2"))
    );
    assert_eq!(body["results"][1]["error"]["code"], "EVENT_FIELD_INVALID");

    let none = BTreeMap::new();
    assert_eq!(post(&door, &none, "{}").await.0, 400);
    assert_eq!(post(&door, &binary, "1".repeat(300 << 10)).await.0, 413);
}

/// Whether a refusal says when to try again.
fn can_retry(status: &Status) -> bool {
    status.get_error_details().retry_info().is_some()
}

#[tokio::test]
async fn data_that_is_not_json_is_accepted_with_a_note() {
    let door = door().await;
    let event = |id: &str, data: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/shop","type":"order.paid",{data}}}"#
        )
    };
    let (json, text, binary) = (
        event("n1", r#""data":1"#),
        event("n2", r#""datacontenttype":"text/plain","data":"1""#),
        event(
            "n3",
            r#""datacontenttype":"image/png","data_base64":"/wA=""#,
        ),
    );
    let structured = BTreeMap::from([("content-type", "application/cloudevents+json")]);
    let (status, body) = post(&door, &structured, &*text).await;
    let note = body["notes"][0].as_str().unwrap();
    assert!(status == 202 && note.contains("not JSON"), "{body}");

    let batch = BTreeMap::from([("content-type", "application/cloudevents-batch+json")]);
    let (status, body) = post(&door, &batch, format!("[{json},{{}},{binary}]")).await;
    assert_eq!(status, 400);
    assert!(body["results"][0].get("notes").is_none(), "{body}");
    let note = body["results"][2]["notes"][0].as_str().unwrap();
    assert!(note.contains("data_base64"), "{note}");
}

async fn post(
    door: &Door,
    headers: &BTreeMap<&str, &str>,
    body: impl Into<String>,
) -> (u16, serde_json::Value) {
    let mut request = http::Request::post(format!("{}/v1/events", door.address));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::new(bytes::Bytes::from(body.into())))
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}
