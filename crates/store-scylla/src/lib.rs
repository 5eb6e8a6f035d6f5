//! The store seams over CQL: ScyllaDB, or Cassandra.
