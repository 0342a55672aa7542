//! Why a scheduler does not start, or stops. Each names the cause, and what to do about it.

use fleetwire_disk::{FolderError, WriterFailed};
use fleetwire_journal::{DiskError, OpenError};
use fleetwire_link::{AuthorityError, BindError, IdentityError, KeyError};
use fleetwire_scheduler_core::ReplayError;
use std::{io, path::PathBuf};

/// Why a scheduler does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder is locked, read-only, from a newer version, or cannot be used otherwise.
    #[error("{0}")]
    Folder(#[from] FolderError),
    /// A file of the data folder cannot be read or written.
    #[error("cannot {doing} `{}`: {error}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
    /// A file that a started cluster must have is missing or damaged.
    #[error(
        "the data folder is damaged: `{}` {what}. Restore the folder from a backup: without that file \
         no agent would know this cluster again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Another name was asked for than the cluster has.
    #[error(
        "this data folder holds the cluster `{found}`, not `{asked}`: leave out --cluster, or choose another folder"
    )]
    OtherCluster {
        /// The folder's.
        found: String,
        /// What was asked for.
        asked: String,
    },
    /// The journal's folder cannot be opened.
    #[error("{0}")]
    Disk(#[from] DiskError),
    /// There is no room for a start.
    #[error("{cause}. A start needs room for a journal segment, {needed_mib} MiB, in the data folder: free some first")]
    DiskFull {
        /// What was tried.
        cause: DiskError,
        /// What a segment takes.
        needed_mib: u64,
    },
    /// The journal cannot be opened.
    #[error("{0}")]
    Journal(#[from] OpenError<ReplayError>),
    /// The wall clock is far ahead of the last fact.
    #[error(
        "the clock of this machine is {ahead_h} hours ahead of what the journal last saw. If the scheduler \
         was off that long, start it with --accept-clock; else set the clock first, because cluster time \
         never goes back"
    )]
    ClockAhead {
        /// By how much.
        ahead_h: u64,
    },
    /// The address cannot be bound.
    #[error("{0}")]
    Bind(#[from] BindError),
    /// A key or certificate cannot be made or read.
    #[error("{0}")]
    Authority(#[from] AuthorityError),
    /// A key cannot be made.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// The operator's credentials cannot be made or read.
    #[error("{0}")]
    Identity(#[from] IdentityError),
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness: {0}")]
    Randomness(getrandom::Error),
    /// A thread or the network runtime cannot be started.
    #[error("cannot start the scheduler's {what}: {error}")]
    Runtime {
        /// Which part.
        what: &'static str,
        /// What the operating system said.
        error: io::Error,
    },
    /// It ended before it was ready.
    #[error("{0}")]
    Ended(#[from] RunError),
}

/// Why a scheduler stopped by itself.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RunError {
    /// What was decided could not be written down, or not be made durable.
    #[error(
        "{0}. The scheduler stops, because nothing more can be promised; everything that was acknowledged \
         is durable. Start it again once the disk is well"
    )]
    Journal(WriterFailed),
    /// A thread is gone: a bug of ours.
    #[error("the scheduler's {0} ended unexpectedly: this is a bug")]
    Thread(&'static str),
}
