//! fanfare-service
