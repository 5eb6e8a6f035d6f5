//! What every backend of [`Retries`](crate::Retries) does.

use std::collections::BTreeSet;

use fanfare_domain::{EndpointId, Shard, ShardSet, Tenure, Timestamp};

use super::fixtures::{delivery, retry, second};
use super::{Backend, all_pages, refused};
use crate::RetryState::{DeadLetter, Delivered, DueAt};
use crate::{DueHint, PageToken, RetryRow, StoreErrorKind, Stores};

async fn put(stores: &Stores, rows: Vec<RetryRow>) {
    stores
        .retries
        .put(&Tenure::unlimited(), rows)
        .await
        .unwrap();
}

async fn get(stores: &Stores, row: &RetryRow) -> Option<RetryRow> {
    stores.retries.get(&[row.delivery]).await.unwrap().remove(0)
}

fn hint(row: &RetryRow) -> DueHint {
    match row.state {
        DueAt(due) => DueHint {
            due,
            delivery: row.delivery,
        },
        state => panic!("not due: {state:?}"),
    }
}

/// The hints until `until` that agree with the state: what a scan may fire.
async fn firing(stores: &Stores, shards: ShardSet, until: Timestamp) -> Vec<DueHint> {
    let hints = stores.retries.due(shards, None, until, 1000).await.unwrap();
    assert!(hints.is_sorted_by(|a, b| a < b), "{hints:?}");
    let mut firing = Vec::new();
    for hint in hints {
        let row = stores
            .retries
            .get(&[hint.delivery])
            .await
            .unwrap()
            .remove(0);
        if row.is_some_and(|row| row.state == DueAt(hint.due)) {
            firing.push(hint);
        }
    }
    firing
}

/// Putting replaces the whole state of a delivery, field by field.
pub async fn the_last_state_counts<B: Backend>(backend: B) {
    let stores = backend.stores();
    let mut row = retry(1, 1, DueAt(second(10)));
    assert_eq!(get(&stores, &row).await, None);
    for state in [
        DueAt(second(10)),
        DueAt(second(20)),
        DeadLetter(second(30)),
        Delivered(second(40)),
    ] {
        row.state = state;
        row.attempts += 1;
        put(&stores, vec![row.clone()]).await;
        assert_eq!(get(&stores, &row).await, Some(row.clone()));
    }
}

/// One answer per id, in the order asked; a batch may name a delivery twice.
pub async fn answers_match_their_questions<B: Backend>(backend: B) {
    let stores = backend.stores();
    let (a, b) = (
        retry(1, 1, DueAt(second(10))),
        retry(2, 2, Delivered(second(10))),
    );
    let later = RetryRow {
        state: DueAt(second(11)),
        ..a.clone()
    };
    put(&stores, vec![a.clone(), b.clone(), later.clone()]).await;
    let unknown = delivery(1, second(0), 99);
    let ids = [b.delivery, unknown, a.delivery, b.delivery];
    let answers = stores.retries.get(&ids).await.unwrap();
    assert_eq!(answers, [Some(b.clone()), None, Some(later), Some(b)]);
}

/// A scan gives what is due, rising, from where the last one ended, however it is cut.
pub async fn hints_rise_from_the_cursor<B: Backend>(backend: B) {
    let stores = backend.stores();
    let row = |n: u64| retry(n % 5, n, DueAt(second(i64::try_from(n * 7 % 20).unwrap())));
    let rows: Vec<_> = (0..60).map(row).collect();
    put(&stores, rows.clone()).await;
    let mut expected: Vec<_> = rows
        .iter()
        .map(hint)
        .filter(|h| h.due <= second(12))
        .collect();
    expected.sort();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let hints = stores
            .retries
            .due(ShardSet::ALL, after, second(12), 7)
            .await
            .unwrap();
        assert!(hints.len() <= 7);
        after = hints.last().copied();
        if after.is_none() {
            break;
        }
        seen.extend(hints);
    }
    assert_eq!(seen, expected);
}

/// An owner is shown the hints of its own shards only.
pub async fn due_keeps_to_its_shards<B: Backend>(backend: B) {
    let stores = backend.stores();
    let rows: Vec<_> = (0..40).map(|n| retry(n, n, DueAt(second(1)))).collect();
    put(&stores, rows.clone()).await;
    for index in 0..4 {
        let shards = ShardSet::try_new(index, 4).unwrap();
        let mine = |row: &&RetryRow| shards.contains(Shard::of_endpoint(row.delivery.endpoint()));
        let mut expected: Vec<_> = rows.iter().filter(mine).map(hint).collect();
        expected.sort();
        assert_eq!(firing(&stores, shards, second(1)).await, expected);
    }
}

/// Rescheduled: the new time is hinted, and the old one no longer agrees with the state.
pub async fn a_new_time_is_hinted_too<B: Backend>(backend: B) {
    let stores = backend.stores();
    let first = retry(1, 1, DueAt(second(10)));
    let moved = retry(1, 1, DueAt(second(20)));
    put(&stores, vec![first.clone()]).await;
    put(&stores, vec![moved.clone()]).await;
    assert_eq!(
        firing(&stores, ShardSet::ALL, second(30)).await,
        [hint(&moved)]
    );
    let done = retry(1, 1, Delivered(second(21)));
    put(&stores, vec![done]).await;
    assert_eq!(firing(&stores, ShardSet::ALL, second(30)).await, []);
}

/// A forgotten hint is not seen again; forgetting is idempotent and leaves the state alone.
pub async fn forgotten_hints_stay_away<B: Backend>(backend: B) {
    let stores = backend.stores();
    let rows: Vec<_> = (0..10).map(|n| retry(1, n, DueAt(second(1)))).collect();
    put(&stores, rows.clone()).await;
    let gone: Vec<_> = rows[..6].iter().map(hint).collect();
    for _ in 0..2 {
        stores
            .retries
            .forget(&Tenure::unlimited(), gone.clone())
            .await
            .unwrap();
    }
    let left: BTreeSet<_> = rows[6..].iter().map(hint).collect();
    let hints = stores
        .retries
        .due(ShardSet::ALL, None, second(1), 100)
        .await
        .unwrap();
    assert_eq!(hints, left.into_iter().collect::<Vec<_>>());
    assert_eq!(get(&stores, &rows[0]).await, Some(rows[0].clone()));
}

/// The open rows of one endpoint and nothing else, each once.
pub async fn open_rows_are_paged<B: Backend>(backend: B) {
    let stores = backend.stores();
    let open: Vec<_> = (0..20).map(|n| retry(7, n, DueAt(second(100)))).collect();
    let closed = (20..30).map(|n| retry(7, n, Delivered(second(1))));
    let dead = (30..40).map(|n| retry(7, n, DeadLetter(second(1))));
    let others = [6, 8].into_iter().map(|e| retry(e, 50, DueAt(second(1))));
    let rows = open.iter().cloned().chain(closed).chain(dead).chain(others);
    put(&stores, rows.collect()).await;
    for limit in [1, 6, 1000] {
        let list = |token: Option<PageToken>| {
            let retries = stores.retries.clone();
            async move { retries.open(EndpointId(7), token.as_ref(), limit).await }
        };
        let mut found = all_pages(list).await;
        found.sort_by_key(|row| row.subscription);
        assert_eq!(found, open);
    }
    let token = PageToken(vec![1, 2, 3]);
    let page = stores.retries.open(EndpointId(7), Some(&token), 10).await;
    assert_eq!(page.unwrap_err().kind(), StoreErrorKind::BadToken);
}

/// Retries survive everything: state, hints, and what was forgotten.
pub async fn synced_state_survives_a_crash<B: Backend>(backend: B) {
    let stores = backend.stores();
    let rows: Vec<_> = (0..10).map(|n| retry(n, n, DueAt(second(1)))).collect();
    put(&stores, rows.clone()).await;
    put(&stores, vec![retry(0, 0, Delivered(second(2)))]).await;
    let forgotten = vec![hint(&rows[0])];
    stores
        .retries
        .forget(&Tenure::unlimited(), forgotten)
        .await
        .unwrap();
    backend.sync().await;
    let backend = backend.crash_and_reopen().await;
    let stores = backend.stores();
    assert_eq!(
        get(&stores, &rows[0]).await.unwrap().state,
        Delivered(second(2))
    );
    let mut expected: Vec<_> = rows[1..].iter().map(hint).collect();
    expected.sort();
    let hints = stores
        .retries
        .due(ShardSet::ALL, None, second(1), 100)
        .await
        .unwrap();
    assert_eq!(hints, expected);
}

/// Hint first, then state: a crash between leaves a stale hint, never a state that nobody fires.
pub async fn a_state_never_lacks_its_hint<B: Backend>(backend: B) {
    let rows: Vec<_> = (0..50).map(|n| retry(n % 3, n, DueAt(second(1)))).collect();
    put(&backend.stores(), rows.clone()).await;
    let backend = backend.crash_and_reopen().await;
    let stores = backend.stores();
    let hints = stores
        .retries
        .due(ShardSet::ALL, None, second(1), 100)
        .await
        .unwrap();
    for row in &rows {
        if get(&stores, row).await.is_some() {
            assert!(hints.contains(&hint(row)), "{row:?} has no hint");
        }
    }
}

/// An owner that lost its shard leaves no trace and removes none.
pub async fn nothing_is_written_without_tenure<B: Backend>(backend: B) {
    let stores = backend.stores();
    let tenure = Tenure::unlimited();
    let before = retry(1, 1, DueAt(second(1)));
    stores
        .retries
        .put(&tenure, vec![before.clone()])
        .await
        .unwrap();
    tenure.end();
    let changed = retry(1, 1, Delivered(second(2)));
    refused(
        stores
            .retries
            .put(&tenure, vec![changed, retry(1, 2, DueAt(second(1)))])
            .await,
    );
    refused(stores.retries.forget(&tenure, vec![hint(&before)]).await);
    let hints = stores
        .retries
        .due(ShardSet::ALL, None, second(9), 100)
        .await
        .unwrap();
    assert_eq!(hints, [hint(&before)]);
    assert_eq!(get(&stores, &before).await, Some(before));
}
