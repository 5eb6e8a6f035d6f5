//! What every backend of [`ShardStates`](crate::ShardStates) does.

use fanfare_domain::{Tenure, Timestamp};

use super::fixtures::second;
use super::{Backend, refused};
use crate::ShardState;

fn state(n: u64) -> ShardState {
    ShardState {
        checkpoint: Some(vec![0, 1, 2, 255]),
        due_cursor: second(5),
        last_stamp: n,
    }
}

/// Nobody saved it: the default.
pub async fn a_new_span_has_the_default<B: Backend>(backend: B) {
    let state = backend.stores().shards.load("deliveries", 3).await.unwrap();
    assert_eq!(state, ShardState::default());
    assert_eq!(state.due_cursor, Timestamp::default());
}

/// By stream and by index.
pub async fn spans_are_apart<B: Backend>(backend: B) {
    let shards = backend.stores().shards;
    let spans = [
        ("deliveries", 0),
        ("deliveries", 1),
        ("events", 0),
        ("events", 255),
    ];
    for (n, (stream, span)) in (1..).zip(spans) {
        shards
            .save(&Tenure::unlimited(), stream, span, state(n))
            .await
            .unwrap();
    }
    for (n, (stream, span)) in (1..).zip(spans) {
        assert_eq!(shards.load(stream, span).await.unwrap(), state(n));
    }
}

/// Saving replaces, for good.
pub async fn the_last_state_survives_a_crash<B: Backend>(backend: B) {
    let tenure = Tenure::unlimited();
    for n in [1, u64::MAX, 7] {
        backend
            .stores()
            .shards
            .save(&tenure, "events", 0, state(n))
            .await
            .unwrap();
    }
    backend.sync().await;
    let backend = backend.crash_and_reopen().await;
    let loaded = backend.stores().shards.load("events", 0).await.unwrap();
    assert_eq!(loaded, state(7));
}

/// An owner that lost its span does not move its checkpoint.
pub async fn nothing_is_saved_without_tenure<B: Backend>(backend: B) {
    let shards = backend.stores().shards;
    let tenure = Tenure::unlimited();
    shards.save(&tenure, "events", 0, state(1)).await.unwrap();
    tenure.end();
    refused(shards.save(&tenure, "events", 0, state(2)).await);
    assert_eq!(shards.load("events", 0).await.unwrap(), state(1));
}
