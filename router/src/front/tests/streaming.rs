//! Calls that stay open: what a stream of publishes reads before it has answered, and what a
//! follower that is too slow is told.

use fanfare_event_log::{EventLog as _, Group, ReadLimit, Stream, Visibility};
use futures::FutureExt as _;

use super::*;

fn request(sequence: u64, data: usize) -> v1::PublishStreamRequest {
    let text = "1".repeat(data);
    v1::PublishStreamRequest {
        sequence,
        event: Some(v1::Event {
            payload: Some(v1::event::Payload::Text(text)),
            ..event(&format!("w{sequence}"), "")
        }),
    }
}

/// How many events are in the log, durable or not.
async fn appended(door: &Door) -> usize {
    let group = Group::new("count");
    let joined = door.log.join(Stream::Events, &group, Visibility::Ordered);
    let mut reader = joined.await.unwrap();
    let mut granted = reader.next().await.unwrap();
    let all = ReadLimit {
        records: usize::MAX,
        bytes: usize::MAX,
    };
    let read = granted.records.read(all).now_or_never();
    read.map_or(0, |read| read.unwrap().len())
}

/// Publishes `count` events of `data` bytes into a log that holds its answers back: the server
/// reads `window` of them and no more, and goes on when they are answered.
async fn reads_at_most(window: usize, count: u64, data: usize) {
    let door = door_with(FrontConfig::default(), SyncMode::Manual).await;
    let requests = tokio_stream::iter((1..=count).map(move |sequence| request(sequence, data)));
    let opened = door.events.clone().publish_stream(requests).await;
    let mut answers = opened.unwrap().into_inner();
    let full = async || (appended(&door).await >= window).then_some(());
    until("the window is full", full).await;
    // Other calls of the same connection come and go: the stream had its turns, too.
    for _ in 0..20 {
        let list = v1::ListEventsRequest::default();
        door.events.clone().list_events(list).await.unwrap();
    }
    assert_eq!(appended(&door).await, window);

    let log = door.log.clone();
    let syncing = tokio::spawn(async move {
        loop {
            log.sync();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let mut sequences = Vec::new();
    while let Some(answer) = within("an answer", answers.next()).await {
        let results = answer.unwrap().results;
        assert!(results.iter().all(|result| outcome(result) == Code::Ok));
        sequences.extend(results.iter().map(|result| result.sequence));
    }
    syncing.abort();
    assert!(sequences.into_iter().eq(1..=count));
}

#[tokio::test]
async fn a_stream_reads_no_more_than_1024_events_ahead_of_its_answers() {
    reads_at_most(1_024, 2_500, 10).await;
}

#[tokio::test]
async fn a_stream_reads_no_more_than_4_mib_ahead_of_its_answers() {
    // The event that crosses the bound is the last one read.
    let data = 200 << 10;
    reads_at_most((4 << 20) / data + 1, 60, data).await;
}

#[tokio::test]
async fn a_stream_answers_what_it_read_before_an_event_that_is_too_large_to_read() {
    let door = door().await;
    let requests = tokio_stream::iter([request(1, 10), request(2, 5 << 20), request(3, 10)]);
    let opened = door.events.clone().publish_stream(requests).await;
    let mut answers = opened.unwrap().into_inner();
    let first = answers.next().await.unwrap().unwrap().results;
    assert_eq!((first.len(), outcome(&first[0])), (1, Code::Ok));
    let ended = answers.next().await.unwrap().unwrap_err();
    let said = (ended.code(), &*reason(&ended));
    assert_eq!(said, (Code::InvalidArgument, "EVENT_TOO_LARGE"));
    assert_eq!(appended(&door).await, 1);
}

#[tokio::test]
async fn a_follower_that_is_too_slow_is_told_how_many_it_missed() {
    let door = door().await;
    let follow = v1::TailEventsRequest::default();
    let opened = door.events.clone().tail_events(follow).await;
    let mut answers = opened.unwrap().into_inner();
    // More than its queue and the windows of its connection hold.
    let mut published = 60;
    for i in 0..published {
        let large = request(i, 200 << 10).event.unwrap();
        publish(&door, large).await.unwrap();
    }
    // What was skipped is told with what comes next.
    let (mut got, mut skipped) = (0, 0);
    let told = async {
        while got + skipped < published {
            let next = tokio::time::timeout(Duration::from_millis(20), answers.next()).await;
            let Ok(answer) = next else {
                published += 1;
                let small = request(published, 10).event.unwrap();
                publish(&door, small).await.unwrap();
                continue;
            };
            let answer = answer.unwrap().unwrap();
            got += answer.events.len() as u64;
            skipped += answer.skipped;
        }
    };
    within("everything is received or told", told).await;
    assert!(skipped > 0);
    assert_eq!(got + skipped, published);
}
