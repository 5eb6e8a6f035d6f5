//! The command tree and what its commands have in common. Noun first, verb second.

use clap::{Args, Parser, Subcommand};
use fanfare_domain::Timestamp;
use fanfare_service::HumanDuration;

use crate::commands;
use crate::output::Format;

/// Routes events and delivers them as signed webhooks, and never loses one.
#[derive(Debug, Parser)]
#[command(
    name = "fanfare",
    version,
    arg_required_else_help = true,
    after_help = "Examples:
  fanfare serve --dev
  fanfare endpoint create http://localhost:3000/hook --event-type 'order.*'
  fanfare event publish order.paid --data '{\"amount\":1250}' --wait

Exit codes: 0 done, 1 refused or failed, 64 usage or configuration, 69 server unreachable,
75 unknown outcome (repeat with the same id), 77 credential."
)]
pub struct Cli {
    /// How to print: for people, or one JSON object per line.
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        display_order = 900
    )]
    pub output: Format,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The nouns, and the few verbs that need none.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve: accept events, route them, deliver them
    Serve(Box<crate::serve::ServeArgs>),
    /// Publish events and see what became of them
    Event(commands::event::EventArgs),
    /// Manage where subscribers are called
    Endpoint(commands::endpoint::EndpointArgs),
    /// Manage which events an endpoint wants
    Subscription(commands::subscription::SubscriptionArgs),
    /// See deliveries and their attempts, and redrive dead letters
    Delivery(commands::delivery::DeliveryArgs),
    /// Receive events on this machine as signed webhooks, leaving nothing behind
    Listen(commands::listen::ListenArgs),
    /// Watch a running server deliver, to a receiver that verifies every signature
    Demo(commands::demo::DemoArgs),
    /// Show whether the server is well, and what is open
    Status(commands::status::StatusArgs),
    /// Ask a server, a router or a delivery worker whether it is ready
    Ready(commands::ready::ReadyArgs),
    /// Make API keys
    Key(commands::key::KeyArgs),
    /// Print and check settings
    Config(commands::config::ConfigArgs),
    /// Apply changes of the store's schema
    Migrate(commands::migrate::MigrateArgs),
    /// Print a completion script for a shell
    Completion(commands::completion::CompletionArgs),
}

/// Which server, and as whom.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// The server
    #[arg(
        long,
        global = true,
        env = "FANFARE_SERVER",
        default_value = "http://127.0.0.1:7400",
        value_name = "URL"
    )]
    pub server: String,

    /// File with the API key; without it the key is FANFARE_API_KEY, if set
    #[arg(long, global = true, value_name = "FILE")]
    pub api_key_file: Option<std::path::PathBuf>,

    /// The tenant, one of those that the key covers
    #[arg(long, global = true, env = "FANFARE_TENANT", value_name = "TENANT")]
    pub tenant: Option<String>,
}

/// How much of a list.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// How many at most
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,

    /// All there are
    #[arg(long, conflicts_with = "limit")]
    pub all: bool,

    /// Only since then: a time (2026-01-02T03:04:05Z) or how long ago (90m, 2d)
    #[arg(long, value_name = "TIME")]
    pub since: Option<Since>,
}

/// A point in time, or how long ago.
#[derive(Clone, Copy, Debug)]
pub struct Since(pub Timestamp);

impl std::str::FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(at) = Timestamp::parse_rfc3339(text) {
            return Ok(Self(at));
        }
        let ago: HumanDuration = text.parse().map_err(|_| {
            "write a time like 2026-01-02T03:04:05Z or how long ago, like 90m or 2d".to_owned()
        })?;
        Ok(Self(Timestamp::now().minus(ago.0)))
    }
}

impl ListArgs {
    /// How many to print at most.
    pub fn count_max(&self) -> usize {
        if self.all {
            return usize::MAX;
        }
        usize::try_from(self.limit).unwrap_or(usize::MAX)
    }

    /// How many to ask for at once.
    pub fn page_size(&self) -> i32 {
        if self.all {
            return 1000;
        }
        i32::try_from(self.limit.min(1000)).unwrap_or(1000)
    }
}

/// Parses `name=value`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn each(command: &clap::Command, path: &str, check: &mut impl FnMut(&clap::Command, &str)) {
        check(command, path);
        for sub in command.get_subcommands() {
            each(sub, &format!("{path} {}", sub.get_name()), check);
        }
    }

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_sentence_and_an_example() {
        each(&Cli::command(), "fanfare", &mut |command, path| {
            assert!(command.get_about().is_some(), "{path} says what it does");
            let help = command.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            assert!(help.contains("Example"), "{path} has an example");
            assert!(help.contains(path), "the example of {path} shows {path}");
        });
    }

    #[test]
    fn the_examples_are_commands_that_parse() {
        let mut lines = Vec::new();
        each(&Cli::command(), "", &mut |command, _| {
            let help = command.get_after_help().map(ToString::to_string);
            for line in help.unwrap_or_default().lines() {
                // The part behind a pipe is the one that is ours.
                let line = line.rsplit("| ").next().unwrap_or(line).trim();
                if line.starts_with("fanfare ") {
                    lines.push(line.to_owned());
                }
            }
        });
        assert!(lines.len() > 30);
        for line in lines {
            let words = words(&line);
            let parsed = Cli::try_parse_from(words.iter().take_while(|word| *word != ">"));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }

    /// Splits like a shell, as far as the examples need it.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quoted = false;
        for c in line.chars() {
            match c {
                '\'' => quoted = !quoted,
                ' ' if !quoted => words.push(String::new()),
                c => words.last_mut().unwrap().push(c),
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }
}
