//! What all programs agree on: the first says it, and nobody changes it.

use std::collections::BTreeMap;

use fanfare_store_scylla::agree;

use crate::node;

fn counts(counts: &[(&str, u16)]) -> BTreeMap<String, u16> {
    let own = |(topic, count): &(&str, u16)| ((*topic).to_owned(), *count);
    counts.iter().map(own).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_says_how_many_partitions_there_are_and_others_only_add_topics() {
    let (config, _turn) = node::empty().await;
    let first = counts(&[("events", 16), ("deliveries", 16)]);
    let fewer = counts(&[("events", 16), ("deliveries", 8)]);
    let both = [&first, &fewer].map(|own| agree(&config, "fanfare", own));
    let told = futures::future::try_join_all(both).await.unwrap();
    assert_ne!(
        told[0] == first,
        told[1] == fewer,
        "one of the two: {told:?}"
    );
    let winner = if told[0] == first { &first } else { &fewer };

    // One that differs adds nothing, not even what nobody has.
    let differs = counts(&[("events", 4), ("deliveries", 16), ("own", 4)]);
    assert_eq!(agree(&config, "fanfare", &differs).await.unwrap(), *winner);
    let mut grown = winner.clone();
    grown.insert("own".to_owned(), 4);
    assert_eq!(agree(&config, "fanfare", &grown).await.unwrap(), grown);
    // Who does not know of it yet is told.
    assert_eq!(agree(&config, "fanfare", winner).await.unwrap(), grown);
    // Another log is another matter.
    assert_eq!(agree(&config, "other", &differs).await.unwrap(), differs);
}
