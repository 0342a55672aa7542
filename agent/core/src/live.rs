//! What facts do not say: the session, what runs, and what is under way. Empty at start.

use crate::{backlog::Backlog, limits::OVERTAKEN_MAX};
use fleetwire_common::{envelope::handshake::Proof, fb, ids::AttemptId, resources::Resources, time::Time};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// The volatile half of the core.
#[derive(Debug)]
pub struct Live {
    pub(crate) session: Session,
    pub(crate) runs: BTreeMap<AttemptId, Run>,
    pub(crate) backlog: Backlog,
    /// Attempts of before the restart of which the executor has said nothing yet.
    pub(crate) unsurveyed: BTreeSet<AttemptId>,
    /// On the device's clock: when the last message was sent that the scheduler has answered.
    pub(crate) heard: Option<Time>,
    /// It is known what runs: what waits may start.
    pub(crate) surveyed: bool,
    /// When an attempt wants attention: a report that was held back, a result to offer again.
    pub(crate) due: BTreeSet<(Time, AttemptId)>,
    pub(crate) outgoing: Outgoing,
    /// Attempts that this session cancelled and that were not here: a cancellation can overtake its
    /// assignment, which may come in pieces on a stream of its own. At most [`OVERTAKEN_MAX`].
    pub(crate) overtaken: BTreeSet<AttemptId>,
    pub(crate) usage: Resources,
    /// Cluster time less the own clock, µs; `None` before the first session.
    pub(crate) offset_us: Option<i64>,
    pub(crate) receipt: Option<Proof>,
    /// The receipt of the session's `Welcome`, until that scheduler has taken us in.
    pub(crate) offered: Option<Proof>,
    /// The id of the incarnation that the session is with.
    pub(crate) incarnation_id: Option<[u8; 16]>,
    pub(crate) heartbeat_interval: Duration,
}

/// Where the session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// There is none.
    Offline,
    /// `Register` was sent; its answer is due by then.
    Registering {
        /// When it was sent.
        registered_at: Time,
        /// When to give up.
        until: Time,
    },
    /// Work can come.
    Ready {
        /// When the next heartbeat is due.
        next_beat: Time,
        /// Heartbeats sent in this session.
        beats: u32,
        /// Every how many heartbeats one is answered.
        answer_every: u16,
        /// Heartbeats in a row that wanted an answer and got none.
        unanswered: u32,
    },
}

/// An attempt without a result.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    /// Its process was seen.
    pub started: bool,
    /// Cluster time, ms; 0 = not known.
    pub started_at_ms: u64,
    pub progress: f32,
    pub note: String,
    pub metrics: Vec<(Arc<str>, f64)>,
    /// When its status was last sent.
    pub reported_at: Time,
    /// Its entry in `due`.
    pub due_at: Option<Time>,
    /// It is being stopped, for this reason.
    pub stop: Option<fb::EndReason>,
}

/// Final statuses on their way to the scheduler: a window, so that a thousand results that gathered
/// while the network was away do not overflow the session's queue.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// Not sent in this session.
    pub waiting: BTreeSet<AttemptId>,
    /// Sent and not yet acknowledged, with their bytes.
    pub sent: BTreeMap<AttemptId, usize>,
    /// Sum over `sent`.
    pub bytes: usize,
}

impl Live {
    pub(crate) fn new(heartbeat_interval: Duration) -> Live {
        Live {
            session: Session::Offline,
            runs: BTreeMap::new(),
            backlog: Backlog::default(),
            unsurveyed: BTreeSet::new(),
            heard: None,
            surveyed: false,
            due: BTreeSet::new(),
            outgoing: Outgoing::default(),
            overtaken: BTreeSet::new(),
            usage: Resources::ZERO,
            offset_us: None,
            receipt: None,
            offered: None,
            incarnation_id: None,
            heartbeat_interval,
        }
    }

    /// Where the session stands.
    pub fn session(&self) -> Session {
        self.session
    }

    /// Whether reports and results can be sent.
    pub fn is_ready(&self) -> bool {
        matches!(self.session, Session::Ready { .. })
    }

    /// On the device's clock: when the last `Register` or heartbeat was sent that the scheduler has answered. What
    /// stops when the scheduler is not heard counts from here.
    pub fn heard(&self) -> Option<Time> {
        self.heard
    }

    /// What runs takes together.
    pub fn used(&self) -> Resources {
        self.backlog.used()
    }

    /// Attempts that run: what waits for room is not counted.
    pub fn running(&self) -> u32 {
        self.backlog.running()
    }

    /// Attempts that wait for room.
    pub fn waiting(&self) -> usize {
        self.backlog.len()
    }

    /// Remembers for this session that an attempt is not to be started should its assignment still come.
    /// Beyond the bound the attempt of the oldest job is forgotten: its assignment is the least likely to come.
    pub(crate) fn note_overtaken(&mut self, attempt: AttemptId) {
        self.overtaken.insert(attempt);
        if self.overtaken.len() > OVERTAKEN_MAX {
            self.overtaken.pop_first();
        }
    }

    /// Cluster time, as far as it is known.
    pub(crate) fn cluster_time(&self, now: Time) -> Option<Time> {
        self.offset_us.map(|offset| Time(now.0.saturating_add_signed(offset)))
    }
}

impl Outgoing {
    pub(crate) fn forget(&mut self, id: AttemptId) {
        self.waiting.remove(&id);
        if let Some(bytes) = self.sent.remove(&id) {
            self.bytes -= bytes;
        }
    }
}
