//! What can go wrong on the command line, with what to do about it.

use crate::wire::schema::SchemaError;
use fleetwire_client::{ClientError, jobfile::JobFileError};
use fleetwire_common::{fb, ids::NameError, job::JobError, token::TokenError};
use std::{io, path::PathBuf};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Nobody to be.
    #[error(
        "no credentials: there is no `{}`, and neither --data nor FLEETWIRE_DATA names a scheduler's data folder",
        looked.display()
    )]
    NoCredentials {
        /// Where they would be.
        looked: PathBuf,
    },
    /// Credentials that cannot be used.
    #[error("the credentials in `{}` cannot be used: {error}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// There are credentials already.
    #[error("there are credentials already, in `{}`", path.display())]
    LoggedIn {
        /// The file.
        path: PathBuf,
    },
    /// A file or folder that cannot be read or written.
    #[error("cannot {doing} `{}`: {error}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// With which.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
    /// A file of frames, JSON or schemas that cannot be used.
    #[error("{}: {error}", path.display())]
    Wire {
        /// Which.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// A schema that cannot be read.
    #[error("{0}")]
    Schema(#[from] SchemaError),
    /// Output that could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// A text that is no token.
    #[error("{0}")]
    Token(#[from] TokenError),
    /// Joining failed.
    #[error("could not log in: {0}")]
    Login(String),
    /// A name that is none.
    #[error("{0}")]
    Name(#[from] NameError),
    /// The job file is refused.
    #[error("{0}")]
    JobFile(#[from] JobFileError),
    /// A schedule without a time.
    #[error("{} does not say when it runs: add a cron, such as cron = \"30 3 * * 1-5\" (docs/jobs.md)", path.display())]
    NoCron {
        /// The job file.
        path: PathBuf,
    },
    /// A submit of what runs by a cron.
    #[error(
        "{} says when it runs (cron): `fleetwire schedule set` has the cluster run it then, `submit --now` runs it once, now",
        path.display()
    )]
    HasCron {
        /// The job file.
        path: PathBuf,
    },
    /// What was asked to run cannot be.
    #[error("{0}")]
    Job(#[from] JobError),
    /// An argument that cannot be read.
    #[error("`{found}` is not {expected}")]
    Argument {
        /// What came.
        found: String,
        /// What would do.
        expected: &'static str,
    },
    /// A job was named where one task is needed.
    #[error("job {job} has {tasks} tasks: name one, such as {job}.0.0")]
    ManyTasks {
        /// The job.
        job: u64,
        /// How many.
        tasks: u32,
    },
    /// A task without a result.
    #[error("task {task} has no result: {why}")]
    NoResult {
        /// The task.
        task: String,
        /// Its state, in words.
        why: String,
    },
    /// The scheduler could not be asked, or refused.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// A part of the cluster in this process failed.
    #[error("the {part} of the cluster in this process failed: {error}")]
    Dev {
        /// Which part.
        part: String,
        /// What it said.
        error: String,
    },
}

// Writing into a text cannot fail; it is the output's error if it does.
impl From<std::fmt::Error> for CliError {
    fn from(error: std::fmt::Error) -> CliError {
        CliError::Output(io::Error::other(error))
    }
}

impl CliError {
    /// What to do about it, if that can be said.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            CliError::NoCredentials { .. } => Some(
                "run `fleetwire login TOKEN` with a token of an operator, or name the scheduler's folder with --data DIR",
            ),
            CliError::LoggedIn { .. } => Some("add --force to replace them"),
            CliError::Credentials { .. } => Some("run `fleetwire login TOKEN --force` with a new token"),
            CliError::Client(ClientError::Unreachable { .. }) => {
                Some("is the scheduler running, and its UDP port open to this machine?")
            }
            CliError::Client(error) => match error.code()? {
                fb::ErrorCode::UnknownJob => Some("`fleetwire jobs` lists the jobs that are remembered"),
                fb::ErrorCode::UnknownTask => Some("`fleetwire tasks JOB` lists a job's tasks"),
                fb::ErrorCode::UnknownAgent => Some("`fleetwire agents` lists the agents"),
                fb::ErrorCode::Authorization => Some("your role does not allow that: ask for a token of an operator"),
                fb::ErrorCode::AgentUnreachable => {
                    Some("logs stay on the agent: they can be read once it is connected again")
                }
                fb::ErrorCode::Busy | fb::ErrorCode::RateLimited => Some("try again in a moment"),
                _ => None,
            },
            _ => None,
        }
    }
}
