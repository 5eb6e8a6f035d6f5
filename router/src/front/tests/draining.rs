//! What a drain does to what is under way.

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;

fn check_draining(ended: &Status) {
    let said = (ended.code(), &*reason(ended), can_retry(ended));
    assert_eq!(said, (Code::Unavailable, "DRAINING", true));
}

fn request(sequence: u64) -> v1::PublishStreamRequest {
    v1::PublishStreamRequest {
        sequence,
        event: Some(event(&format!("d{sequence}"), "{}")),
    }
}

/// Waits until more than `before` bytes are appended; how many.
async fn appended(log: &MemoryLog, before: usize) -> usize {
    let check = || match log.bytes() {
        bytes if bytes > before => Ok(bytes),
        bytes => Err(format!("{bytes} bytes")),
    };
    eventually("another event is on its way", check).await
}

#[tokio::test]
async fn a_drain_ends_well() {
    let door = door().await;
    publish(&door, event("d1", "{}")).await.unwrap();
    drop(door.drain);
    drop(door.events);
    within("the drain", door.served).await.unwrap();
}

#[tokio::test]
async fn a_drain_answers_all_that_was_read_and_reads_no_more() {
    let door = door_with(FrontConfig::default(), SyncMode::Manual).await;
    let mut events = door.events.clone();
    let (send, requests) = mpsc::channel(10);
    let opened = events.publish_stream(ReceiverStream::new(requests)).await;
    let mut answers = opened.unwrap().into_inner();
    send.send(request(1)).await.unwrap();
    let one = appended(&door.log, 0).await;
    send.send(request(2)).await.unwrap();
    let two = appended(&door.log, one).await;
    let unary = tokio::spawn(async move {
        let event = Some(event("d3", "{}"));
        events.publish(v1::PublishRequest { event }).await
    });
    let three = appended(&door.log, two).await;

    drop(door.drain);
    send.send(request(4)).await.unwrap();
    // Whoever was told to drain had a turn since.
    let address = door.address.strip_prefix("http://").unwrap();
    let closed = async || TcpStream::connect(address).await.err();
    until("the door is closed", closed).await;
    assert!(!door.served.is_finished());
    door.log.sync();
    unary.await.unwrap().unwrap();
    let mut results = Vec::new();
    let ended = loop {
        match within("an answer", answers.next()).await.unwrap() {
            Ok(answer) => results.extend(answer.results),
            Err(ended) => break ended,
        }
    };
    check_draining(&ended);
    let told: Vec<_> = results.iter().map(|r| (r.sequence, outcome(r))).collect();
    assert_eq!(told, [(1, Code::Ok), (2, Code::Ok)]);
    assert_eq!(door.log.bytes(), three);
    drop(door.events);
    within("the drain", door.served).await.unwrap();
}

#[tokio::test]
async fn a_drain_tells_who_follows_and_who_only_holds_a_stream_open() {
    let door = door().await;
    let mut events = door.events.clone();
    let requests = tokio_stream::pending::<v1::PublishStreamRequest>();
    let mut idle = events.publish_stream(requests).await.unwrap().into_inner();
    let follow = v1::TailEventsRequest::default();
    let mut tail = events.tail_events(follow).await.unwrap().into_inner();
    drop(door.drain);
    let ended = within(
        "the streams end",
        futures::future::join(idle.next(), tail.next()),
    );
    let (idle, tail) = ended.await;
    check_draining(&idle.unwrap().unwrap_err());
    check_draining(&tail.unwrap().unwrap_err());
    drop((door.events, events));
    within("the drain", door.served).await.unwrap();
}
