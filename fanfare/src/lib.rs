//! The one binary people meet first: `fanfare serve`, everything in one process, and the command
//! line client that talks to it, or to any other Fanfare, over gRPC.
//!
//! This crate decides nothing about events. It parses, connects, prints ([`args`], [`connect`],
//! [`output`], [`commands`]), composes the components' configuration ([`config`]), and puts the
//! components together ([`serve`], [`demo`]). It alone chooses backends. The services of a cluster,
//! `fanfare-router` and `fanfare-delivery-worker`, are thin mains over it, too.
//!
//! Whatever fails ends as a [`failure::Failure`]: one sentence, what to do next, an exit code.

pub mod args;
pub mod commands;
pub mod config;
pub mod connect;
pub mod demo;
pub mod failure;
pub mod output;
pub mod serve;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Cli;
use crate::failure::Failure;
use crate::output::Format;

/// Runs the command line `args` (the first is the program's name) and tells how it went.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let (format, result) = match Cli::try_parse_from(&args) {
        Ok(cli) => (cli.output, commands::run(cli)),
        Err(error) if error.use_stderr() => {
            let format = Format::asked_for_in(&args);
            (format, Err(Failure::usage_of_clap(&error, format)))
        }
        Err(help) => {
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print(format);
            ExitCode::from(failure.exit.code())
        }
    }
}

/// Runs the program that the first of `args` is named after, and tells how it went: an image has all
/// three as one file under three names, a third of the size.
pub fn run_by_name(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let name = args.first().and_then(|path| Path::new(path).file_name());
    match name.and_then(OsStr::to_str) {
        Some("fanfare-router") => run_service(args, serve::run_router),
        Some("fanfare-delivery-worker") => run_service(args, serve::run_worker),
        _ => run(args),
    }
}

/// Runs a service whose command line is `A` and tells how it went.
pub fn run_service<A: clap::Parser>(
    args: impl IntoIterator<Item = OsString>,
    service: impl FnOnce(A) -> Result<(), Failure>,
) -> ExitCode {
    let served = match A::try_parse_from(args) {
        Ok(args) => service(args),
        Err(error) if error.use_stderr() => Err(Failure::usage_of_clap(&error, Format::Table)),
        Err(help) => {
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print(Format::Table);
            ExitCode::from(failure.exit.code())
        }
    }
}
