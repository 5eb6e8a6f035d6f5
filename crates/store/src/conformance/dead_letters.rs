//! What every backend of [`DeadLetters`](crate::DeadLetters) does.

use fanfare_domain::{EndpointId, Tenure, Timestamp};

use super::fixtures::{dead_letter, delivery, second, tenant};
use super::{Backend, all_pages, refused};
use crate::{DeadLetter, PageToken, StoreErrorKind, Stores};

async fn put(stores: &Stores, rows: &[DeadLetter]) {
    stores
        .dead_letters
        .put(&Tenure::unlimited(), rows.to_vec())
        .await
        .unwrap();
}

async fn listed(
    stores: &Stores,
    endpoint: Option<u64>,
    since: Option<Timestamp>,
    limit: usize,
) -> Vec<DeadLetter> {
    let tenant = tenant("acme");
    let list = |token: Option<PageToken>| {
        let (tenant, endpoint) = (&tenant, endpoint.map(EndpointId));
        async move {
            stores
                .dead_letters
                .list(tenant, endpoint, since, token.as_ref(), limit)
                .await
        }
    };
    all_pages(list).await
}

/// Sixty letters over some days, of three endpoints, some of one moment.
fn sixty() -> Vec<DeadLetter> {
    let row = |n: u64| dead_letter(n % 3, n, second(i64::try_from(n / 2 * 7_000).unwrap()));
    (0..60).map(row).collect()
}

fn sorted(mut rows: Vec<DeadLetter>) -> Vec<DeadLetter> {
    rows.sort_by_key(|row| row.delivery);
    rows
}

/// Putting replaces; answers match their questions.
pub async fn the_last_row_counts<B: Backend>(backend: B) {
    let stores = backend.stores();
    let (a, b) = (dead_letter(1, 1, second(1)), dead_letter(1, 2, second(1)));
    let again = DeadLetter {
        at: second(9),
        attempts: 20,
        ..a.clone()
    };
    put(&stores, &[a.clone(), b.clone()]).await;
    put(&stores, &[again.clone()]).await;
    let unknown = delivery(1, second(0), 99);
    let ids = [b.delivery, unknown, a.delivery];
    let found = stores.dead_letters.get(&ids).await.unwrap();
    assert_eq!(found, [Some(b.clone()), None, Some(again.clone())]);
    assert_eq!(listed(&stores, None, None, 10).await, [again, b]);
}

/// Whatever the page size: every letter once, newest first, and no other tenant's.
pub async fn lists_are_newest_first_and_complete<B: Backend>(backend: B) {
    let stores = backend.stores();
    put(&stores, &sixty()).await;
    let foreign = DeadLetter {
        tenant: tenant("other"),
        ..dead_letter(1, 100, second(1))
    };
    put(&stores, &[foreign]).await;
    for limit in [1, 7, 1000] {
        let found = listed(&stores, None, None, limit).await;
        assert!(found.is_sorted_by(|a, b| a.at >= b.at));
        assert_eq!(sorted(found), sorted(sixty()));
    }
}

/// By endpoint and by time of death, `since` included.
pub async fn lists_keep_to_their_filter<B: Backend>(backend: B) {
    let stores = backend.stores();
    put(&stores, &sixty()).await;
    for (endpoint, since) in [
        (Some(1), None),
        (None, Some(second(70_000))),
        (Some(2), Some(second(70_000))),
    ] {
        let wanted = sixty().into_iter().filter(|row| {
            endpoint.is_none_or(|id| row.delivery.endpoint() == EndpointId(id))
                && since.is_none_or(|since| row.at >= since)
        });
        let found = listed(&stores, endpoint, since, 3).await;
        assert_eq!(sorted(found), sorted(wanted.collect()));
    }
}

/// A redriven letter is still there by id; it is listed again when it dies again, once.
pub async fn a_redriven_letter_leaves_the_list_until_it_dies_again<B: Backend>(backend: B) {
    let stores = backend.stores();
    let (dead, other) = (dead_letter(1, 1, second(1)), dead_letter(1, 2, second(2)));
    put(&stores, &[dead.clone(), other.clone()]).await;
    let redriven = DeadLetter {
        redriven: Some(second(3)),
        ..dead.clone()
    };
    put(&stores, &[redriven.clone()]).await;
    assert_eq!(listed(&stores, None, None, 10).await, [other.clone()]);
    let found = stores.dead_letters.get(&[dead.delivery]).await.unwrap();
    assert_eq!(found, [Some(redriven)]);
    let again = DeadLetter {
        at: second(86_400),
        ..dead
    };
    put(&stores, &[again.clone()]).await;
    assert_eq!(listed(&stores, None, None, 1).await, [again, other]);
}

/// A token that no list gave out is refused, not guessed at.
pub async fn a_foreign_token_is_refused<B: Backend>(backend: B) {
    let token = PageToken(b"nonsense!".to_vec());
    let stores = backend.stores();
    let page = stores
        .dead_letters
        .list(&tenant("acme"), None, None, Some(&token), 10)
        .await;
    assert_eq!(page.unwrap_err().kind(), StoreErrorKind::BadToken);
}

/// A dead letter outlives a crash.
pub async fn synced_letters_survive_a_crash<B: Backend>(backend: B) {
    put(&backend.stores(), &sixty()).await;
    let redriven = DeadLetter {
        redriven: Some(second(3)),
        ..sixty().remove(0)
    };
    put(&backend.stores(), &[redriven]).await;
    backend.sync().await;
    let backend = backend.crash_and_reopen().await;
    let found = listed(&backend.stores(), None, None, 13).await;
    assert_eq!(sorted(found), sorted(sixty()[1..].to_vec()));
}

/// An owner that lost its shard buries nothing.
pub async fn nothing_is_written_without_tenure<B: Backend>(backend: B) {
    let stores = backend.stores();
    let tenure = Tenure::unlimited();
    tenure.end();
    refused(stores.dead_letters.put(&tenure, sixty()).await);
    assert_eq!(listed(&stores, None, None, 10).await, []);
}
