//! What every Fanfare process shares and none of them is about: units of configuration, the
//! clock, tasks and drain, health, the admin address, telemetry, loading configuration, and the
//! egress guard.
//!
//! Nothing here knows what an event is. A process that fails to start says so in one sentence;
//! a task that ends when it should not ends the process, never silently.

pub mod admin;
pub mod backoff;
pub mod clock;
pub mod configuration;
pub mod crash;
pub mod egress;
pub mod health;
pub mod line_limit;
pub mod signals;
pub mod tasks;
pub mod telemetry;
pub mod traces;
pub mod units;

pub use backoff::Backoff;
pub use clock::Clock;
pub use health::{Condition, Health};
pub use line_limit::LineLimit;
pub use tasks::Tasks;
pub use units::{ByteSize, HumanDuration};
