//! What goes wrong with brokers, offsets, retention and processes.

mod brokers;
mod frozen;
mod leaving;
mod offsets;
