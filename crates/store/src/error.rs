//! What can go wrong with a store, with one kind per branch that a caller takes.

use std::fmt;

use fanfare_domain::Tenure;

/// An error of a store: what kind it is for the caller, and what the backend said.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// Try again later; a write may have happened in part, and repeating it is safe.
    Unavailable,
    /// No room: nothing was written.
    Full,
    /// The tenure is over: someone else owns this now.
    NotOwner,
    /// The configuration's head has moved: read it again, then decide again.
    HeadMoved,
    /// A page token that this backend did not make.
    BadToken,
    /// Stored bytes are not what was written.
    Corrupt,
    /// The store is closed for good.
    Closed,
}

impl StoreError {
    /// An error of `kind` with nothing behind it.
    pub fn new(kind: StoreErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// An error of `kind` caused by `source`.
    pub fn because(
        kind: StoreErrorKind,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            source: Some(source.into()),
        }
    }

    /// `NotOwner` when `tenure` is over: what a backend asks immediately before an owner's write.
    pub fn unless_owner(tenure: &Tenure) -> Result<(), Self> {
        if tenure.is_current() {
            Ok(())
        } else {
            Err(Self::new(StoreErrorKind::NotOwner))
        }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            StoreErrorKind::Unavailable => "the store is not available",
            StoreErrorKind::Full => "the store has no room",
            StoreErrorKind::NotOwner => "the shard has another owner",
            StoreErrorKind::HeadMoved => "the configuration was changed in between",
            StoreErrorKind::BadToken => "the page token is not one of this store",
            StoreErrorKind::Corrupt => "the store's bytes are damaged",
            StoreErrorKind::Closed => "the store is closed",
        })
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as _)
    }
}

impl From<StoreErrorKind> for StoreError {
    fn from(kind: StoreErrorKind) -> Self {
        Self::new(kind)
    }
}
