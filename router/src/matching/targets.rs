//! A persistent set of targets, ordered by subscription id.
//!
//! Most sets hold a handful: those are one shared slice, 16 bytes a target. A set that a great
//! many subscribe to becomes a persistent tree, so that one change does not copy it.

use std::sync::Arc;

use fanfare_domain::{EndpointId, SubscriptionId, Target};

/// Largest set that is copied whole on change: 1 KiB.
const FEW_MAX: usize = 64;

/// See the module.
#[derive(Clone, Default)]
pub(super) enum Targets {
    /// None at all.
    #[default]
    None,
    /// 1..=[`FEW_MAX`], by rising subscription id.
    Few(Arc<[Target]>),
    /// More.
    Many(Box<imbl::OrdMap<SubscriptionId, EndpointId>>),
}

impl Targets {
    /// Adds `target`; one of the same subscription is replaced.
    pub(super) fn insert(&mut self, target: Target) {
        match self {
            Self::None => *self = Self::Few(Arc::new([target])),
            Self::Many(map) => {
                map.insert(target.subscription, target.endpoint);
            }
            Self::Few(few) => match find(few, target.subscription) {
                Ok(at) => Arc::make_mut(few)[at] = target,
                Err(_) if few.len() == FEW_MAX => {
                    let all = few.iter().chain([&target]);
                    let map = all.map(|t| (t.subscription, t.endpoint)).collect();
                    *self = Self::Many(Box::new(map));
                }
                Err(at) => {
                    let (before, after) = few.split_at(at);
                    let all = before.iter().chain([&target]).chain(after);
                    *few = all.copied().collect();
                }
            },
        }
    }

    /// Takes out the target of `subscription`, if it is there.
    pub(super) fn remove(&mut self, subscription: SubscriptionId) {
        match self {
            Self::None => {}
            Self::Many(map) => {
                map.remove(&subscription);
                // Half of the bound, so that a set at the bound does not flip with every change.
                if map.len() <= FEW_MAX / 2 {
                    let few = map.iter().map(|(s, e)| target(*s, *e)).collect();
                    *self = Self::Few(few);
                }
            }
            Self::Few(few) => {
                let Ok(at) = find(few, subscription) else {
                    return;
                };
                let kept: Arc<[Target]> = few[..at].iter().chain(&few[at + 1..]).copied().collect();
                *self = if kept.is_empty() {
                    Self::None
                } else {
                    Self::Few(kept)
                };
            }
        }
    }

    /// Whether it holds nothing.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    /// The union of `sets`, by rising subscription id, each once.
    pub(super) fn union(sets: &[&Self]) -> Vec<Target> {
        let mut all = Vec::with_capacity(sets.iter().map(|set| set.len()).sum());
        for set in sets {
            set.append_to(&mut all);
        }
        if sets.len() > 1 {
            // Rising runs one after another: the stable sort merges them in linear time.
            all.sort_by_key(|target| target.subscription);
            all.dedup_by_key(|target| target.subscription);
        }
        all
    }

    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Few(few) => few.len(),
            Self::Many(map) => map.len(),
        }
    }

    fn append_to(&self, out: &mut Vec<Target>) {
        match self {
            Self::None => {}
            Self::Few(few) => out.extend_from_slice(few),
            Self::Many(map) => out.extend(map.iter().map(|(s, e)| target(*s, *e))),
        }
    }
}

fn target(subscription: SubscriptionId, endpoint: EndpointId) -> Target {
    Target {
        endpoint,
        subscription,
    }
}

fn find(few: &[Target], subscription: SubscriptionId) -> Result<usize, usize> {
    few.binary_search_by_key(&subscription, |target| target.subscription)
}
