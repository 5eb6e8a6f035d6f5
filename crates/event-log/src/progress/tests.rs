use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// What may happen to the consumption of a span. Numbers pick among what there is.
#[derive(Clone, Debug)]
enum Action {
    /// The log gets a record `gap` after the last, with so many parts.
    Append { gap: u64, parts: u32 },
    /// The next record is read.
    Take,
    /// A record is seen again that was read in this life.
    TakeAgain(usize),
    /// A part of a record that was read is settled, maybe again, maybe one that does not exist.
    Settle { record: usize, part: u32 },
    /// Retention drops the next record before it is read.
    Vanish,
    /// The holder commits.
    Commit,
    /// The holder dies; the next one continues from the last commit.
    Crash,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let parts = prop_oneof![Just(1u32), Just(64), 1..=64u32];
    let action = prop_oneof![
        3 => (0..4u64, parts).prop_map(|(gap, parts)| Action::Append { gap, parts }),
        4 => Just(Action::Take),
        1 => any::<usize>().prop_map(Action::TakeAgain),
        6 => (any::<usize>(), 0..66u32).prop_map(|(record, part)| Action::Settle { record, part }),
        6 => (any::<usize>(), 0..2u32).prop_map(|(record, part)| Action::Settle { record, part }),
        1 => Just(Action::Vanish),
        2 => Just(Action::Commit),
        1 => Just(Action::Crash),
    ];
    proptest::collection::vec(action, 0..120)
}

/// The same thing as plain sets of positions and parts.
#[derive(Clone, Debug, Default)]
struct Model {
    log: Vec<(Position, u32)>,
    /// Everything below was read, by this holder or an earlier one.
    ceiling: Position,
    settled: BTreeSet<(Position, u32)>,
    /// Index into `log` of what this holder reads next.
    next: usize,
    /// What this holder took.
    taken: Vec<(Position, u32)>,
}

impl Model {
    fn open(&self, position: Position, parts: u32) -> u64 {
        let open = (0..parts).filter(|part| !self.settled.contains(&(position, *part)));
        open.fold(0, |bits, part| bits | 1 << part)
    }

    fn progress(&self) -> Progress {
        let below = self.log.iter().filter(|(p, _)| *p < self.ceiling);
        let unsettled = below.filter_map(|(position, parts)| {
            let open = self.open(*position, *parts);
            let position = *position;
            (open != 0).then_some(Unsettled { position, open })
        });
        Progress {
            ceiling: self.ceiling,
            unsettled: unsettled.collect(),
        }
    }

    fn take(&mut self) -> Option<(Position, u32, u64)> {
        let (position, parts) = *self.log.get(self.next)?;
        self.next += 1;
        self.ceiling = self.ceiling.max(Position(position.0 + 1));
        self.taken.push((position, parts));
        Some((position, parts, self.open(position, parts)))
    }

    fn crash(&mut self, committed: &(Progress, BTreeSet<(Position, u32)>)) {
        let (progress, settled) = committed;
        self.settled.clone_from(settled);
        self.ceiling = progress.ceiling;
        self.taken.clear();
        let before = |(p, _): &(Position, u32)| *p < progress.watermark();
        self.next = self.log.partition_point(before);
    }
}

fn run(actions: Vec<Action>) {
    let mut model = Model::default();
    let mut tracker = Tracker::default();
    let mut committed = (Progress::default(), BTreeSet::new());
    // A record that vanished is known to be gone only once a later one is read; until then, and
    // again after a crash, the tracker may still count it.
    let mut vanished = BTreeSet::new();
    for action in actions {
        match action {
            Action::Append { gap, parts } => {
                let end = model.log.last().map_or(0, |(p, _)| p.0 + 1);
                let end = end.max(vanished.last().map_or(0, |p: &Position| p.0 + 1));
                model.log.push((Position(end + gap), parts));
            }
            Action::Take => {
                if let Some((position, parts, open)) = model.take() {
                    assert_eq!(tracker.take(position, parts), open, "taking {position:?}");
                }
            }
            Action::TakeAgain(n) if !model.taken.is_empty() => {
                let (position, parts) = model.taken[n % model.taken.len()];
                assert_eq!(tracker.take(position, parts), 0);
            }
            Action::Settle { record, part } if !model.taken.is_empty() => {
                let (position, parts) = model.taken[record % model.taken.len()];
                tracker.settle(position, part);
                tracker.settle(Position(position.0 + 1_000_000), part);
                if part < parts {
                    model.settled.insert((position, part));
                }
            }
            Action::Vanish if model.next < model.log.len() => {
                vanished.insert(model.log.remove(model.next).0);
            }
            Action::Commit => {
                committed = (tracker.progress(), model.settled.clone());
            }
            Action::Crash => {
                tracker = Tracker::resume(&committed.0);
                model.crash(&committed);
            }
            _ => {}
        }
        check(&tracker, &model, &vanished);
    }
}

fn check(tracker: &Tracker, model: &Model, vanished: &BTreeSet<Position>) {
    let mut progress = tracker.progress();
    let bytes = progress.encode();
    assert_eq!(progress.encoded_len(), bytes.len());
    assert!(tracker.fits(bytes.len()) && !tracker.fits(bytes.len() - 1));
    assert_eq!(Progress::decode(&bytes).as_ref(), Some(&progress));
    assert!(
        progress
            .unsettled
            .iter()
            .all(|u| u.position >= progress.watermark())
    );
    progress
        .unsettled
        .retain(|u| !vanished.contains(&u.position));
    assert_eq!(progress, model.progress());
    let open = model.taken.iter().filter(|(p, n)| model.open(*p, *n) != 0);
    let open: BTreeSet<_> = open.collect();
    assert_eq!(tracker.open_records(), open.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_tracker_is_a_set_of_open_parts(actions in actions()) {
        run(actions);
    }

    #[test]
    fn progress_comes_back(
        distances in proptest::collection::vec(
            (prop_oneof![1..3u64, any::<u64>().prop_map(|d| (d >> 12).max(1))], 1..=u64::MAX),
            0..50,
        ),
        beyond in 1..1000u64,
    ) {
        let mut position = 0;
        let unsettled: Vec<_> = distances
            .into_iter()
            .map(|(distance, open)| {
                position += distance;
                Unsettled { position: Position(position), open }
            })
            .collect();
        let progress = Progress { ceiling: Position(position + beyond), unsettled };
        let bytes = progress.encode();
        prop_assert_eq!(progress.encoded_len(), bytes.len());
        prop_assert_eq!(Progress::decode(&bytes), Some(progress));
    }

    /// Whatever is accepted is exactly what encoding it makes, and makes sense.
    #[test]
    fn nothing_but_progress_is_decoded(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        if let Some(progress) = Progress::decode(&bytes) {
            prop_assert_eq!(progress.encode(), bytes);
            prop_assert!(progress.watermark() <= progress.ceiling);
            prop_assert!(progress.unsettled.iter().all(|u| u.open != 0));
            let rising = progress.unsettled.windows(2).all(|w| w[0].position < w[1].position);
            prop_assert!(rising);
        }
    }
}

#[test]
fn a_committed_form_never_changes() {
    let progress = Progress {
        ceiling: Position(1000),
        unsettled: vec![
            Unsettled {
                position: Position(0),
                open: 1,
            },
            Unsettled {
                position: Position(700),
                open: u64::MAX,
            },
        ],
    };
    let golden = [
        0xe8, 0x07, 0x00, 0x01, 0xbc, 0x05, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0x01,
    ];
    assert_eq!(progress.encode(), golden);
    assert_eq!(Progress::decode(&golden), Some(progress));
}

#[test]
fn damaged_progress_is_refused() {
    for (bytes, why) in [
        (&[][..], "no ceiling"),
        (&[0x80], "cut short"),
        (&[0x80, 0x00], "not the shortest form"),
        (&[5, 2], "a position without bits"),
        (&[5, 2, 0], "nothing open"),
        (&[5, 5, 1], "not below the ceiling"),
        (&[5, 2, 1, 0, 1], "the same position twice"),
        (&[0xff; 11], "more than 64 bits"),
    ] {
        assert_eq!(Progress::decode(bytes), None, "{why}");
    }
}

#[test]
fn what_retention_took_away_counts_as_settled() {
    let inherited = Progress {
        ceiling: Position(10),
        unsettled: [2, 5, 7]
            .map(|p| Unsettled {
                position: Position(p),
                open: 1,
            })
            .into(),
    };
    let mut tracker = Tracker::resume(&inherited);
    assert_eq!(
        tracker.take(Position(6), 1),
        0,
        "settled by the last holder"
    );
    assert_eq!(tracker.progress().watermark(), Position(7));
    assert_eq!(tracker.take(Position(7), 1), 1);
    assert_eq!(tracker.take(Position(12), 1), 1, "new");
    tracker.settle(Position(7), 0);
    assert_eq!(tracker.progress().watermark(), Position(12));
}

#[test]
fn what_is_settled_was_read_and_is_not_open() {
    let progress = Progress {
        ceiling: Position(10),
        unsettled: vec![Unsettled {
            position: Position(4),
            open: 0b10,
        }],
    };
    for (position, part, settled) in [
        (3, 0, true),
        (4, 0, true),
        (4, 1, false),
        (9, 63, true),
        (10, 0, false),
    ] {
        let is_settled = progress.is_settled(Position(position), part);
        assert_eq!(is_settled, settled, "{position}, {part}");
    }
}
