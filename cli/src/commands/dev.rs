//! `fleetwire dev`: a scheduler and its agents in this process, in a temporary folder. Real QUIC over
//! loopback, real joining, real signatures: the same parts as everywhere, only nearer together.

use super::{jobs, print};
use crate::{args::Dev, credentials, error::CliError};
use fleetwire_agent::{AgentConfig, CapacityConfig, OnStop};
use fleetwire_client::{Client, LogStream, Work, jobfile, views::JobView};
use fleetwire_common::{
    ids::{JobId, Name},
    job::JobSpec,
    token::JoinToken,
};
use fleetwire_scheduler::{Scheduler, SchedulerConfig};
use std::{
    io::{IsTerminal as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// The cluster in this process.
struct Cluster {
    scheduler: Scheduler,
    agents: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    failures: tokio::sync::mpsc::UnboundedReceiver<CliError>,
    client: Client,
    folder: tempfile::TempDir,
}

/// `fleetwire dev`; the exit status.
pub async fn dev(command: &Dev, as_json: bool) -> Result<u8, CliError> {
    tracing_subscriber::fmt()
        .with_max_level(command.log)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    // Before anything is started: a mistake in the file is the likelier one.
    let job = command.file.as_deref().map(jobfile::load).transpose()?;
    let mut cluster = Cluster::start(command.agents).await?;
    let status = tokio::select! {
        biased;
        Some(failure) = cluster.failures.recv() => Err(failure),
        status = work(&cluster.client, job.as_ref(), cluster.folder.path(), as_json) => status,
    };
    cluster.stop().await;
    status
}

/// Runs the job, or says how the cluster is used and waits.
async fn work(client: &Client, job: Option<&JobSpec>, folder: &Path, as_json: bool) -> Result<u8, CliError> {
    let Some(job) = job else {
        print(&usage(folder))?;
        interrupted().await;
        return Ok(0);
    };
    let submitted = client.submit(job).await?;
    let ended = tokio::select! {
        ended = jobs::wait(client, submitted.job, !as_json) => ended?,
        () = interrupted() => {
            client.cancel(Work::Job(submitted.job)).await?;
            let _ = tokio::time::timeout(CANCEL_WITHIN, client.watch(submitted.job, |_| ())).await;
            return Ok(130);
        }
    };
    if !as_json {
        outputs(client, &ended).await?;
    }
    jobs::report(client, &ended, true, as_json).await
}

/// Ctrl-C or SIGTERM: whoever asks, what was started is stopped.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        },
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

/// What the tasks wrote, each under a heading of its own.
async fn outputs(client: &Client, job: &JobView) -> Result<(), CliError> {
    if job.counts.total() as usize > OUTPUTS_MAX {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    for task in client.tasks_up_to(JobId(job.job), OUTPUTS_MAX).await? {
        let Ok(id) = task.task.parse() else { continue };
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            // A task that never started has no output, and that is no error here.
            let Ok(log) = client.log(id, 0, stream, 0).await else { continue };
            if log.data.is_empty() {
                continue;
            }
            let which = if stream == LogStream::Stderr { ", stderr" } else { "" };
            writeln!(out, "── {} {} on {}{which}", task.task, task.name, task.agent.as_deref().unwrap_or("-"))?;
            out.write_all(&log.data)?;
            if log.data.last() != Some(&b'\n') {
                writeln!(out)?;
            }
            if log.size > log.data.len() as u64 {
                writeln!(out, "… {} bytes more", log.size - log.data.len() as u64)?;
            }
        }
    }
    Ok(writeln!(out)?)
}

impl Cluster {
    async fn start(agents: u16) -> Result<Cluster, CliError> {
        let folder = tempfile::Builder::new().prefix("fleetwire-dev-").tempdir().map_err(|error| CliError::File {
            doing: "make a folder in",
            path: std::env::temp_dir(),
            error,
        })?;
        let data = folder.path().join("scheduler");
        let config = SchedulerConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            cluster: Some(Name::new("dev")?),
            ..SchedulerConfig::new(&data)
        };
        let dev = |part: &str, error: String| CliError::Dev { part: part.to_owned(), error };
        let (scheduler, started) =
            Scheduler::start(config).await.map_err(|error| dev("scheduler", error.to_string()))?;
        let token = JoinToken::from_text(&started.token.unwrap_or_default())?;
        let (stop, stopped) = watch::channel(false);
        let (failed, failures) = tokio::sync::mpsc::unbounded_channel();
        let mut threads = Vec::new();
        for number in 1..=agents {
            let config = AgentConfig {
                join: Some(token.clone()),
                name: Some(Name::new(&format!("agent-{number}"))?),
                capacity: share(agents),
                on_stop: OnStop::Cancel,
                slots_max: SLOTS,
                ..AgentConfig::new(folder.path().join(format!("agent-{number}")))
            };
            threads.push(start_agent(number, config, stopped.clone(), failed.clone())?);
        }
        let client = Client::connect(credentials::find(Some(&data))?).await?;
        let mut cluster = Cluster { scheduler, agents: threads, stop, failures, client, folder };
        match cluster.wait_for_agents(agents).await {
            Ok(()) => Ok(cluster),
            Err(error) => {
                cluster.stop().await;
                Err(error)
            }
        }
    }

    async fn wait_for_agents(&mut self, count: u16) -> Result<(), CliError> {
        let since = Instant::now();
        loop {
            if let Ok(failure) = self.failures.try_recv() {
                return Err(failure);
            }
            let there = self.client.cluster().await?.agents_connected;
            if there >= u32::from(count) {
                return Ok(());
            }
            if since.elapsed() > AGENTS_WITHIN {
                let error = format!("{there} of {count} agents joined within {} s", AGENTS_WITHIN.as_secs());
                return Err(CliError::Dev { part: String::from("agents"), error });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops everything, the agents first, so that they can say goodbye.
    async fn stop(mut self) {
        let _ = self.stop.send(true);
        for agent in self.agents {
            let _ = tokio::task::spawn_blocking(move || agent.join()).await;
        }
        self.scheduler.stop();
        let _ = tokio::time::timeout(STOP_WITHIN, self.scheduler.ended()).await;
    }
}

fn start_agent(
    number: u16,
    config: AgentConfig,
    mut stopped: watch::Receiver<bool>,
    failed: tokio::sync::mpsc::UnboundedSender<CliError>,
) -> Result<JoinHandle<()>, CliError> {
    let fault = move |error: String| CliError::Dev { part: format!("agent {number}"), error };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| fault(error.to_string()))?;
    let run = move || {
        let shutdown = async move {
            // Also when the other end is gone.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        if let Err(error) = runtime.block_on(fleetwire_agent::run(config, shutdown)) {
            let _ = failed.send(fault(error.to_string()));
        }
    };
    thread::Builder::new().name(format!("agent-{number}")).spawn(run).map_err(|error| fault(error.to_string()))
}

/// What one of so many agents may offer: its part of this machine.
fn share(agents: u16) -> CapacityConfig {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let cpu = u32::try_from(cores * 1_000 / usize::from(agents)).unwrap_or(u32::MAX).max(CPU_MIN);
    let memory = memory_mb().map(|total| (total / 2 / u32::from(agents)).max(MEMORY_MIN));
    CapacityConfig { cpu: Some(cpu), memory, ..CapacityConfig::default() }
}

/// This machine's memory in MB, where it says.
fn memory_mb() -> Option<u32> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    u32::try_from(kib * 1_024 / 1_000_000).ok()
}

fn usage(folder: &Path) -> String {
    format!(
        "A cluster runs in this process until Ctrl-C. In another terminal:

    export FLEETWIRE_DATA={}
    fleetwire agents
    fleetwire run -- echo hello
    fleetwire submit examples/first.toml --watch

",
        folder.join("scheduler").display()
    )
}

const AGENTS_WITHIN: Duration = Duration::from_secs(30);
const CANCEL_WITHIN: Duration = Duration::from_secs(10);
const STOP_WITHIN: Duration = Duration::from_secs(5);
const OUTPUTS_MAX: usize = 20;
/// The folder is removed at the end, and files cost more than the tasks that wrote them.
const SLOTS: u32 = 48;
/// A share is at least half a core …
const CPU_MIN: u32 = 500;
/// … and 128 MB: enough for every example.
const MEMORY_MIN: u32 = 128;
