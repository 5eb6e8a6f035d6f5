//! What every backend of [`EventRows`](crate::EventRows) does.

use fanfare_domain::{AcceptedEvent, EventRef, Place, Tenure, Timestamp};

use super::fixtures::{claim, event, event_of, place, route, second, tenant};
use super::{Backend, all_pages, refused};
use crate::{Claim, Claimed, EventFilter, EventRow, PageToken, Route, StoreErrorKind, Stores};

async fn claim_one(stores: &Stores, event: &AcceptedEvent, at: Place, route: Route) -> Claimed {
    let claims = vec![claim(event, at, route)];
    let mut answers = stores
        .events
        .claim(&Tenure::unlimited(), claims)
        .await
        .unwrap();
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

async fn rows(stores: &Stores, event: &AcceptedEvent) -> Vec<EventRow> {
    stores
        .events
        .get(&event.tenant, &event.event.id)
        .await
        .unwrap()
}

/// Accepts and claims, each as fresh.
async fn claim_all(backend: &impl Backend, events: &[AcceptedEvent], route: &Route) -> Vec<Place> {
    let places = backend.accept(events.to_vec()).await;
    let pairs = events.iter().zip(&places);
    let claims: Vec<Claim> = pairs.map(|(e, p)| claim(e, *p, route.clone())).collect();
    let answers = backend
        .stores()
        .events
        .claim(&Tenure::unlimited(), claims)
        .await
        .unwrap();
    assert_eq!(answers, vec![Claimed::Fresh; events.len()]);
    places
}

/// A claim repeated, even under a changed configuration, answers with what it found at first.
pub async fn a_claim_is_fresh_once_and_then_its_own<B: Backend>(backend: B) {
    let stores = backend.stores();
    let event = event("1", "a");
    let place = backend.accept(vec![event.clone()]).await[0];
    let first = route(5, &[1, 2]);
    assert_eq!(
        claim_one(&stores, &event, place, first.clone()).await,
        Claimed::Fresh
    );
    for _ in 0..2 {
        let again = claim_one(&stores, &event, place, route(6, &[3])).await;
        assert_eq!(again, Claimed::Own(first.clone()));
    }
    let expected = EventRow {
        event: event.clone(),
        place,
        route: Some(first),
        conflicts: vec![],
    };
    assert_eq!(rows(&stores, &event).await, [expected]);
}

/// Of several records with one identity and body the lowest wins; the others are dropped.
pub async fn the_lowest_place_wins<B: Backend>(backend: B) {
    let stores = backend.stores();
    let event = event("1", "a");
    let places = backend
        .accept(vec![event.clone(), event.clone(), event.clone()])
        .await;
    let first = route(5, &[1]);
    assert_eq!(
        claim_one(&stores, &event, places[0], first.clone()).await,
        Claimed::Fresh
    );
    for later in &places[1..] {
        assert_eq!(
            claim_one(&stores, &event, *later, route(6, &[2])).await,
            Claimed::Repeat
        );
    }
    let again = claim_one(&stores, &event, places[0], route(7, &[])).await;
    assert_eq!(again, Claimed::Own(first));
    let rows = rows(&stores, &event).await;
    assert_eq!((rows.len(), rows[0].place), (1, places[0]));
}

/// Answers come in the order of the claims, and later claims see earlier ones.
pub async fn claims_of_one_batch_see_each_other<B: Backend>(backend: B) {
    let (a, b, other) = (event("1", "a"), event("2", "b"), event("1", "c"));
    let events = vec![a.clone(), b, a, other];
    let places = backend.accept(events.clone()).await;
    let pairs = events.iter().zip(places);
    let claims = pairs.map(|(e, p)| claim(e, p, route(1, &[1]))).collect();
    let answers = backend
        .stores()
        .events
        .claim(&Tenure::unlimited(), claims)
        .await
        .unwrap();
    assert_eq!(
        answers,
        [
            Claimed::Fresh,
            Claimed::Fresh,
            Claimed::Repeat,
            Claimed::Conflict
        ]
    );
}

/// However many are claimed at once, of whichever tenants and sources, each is judged by its own
/// row, and where it stands among the others does not matter.
pub async fn a_large_batch_is_judged_event_by_event<B: Backend>(backend: B) {
    let stores = backend.stores();
    let named = |n: usize| {
        let (tenant, source) = (["acme", "acme2"][n % 2], ["/shop", "/till"][n / 2 % 2]);
        event_of(tenant, source, &(n / 4).to_string(), "a", second(0))
    };
    let events: Vec<_> = (0..240).map(named).collect();
    let places = backend.accept(events.clone()).await;
    let own = |n: usize| route(1, &[n as u64 + 1]);
    let all: Vec<usize> = (0..240).collect();
    let some: Vec<usize> = all.iter().copied().filter(|n| n % 3 == 0).collect();
    let claim_of = |n: &usize| claim(&events[*n], places[*n], own(*n));
    let ask = async |of: &[usize]| {
        let claims = of.iter().map(claim_of).collect();
        let claimed = stores.events.claim(&Tenure::unlimited(), claims).await;
        claimed.unwrap()
    };
    assert_eq!(ask(&some).await, vec![Claimed::Fresh; some.len()]);
    let expected: Vec<_> = all
        .iter()
        .map(|n| match n % 3 {
            0 => Claimed::Own(own(*n)),
            _ => Claimed::Fresh,
        })
        .collect();
    assert_eq!(ask(&all).await, expected);
}

/// Another body under the same identity is kept visible, once however often it is claimed.
pub async fn a_conflict_is_recorded_once<B: Backend>(backend: B) {
    let stores = backend.stores();
    let (first, other) = (event("1", "a"), event("1", "b"));
    let places = backend.accept(vec![first.clone(), other.clone()]).await;
    claim_one(&stores, &first, places[0], route(1, &[1])).await;
    for _ in 0..2 {
        let answer = claim_one(&stores, &other, places[1], route(1, &[1])).await;
        assert_eq!(answer, Claimed::Conflict);
    }
    let rows = rows(&stores, &first).await;
    assert_eq!((rows.len(), &rows[0].event), (1, &first));
    let conflicts = &rows[0].conflicts;
    assert_eq!(conflicts.len(), 1);
    assert_eq!(
        (conflicts[0].place, conflicts[0].body_hash),
        (places[1], other.body_hash)
    );
}

/// A producer that conflicts for ever does not grow a row for ever.
pub async fn conflicts_are_bounded<B: Backend>(backend: B) {
    let stores = backend.stores();
    let events: Vec<_> = (0..15).map(|n| event("1", &format!("body {n}"))).collect();
    let places = backend.accept(events.clone()).await;
    let pairs = events.iter().zip(places);
    let claims = pairs.map(|(e, p)| claim(e, p, route(1, &[1]))).collect();
    stores
        .events
        .claim(&Tenure::unlimited(), claims)
        .await
        .unwrap();
    assert_eq!(
        rows(&stores, &events[0]).await[0].conflicts.len(),
        crate::events::CONFLICTS_MAX
    );
}

/// The same id of another tenant, or from another source, is another event.
pub async fn tenants_and_sources_are_apart<B: Backend>(backend: B) {
    let stores = backend.stores();
    let events = [
        event_of("acme", "/shop", "1", "a", second(0)),
        event_of("acme", "/till", "1", "b", second(0)),
        event_of("acme2", "/shop", "1", "c", second(0)),
    ];
    claim_all(&backend, &events, &route(1, &[1])).await;
    let mut found: Vec<_> = rows(&stores, &events[0])
        .await
        .into_iter()
        .map(|r| r.event)
        .collect();
    found.sort_by(|a, b| a.event.source.cmp(&b.event.source));
    assert_eq!(found, events[..2]);
    assert_eq!(rows(&stores, &events[2]).await[0].event, events[2]);
    assert_eq!(rows(&stores, &event("2", "a")).await, []);
}

/// After a crash the fan-out is the one that was claimed, whatever the configuration says now.
pub async fn a_crash_after_the_claim_changes_no_fan_out<B: Backend>(backend: B) {
    let (first, other) = (event("1", "a"), event("1", "b"));
    let places = backend
        .accept(vec![first.clone(), first.clone(), other.clone()])
        .await;
    let owed = route(5, &[1, 2, 3]);
    claim_one(&backend.stores(), &first, places[0], owed.clone()).await;
    backend.sync().await;
    let backend = backend.crash_and_reopen().await;
    let stores = backend.stores();
    let again = claim_one(&stores, &first, places[0], route(6, &[4])).await;
    assert_eq!(again, Claimed::Own(owed));
    assert_eq!(
        claim_one(&stores, &first, places[1], route(6, &[4])).await,
        Claimed::Repeat
    );
    assert_eq!(
        claim_one(&stores, &other, places[2], route(6, &[4])).await,
        Claimed::Conflict
    );
}

/// A crash right after the claim keeps it or forgets it; there is nothing between.
pub async fn an_unsynced_claim_is_whole_or_gone<B: Backend>(backend: B) {
    let event = event("1", "a");
    let place = backend.accept(vec![event.clone()]).await[0];
    let (before, after) = (route(5, &[1, 2]), route(6, &[3]));
    claim_one(&backend.stores(), &event, place, before.clone()).await;
    let backend = backend.crash_and_reopen().await;
    let stores = backend.stores();
    let counts = match claim_one(&stores, &event, place, after.clone()).await {
        Claimed::Fresh => after,
        Claimed::Own(route) => {
            assert_eq!(route, before);
            before
        }
        other => panic!("{other:?}"),
    };
    let again = claim_one(&stores, &event, place, route(7, &[])).await;
    assert_eq!(again, Claimed::Own(counts));
}

/// Bodies answer their references one by one; what is not there is `None`.
pub async fn bodies_come_back_as_they_were<B: Backend>(backend: B) {
    let events = [event("1", "a"), event("2", "\u{0}ü\n"), event("3", "")];
    let places = claim_all(&backend, &events, &route(1, &[1])).await;
    let refs: Vec<_> = events
        .iter()
        .zip(&places)
        .map(|(e, p)| EventRef::new(e.key(), *p))
        .collect();
    let unknown = EventRef::new(event("4", "x").key(), place(u64::MAX / 2));
    let asked = [
        refs[2].clone(),
        unknown,
        refs[0].clone(),
        refs[1].clone(),
        refs[0].clone(),
    ];
    backend.sync().await;
    let backend = backend.crash_and_reopen().await;
    let found = backend.stores().events.bodies(&asked).await.unwrap();
    let found: Vec<_> = found.iter().map(Option::as_deref).collect();
    let [a, b, c] = &events;
    assert_eq!(found, [Some(c), None, Some(a), Some(b), Some(a)]);
}

/// Whatever a backend claims to know without looking is right.
pub async fn what_is_known_is_right<B: Backend>(backend: B) {
    let stores = backend.stores();
    let (first, other) = (event("1", "a"), event("1", "b"));
    assert_eq!(stores.events.known(&first.key()), None);
    let places = backend.accept(vec![first.clone(), other.clone()]).await;
    for (event, place) in [(&first, places[0]), (&other, places[1])] {
        claim_one(&stores, event, place, route(1, &[1])).await;
        if let Some(known) = stores.events.known(&first.key()) {
            assert_eq!(known.body_hash, first.body_hash);
            assert_eq!(known.accept_time, first.accept_time);
        }
    }
}

/// Eighty events, several of one moment and spread over an hour, of two tenants.
async fn eighty(backend: &impl Backend) -> Vec<AcceptedEvent> {
    let of = |n: i64| {
        let who = if n % 4 == 3 { "other" } else { "acme" };
        event_of(
            who,
            "/shop",
            &format!("e-{n}"),
            "data",
            second((n / 3) * 120),
        )
    };
    let events: Vec<_> = (0..80).map(of).collect();
    for part in events.chunks(7) {
        claim_all(backend, part, &route(1, &[1, 2])).await;
    }
    events
}

async fn listed(stores: &Stores, filter: &EventFilter, limit: usize) -> Vec<(String, Timestamp)> {
    let tenant = tenant("acme");
    let list = |token: Option<PageToken>| {
        let tenant = &tenant;
        async move {
            stores
                .events
                .list(tenant, filter, token.as_ref(), limit)
                .await
        }
    };
    let rows = all_pages(list).await;
    for row in &rows {
        assert_eq!((row.matched, row.size), (2, 4), "{row:?}");
        assert_eq!(row.event_type.as_str(), "order.paid");
        assert_eq!(row.event.key.tenant, tenant);
    }
    rows.iter()
        .map(|r| (r.event.key.id.to_string(), r.accept_time))
        .collect()
}

fn sorted(mut rows: Vec<(String, Timestamp)>) -> Vec<(String, Timestamp)> {
    rows.sort();
    rows
}

/// Whatever the page size: every event of the tenant once, newest first.
pub async fn lists_are_newest_first_and_complete<B: Backend>(backend: B) {
    let events = eighty(&backend).await;
    let mine = events.iter().filter(|e| e.tenant.as_str() == "acme");
    let mine = sorted(
        mine.map(|e| (e.event.id.to_string(), e.accept_time))
            .collect(),
    );
    for limit in [1, 7, 1000] {
        let rows = listed(&backend.stores(), &EventFilter::default(), limit).await;
        assert!(rows.is_sorted_by(|a, b| a.1 >= b.1), "{rows:?}");
        assert_eq!(sorted(rows), mine);
    }
}

/// `since` is inclusive, `until` is not.
pub async fn lists_keep_to_their_filter<B: Backend>(backend: B) {
    let events = eighty(&backend).await;
    let filter = EventFilter {
        since: Some(second(240)),
        until: Some(second(1200)),
    };
    let range = second(240)..second(1200);
    let mine = events
        .iter()
        .filter(|e| e.tenant.as_str() == "acme" && range.contains(&e.accept_time));
    let mine = sorted(
        mine.map(|e| (e.event.id.to_string(), e.accept_time))
            .collect(),
    );
    assert_eq!(sorted(listed(&backend.stores(), &filter, 5).await), mine);
}

/// A token that no list gave out is refused, not guessed at.
pub async fn a_foreign_token_is_refused<B: Backend>(backend: B) {
    let token = PageToken(b"nonsense!".to_vec());
    let stores = backend.stores();
    let (tenant, filter) = (tenant("acme"), EventFilter::default());
    let page = stores.events.list(&tenant, &filter, Some(&token), 10).await;
    assert_eq!(page.unwrap_err().kind(), StoreErrorKind::BadToken);
}

/// An owner that lost its span leaves no trace.
pub async fn nothing_is_claimed_without_tenure<B: Backend>(backend: B) {
    let stores = backend.stores();
    let event = event("1", "a");
    let place = backend.accept(vec![event.clone()]).await[0];
    let tenure = Tenure::unlimited();
    tenure.end();
    refused(
        stores
            .events
            .claim(&tenure, vec![claim(&event, place, route(1, &[1]))])
            .await,
    );
    assert!(
        rows(&stores, &event)
            .await
            .iter()
            .all(|row| row.route.is_none())
    );
    assert_eq!(
        claim_one(&stores, &event, place, route(2, &[2])).await,
        Claimed::Fresh
    );
}
