//! The commands that only look: `jobs`, `job`, `tasks`, `agents`, `agent`, `logs`, `result`, `explain`.

use super::{now_ms, one_task, print, print_json};
use crate::{
    args::{Jobs, List, Logs, Target},
    error::CliError,
    logs::Follower,
    table,
};
use fleetwire_client::{Client, LogStream, views::Page};
use fleetwire_common::{fb, ids::JobId, limits::PAGE_ROWS_MAX};
use std::{future::Future, io::Write as _};

/// `fleetwire jobs`.
pub async fn jobs(client: &Client, command: &Jobs, as_json: bool) -> Result<(), CliError> {
    let labels = command.labels.iter().cloned().collect();
    let jobs =
        pages(command.list.limit, |cursor, limit| client.jobs_of(command.queue.as_deref(), cursor, limit, &labels))
            .await?;
    if as_json {
        return print_json(&jobs);
    }
    if jobs.is_empty() && !command.labels.is_empty() {
        return print("no jobs bear these labels\n");
    }
    if jobs.is_empty() && command.queue.is_some() {
        return print("no jobs in this queue\n");
    }
    if jobs.is_empty() {
        return print("no jobs yet: `fleetwire submit JOB.toml` or `fleetwire run -- COMMAND`\n");
    }
    print(&table::text(&table::jobs(&jobs, now_ms())))
}

/// `fleetwire job`.
pub async fn job(client: &Client, job: JobId, as_json: bool) -> Result<(), CliError> {
    let job = client.job(job).await?;
    if as_json { print_json(&job) } else { print(&table::job(&job, now_ms())) }
}

/// `fleetwire tasks`.
pub async fn tasks(client: &Client, job: JobId, list: List, as_json: bool) -> Result<(), CliError> {
    let tasks = pages(list.limit, |cursor, limit| client.tasks(job, cursor, limit)).await?;
    if as_json { print_json(&tasks) } else { print(&table::text(&table::tasks(&tasks))) }
}

/// `fleetwire agents`.
pub async fn agents(client: &Client, list: List, as_json: bool) -> Result<(), CliError> {
    let agents = pages(list.limit, |cursor, limit| client.agents(cursor, limit)).await?;
    if as_json {
        return print_json(&agents);
    }
    if agents.is_empty() {
        return print(
            "no agents yet: `fleetwire token create` makes a token, and with it \
             `fleetwire-agent --join TOKEN --data DIR` joins\n",
        );
    }
    print(&format!("{}{}", table::text(&table::agents(&agents, now_ms())), table::notes(&agents)))
}

/// `fleetwire agent`.
pub async fn agent(client: &Client, name: &str, as_json: bool) -> Result<(), CliError> {
    let agent = client.agent(name).await?;
    if as_json { print_json(&agent) } else { print(&table::agent(&agent, now_ms())) }
}

/// `fleetwire logs`.
pub async fn logs(client: &Client, command: &Logs) -> Result<(), CliError> {
    let task = one_task(client, command.task).await?;
    let stream = if command.stderr { LogStream::Stderr } else { LogStream::Stdout };
    let mut follower = Follower::new(task, stream, command.attempt);
    follower.run(client, &mut std::io::stdout().lock(), command.follow).await
}

/// `fleetwire result`.
pub async fn result(client: &Client, target: Target, as_json: bool) -> Result<(), CliError> {
    let task = one_task(client, target).await?;
    let none = |why: String| CliError::NoResult { task: task.to_string(), why };
    let result = match client.result(task).await {
        Ok(Some(result)) => result,
        Err(error) if error.code() != Some(fb::ErrorCode::NoResult) => return Err(error.into()),
        Ok(None) | Err(_) => {
            let view = client.task(task).await?;
            let how = table::said(&view);
            return Err(none(match view.status {
                "completed" => String::from("it completed without writing one to FLEETWIRE_RESULT"),
                status if how.is_empty() => format!("it is {status}"),
                status => format!("it is {status}, {how}"),
            }));
        }
    };
    if as_json {
        let value: serde_json::Value = match serde_json::from_slice(&result) {
            Ok(value) => value,
            Err(_) => String::from_utf8_lossy(&result).into_owned().into(),
        };
        return print_json(&serde_json::json!({ "task": task.to_string(), "result": value }));
    }
    let mut out = std::io::stdout().lock();
    out.write_all(&result)?;
    Ok(out.flush()?)
}

/// `fleetwire explain`.
pub async fn explain(client: &Client, target: Target, as_json: bool) -> Result<(), CliError> {
    let task = one_task(client, target).await?;
    let explanation = client.explain(task).await?;
    if as_json { print_json(&explanation) } else { print(&table::explanation(&explanation)) }
}

/// Rows of a list, page by page, up to `limit`.
async fn pages<T, F>(limit: usize, page: impl Fn(u64, u32) -> F) -> Result<Vec<T>, CliError>
where
    F: Future<Output = Result<Page<T>, fleetwire_client::ClientError>>,
{
    let mut rows = Vec::new();
    let mut cursor = 0;
    loop {
        let left = u32::try_from(limit.saturating_sub(rows.len())).unwrap_or(PAGE_ROWS_MAX).min(PAGE_ROWS_MAX);
        if left == 0 {
            return Ok(rows);
        }
        let next = page(cursor, left).await?;
        rows.extend(next.rows);
        if next.cursor == 0 {
            return Ok(rows);
        }
        cursor = next.cursor;
    }
}
