//! Real Kafka brokers and CQL nodes, for tests and for people.
