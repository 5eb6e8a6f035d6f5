//! What each limit of the front door refuses, how it says so, and that it ends with its cause.

use fanfare_service::{ByteSize, HumanDuration};
use hyper_util::client::legacy::Client;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::codec::CompressionEncoding;

use super::*;

const BINARY: [(&str, &str); 5] = [
    ("ce-specversion", "1.0"),
    ("ce-id", "h1"),
    ("ce-source", "/shop"),
    ("ce-type", "order.paid"),
    ("content-type", "application/json"),
];

async fn door_of(change: impl FnOnce(&mut FrontConfig)) -> Door {
    let mut config = FrontConfig::default();
    change(&mut config);
    door_with(config, SyncMode::Automatic).await
}

fn stall(door: &Door) {
    door.log.set_fault(Call::Append, Some(Fault::Stall));
}

fn go_on(door: &Door) {
    door.log.set_fault(Call::Append, None);
}

/// Publishes in the background.
fn publishing(
    door: &Door,
    event: v1::Event,
) -> tokio::task::JoinHandle<Result<tonic::Response<v1::PublishResponse>, Status>> {
    let mut events = door.events.clone();
    let request = v1::PublishRequest { event: Some(event) };
    tokio::spawn(async move { events.publish(request).await })
}

/// A call that publishes nothing.
async fn list(door: &Door) -> Result<(), Status> {
    let request = v1::ListEventsRequest::default();
    door.events.clone().list_events(request).await.map(drop)
}

async fn follow(
    door: &Door,
) -> Result<tonic::Response<tonic::Streaming<v1::TailEventsResponse>>, Status> {
    let request = v1::TailEventsRequest::default();
    door.events.clone().tail_events(request).await
}

/// The refusal of a call, once there is no room for it.
async fn refused_when_full(mut call: impl AsyncFnMut() -> Result<(), Status>) -> Status {
    until("no more room", async || call().await.err()).await
}

fn check_overloaded(refused: &Status) {
    let said = (refused.code(), &*reason(refused), can_retry(refused));
    assert_eq!(said, (Code::ResourceExhausted, "OVERLOADED", true));
}

/// A gRPC call whose head and message are as given.
async fn call(door: &Door, headers: &[(&str, &str)], message: &[u8]) -> Status {
    let mut request =
        http::Request::post(format!("{}/fanfare.v1.EventService/Publish", door.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = bytes::Bytes::from([&[0], &length[..], message].concat());
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let answer = client.request(request.body(Full::new(body)).unwrap()).await;
    Status::from_header_map(answer.unwrap().headers()).expect("it is refused at once")
}

/// What a connection gets that sends `bytes`, until it is closed.
async fn all_answers(address: &str, bytes: &[u8]) -> String {
    let address = address.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut answers = Vec::new();
    // Closed before it is read is closed, too.
    if stream.write_all(bytes).await.is_ok() {
        let closed = stream.read_to_end(&mut answers);
        let _ = within("the connection is closed", closed).await;
    }
    String::from_utf8_lossy(&answers).into_owned()
}

#[tokio::test]
async fn a_call_beyond_the_most_is_refused_and_accepts_nothing() {
    let door = door_of(|c| c.calls_max = 1).await;
    stall(&door);
    let first = publishing(&door, event("c1", "{}"));
    check_overloaded(&refused_when_full(async || list(&door).await).await);
    check_overloaded(&publish(&door, event("c2", "{}")).await.unwrap_err());
    let (status, body) = post(&door, &BINARY.into(), "{}").await;
    let code = body["error"]["code"].as_str();
    assert_eq!((status, code), (429, Some("OVERLOADED")));
    assert_eq!(door.log.bytes(), 0);

    go_on(&door);
    first.await.unwrap().unwrap();
    assert!(!publish(&door, event("c2", "{}")).await.unwrap().duplicate);
    assert_eq!(post(&door, &BINARY.into(), "{}").await.0, 202);
}

#[tokio::test]
async fn a_stream_beyond_the_most_is_refused_and_calls_go_on() {
    let door = door_of(|c| c.streams_max = 1).await;
    let first = follow(&door).await.unwrap();
    check_overloaded(&follow(&door).await.unwrap_err());
    let events = tokio_stream::empty::<v1::PublishStreamRequest>();
    let second = door.events.clone().publish_stream(events).await;
    check_overloaded(&second.unwrap_err());
    publish(&door, event("s1", "{}")).await.unwrap();

    drop(first);
    until("room for a stream", async || follow(&door).await.ok()).await;
}

#[tokio::test]
async fn bytes_beyond_the_most_on_their_way_into_the_log_are_refused() {
    let config = FrontConfig {
        event_max: ByteSize::kib(4),
        batch_max: ByteSize::kib(4),
        publishing_max: ByteSize::kib(4),
        ..FrontConfig::default()
    };
    assert_eq!(config.check(), Ok(()));
    let door = door_with(config, SyncMode::Manual).await;
    let large = |id: &str| v1::Event {
        payload: Some(v1::event::Payload::Text("1".repeat(3_000))),
        ..event(id, "")
    };
    let first = publishing(&door, large("p1"));
    let on_its_way = || match door.log.bytes() {
        0 => Err("nothing is appended".into()),
        bytes => Ok(bytes),
    };
    let appended = eventually("the first is on its way", on_its_way).await;
    check_overloaded(&publish(&door, large("p2")).await.unwrap_err());
    let batch = v1::PublishBatchRequest {
        events: vec![event("p3", "{}"), large("p4")],
    };
    let answer = door.events.clone().publish_batch(batch).await.unwrap();
    for result in &answer.get_ref().results {
        let Some(Published::Error(error)) = &result.result else {
            panic!("accepted: {result:?}");
        };
        let details = prost::Message::encode_to_vec(error).into();
        let code = Code::from(error.code);
        check_overloaded(&Status::with_details(code, &*error.message, details));
    }
    assert_eq!(door.log.bytes(), appended);

    door.log.sync();
    first.await.unwrap().unwrap();
    let second = publishing(&door, large("p2"));
    let more = || match door.log.bytes() {
        bytes if bytes > appended => Ok(()),
        bytes => Err(format!("{bytes} bytes")),
    };
    eventually("the second is on its way", more).await;
    door.log.sync();
    assert!(!second.await.unwrap().unwrap().get_ref().duplicate);
}

#[tokio::test]
async fn a_connection_beyond_the_most_is_closed_at_once() {
    let door = door_of(|c| c.connections_max = 1).await;
    let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert_eq!(all_answers(&door.address, request).await, "");
    publish(&door, event("n1", "{}")).await.unwrap();

    let (address, _open) = (door.address, door.drain);
    drop(door.events);
    until("room for a connection", async || {
        let answers = all_answers(&address, request).await;
        answers.starts_with("HTTP/1.1 404").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_sends_no_head_in_time_is_closed() {
    let door = door_of(|c| c.header_timeout = HumanDuration(Duration::from_millis(100))).await;
    // An HTTP/2 client that says hello and nothing more.
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for silent in [&b""[..], b"GET / HTTP/1.1\r\nhost", hello] {
        let answers = all_answers(&door.address, silent).await;
        assert!(!answers.contains("HTTP/1.1"), "{answers}");
    }
    // One that asked once must go on asking.
    let once = all_answers(&door.address, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(once.starts_with("HTTP/1.1 404"), "{once}");
    publish(&door, event("t1", "{}")).await.unwrap();
}

#[tokio::test]
async fn what_is_not_answered_in_time_is_unknown_and_may_be_repeated() {
    let door = door_of(|c| c.call_timeout = HumanDuration(Duration::from_millis(100))).await;
    stall(&door);
    let late = within("an answer", publish(&door, event("h1", "{}"))).await;
    let late = late.unwrap_err();
    let said = (late.code(), &*reason(&late), can_retry(&late));
    assert_eq!(said, (Code::DeadlineExceeded, "DEADLINE_EXCEEDED", true));
    let (status, body) = post(&door, &BINARY.into(), "{}").await;
    let code = body["error"]["code"].as_str();
    assert_eq!((status, code), (504, Some("DEADLINE_EXCEEDED")));
    go_on(&door);
    until("it is published", async || {
        publish(&door, event("h1", "{}")).await.ok()
    })
    .await;

    // A body that never comes does not hold its room for longer either.
    let slow =
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nce-specversion: 1.0\r\ncontent-length: 9\r\n\r\n{";
    let answer = all_answers(&door.address, slow.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
}

#[tokio::test]
async fn the_callers_own_deadline_is_kept() {
    let door = door_of(|c| c.call_timeout = HumanDuration(Duration::from_hours(1))).await;
    stall(&door);
    let message = v1::PublishRequest {
        event: Some(event("g1", "{}")),
    };
    let message = prost::Message::encode_to_vec(&message);
    let late = call(&door, &[("grpc-timeout", "50m")], &message);
    let late = within("an answer", late).await;
    assert_eq!(reason(&late), "DEADLINE_EXCEEDED");
    assert_eq!(door.log.bytes(), 0);
}

#[tokio::test]
async fn a_message_that_does_not_parse_is_refused_with_details() {
    let door = door().await;
    let refused = call(&door, &[], b"\xff\xff\xff").await;
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(reason(&refused), "REQUEST_INVALID");
    let details = refused.get_error_details();
    let violations = &details.bad_request().unwrap().field_violations;
    assert_eq!(violations[0].field, "request");
    assert!(!can_retry(&refused));
}

#[tokio::test]
async fn a_batch_is_at_most_4_mib() {
    let door = door().await;
    let batch = |name: &str, count| v1::PublishBatchRequest {
        events: (0..count)
            .map(|i| v1::Event {
                payload: Some(v1::event::Payload::Text("1".repeat(255 << 10))),
                ..event(&format!("{name}{i}"), "")
            })
            .collect(),
    };
    let gzip = CompressionEncoding::Gzip;
    let plain = door.events.clone();
    for mut events in [plain.clone(), plain.send_compressed(gzip)] {
        let refused = events.publish_batch(batch("x", 17)).await.unwrap_err();
        let said = (refused.code(), &*reason(&refused), can_retry(&refused));
        assert_eq!(said, (Code::InvalidArgument, "BATCH_TOO_LARGE", false));
        let details = refused.get_error_details();
        let violations = &details.bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "request");
    }
    assert_eq!(door.log.bytes(), 0);
    let answer = door.events.clone().publish_batch(batch("b", 16)).await;
    let results = answer.unwrap().into_inner().results;
    assert!(results.iter().all(|result| outcome(result) == Code::Ok));
}

#[tokio::test]
async fn a_batch_over_http_is_at_most_4_mib() {
    let door = door().await;
    let headers = BTreeMap::from([("content-type", "application/cloudevents-batch+json")]);
    let event = r#"[{"specversion":"1.0","id":"h1","source":"/shop","type":"order.paid"}]"#;
    let padded = |size: usize| format!("{event}{}", " ".repeat(size - event.len()));
    let (status, body) = post(&door, &headers, padded((4 << 20) + 1)).await;
    let code = body["error"]["code"].as_str();
    assert_eq!((status, code), (413, Some("BATCH_TOO_LARGE")));
    assert_eq!(door.log.bytes(), 0);
    let (status, _) = post(&door, &headers, padded(4 << 20)).await;
    assert_eq!(status, 202);
}
