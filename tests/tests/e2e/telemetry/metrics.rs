//! `/metrics` after real traffic: what `docs/metrics.md` says, and no more series for more users.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fanfare_tests::api::named;
use fanfare_tests::world::Subscriber;
use fanfare_tests::{World, http};

use crate::project::root;

/// Shown only once they happened, since their labels are known then.
const SELDOM: [&str; 1] = ["fanfare_front_shed_total"];
const TENANTS: usize = 8;
const SOON: Duration = Duration::from_millis(100);

/// Type and labels of a metric, by its name.
type Families = BTreeMap<String, (String, BTreeSet<String>)>;

/// What `/metrics` showed.
struct Shown {
    families: Families,
    /// Each series without its value.
    series: BTreeSet<String>,
    /// Dead letters counted.
    dead_letters: u64,
}

async fn scrape(world: &World) -> Shown {
    let admin = world.server().addresses().admin_listen;
    let page = http::get(&format!("http://{admin}/metrics")).await.unwrap();
    let text = page.text();
    let mut shown = Shown {
        families: Families::new(),
        series: BTreeSet::new(),
        dead_letters: 0,
    };
    for line in text.lines() {
        if let Some(about) = line.strip_prefix("# TYPE ") {
            let (name, kind) = about.split_once(' ').unwrap();
            let family = (kind.to_owned(), BTreeSet::new());
            shown.families.insert(name.to_owned(), family);
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            if series.starts_with("fanfare_delivery_dead_letters_total") {
                shown.dead_letters += value.parse::<u64>().unwrap();
            }
            shown.series.insert(series.to_owned());
            shown.note_labels(series);
        }
    }
    shown
}

impl Shown {
    fn note_labels(&mut self, series: &str) {
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let parts = ["_bucket", "_sum", "_count"];
        let base = parts.iter().find_map(|part| name.strip_suffix(part));
        let family = base.filter(|base| self.families.contains_key(*base));
        let (_, known) = self.families.get_mut(family.unwrap_or(name)).unwrap();
        let names = labels.trim_end_matches('}').split(',');
        let names = names.filter_map(|pair| Some(pair.split_once('=')?.0.to_owned()));
        known.extend(names.filter(|name| name != "le"));
    }
}

/// The table of `docs/metrics.md`.
fn documented() -> Families {
    let text = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `fanfare_"));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let labels = cells[4]
            .split(',')
            .map(|label| label.trim().trim_matches('`'));
        let labels = labels.filter(|label| !label.is_empty());
        let labels = labels.map(str::to_owned).collect();
        assert!(!cells[3].is_empty() && !cells[5].is_empty(), "{row}");
        (
            cells[1].trim_matches('`').to_owned(),
            (cells[2].to_owned(), labels),
        )
    })
    .collect()
}

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
    let mut shown = settled(&world).await.families;
    let mut documented = documented();
    for name in SELDOM {
        let family = documented.remove(name);
        assert!(family.is_some(), "{name} is not documented");
        // A busy machine may have made it happen; then it must be as documented, too.
        let happened = shown.remove(name);
        assert!(happened.is_none() || happened == family, "{happened:?}");
    }
    assert_eq!(shown, documented);
}

#[tokio::test]
async fn more_tenants_endpoints_types_and_events_are_no_more_series() {
    let world = World::start().await;
    let first = traffic(&world, "a").await;
    let before = settled(&world).await.series;
    let second = traffic(&world, "b").await;
    let after = settled(&world).await.series;
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

/// What is shown once the first dead letters of the traffic are counted.
async fn settled(world: &World) -> Shown {
    use std::ops::ControlFlow;
    fanfare_tests::eventually("a dead letter to be counted", async || {
        let shown = scrape(world).await;
        if shown.dead_letters > 0 {
            ControlFlow::Break(shown)
        } else {
            ControlFlow::Continue(format!("{:?}", shown.series))
        }
    })
    .await
}
