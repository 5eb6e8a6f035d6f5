//! fanfare-tests
