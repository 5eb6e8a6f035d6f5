//! A persistent map by text that costs little while it is small, as most are: one tenant's few
//! types, one node's few words.

use std::sync::Arc;

/// Largest map that is copied whole on change.
const FEW_MAX: usize = 16;

/// See the module.
#[derive(Clone)]
pub(super) enum TextMap<V> {
    /// At most [`FEW_MAX`], sorted by text.
    Few(Vec<(Arc<str>, V)>),
    /// More.
    Many(Box<imbl::HashMap<Arc<str>, V>>),
}

impl<V> Default for TextMap<V> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<V: Clone + Default> TextMap<V> {
    /// The value under `text`.
    pub(super) fn get(&self, text: &str) -> Option<&V> {
        match self {
            Self::Few(few) => find(few, text).ok().map(|at| &few[at].1),
            Self::Many(map) => map.get(text),
        }
    }

    /// The value under `text`, made if it is not there.
    pub(super) fn entry(&mut self, text: Arc<str>) -> &mut V {
        if let Self::Few(few) = self
            && few.len() == FEW_MAX
            && find(few, &text).is_err()
        {
            *self = Self::Many(Box::new(few.drain(..).collect()));
        }
        match self {
            Self::Many(map) => map.entry(text).or_default(),
            Self::Few(few) => {
                let at = find(few, &text).unwrap_or_else(|at| {
                    // Exactly one more: most maps never grow again.
                    few.reserve_exact(1);
                    few.insert(at, (text, V::default()));
                    at
                });
                &mut few[at].1
            }
        }
    }

    /// Changes the value under `text`, if there is one, and drops it when `change` says that
    /// nothing is left of it.
    pub(super) fn update(&mut self, text: &str, change: impl FnOnce(&mut V) -> bool) {
        match self {
            Self::Few(few) => {
                if let Ok(at) = find(few, text)
                    && change(&mut few[at].1)
                {
                    few.remove(at);
                }
            }
            Self::Many(map) => {
                if map.get_mut(text).is_some_and(change) {
                    map.remove(text);
                }
            }
        }
    }

    /// Whether it holds nothing.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Many(map) => map.is_empty(),
        }
    }
}

fn find<V>(few: &[(Arc<str>, V)], text: &str) -> Result<usize, usize> {
    few.binary_search_by(|(key, _)| (**key).cmp(text))
}
