//! fanfare-embedded
