//! fanfare-router
