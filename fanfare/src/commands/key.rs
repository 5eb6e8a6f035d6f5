//! `fanfare key new`: makes an API key; the server knows it by a stanza of its configuration.

use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::output::Format;

/// `fanfare key …`
#[derive(Args, Debug)]
#[command(after_help = "Example:
  fanfare key new billing --tenant acme")]
pub struct KeyArgs {
    #[command(subcommand)]
    verb: KeyVerb,
}

#[derive(Debug, Subcommand)]
enum KeyVerb {
    /// Make a key; prints it once, with the stanza that admits it
    New(NewArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare key new billing --tenant acme --tenant globex
  fanfare key new platform --all-tenants")]
struct NewArgs {
    /// Name of the key: the default source of its events is / and this name
    name: String,
    /// A tenant that the key covers; repeatable
    #[arg(
        long = "tenant",
        value_name = "TENANT",
        required_unless_present = "all_tenants"
    )]
    tenants: Vec<String>,
    /// The key covers every tenant
    #[arg(long, conflicts_with = "tenants")]
    all_tenants: bool,
}

/// Runs the verb.
pub fn run(args: &KeyArgs, format: Format) -> Result<(), Failure> {
    let KeyVerb::New(args) = &args.verb;
    let _ = (args, format);
    Err(Failure::refused("TODO", "not here yet"))
}
