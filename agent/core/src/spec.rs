//! What an assignment says is to be run, as it comes from the scheduler and from the journal.

use fleetwire_common::{
    custom::Custom,
    fb,
    ids::Name,
    job::{FileSpec, JobError, JobSpec, TaskSpec, pairs},
    limits::FILES_MAX,
    resources::Resources,
};
use std::sync::Arc;

/// Reads it, checked as the scheduler checked it at submit.
pub(crate) fn spec_of(assignment: fb::TaskAssignment<'_>, resources: Resources) -> Result<Arc<TaskSpec>, JobError> {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let file = |file: fb::File<'_>| FileSpec {
        path: text(file.path()),
        data: file.data().map(|data| data.bytes().to_vec()).unwrap_or_default(),
        executable: file.executable(),
    };
    let spec = TaskSpec {
        agent_type: (!assignment.any_agent_type()).then_some(assignment.agent_type()),
        resources,
        custom: Custom::from_wire(assignment.resources())
            .map_err(|error| JobError::Custom { task: TaskSpec::default().name.to_string(), error: Box::new(error) })?,
        storage_backend: assignment.storage_backend(),
        executor: assignment.executor(),
        command: text(assignment.command()),
        arguments: assignment.arguments().into_iter().flatten().map(str::to_owned).collect(),
        environment: pairs(assignment.environment()),
        parameters: text(assignment.parameters()),
        files: assignment.files().into_iter().flatten().take(FILES_MAX + 1).map(file).collect(),
        priority: assignment.priority(),
        timeout_s: assignment.timeout(),
        kill_grace_ms: assignment.kill_grace_ms(),
        result_path: text(assignment.result_path()),
        ..TaskSpec::default()
    };
    let name = spec.name.clone();
    let mut job = JobSpec::new(Name::clone(&name), vec![spec], 0)?;
    job.tasks.pop().ok_or(JobError::NoTasks)
}
