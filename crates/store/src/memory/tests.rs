use std::sync::atomic::AtomicU64;

use async_trait::async_trait;
use fanfare_domain::{AcceptedEvent, Place, Position, Tenure};

use super::*;
use crate::RetryState::DueAt;
use crate::conformance::fixtures::{claim, event, place, retry, route, second};
use crate::conformance::{Backend, CHANGES_KEPT_IN_TESTS};

/// Memory stores and a counter that stands for a log. Nothing is lost in its crash: what a store
/// that answers only when it is durable looks like.
struct Memory(MemoryStores, AtomicU64);

#[async_trait]
impl Backend for Memory {
    async fn create() -> Self {
        Self(
            MemoryStores::keeping_changes(CHANGES_KEPT_IN_TESTS),
            AtomicU64::new(10),
        )
    }

    fn stores(&self) -> Stores {
        self.0.stores()
    }

    async fn accept(&self, events: Vec<AcceptedEvent>) -> Vec<Place> {
        let place = |_| Place {
            span: 0,
            position: Position(self.1.fetch_add(3, Ordering::Relaxed)),
        };
        events.iter().map(place).collect()
    }

    async fn sync(&self) {}

    async fn crash_and_reopen(self) -> Self {
        self
    }
}

crate::store_conformance!(Memory);

#[tokio::test]
async fn a_store_that_is_away_says_so_until_it_is_back() {
    let memory = MemoryStores::new();
    let stores = memory.stores();
    memory.go_away();
    let error = stores.config.heads().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    memory.come_back();
    stores.config.heads().await.unwrap();
}

#[tokio::test]
async fn a_zombie_that_writes_late_does_not_win() {
    let stores = MemoryStores::new().stores();
    let minute = std::time::Duration::from_mins(1);
    let hour_ahead = u64::try_from(Timestamp::now().plus(60 * minute).micros()).unwrap();
    let (zombie, owner) = (
        Tenure::lasting(minute, 0),
        Tenure::lasting(minute, hour_ahead),
    );
    let (newer, older) = (
        retry(1, 1, DueAt(second(20))),
        retry(1, 1, DueAt(second(10))),
    );
    let put = async |tenure, row| stores.retries.put(tenure, vec![row]).await.unwrap();
    put(&owner, newer.clone()).await;
    put(&zombie, older.clone()).await;
    let rows = stores.retries.get(&[newer.delivery]).await.unwrap();
    assert_eq!(rows, [Some(newer)]);
}

#[tokio::test]
async fn expired_events_are_gone_with_their_bodies() {
    let memory = MemoryStores::new();
    let events = memory.stores().events;
    let event = event("1", "a");
    let claims = vec![claim(&event, place(1), route(1, &[1]))];
    events.claim(&Tenure::unlimited(), claims).await.unwrap();
    memory.expire_events(second(1));
    let body = fanfare_domain::EventRef::new(event.key(), place(1));
    assert_eq!(events.bodies(&[body]).await.unwrap(), [None]);
    assert_eq!(events.known(&event.key()), None);
}
