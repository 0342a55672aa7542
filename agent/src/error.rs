//! Why an agent does not start, or ends. Each error says what to do about it.

use fleetwire_agent_core::ReplayError;
use fleetwire_common::{fb, ids::Name};
use fleetwire_disk::{FolderError, WriterFailed};
use fleetwire_journal::OpenError;
use fleetwire_link::{EnrolError, IdentityError, KeyError};
use std::{io, path::PathBuf};

/// Why an agent does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The data folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A file in the data folder cannot be written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// First start without a token.
    #[error(
        "{} has no identity yet: start the agent once with --join TOKEN (`fleetwire token create` prints one)",
        data.display()
    )]
    NoToken {
        /// The data folder.
        data: PathBuf,
    },
    /// A token for somebody else.
    #[error("the join token is one for an {found}: make one with `fleetwire token create --role agent`")]
    TokenRole {
        /// For whom it is.
        found: &'static str,
    },
    /// The host has no name that an agent could have.
    #[error("the host's name {host:?} does not make an agent's name: choose one with --name")]
    NoName {
        /// The host's name.
        host: String,
    },
    /// The identity cannot be read.
    #[error(
        "{}: {source}; to join anew, remove the file and start with --join TOKEN and another --name",
        path.display()
    )]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: IdentityError,
    },
    /// The key cannot be made or read.
    #[error("{}: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
    /// The cluster does not let the agent in.
    #[error("joining as `{name}`: {source}{hint}")]
    Join {
        /// The name that was asked for.
        name: Name,
        /// What went wrong.
        source: EnrolError,
        /// What to do; empty where the cause says it.
        hint: &'static str,
    },
    /// The journal cannot be read.
    #[error("the agent's journal: {source}")]
    Journal {
        /// What is wrong with it.
        source: Box<OpenError<ReplayError>>,
    },
    /// The journal cannot be written any more. Nothing that was not durable was acknowledged.
    #[error("the agent's journal: {source}; what runs goes on, start the agent again once the disk is fine")]
    Writer {
        /// What happened.
        source: WriterFailed,
    },
    /// A thread cannot be started.
    #[error("starting the journal's thread: {source}")]
    Thread {
        /// What the operating system said.
        source: io::Error,
    },
    /// The executor cannot be started.
    #[error("starting the process executor: {}", crate::runner::error_chain(source))]
    Executor {
        /// What went wrong.
        source: crate::executor::StartError,
    },
    /// The operating system gives no random numbers.
    #[error("the operating system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

/// What to do about a refusal.
pub(crate) fn hint(code: fb::ErrorCode) -> &'static str {
    match code {
        fb::ErrorCode::TokenExpired | fb::ErrorCode::TokenUsedUp | fb::ErrorCode::TokenUnknown => {
            ": make a new token with `fleetwire token create`"
        }
        fb::ErrorCode::TokenWrongRole => ": make one for agents with `fleetwire token create --role agent`",
        fb::ErrorCode::NameTaken => ": choose another name with --name (names are never issued twice)",
        _ => "",
    }
}
