//! Writing messages into a FlatBuffer that is being built (docs/protocol.md#sealing).
//!
//! Nothing here allocates for the frequent messages: lists of offsets are gathered on the stack. What
//! a peer would refuse is not written: numbers that are none, metrics beyond their bounds.

use super::{Ack, Assignment, End, Message, MetricNumbers, Status, nearest_seed_status};
use crate::{
    envelope::Features,
    fb,
    ids::{AttemptId, TaskId},
    limits::{METRIC_NAME_BYTES_MAX, METRICS_MAX},
};
use smallvec::SmallVec;
use std::sync::Arc;

/// Lists up to this length are gathered on the stack: what keeps sealing free of allocations.
const INLINE: usize = METRICS_MAX;

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

// §seal-5
impl Message {
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
            Message::Cancellation(id, reason) => write_cancellation(builder, *id, *reason, false),
            Message::Recall(id) => write_cancellation(builder, *id, fb::EndReason::Released, true),
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

fn write_cancellation(builder: &mut Builder, id: AttemptId, reason: fb::EndReason, if_waiting: bool) -> Union {
    let task_id = Some(write_task_id(builder, id.task));
    let args = fb::TaskCancellationArgs { task_id, attempt: id.attempt, reason, if_waiting };
    fb::TaskCancellation::create(builder, &args).as_union_value()
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
            stop_on_disconnect_after_ms: self.stop_on_disconnect_after_ms,
            job_key: self.job_key.0,
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
        let known = context.features.has(Features::EXTENDED_STATUS);
        let end = match &self.end {
            Some(end) => Some(end.write(builder)),
            None if known => None,
            // What the nearest status does not say, the reason does.
            None => implied_reason(self.status).map(|reason| End { reason, ..End::default() }.write(builder)),
        };
        let mut args = fb::StatusUpdateArgs {
            task_id,
            status: if known { self.status } else { nearest_seed_status(self.status) },
            progress: written_progress(self.progress),
            attempt: self.attempt.attempt,
            note,
            end,
            job_key: self.job_key.0,
            ..Default::default()
        };
        if context.features.has(Features::INTERNED_METRICS) && !self.metrics.is_empty() {
            self.write_interned(builder, context, &mut args);
        } else {
            let plain: SmallVec<[_; INLINE]> = self.sendable().map(|metric| write_metric(builder, metric)).collect();
            args.metrics = (!plain.is_empty()).then(|| builder.create_vector(&plain));
        }
        fb::StatusUpdate::create(builder, &args)
    }

    /// The metrics that a peer takes: finite, named, and no more than it bears.
    fn sendable(&self) -> impl Iterator<Item = (&Arc<str>, f64)> {
        let good =
            |(name, value): &&(Arc<str>, f64)| value.is_finite() && (1..=METRIC_NAME_BYTES_MAX).contains(&name.len());
        self.metrics.iter().filter(good).map(|(name, value)| (name, *value)).take(METRICS_MAX)
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
        let mut guess = 0;
        for (name, value) in self.sendable() {
            match context.numbers.number(name, guess) {
                Some((number, new)) => {
                    guess = number + 1;
                    if new {
                        let name = Some(builder.create_string(name));
                        defined.push(fb::MetricName::create(builder, &fb::MetricNameArgs { id: number, name }));
                    }
                    ids.push(number);
                    values.push(value);
                }
                None => plain.push(write_metric(builder, (name, value))),
            }
        }
        args.metric_ids = (!ids.is_empty()).then(|| builder.create_vector(&ids));
        args.metric_values = (!values.is_empty()).then(|| builder.create_vector(&values));
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
}

/// Writes a task id's text without allocating.
pub fn write_task_id<'b>(
    builder: &mut flatbuffers::FlatBufferBuilder<'b>,
    task: TaskId,
) -> flatbuffers::WIPOffset<&'b str> {
    builder.create_string(task_id_text(task, &mut [0; TASK_ID_BYTES_MAX]))
}

/// The longest text of a task id: three numbers of 64, 16 and 32 bits, and two dots.
const TASK_ID_BYTES_MAX: usize = 20 + 5 + 10 + 2;

/// What a task id's `Display` writes, without a formatter: nearly every message has one.
fn task_id_text(task: TaskId, room: &mut [u8; TASK_ID_BYTES_MAX]) -> &str {
    let mut start = room.len();
    let mut places = room.iter_mut().rev();
    let mut put = |byte| {
        if let Some(place) = places.next() {
            *place = byte;
            start -= 1;
        }
    };
    for (part, number) in [u64::from(task.index), u64::from(task.entry), task.job.0].into_iter().enumerate() {
        if part > 0 {
            put(b'.');
        }
        let mut rest = number;
        loop {
            put(b'0' + (rest % 10) as u8);
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
    }
    room.get(start..).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
}

fn write_metric<'b>(
    builder: &mut flatbuffers::FlatBufferBuilder<'b>,
    (name, value): (&Arc<str>, f64),
) -> flatbuffers::WIPOffset<fb::Metric<'b>> {
    let name = Some(builder.create_string(name));
    fb::Metric::create(builder, &fb::MetricArgs { name, value })
}

/// The progress that a peer takes: NaN says nothing, and less than nothing or more than all is cut.
fn written_progress(progress: f32) -> f32 {
    if progress.is_nan() { 0.0 } else { progress.clamp(0.0, 1.0) }
}

/// Why an attempt ended, as far as its status alone tells (docs/protocol.md#statuses).
fn implied_reason(status: fb::TaskStatus) -> Option<fb::EndReason> {
    match status {
        fb::TaskStatus::Cancelled => Some(fb::EndReason::Cancelled),
        fb::TaskStatus::TimedOut => Some(fb::EndReason::RunTimeout),
        fb::TaskStatus::Lost => Some(fb::EndReason::AgentLost),
        _ => None,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::JobId;

    #[test]
    fn a_task_ids_text_is_what_its_display_writes() {
        let numbers = [0, 1, 9, 10, 11, 99, 100, 65_535, 4_294_967_295, 9_999_999_999, u64::MAX];
        for job in numbers {
            for entry in numbers {
                for index in numbers {
                    let task = TaskId { job: JobId(job), entry: entry as u16, index: index as u32 };
                    assert_eq!(task_id_text(task, &mut [0; TASK_ID_BYTES_MAX]), task.to_string());
                }
            }
        }
    }
}
