//! `/metrics` as a process shows it, and as `docs/metrics.md` has it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use crate::server::Server;
use crate::{eventually, http};

/// Shown only once they happened, since their labels are known then.
pub const SELDOM: [&str; 1] = ["fanfare_front_shed_total"];

/// Type and labels of a metric, by its name.
pub type Families = BTreeMap<String, (String, BTreeSet<String>)>;

/// What `/metrics` showed.
#[derive(Debug, Default)]
pub struct Shown {
    /// Each metric.
    pub families: Families,
    /// Each series without its value.
    pub series: BTreeSet<String>,
    /// Dead letters counted.
    pub dead_letters: u64,
}

/// What a process shows.
pub async fn scrape(server: &Server) -> Shown {
    let admin = server.addresses().admin_listen;
    let url = format!("http://{admin}/metrics");
    let text = http::get(&url).await.expect("it answers").text();
    let mut shown = Shown::default();
    for line in text.lines() {
        if let Some(about) = line.strip_prefix("# TYPE ") {
            let (name, kind) = about.split_once(' ').expect("a name and a type");
            let family = (kind.to_owned(), BTreeSet::new());
            shown.families.insert(name.to_owned(), family);
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').expect("a series and a value");
            if series.starts_with("fanfare_delivery_dead_letters_total") {
                shown.dead_letters += value.parse::<u64>().expect("a count");
            }
            shown.series.insert(series.to_owned());
            shown.note_labels(series);
        }
    }
    shown
}

/// The same once a dead letter is counted.
pub async fn settled(server: &Server) -> Shown {
    eventually("a dead letter to be counted", async || {
        let shown = scrape(server).await;
        if shown.dead_letters > 0 {
            ControlFlow::Break(shown)
        } else {
            ControlFlow::Continue(format!("{:?}", shown.series))
        }
    })
    .await
}

impl Shown {
    fn note_labels(&mut self, series: &str) {
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let parts = ["_bucket", "_sum", "_count"];
        let base = parts.iter().find_map(|part| name.strip_suffix(part));
        let family = base.filter(|base| self.families.contains_key(*base));
        let family = self.families.get_mut(family.unwrap_or(name));
        let (_, known) = family.expect("a series of a metric");
        let names = labels.trim_end_matches('}').split(',');
        let names = names.filter_map(|pair| Some(pair.split_once('=')?.0.to_owned()));
        known.extend(names.filter(|name| name != "le"));
    }
}

/// The table of `docs/metrics.md`.
pub fn documented() -> Families {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let text = std::fs::read_to_string(file).expect("the documentation is there");
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

/// The same without what may or may not have happened. What happened must be as documented.
pub fn expected(shown: &mut Families) -> Families {
    let mut documented = documented();
    for name in SELDOM {
        let family = documented.remove(name);
        assert!(family.is_some(), "{name} is not documented");
        // A busy machine may have made it happen.
        let happened = shown.remove(name);
        assert!(happened.is_none() || happened == family, "{happened:?}");
    }
    documented
}
