//! Why a link ended, in words that both programs and people can use.

use crate::{frames::FrameError, limits::REASON_BYTES_MAX};
use fleetwire_common::fb::ErrorCode;
use quinn::{ConnectionError, VarInt};

/// Why a link ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkClosed {
    /// The peer closed it, and said why.
    #[error("closed by the peer: {reason} ({code:?})")]
    ByPeer {
        /// Why, for programs. `None` is an orderly end.
        code: ErrorCode,
        /// Why, for people.
        reason: String,
    },
    /// We closed it.
    #[error("closed: {reason} ({code:?})")]
    ByUs {
        /// The code that the peer was told.
        code: ErrorCode,
        /// The reason that the peer was told.
        reason: String,
    },
    /// Nothing was heard for the idle timeout.
    #[error("nothing was heard from the peer for the idle timeout")]
    Silent,
    /// The peer does not know the connection any more; it was started again.
    #[error("the peer does not know the connection any more")]
    Reset,
    /// TLS ended it: `alert` is a TLS alert description (RFC 8446 section 6).
    #[error("TLS alert {alert}: {reason}")]
    Tls {
        /// The alert's number.
        alert: u8,
        /// What the transport says.
        reason: String,
    },
    /// Frames that cannot be taken; the peer was told so.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// QUIC itself failed.
    #[error("transport: {what}")]
    Transport {
        /// What the transport says.
        what: String,
    },
}

impl LinkClosed {
    /// The code for programs.
    pub fn code(&self) -> ErrorCode {
        match self {
            LinkClosed::ByPeer { code, .. } | LinkClosed::ByUs { code, .. } => *code,
            LinkClosed::Silent => ErrorCode::MessageTimeout,
            LinkClosed::Tls { .. } => ErrorCode::Authorization,
            LinkClosed::Frame(error) => error.code(),
            LinkClosed::Reset | LinkClosed::Transport { .. } => ErrorCode::None,
        }
    }

    /// Reads it from the transport's own error.
    pub(crate) fn from_transport(error: ConnectionError) -> LinkClosed {
        match error {
            ConnectionError::ApplicationClosed(close) => LinkClosed::ByPeer {
                code: u16::try_from(close.error_code.into_inner()).map_or(ErrorCode::Internal, ErrorCode),
                reason: clean(&close.reason),
            },
            ConnectionError::LocallyClosed => {
                LinkClosed::ByUs { code: ErrorCode::None, reason: "the connection was closed here".into() }
            }
            ConnectionError::TimedOut => LinkClosed::Silent,
            ConnectionError::Reset => LinkClosed::Reset,
            ConnectionError::ConnectionClosed(close) => {
                Self::of_code(u64::from(close.error_code), clean(&close.reason), || close.to_string())
            }
            ConnectionError::TransportError(error) => {
                Self::of_code(u64::from(error.code), clean(error.reason.as_bytes()), || error.to_string())
            }
            other => LinkClosed::Transport { what: other.to_string() },
        }
    }

    /// QUIC carries TLS alerts as 0x100 + alert (RFC 9001 section 4.8).
    fn of_code(code: u64, reason: String, what: impl FnOnce() -> String) -> LinkClosed {
        match code.checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok()) {
            Some(alert) => LinkClosed::Tls { alert, reason },
            None => LinkClosed::Transport { what: clean(what().as_bytes()) },
        }
    }
}

// §transport-4
/// The transport's form of a code.
pub(crate) fn close_code(code: ErrorCode) -> VarInt {
    VarInt::from_u32(u32::from(code.0))
}

/// A reason as it is sent: at most [`REASON_BYTES_MAX`] bytes, cut between characters.
pub(crate) fn cut_reason(reason: &str) -> &str {
    reason.get(..reason.floor_char_boundary(REASON_BYTES_MAX)).unwrap_or(reason)
}

/// A peer's words, fit for a log: bounded, and without control characters.
fn clean(reason: &[u8]) -> String {
    let text = String::from_utf8_lossy(reason.get(..REASON_BYTES_MAX).unwrap_or(reason));
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_words_are_bounded_and_cannot_write_into_a_terminal() {
        let shown = clean("\u{1b}[31mred\n".repeat(100).as_bytes());
        assert!(shown.len() <= REASON_BYTES_MAX && !shown.chars().any(char::is_control));
        assert_eq!(cut_reason(&"ä".repeat(200)).len(), REASON_BYTES_MAX);
    }
}
