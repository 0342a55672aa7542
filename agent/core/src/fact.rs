//! The agent's facts: what it was assigned, and every result not yet acknowledged.
//!
//! The live core and the replay apply the same [`Fact`]. An assignment's fact keeps what is needed to
//! account for the attempt, to stop it, and to start it after a restart without the scheduler; of one with
//! large files only the former, because those would wear the flash (it is reported lost then, and assigned
//! anew).

use crate::{limits::SPEC_KEPT_BYTES_MAX, spec::spec_of};
use flatbuffers::{FlatBufferBuilder, WIPOffset};
use fleetwire_common::{
    custom::Custom,
    envelope::handshake::Proof,
    fb,
    ids::{AttemptId, JobKey, TaskIdError},
    job::TaskSpec,
    message::{Assignment, End, Status, attempt_id, write_task_id},
    resources::Resources,
    time::Time,
    verified,
};
use std::{borrow::Cow, sync::Arc};

/// Something decided.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact<'a> {
    /// The data folder got its id.
    DataCreated {
        /// 16 random bytes.
        id: [u8; 16],
        /// In a snapshot: the receipt of the latest assignment.
        receipt: Option<Proof>,
    },
    /// An assignment was taken on.
    AssignmentKept(Kept),
    /// An attempt that had waited for room may have processes from here on.
    AttemptStarted(AttemptId),
    /// An attempt ended: its last process is gone.
    ResultKept(Cow<'a, Status>),
    /// The scheduler has the result, or never wants it: the attempt is forgotten.
    AttemptSettled(AttemptId),
}

/// What is kept of an assignment.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Which attempt.
    pub attempt: AttemptId,
    /// What it takes until its last process is gone.
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
    /// Proof of the scheduler's position.
    pub receipt: Option<fb::Receipt>,
    /// It waits for room. What does not wait may have processes as soon as this is durable.
    pub waits: bool,
    /// What is to be run; `None` for what the core ends itself, and for what is too large to be kept.
    pub spec: Option<Arc<TaskSpec>>,
    /// The random id of the incarnation that made it; `None` = that of the one before.
    pub incarnation_id: Option<[u8; 16]>,
    /// Which job has that number.
    pub job_key: JobKey,
}

/// Why bytes are no fact of an agent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FactError {
    /// No FlatBuffer with a `FactRecord`.
    #[error("the fact cannot be read: {0}")]
    Unreadable(String),
    /// A fact of another kind of journal, or of a newer version.
    #[error("a fact of type {found:?}, which an agent's journal does not hold")]
    Kind {
        /// What came.
        found: fb::FactBody,
    },
    /// A task id that is none.
    #[error("{0}")]
    TaskId(#[from] TaskIdError),
    /// A field that is absent or of the wrong size.
    #[error("{0} is absent or of the wrong size")]
    Field(&'static str),
}

impl<'a> Fact<'a> {
    /// Writes it as a `FactRecord` and returns its bytes.
    pub fn encode<'b>(&self, at: Time, builder: &'b mut FlatBufferBuilder<'static>) -> &'b [u8] {
        builder.reset();
        let (fact_type, fact) = match self {
            Fact::DataCreated { id, receipt } => {
                let incarnation_id = receipt.map(|proof| builder.create_vector(&proof.incarnation_id));
                let (id, receipt) = (Some(builder.create_vector(id)), receipt.map(|proof| proof.receipt));
                let args = fb::DataCreatedArgs { id, receipt: receipt.as_ref(), incarnation_id };
                let table = fb::DataCreated::create(builder, &args);
                (fb::FactBody::DataCreated, table.as_union_value())
            }
            Fact::AssignmentKept(kept) => {
                let incarnation_id = kept.incarnation_id.map(|id| builder.create_vector(&id));
                let assignment = Some(kept.write(builder));
                let args = fb::AssignmentKeptArgs { assignment, waits: kept.waits, incarnation_id };
                let table = fb::AssignmentKept::create(builder, &args);
                (fb::FactBody::AssignmentKept, table.as_union_value())
            }
            Fact::ResultKept(status) => {
                let update = Some(write_status(builder, status));
                let table = fb::ResultKept::create(builder, &fb::ResultKeptArgs { update });
                (fb::FactBody::ResultKept, table.as_union_value())
            }
            Fact::AttemptSettled(id) => {
                let task_id = Some(write_task_id(builder, id.task));
                let args = fb::AttemptSettledArgs { task_id, attempt: id.attempt };
                (fb::FactBody::AttemptSettled, fb::AttemptSettled::create(builder, &args).as_union_value())
            }
            Fact::AttemptStarted(id) => {
                let task_id = Some(write_task_id(builder, id.task));
                let args = fb::AttemptStartedArgs { task_id, attempt: id.attempt };
                (fb::FactBody::AttemptStarted, fb::AttemptStarted::create(builder, &args).as_union_value())
            }
        };
        let args = fb::FactRecordArgs { at: at.0, fact_type, fact: Some(fact) };
        let root = fb::FactRecord::create(builder, &args);
        builder.finish_minimal(root);
        builder.finished_data()
    }

    /// Reads a `FactRecord`.
    pub fn decode(bytes: &[u8]) -> Result<(Time, Fact<'static>), FactError> {
        let record = verified::fact_record(bytes).map_err(|error| FactError::Unreadable(error.to_string()))?;
        let at = Time(record.at());
        if let Some(created) = record.fact_as_data_created() {
            let id = created.id().and_then(|id| id.bytes().try_into().ok()).ok_or(FactError::Field("id"))?;
            let incarnation_id = created.incarnation_id().and_then(|id| id.bytes().try_into().ok());
            let receipt = created.receipt().zip(incarnation_id);
            let receipt = receipt.map(|(receipt, incarnation_id)| Proof { receipt: *receipt, incarnation_id });
            return Ok((at, Fact::DataCreated { id, receipt }));
        }
        if let Some(kept) = record.fact_as_assignment_kept() {
            let assignment = kept.assignment().ok_or(FactError::Field("assignment"))?;
            let spec = spec_of(assignment, Resources::from_wire(assignment.resources())).ok();
            let incarnation_id = kept.incarnation_id().and_then(|id| id.bytes().try_into().ok());
            let kept = Kept { incarnation_id, ..Kept::from_wire(assignment, kept.waits(), spec)? };
            return Ok((at, Fact::AssignmentKept(kept)));
        }
        if let Some(kept) = record.fact_as_result_kept() {
            let update = kept.update().ok_or(FactError::Field("update"))?;
            return Ok((at, Fact::ResultKept(Cow::Owned(read_status(update)?))));
        }
        if let Some(settled) = record.fact_as_attempt_settled() {
            return Ok((at, Fact::AttemptSettled(attempt_id(settled.task_id(), settled.attempt())?)));
        }
        if let Some(started) = record.fact_as_attempt_started() {
            return Ok((at, Fact::AttemptStarted(attempt_id(started.task_id(), started.attempt())?)));
        }
        Err(FactError::Kind { found: record.fact_type() })
    }
}

impl Kept {
    /// What is kept of the wire's table, which says to run `spec`.
    pub fn from_wire(
        assignment: fb::TaskAssignment<'_>,
        waits: bool,
        spec: Option<Arc<TaskSpec>>,
    ) -> Result<Kept, TaskIdError> {
        let small = |spec: &Arc<TaskSpec>| spec.executor != fb::Executor::Noop && spec.bytes() <= SPEC_KEPT_BYTES_MAX;
        Ok(Kept {
            attempt: attempt_id(assignment.task_id(), assignment.attempt())?,
            resources: Resources::from_wire(assignment.resources()),
            custom: Custom::from_wire(assignment.resources()).unwrap_or_default(),
            executor: assignment.executor(),
            kill_grace_ms: assignment.kill_grace_ms(),
            deadline_ms: assignment.deadline(),
            stop_on_disconnect_after_ms: assignment.stop_on_disconnect_after_ms(),
            receipt: assignment.receipt().copied().filter(|receipt| receipt.incarnation() != 0),
            incarnation_id: None,
            waits,
            spec: spec.filter(small),
            job_key: JobKey(assignment.job_key()),
        })
    }

    fn write(&self, builder: &mut FlatBufferBuilder<'static>) -> WIPOffset<fb::TaskAssignment<'static>> {
        if let Some(spec) = &self.spec {
            let assignment = Assignment {
                attempt: self.attempt,
                spec: Arc::clone(spec),
                receipt: self.receipt.unwrap_or_default(),
                deadline_ms: self.deadline_ms,
                stop_on_disconnect_after_ms: self.stop_on_disconnect_after_ms,
                job_key: self.job_key,
            };
            return assignment.write(builder);
        }
        let task_id = Some(write_task_id(builder, self.attempt.task));
        let resources = Some(self.resources.to_wire_with(&self.custom).pack(builder));
        let args = fb::TaskAssignmentArgs {
            task_id,
            resources,
            attempt: self.attempt.attempt,
            executor: self.executor,
            kill_grace_ms: self.kill_grace_ms,
            deadline: self.deadline_ms,
            stop_on_disconnect_after_ms: self.stop_on_disconnect_after_ms,
            receipt: self.receipt.as_ref(),
            job_key: self.job_key.0,
            ..Default::default()
        };
        fb::TaskAssignment::create(builder, &args)
    }
}

/// Metric names in full: a journal has no session in which numbers could have been agreed on.
fn write_status(builder: &mut FlatBufferBuilder<'static>, status: &Status) -> WIPOffset<fb::StatusUpdate<'static>> {
    let task_id = Some(write_task_id(builder, status.attempt.task));
    let note = (!status.note.is_empty()).then(|| builder.create_string(&status.note));
    let end = status.end.as_ref().map(|end| end.write(builder));
    let metrics = (!status.metrics.is_empty()).then(|| {
        let metric = |(name, value): &(Arc<str>, f64)| {
            let name = Some(builder.create_string(name));
            fb::Metric::create(builder, &fb::MetricArgs { name, value: *value })
        };
        let metrics: Vec<_> = status.metrics.iter().map(metric).collect();
        builder.create_vector(&metrics)
    });
    let args = fb::StatusUpdateArgs {
        task_id,
        status: status.status,
        progress: status.progress,
        metrics,
        attempt: status.attempt.attempt,
        note,
        end,
        ..Default::default()
    };
    fb::StatusUpdate::create(builder, &args)
}

fn read_status(update: fb::StatusUpdate<'_>) -> Result<Status, FactError> {
    let metric = |metric: fb::Metric<'_>| (metric.name().unwrap_or_default().into(), metric.value());
    Ok(Status {
        attempt: attempt_id(update.task_id(), update.attempt())?,
        status: update.status(),
        progress: update.progress(),
        note: update.note().unwrap_or_default().to_owned(),
        metrics: update.metrics().into_iter().flatten().map(metric).collect(),
        end: update.end().map(|end| Box::new(End::from_wire(end))),
        // Its assignment has it.
        job_key: JobKey::default(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use fleetwire_common::ids::{JobId, TaskId};

    fn attempt() -> AttemptId {
        AttemptId { task: TaskId { job: JobId(7), entry: 1, index: 42 }, attempt: 3 }
    }

    #[test]
    fn every_fact_survives_its_bytes() {
        let end = End { exit_code: 3, result: Some(vec![1, 2]), message: "m".into(), ..End::default() };
        let status = Status {
            attempt: attempt(),
            status: fb::TaskStatus::TimedOut,
            progress: 0.5,
            note: "note".into(),
            metrics: vec![("loss".into(), 0.25)],
            end: Some(Box::new(end)),
            job_key: JobKey::default(),
        };
        let kept = Kept {
            attempt: attempt(),
            resources: Resources { cpu: 1, memory: 2, gpu: 3, storage: 4 },
            custom: Custom::new([("fpga", 5)]).unwrap(),
            executor: fb::Executor::Noop,
            kill_grace_ms: 5,
            deadline_ms: 6,
            stop_on_disconnect_after_ms: 7,
            receipt: Some(fb::Receipt::new(1, 2, &[3; 16])),
            waits: true,
            spec: None,
            incarnation_id: Some([4; 16]),
            job_key: JobKey(8),
        };
        let spec = TaskSpec {
            command: "/bin/work".into(),
            arguments: vec!["--all".into()],
            environment: vec![("A".into(), "b".into())],
            resources: kept.resources,
            custom: kept.custom.clone(),
            kill_grace_ms: 5,
            ..TaskSpec::default()
        };
        let whole = Kept { executor: fb::Executor::Process, spec: Some(Arc::new(spec)), receipt: None, ..kept.clone() };
        // Written once for each incarnation.
        let whole = Kept { incarnation_id: None, ..whole };
        let proof = Proof { receipt: fb::Receipt::new(1, 2, &[3; 16]), incarnation_id: [4; 16] };
        let mut builder = FlatBufferBuilder::new();
        for fact in [
            Fact::DataCreated { id: [9; 16], receipt: None },
            Fact::DataCreated { id: [9; 16], receipt: Some(proof) },
            Fact::AssignmentKept(kept),
            Fact::AssignmentKept(whole),
            Fact::AttemptStarted(attempt()),
            Fact::ResultKept(Cow::Owned(status)),
            Fact::AttemptSettled(attempt()),
        ] {
            let bytes = fact.encode(Time(11), &mut builder);
            assert!(bytes.len() <= 384, "facts stay small: {}", bytes.len());
            assert_eq!(Fact::decode(bytes).unwrap(), (Time(11), fact));
        }
    }

    #[test]
    fn what_is_no_fact_of_an_agent_is_refused() {
        assert!(matches!(Fact::decode(&[]), Err(FactError::Unreadable(_))));
        assert!(matches!(Fact::decode(&[0xff; 64]), Err(FactError::Unreadable(_))));
        let mut builder = FlatBufferBuilder::new();
        let lost = fb::AgentUnreachable::create(&mut builder, &fb::AgentUnreachableArgs { agent: 1 });
        let args =
            fb::FactRecordArgs { at: 0, fact_type: fb::FactBody::AgentUnreachable, fact: Some(lost.as_union_value()) };
        let root = fb::FactRecord::create(&mut builder, &args);
        builder.finish_minimal(root);
        let refused = Fact::decode(builder.finished_data()).unwrap_err();
        assert_eq!(refused, FactError::Kind { found: fb::FactBody::AgentUnreachable });
    }
}
