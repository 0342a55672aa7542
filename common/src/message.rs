//! Messages: owned to write, borrowed to read.
//!
//! [`Message`] is what cores hand to their shells to send; [`MessageRef`] is what [`crate::envelope`]
//! hands to them, a view into the verified frame. The frequent ones have types of their own, so that
//! sealing them allocates nothing; the rare ones use the schema's owned tables.

use crate::{
    envelope::Features,
    fb,
    ids::{AttemptId, TaskId},
    job::TaskSpec,
    limits::{METRIC_NAME_BYTES_MAX, METRIC_NAMES_MAX},
    resources::Resources,
};
use smallvec::SmallVec;
use std::{collections::BTreeMap, io::Write, sync::Arc};

/// Lists up to this length are gathered on the stack: what keeps sealing free of allocations.
const INLINE: usize = crate::limits::METRICS_MAX;

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
    /// Cluster time in ms after which it need not start; 0 = none.
    pub deadline_ms: u64,
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

/// The numbers that a session gave to metric names, on the sending side. Bounded: names beyond
/// [`METRIC_NAMES_MAX`] are sent as text.
#[derive(Clone, Debug, Default)]
pub struct MetricNumbers {
    numbers: BTreeMap<Arc<str>, u16>,
}

impl MetricNumbers {
    /// The name's number, and whether it is new. `None` when there is no room for another.
    fn number(&mut self, name: &Arc<str>) -> Option<(u16, bool)> {
        if let Some(number) = self.numbers.get(name) {
            return Some((*number, false));
        }
        let number = u16::try_from(self.numbers.len()).ok().filter(|n| usize::from(*n) < METRIC_NAMES_MAX)?;
        self.numbers.insert(Arc::clone(name), number);
        Some((number, true))
    }
}

/// The names that a session's peer gave numbers to, on the receiving side.
#[derive(Clone, Debug, Default)]
pub struct MetricNames {
    names: Vec<Arc<str>>,
}

impl MetricNames {
    /// Takes a definition. Numbers are given in order, without gaps, and never again.
    pub fn define(&mut self, number: u16, name: &str) -> Result<(), MetricNameError> {
        if usize::from(number) != self.names.len() || self.names.len() >= METRIC_NAMES_MAX {
            return Err(MetricNameError::Number { found: number, expected: self.names.len() });
        }
        if name.is_empty() || name.len() > METRIC_NAME_BYTES_MAX {
            return Err(MetricNameError::Length { found: name.len() });
        }
        self.names.push(name.into());
        Ok(())
    }

    /// The name of that number.
    pub fn name(&self, number: u16) -> Option<&str> {
        self.names.get(usize::from(number)).map(|name| &**name)
    }
}

/// Why a metric name's definition is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricNameError {
    /// Out of order, given before, or more than there may be.
    #[error("metric name number {found}: expected {expected}, below {METRIC_NAMES_MAX}")]
    Number {
        /// What came.
        found: u16,
        /// The only number that may come next.
        expected: usize,
    },
    /// Empty or too long.
    #[error("a metric name of {found} bytes: expected 1 to {METRIC_NAME_BYTES_MAX}")]
    Length {
        /// What came.
        found: usize,
    },
}

/// What writing a message needs to know of its session.
#[derive(Debug)]
pub struct WriteContext<'s> {
    /// What both peers know.
    pub features: Features,
    /// The numbers given so far.
    pub numbers: &'s mut MetricNumbers,
}

type Builder = flatbuffers::FlatBufferBuilder<'static>;
type Union = flatbuffers::WIPOffset<flatbuffers::UnionWIPOffset>;

impl Message {
    /// Its type on the wire.
    pub fn kind(&self) -> fb::SchedulerMessage {
        match self {
            Message::Assignment(_) => fb::SchedulerMessage::TaskAssignment,
            Message::Status(_) => fb::SchedulerMessage::StatusUpdate,
            Message::Heartbeat(_) => fb::SchedulerMessage::Heartbeat,
            Message::Acceptance(_) => fb::SchedulerMessage::TaskAcceptance,
            Message::Cancellation(..) => fb::SchedulerMessage::TaskCancellation,
            Message::Ack(_) => fb::SchedulerMessage::Ack,
            Message::Rare(message) => message.scheduler_message_type(),
        }
    }

    /// Writes it into the builder, as a union value to be put into an envelope, an item or a body.
    pub fn write(&self, builder: &mut Builder, context: &mut WriteContext<'_>) -> Union {
        match self {
            Message::Assignment(assignment) => assignment.write(builder).as_union_value(),
            Message::Status(status) => status.write(builder, context).as_union_value(),
            Message::Heartbeat(beat) => {
                let args = fb::HeartbeatArgs {
                    cpu: beat.usage.cpu,
                    memory: beat.usage.memory,
                    gpu: beat.usage.gpu,
                    storage: beat.usage.storage,
                    running: beat.running,
                    answer: beat.answer,
                };
                fb::Heartbeat::create(builder, &args).as_union_value()
            }
            Message::Acceptance(id) => {
                let task_id = Some(write_task_id(builder, id.task));
                let args = fb::TaskAcceptanceArgs { task_id, attempt: id.attempt };
                fb::TaskAcceptance::create(builder, &args).as_union_value()
            }
            Message::Cancellation(id, reason) => {
                let task_id = Some(write_task_id(builder, id.task));
                let args = fb::TaskCancellationArgs { task_id, attempt: id.attempt, reason: *reason };
                fb::TaskCancellation::create(builder, &args).as_union_value()
            }
            Message::Ack(ack) => {
                let mut args = fb::AckArgs::default();
                match ack {
                    Ack::Request(request) => args.request = *request,
                    Ack::Final(id) => {
                        args.task_id = Some(write_task_id(builder, id.task));
                        args.attempt = id.attempt;
                    }
                    Ack::Heartbeat(echo) => args.echo = *echo,
                }
                fb::Ack::create(builder, &args).as_union_value()
            }
            Message::Rare(message) => match message.pack(builder) {
                Some(value) => value,
                // `NONE` packs to nothing; an empty Deregister-like table would change its meaning, so
                // it becomes a Nack that says what it is.
                None => {
                    fb::Nack::create(builder, &fb::NackArgs { code: fb::ErrorCode::Internal, ..Default::default() })
                        .as_union_value()
                }
            },
        }
    }
}

impl Assignment {
    /// Writes the table.
    pub fn write<'b>(
        &self,
        builder: &mut flatbuffers::FlatBufferBuilder<'b>,
    ) -> flatbuffers::WIPOffset<fb::TaskAssignment<'b>> {
        let spec = &*self.spec;
        let some_string = |builder: &mut flatbuffers::FlatBufferBuilder<'b>, text: &str| {
            (!text.is_empty()).then(|| builder.create_string(text))
        };
        let task_id = Some(write_task_id(builder, self.attempt.task));
        let resources = Some(fb::ResourceSpec::create(builder, &spec.resources.args()));
        let command = some_string(builder, &spec.command);
        let arguments = write_list(builder, &spec.arguments, |builder, text| builder.create_string(text));
        let environment = write_list(builder, &spec.environment, |builder, (key, value)| {
            let key = Some(builder.create_string(key));
            let value = Some(builder.create_string(value));
            fb::KeyValue::create(builder, &fb::KeyValueArgs { key, value })
        });
        let files = write_list(builder, &spec.files, |builder, file| {
            let path = Some(builder.create_string(&file.path));
            let data = Some(builder.create_vector(&file.data));
            fb::File::create(builder, &fb::FileArgs { path, data, executable: file.executable })
        });
        let parameters = some_string(builder, &spec.parameters);
        let result_path = some_string(builder, &spec.result_path);
        let args = fb::TaskAssignmentArgs {
            task_id,
            agent_type: spec.agent_type.unwrap_or_default(),
            resources,
            storage_backend: spec.storage_backend,
            timeout: spec.timeout_s,
            attempt: self.attempt.attempt,
            incarnation: self.receipt.incarnation(),
            executor: spec.executor,
            command,
            arguments,
            environment,
            parameters,
            files,
            priority: spec.priority,
            deadline: self.deadline_ms,
            any_agent_type: spec.agent_type.is_none(),
            receipt: Some(&self.receipt),
            kill_grace_ms: spec.kill_grace_ms,
            result_path,
        };
        fb::TaskAssignment::create(builder, &args)
    }
}

impl Status {
    /// Writes the table. Statuses beyond the seed's four become the nearest of them for peers that do
    /// not know better (docs/protocol.md#statuses).
    fn write<'b>(
        &self,
        builder: &mut flatbuffers::FlatBufferBuilder<'b>,
        context: &mut WriteContext<'_>,
    ) -> flatbuffers::WIPOffset<fb::StatusUpdate<'b>> {
        let task_id = Some(write_task_id(builder, self.attempt.task));
        let note = (!self.note.is_empty()).then(|| builder.create_string(&self.note));
        let end = self.end.as_ref().map(|end| end.write(builder));
        let known = context.features.has(Features::EXTENDED_STATUS);
        let mut args = fb::StatusUpdateArgs {
            task_id,
            status: if known { self.status } else { nearest_seed_status(self.status) },
            progress: self.progress,
            attempt: self.attempt.attempt,
            note,
            end,
            ..Default::default()
        };
        if context.features.has(Features::INTERNED_METRICS) && !self.metrics.is_empty() {
            self.write_interned(builder, context, &mut args);
        } else {
            args.metrics = write_list(builder, &self.metrics, write_metric);
        }
        fb::StatusUpdate::create(builder, &args)
    }

    fn write_interned<'b>(
        &self,
        builder: &mut flatbuffers::FlatBufferBuilder<'b>,
        context: &mut WriteContext<'_>,
        args: &mut fb::StatusUpdateArgs<'b>,
    ) {
        let mut ids = SmallVec::<[u16; INLINE]>::new();
        let mut values = SmallVec::<[f64; INLINE]>::new();
        let mut plain = SmallVec::<[_; INLINE]>::new();
        let mut defined = SmallVec::<[_; INLINE]>::new();
        for (name, value) in self.metrics.iter().take(INLINE) {
            match context.numbers.number(name) {
                Some((number, new)) => {
                    if new {
                        let name = Some(builder.create_string(name));
                        defined.push(fb::MetricName::create(builder, &fb::MetricNameArgs { id: number, name }));
                    }
                    ids.push(number);
                    values.push(*value);
                }
                None => plain.push(write_metric(builder, &(Arc::clone(name), *value))),
            }
        }
        args.metric_ids = Some(builder.create_vector(&ids));
        args.metric_values = Some(builder.create_vector(&values));
        args.metric_names = (!defined.is_empty()).then(|| builder.create_vector(&defined));
        args.metrics = (!plain.is_empty()).then(|| builder.create_vector(&plain));
    }
}

impl End {
    /// Writes the table.
    pub fn write<'b>(
        &self,
        builder: &mut flatbuffers::FlatBufferBuilder<'b>,
    ) -> flatbuffers::WIPOffset<fb::AttemptEnd<'b>> {
        let usage = fb::ResourceUsage::create(
            builder,
            &fb::ResourceUsageArgs {
                user_us: self.user_us,
                system_us: self.system_us,
                memory_peak_kb: self.memory_peak_kb,
                wall_us: self.wall_us,
            },
        );
        let message = (!self.message.is_empty()).then(|| builder.create_string(&self.message));
        let result = self.result.as_ref().map(|result| builder.create_vector(result));
        let args = fb::AttemptEndArgs {
            reason: self.reason,
            exit_code: self.exit_code,
            signal: self.signal,
            message,
            result,
            usage: Some(usage),
            stdout_bytes: self.stdout_bytes,
            stderr_bytes: self.stderr_bytes,
            started_at: self.started_at_ms,
            ended_at: self.ended_at_ms,
        };
        fb::AttemptEnd::create(builder, &args)
    }

    /// Reads the table; texts and results beyond their limits are cut and dropped.
    pub fn from_wire(wire: fb::AttemptEnd<'_>) -> End {
        let usage = wire.usage();
        let result = wire.result().map(|result| result.bytes());
        End {
            reason: wire.reason(),
            exit_code: wire.exit_code(),
            signal: wire.signal(),
            message: cut(wire.message().unwrap_or_default()).to_owned(),
            result: result.filter(|bytes| bytes.len() <= crate::limits::RESULT_BYTES_MAX).map(<[u8]>::to_vec),
            user_us: usage.map_or(0, |usage| usage.user_us()),
            system_us: usage.map_or(0, |usage| usage.system_us()),
            memory_peak_kb: usage.map_or(0, |usage| usage.memory_peak_kb()),
            wall_us: usage.map_or(0, |usage| usage.wall_us()),
            stdout_bytes: wire.stdout_bytes(),
            stderr_bytes: wire.stderr_bytes(),
            started_at_ms: wire.started_at(),
            ended_at_ms: wire.ended_at(),
        }
    }
}

/// A text cut to [`crate::limits::NOTE_BYTES_MAX`] at a character's border.
pub fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(crate::limits::NOTE_BYTES_MAX)).unwrap_or(text)
}

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

/// A view of a status update whose metric names are resolved.
#[derive(Clone, Copy, Debug)]
pub struct StatusRef<'a> {
    /// The table.
    pub update: fb::StatusUpdate<'a>,
    /// The names that its session defined.
    pub names: &'a MetricNames,
}

impl<'a> StatusRef<'a> {
    /// Its metrics, interned or plain. `open` has proved that every number has a name and a value
    /// and that every value is finite.
    pub fn metrics(self) -> impl Iterator<Item = (&'a str, f64)> {
        let ids = self.update.metric_ids().into_iter().flatten();
        let values = self.update.metric_values().into_iter().flatten();
        let names = self.names;
        let interned = ids.zip(values).filter_map(move |(id, value)| Some((names.name(id)?, value)));
        let plain = self.update.metrics().into_iter().flatten();
        interned.chain(plain.map(|metric| (metric.name().unwrap_or_default(), metric.value())))
    }
}

macro_rules! message_ref {
    ($($variant:ident => $method:ident),* $(,)?) => {
        /// A verified message, read in place.
        #[derive(Clone, Copy, Debug)]
        #[allow(missing_docs)]
        pub enum MessageRef<'a> {
            StatusUpdate(StatusRef<'a>),
            $($variant(fb::$variant<'a>),)*
            /// A type that this build does not know: answered by a `Nack`, never fatal.
            Unknown(u8),
        }

        impl<'a> MessageRef<'a> {
            /// Its type on the wire.
            pub fn kind(&self) -> fb::SchedulerMessage {
                match self {
                    MessageRef::StatusUpdate(_) => fb::SchedulerMessage::StatusUpdate,
                    $(MessageRef::$variant(_) => fb::SchedulerMessage::$variant,)*
                    MessageRef::Unknown(kind) => fb::SchedulerMessage(*kind),
                }
            }

            /// The message of an envelope; `None` if it has none.
            pub(crate) fn of_envelope(table: fb::MessageEnvelope<'a>, names: &'a MetricNames) -> Option<MessageRef<'a>> {
                message_ref!(@of table, names, $($variant => $method),*)
            }

            /// The message of a batch item.
            pub(crate) fn of_item(table: fb::Item<'a>, names: &'a MetricNames) -> Option<MessageRef<'a>> {
                message_ref!(@of table, names, $($variant => $method),*)
            }

            /// The message of a body.
            pub(crate) fn of_body(table: fb::Body<'a>, names: &'a MetricNames) -> Option<MessageRef<'a>> {
                message_ref!(@of table, names, $($variant => $method),*)
            }
        }
    };
    (@of $table:ident, $names:ident, $($variant:ident => $method:ident),*) => {
        match $table.message_type() {
            fb::SchedulerMessage::NONE => None,
            fb::SchedulerMessage::StatusUpdate => {
                $table.message_as_status_update().map(|update| MessageRef::StatusUpdate(StatusRef { update, names: $names }))
            }
            $(fb::SchedulerMessage::$variant => $table.$method().map(MessageRef::$variant),)*
            other => Some(MessageRef::Unknown(other.0)),
        }
    };
}

message_ref! {
    TaskAssignment => message_as_task_assignment,
    Heartbeat => message_as_heartbeat,
    Hello => message_as_hello,
    Welcome => message_as_welcome,
    Register => message_as_register,
    Registered => message_as_registered,
    Deregister => message_as_deregister,
    TaskAcceptance => message_as_task_acceptance,
    TaskRejection => message_as_task_rejection,
    TaskCancellation => message_as_task_cancellation,
    Ack => message_as_ack,
    Nack => message_as_nack,
    Chunk => message_as_chunk,
    LogRequest => message_as_log_request,
    LogChunk => message_as_log_chunk,
    Enroll => message_as_enroll,
    Enrolled => message_as_enrolled,
    SubmitJob => message_as_submit_job,
    JobSubmitted => message_as_job_submitted,
    CancelWork => message_as_cancel_work,
    CreateToken => message_as_create_token,
    TokenCreated => message_as_token_created,
    Query => message_as_query,
    Page => message_as_page,
}

/// Reads an attempt's id as messages carry it.
pub fn attempt_id(task_id: Option<&str>, attempt: u32) -> Result<AttemptId, crate::ids::TaskIdError> {
    Ok(AttemptId { task: task_id.unwrap_or_default().parse()?, attempt })
}

/// Writes a task id's text without allocating.
pub fn write_task_id<'b>(
    builder: &mut flatbuffers::FlatBufferBuilder<'b>,
    task: TaskId,
) -> flatbuffers::WIPOffset<&'b str> {
    let mut text = SmallVec::<[u8; 64]>::new();
    let written = write!(text, "{task}");
    debug_assert!(written.is_ok(), "writing into memory does not fail");
    builder.create_string(std::str::from_utf8(&text).unwrap_or_default())
}

fn write_metric<'b>(
    builder: &mut flatbuffers::FlatBufferBuilder<'b>,
    (name, value): &(Arc<str>, f64),
) -> flatbuffers::WIPOffset<fb::Metric<'b>> {
    let name = Some(builder.create_string(name));
    fb::Metric::create(builder, &fb::MetricArgs { name, value: *value })
}

type OffsetList<'b, T> = flatbuffers::WIPOffset<flatbuffers::Vector<'b, flatbuffers::ForwardsUOffset<T>>>;

/// Writes a list of tables or strings; an empty one is absent.
fn write_list<'b, S, T>(
    builder: &mut flatbuffers::FlatBufferBuilder<'b>,
    from: &[S],
    write: impl Fn(&mut flatbuffers::FlatBufferBuilder<'b>, &S) -> flatbuffers::WIPOffset<T>,
) -> Option<OffsetList<'b, T>> {
    if from.is_empty() {
        return None;
    }
    let offsets: SmallVec<[_; INLINE]> = from.iter().map(|item| write(builder, item)).collect();
    Some(builder.create_vector(&offsets))
}
