//! fanfare-proto
