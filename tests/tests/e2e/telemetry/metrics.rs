//! `/metrics` after real traffic: what `docs/metrics.md` says, and no more series for more users.

use std::time::Duration;

use fanfare_tests::World;
use fanfare_tests::api::named;
use fanfare_tests::metrics::{expected, settled};
use fanfare_tests::world::Subscriber;

const TENANTS: usize = 8;
const SOON: Duration = Duration::from_millis(100);

/// Events that are taken, repeated, refused, delivered and given up, all under names with `round`.
async fn traffic(world: &World, round: &str) -> Vec<Subscriber> {
    let mut subscribers = Vec::new();
    for n in 0..TENANTS {
        let tenant = format!("tenant-{round}-{n}");
        let good = world.endpoint().tenant(&tenant).await;
        let bad = world.endpoint().tenant(&tenant).always(503);
        let bad = bad.retrying(&[SOON]).await;
        let api = world.api().tenant(&tenant);
        let event = |data: &str| {
            named(
                &format!("id-{round}-{n}"),
                &format!("t{round}.n{n}"),
                data.to_owned(),
            )
        };
        for _ in 0..2 {
            api.publish(event("{}")).await.expect("accepted");
        }
        api.publish(event("[]")).await.expect_err("a conflict");
        good.receives(1).await;
        bad.sink.attempts(2).await;
        subscribers.extend([good, bad]);
    }
    subscribers
}

#[tokio::test]
async fn metrics_are_what_the_documentation_says() {
    let world = World::start().await;
    traffic(&world, "a").await;
    let mut shown = settled(world.server()).await.families;
    let expected = expected(&mut shown);
    assert_eq!(shown, expected);
}

#[tokio::test]
async fn more_tenants_endpoints_types_and_events_are_no_more_series() {
    let world = World::start().await;
    let first = traffic(&world, "a").await;
    let before = settled(world.server()).await.series;
    let second = traffic(&world, "b").await;
    let after = settled(world.server()).await.series;
    assert_eq!(before, after);
    for subscriber in first.iter().chain(&second) {
        let ids = [&subscriber.endpoint.id, &subscriber.subscription.id];
        let named = |series: &&String| ids.iter().any(|id| series.contains(id.as_str()));
        assert_eq!(after.iter().find(named), None);
    }
    for part in ["tenant-", "id-a", "ta.n", "127.0.0.1", "http"] {
        let series = after.iter().find(|series| series.contains(part));
        // `http_status` is an outcome, not a URL.
        let series = series.filter(|series| !series.contains("http_status"));
        assert_eq!(series, None);
    }
    assert!(after.len() < 200, "{} series", after.len());
}
