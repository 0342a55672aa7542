//! `fleetwire-scheduler`: see the library of this crate, and README.md.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use fleetwire_common::ids::Name;
use fleetwire_scheduler::{
    FORGET_AFTER, HEARTBEAT_INTERVAL, PORT, SNAPSHOT_BYTES, SNAPSHOT_FACTS, SNAPSHOT_FACTS_MAX, Scheduler,
    SchedulerConfig, Started, journal_tool,
};
use std::{io::IsTerminal as _, net::SocketAddr, path::PathBuf, time::Duration};
use tokio::signal::unix::{SignalKind, signal};

/// The scheduler of a Fleetwire cluster.
#[derive(Debug, Parser)]
#[command(name = "fleetwire-scheduler", version, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// The data folder: the cluster's keys and its journal. Made on the first start.
    #[arg(long, value_name = "DIR", required = true)]
    data: Option<PathBuf>,
    /// Where to listen (UDP).
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = SocketAddr::from(([0, 0, 0, 0], PORT)))]
    listen: SocketAddr,
    /// Where others reach this scheduler, host or host:port, for join tokens. May be repeated.
    #[arg(long, value_name = "HOST[:PORT]")]
    advertise: Vec<String>,
    /// The cluster's name; on the first start only.
    #[arg(long, value_name = "NAME", value_parser = |text: &str| Name::new(text))]
    cluster: Option<Name>,
    /// Seconds between the heartbeats of agents.
    #[arg(long, value_name = "SECONDS", default_value_t = HEARTBEAT_INTERVAL.as_secs(), value_parser = clap::value_parser!(u64).range(1..=3_600))]
    heartbeat: u64,
    /// Believe a clock that is more than a day ahead of the journal, as after a long pause.
    #[arg(long)]
    accept_clock: bool,
    /// Days after which an agent that is away is not expected back: its work ends there, its capacity counts no more.
    #[arg(long, value_name = "DAYS", default_value_t = FORGET_AFTER.as_secs() / 86_400, value_parser = clap::value_parser!(u64).range(1..=3_650))]
    forget_after: u64,
    /// Go on with a journal that agents have proved to be a restored backup: what it lacks is given up.
    #[arg(long)]
    accept_restore: bool,
    /// Facts in the journal after which a snapshot of it is made.
    #[arg(long, value_name = "FACTS", default_value_t = SNAPSHOT_FACTS, value_parser = clap::value_parser!(u64).range(1..=SNAPSHOT_FACTS_MAX))]
    snapshot_facts: u64,
    /// MiB of facts after which one is made, if that comes first.
    #[arg(long, value_name = "MIB", default_value_t = SNAPSHOT_BYTES >> 20, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    snapshot_mib: u64,
    /// Move segments of the journal that snapshots have replaced there, instead of using them again.
    #[arg(long, value_name = "DIR")]
    archive: Option<PathBuf>,
    /// What to say: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: tracing::Level,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Looks into the journal of a scheduler that does not run, or repairs it.
    #[command(subcommand)]
    Journal(JournalCommand),
}

#[derive(Debug, Subcommand)]
enum JournalCommand {
    /// Reads every byte and says what is there. Exit status 1 if it is damaged.
    Check {
        /// The data folder.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
    /// Prints every fact, one on a line: position, time, fact.
    Dump {
        /// The data folder.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// As JSON, one object on a line.
        #[arg(long)]
        json: bool,
    },
    /// Says what must be given up of a damaged journal, and gives it up with --yes, keeping a copy.
    Repair {
        /// The data folder.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Do it.
        #[arg(long)]
        yes: bool,
    },
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_max_level(options.log)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    if let Some(Command::Journal(command)) = options.command {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        let done = match command {
            JournalCommand::Check { data } => journal_tool::check(&data, &mut out),
            JournalCommand::Dump { data, json } => journal_tool::dump(&data, json, &mut out),
            JournalCommand::Repair { data, yes } => journal_tool::repair(&data, yes, &mut out),
        };
        std::io::Write::flush(&mut out)?;
        return Ok(done?);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(options))
}

async fn run(options: Options) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let data = options.data.context("--data is missing")?;
    let config = SchedulerConfig {
        listen: options.listen,
        advertise: options.advertise,
        cluster: options.cluster,
        heartbeat_interval: Duration::from_secs(options.heartbeat),
        accept_clock: options.accept_clock,
        forget_after: Duration::from_secs(options.forget_after * 86_400),
        accept_restore: options.accept_restore,
        snapshot_facts: options.snapshot_facts,
        snapshot_bytes: options.snapshot_mib << 20,
        archive: options.archive,
        ..SchedulerConfig::new(&data)
    };
    let (mut scheduler, started) = Scheduler::start(config).await?;
    tell(&data, &started);
    // Not started by systemd: nobody to tell, and no error.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tokio::select! {
        ended = scheduler.ended() => return Ok(ended?),
        _ = terminate.recv() => tracing::info!("stopping: SIGTERM"),
        _ = interrupt.recv() => tracing::info!("stopping: SIGINT"),
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    scheduler.stop();
    scheduler.ended().await?;
    tracing::info!("stopped");
    Ok(())
}

/// What to do next, in commands that work as they stand.
fn tell(data: &std::path::Path, started: &Started) {
    let Started { cluster, address, .. } = started;
    let Some(token) = &started.token else {
        println!(
            "cluster {cluster} on {address}: incarnation {}, {} facts, {} agents, {} jobs",
            started.incarnation, started.facts, started.agents, started.jobs
        );
        return;
    };
    let data = data.display();
    println!(
        "Cluster {cluster} is new and listens on {address} (UDP).

On each machine that shall run work (the token lets {uses} agents join within {hours} hours):

    fleetwire-agent --join {token} --data ./agent

On this machine, as its operator:

    export FLEETWIRE_DATA={data}
    fleetwire agents
    fleetwire run -- echo hello
    fleetwire token create --role agent       # another token, when this one is used up

An operator on another machine: `fleetwire token create --role operator` here, `fleetwire login TOKEN` there.
Keep {data} safe: its keys are the cluster.",
        uses = started.token_uses,
        hours = started.token_life.as_secs() / 3_600,
    );
}
