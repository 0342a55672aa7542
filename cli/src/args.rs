//! The command line, as clap reads it. What the words mean is in docs/cli.md.

use crate::commands::wire::args::Wire;
use clap::{Args, Parser, Subcommand, ValueEnum};
use fleetwire_client::jobfile::values;
use fleetwire_common::{
    custom::Custom,
    fb,
    ids::{JobId, TaskId},
    resources::{parse_cpu, parse_memory, parse_storage},
};
use std::{path::PathBuf, time::Duration};

/// Run work on a fleet of machines.
#[derive(Debug, Parser)]
#[command(name = "fleetwire", version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// A scheduler's data folder on this machine, whose operator to be.
    #[arg(long, global = true, env = "FLEETWIRE_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Print JSON, for programs.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make and hand out join tokens.
    #[command(subcommand)]
    Token(Token),
    /// Become an operator of a cluster with a join token, on this machine.
    Login(Login),
    /// Submit a job file.
    Submit(Submit),
    /// Run one command somewhere in the fleet, with its output here and its exit status.
    Run(Box<Run>),
    /// List jobs.
    Jobs(Jobs),
    /// Show one job; or say what would become of one, were it submitted.
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Job {
        /// What to do instead of showing it.
        #[command(subcommand)]
        action: Option<JobAction>,
        /// Its number.
        #[arg(value_name = "JOB", value_parser = job, required = true)]
        job: Option<JobId>,
    },
    /// List a job's tasks.
    Tasks {
        /// The job's number.
        #[arg(value_name = "JOB", value_parser = job)]
        job: JobId,
        /// How much of it.
        #[command(flatten)]
        list: List,
    },
    /// List agents.
    Agents(List),
    /// Show one agent, with what it runs; or take it out of service.
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Agent {
        /// What to do instead of showing it.
        #[command(subcommand)]
        action: Option<AgentAction>,
        /// Its name.
        #[arg(required = true)]
        name: Option<String>,
    },
    /// Print what a task wrote to its standard output.
    Logs(Logs),
    /// Print what a task left as its result.
    Result {
        /// The task, such as 7.0.42; or the job, if it has one task.
        #[arg(value_name = "TASK", value_parser = target)]
        task: Target,
    },
    /// Stop a job or a task.
    Cancel {
        /// The job, such as 7, or the task, such as 7.0.42.
        #[arg(value_name = "JOB|TASK", value_parser = target)]
        target: Target,
    },
    /// Say why a task waits, or what became of it.
    Explain {
        /// The task, such as 7.0.42; or the job, if it has one task.
        #[arg(value_name = "TASK", value_parser = target)]
        task: Target,
    },
    /// List the queues: what they have of the cluster, and what they may.
    Queues,
    /// The policy by which work is placed.
    #[command(subcommand)]
    Policy(PolicyAction),
    /// Jobs that are submitted again and again, by a cron.
    #[command(subcommand)]
    Schedule(ScheduleAction),
    /// Print what the scheduler has counted since it was started, in Prometheus's text format.
    Metrics,
    /// A whole cluster in this process: a scheduler, agents, and a job if one is given.
    Dev(Dev),
    /// Look at frames and schemas, and at a scheduler that answers.
    #[command(subcommand)]
    Wire(Wire),
    /// Print a script by which a shell completes these words.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// What to do with the policy.
#[derive(Debug, Subcommand)]
pub enum PolicyAction {
    /// Print the policy as a file that `set` reads.
    Show,
    /// Place work by another policy from now on; what runs goes on.
    Set {
        /// The policy file (docs/operations.md).
        #[arg(value_name = "POLICY.toml")]
        file: PathBuf,
    },
    /// Check a policy file without a cluster.
    Check {
        /// The policy file.
        #[arg(value_name = "POLICY.toml")]
        file: PathBuf,
    },
}

/// What to do with jobs that are submitted by a cron.
#[derive(Debug, Subcommand)]
pub enum ScheduleAction {
    /// List the schedules: when each is due next, and what became of it last.
    List,
    /// Have the cluster submit a job by its cron, from now on; in place of the schedule of that name, if there is one, paused
    /// or not.
    Set {
        /// The job file, with `cron` (docs/jobs.md).
        #[arg(value_name = "JOB.toml")]
        file: PathBuf,
    },
    /// Let a schedule rest; jobs that it has submitted go on.
    Pause {
        /// Its name.
        name: String,
    },
    /// Let it go on, from its next moment.
    Resume {
        /// Its name.
        name: String,
    },
    /// Remove a schedule; jobs that it has submitted go on.
    Remove {
        /// Its name.
        name: String,
    },
}

/// What to do with a job that is not there yet.
#[derive(Debug, Subcommand)]
pub enum JobAction {
    /// Say what would become of a job, were it submitted now; nothing is. Exit with the status that its submit would have.
    Plan {
        /// The job file (docs/jobs.md).
        #[arg(value_name = "JOB.toml")]
        file: PathBuf,
    },
}

/// What to do with an agent.
#[derive(Debug, Subcommand)]
pub enum AgentAction {
    /// Give it no more work; what runs there goes on.
    Cordon {
        /// Its name.
        name: String,
        /// Why, for those who ask.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Give it work again.
    Uncordon {
        /// Its name.
        name: String,
    },
    /// Give it no more work, and let it get rid of what it has.
    Drain {
        /// Its name.
        name: String,
        /// Stop what still runs after this time, for instance 10m; it is then tried elsewhere. Without it, work runs to its end.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        within: Option<Duration>,
        /// Why, for those who ask.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        /// Wait until nothing is left there.
        #[arg(long)]
        wait: bool,
    },
    /// Forget an agent that will not come back: what it was assigned ends there, its capacity counts no more.
    Forget {
        /// Its name.
        name: String,
    },
}

/// Join tokens.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token that lets someone join.
    Create {
        /// What its holder becomes.
        #[arg(long, value_enum, default_value_t = RoleName::Agent)]
        role: RoleName,
        /// How many may join with it.
        #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        uses: u32,
        /// How long it is good for, such as 10m, 1h or 7d.
        #[arg(long, default_value = "1h", value_parser = duration, value_name = "DURATION")]
        expires: Duration,
    },
}

/// A role's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    /// Runs tasks.
    Agent,
    /// Submits, cancels and looks.
    Operator,
    /// Looks.
    Viewer,
    /// A program that submits, cancels and looks.
    Service,
}

/// `login`.
#[derive(Debug, Args)]
pub struct Login {
    /// The token, as `fleetwire token create --role operator` printed it.
    pub token: String,
    /// The name to be known by; your user name otherwise.
    #[arg(long)]
    pub name: Option<String>,
    /// Replace credentials that are there already.
    #[arg(long)]
    pub force: bool,
}

/// `submit`.
#[derive(Debug, Args)]
pub struct Submit {
    /// The job file (docs/jobs.md).
    #[arg(value_name = "JOB.toml")]
    pub file: PathBuf,
    /// Show its progress until it ends, then its results; exit with its status.
    #[arg(long)]
    pub watch: bool,
    /// Wait until it ends; exit with its status.
    #[arg(long)]
    pub wait: bool,
    /// Run a job that has `cron` once, now.
    #[arg(long)]
    pub now: bool,
}

/// `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The kind of agent: any, trainer, inferencer, crawler, labeller or rater.
    #[arg(long, default_value = "any", value_parser = kind)]
    pub kind: Kind,
    /// Cores such as 2 or 1.5, or millicores such as 500m.
    #[arg(long, value_parser = parse_cpu)]
    pub cpu: Option<u32>,
    /// Memory such as 64MB or 1.5GB.
    #[arg(long, value_parser = parse_memory)]
    pub memory: Option<u32>,
    /// GPUs.
    #[arg(long, default_value_t = 0)]
    pub gpu: u32,
    /// Storage such as 10GB.
    #[arg(long, value_parser = parse_storage)]
    pub storage: Option<u32>,
    /// What else it needs, NAME=COUNT, such as fpga=1. May be repeated.
    #[arg(long = "resource", value_name = "NAME=COUNT", value_parser = Custom::parse)]
    pub custom: Vec<(String, u64)>,
    /// What the agent's labels must satisfy, such as 'zone = eu', 'driver >= 535.2' or '!old'. May be repeated.
    #[arg(long = "constraint", value_name = "CONSTRAINT")]
    pub constraints: Vec<String>,
    /// An environment variable, NAME=VALUE. May be repeated.
    #[arg(long = "env", short = 'e', value_name = "NAME=VALUE")]
    pub environment: Vec<String>,
    /// A file to take along into the working directory. May be repeated.
    #[arg(long = "file", short = 'f', value_name = "PATH")]
    pub files: Vec<PathBuf>,
    /// How long it may run, such as 30s or 5m.
    #[arg(long, value_parser = duration)]
    pub timeout: Option<Duration>,
    /// How often it is tried.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub max_attempts: u32,
    /// The queue whose share of the cluster it has; `default` otherwise.
    #[arg(long, value_name = "NAME")]
    pub queue: Option<String>,
    /// What to call the job; the program's name otherwise.
    #[arg(long)]
    pub name: Option<String>,
    /// The command and its arguments, after `--`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// `jobs`.
#[derive(Debug, Args)]
pub struct Jobs {
    /// How many.
    #[command(flatten)]
    pub list: List,
    /// Only those that bear this label, such as 'team=vision'. May be repeated.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Only those of this queue.
    #[arg(long, value_name = "NAME")]
    pub queue: Option<String>,
}

/// Lists.
#[derive(Clone, Copy, Debug, Args)]
pub struct List {
    /// How many rows at most.
    #[arg(long, short = 'n', default_value_t = 100, value_name = "N")]
    pub limit: usize,
}

/// `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// The task, such as 7.0.42; or the job, if it has one task.
    #[arg(value_name = "TASK", value_parser = target)]
    pub task: Target,
    /// Go on until the task ends.
    #[arg(long, short)]
    pub follow: bool,
    /// Its standard error instead of its standard output.
    #[arg(long)]
    pub stderr: bool,
    /// Which try; the latest otherwise.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub attempt: u32,
}

/// `dev`.
#[derive(Debug, Args)]
pub struct Dev {
    /// A job to run; without one the cluster stays up until Ctrl-C.
    #[arg(value_name = "JOB.toml")]
    pub file: Option<PathBuf>,
    /// How many agents.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub agents: u16,
    /// What the parts say of themselves: error, warn, info, debug.
    #[arg(long, default_value = "warn", value_name = "LEVEL")]
    pub log: tracing::Level,
}

/// A kind of agent; `None` is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(pub Option<fb::AgentType>);

/// A job, or one task of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A job.
    Job(JobId),
    /// A task.
    Task(TaskId),
}

impl RoleName {
    /// The role on the wire.
    pub fn role(self) -> fb::Role {
        match self {
            RoleName::Agent => fb::Role::Agent,
            RoleName::Operator => fb::Role::Operator,
            RoleName::Viewer => fb::Role::Viewer,
            RoleName::Service => fb::Role::Service,
        }
    }
}

fn job(text: &str) -> Result<JobId, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(JobId(number)),
        _ => Err(String::from("expected a job's number, such as 7")),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected a name and a value, such as team=vision")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn target(text: &str) -> Result<Target, String> {
    if text.contains('.') {
        return text.parse().map(Target::Task).map_err(|error: fleetwire_common::ids::TaskIdError| error.to_string());
    }
    job(text).map(Target::Job).map_err(|_| String::from("expected a task such as 7.0.42, or a job such as 7"))
}

fn kind(text: &str) -> Result<Kind, String> {
    values::kind(text).map(Kind).ok_or_else(|| format!("expected one of {}", values::KIND_NAMES.join(", ")))
}

fn duration(text: &str) -> Result<Duration, String> {
    match values::duration(text) {
        Some(duration) if duration >= Duration::from_secs(1) => Ok(duration),
        _ => Err(String::from("expected a duration of at least a second, such as 30s, 5m or 1h")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_wrong_is_refused_with_what_would_do() {
        for (line, expected) in [
            ("fleetwire result 7.0", "expected JOB.ENTRY.INDEX"),
            ("fleetwire job x", "expected a job's number"),
            ("fleetwire run --memory 64 -- true", "expected a number with a unit"),
            ("fleetwire run --kind infrencer -- true", "expected one of any, trainer"),
            ("fleetwire token create --expires soon", "such as 30s, 5m or 1h"),
            ("fleetwire run", "required"),
            ("fleetwire sbmit x", "submit"),
        ] {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err().to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn everything_after_two_dashes_is_the_command() {
        let cli = Cli::try_parse_from("fleetwire run --cpu 500m --memory 64MB -- ls -l --json".split(' ')).unwrap();
        let Command::Run(run) = cli.command else { panic!("expected run") };
        assert_eq!(run.command, ["ls", "-l", "--json"]);
        assert_eq!((run.cpu, run.memory, cli.json), (Some(500), Some(64), false));
    }
}
