//! What the facts say: the attempts that this agent holds, and the results not yet acknowledged.
//!
//! Invariant: changed by [`State::apply`] only, which the live core and the replay both call.

use crate::fact::{Fact, FactError, Kept};
use flatbuffers::FlatBufferBuilder;
use fleetwire_common::{
    custom::Custom,
    envelope::handshake::Proof,
    fb,
    ids::{AttemptId, JobKey, Position, TaskId},
    job::TaskSpec,
    message::Status,
    resources::Resources,
    time::Time,
};
use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

/// The durable half of the core.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    data_id: Option<[u8; 16]>,
    attempts: BTreeMap<AttemptId, Attempt>,
    /// Attempts that were ever kept.
    kept: u64,
    result_bytes: usize,
    receipt: Option<Proof>,
    last_at: Time,
}

/// One attempt that is held.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// What it takes while it runs.
    pub resources: Resources,
    /// What else it takes.
    pub custom: Custom,
    /// What runs it.
    pub executor: fb::Executor,
    /// Between SIGTERM and SIGKILL.
    pub kill_grace_ms: u32,
    /// Cluster time in ms after which it need not start; 0 = none.
    pub deadline_ms: u64,
    /// It ends when the scheduler has not been heard for so long; 0 = never.
    pub stop_on_disconnect_after_ms: u64,
    /// Which job has that number.
    pub job_key: JobKey,
    /// Its place in the order in which attempts were kept.
    pub order: u64,
    /// It may have processes, or have had some.
    pub handed_over: bool,
    /// What it runs, until it has ended; `None` for what the core ends itself, and if it was too large to be kept.
    pub spec: Option<Arc<TaskSpec>>,
    /// How it ended, until the scheduler has acknowledged it.
    pub result: Option<Box<Status>>,
}

/// Why a fact does not follow from those before it: the journal is not this agent's, or the code that
/// wrote it was wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The folder's id was given twice.
    #[error("the data folder got an id twice")]
    DataCreated,
    /// An attempt was kept twice.
    #[error("attempt {attempt} was kept twice")]
    Kept {
        /// Which.
        attempt: AttemptId,
    },
    /// An attempt was started that is not held, had not waited, or has ended.
    #[error("attempt {attempt} was started although it did not wait")]
    Started {
        /// Which.
        attempt: AttemptId,
    },
    /// A result for an attempt that is not held, or has one.
    #[error("attempt {attempt} has a result already, or is not held")]
    Result {
        /// Which.
        attempt: AttemptId,
    },
    /// An attempt was settled that is not held, or has no result.
    #[error("attempt {attempt} was settled without a result")]
    Settled {
        /// Which.
        attempt: AttemptId,
    },
}

/// Why a journal cannot be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The bytes are no fact of an agent.
    #[error("fact {position} of the journal: {error}", position = position.0)]
    Fact {
        /// Its place.
        position: Position,
        /// What is wrong with it.
        error: FactError,
    },
    /// The fact does not follow from those before it.
    #[error("fact {position} of the journal: {error}", position = position.0)]
    Apply {
        /// Its place.
        position: Position,
        /// What is wrong with it.
        error: ApplyError,
    },
}

impl State {
    /// Takes a fact of the journal from its bytes.
    pub fn apply_bytes(&mut self, position: Position, fact: &[u8]) -> Result<(), ReplayError> {
        let (at, fact) = Fact::decode(fact).map_err(|error| ReplayError::Fact { position, error })?;
        self.apply(at, &fact).map_err(|error| ReplayError::Apply { position, error })
    }

    /// The only place where durable state changes.
    pub fn apply(&mut self, at: Time, fact: &Fact<'_>) -> Result<(), ApplyError> {
        match fact {
            Fact::DataCreated { id, receipt } => match self.data_id {
                Some(_) => return Err(ApplyError::DataCreated),
                None => (self.data_id, self.receipt) = (Some(*id), *receipt),
            },
            Fact::AssignmentKept(kept) => self.keep(kept)?,
            Fact::AttemptStarted(id) => self.start(*id)?,
            Fact::ResultKept(status) => self.end(status)?,
            Fact::AttemptSettled(id) => self.settle(*id)?,
        }
        self.last_at = self.last_at.max(at);
        Ok(())
    }

    fn keep(&mut self, kept: &Kept) -> Result<(), ApplyError> {
        if self.attempts.contains_key(&kept.attempt) {
            return Err(ApplyError::Kept { attempt: kept.attempt });
        }
        let attempt = Attempt {
            resources: kept.resources,
            custom: kept.custom.clone(),
            executor: kept.executor,
            kill_grace_ms: kept.kill_grace_ms,
            deadline_ms: kept.deadline_ms,
            stop_on_disconnect_after_ms: kept.stop_on_disconnect_after_ms,
            job_key: kept.job_key,
            order: self.kept,
            handed_over: !kept.waits,
            spec: kept.spec.clone(),
            result: None,
        };
        self.kept += 1;
        self.attempts.insert(kept.attempt, attempt);
        let id = kept.incarnation_id.or(self.receipt.map(|proof| proof.incarnation_id));
        if let (Some(receipt), Some(incarnation_id)) = (kept.receipt, id) {
            self.receipt = Some(Proof { receipt, incarnation_id });
        }
        Ok(())
    }

    fn start(&mut self, id: AttemptId) -> Result<(), ApplyError> {
        let waits = |attempt: &&mut Attempt| !attempt.handed_over && attempt.result.is_none();
        let attempt = self.attempts.get_mut(&id).filter(waits).ok_or(ApplyError::Started { attempt: id })?;
        attempt.handed_over = true;
        Ok(())
    }

    fn end(&mut self, status: &Status) -> Result<(), ApplyError> {
        let wrong = ApplyError::Result { attempt: status.attempt };
        let attempt = self.attempts.get_mut(&status.attempt).ok_or(wrong.clone())?;
        if attempt.result.is_some() {
            return Err(wrong);
        }
        attempt.result = Some(Box::new(Status { job_key: attempt.job_key, ..status.clone() }));
        attempt.spec = None;
        self.result_bytes += result_bytes(status);
        Ok(())
    }

    fn settle(&mut self, id: AttemptId) -> Result<(), ApplyError> {
        let held = self.attempts.get(&id).and_then(|attempt| attempt.result.as_deref());
        let bytes = held.map(result_bytes).ok_or(ApplyError::Settled { attempt: id })?;
        self.attempts.remove(&id);
        self.result_bytes -= bytes;
        Ok(())
    }

    /// Writes everything down as facts that make the same when they are applied to nothing, for a snapshot of the
    /// journal; the first error of `emit` ends it.
    pub fn write_snapshot<X>(&self, emit: &mut dyn FnMut(&[u8]) -> Result<(), X>) -> Result<(), X> {
        let mut builder = FlatBufferBuilder::new();
        let mut write = |fact: Fact<'_>| emit(fact.encode(self.last_at, &mut builder));
        if let Some(id) = self.data_id {
            write(Fact::DataCreated { id, receipt: self.receipt })?;
        }
        let mut attempts: Vec<(&AttemptId, &Attempt)> = self.attempts.iter().collect();
        attempts.sort_unstable_by_key(|(_, held)| held.order);
        for (id, held) in attempts {
            write(Fact::AssignmentKept(held.kept(*id)))?;
            if let Some(result) = held.result.as_deref() {
                write(Fact::ResultKept(Cow::Borrowed(result)))?;
            }
        }
        Ok(())
    }

    /// The data folder's id; `None` before the first start.
    pub fn data_id(&self) -> Option<[u8; 16]> {
        self.data_id
    }

    /// Bytes of all results that are kept, as `result_bytes` counts them.
    pub fn result_bytes(&self) -> usize {
        self.result_bytes
    }

    /// The receipt of the latest assignment.
    pub fn receipt(&self) -> Option<Proof> {
        self.receipt
    }

    /// The time of the latest fact.
    pub fn last_at(&self) -> Time {
        self.last_at
    }

    /// Everything that is held, in the order of ids.
    pub fn attempts(&self) -> &BTreeMap<AttemptId, Attempt> {
        &self.attempts
    }

    /// One that is held.
    pub fn attempt(&self, id: AttemptId) -> Option<&Attempt> {
        self.attempts.get(&id)
    }

    /// The latest attempt of a task that is held.
    pub fn latest(&self, task: TaskId) -> Option<AttemptId> {
        let all = AttemptId { task, attempt: 0 }..=AttemptId { task, attempt: u32::MAX };
        self.attempts.range(all).next_back().map(|(id, _)| *id)
    }
}

impl Attempt {
    /// As a fact of a snapshot: without its receipt, of which only the latest counts.
    fn kept(&self, attempt: AttemptId) -> Kept {
        Kept {
            attempt,
            resources: self.resources,
            custom: self.custom.clone(),
            executor: self.executor,
            kill_grace_ms: self.kill_grace_ms,
            deadline_ms: self.deadline_ms,
            stop_on_disconnect_after_ms: self.stop_on_disconnect_after_ms,
            receipt: None,
            incarnation_id: None,
            waits: !self.handed_over,
            spec: self.spec.clone(),
            job_key: self.job_key,
        }
    }
}

/// What keeping or sending a result costs, in bytes: an estimate that never falls below its content.
pub fn result_bytes(status: &Status) -> usize {
    let end = status.end.as_deref();
    let result = end.and_then(|end| end.result.as_ref()).map_or(0, Vec::len);
    let texts = status.note.len() + end.map_or(0, |end| end.message.len());
    128 + result + texts + status.metrics.len() * 48
}
