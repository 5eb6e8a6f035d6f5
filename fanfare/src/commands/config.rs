//! `fanfare config`: the commented default, and what is in force.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::{Config, DEFAULT_FILE, Role};
use crate::failure::Failure;
use crate::output::Format;

/// `fanfare config …`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare config default > fanfare.toml
  fanfare config check --config fanfare.toml")]
pub struct ConfigArgs {
    #[command(subcommand)]
    verb: ConfigVerb,
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Print every setting with its default and what it means
    #[command(after_help = "Example:\n  fanfare config default > fanfare.toml")]
    Default,
    /// Check a configuration and print what is in force, secrets redacted
    Check(CheckArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare config check
  fanfare config check --config fanfare.toml")]
struct CheckArgs {
    /// The file; without it the defaults and the environment are checked
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the verb.
pub fn run(args: &ConfigArgs, format: Format) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let text = match &args.verb {
        ConfigVerb::Default if format == Format::Table => DEFAULT_FILE.to_owned(),
        ConfigVerb::Default => json(&Config::default().redacted()),
        ConfigVerb::Check(args) => {
            let config = Config::load(args.config.as_deref())?;
            config.check(Role::Everything)?;
            match format {
                Format::Table => config.redacted(),
                Format::Json => json(&config.redacted()),
            }
        }
    };
    Ok(out.write_all(text.as_bytes())?)
}

/// The same settings as one JSON object in one line.
fn json(toml: &str) -> String {
    let table: toml::Table = toml::from_str(toml).unwrap_or_default();
    serde_json::json!(table).to_string() + "\n"
}
