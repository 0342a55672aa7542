//! The agent's decisions: its session, its runs, its results. Pure: time is an argument, the world is
//! events in and effects out, and the journal holds what must not be forgotten.
//!
//! Invariants: an attempt is accepted, and started, only after its assignment is durable; a result is
//! sent only after it is durable, and forgotten only after the scheduler has said that it may be; what
//! runs together never takes more than the capacity; [`Agent::handle`] is the only way in and
//! [`Effects`] the only way out.
//!
//! Floors, from below: `limits`, `spec` → `fact` → `event`, `state`, `backlog`, `live`, `admission` → `sessions`,
//! `runs`, `results`, `restart` → this file.
#![forbid(unsafe_code)]

mod admission;
mod backlog;
mod event;
mod fact;
mod limits;
mod live;
mod restart;
mod results;
mod runs;
mod sessions;
mod spec;
mod state;
#[cfg(test)]
mod stories;

pub use event::{Effect, Effects, Event, Recovered, RunEvent};
pub use fact::{Fact, FactError, Kept};
pub use live::{Live, Session};
pub use state::{ApplyError, Attempt, ReplayError, State};

use fleetwire_common::{
    custom::Custom,
    envelope::handshake::Proof,
    fb,
    ids::{AttemptId, JobKey, Name, Position},
    resources::Resources,
    time::Time,
};
use std::time::Duration;

/// What an agent is told of itself when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name in the cluster.
    pub name: Name,
    /// What attempts may take together.
    pub capacity: Resources,
    /// What else it offers.
    pub custom: Custom,
    /// Labels that constraints are matched against.
    pub labels: Vec<(String, String)>,
    /// The kinds of work it takes.
    pub agent_types: Vec<fb::AgentType>,
    /// The executors it has.
    pub executors: Vec<fb::Executor>,
    /// 16 random bytes: the data folder's id, unless its journal has one already.
    pub data_id: [u8; 16],
    /// Its software and version.
    pub software: String,
    /// The machine, for people.
    pub host: String,
    /// Where others reach its tasks; empty = where its sessions come from.
    pub address: String,
    /// Between heartbeats, until the scheduler says otherwise.
    pub heartbeat_interval: Duration,
}

/// The agent's core.
pub struct Agent {
    config: Config,
    state: State,
    live: Live,
    position: Position,
    builder: flatbuffers::FlatBufferBuilder<'static>,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("name", &self.config.name)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl Agent {
    /// An agent that holds nothing.
    pub fn new(config: Config) -> Agent {
        Agent {
            live: Live::new(config.heartbeat_interval),
            config,
            state: State::default(),
            position: Position(0),
            builder: flatbuffers::FlatBufferBuilder::new(),
        }
    }

    /// Takes one fact from the journal: all of them, in order, before [`Agent::start`]. Those of a snapshot have the
    /// snapshot's position.
    pub fn replay(&mut self, position: Position, fact: &[u8]) -> Result<(), ReplayError> {
        self.state.apply_bytes(position, fact)?;
        self.position = position;
        Ok(())
    }

    /// Begins, after the replay. What the executor finds comes as [`Event::Recovered`], and then
    /// [`Event::Surveyed`], before the first session.
    pub fn start(&mut self, now: Time, effects: &mut Effects) {
        effects.position = self.position;
        if self.state.data_id().is_none() {
            self.decide(now, &Fact::DataCreated { id: self.config.data_id, receipt: None }, effects);
        }
        self.hold_unresolved();
    }

    /// The only way in. `now` is the device's boot-time clock, µs, which goes on in suspend.
    pub fn handle(&mut self, now: Time, event: Event<'_>, effects: &mut Effects) {
        effects.position = self.position;
        match event {
            Event::Connected { welcome } => self.on_connected(now, &welcome, effects),
            Event::Received { message, timestamp_ms } => self.on_message(now, message, timestamp_ms, effects),
            Event::Disconnected => self.on_disconnected(),
            Event::Usage(usage) => self.live.usage = usage,
            Event::Run(event) => self.on_run(now, event, effects),
            Event::Recovered { attempt, state } => self.on_recovered(now, attempt, state, effects),
            Event::Surveyed { rebooted } => self.on_surveyed(now, rebooted, effects),
            Event::Stopping { reason } => self.on_stopping(reason, effects),
            Event::Deadline => self.on_deadline(now, effects),
        }
    }

    /// When [`Event::Deadline`] is due next, on the clock of `now`.
    pub fn next_deadline(&self) -> Option<Time> {
        let session = match self.live.session {
            Session::Offline => return None,
            Session::Registering { until, .. } => until,
            Session::Ready { next_beat, .. } => next_beat,
        };
        let due = self.live.due.first().map(|(at, _)| *at).filter(|_| self.live.is_ready());
        Some(due.map_or(session, |due| due.min(session)))
    }

    /// When the next heartbeat is due: the moment for a [`Event::Usage`].
    pub fn next_heartbeat(&self) -> Option<Time> {
        match self.live.session {
            Session::Ready { next_beat, .. } => Some(next_beat),
            Session::Offline | Session::Registering { .. } => None,
        }
    }

    /// When an attempt is to end unless the scheduler is heard, counted from [`Live::heard`]; `None` = never.
    pub fn stops_unheard_after(&self, attempt: AttemptId) -> Option<Duration> {
        let after_ms = self.state.attempt(attempt)?.stop_on_disconnect_after_ms;
        (after_ms > 0).then(|| Duration::from_millis(after_ms))
    }

    /// Which job an attempt is of; 0 = not known.
    pub fn job_key(&self, attempt: AttemptId) -> JobKey {
        self.state.attempt(attempt).map_or(JobKey::default(), |held| held.job_key)
    }

    /// Whether anything that has not ended does so when the scheduler is not heard.
    pub fn stops_unheard(&self) -> bool {
        self.unresolved().any(|attempt| self.stops_unheard_after(attempt).is_some())
    }

    /// How many facts were decided so far.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The receipt to return in `Hello`: of the latest assignment, or of the `Welcome` of the latest session in which we
    /// were registered.
    pub fn receipt(&self) -> Option<Proof> {
        self.live.receipt.or(self.state.receipt())
    }

    /// What must be added to the clock of `now` for cluster time, µs. `None` before the first session.
    pub fn cluster_offset_us(&self) -> Option<i64> {
        self.live.offset_us
    }

    /// The data folder's id.
    pub fn data_id(&self) -> [u8; 16] {
        self.state.data_id().unwrap_or(self.config.data_id)
    }

    /// Attempts that were taken on and have no result.
    pub fn unresolved(&self) -> impl Iterator<Item = AttemptId> + '_ {
        self.state.attempts().iter().filter(|(_, attempt)| attempt.result.is_none()).map(|(id, _)| *id)
    }

    /// What facts say.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What they do not say.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Decides a fact: writes it down and applies it, in one step.
    fn decide(&mut self, now: Time, fact: &Fact<'_>, effects: &mut Effects) {
        // The clock of `now` starts anew at each boot, so facts bear cluster time, and before the first
        // session of a process the time of the fact before.
        let at = self.live.cluster_time(now).unwrap_or_default().max(self.state.last_at());
        effects.facts.push(fact.encode(at, &mut self.builder));
        let applied = self.state.apply(at, fact);
        assert!(applied.is_ok(), "the core decided what cannot be: {applied:?}");
        self.position.0 += 1;
        effects.position = self.position;
    }
}
