//! The commands that change something: `submit`, `run` and `cancel`, and what is shown at a job's end.

use super::{exit_status, now_ms, print, print_json};
use crate::{
    args::{Run, Submit, Target},
    error::CliError,
    logs::{Follower, Looked, ended},
    plans,
    progress::Progress,
    results::{Row, results},
    table,
};
use fleetwire_client::{
    Client, ClientError, LogStream, Work, jobfile,
    views::{JobView, TaskView},
};
use fleetwire_common::{
    custom::Custom,
    fb,
    ids::{JobId, Name, TaskId},
    job::{FileSpec, JobError, JobSpec, TaskSpec, Terms},
    resources::Resources,
};
use serde_json::{Value, json};
use std::{fs, path::Path, time::Duration};
use tokio::task::JoinSet;

/// `fleetwire submit`; the exit status.
pub async fn submit(client: &Client, command: &Submit, as_json: bool) -> Result<u8, CliError> {
    let job = load(command)?;
    let submitted = client.submit(&job).await?;
    let waits = command.watch || command.wait;
    if !waits {
        let number = submitted.job;
        if as_json {
            let value = json!({ "job": number.0, "name": job.name.as_str(), "tasks": job.task_count() });
            print_json(&value)?;
        } else {
            print(&format!("job {number} ({}) with {} tasks\n", job.name, job.task_count()))?;
            eprintln!("follow it with `fleetwire job {number}`, stop it with `fleetwire cancel {number}`");
        }
        return Ok(0);
    }
    let ended = tokio::select! {
        ended = wait(client, submitted.job, command.watch && !as_json) => ended?,
        _ = tokio::signal::ctrl_c() => {
            eprintln!("job {0} goes on; `fleetwire cancel {0}` stops it", submitted.job);
            return Ok(130);
        }
    };
    report(client, &ended, command.watch, as_json).await
}

/// Reads the file of a submit.
pub fn load(command: &Submit) -> Result<JobSpec, CliError> {
    let Submit { file, now, .. } = command;
    let read = jobfile::load_file(file)?;
    if read.recurs.is_some() && !now { Err(CliError::HasCron { path: file.clone() }) } else { Ok(read.job) }
}

/// `fleetwire job plan`; the exit status that a submit would have.
pub async fn plan(client: &Client, file: &Path, as_json: bool) -> Result<u8, CliError> {
    let plan = client.plan(&jobfile::load(file)?).await?;
    if as_json {
        print_json(&plan)?;
    } else {
        print(&plans::plan(&plan))?;
    }
    // As the submit would end.
    match plan.refused {
        None => Ok(0),
        Some(refused) => {
            Err(ClientError::Refused { code: refused.error, message: refused.message, details: String::new() }.into())
        }
    }
}

/// Waits for a job's end, with live progress or without.
pub async fn wait(client: &Client, job: JobId, live: bool) -> Result<JobView, ClientError> {
    if live { Progress::to_stderr().follow(client, job).await } else { client.watch(job, |_| ()).await }
}

/// What is shown at the end of a job; its exit status.
pub async fn report(client: &Client, job: &JobView, with_results: bool, as_json: bool) -> Result<u8, CliError> {
    let status = exit_status(client, job).await?;
    let shown = if as_json { JSON_ROWS_MAX } else { ROWS_MAX };
    let tasks = client.tasks_up_to(JobId(job.job), shown).await?;
    let rows = with_their_results(client, tasks).await?;
    let more = u64::from(job.counts.total()).saturating_sub(rows.len() as u64);
    if as_json {
        let tasks: Result<Vec<Value>, _> = rows.iter().map(task_json).collect();
        let tasks = tasks.map_err(std::io::Error::other)?;
        let job = serde_json::to_value(job).map_err(std::io::Error::other)?;
        print_json(&json!({ "job": job, "tasks": tasks, "tasks_left_out": more, "exit_status": status }))?;
        return Ok(status);
    }
    if with_results {
        print(&results(&rows, more))?;
    }
    let took = Duration::from_millis(job.ended_at_ms.unwrap_or_else(now_ms).saturating_sub(job.submitted_at_ms));
    let counts = job.counts;
    eprintln!(
        "job {} ({}) {} in {}: {} of {} tasks completed",
        job.job,
        job.name,
        job.status,
        table::span(took),
        counts.completed,
        counts.total()
    );
    Ok(status)
}

fn task_json(row: &Row) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(&row.task)?;
    if let (Some(object), Some(bytes)) = (value.as_object_mut(), &row.result) {
        let text = || Value::String(String::from_utf8_lossy(bytes).into_owned());
        object.insert(String::from("result"), serde_json::from_slice(bytes).unwrap_or_else(|_| text()));
    }
    Ok(value)
}

/// Fetches the results of all tasks that completed, several at a time.
async fn with_their_results(client: &Client, tasks: Vec<TaskView>) -> Result<Vec<Row>, CliError> {
    let mut rows: Vec<Row> = tasks.into_iter().map(|task| Row { task, result: None }).collect();
    let mut wanted: Vec<(usize, TaskId)> = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        if row.task.status == "completed"
            && let Ok(task) = row.task.task.parse()
        {
            wanted.push((place, task));
        }
    }
    let mut asked = JoinSet::new();
    let mut wanted = wanted.into_iter();
    loop {
        while asked.len() < RESULTS_AT_A_TIME
            && let Some((place, task)) = wanted.next()
        {
            let client = client.clone();
            asked.spawn(async move { (place, client.result(task).await) });
        }
        let Some(done) = asked.join_next().await else { return Ok(rows) };
        let Ok((place, result)) = done else { continue };
        let result = match result {
            Ok(result) => result,
            // It may be without one, or forgotten meanwhile: the table says so by an empty cell.
            Err(ClientError::Refused { .. } | ClientError::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(row) = rows.get_mut(place) {
            row.result = result;
        }
    }
}

/// `fleetwire run`; the exit status of the command.
pub async fn run(client: &Client, command: &Run, as_json: bool) -> Result<u8, CliError> {
    let job = job_of(command)?;
    let submitted = client.submit(&job).await?;
    let task = TaskId { job: submitted.job, entry: 0, index: 0 };
    let follow = async {
        if as_json {
            client.watch(submitted.job, |_| ()).await.map(|_| ()).map_err(CliError::from)
        } else {
            output(client, task).await
        }
    };
    tokio::select! {
        followed = follow => followed?,
        _ = tokio::signal::ctrl_c() => {
            eprintln!("stopping job {}; press Ctrl-C again to leave it to itself", submitted.job);
            client.cancel(Work::Job(submitted.job)).await?;
            tokio::select! {
                waited = client.watch(submitted.job, |_| ()) => { waited?; }
                _ = tokio::signal::ctrl_c() => return Ok(130),
            }
        }
    }
    let ended = client.job(submitted.job).await?;
    if as_json {
        return report(client, &ended, true, true).await;
    }
    let view = client.task(task).await?;
    if view.status != "completed" {
        eprintln!(
            "task {task} {} on {}: {}",
            view.status,
            view.agent.as_deref().unwrap_or("no agent"),
            table::said(&view)
        );
    }
    exit_status(client, &ended).await
}

/// Both outputs of a task, until it ends.
async fn output(client: &Client, task: TaskId) -> Result<(), CliError> {
    let mut stdout = Follower::new(task, LogStream::Stdout, 0);
    let mut stderr = Follower::new(task, LogStream::Stderr, 0);
    let mut told = false;
    let mut waited = Duration::ZERO;
    loop {
        let over = ended(client, task).await?;
        let one = stdout.look(client, &mut std::io::stdout()).await;
        let two = stderr.look(client, &mut std::io::stderr()).await;
        match (over, one, two) {
            // What could not be read after the end stays unread: the agent is away, or never started it.
            (true, Err(CliError::Client(error)), _) | (true, _, Err(CliError::Client(error))) => {
                if error.code() != Some(fb::ErrorCode::LogsGone) {
                    eprintln!("the output cannot be read: {error}");
                }
                return Ok(());
            }
            (false, Err(CliError::Client(ClientError::Refused { .. })), _)
            | (false, _, Err(CliError::Client(ClientError::Refused { .. }))) => {}
            (_, Err(error), _) | (_, _, Err(error)) => return Err(error),
            (_, Ok(Looked::More), _) | (_, _, Ok(Looked::More)) => continue,
            (true, Ok(_), Ok(_)) => return Ok(()),
            (false, Ok(_), Ok(_)) => {}
        }
        if !told && waited > PENDING_HINT && client.task(task).await?.status == "pending" {
            eprintln!("still waiting for an agent; `fleetwire explain {task}` says why");
            told = true;
        }
        waited += RUN_POLL;
        tokio::time::sleep(RUN_POLL).await;
    }
}

fn job_of(command: &Run) -> Result<JobSpec, CliError> {
    let (program, arguments) = command.command.split_first().map_or((String::new(), &[][..]), |(p, a)| (p.clone(), a));
    let plain = Path::new(&program).file_name().and_then(|name| name.to_str()).unwrap_or("run");
    let name = match &command.name {
        Some(name) => Name::new(name)?,
        None => Name::new(plain).or_else(|_| Name::new("run"))?,
    };
    let variable = |text: &String| {
        let pair = text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        pair.ok_or_else(|| CliError::Argument { found: text.clone(), expected: "an environment variable, NAME=VALUE" })
    };
    let constraint = |text: &String| {
        jobfile::values::constraint(text).ok_or_else(|| CliError::Argument {
            found: text.clone(),
            expected: "a constraint, such as `zone = eu`, `zone in [eu, us]`, `driver >= 535.2` or `!old`",
        })
    };
    let file = |path: &std::path::PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let fault = |error| CliError::File { doing: "read", path: path.clone(), error };
        let executable = is_executable(path).map_err(fault)?;
        Ok::<_, CliError>(FileSpec { path: name, data: fs::read(path).map_err(fault)?, executable })
    };
    let custom = Custom::new(command.custom.iter().map(|(name, count)| (name.as_str(), *count)))
        .map_err(|error| JobError::Custom { task: name.to_string(), error: Box::new(error) })?;
    let task = TaskSpec {
        custom,
        name: name.clone(),
        agent_type: command.kind.0,
        resources: Resources {
            cpu: command.cpu.unwrap_or_default(),
            memory: command.memory.unwrap_or_default(),
            gpu: command.gpu,
            storage: command.storage.unwrap_or_default(),
        },
        command: program,
        arguments: arguments.to_vec(),
        environment: command.environment.iter().map(variable).collect::<Result<_, _>>()?,
        files: command.files.iter().map(file).collect::<Result<_, _>>()?,
        constraints: command.constraints.iter().map(constraint).collect::<Result<_, _>>()?,
        timeout_s: command.timeout.map_or(0, |timeout| timeout.as_secs()),
        max_attempts: command.max_attempts,
        ..TaskSpec::default()
    };
    let queue = command.queue.as_deref().map_or(Ok(Name::default_queue()), Name::new);
    let queue = queue.map_err(|error| JobError::Name { what: String::from("queue of the job"), error })?;
    Ok(JobSpec::new(name, vec![task], Terms::default())?.in_queue(queue))
}

fn is_executable(path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::metadata(path)?.permissions().mode() & 0o111 != 0)
}

/// `fleetwire cancel`.
pub async fn cancel(client: &Client, target: Target, as_json: bool) -> Result<(), CliError> {
    let (work, what) = match target {
        Target::Job(job) => (Work::Job(job), format!("job {job}")),
        Target::Task(task) => (Work::Task(task), format!("task {task}")),
    };
    client.cancel(work).await?;
    if as_json { print_json(&json!({ "cancelled": what })) } else { print(&format!("{what} is being stopped\n")) }
}

const ROWS_MAX: usize = 40;
const JSON_ROWS_MAX: usize = 10_000;
const RESULTS_AT_A_TIME: usize = 32;
const RUN_POLL: Duration = Duration::from_millis(100);
const PENDING_HINT: Duration = Duration::from_secs(5);
