//! What a user sees when all is as it should be, or when a subscriber is not.

mod asking;
mod commands;
mod delivering;
mod demo;
mod failing;
mod github;
mod http;
mod listening;
mod managing;
mod publishing;
mod restarting;
mod serving;
