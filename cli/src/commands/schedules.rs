//! The commands about jobs that are submitted by a cron: `schedule list`, `set`, `pause`, `resume`, `remove`.

use super::{now_ms, print, print_json};
use crate::{args::ScheduleAction, error::CliError, table};
use fleetwire_client::{
    Client,
    jobfile::{self, Recurs},
    schedules::ScheduleView,
};
use fleetwire_common::{fb, job::JobSpec};
use std::path::Path;

/// `fleetwire schedule`.
pub async fn schedule(client: &Client, action: &ScheduleAction, as_json: bool) -> Result<(), CliError> {
    match action {
        ScheduleAction::List => list(client, as_json).await,
        ScheduleAction::Set { file } => {
            let (job, recurs) = load(file)?;
            client.set_schedule(&job, &recurs).await?;
            let name = job.name.as_str();
            let set = client.schedules().await?.into_iter().find(|schedule| schedule.name == name);
            match set {
                _ if as_json => print_json(&set),
                Some(ScheduleView { next_at_ms: Some(next), cron, time_zone, .. }) => {
                    let next = table::until(next, now_ms());
                    print(&format!("schedule {name} is set: {cron} ({time_zone}), next {next}\n"))
                }
                _ => print(&format!("schedule {name} is set\n")),
            }
        }
        ScheduleAction::Pause { name } => {
            change(client, name, (fb::ScheduleAction::Pause, "paused", "rests until it is resumed"), as_json).await
        }
        ScheduleAction::Resume { name } => {
            change(client, name, (fb::ScheduleAction::Resume, "resumed", "goes on, from its next moment"), as_json)
                .await
        }
        ScheduleAction::Remove { name } => {
            let done = (fb::ScheduleAction::Remove, "removed", "is removed; jobs that it has submitted go on");
            change(client, name, done, as_json).await
        }
    }
}

/// Reads a job file that says when it runs.
pub fn load(file: &Path) -> Result<(JobSpec, Recurs), CliError> {
    let read = jobfile::load_file(file)?;
    let recurs = read.recurs.ok_or_else(|| CliError::NoCron { path: file.to_owned() })?;
    Ok((read.job, recurs))
}

async fn list(client: &Client, as_json: bool) -> Result<(), CliError> {
    let schedules = client.schedules().await?;
    if as_json {
        return print_json(&schedules);
    }
    if schedules.is_empty() {
        return print("no schedules yet: `fleetwire schedule set JOB.toml` makes one of a job file with `cron`\n");
    }
    print(&table::text(&table::schedules(&schedules, now_ms())))
}

async fn change(
    client: &Client,
    name: &str,
    (action, done, words): (fb::ScheduleAction, &str, &str),
    as_json: bool,
) -> Result<(), CliError> {
    client.change_schedule(name, action).await?;
    if as_json { print_json(&serde_json::json!({ done: name })) } else { print(&format!("schedule {name} {words}\n")) }
}
