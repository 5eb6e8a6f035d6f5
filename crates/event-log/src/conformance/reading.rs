//! A read waits for something, and is bounded.

use super::Backend;
use super::fixtures::{
    AMPLE, Member, append, bytes_of, cancelled_after, read, read_shard, record, texts, within,
};
use crate::error::LogErrorKind;
use crate::log::{ReadLimit, Stream};

/// It returns with one as soon as there is one, and not before.
pub async fn a_read_waits_for_a_record<B: Backend>(backend: B) {
    let log = backend.log();
    let mut member = Member::of_events(&log).await;
    let mut granted = member.next_of(&*log, Stream::Events, 1).await;
    for n in 0..3 {
        let early = cancelled_after(50, granted.records.read(AMPLE)).await;
        assert!(early.is_none(), "read without a record: {early:?}");
        let text = format!("r{n}");
        append(&*log, vec![record(1, text.clone())]).await;
        assert_eq!(texts(bytes_of(&read(&mut granted, 1).await)), [text]);
    }
}

/// By count and by bytes; one record comes however large it is.
pub async fn limits_are_kept<B: Backend>(backend: B) {
    let log = backend.log();
    let sizes = [100usize, 100, 100, 5000, 100, 100];
    let batch = sizes.map(|size| record(1, vec![b'x'; size])).into();
    append(&*log, batch).await;
    let mut member = Member::of_events(&log).await;
    let mut granted = member.next_of(&*log, Stream::Events, 1).await;
    let limit = ReadLimit {
        records: 2,
        bytes: 250,
    };
    let mut found = Vec::new();
    while found.len() < sizes.len() {
        let entries = within("records", granted.records.read(limit))
            .await
            .unwrap();
        let bytes: usize = entries.iter().map(|e| e.bytes.len()).sum();
        assert!(entries.len() <= limit.records, "{} records", entries.len());
        assert!(
            bytes <= limit.bytes || entries.len() == 1,
            "{} records of {bytes} bytes",
            entries.len()
        );
        found.extend(entries.iter().map(|e| e.bytes.len()));
    }
    assert_eq!(found, sizes);
}

/// The largest event there is comes back byte for byte, among small ones.
pub async fn a_large_record_is_read_whole<B: Backend>(backend: B) {
    let log = backend.log();
    let large: Vec<u8> = (0..1_000_000u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    let batch = vec![record(1, "a"), record(1, large.clone()), record(1, "b")];
    append(&*log, batch).await;
    let entries = read_shard(&log, 1, 3).await;
    assert_eq!(&entries[0].bytes[..], b"a");
    assert!(entries[1].bytes == large, "the large record is damaged");
    assert_eq!(&entries[2].bytes[..], b"b");
}

/// If a log cannot take a record it says so, and takes nothing of its batch.
pub async fn a_record_over_the_limit_is_refused_whole<B: Backend>(backend: B) {
    let log = backend.log();
    let huge = record(1, vec![b'x'; 48 << 20]);
    let answer = log
        .append(Stream::Events, vec![record(1, "beside"), huge])
        .await;
    append(&*log, vec![record(1, "end")]).await;
    let entries = match answer {
        Ok(positions) => {
            assert_eq!(positions.len(), 2);
            read_shard(&log, 1, 3).await.split_off(2)
        }
        Err(error) => {
            assert_eq!(error.kind(), LogErrorKind::TooLarge);
            read_shard(&log, 1, 1).await
        }
    };
    assert_eq!(texts(bytes_of(&entries)), ["end"]);
}
