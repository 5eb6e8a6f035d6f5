//! Real Kafka brokers and CQL nodes, for tests and for people.
//!
//! One or three Kafka 4.1 brokers ([`kafka`]) and one or three Cassandra 5 nodes ([`cql`]) on free
//! ports of the loopback interface, as processes that can be killed, stopped, continued and
//! restarted ([`Node`]). All that is needed is Java 17 and Maven: the jars are fetched once into
//! the ignored folder `.cache/services` of the repository.
//!
//! ```no_run
//! let mut kafka = fanfare_test_services::kafka::start(3)?;
//! println!("{}", kafka.addresses().join(","));
//! kafka.node(1).kill()?;
//! kafka.node(1).restart()?;
//! # anyhow::Ok(())
//! ```
//!
//! A test that only needs *some* broker takes [`kafka::shared`]: the one that the environment names
//! (`FANFARE_TEST_KAFKA`, `FANFARE_TEST_CQL`: `host:port`, separated by commas), else the one that
//! `fanfare-services up` left running, else one that is started once for this process.
//!
//! What is started ends with whoever started it: dropping a [`Cluster`] kills its processes and
//! removes their files, and if the starter is killed the kernel kills them (`setpriv --pdeathsig`,
//! of util-linux: the same call from Rust would need `unsafe`). Files that a killed starter left
//! are removed by the next one. What `fanfare-services up` starts is let go once all of it answers;
//! an `up` that is cut short leaves nothing.
//!
//! What this is not: a way to run Fanfare in production. Heaps are small, and nothing is secured but
//! what [`kafka::start_secured`] and [`cql::start_secured`] start for tests of exactly that.

mod certificates;
mod cluster;
mod fetch;
mod home;
mod node;
mod probe;
mod process;

pub mod cql;
pub mod kafka;
pub mod running;

pub use certificates::Certificates;
pub use cluster::Cluster;
pub use node::Node;
pub use probe::Protocol;
