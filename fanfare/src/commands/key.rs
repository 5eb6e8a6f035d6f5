//! `fanfare key new`: makes an API key; the server knows it by a stanza of its configuration.

use std::collections::BTreeMap;
use std::io::Write as _;

use clap::{Args, Subcommand};
use fanfare_router::front::access::{KeyRing, new_key};
use serde::Serialize;

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

/// A key that was made: the only time that its text is seen.
#[derive(Serialize)]
struct NewKey {
    key: String,
    stanza: String,
}

/// Runs the verb.
pub fn run(args: &KeyArgs, format: Format) -> Result<(), Failure> {
    let KeyVerb::New(args) = &args.verb;
    let tenants = (!args.all_tenants).then(|| args.tenants.clone());
    let (key, stanza) = new_key(&args.name, tenants, &mut rand::rng());
    // The server would refuse it later: say it now.
    KeyRing::try_new(std::slice::from_ref(&stanza)).map_err(|e| Failure::usage(e.to_string()))?;
    let table = BTreeMap::from([("keys", [&stanza])]);
    let stanza = toml::to_string(&table).map_err(|e| Failure::refused("KEY", e.to_string()))?;
    let new = NewKey { key, stanza };
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => writeln!(out, "{}", serde_json::json!(new))?,
        Format::Table => {
            writeln!(out, "{}", new.key)?;
            out.flush()?;
            eprintln!("\nThe key is shown only now. Put this into the server's configuration:\n");
            write!(out, "{}", new.stanza)?;
        }
    }
    Ok(())
}
