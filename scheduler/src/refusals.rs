//! What was refused since this process began, counted by class: for whoever watches a scheduler.
//!
//! Invariant: each class of [`OpenError`] has its counter, at its own place; nothing is kept per peer.

use fleetwire_common::envelope::{OpenError, handshake::HandshakeError};
use fleetwire_link::{AcceptError, FrameError, LinkClosed};
use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

/// The counters; shared by all who open frames.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    classes: [AtomicU64; OpenError::CLASSES.len()],
    sessions: AtomicU64,
}

impl Refusals {
    /// A frame, or an item of a batch, was refused.
    pub fn count(&self, error: &OpenError) {
        if let Some(class) = self.classes.get(error.class()) {
            class.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A session was ended for what was refused in it.
    pub fn count_session(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection came to nothing, maybe for its first frame.
    pub fn count_accept(&self, error: &AcceptError) {
        match error {
            AcceptError::Hello { error: HandshakeError::Open(error), .. } => self.count(error),
            AcceptError::Closed(closed) => self.count_closed(closed),
            _ => {}
        }
    }

    /// A session ended, maybe for what is no frame.
    pub fn count_closed(&self, closed: &LinkClosed) {
        let size = |found: u64| usize::try_from(found).unwrap_or(usize::MAX);
        let error = match closed {
            LinkClosed::Frame(FrameError::TooLong { found, max }) => {
                OpenError::TooLong { found: size(*found), max: *max }
            }
            LinkClosed::Frame(FrameError::TooShort { found }) => OpenError::TooShort { found: size(*found) },
            _ => return,
        };
        self.count(&error);
        self.count_session();
    }

    /// Them all, in Prometheus's text format, and how many sessions are open.
    pub fn to_text(&self, sessions: usize) -> String {
        let mut text = String::with_capacity(TEXT_BYTES);
        let head = |name: &str, kind: &str, help: &str| format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        text +=
            &head(REFUSED, "counter", "Frames and items of batches that were refused, by what was wrong with them.");
        for (class, count) in OpenError::CLASSES.iter().zip(&self.classes) {
            let _ = writeln!(text, "{REFUSED}{{class=\"{class}\"}} {}", count.load(Ordering::Relaxed));
        }
        text += &head(ENDED, "counter", "Sessions that were ended for what was refused in them.");
        let _ = writeln!(text, "{ENDED} {}", self.sessions.load(Ordering::Relaxed));
        text += &head(SESSIONS, "gauge", "Sessions that are open.");
        let _ = writeln!(text, "{SESSIONS} {sessions}");
        text
    }
}

const REFUSED: &str = "fleetwire_refused_total";
const ENDED: &str = "fleetwire_sessions_ended_for_refusals_total";
const SESSIONS: &str = "fleetwire_sessions";
/// About as much as there is to say.
const TEXT_BYTES: usize = 2 << 10;
