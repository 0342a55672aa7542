//! What comes into the core and what goes out of it.
//!
//! Events borrow what they carry: the core copies only what it keeps. Every effect bears the journal
//! position of all facts decided before it, and the shell releases it once that position is durable.

use fleetwire_common::{
    envelope::handshake::WelcomeInfo,
    facts::FactBatch,
    fb,
    ids::{AttemptId, JobKey, Position},
    job::TaskSpec,
    message::{End, Message, MessageRef},
    resources::Resources,
};
use std::{sync::Arc, time::Duration};

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A session was agreed on. `welcome.cluster_time` is the cluster's time *now*: the shell has added
    /// half of the round trip.
    Connected {
        /// What the scheduler said.
        welcome: WelcomeInfo,
    },
    /// A message of the session that is connected.
    Received {
        /// The verified message.
        message: MessageRef<'a>,
        /// Cluster time at which its envelope was sealed, ms.
        timestamp_ms: u64,
    },
    /// The session ended.
    Disconnected,
    /// What the operating system says is in use, for the next heartbeat.
    Usage(Resources),
    /// News of an attempt's process.
    Run(RunEvent<'a>),
    /// What the executor found of an attempt after a restart of the agent.
    Recovered {
        /// The attempt.
        attempt: AttemptId,
        /// What became of it.
        state: Recovered,
    },
    /// After a restart: all that the executor found was told. What was not, was never seen to start here. Comes
    /// once, before the first session.
    Surveyed {
        /// The device was started anew since anything was run: what did run then may have left no trace.
        rebooted: bool,
    },
    /// The agent is about to exit and says goodbye.
    Stopping {
        /// Why, for people.
        reason: &'a str,
    },
    /// What is due at `now` is to be done; only after all events that had arrived.
    Deadline,
}

/// News of an attempt's process.
#[derive(Debug)]
pub enum RunEvent<'a> {
    /// Its process runs.
    Started {
        /// The attempt.
        attempt: AttemptId,
        /// Cluster time at which it started, ms.
        at_ms: u64,
    },
    /// The task said how it fares. What is absent or empty is as it was.
    Report {
        /// The attempt.
        attempt: AttemptId,
        /// 0.0 to 1.0; anything else is refused and noted.
        progress: Option<f32>,
        /// The task's own words; cut to the limit.
        note: &'a str,
        /// Names and values; those that are not finite are refused and noted.
        metrics: &'a [(String, f64)],
    },
    /// A staged attempt was started on [`Effect::StartStaged`].
    StagedStarted {
        /// The attempt.
        attempt: AttemptId,
    },
    /// Its last process is gone, or none could be started.
    Ended {
        /// The attempt.
        attempt: AttemptId,
        /// A final status.
        status: fb::TaskStatus,
        /// How it ended.
        end: End,
        /// The staged attempt that was started in its room.
        next: Option<AttemptId>,
    },
}

/// What became of an attempt while the agent was not there.
#[derive(Debug)]
pub enum Recovered {
    /// It still runs, under its supervisor.
    Running,
    /// It ended, and its supervisor wrote down how.
    Ended {
        /// A final status.
        status: fb::TaskStatus,
        /// How it ended.
        end: End,
    },
}

/// Something that the shell is to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send it in the session of that moment; dies with it.
    Send(Message),
    /// Start the attempt. Its assignment is durable by the time this is released.
    Spawn {
        /// Which attempt.
        attempt: AttemptId,
        /// What to run.
        assignment: Arc<TaskSpec>,
        /// Cluster time in ms after which it need not start; 0 = none.
        deadline_ms: u64,
    },
    /// Start the attempt as soon as another that runs has ended, in its room; staged ones in their order.
    Stage {
        /// Which attempt.
        attempt: AttemptId,
        /// What to run.
        assignment: Arc<TaskSpec>,
    },
    /// Room is free although attempts are staged: one ended before the executor knew of them. Start the first of
    /// them, unless all have started.
    StartStaged,
    /// Take a staged attempt back; if it has not started it ends as [`fb::EndReason::Released`].
    Unstage {
        /// Which attempt.
        attempt: AttemptId,
    },
    /// Stop the attempt: SIGTERM, then after the grace SIGKILL, to every process of it.
    Cancel {
        /// Which attempt.
        attempt: AttemptId,
        /// Between the two signals.
        grace: Duration,
    },
    /// Read a piece of an attempt's output and answer with a `LogChunk` or a `Nack` on a bulk stream.
    ReadLog {
        /// The number that the answer bears.
        request: u64,
        /// Which attempt.
        attempt: AttemptId,
        /// Which output.
        stream: fb::LogStream,
        /// Of the first byte.
        offset: u64,
        /// Bytes at most.
        limit: u32,
        /// Which job has that number.
        job_key: JobKey,
    },
    /// The scheduler has the attempt's result: its slot may be used again.
    Settled {
        /// Which attempt.
        attempt: AttemptId,
    },
    /// End the session; the shell connects anew.
    Close {
        /// Why, for people.
        reason: String,
    },
}

/// What the core decided: facts for the journal, and effects tagged with their position.
#[derive(Debug, Default)]
pub struct Effects {
    /// Facts in the order in which they were decided.
    pub facts: FactBatch,
    pub(crate) position: Position,
    queue: Vec<(Position, Effect)>,
}

impl Effects {
    /// Nothing yet.
    pub fn new() -> Effects {
        Effects::default()
    }

    /// Adds an effect, to be released once everything decided so far is durable.
    pub fn push(&mut self, effect: Effect) {
        self.queue.push((self.position, effect));
    }

    /// Takes the effects, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = (Position, Effect)> + '_ {
        self.queue.drain(..)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.facts.is_empty()
    }
}
