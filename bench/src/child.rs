//! This program again, as a child that prints one line of JSON when it is done.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use tokio::process::Command;

/// Runs `fanfare-bench arguments…` and reads its answer.
pub(crate) async fn answer<T: DeserializeOwned>(arguments: &[&str]) -> Result<T> {
    let output = command(arguments)?
        .stderr(Stdio::inherit())
        .output()
        .await?;
    ensure!(output.status.success(), "{arguments:?} failed");
    serde_json::from_slice(&output.stdout).with_context(|| format!("the answer of {arguments:?}"))
}

/// The command, killed when it is dropped.
pub(crate) fn command(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).kill_on_drop(true);
    Ok(command)
}
