//! What every backend of [`History`](crate::History) does.

use bytes::Bytes;
use fanfare_domain::{
    Blame, DeliveryId, EndpointId, EventRef, Outcome, OutcomeKind, Place, Timestamp,
};

use super::fixtures::{attempt, delivery, event, failed_attempt, second, tenant};
use super::{Backend, all_pages};
use crate::{AttemptFilter, AttemptRow, PageToken, StoreErrorKind, Stores};

async fn append(stores: &Stores, rows: &[AttemptRow]) {
    stores.history.append(rows.to_vec()).await.unwrap();
}

async fn attempts(stores: &Stores, delivery: DeliveryId, limit: usize) -> Vec<AttemptRow> {
    stores
        .history
        .attempts(&tenant("acme"), delivery, limit)
        .await
        .unwrap()
}

fn everything(endpoint: u64) -> AttemptFilter {
    AttemptFilter {
        endpoint: EndpointId(endpoint),
        since: None,
        until: None,
        blame: None,
    }
}

async fn listed(stores: &Stores, filter: &AttemptFilter, limit: usize) -> Vec<AttemptRow> {
    let tenant = tenant("acme");
    let list = |token: Option<PageToken>| {
        let tenant = &tenant;
        async move {
            stores
                .history
                .list(tenant, filter, token.as_ref(), limit)
                .await
        }
    };
    all_pages(list).await
}

/// Accepted events, by number, whose attempts are kept.
struct Shop(Vec<EventRef>);

impl Shop {
    /// A hundred events in the backend's log.
    async fn open(backend: &impl Backend) -> Self {
        let events: Vec<_> = (0..100).map(|n| event(&format!("e-{n}"), "data")).collect();
        let places = backend.accept(events.clone()).await;
        let refs = events.iter().zip(places);
        Self(refs.map(|(e, p)| EventRef::new(e.key(), p)).collect())
    }

    fn attempt(&self, endpoint: u64, published: Timestamp, n: u64, number: u32) -> AttemptRow {
        AttemptRow {
            event: self.0[usize::try_from(n).unwrap()].clone(),
            ..attempt(endpoint, published, n, number)
        }
    }

    /// Attempts `1..=numbers` of one delivery; all but the last failed.
    fn chain(&self, endpoint: u64, published: Timestamp, n: u64, numbers: u32) -> Vec<AttemptRow> {
        let row = |number| {
            let row = self.attempt(endpoint, published, n, number);
            if number == numbers {
                row
            } else {
                failed_attempt(row, Outcome::status(503, None))
            }
        };
        (1..=numbers).map(row).collect()
    }

    /// Ninety deliveries over an hour and a half, every third tried twice, and a neighbour's.
    async fn ninety(&self, stores: &Stores) -> Vec<AttemptRow> {
        let of = |n: u64| {
            let published = second(i64::try_from(n / 4 * 240).unwrap());
            self.chain(7, published, n, if n.is_multiple_of(3) { 2 } else { 1 })
        };
        let rows: Vec<_> = (0..90).flat_map(of).collect();
        for part in rows.chunks(11) {
            append(stores, part).await;
            append(stores, &[self.attempt(8, second(0), 1, 1)]).await;
        }
        rows
    }
}

/// A delivery's attempts, whole, in order, however and whenever they were written.
pub async fn attempts_come_by_number<B: Backend>(backend: B) {
    let (stores, shop) = (backend.stores(), Shop::open(&backend).await);
    let rows = shop.chain(7, second(0), 1, 4);
    append(&stores, &[rows[3].clone(), rows[0].clone()]).await;
    append(
        &stores,
        &[
            rows[2].clone(),
            shop.attempt(7, second(0), 2, 1),
            rows[1].clone(),
        ],
    )
    .await;
    assert_eq!(attempts(&stores, rows[0].delivery, 100).await, rows);
    assert_eq!(attempts(&stores, delivery(7, second(0), 3), 100).await, []);
}

/// A test of an endpoint has an event that was never published; its attempt is whole all the same.
pub async fn an_event_in_no_log_is_named<B: Backend>(backend: B) {
    let stores = backend.stores();
    let mut row = attempt(7, second(0), 1, 1);
    row.event.place = Place::default();
    append(&stores, &[row.clone()]).await;
    assert_eq!(attempts(&stores, row.delivery, 10).await, [row]);
}

/// A limit keeps the newest attempts.
pub async fn the_last_attempts_are_kept_by_a_limit<B: Backend>(backend: B) {
    let (stores, shop) = (backend.stores(), Shop::open(&backend).await);
    let rows = shop.chain(7, second(0), 1, 10);
    append(&stores, &rows).await;
    assert_eq!(attempts(&stores, rows[0].delivery, 3).await, rows[7..]);
}

/// The same attempt written again, as after a crash, is one row: the later.
pub async fn writing_again_replaces<B: Backend>(backend: B) {
    let (stores, shop) = (backend.stores(), Shop::open(&backend).await);
    let first = shop.attempt(7, second(0), 1, 1);
    let mut again = failed_attempt(
        first.clone(),
        Outcome::failed(OutcomeKind::Dns, "no such name"),
    );
    append(&stores, &[first]).await;
    append(&stores, &[again.clone()]).await;
    assert_eq!(
        attempts(&stores, again.delivery, 100).await,
        [again.clone()]
    );
    again.answer = Bytes::new();
    assert_eq!(listed(&stores, &everything(7), 10).await, [again]);
}

/// Knowing a delivery's id is not enough.
pub async fn another_tenant_sees_nothing<B: Backend>(backend: B) {
    let (stores, shop) = (backend.stores(), Shop::open(&backend).await);
    let row = shop.attempt(7, second(0), 1, 1);
    append(&stores, &[row.clone()]).await;
    let other = tenant("other");
    assert_eq!(
        stores
            .history
            .attempts(&other, row.delivery, 10)
            .await
            .unwrap(),
        []
    );
    let page = stores
        .history
        .list(&other, &everything(7), None, 10)
        .await
        .unwrap();
    assert_eq!((page.rows, page.next), (vec![], None));
}

fn sorted(mut rows: Vec<AttemptRow>) -> Vec<AttemptRow> {
    rows.sort_by_key(|row| (row.delivery, row.number));
    for row in &mut rows {
        row.answer = Bytes::new();
    }
    rows
}

/// Whatever the page size: every attempt once, newest publish first, a delivery's side by side.
pub async fn lists_are_newest_first_and_adjacent<B: Backend>(backend: B) {
    let (stores, shop) = (backend.stores(), Shop::open(&backend).await);
    let expected = sorted(shop.ninety(&stores).await);
    for limit in [1, 7, 1000] {
        let found = listed(&stores, &everything(7), limit).await;
        assert!(found.is_sorted_by(|a, b| a.delivery.published() >= b.delivery.published()));
        let mut groups: Vec<_> = found.iter().map(|row| row.delivery).collect();
        groups.dedup();
        assert_eq!(groups.len(), 90, "attempts of one delivery are torn apart");
        assert!(found.iter().all(|row| row.answer.is_empty()));
        assert_eq!(sorted(found), expected);
    }
}

/// By time of publish, and by whose fault it was.
pub async fn lists_keep_to_their_filter<B: Backend>(backend: B) {
    let (stores, shop) = (backend.stores(), Shop::open(&backend).await);
    let mut rows = shop.ninety(&stores).await;
    let refused = Outcome::failed(OutcomeKind::EgressDenied, "denied");
    rows.push(failed_attempt(
        shop.attempt(7, second(1000), 95, 1),
        refused,
    ));
    append(&stores, &rows[rows.len() - 1..]).await;
    let filters = [
        (Some(second(480)), None, None),
        (Some(second(480)), Some(second(1200)), None),
        (None, Some(second(1200)), Some(Blame::Endpoint)),
        (None, None, Some(Blame::Policy)),
        (None, None, Some(Blame::Us)),
    ];
    for (since, until, blame) in filters {
        let filter = AttemptFilter {
            since,
            until,
            blame,
            ..everything(7)
        };
        let wanted = rows
            .iter()
            .filter(|row| filter.admits(row))
            .cloned()
            .collect();
        assert_eq!(
            sorted(listed(&stores, &filter, 4).await),
            sorted(wanted),
            "{filter:?}"
        );
    }
}

/// A token that no list gave out is refused, not guessed at.
pub async fn a_foreign_token_is_refused<B: Backend>(backend: B) {
    let token = PageToken(b"nonsense!".to_vec());
    let stores = backend.stores();
    let page = stores
        .history
        .list(&tenant("acme"), &everything(7), Some(&token), 10)
        .await;
    assert_eq!(page.unwrap_err().kind(), StoreErrorKind::BadToken);
}

/// What support reads tomorrow is there after today's crash.
pub async fn synced_attempts_survive_a_crash<B: Backend>(backend: B) {
    let (stores, shop) = (backend.stores(), Shop::open(&backend).await);
    let expected = sorted(shop.ninety(&stores).await);
    backend.sync().await;
    let backend = backend.crash_and_reopen().await;
    let stores = backend.stores();
    assert_eq!(sorted(listed(&stores, &everything(7), 13).await), expected);
    let more = shop.chain(7, second(0), 0, 3);
    append(&stores, &more).await;
    assert_eq!(attempts(&stores, more[0].delivery, 10).await, more);
}
