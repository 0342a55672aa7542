//! The command line of Fleetwire, `fleetwire`: submit, run, look, and a whole cluster in one process.
//!
//! Standard output holds what was asked for, standard error what is said about it. Exit status 0 is
//! success, 1 an error, 2 a wrong command line; `run`, `submit --wait` and `dev JOB` exit as their tasks did.

pub mod args;
pub mod commands;
pub mod credentials;
pub mod error;
pub mod logs;
pub mod plans;
pub mod progress;
pub mod results;
pub mod table;
pub mod wire;

use args::{Cli, Command, JobAction, PolicyAction, ScheduleAction};
use clap::CommandFactory as _;
use error::CliError;
use fleetwire_client::{Client, jobfile::JobFileError};
use std::io::IsTerminal as _;

/// Does what the command line says; the exit status.
pub async fn run(cli: &Cli) -> u8 {
    match command(cli).await {
        Ok(status) => status,
        // Whoever read our output has seen enough.
        Err(CliError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            complain(&error);
            1
        }
    }
}

async fn command(cli: &Cli) -> Result<u8, CliError> {
    let json = cli.json;
    match &cli.command {
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "fleetwire", &mut std::io::stdout());
            return Ok(0);
        }
        Command::Login(command) => return commands::login::login(command, json).await.map(|()| 0),
        Command::Dev(command) => return commands::dev::dev(command, json).await,
        Command::Wire(command) => return commands::wire::wire(command, cli.data.as_deref(), json).await,
        // Before anything is connected: mistakes in the file are the likelier ones.
        Command::Policy(PolicyAction::Check { file }) => return commands::policy::check(file, json).map(|()| 0),
        Command::Policy(PolicyAction::Set { file }) => drop(fleetwire_client::policyfile::load(file)?),
        Command::Submit(command) => drop(commands::jobs::load(command)?),
        Command::Schedule(ScheduleAction::Set { file }) => drop(commands::schedules::load(file)?),
        Command::Job { action: Some(JobAction::Plan { file }), .. } => {
            drop(fleetwire_client::jobfile::load(file)?);
        }
        _ => {}
    }
    let client = Client::connect(credentials::find(cli.data.as_deref())?).await?;
    match &cli.command {
        Command::Submit(command) => return commands::jobs::submit(&client, command, json).await,
        Command::Run(command) => return commands::jobs::run(&client, command, json).await,
        Command::Token(command) => commands::login::token(&client, command, json).await?,
        Command::Jobs(command) => commands::show::jobs(&client, command, json).await?,
        Command::Job { action: Some(JobAction::Plan { file }), .. } => {
            return commands::jobs::plan(&client, file, json).await;
        }
        Command::Job { job, .. } => commands::show::job(&client, job.unwrap_or_default(), json).await?,
        Command::Tasks { job, list } => commands::show::tasks(&client, *job, *list, json).await?,
        Command::Agents(list) => commands::show::agents(&client, *list, json).await?,
        Command::Agent { action: Some(action), .. } => commands::agents::change(&client, action, json).await?,
        Command::Agent { name, .. } => {
            commands::show::agent(&client, name.as_deref().unwrap_or_default(), json).await?
        }
        Command::Queues => commands::policy::queues(&client, json).await?,
        Command::Policy(action) => commands::policy::policy(&client, action, json).await?,
        Command::Schedule(action) => commands::schedules::schedule(&client, action, json).await?,
        Command::Metrics => commands::print(&client.metrics().await?)?,
        Command::Logs(command) => commands::show::logs(&client, command).await?,
        Command::Result { task } => commands::show::result(&client, *task, json).await?,
        Command::Cancel { target } => commands::jobs::cancel(&client, *target, json).await?,
        Command::Explain { task } => commands::show::explain(&client, *task, json).await?,
        Command::Completions { .. } | Command::Login(_) | Command::Dev(_) | Command::Wire(_) => {}
    }
    Ok(0)
}

fn complain(error: &CliError) {
    match error {
        // Job files have messages of their own, with the source line.
        CliError::JobFile(JobFileError::Mistake(mistake)) => {
            eprintln!("{}", mistake.render(std::io::stderr().is_terminal()));
        }
        error => eprintln!("error: {error}"),
    }
    if let Some(hint) = error.hint() {
        eprintln!("  hint: {hint}");
    }
}
