//! `fleetwire`: see the library of this crate, and docs/cli.md.

use clap::Parser as _;
use fleetwire_cli::args::Cli;
use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    // `dev` runs agents in this process, and their spawner is this executable, started again.
    if let Some(code) = fleetwire_agent::executor::spawner_if_asked() {
        return Ok(code);
    }
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(fleetwire_cli::run(&cli));
    Ok(ExitCode::from(status))
}
