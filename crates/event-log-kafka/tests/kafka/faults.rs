//! What goes wrong with brokers, offsets, retention and processes.

mod brokers;
mod empty_handed;
mod fenced;
mod frozen;
mod leaving;
mod offsets;
