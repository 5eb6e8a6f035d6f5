//! `fanfare migrate`: changes of the store's schema. The embedded engine has none to apply.

use clap::Args;

use crate::failure::Failure;
use crate::output::Format;

/// Nothing to choose yet.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  fanfare migrate")]
pub struct MigrateArgs {}

/// Says that there is nothing to do.
pub fn run(_: &MigrateArgs, format: Format) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => writeln!(out, "{{\"backend\":\"embedded\",\"applied\":0}}")?,
        Format::Table => writeln!(out, "embedded storage has nothing to migrate")?,
    }
    Ok(())
}
