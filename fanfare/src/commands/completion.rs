//! `fanfare completion`: a completion script for a shell.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::Failure;

/// For which shell.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare completion bash > /etc/bash_completion.d/fanfare
  fanfare completion zsh > ~/.zfunc/_fanfare")]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub fn run(args: &CompletionArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "fanfare", &mut script);
    Ok(std::io::Write::write_all(&mut std::io::stdout(), &script)?)
}
