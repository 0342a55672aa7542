//! Facts: what was decided, as Rust and as FlatBuffers (`schemas/journal.fbs`).
//!
//! Invariant: `decode(encode(fact)) == fact`. The live core applies the Rust form that it encodes; replay
//! decodes and applies the same. Bytes that are no fact are an error, whatever they are.

use crate::{
    agents::AgentProfile,
    bodies::{FileKept, read_files},
    kept::Kept,
    rare::{
        read_agent, read_change, read_heeded, read_incarnation, read_policy, read_principal, read_schedule,
        read_schedule_change, read_token,
    },
    restored::Restored,
    schedules::{Schedule, ScheduleError},
};
use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};
use fleetwire_common::{
    blob::BlobRef,
    fb,
    ids::{AgentId, AttemptId, JobId, Name, Position, Principal, SubmitId, TaskId, TokenId},
    job::{JobError, JobSpec},
    message::End,
    policy::{ClusterPolicy, PolicyError},
    time::Time,
    verified,
};
use std::{borrow::Cow, sync::Arc};

/// Something decided. Borrows where the hot path has it at hand.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact<'a> {
    /// A scheduler started on this data.
    IncarnationStarted {
        /// From 1, rising by one.
        incarnation: u64,
        /// Random.
        id: [u8; 16],
        /// Software and version.
        software: Cow<'a, str>,
        /// Its own; 0 where an earlier version wrote it.
        position: Position,
    },
    /// An agent proved that this journal is a backup of one that went on.
    BackupRestored(Restored),
    /// The operator goes on with it.
    RestoreAccepted {
        /// Receipts of incarnations before this are no news any more.
        incarnation: u64,
    },
    /// A join token was made.
    TokenIssued {
        /// Its number.
        token: TokenId,
        /// What it lets a holder become.
        role: fb::Role,
        /// How many keys may redeem it.
        uses: u32,
        /// When it ends.
        expires_at: Time,
        /// Who made it.
        issued_by: Cow<'a, str>,
    },
    /// A name was granted to a key.
    PrincipalEnrolled {
        /// Who.
        principal: Principal,
        /// SHA-256 of the public key.
        key_sha256: [u8; 32],
        /// By which token; 0 = on the scheduler's own machine.
        token: TokenId,
    },
    /// An agent registered for the first time, or otherwise than before.
    AgentRegistered {
        /// Its number.
        agent: AgentId,
        /// Its name.
        name: Name,
        /// What it said of itself.
        profile: Arc<AgentProfile>,
    },
    /// An agent has been away for a while.
    AgentUnreachable {
        /// Which.
        agent: AgentId,
    },
    /// It is back.
    AgentReturned {
        /// Which.
        agent: AgentId,
    },
    /// It said goodbye.
    AgentDeregistered {
        /// Which.
        agent: AgentId,
    },
    /// An operator wants something else of it from now on.
    AgentChanged {
        /// Which.
        agent: AgentId,
        /// What.
        action: fb::AgentAction,
        /// To drain: when what still runs there is stopped; zero: it may run to its end.
        stop_at: Time,
        /// The operator's words.
        reason: Cow<'a, str>,
        /// Who.
        by: Cow<'a, str>,
    },
    /// Work is placed by another policy from now on.
    PolicySet {
        /// Which.
        policy: Arc<ClusterPolicy>,
        /// Whose.
        by: Cow<'a, str>,
    },
    /// A job is submitted by a cron from now on.
    ScheduleSet {
        /// Which, and when.
        schedule: Arc<Schedule>,
        /// Whose.
        by: Cow<'a, str>,
    },
    /// A schedule rests, goes on, or is no more.
    ScheduleChanged {
        /// Which.
        name: Name,
        /// What.
        action: fb::ScheduleAction,
    },
    /// A schedule's moment was heeded; those before it, if any, are passed over.
    ScheduleHeeded {
        /// Whose.
        name: Name,
        /// Which.
        moment: Time,
        /// What was submitted; 0 = it was left out.
        job: JobId,
        /// Why it was.
        why: Cow<'a, str>,
    },
    /// It is not expected back: its attempts have ended, its capacity counts no more.
    AgentForgotten {
        /// Which.
        agent: AgentId,
    },
    /// A job was taken.
    JobAccepted {
        /// Its number.
        job: JobId,
        /// The client's id for the submit.
        submit_id: SubmitId,
        /// SHA-256 of the job as it was submitted.
        digest: [u8; 32],
        /// Who submitted it.
        owner: Cow<'a, str>,
        /// The spec as it was submitted, but that the files which are blobs are empty.
        bytes: Cow<'a, [u8]>,
        /// The same, read and validated.
        spec: Arc<JobSpec>,
        /// The files that are blobs.
        files: Box<[FileKept]>,
    },
    /// A task was given to an agent.
    AttemptAssigned {
        /// The attempt.
        attempt: AttemptId,
        /// Who was given it.
        agent: AgentId,
    },
    /// An attempt ended.
    AttemptEnded(Ended<'a>),
    /// Tasks ended that have no attempt under way.
    TasksEnded {
        /// Their job.
        job: JobId,
        /// Their entry.
        entry: u16,
        /// The first index.
        from: u32,
        /// The index after the last.
        to: u32,
        /// How.
        status: fb::TaskStatus,
        /// Why.
        reason: fb::EndReason,
    },
    /// Attempts under way are to be stopped.
    CancelRequested {
        /// Of which job.
        job: JobId,
        /// Entry and index of one task; `None` = the whole job.
        task: Option<(u16, u32)>,
        /// Why.
        reason: fb::EndReason,
    },
    /// An ended job is kept no longer.
    JobForgotten {
        /// Which.
        job: JobId,
    },
    /// What facts before a snapshot add up to, or a part of it. Only in snapshots.
    Kept(Box<Kept<'a>>),
}

/// An attempt's end, and what becomes of its task.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended<'a> {
    /// The attempt.
    pub attempt: AttemptId,
    /// How it ended.
    pub status: fb::TaskStatus,
    /// The task's status from now on.
    pub task_status: fb::TaskStatus,
    /// With `Pending`: not before.
    pub retry_at: Time,
    /// Counts towards `max_attempts`.
    pub failure: bool,
    /// Counts towards `max_losses`.
    pub loss: bool,
    /// What it left behind, without the result if that is a blob.
    pub end: Cow<'a, End>,
    /// The result, if it is a blob.
    pub result: Option<BlobRef>,
    /// Its latest metrics.
    pub metrics: Cow<'a, [(Arc<str>, f64)]>,
    /// The task's other attempt ends with it.
    pub ends_rival: bool,
}

/// Why bytes are no fact.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FactError {
    /// No well-formed FlatBuffer.
    #[error("not a well-formed fact: {0}")]
    Malformed(String),
    /// A type that this build does not know, or that is an agent's.
    #[error("a fact of type {0}, which is none of a scheduler's that this version knows")]
    Kind(u8),
    /// A field that is absent or cannot be.
    #[error("{fact}: its field `{field}` is absent or has no meaning")]
    Field {
        /// The fact's type.
        fact: &'static str,
        /// Which field.
        field: &'static str,
    },
    /// A job that would not have been accepted.
    #[error("JobAccepted: {0}")]
    Job(#[from] JobError),
    /// A policy that would not have been taken.
    #[error("PolicySet: {0}")]
    Policy(#[from] PolicyError),
    /// A schedule that would not have been taken.
    #[error("ScheduleSet: {0}")]
    Schedule(#[from] ScheduleError),
}

pub(crate) type Builder = FlatBufferBuilder<'static>;
pub(crate) type Union = WIPOffset<UnionWIPOffset>;

impl<'a> Fact<'a> {
    /// Writes the fact; the bytes lie in the builder, which is reset first.
    pub fn encode<'b>(&self, at: Time, builder: &'b mut Builder) -> &'b [u8] {
        builder.reset();
        let (fact_type, fact) = self.write(builder);
        let record = fb::FactRecord::create(builder, &fb::FactRecordArgs { at: at.0, fact_type, fact: Some(fact) });
        builder.finish(record, None);
        builder.finished_data()
    }

    fn write(&self, builder: &mut Builder) -> (fb::FactBody, Union) {
        match self {
            Fact::AttemptAssigned { attempt, agent } => (fb::FactBody::AttemptAssigned, {
                let TaskId { job, entry, index } = attempt.task;
                let (attempt, agent) = (attempt.attempt, agent.0);
                let args = fb::AttemptAssignedArgs { job: job.0, entry, index, attempt, agent };
                fb::AttemptAssigned::create(builder, &args).as_union_value()
            }),
            Fact::AttemptEnded(ended) => (fb::FactBody::AttemptEnded, ended.write(builder)),
            Fact::JobAccepted { job, submit_id, digest, owner, bytes, spec: _, files } => {
                (fb::FactBody::JobAccepted, {
                    let args = fb::JobAcceptedArgs {
                        job: job.0,
                        submit_id: Some(builder.create_vector(&submit_id.0)),
                        digest: Some(builder.create_vector(digest)),
                        owner: Some(builder.create_string(owner)),
                        spec: Some(builder.create_vector(bytes)),
                        files: write_files(files, builder),
                    };
                    fb::JobAccepted::create(builder, &args).as_union_value()
                })
            }
            Fact::TasksEnded { job, entry, from, to, status, reason } => (fb::FactBody::TasksEnded, {
                let (entry, from, to, status, reason) = (*entry, *from, *to, *status, *reason);
                let args = fb::TasksEndedArgs { job: job.0, entry, from, to, status, reason };
                fb::TasksEnded::create(builder, &args).as_union_value()
            }),
            Fact::CancelRequested { job, task, reason } => (fb::FactBody::CancelRequested, {
                let (entry, index) = task.unwrap_or_default();
                let (all, reason) = (task.is_none(), *reason);
                let args = fb::CancelRequestedArgs { job: job.0, all, entry, index, reason };
                fb::CancelRequested::create(builder, &args).as_union_value()
            }),
            Fact::AgentUnreachable { agent } => (fb::FactBody::AgentUnreachable, {
                let args = fb::AgentUnreachableArgs { agent: agent.0 };
                fb::AgentUnreachable::create(builder, &args).as_union_value()
            }),
            Fact::AgentReturned { agent } => (fb::FactBody::AgentReturned, {
                fb::AgentReturned::create(builder, &fb::AgentReturnedArgs { agent: agent.0 }).as_union_value()
            }),
            Fact::AgentDeregistered { agent } => (fb::FactBody::AgentDeregistered, {
                let args = fb::AgentDeregisteredArgs { agent: agent.0 };
                fb::AgentDeregistered::create(builder, &args).as_union_value()
            }),
            Fact::JobForgotten { job } => (fb::FactBody::JobForgotten, {
                fb::JobForgotten::create(builder, &fb::JobForgottenArgs { job: job.0 }).as_union_value()
            }),
            Fact::Kept(kept) => kept.write(builder),
            Fact::IncarnationStarted { .. }
            | Fact::TokenIssued { .. }
            | Fact::PrincipalEnrolled { .. }
            | Fact::AgentRegistered { .. }
            | Fact::AgentChanged { .. }
            | Fact::PolicySet { .. }
            | Fact::ScheduleSet { .. }
            | Fact::ScheduleChanged { .. }
            | Fact::ScheduleHeeded { .. }
            | Fact::AgentForgotten { .. }
            | Fact::BackupRestored(_)
            | Fact::RestoreAccepted { .. } => self.write_rare(builder),
        }
    }

    /// Reads a fact and its time.
    pub fn decode(bytes: &'a [u8]) -> Result<(Time, Fact<'a>), FactError> {
        let record = verified::fact_record(bytes).map_err(|error| FactError::Malformed(error.to_string()))?;
        let fact = match record.fact_type() {
            fb::FactBody::AttemptAssigned => record.fact_as_attempt_assigned().map(|table| {
                Ok(Fact::AttemptAssigned {
                    attempt: attempt_id(table.job(), table.entry(), table.index(), table.attempt()),
                    agent: AgentId(table.agent()),
                })
            }),
            fb::FactBody::AttemptEnded => record.fact_as_attempt_ended().map(read_ended),
            fb::FactBody::JobAccepted => record.fact_as_job_accepted().map(read_job),
            fb::FactBody::TasksEnded => record.fact_as_tasks_ended().map(read_tasks_ended),
            fb::FactBody::CancelRequested => record.fact_as_cancel_requested().map(|table| {
                let task = (!table.all()).then(|| (table.entry(), table.index()));
                Ok(Fact::CancelRequested { job: JobId(table.job()), task, reason: table.reason() })
            }),
            fb::FactBody::AgentUnreachable => record
                .fact_as_agent_unreachable()
                .map(|table| Ok(Fact::AgentUnreachable { agent: AgentId(table.agent()) })),
            fb::FactBody::AgentReturned => {
                record.fact_as_agent_returned().map(|table| Ok(Fact::AgentReturned { agent: AgentId(table.agent()) }))
            }
            fb::FactBody::AgentDeregistered => record
                .fact_as_agent_deregistered()
                .map(|table| Ok(Fact::AgentDeregistered { agent: AgentId(table.agent()) })),
            fb::FactBody::JobForgotten => {
                record.fact_as_job_forgotten().map(|table| Ok(Fact::JobForgotten { job: JobId(table.job()) }))
            }
            fb::FactBody::IncarnationStarted => record.fact_as_incarnation_started().map(read_incarnation),
            fb::FactBody::TokenIssued => record.fact_as_token_issued().map(read_token),
            fb::FactBody::PrincipalEnrolled => record.fact_as_principal_enrolled().map(read_principal),
            fb::FactBody::AgentRegistered => record.fact_as_agent_registered().map(read_agent),
            fb::FactBody::AgentChanged => record.fact_as_agent_changed().map(read_change),
            fb::FactBody::PolicySet => record.fact_as_policy_set().map(read_policy),
            fb::FactBody::ScheduleSet => record.fact_as_schedule_set().map(read_schedule),
            fb::FactBody::ScheduleChanged => record.fact_as_schedule_changed().map(read_schedule_change),
            fb::FactBody::ScheduleHeeded => record.fact_as_schedule_heeded().map(read_heeded),
            fb::FactBody::AgentForgotten => {
                record.fact_as_agent_forgotten().map(|table| Ok(Fact::AgentForgotten { agent: AgentId(table.agent()) }))
            }
            fb::FactBody::BackupRestored => {
                record.fact_as_backup_restored().map(|table| Restored::from_wire(table).map(Fact::BackupRestored))
            }
            fb::FactBody::RestoreAccepted => record
                .fact_as_restore_accepted()
                .map(|table| Ok(Fact::RestoreAccepted { incarnation: table.incarnation() })),
            _ => Kept::read(record).map(|kept| Ok(Fact::Kept(Box::new(kept?)))),
        };
        Ok((Time(record.at()), fact.unwrap_or(Err(FactError::Kind(record.fact_type().0)))?))
    }
}

impl Ended<'_> {
    fn write(&self, builder: &mut Builder) -> Union {
        let end = self.end.write(builder);
        let metrics = (!self.metrics.is_empty()).then(|| {
            let metrics: Vec<_> = self
                .metrics
                .iter()
                .map(|(name, value)| {
                    let name = Some(builder.create_string(name));
                    fb::Metric::create(builder, &fb::MetricArgs { name, value: *value })
                })
                .collect();
            builder.create_vector(&metrics)
        });
        let TaskId { job, entry, index } = self.attempt.task;
        let result = self.result.map(|blob| blob.to_wire());
        let args = fb::AttemptEndedArgs {
            job: job.0,
            entry,
            index,
            attempt: self.attempt.attempt,
            status: self.status,
            task_status: self.task_status,
            retry_at: self.retry_at.0,
            failure: self.failure,
            loss: self.loss,
            end: Some(end),
            metrics,
            ends_rival: self.ends_rival,
            result: result.as_ref(),
        };
        fb::AttemptEnded::create(builder, &args).as_union_value()
    }
}

fn attempt_id(job: u64, entry: u16, index: u32, attempt: u32) -> AttemptId {
    AttemptId { task: TaskId { job: JobId(job), entry, index }, attempt }
}

fn read_ended<'a>(table: fb::AttemptEnded<'a>) -> Result<Fact<'a>, FactError> {
    let wrong = |field| FactError::Field { fact: "AttemptEnded", field };
    table.status().variant_name().ok_or(wrong("status"))?;
    table.task_status().variant_name().ok_or(wrong("task_status"))?;
    let metrics = table.metrics().into_iter().flatten();
    let metrics: Vec<_> =
        metrics.map(|metric| (Arc::from(metric.name().unwrap_or_default()), metric.value())).collect();
    Ok(Fact::AttemptEnded(Ended {
        attempt: attempt_id(table.job(), table.entry(), table.index(), table.attempt()),
        status: table.status(),
        task_status: table.task_status(),
        retry_at: Time(table.retry_at()),
        failure: table.failure(),
        loss: table.loss(),
        end: Cow::Owned(table.end().map(End::from_wire).ok_or(wrong("end"))?),
        metrics: Cow::Owned(metrics),
        ends_rival: table.ends_rival(),
        result: table.result().map(BlobRef::from_wire),
    }))
}

fn read_job<'a>(table: fb::JobAccepted<'a>) -> Result<Fact<'a>, FactError> {
    let wrong = |field| FactError::Field { fact: "JobAccepted", field };
    let bytes = table.spec().ok_or(wrong("spec"))?.bytes();
    // Ours where a file was made a blob: written by us, it may take more bytes than what was submitted.
    let own = table.files().is_some();
    let spec = Arc::new(if own { JobSpec::from_own_wire(bytes)? } else { JobSpec::from_wire(bytes)? });
    Ok(Fact::JobAccepted {
        job: JobId(table.job()),
        submit_id: SubmitId(array(table.submit_id()).ok_or(wrong("submit_id"))?),
        digest: array(table.digest()).ok_or(wrong("digest"))?,
        owner: Cow::Borrowed(table.owner().ok_or(wrong("owner"))?),
        files: read_files(table.files(), &spec).ok_or(wrong("files"))?,
        spec,
        bytes: Cow::Borrowed(bytes),
    })
}

fn read_tasks_ended<'a>(table: fb::TasksEnded<'a>) -> Result<Fact<'a>, FactError> {
    let wrong = |field| FactError::Field { fact: "TasksEnded", field };
    table.status().variant_name().ok_or(wrong("status"))?;
    table.reason().variant_name().ok_or(wrong("reason"))?;
    Ok(Fact::TasksEnded {
        job: JobId(table.job()),
        entry: table.entry(),
        from: table.from(),
        to: table.to(),
        status: table.status(),
        reason: table.reason(),
    })
}

pub(crate) fn write_files<'b>(
    files: &[FileKept],
    builder: &mut FlatBufferBuilder<'b>,
) -> Option<WIPOffset<flatbuffers::Vector<'b, fb::FileKept>>> {
    let wire: Vec<fb::FileKept> = files.iter().map(|kept| kept.to_wire()).collect();
    (!wire.is_empty()).then(|| builder.create_vector(&wire))
}

/// A field of exactly `N` bytes.
pub(crate) fn array<const N: usize>(field: Option<flatbuffers::Vector<'_, u8>>) -> Option<[u8; N]> {
    field.and_then(|field| field.bytes().try_into().ok())
}
