//! Writing messages for the wire, front to back (docs/protocol.md#sealing).
//!
//! The frequent messages are written straight into the frame, and allocate nothing. Rare ones are built aside with the
//! generated builder and copied. What a peer would refuse is not written: numbers that are none, metrics beyond their
//! bounds.

use super::{
    Ack, Assignment, End, Message, MetricNumbers, Status,
    forward::{Kind, Place, Table, Writer},
    nearest_seed_status,
};
use crate::{
    custom::Custom,
    envelope::Features,
    fb,
    ids::{AttemptId, TaskId},
    limits::{METRIC_NAME_BYTES_MAX, METRICS_MAX},
    resources::Resources,
};
use smallvec::SmallVec;
use std::sync::Arc;

/// What writing a message needs to know of its session, and where rare ones are built.
pub(crate) struct WriteContext<'s> {
    /// What both peers know.
    pub(crate) features: Features,
    /// The numbers given so far.
    pub(crate) numbers: &'s mut MetricNumbers,
    /// Where rare messages are built.
    pub(crate) aside: &'s mut flatbuffers::FlatBufferBuilder<'static>,
}

// §seal-5
impl Message {
    /// Writes its table, where `place` leads: the value of a union in an envelope, an item or a body.
    pub(crate) fn write(&self, writer: &mut Writer<'_>, place: Place, context: &mut WriteContext<'_>) {
        match self {
            Message::Assignment(assignment) => assignment.write_forward(writer, place),
            Message::Status(status) => status.write(writer, place, context),
            Message::Heartbeat(beat) => {
                let mut table = Table::<16, 25>::new();
                table.u32(fb::Heartbeat::VT_CPU, beat.usage.cpu);
                table.u32(fb::Heartbeat::VT_MEMORY, beat.usage.memory);
                table.u32(fb::Heartbeat::VT_GPU, beat.usage.gpu);
                table.u32(fb::Heartbeat::VT_STORAGE, beat.usage.storage);
                table.u32(fb::Heartbeat::VT_RUNNING, beat.running);
                table.u8(fb::Heartbeat::VT_ANSWER, beat.answer.into());
                writer.table(place, Kind::Heartbeat, table);
            }
            Message::Acceptance(id) => {
                let mut table = Table::<8, 12>::new();
                let task_id = table.child(fb::TaskAcceptance::VT_TASK_ID);
                table.u32(fb::TaskAcceptance::VT_ATTEMPT, id.attempt);
                let written = writer.table(place, Kind::Acceptance, table);
                write_task_id(writer, written.place(task_id), id.task);
            }
            Message::Cancellation(id, reason) => write_cancellation(writer, place, *id, *reason, false),
            Message::Recall(id) => write_cancellation(writer, place, *id, fb::EndReason::Released, true),
            Message::Ack(ack) => write_ack(writer, place, ack),
            // What carries a large body is copied once, to its place.
            Message::Rare(fb::SchedulerMessageT::LogChunk(chunk)) => write_log_chunk(writer, place, chunk),
            Message::Rare(fb::SchedulerMessageT::SubmitJob(submit)) => write_submit(writer, place, submit),
            Message::Rare(message) => {
                context.aside.reset();
                let root = message.pack(context.aside);
                // `NONE` packs to nothing; an empty Deregister-like table would change its meaning, so
                // it becomes a Nack that says what it is.
                let root = root.unwrap_or_else(|| {
                    let args = fb::NackArgs { code: fb::ErrorCode::Internal, ..Default::default() };
                    fb::Nack::create(context.aside, &args).as_union_value()
                });
                context.aside.finish_minimal(root);
                writer.embed(place, context.aside.finished_data());
            }
        }
    }
}

fn write_cancellation(writer: &mut Writer<'_>, place: Place, id: AttemptId, reason: fb::EndReason, if_waiting: bool) {
    let mut table = Table::<12, 14>::new();
    let task_id = table.child(fb::TaskCancellation::VT_TASK_ID);
    table.u32(fb::TaskCancellation::VT_ATTEMPT, id.attempt);
    table.u8(fb::TaskCancellation::VT_REASON, reason.0);
    table.u8(fb::TaskCancellation::VT_IF_WAITING, if_waiting.into());
    let written = writer.table(place, Kind::Cancellation, table);
    write_task_id(writer, written.place(task_id), id.task);
}

fn write_ack(writer: &mut Writer<'_>, place: Place, ack: &Ack) {
    let mut table = Table::<12, 12>::new();
    match ack {
        Ack::Request(request) => table.u64(fb::Ack::VT_REQUEST, *request),
        Ack::Heartbeat(echo) => table.u64(fb::Ack::VT_ECHO, *echo),
        Ack::Final(id) => {
            let task_id = table.child(fb::Ack::VT_TASK_ID);
            table.u32(fb::Ack::VT_ATTEMPT, id.attempt);
            let written = writer.table(place, Kind::Ack, table);
            return write_task_id(writer, written.place(task_id), id.task);
        }
    }
    writer.table(place, Kind::Ack, table);
}

fn write_log_chunk(writer: &mut Writer<'_>, place: Place, chunk: &fb::LogChunkT) {
    type Wire = fb::LogChunk<'static>;
    let mut table = Table::<22, 50>::new();
    table.u64(Wire::VT_REQUEST, chunk.request);
    table.u64(Wire::VT_OFFSET, chunk.offset);
    table.u64(Wire::VT_DROPPED, chunk.dropped);
    table.u64(Wire::VT_SIZE, chunk.size);
    table.u32(Wire::VT_ATTEMPT, chunk.attempt);
    let task_id = table.child_if(chunk.task_id.is_some(), Wire::VT_TASK_ID);
    let data = table.child_if(chunk.data.is_some(), Wire::VT_DATA);
    table.u8(Wire::VT_STREAM, chunk.stream.0);
    table.u8(Wire::VT_ENDED, chunk.ended.into());
    let written = writer.table(place, Kind::LogChunk, table);
    if let (Some(child), Some(text)) = (task_id, &chunk.task_id) {
        writer.text(written.place(child), text);
    }
    if let (Some(child), Some(bytes)) = (data, &chunk.data) {
        writer.vector(written.place(child), bytes);
    }
}

fn write_submit(writer: &mut Writer<'_>, place: Place, submit: &fb::SubmitJobT) {
    let mut table = Table::<10, 20>::new();
    table.u64(fb::SubmitJob::VT_REQUEST, submit.request);
    let submit_id = table.child_if(submit.submit_id.is_some(), fb::SubmitJob::VT_SUBMIT_ID);
    let job = table.child_if(submit.job.is_some(), fb::SubmitJob::VT_JOB);
    let written = writer.table(place, Kind::SubmitJob, table);
    for (child, bytes) in [(submit_id, &submit.submit_id), (job, &submit.job)] {
        if let (Some(child), Some(bytes)) = (child, bytes) {
            writer.vector(written.place(child), bytes);
        }
    }
}

impl Assignment {
    fn write_forward(&self, writer: &mut Writer<'_>, place: Place) {
        type Wire = fb::TaskAssignment<'static>;
        let spec = &*self.spec;
        let mut table = Table::<46, 128>::new();
        table.put(Wire::VT_RECEIPT, self.receipt.0);
        table.u64(Wire::VT_INCARNATION, self.receipt.incarnation());
        table.u64(Wire::VT_TIMEOUT, spec.timeout_s);
        table.u64(Wire::VT_DEADLINE, self.deadline_ms);
        table.u64(Wire::VT_STOP_ON_DISCONNECT_AFTER_MS, self.stop_on_disconnect_after_ms);
        table.u64(Wire::VT_JOB_KEY, self.job_key.0);
        table.u32(Wire::VT_ATTEMPT, self.attempt.attempt);
        table.u32(Wire::VT_KILL_GRACE_MS, spec.kill_grace_ms);
        let task_id = table.child(Wire::VT_TASK_ID);
        let resources = table.child(Wire::VT_RESOURCES);
        let command = table.child_if(!spec.command.is_empty(), Wire::VT_COMMAND);
        let arguments = table.child_if(!spec.arguments.is_empty(), Wire::VT_ARGUMENTS);
        let environment = table.child_if(!spec.environment.is_empty(), Wire::VT_ENVIRONMENT);
        let parameters = table.child_if(!spec.parameters.is_empty(), Wire::VT_PARAMETERS);
        let files = table.child_if(!spec.files.is_empty(), Wire::VT_FILES);
        let result_path = table.child_if(!spec.result_path.is_empty(), Wire::VT_RESULT_PATH);
        table.u8(Wire::VT_AGENT_TYPE, spec.agent_type.unwrap_or_default().0.cast_unsigned());
        table.u8(Wire::VT_STORAGE_BACKEND, spec.storage_backend.0.cast_unsigned());
        table.u8(Wire::VT_EXECUTOR, spec.executor.0);
        table.u8(Wire::VT_PRIORITY, spec.priority.cast_unsigned());
        table.u8(Wire::VT_ANY_AGENT_TYPE, spec.agent_type.is_none().into());
        let written = writer.table(place, Kind::Assignment, table);
        write_task_id(writer, written.place(task_id), self.attempt.task);
        write_resources(writer, written.place(resources), spec.resources, &spec.custom);
        for (child, text) in
            [(command, &spec.command), (parameters, &spec.parameters), (result_path, &spec.result_path)]
        {
            if let Some(child) = child {
                writer.text(written.place(child), text);
            }
        }
        if let Some(child) = arguments {
            write_list(writer, written.place(child), &spec.arguments, |writer, place, text| writer.text(place, text));
        }
        if let Some(child) = environment {
            write_list(writer, written.place(child), &spec.environment, |writer, place, (key, value)| {
                let mut table = Table::<8, 12>::new();
                let children = [table.child(fb::KeyValue::VT_KEY), table.child(fb::KeyValue::VT_VALUE)];
                let written = writer.table(place, Kind::Pair, table);
                for (child, text) in children.into_iter().zip([key, value]) {
                    writer.text(written.place(child), text);
                }
            });
        }
        if let Some(child) = files {
            write_list(writer, written.place(child), &spec.files, |writer, place, file| {
                let mut table = Table::<10, 13>::new();
                let path = table.child(fb::File::VT_PATH);
                let data = table.child(fb::File::VT_DATA);
                table.u8(fb::File::VT_EXECUTABLE, file.executable.into());
                let written = writer.table(place, Kind::File, table);
                writer.text(written.place(path), &file.path);
                writer.vector(written.place(data), &file.data);
            });
        }
    }
}

fn write_resources(writer: &mut Writer<'_>, place: Place, resources: Resources, custom: &Custom) {
    let mut table = Table::<14, 24>::new();
    table.u32(fb::ResourceSpec::VT_CPU, resources.cpu);
    table.u32(fb::ResourceSpec::VT_MEMORY, resources.memory);
    table.u32(fb::ResourceSpec::VT_GPU, resources.gpu);
    table.u32(fb::ResourceSpec::VT_STORAGE, resources.storage);
    let amounts = table.child_if(!custom.is_empty(), fb::ResourceSpec::VT_CUSTOM);
    let written = writer.table(place, Kind::Resources, table);
    let Some(amounts) = amounts else { return };
    write_list(writer, written.place(amounts), custom.pairs(), |writer, place, (name, amount)| {
        let mut table = Table::<8, 12>::new();
        let child = table.child(fb::CustomResource::VT_NAME);
        table.u32(fb::CustomResource::VT_AMOUNT, *amount);
        let written = writer.table(place, Kind::Custom, table);
        writer.text(written.place(child), name);
    });
}

/// Writes a list of tables or texts.
fn write_list<S>(writer: &mut Writer<'_>, place: Place, list: &[S], write: impl Fn(&mut Writer<'_>, Place, &S)) {
    let offsets = writer.offsets(place, list.len());
    for (number, item) in list.iter().enumerate() {
        write(writer, offsets.place(number), item);
    }
}

impl Status {
    /// Writes the table. Statuses beyond the seed's four become the nearest of them for peers that do
    /// not know better (docs/protocol.md#statuses).
    fn write(&self, writer: &mut Writer<'_>, place: Place, context: &mut WriteContext<'_>) {
        type Wire = fb::StatusUpdate<'static>;
        let known = context.features.has(Features::EXTENDED_STATUS);
        let implied;
        let end = match &self.end {
            Some(end) => Some(&**end),
            None if known => None,
            // What the nearest status does not say, the reason does.
            None => {
                implied = implied_reason(self.status).map(|reason| End { reason, ..End::default() });
                implied.as_ref()
            }
        };
        let status = if known { self.status } else { nearest_seed_status(self.status) };
        let numbers = context.features.has(Features::INTERNED_METRICS).then_some(&mut *context.numbers);
        let mut metrics = Metrics::default();
        // Nearly always a task sends the metrics that it sent before, whose numbers follow each other.
        let run = numbers.as_ref().and_then(|numbers| numbers.run(&self.metrics));
        if run.is_none() {
            metrics.gather(self, numbers);
        }
        let numbered = run.is_some() || !metrics.ids.is_empty();

        let mut table = Table::<26, 45>::new();
        table.u64(Wire::VT_JOB_KEY, self.job_key.0);
        let task_id = table.child(Wire::VT_TASK_ID);
        table.u32(Wire::VT_ATTEMPT, self.attempt.attempt);
        table.u32(Wire::VT_PROGRESS, written_progress(self.progress).to_bits());
        let ids = table.child_if(numbered, Wire::VT_METRIC_IDS);
        let values = table.child_if(numbered, Wire::VT_METRIC_VALUES);
        let names = table.child_if(!metrics.defined.is_empty(), Wire::VT_METRIC_NAMES);
        let plain = table.child_if(!metrics.plain.is_empty(), Wire::VT_METRICS);
        let ended = table.child_if(end.is_some(), Wire::VT_END);
        let note = table.child_if(!self.note.is_empty(), Wire::VT_NOTE);
        table.u8(Wire::VT_STATUS, status.0.cast_unsigned());
        let written = writer.table(place, Kind::Status, table);
        write_task_id(writer, written.place(task_id), self.attempt.task);
        if let (Some(ids), Some(values)) = (ids, values) {
            let (ids, values) = (written.place(ids), written.place(values));
            if let Some(first) = run {
                let count = self.metrics.len();
                writer.numbers(ids, count, (first..).map(u16::to_le_bytes));
                writer.numbers(values, count, self.metrics.iter().map(|(_, value)| value.to_le_bytes()));
            } else {
                writer.numbers(ids, metrics.ids.len(), metrics.ids.iter().map(|id| id.to_le_bytes()));
                writer.numbers(values, metrics.values.len(), metrics.values.iter().map(|value| value.to_le_bytes()));
            }
        }
        if let Some(names) = names {
            write_list(writer, written.place(names), &metrics.defined, |writer, place, (number, name)| {
                let mut table = Table::<8, 10>::new();
                let child = table.child(fb::MetricName::VT_NAME);
                if *number != 0 {
                    table.put(fb::MetricName::VT_ID, number.to_le_bytes());
                }
                let written = writer.table(place, Kind::MetricName, table);
                writer.text(written.place(child), name);
            });
        }
        if let Some(plain) = plain {
            write_list(writer, written.place(plain), &metrics.plain, |writer, place, (name, value)| {
                let mut table = Table::<8, 16>::new();
                table.u64(fb::Metric::VT_VALUE, value.to_bits());
                let child = table.child(fb::Metric::VT_NAME);
                let written = writer.table(place, Kind::Metric, table);
                writer.text(written.place(child), name);
            });
        }
        if let (Some(child), Some(end)) = (ended, end) {
            end.write_forward(writer, written.place(child));
        }
        if let Some(child) = note {
            writer.text(written.place(child), &self.note);
        }
    }
}

/// The metrics of a status that a peer takes: finite, named, and no more than it bears.
#[derive(Default)]
struct Metrics<'m> {
    /// Those whose names the session has numbered.
    ids: SmallVec<[u16; METRICS_MAX]>,
    values: SmallVec<[f64; METRICS_MAX]>,
    /// The names that are given numbers here.
    defined: SmallVec<[(u16, &'m str); METRICS_MAX]>,
    /// Those whose names are sent as text.
    plain: SmallVec<[(&'m str, f64); METRICS_MAX]>,
}

impl<'m> Metrics<'m> {
    fn gather(&mut self, status: &'m Status, mut numbers: Option<&mut MetricNumbers>) {
        let good =
            |(name, value): &&(Arc<str>, f64)| value.is_finite() && (1..=METRIC_NAME_BYTES_MAX).contains(&name.len());
        let mut guess = 0;
        for (name, value) in status.metrics.iter().filter(good).take(METRICS_MAX) {
            let Some((number, new)) = numbers.as_mut().and_then(|numbers| numbers.number(name, guess)) else {
                self.plain.push((name, *value));
                continue;
            };
            guess = number + 1;
            if new {
                self.defined.push((number, name));
            }
            self.ids.push(number);
            self.values.push(*value);
        }
    }
}

impl End {
    fn write_forward(&self, writer: &mut Writer<'_>, place: Place) {
        type Wire = fb::AttemptEnd<'static>;
        let mut table = Table::<24, 54>::new();
        table.u64(Wire::VT_STDOUT_BYTES, self.stdout_bytes);
        table.u64(Wire::VT_STDERR_BYTES, self.stderr_bytes);
        table.u64(Wire::VT_STARTED_AT, self.started_at_ms);
        table.u64(Wire::VT_ENDED_AT, self.ended_at_ms);
        table.u32(Wire::VT_EXIT_CODE, self.exit_code.cast_unsigned());
        let usage = table.child(Wire::VT_USAGE);
        let message = table.child_if(!self.message.is_empty(), Wire::VT_MESSAGE);
        let result = table.child_if(self.result.is_some(), Wire::VT_RESULT);
        table.u8(Wire::VT_REASON, self.reason.0);
        table.u8(Wire::VT_SIGNAL, self.signal);
        let written = writer.table(place, Kind::End, table);
        let mut table = Table::<12, 36>::new();
        table.u64(fb::ResourceUsage::VT_USER_US, self.user_us);
        table.u64(fb::ResourceUsage::VT_SYSTEM_US, self.system_us);
        table.u64(fb::ResourceUsage::VT_MEMORY_PEAK_KB, self.memory_peak_kb);
        table.u64(fb::ResourceUsage::VT_WALL_US, self.wall_us);
        writer.table(written.place(usage), Kind::Usage, table);
        if let Some(child) = message {
            writer.text(written.place(child), &self.message);
        }
        if let (Some(child), Some(bytes)) = (result, &self.result) {
            writer.vector(written.place(child), bytes);
        }
    }
}

fn write_task_id(writer: &mut Writer<'_>, place: Place, task: TaskId) {
    writer.ascii(place, task_id_text(task, &mut [0; TASK_ID_BYTES_MAX]));
}

/// The longest text of a task id: three numbers of 64, 16 and 32 bits, two dots, and the zero byte behind it.
pub(super) const TASK_ID_BYTES_MAX: usize = 20 + 5 + 10 + 2 + 1;

/// What a task id's `Display` writes, and a zero byte, without a formatter: nearly every message has one.
pub(super) fn task_id_text(task: TaskId, room: &mut [u8; TASK_ID_BYTES_MAX]) -> &[u8] {
    let mut start = room.len() - 1;
    let mut put = |byte| {
        start -= 1;
        if let Some(place) = room.get_mut(start) {
            *place = byte;
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
    room.get(start..).unwrap_or_default()
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
        fb::TaskStatus::Skipped => Some(fb::EndReason::DependencyUnmet),
        _ => None,
    }
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
                    assert_eq!(task_id_text(task, &mut [0; TASK_ID_BYTES_MAX]), format!("{task}\0").as_bytes());
                }
            }
        }
    }
}
