//! What an operator sees: traces, metrics, logs.

mod logs;
mod metrics;
mod traces;
