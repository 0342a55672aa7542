//! What can go wrong between a client and its cluster.

use fleetwire_common::fb;
use std::time::Duration;

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ClientError {
    /// No session could be opened.
    #[error("cannot reach the scheduler at {}: {error}", addresses.join(", "))]
    Unreachable {
        /// Where it was tried.
        addresses: Vec<String>,
        /// What the last try said.
        error: String,
    },
    /// The scheduler answered that it will not.
    #[error("{}", refusal(*code, message, details))]
    Refused {
        /// Why, for programs.
        code: fb::ErrorCode,
        /// Why, for people.
        message: String,
        /// More of it.
        details: String,
    },
    /// Nothing came in time.
    #[error("no answer from the scheduler within {} s", after.as_secs())]
    TimedOut {
        /// How long was waited.
        after: Duration,
    },
    /// The connection was lost after something was asked that must not be asked twice.
    #[error("the connection was lost before the scheduler answered: ask what became of it before asking again")]
    ConnectionLost,
    /// An answer of another type than the question calls for.
    #[error("expected {expected} as the answer, got {found}")]
    Unexpected {
        /// What was due.
        expected: &'static str,
        /// What came.
        found: &'static str,
    },
    /// What was asked for is not in the answer.
    #[error("there is no {what}")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// More than can be sent.
    #[error("the request is larger than any that can be sent")]
    TooLarge,
    /// The client was shut down.
    #[error("the client is closed")]
    Closed,
}

impl ClientError {
    /// The scheduler's code, if it refused.
    pub fn code(&self) -> Option<fb::ErrorCode> {
        match self {
            ClientError::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

fn refusal(code: fb::ErrorCode, message: &str, details: &str) -> String {
    let name = code.variant_name().unwrap_or("an error that this version does not know");
    match (message.is_empty(), details.is_empty()) {
        (true, _) => format!("the scheduler refused: {name}"),
        (false, true) => message.to_owned(),
        (false, false) => format!("{message} ({details})"),
    }
}
