use std::collections::BTreeMap;

use fanfare_domain::{EndpointId, Timestamp};
use proptest::prelude::*;

use super::*;

fn tenant(name: &str) -> TenantId {
    TenantId::try_new(name).unwrap()
}

fn subscription(id: u64, patterns: &[&str]) -> Subscription {
    Subscription {
        id: SubscriptionId(id),
        tenant: tenant("acme"),
        endpoint: EndpointId(id % 7),
        event_types: patterns
            .iter()
            .map(|p| TypePattern::try_new(p).unwrap())
            .collect(),
        create_time: Timestamp::from_millis(0),
        update_time: Timestamp::from_millis(0),
        version: 1,
    }
}

fn found(index: &Index, event_type: &str) -> Vec<u64> {
    let event_type = EventType::try_new(event_type).unwrap();
    let tenant = index.tenants.get(&tenant("acme"));
    let targets = tenant.map_or_else(Vec::new, |t| t.matches(&event_type));
    targets.iter().map(|t| t.subscription.0).collect()
}

#[test]
fn several_patterns_of_one_subscription_make_one_target() {
    let mut index = Index::default();
    index.insert(&subscription(
        2,
        &["order.paid", "order.*", "order.**", "**"],
    ));
    index.insert(&subscription(1, &["order.paid"]));
    assert_eq!(found(&index, "order.paid"), [1, 2]);
    assert_eq!(found(&index, "order"), [2]);
}

#[test]
fn a_set_grows_into_a_tree_and_shrinks_back_without_losing_anyone() {
    let mut index = Index::default();
    for id in (0..1000).rev() {
        index.insert(&subscription(id, &["order.paid"]));
    }
    assert_eq!(found(&index, "order.paid"), (0..1000).collect::<Vec<_>>());
    for id in 10..1000 {
        index.remove(&subscription(id, &["order.paid"]));
    }
    assert_eq!(found(&index, "order.paid"), (0..10).collect::<Vec<_>>());
}

#[test]
fn an_index_in_use_is_not_touched_by_later_changes() {
    let mut index = Index::default();
    index.insert(&subscription(1, &["order.paid", "order.*"]));
    let seen = index.clone();
    index.insert(&subscription(2, &["order.paid", "order.*"]));
    index.remove(&subscription(1, &["order.paid", "order.*"]));
    assert_eq!(found(&seen, "order.paid"), [1]);
    assert_eq!(found(&index, "order.paid"), [2]);
}

fn pattern() -> impl Strategy<Value = String> {
    let part = prop_oneof![Just("a"), Just("b"), Just("c"), Just("*")];
    let parts = prop::collection::vec(part, 0..4);
    (parts, any::<bool>()).prop_map(|(mut parts, rest)| {
        if rest || parts.is_empty() {
            parts.push("**");
        }
        parts.join(".")
    })
}

fn event_type() -> impl Strategy<Value = String> {
    let part = prop_oneof![Just("a"), Just("b"), Just("c"), Just("d")];
    prop::collection::vec(part, 1..5).prop_map(|parts| parts.join("."))
}

/// Puts a subscription, replacing what it wanted before, or deletes it (no patterns).
type Change = (u64, Vec<String>);

proptest! {
    #[test]
    fn the_index_finds_what_the_patterns_say_after_any_changes(
        changes in prop::collection::vec((0..40u64, prop::collection::vec(pattern(), 0..4)), 1..120),
        types in prop::collection::vec(event_type(), 1..20),
    ) {
        let (mut index, mut model) = (Index::default(), BTreeMap::<u64, Subscription>::new());
        for (id, patterns) in changes as Vec<Change> {
            if let Some(old) = model.remove(&id) {
                index.remove(&old);
            }
            if !patterns.is_empty() {
                let patterns: Vec<_> = patterns.iter().map(String::as_str).collect();
                let new = subscription(id, &patterns);
                index.insert(&new);
                model.insert(id, new);
            }
        }
        for text in types {
            let event_type = EventType::try_new(&text).unwrap();
            let wants = |s: &&Subscription| s.event_types.iter().any(|p| p.matches(&event_type));
            let want: Vec<_> = model.values().filter(wants).map(|s| s.id.0).collect();
            prop_assert_eq!(found(&index, &text), want);
        }
        for old in model.values() {
            index.remove(old);
        }
        prop_assert!(index.tenants.is_empty(), "nothing is left of what was removed");
    }
}
