//! fanfare-router

pub mod matching;
