//! fanfare-delivery-worker
