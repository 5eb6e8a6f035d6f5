//! The event-log seam over Kafka.
