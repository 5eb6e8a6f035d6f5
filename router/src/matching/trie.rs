//! Patterns with `*` and `**`, as a persistent trie over the parts of a type.

use std::sync::Arc;

use fanfare_domain::event_type::Part;
use fanfare_domain::{EventType, SubscriptionId, Target, TypePattern};

use super::targets::Targets;
use super::text_map::TextMap;

/// A node: what the patterns that lead here say next.
#[derive(Clone, Default)]
pub(super) struct Trie {
    /// This word.
    words: TextMap<Arc<Trie>>,
    /// `*`: any one part.
    one: Option<Arc<Trie>>,
    /// A last `**`: whatever follows, at least one part.
    rest: Targets,
    /// Nothing more: the pattern ends here.
    end: Targets,
}

impl Trie {
    /// Adds `target` under `pattern`.
    pub(super) fn insert(&mut self, pattern: &TypePattern, target: Target) {
        let mut node = self;
        for part in pattern.parts() {
            node = match part {
                Part::Word(word) => Arc::make_mut(node.words.entry(word.into())),
                Part::One => Arc::make_mut(node.one.get_or_insert_default()),
                Part::Rest => return node.rest.insert(target),
            };
        }
        node.end.insert(target);
    }

    /// Takes out the target of `subscription` under `pattern`, and the nodes that served only it.
    pub(super) fn remove(&mut self, pattern: &TypePattern, subscription: SubscriptionId) {
        let parts: Vec<_> = pattern.parts().collect();
        self.remove_parts(&parts, subscription);
    }

    fn remove_parts(&mut self, parts: &[Part<'_>], subscription: SubscriptionId) {
        let Some((part, parts)) = parts.split_first() else {
            return self.end.remove(subscription);
        };
        let cut = |child: &mut Arc<Self>| {
            let child = Arc::make_mut(child);
            child.remove_parts(parts, subscription);
            child.is_empty()
        };
        match part {
            Part::Word(word) => self.words.update(word, cut),
            Part::One => {
                if self.one.as_mut().is_some_and(cut) {
                    self.one = None;
                }
            }
            Part::Rest => self.rest.remove(subscription),
        }
    }

    /// Whether no pattern is left.
    pub(super) fn is_empty(&self) -> bool {
        self.words.is_empty() && self.one.is_none() && self.rest.is_empty() && self.end.is_empty()
    }

    /// Pushes the set of every pattern that selects `event_type` to `found`.
    pub(super) fn collect<'a>(&'a self, event_type: &EventType, found: &mut Vec<&'a Targets>) {
        if !self.is_empty() {
            let parts: Vec<_> = event_type.parts().collect();
            self.walk(&parts, found);
        }
    }

    fn walk<'a>(&'a self, parts: &[&str], found: &mut Vec<&'a Targets>) {
        let push = |targets: &'a Targets, found: &mut Vec<_>| {
            if !targets.is_empty() {
                found.push(targets);
            }
        };
        let Some((part, parts)) = parts.split_first() else {
            return push(&self.end, found);
        };
        push(&self.rest, found);
        if let Some(child) = self.words.get(part) {
            child.walk(parts, found);
        }
        if let Some(child) = &self.one {
            child.walk(parts, found);
        }
    }
}
