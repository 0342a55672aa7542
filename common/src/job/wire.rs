//! The wire's form of a job: what is read from it was checked, what is written is read back.

use super::{
    Constraint, Custom, Dependency, FileSpec, JobError, JobSpec, Labels, Preference, Semaphore, Sweep, TaskSpec, Terms,
    bound, named,
};
use crate::{fb, ids::Name, labels, limits::JOB_BYTES_MAX, resources::Resources, verified};

impl JobSpec {
    /// Reads and checks the wire's form: a FlatBuffer whose root is `JobSpec`.
    pub fn from_wire(bytes: &[u8]) -> Result<JobSpec, JobError> {
        bound("the job", "bytes", bytes.len(), JOB_BYTES_MAX)?;
        let job = JobSpec::from_own_wire(bytes)?;
        job.tasks.iter().try_for_each(|task| task.check_possible())?;
        Ok(job)
    }

    /// Reads and checks what [`JobSpec::to_wire`] wrote, which may take more bytes than the form in which the
    /// job was submitted: who writes the wire may let equal texts share their bytes.
    pub fn from_own_wire(bytes: &[u8]) -> Result<JobSpec, JobError> {
        let wire = verified::job_spec(bytes).map_err(|error| JobError::Unreadable(error.to_string()))?;
        let name = named("name of the job", wire.name())?;
        let tasks = wire.tasks().into_iter().flatten().map(TaskSpec::from_wire).collect::<Result<_, _>>()?;
        let queue = match wire.queue() {
            None => Name::default_queue(),
            queue => named("queue of the job", queue)?,
        };
        let job = JobSpec::accepted(name, tasks, Terms::from_wire(wire)?)?.labelled(Labels::from_wire(wire))?;
        Ok(job.in_queue(queue))
    }

    /// Writes the wire's form.
    pub fn to_wire(&self) -> Vec<u8> {
        let mut builder = flatbuffers::FlatBufferBuilder::new();
        let wire = fb::JobSpecT {
            queue: (self.queue != Name::default_queue()).then(|| self.queue.to_string()),
            name: Some(self.name.to_string()),
            tasks: Some(self.tasks.iter().map(|task| task.to_wire()).collect()),
            lost_after: self.terms.lost_after_s,
            stop_on_disconnect_after_ms: self.terms.stop_on_disconnect_after_ms,
            retry_lost: self.terms.retry_lost,
            keep: self.terms.keep,
            exclusive: self.terms.exclusive,
            stop_after_failures: self.terms.stop_after_failures,
            deadline_ms: self.terms.deadline_ms,
            start_after_ms: self.terms.start_after_ms,
            start_at: self.terms.start_at_ms,
            max_running: self.terms.max_running,
            await_agents: self.terms.await_agents,
            labels: labels::to_wire(&self.labels.labels),
            annotations: labels::to_wire(&self.labels.annotations),
        };
        let root = wire.pack(&mut builder);
        builder.finish(root, None);
        builder.finished_data().to_vec()
    }
}

impl TaskSpec {
    fn from_wire(wire: fb::TaskSpec<'_>) -> Result<TaskSpec, JobError> {
        let name = named("name of a task", wire.name())?;
        let task = name.to_string();
        let unknown = |what, found: String, expected| JobError::Invalid { task: task.clone(), what, found, expected };
        if wire.executor().variant_name().is_none() {
            return Err(unknown("executor", wire.executor().0.to_string(), "an executor that this version knows"));
        }
        if !wire.any_agent_type() && wire.agent_type().variant_name().is_none() {
            return Err(unknown("agent_type", wire.agent_type().0.to_string(), "an agent type that exists"));
        }
        if wire.storage_backend().variant_name().is_none() {
            return Err(unknown("storage_backend", wire.storage_backend().0.to_string(), "a storage type that exists"));
        }
        if wire.gang_lost().variant_name().is_none() {
            return Err(unknown("gang_lost", wire.gang_lost().0.to_string(), "restart, replace or fail"));
        }
        // Resources::from_wire cuts to the limits, which suits capacities; a request is refused instead.
        let resources = Resources::from_wire(wire.resources());
        let asked = wire.resources().map(|spec| spec.unpack()).unwrap_or_default();
        let custom = Custom::from_wire(wire.resources())
            .map_err(|error| JobError::Custom { task: task.clone(), error: Box::new(error) })?;
        if (fb::ResourceSpecT { custom: None, ..asked.clone() }) != resources.to_wire() {
            return Err(unknown("resources", format!("{asked:?}"), "amounts within the limits of docs/protocol.md"));
        }
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        let constraints = wire.constraints().into_iter().flatten();
        let constraints = constraints.map(|constraint| Constraint::from_wire(&name, constraint));
        let prefer = wire.prefer().into_iter().flatten().map(|wire| Preference::from_wire(&name, wire));
        let semaphores = wire.semaphores().into_iter().flatten().map(|wire| Semaphore::from_wire(&name, wire));
        let after = wire.after().into_iter().flatten().map(|after| Dependency::from_wire(&name, after));
        Ok(TaskSpec {
            count: wire.count(),
            array: wire.array(),
            agent_type: (!wire.any_agent_type()).then_some(wire.agent_type()),
            resources,
            custom,
            storage_backend: wire.storage_backend(),
            executor: wire.executor(),
            command: text(wire.command()),
            arguments: wire.arguments().into_iter().flatten().map(str::to_owned).collect(),
            environment: pairs(wire.environment()),
            parameters: text(wire.parameters()),
            files: wire.files().into_iter().flatten().map(FileSpec::from_wire).collect(),
            priority: wire.priority(),
            constraints: constraints.collect::<Result<_, _>>()?,
            timeout_s: wire.timeout(),
            queue_timeout_s: wire.queue_timeout(),
            max_attempts: wire.max_attempts(),
            max_losses: wire.max_losses(),
            backoff_ms: wire.backoff_ms(),
            kill_grace_ms: wire.kill_grace_ms(),
            result_path: text(wire.result_path()),
            after: after.collect::<Result<_, _>>()?,
            max_running: wire.max_running(),
            whole_agent: wire.whole_agent(),
            distinct_agents: wire.distinct_agents(),
            prefer: prefer.collect::<Result<_, _>>()?,
            sweep: wire.sweep().map(|sweep| Box::new(Sweep::from_wire(sweep))),
            semaphores: semaphores.collect::<Result<_, _>>()?,
            gang: wire.gang(),
            gang_lost: wire.gang_lost(),
            name,
        })
    }

    fn to_wire(&self) -> fb::TaskSpecT {
        let file = |file: &FileSpec| fb::FileT {
            path: Some(file.path.clone()),
            data: Some(file.data.clone()),
            executable: file.executable,
        };
        fb::TaskSpecT {
            name: Some(self.name.to_string()),
            count: self.count,
            array: self.array,
            agent_type: self.agent_type.unwrap_or_default(),
            any_agent_type: self.agent_type.is_none(),
            resources: Some(Box::new(self.resources.to_wire_with(&self.custom))),
            storage_backend: self.storage_backend,
            executor: self.executor,
            command: some(&self.command),
            arguments: (!self.arguments.is_empty()).then(|| self.arguments.clone()),
            environment: (!self.environment.is_empty()).then(|| key_values(&self.environment)),
            parameters: some(&self.parameters),
            files: (!self.files.is_empty()).then(|| self.files.iter().map(file).collect()),
            priority: self.priority,
            constraints: (!self.constraints.is_empty())
                .then(|| self.constraints.iter().map(Constraint::to_wire).collect()),
            timeout: self.timeout_s,
            queue_timeout: self.queue_timeout_s,
            max_attempts: self.max_attempts,
            max_losses: self.max_losses,
            backoff_ms: self.backoff_ms,
            kill_grace_ms: self.kill_grace_ms,
            result_path: some(&self.result_path),
            after: (!self.after.is_empty()).then(|| self.after.iter().map(Dependency::to_wire).collect()),
            max_running: self.max_running,
            whole_agent: self.whole_agent,
            distinct_agents: self.distinct_agents,
            prefer: (!self.prefer.is_empty()).then(|| self.prefer.iter().map(Preference::to_wire).collect()),
            sweep: self.sweep.as_ref().map(|sweep| Box::new(sweep.to_wire())),
            semaphores: (!self.semaphores.is_empty()).then(|| self.semaphores.iter().map(Semaphore::to_wire).collect()),
            gang: self.gang,
            gang_lost: self.gang_lost,
        }
    }
}

impl FileSpec {
    fn from_wire(wire: fb::File<'_>) -> FileSpec {
        FileSpec {
            path: wire.path().unwrap_or_default().to_owned(),
            data: wire.data().map(|data| data.bytes().to_vec()).unwrap_or_default(),
            executable: wire.executable(),
        }
    }
}

/// Reads a list of keys and values.
pub fn pairs(
    wire: Option<flatbuffers::Vector<'_, flatbuffers::ForwardsUOffset<fb::KeyValue<'_>>>>,
) -> Vec<(String, String)> {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    wire.into_iter().flatten().map(|pair| (text(pair.key()), text(pair.value()))).collect()
}

/// Writes a list of keys and values.
pub fn key_values(pairs: &[(String, String)]) -> Vec<fb::KeyValueT> {
    pairs.iter().map(|(key, value)| fb::KeyValueT { key: Some(key.clone()), value: Some(value.clone()) }).collect()
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
