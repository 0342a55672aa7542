//! Writing tables with the generated builder, for those who keep them: journals (docs/journal.md).
//!
//! The same tables on the wire are written by `write.rs`; `common/tests/writing.rs` holds the two against each other.

use super::{
    Assignment, End,
    write::{TASK_ID_BYTES_MAX, task_id_text},
};
use crate::{fb, ids::TaskId, limits::METRICS_MAX};
use smallvec::SmallVec;

/// Lists up to this length are gathered on the stack.
const INLINE: usize = METRICS_MAX;

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
        let resources = Some(spec.resources.to_wire_with(&spec.custom).pack(builder));
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
    let mut room = [0; TASK_ID_BYTES_MAX];
    let text = task_id_text(task, &mut room).strip_suffix(&[0]).and_then(|text| std::str::from_utf8(text).ok());
    builder.create_string(text.unwrap_or_default())
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
