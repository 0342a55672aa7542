//! Messages: owned to write, borrowed to read.
//!
//! [`Message`] is what cores hand to their shells to send; [`MessageRef`] is what [`crate::envelope`]
//! hands to them, a view into the verified frame. The frequent ones have types of their own, so that
//! sealing them allocates nothing; the rare ones use the schema's owned tables.

pub(crate) mod forward;
mod metrics;
mod read;
mod record;
mod write;

pub(crate) use metrics::bits_unless_finite;
pub use metrics::{MetricNameError, MetricNames, MetricNumbers};
pub use read::{MessageRef, StatusRef, attempt_id};
pub use record::write_task_id;
pub(crate) use write::WriteContext;

use crate::{
    fb,
    ids::{AttemptId, JobKey},
    job::TaskSpec,
    resources::Resources,
};
use std::sync::Arc;

/// A message to be sealed.
#[derive(Clone, Debug)]
pub enum Message {
    /// Scheduler to agent: run this.
    Assignment(Assignment),
    /// Agent to scheduler: how an attempt fares.
    Status(Status),
    /// Agent to scheduler: alive, and this much is in use.
    Heartbeat(Heartbeat),
    /// Agent to scheduler: the assignment is persisted and will run.
    Acceptance(AttemptId),
    /// Scheduler to agent: stop it.
    Cancellation(AttemptId, fb::EndReason),
    /// Give an attempt back that waits for room and has not started.
    Recall(AttemptId),
    /// Something that was asked for is done and durable.
    Ack(Ack),
    /// Everything that is not frequent.
    Rare(fb::SchedulerMessageT),
}

/// What an agent needs to run an attempt. The spec is shared by all tasks of an array.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// Which attempt.
    pub attempt: AttemptId,
    /// The entry's spec.
    pub spec: Arc<TaskSpec>,
    /// Proof of the scheduler's position when it was decided.
    pub receipt: fb::Receipt,
    /// Cluster time in ms after which it need not start; 0 = none. Schedulers send 0: jobs have no deadlines
    /// yet, and a queue timeout is about the wait for an agent. Agents heed it.
    pub deadline_ms: u64,
    /// Milliseconds after the sending of the last answered heartbeat until the agent stops it; 0 = never.
    pub stop_on_disconnect_after_ms: u64,
    /// Which job has that number.
    pub job_key: JobKey,
}

/// How an attempt fares.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Its status.
    pub status: fb::TaskStatus,
    /// 0.0 to 1.0.
    pub progress: f32,
    /// The task's own words; empty = none.
    pub note: String,
    /// Latest values.
    pub metrics: Vec<(Arc<str>, f64)>,
    /// How it ended; with final statuses only.
    pub end: Option<Box<End>>,
    /// The assignment's; with final statuses only.
    pub job_key: JobKey,
}

/// How an attempt ended. Its last process is gone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct End {
    /// Why.
    pub reason: fb::EndReason,
    /// With `Exited`.
    pub exit_code: i32,
    /// With `Signalled`.
    pub signal: u8,
    /// What a person should know; empty = nothing.
    pub message: String,
    /// The task's result, if it left one.
    pub result: Option<Vec<u8>>,
    /// User CPU time, µs.
    pub user_us: u64,
    /// System CPU time, µs.
    pub system_us: u64,
    /// Peak memory, KB.
    pub memory_peak_kb: u64,
    /// From start to end, µs.
    pub wall_us: u64,
    /// Bytes written to stdout, kept or not.
    pub stdout_bytes: u64,
    /// Bytes written to stderr, kept or not.
    pub stderr_bytes: u64,
    /// Cluster time, ms.
    pub started_at_ms: u64,
    /// Cluster time, ms.
    pub ended_at_ms: u64,
}

/// What is in use on an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// As the operating system counts it.
    pub usage: Resources,
    /// Attempts that run.
    pub running: u32,
    /// Whether an `Ack` is wanted.
    pub answer: bool,
}

/// Something that was asked for is done and durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ack {
    /// A client's request.
    Request(u64),
    /// An attempt's final status: the agent may forget it.
    Final(AttemptId),
    /// A heartbeat, whose envelope bore this timestamp (ms).
    Heartbeat(u64),
}

impl Message {
    /// Its type on the wire.
    pub fn kind(&self) -> fb::SchedulerMessage {
        match self {
            Message::Assignment(_) => fb::SchedulerMessage::TaskAssignment,
            Message::Status(_) => fb::SchedulerMessage::StatusUpdate,
            Message::Heartbeat(_) => fb::SchedulerMessage::Heartbeat,
            Message::Acceptance(_) => fb::SchedulerMessage::TaskAcceptance,
            Message::Cancellation(..) | Message::Recall(_) => fb::SchedulerMessage::TaskCancellation,
            Message::Ack(_) => fb::SchedulerMessage::Ack,
            // An empty union has no place on the wire; it is sent as the `Nack` that `write` makes of it.
            Message::Rare(fb::SchedulerMessageT::NONE) => fb::SchedulerMessage::Nack,
            Message::Rare(message) => message.scheduler_message_type(),
        }
    }

    /// Bytes that its body surely takes: what decides, before anything is written, whether
    /// compression is tried first and whether one frame can hold it.
    pub fn bytes_at_least(&self) -> usize {
        match self {
            Message::Assignment(assignment) => {
                let spec = &*assignment.spec;
                let texts = spec.arguments.iter().map(|text| text.len() + 8);
                let pairs = spec.environment.iter().map(|(key, value)| key.len() + value.len() + 20);
                let files = spec.files.iter().map(|file| file.path.len() + file.data.len() + 20);
                128 + spec.command.len() + spec.parameters.len() + texts.chain(pairs).chain(files).sum::<usize>()
            }
            Message::Status(status) => {
                let result = status.end.as_ref().and_then(|end| end.result.as_ref()).map_or(0, Vec::len);
                48 + status.note.len() + 10 * status.metrics.len() + result
            }
            Message::Heartbeat(_)
            | Message::Acceptance(_)
            | Message::Cancellation(..)
            | Message::Recall(_)
            | Message::Ack(_) => 24,
            Message::Rare(message) => match message {
                fb::SchedulerMessageT::SubmitJob(submit) => submit.job.as_ref().map_or(0, Vec::len),
                fb::SchedulerMessageT::PlanJob(plan) => plan.job.as_ref().map_or(0, Vec::len),
                fb::SchedulerMessageT::LogChunk(chunk) => chunk.data.as_ref().map_or(0, Vec::len),
                _ => 0,
            },
        }
    }
}

impl End {
    /// Reads the table; a text beyond its limit is cut, and a result beyond its own is dropped, which the end then
    /// says.
    pub fn from_wire(wire: fb::AttemptEnd<'_>) -> End {
        let usage = wire.usage();
        let result = wire.result().map(|result| result.bytes());
        let dropped = result.map(<[u8]>::len).and_then(refuse_result);
        let end = End {
            reason: wire.reason(),
            exit_code: wire.exit_code(),
            signal: wire.signal(),
            message: cut(wire.message().unwrap_or_default()).to_owned(),
            result: result.filter(|_| dropped.is_none()).map(<[u8]>::to_vec),
            user_us: usage.map_or(0, |usage| usage.user_us()),
            system_us: usage.map_or(0, |usage| usage.system_us()),
            memory_peak_kb: usage.map_or(0, |usage| usage.memory_peak_kb()),
            wall_us: usage.map_or(0, |usage| usage.wall_us()),
            stdout_bytes: wire.stdout_bytes(),
            stderr_bytes: wire.stderr_bytes(),
            started_at_ms: wire.started_at(),
            ended_at_ms: wire.ended_at(),
        };
        match dropped {
            Some(message) => End { message, ..end },
            None => end,
        }
    }

    /// Cuts a text and drops a result as [`End::from_wire`] does: what a peer would not take is not kept.
    pub fn bound(&mut self) {
        let kept = cut(&self.message).len();
        self.message.truncate(kept);
        if let Some(message) = self.result.as_ref().map(Vec::len).and_then(refuse_result) {
            (self.result, self.message) = (None, message);
        }
    }
}

/// Why a result of so many bytes is not taken, if it is not.
fn refuse_result(bytes: usize) -> Option<String> {
    let max = crate::limits::RESULT_BYTES_MAX;
    (bytes > max).then(|| format!("the result of {bytes} bytes was dropped: at most {max} are kept"))
}

/// A text cut to [`crate::limits::NOTE_BYTES_MAX`] at a character's border.
pub fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(crate::limits::NOTE_BYTES_MAX)).unwrap_or(text)
}

// §status-2
/// The nearest of the seed's four statuses (docs/protocol.md#statuses).
pub fn nearest_seed_status(status: fb::TaskStatus) -> fb::TaskStatus {
    match status {
        fb::TaskStatus::Pending | fb::TaskStatus::Assigned => fb::TaskStatus::Pending,
        fb::TaskStatus::Running => fb::TaskStatus::Running,
        fb::TaskStatus::Completed => fb::TaskStatus::Completed,
        _ => fb::TaskStatus::Failed,
    }
}

/// Whether a status is final: the attempt's last process is gone.
pub fn is_final(status: fb::TaskStatus) -> bool {
    !matches!(status, fb::TaskStatus::Pending | fb::TaskStatus::Assigned | fb::TaskStatus::Running)
}
