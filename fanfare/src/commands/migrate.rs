//! `fanfare migrate`: makes the tables of the CQL store, or brings them up to this program's version.
//! May be repeated, and run by several at once. The embedded engine has nothing to migrate.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use crate::config::{Config, Role, StorageMode};
use crate::failure::Failure;
use crate::output::Format;
use crate::serve::backend;

/// Where the store is.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare migrate --config fanfare.toml
  FANFARE__STORAGE__MODE=distributed fanfare migrate")]
pub struct MigrateArgs {
    /// Settings, of which [cql] says where the store is
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Migrates, and says which version is in place.
pub fn run(args: &MigrateArgs, format: Format) -> Result<(), Failure> {
    let config = Config::load(args.config.as_deref())?;
    config.check(Role::Everything)?;
    let mut out = std::io::stdout().lock();
    if config.storage.mode == StorageMode::Embedded {
        match format {
            Format::Json => writeln!(out, "{{\"backend\":\"embedded\",\"applied\":0}}")?,
            Format::Table => writeln!(out, "embedded storage has nothing to migrate")?,
        }
        return Ok(());
    }
    let version = super::client(backend::migrate(&config))?;
    let keyspace = &config.cql.keyspace;
    match format {
        Format::Json => writeln!(
            out,
            "{}",
            serde_json::json!({ "backend": "cql", "keyspace": keyspace, "version": version })
        )?,
        Format::Table => writeln!(out, "keyspace {keyspace} is at version {version}")?,
    }
    Ok(())
}
