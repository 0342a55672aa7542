//! The commands, one function each.

pub mod agents;
pub mod dev;
pub mod jobs;
pub mod login;
pub mod policy;
pub mod schedules;
pub mod show;
pub mod wire;

use crate::{args::Target, error::CliError};
use fleetwire_client::{Client, views::JobView};
use fleetwire_common::ids::{JobId, TaskId};
use serde::Serialize;
use std::{
    io::Write,
    time::{SystemTime, UNIX_EPOCH},
};

/// Prints a value as JSON.
pub fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value).map_err(std::io::Error::other)?;
    print(&format!("{text}\n"))
}

/// Prints text; a reader that went away is no error of ours to shout about, but ends us.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// The one task that is meant: a job may stand for its only task.
pub async fn one_task(client: &Client, target: Target) -> Result<TaskId, CliError> {
    match target {
        Target::Task(task) => Ok(task),
        Target::Job(job) => {
            let tasks = client.job(job).await?.counts.total();
            if tasks != 1 {
                return Err(CliError::ManyTasks { job: job.0, tasks });
            }
            Ok(TaskId { job, entry: 0, index: 0 })
        }
    }
}

/// The exit status of an ended job: 0, or that of its first task that did not complete. What was skipped only follows from
/// others, or was not needed.
pub async fn exit_status(client: &Client, job: &JobView) -> Result<u8, CliError> {
    if job.counts.completed + job.counts.skipped == job.counts.total() {
        return Ok(0);
    }
    let mut cursor = 0;
    loop {
        let page = client.tasks(JobId(job.job), cursor, 1_000).await?;
        if let Some(task) = page.rows.iter().find(|task| !matches!(task.status, "completed" | "skipped")) {
            // One that ended without an attempt has no status of its own.
            let status = task.end.as_ref().map(|end| end.exit_status()).filter(|status| *status != 0);
            let without = if task.status == "cancelled" { 130 } else { 1 };
            return Ok(status.unwrap_or(without));
        }
        if page.cursor == 0 {
            return Ok(1);
        }
        cursor = page.cursor;
    }
}

/// The present, in Unix milliseconds.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
