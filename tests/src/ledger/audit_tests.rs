//! Each count of the oracle is made non-zero, and stays zero where it should.

use super::*;

const BODY: u64 = 7;

/// One acked event `e` of type `order.paid`, wanted by subscriber 0 and not by subscriber 1.
struct Case {
    told: BTreeMap<String, Sent>,
    wants: Vec<Wants>,
    saw: Saw,
    dead: Dead,
}

impl Case {
    fn new() -> Self {
        let mut case = Self {
            told: BTreeMap::new(),
            wants: vec![
                Wants::new("default", &["order.paid"]),
                Wants::new("default", &["invoice.sent"]),
            ],
            saw: BTreeMap::new(),
            dead: Dead::new(),
        };
        case.send("e", Fate::Acked, None);
        case
    }

    fn send(&mut self, id: &str, fate: Fate, key: Option<(String, u64)>) {
        let sent = Sent {
            tenant: "default".to_owned(),
            event_type: "order.paid".to_owned(),
            key,
            body: BODY,
            fate,
        };
        self.told.insert(id.to_owned(), sent);
    }

    fn see(&mut self, subscriber: usize, id: &str) -> &mut Pair {
        let at = self.saw.len() as u64 + 1;
        let pair = Pair {
            webhook_ids: vec![format!("dlv_{subscriber}_{id}")],
            bodies: vec![BODY],
            attempts: 1,
            accepted: 1,
            unverified: 0,
            first_accepted: Some(at),
        };
        self.saw.entry((subscriber, id.to_owned())).or_insert(pair)
    }

    /// (lost, phantom, dup, wrong, order)
    fn counts(&self) -> (usize, usize, usize, usize, usize) {
        let audit = audit(1, &self.told, &self.wants, &self.saw, &self.dead);
        (
            audit.lost,
            audit.phantom,
            audit.dup,
            audit.wrong,
            audit.order,
        )
    }
}

const CLEAN: (usize, usize, usize, usize, usize) = (0, 0, 0, 0, 0);

#[test]
fn a_delivered_event_is_clean() {
    let mut case = Case::new();
    case.see(0, "e");
    assert_eq!(case.counts(), CLEAN);
}

#[test]
fn an_acked_event_that_nobody_saw_is_lost() {
    assert_eq!(Case::new().counts(), (1, 0, 0, 0, 0));
}

#[test]
fn an_acked_event_that_was_seen_and_never_accepted_is_lost() {
    let mut case = Case::new();
    let pair = case.see(0, "e");
    (pair.accepted, pair.first_accepted) = (0, None);
    assert_eq!(case.counts(), (1, 0, 0, 0, 0));
}

#[test]
fn a_visible_dead_letter_is_not_lost() {
    let mut case = Case::new();
    case.dead.insert((0, "e".to_owned()));
    assert_eq!(case.counts(), CLEAN);
}

#[test]
fn an_unknown_event_may_arrive_or_not() {
    let mut case = Case::new();
    case.send("e", Fate::Unknown, None);
    assert_eq!(case.counts(), CLEAN);
    case.see(0, "e");
    assert_eq!(case.counts(), CLEAN);
}

#[test]
fn what_was_refused_never_sent_or_not_wanted_is_a_phantom() {
    let mut case = Case::new();
    case.see(0, "e");
    case.see(1, "e"); // not wanted
    case.see(0, "never");
    case.send("no", Fate::Refused, None);
    case.see(0, "no");
    assert_eq!(case.counts(), (0, 3, 0, 0, 0));
}

#[test]
fn another_tenants_event_is_a_phantom() {
    let mut case = Case::new();
    case.told.get_mut("e").unwrap().tenant = "other".to_owned();
    case.see(0, "e");
    assert_eq!(case.counts(), (0, 1, 0, 0, 0));
}

#[test]
fn each_repeat_after_the_first_accepted_post_is_a_dup() {
    let mut case = Case::new();
    let pair = case.see(0, "e");
    (pair.attempts, pair.accepted) = (5, 3);
    assert_eq!(case.counts(), (0, 0, 2, 0, 0));
}

#[test]
fn a_bad_signature_another_body_or_a_changed_id_is_wrong() {
    let breakages: [fn(&mut Pair); 3] = [
        |pair| pair.unverified = 1,
        |pair| pair.bodies.push(BODY + 1),
        |pair| pair.webhook_ids.push("dlv_other".to_owned()),
    ];
    for damage in breakages {
        let mut case = Case::new();
        damage(case.see(0, "e"));
        assert_eq!(case.counts(), (0, 0, 0, 1, 0));
    }
}

#[test]
fn one_id_for_two_deliveries_is_wrong() {
    let mut case = Case::new();
    case.send("f", Fate::Acked, None);
    case.see(0, "e");
    case.see(0, "f").webhook_ids = vec!["dlv_0_e".to_owned()];
    assert_eq!(case.counts(), (0, 0, 0, 1, 0));
}

#[test]
fn a_key_seen_out_of_order_counts_for_ordered_subscribers_only() {
    let mut case = Case::new();
    let key = |place| Some(("k".to_owned(), place));
    case.send("e", Fate::Acked, key(1));
    case.send("f", Fate::Acked, key(2));
    case.see(0, "f");
    case.see(0, "e");
    assert_eq!(case.counts(), CLEAN);
    case.wants[0].ordered = true;
    assert_eq!(case.counts(), (0, 0, 0, 0, 1));
}

#[test]
fn an_audit_prints_its_seed_and_what_went_wrong() {
    let case = Case::new();
    let text = audit(42, &case.told, &case.wants, &case.saw, &case.dead).to_string();
    assert!(
        text.contains("seed 42") && text.contains("LOST: event e"),
        "{text}"
    );
}

#[test]
#[should_panic(expected = "LOST 1")]
fn a_loss_fails_the_test() {
    let case = Case::new();
    audit(1, &case.told, &case.wants, &case.saw, &case.dead).assert_clean(usize::MAX);
}
