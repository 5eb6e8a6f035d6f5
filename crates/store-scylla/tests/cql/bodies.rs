//! Bodies larger than one row.

use fanfare_domain::{EventRef, Tenure};
use fanfare_store::conformance::fixtures::{claim, event, place, route};
use fanfare_store_scylla::open;

use crate::node;

#[tokio::test]
async fn a_body_of_several_rows_comes_back_whole() {
    let (config, _turn) = node::empty().await;
    let stores = open(&config).await.unwrap();
    let numbers: Vec<String> = (0..100_000).map(|n| format!("{n:07}")).collect();
    let text = numbers.join(" ");
    let event = event("1", &text);
    let claims = vec![claim(&event, place(1), route(1, &[1]))];
    stores
        .events
        .claim(&Tenure::unlimited(), claims)
        .await
        .unwrap();
    let refs = [EventRef::new(event.key(), place(1))];
    let bodies = stores.events.bodies(&refs).await.unwrap();
    assert_eq!(bodies[0].as_deref(), Some(&event));
    let rows = stores
        .events
        .get(&event.tenant, &event.event.id)
        .await
        .unwrap();
    assert_eq!(rows[0].event, event);
}
