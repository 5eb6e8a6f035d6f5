//! Event types and the patterns that select them.
//!
//! A type is dot-delimited (`order.paid`). A pattern is a type in which a part may be `*` (exactly
//! one part) and the last part may be `**` (one or more parts); `all` and `**` select everything.
//! A bare `*` therefore selects only one-part types, which surprises people: the API notes it.

use std::fmt;
use std::sync::Arc;

use crate::invalid::{Invalid, Reason};

/// Longest type or pattern, in bytes.
pub const TYPE_MAX_BYTES: usize = 128;

/// A valid event type: 1..=128 bytes, parts of `[A-Za-z0-9_-]` joined by single dots.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventType(Arc<str>);

/// A valid pattern, in its canonical spelling (`all` is stored as `**`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypePattern(Arc<str>);

/// One part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// This word.
    Word(&'a str),
    /// `*`: any one part.
    One,
    /// A last `**`: one or more parts.
    Rest,
}

impl EventType {
    /// Validates; a type never becomes a path, a topic name or query text, and could not.
    pub fn try_new(text: impl AsRef<str>) -> Result<Self, Invalid> {
        let text = text.as_ref();
        if text.len() > TYPE_MAX_BYTES || !text.split('.').all(is_word) {
            return Err(Invalid::new(
                Reason::EventTypeInvalid,
                "event.type",
                "must be 1 to 128 bytes of parts of [A-Za-z0-9_-] joined by dots, for example order.paid",
            ));
        }
        Ok(Self(text.into()))
    }

    /// The text as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The parts between the dots.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }

    /// The first part: what a backend keeps apart when it keeps types apart.
    pub fn subject(&self) -> &str {
        self.0.split('.').next().unwrap_or_default()
    }
}

impl TypePattern {
    /// Validates and brings into canonical spelling.
    pub fn try_new(text: impl AsRef<str>) -> Result<Self, Invalid> {
        let text = text.as_ref();
        if text == "all" {
            return Ok(Self("**".into()));
        }
        let last = text.split('.').count().saturating_sub(1);
        let ok =
            |(i, part): (usize, &str)| part == "*" || (part == "**" && i == last) || is_word(part);
        if text.len() > TYPE_MAX_BYTES || !text.split('.').enumerate().all(ok) {
            return Err(Invalid::new(
                Reason::PatternInvalid,
                "event_types",
                "must be a type (order.paid), with '*' for one part (order.*), a last '**' for any depth \
                 (order.**), or 'all'",
            ));
        }
        Ok(Self(text.into()))
    }

    /// Canonical spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The parts, in order.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        self.0.split('.').map(|part| match part {
            "*" => Part::One,
            "**" => Part::Rest,
            word => Part::Word(word),
        })
    }

    /// Whether the pattern is one exact type.
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// Whether `event_type` is selected. The index of the router answers the same for many
    /// patterns at once; this is its oracle.
    pub fn matches(&self, event_type: &EventType) -> bool {
        let mut words = event_type.parts();
        for part in self.parts() {
            match (part, words.next()) {
                (Part::Rest, Some(_)) => return true,
                (Part::One, Some(_)) => {}
                (Part::Word(want), Some(word)) if want == word => {}
                _ => return false,
            }
        }
        words.next().is_none()
    }

    /// Whether some type is selected by both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = (self.parts(), other.parts());
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) | (Some(Part::Rest), Some(_)) | (Some(_), Some(Part::Rest)) => {
                    return true;
                }
                (None, Some(_)) | (Some(_), None) => return false,
                (Some(Part::Word(a)), Some(Part::Word(b))) if a != b => return false,
                (Some(_), Some(_)) => {}
            }
        }
    }
}

impl From<&TypePattern> for Arc<str> {
    /// The canonical spelling, shared: an index of 100k patterns copies no text.
    fn from(pattern: &TypePattern) -> Self {
        pattern.0.clone()
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TypePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_word(part: &str) -> bool {
    !part.is_empty()
        && part
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_the_interface_says() {
        for (pattern, yes, no) in [
            ("order.paid", "order.paid", "order.paid.late"),
            ("order.*", "order.paid", "order"),
            ("order.*", "order.a-b", "order.paid.late"),
            ("order.**", "order.paid.late", "order"),
            ("*.paid", "order.paid", "order.sent"),
            ("*", "order", "order.paid"),
            ("order.*.eu", "order.paid.eu", "order.paid.us"),
            ("order.*.**", "order.a.b", "order.a"),
        ] {
            let p = TypePattern::try_new(pattern).unwrap();
            assert!(
                p.matches(&EventType::try_new(yes).unwrap()),
                "{pattern} should match {yes}"
            );
            assert!(
                !p.matches(&EventType::try_new(no).unwrap()),
                "{pattern} should not match {no}"
            );
        }
        for everything in ["all", "**"] {
            let p = TypePattern::try_new(everything).unwrap();
            assert!(p.matches(&EventType::try_new("a.b.c").unwrap()));
        }
    }

    #[test]
    fn patterns_overlap_when_some_type_is_selected_by_both() {
        for (a, b, overlap) in [
            ("order.paid", "order.paid", true),
            ("order.paid", "order.sent", false),
            ("order.*", "order.paid", true),
            ("order.*", "*.paid", true),
            ("order.*", "order", false),
            ("order.**", "order", false),
            ("order.**", "order.paid.late", true),
            ("order.**", "*.*.late", true),
            ("order.**", "invoice.**", false),
            ("**", "a", true),
        ] {
            let pattern = |text| TypePattern::try_new(text).unwrap();
            assert_eq!(pattern(a).overlaps(&pattern(b)), overlap, "{a} and {b}");
            assert_eq!(pattern(b).overlaps(&pattern(a)), overlap, "{b} and {a}");
        }
    }

    #[test]
    fn bad_types_and_patterns_are_refused() {
        let long = "a".repeat(129);
        let huge = "a".repeat(1 << 20);
        for bad in [
            "", ".", "a.", ".a", "a..b", "a/b", "..", "a\0b", "a b", "ä", &long, &huge,
        ] {
            assert!(EventType::try_new(bad).is_err(), "{bad:.20}");
            assert!(TypePattern::try_new(bad).is_err(), "{bad:.20}");
        }
        for bad in ["a*", "**.a", "a.**.b", "***"] {
            assert!(TypePattern::try_new(bad).is_err(), "{bad}");
        }
        assert!(EventType::try_new("order.*").is_err());
    }
}
