//! Jobs: what a user submits, validated. The client makes one from a job file, the scheduler reads
//! one from the wire; both go through [`JobSpec::new`], so a job that exists is a job that can run.

use crate::{
    constraint::{self, check_bounds},
    fb,
    ids::{Name, NameError},
    labels,
    limits::*,
    resources::Resources,
    verified,
};
pub use crate::{
    constraint::{Constraint, ConstraintError, Preference},
    custom::{Custom, CustomError},
    graph::{Dependency, Graph, GraphError},
    labels::Labels,
    sweep::Sweep,
    terms::{Terms, TermsError},
};
use std::{collections::BTreeSet, sync::Arc};

/// A validated job.
#[derive(Clone, Debug, PartialEq)]
pub struct JobSpec {
    /// What people call it.
    pub name: Name,
    /// Its task entries, at least one.
    pub tasks: Vec<Arc<TaskSpec>>,
    /// What becomes of its attempts when an agent is not heard.
    pub terms: Terms,
    /// What is written on it.
    pub labels: Labels,
}

/// One entry of a job: a task, or an array of tasks that differ in their index only.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskSpec {
    /// Unique in its job.
    pub name: Name,
    /// Tasks in the array, at least 1.
    pub count: u32,
    /// Whether it is an array (also when its count is 1).
    pub array: bool,
    /// The kind of agent it wants; `None` = any.
    pub agent_type: Option<fb::AgentType>,
    /// What it needs while it runs.
    pub resources: Resources,
    /// What it needs of what agents say they have some of.
    pub custom: Custom,
    /// Where its data lives.
    pub storage_backend: fb::StorageType,
    /// What runs it.
    pub executor: fb::Executor,
    /// The program. Empty only for `Noop`.
    pub command: String,
    /// Its arguments, without the program's name.
    pub arguments: Vec<String>,
    /// Environment variables, in order, names unique.
    pub environment: Vec<(String, String)>,
    /// JSON text that the task finds in its environment. Empty = none.
    pub parameters: String,
    /// Files that appear in its working directory.
    pub files: Vec<FileSpec>,
    /// Higher goes first.
    pub priority: i8,
    /// What its agent's labels must satisfy, all of them.
    pub constraints: Vec<Constraint>,
    /// Seconds of run time; 0 = no limit.
    pub timeout_s: u64,
    /// Seconds that it may wait for an agent; 0 = no limit.
    pub queue_timeout_s: u64,
    /// Failures after which it has failed, at least 1.
    pub max_attempts: u32,
    /// Losses of its agent after which it has failed, at least 1.
    pub max_losses: u32,
    /// Milliseconds before the second attempt; doubles with each failure, with jitter and a cap.
    pub backoff_ms: u32,
    /// Milliseconds between SIGTERM and SIGKILL.
    pub kill_grace_ms: u32,
    /// The file in the working directory that holds its result. Empty = `result`.
    pub result_path: String,
    /// What must have ended before, all of it.
    pub after: Vec<Dependency>,
    /// Attempts of its tasks that may be assigned or running at once; 0 = any number.
    pub max_running: u32,
    /// Nothing else is on its agent meanwhile.
    pub whole_agent: bool,
    /// No two of its tasks are on one agent at once.
    pub distinct_agents: bool,
    /// Which of the agents on which it fits it goes to rather.
    pub prefer: Vec<Preference>,
    /// The parameters in which its tasks differ.
    pub sweep: Option<Box<Sweep>>,
}

impl Default for TaskSpec {
    fn default() -> TaskSpec {
        let wire = fb::TaskSpecT::default();
        TaskSpec {
            name: Name::new("task").unwrap_or_else(|_| unreachable!("a literal that is a name")),
            count: 1,
            array: false,
            agent_type: None,
            resources: Resources::ZERO,
            custom: Custom::default(),
            storage_backend: fb::StorageType::Local,
            executor: fb::Executor::Process,
            command: String::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            parameters: String::new(),
            files: Vec::new(),
            priority: 0,
            constraints: Vec::new(),
            timeout_s: 0,
            queue_timeout_s: 0,
            max_attempts: wire.max_attempts,
            max_losses: wire.max_losses,
            backoff_ms: wire.backoff_ms,
            kill_grace_ms: wire.kill_grace_ms,
            result_path: String::new(),
            after: Vec::new(),
            max_running: 0,
            whole_agent: false,
            distinct_agents: false,
            prefer: Vec::new(),
            sweep: None,
        }
    }
}

/// A file that a task carries.
#[derive(Clone, Debug, PartialEq)]
pub struct FileSpec {
    /// Relative, of plain components.
    pub path: String,
    /// Its bytes.
    pub data: Vec<u8>,
    /// Whether it may be executed.
    pub executable: bool,
}

/// Why a job is refused. `task` is the entry's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// The bytes are no FlatBuffer with a `JobSpec`.
    #[error("the job cannot be read: {0}")]
    Unreadable(String),
    /// A name that is none.
    #[error("{what}: {error}")]
    Name {
        /// Which name.
        what: String,
        /// What is wrong with it.
        error: NameError,
    },
    /// Nothing to do.
    #[error("a job needs at least one task")]
    NoTasks,
    /// Two entries of one name.
    #[error("two tasks are called `{0}`: names are unique in a job")]
    DuplicateTask(String),
    /// Something is longer, larger or more than it may be.
    #[error("{what} of task `{task}`: {found} is more than the limit of {max}")]
    TooMuch {
        /// The entry.
        task: String,
        /// What is too much.
        what: &'static str,
        /// What came.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// A field has a value that it cannot have.
    #[error("{what} of task `{task}` is `{found}`: expected {expected}")]
    Invalid {
        /// The entry.
        task: String,
        /// Which field.
        what: &'static str,
        /// What came.
        found: String,
        /// What would do.
        expected: &'static str,
    },
    /// No agent can ever satisfy its constraints.
    #[error("constraints of task `{task}`: {error}")]
    Constraints {
        /// The entry.
        task: String,
        /// What is wrong with them.
        error: Box<ConstraintError>,
    },
    /// It asks for custom resources that cannot be.
    #[error("resources of task `{task}`: {error}")]
    Custom {
        /// The entry.
        task: String,
        /// What is wrong with them.
        error: Box<CustomError>,
    },
    /// Its terms contradict each other, or what agents can keep.
    #[error("{0}")]
    Terms(#[from] TermsError),
    /// Its tasks wait for ever, or for what does not exist.
    #[error("{0}")]
    Graph(Box<GraphError>),
}

impl JobSpec {
    /// Checks a job: names, counts, sizes, paths, and that every task has something to run and can come to it.
    pub fn new(name: Name, tasks: Vec<TaskSpec>, terms: impl Into<Terms>) -> Result<JobSpec, JobError> {
        let job = JobSpec::accepted(name, tasks, terms.into())?;
        job.tasks.iter().try_for_each(|task| task.check_possible())?;
        Ok(job)
    }

    /// Checks whatever a journal may hold: not what jobs were once accepted without.
    fn accepted(name: Name, tasks: Vec<TaskSpec>, terms: Terms) -> Result<JobSpec, JobError> {
        if tasks.is_empty() {
            return Err(JobError::NoTasks);
        }
        bound("the job", "number of tasks", tasks.len(), TASK_ENTRIES_MAX)?;
        let mut names = BTreeSet::new();
        let mut file_bytes = 0;
        for task in &tasks {
            task.check()?;
            file_bytes += task.files.iter().map(|file| file.data.len()).sum::<usize>();
            if !names.insert(task.name.clone()) {
                return Err(JobError::DuplicateTask(task.name.to_string()));
            }
        }
        bound("the job", "bytes of all files", file_bytes, FILES_BYTES_MAX)?;
        terms.check(&tasks)?;
        Graph::of(&tasks)?;
        let labels = Labels::default();
        Ok(JobSpec { name, tasks: tasks.into_iter().map(Arc::new).collect(), terms, labels })
    }

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
        JobSpec::accepted(name, tasks, Terms::from_wire(wire)?)?.labelled(Labels::from_wire(wire))
    }

    /// The same job with these labels and annotations.
    ///
    /// # Errors
    /// There are more than may be, or they are longer.
    pub fn labelled(self, labels: Labels) -> Result<JobSpec, JobError> {
        labels.check()?;
        Ok(JobSpec { labels, ..self })
    }

    /// Writes the wire's form.
    pub fn to_wire(&self) -> Vec<u8> {
        let mut builder = flatbuffers::FlatBufferBuilder::new();
        let wire = fb::JobSpecT {
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
            max_running: self.terms.max_running,
            labels: labels::to_wire(&self.labels.labels),
            annotations: labels::to_wire(&self.labels.annotations),
        };
        let root = wire.pack(&mut builder);
        builder.finish(root, None);
        builder.finished_data().to_vec()
    }

    /// How many tasks it has in all.
    pub fn task_count(&self) -> u64 {
        self.tasks.iter().map(|task| u64::from(task.count)).sum()
    }
}

impl TaskSpec {
    /// About how many bytes it takes, beyond what every spec does.
    pub fn bytes(&self) -> usize {
        let arguments: usize = self.arguments.iter().map(String::len).sum();
        let environment: usize = self.environment.iter().map(|(name, value)| name.len() + value.len()).sum();
        let files: usize = self.files.iter().map(|file| file.path.len() + file.data.len()).sum();
        self.command.len() + self.parameters.len() + arguments + environment + files
    }

    /// Refuses what no agent could ever run.
    fn check_possible(&self) -> Result<(), JobError> {
        let refused = |error| JobError::Constraints { task: self.name.to_string(), error: Box::new(error) };
        self.prefer
            .iter()
            .try_for_each(|one| constraint::check(std::slice::from_ref(&one.constraint)))
            .map_err(refused)?;
        constraint::check(&self.constraints).map_err(refused)
    }

    fn check(&self) -> Result<(), JobError> {
        let name = self.name.as_str();
        let invalid = |what, found: &str, expected| {
            Err(JobError::Invalid { task: name.to_owned(), what, found: found.chars().take(80).collect(), expected })
        };
        if self.count == 0 {
            return invalid("count", "0", "at least 1");
        }
        bound(name, "count", self.count as usize, ARRAY_TASKS_MAX as usize)?;
        bound(name, "number of arguments", self.arguments.len(), ARGUMENTS_MAX)?;
        bound(name, "number of environment variables", self.environment.len(), ENVIRONMENT_MAX)?;
        bound(name, "number of files", self.files.len(), FILES_MAX)?;
        bound(name, "number of constraints", self.constraints.len(), CONSTRAINTS_MAX)?;
        check_bounds(name, &self.constraints)?;
        bound(name, "number of preferences", self.prefer.len(), PREFERENCES_MAX)?;
        for Preference { constraint, weight } in &self.prefer {
            check_bounds(name, std::slice::from_ref(constraint))?;
            if *weight == 0 || weight.unsigned_abs() > PREFERENCE_WEIGHT_MAX.unsigned_abs() {
                return invalid("weight of a preference", &weight.to_string(), "-1000 to 1000, and not 0");
            }
        }
        bound(name, "bytes of parameters", self.parameters.len(), PARAMETERS_BYTES_MAX)?;
        bound(name, "max_attempts", self.max_attempts as usize, ATTEMPTS_MAX as usize)?;
        bound(name, "max_losses", self.max_losses as usize, ATTEMPTS_MAX as usize)?;
        let texts = self.arguments.iter().chain([&self.command]).chain(self.environment.iter().map(|(_, value)| value));
        for text in texts {
            bound(name, "bytes of an argument or environment value", text.len(), VALUE_BYTES_MAX)?;
            if text.contains('\0') {
                return invalid("command, argument or environment value", text, "no NUL byte");
            }
        }
        if self.max_attempts == 0 || self.max_losses == 0 {
            return invalid("max_attempts or max_losses", "0", "at least 1");
        }
        if self.executor == fb::Executor::Process && self.command.is_empty() {
            return invalid("command", "", "a program and its arguments");
        }
        let mut seen = BTreeSet::new();
        for (variable, _) in &self.environment {
            if variable.is_empty() || variable.contains(['=', '\0']) || variable.len() > VALUE_BYTES_MAX {
                return invalid("environment variable", variable, "a name without `=`");
            }
            if !seen.insert(variable) {
                return invalid("environment variable", variable, "each variable once");
            }
        }
        self.sweep.as_ref().map_or(Ok(()), |sweep| sweep.check(self))?;
        let mut paths = BTreeSet::new();
        let result = (!self.result_path.is_empty()).then_some(&self.result_path);
        let inputs = self.after.iter().map(|after| &after.input).filter(|input| !input.is_empty());
        for path in self.files.iter().map(|file| &file.path).chain(result) {
            if !is_plain_path(path) {
                return invalid("path", path, "a relative path without `.`, `..` or empty components");
            }
        }
        for file in &self.files {
            if !paths.insert(&file.path) {
                return invalid("file", &file.path, "each path once");
            }
        }
        for input in inputs {
            if !is_plain_path(input) {
                return invalid("input", input, "a relative path without `.`, `..` or empty components");
            }
            // A folder of results, or a file: nothing else may be there, below it or where it has its own folder.
            let below = |one: &str, other: &str| one.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'));
            let meets = |path: &&String| path.as_str() == input || below(path, input) || below(input, path);
            if paths.iter().any(meets) || !paths.insert(input) {
                return invalid("input", input, "a path that is neither another file's nor its folder");
            }
        }
        Ok(())
    }

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

/// Whether a path is relative and has only plain components: it cannot leave the folder it is joined to.
pub fn is_plain_path(path: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && part.len() <= 255;
    path.len() <= 1024 && !path.contains('\0') && path.split('/').all(plain)
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

pub(crate) fn named(what: &str, name: Option<&str>) -> Result<Name, JobError> {
    Name::new(name.unwrap_or_default()).map_err(|error| JobError::Name { what: what.to_owned(), error })
}

pub(crate) fn bound(task: &str, what: &'static str, found: usize, max: usize) -> Result<(), JobError> {
    if found <= max {
        return Ok(());
    }
    Err(JobError::TooMuch { task: task.to_owned(), what, found: found as u64, max: max as u64 })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn task() -> TaskSpec {
        TaskSpec { command: "true".into(), ..TaskSpec::default() }
    }

    fn job(tasks: Vec<TaskSpec>) -> Result<JobSpec, JobError> {
        JobSpec::new(Name::new("j").unwrap(), tasks, 300)
    }

    #[test]
    fn a_job_survives_the_wire() {
        let full = TaskSpec {
            count: 1_000,
            array: true,
            agent_type: Some(fb::AgentType::Rater),
            resources: Resources { cpu: 500, memory: 64, gpu: 1, storage: 2 },
            custom: Custom::new([("fpga", 2), ("license/ansys", 4)]).unwrap(),
            arguments: vec!["a".into(), String::new()],
            environment: vec![("K".into(), "v".into())],
            parameters: "{\"x\":1}".into(),
            files: vec![FileSpec { path: "in/a.txt".into(), data: vec![1, 2, 3], executable: true }],
            priority: -3,
            constraints: vec![
                Constraint::new(Name::new("zone").unwrap(), fb::ConstraintOp::NotEqual, "b"),
                Constraint::one_of(Name::new("disk").unwrap(), vec!["ssd".into(), "nvme".into()]),
            ],
            timeout_s: 5,
            queue_timeout_s: 6,
            max_attempts: 7,
            max_losses: 8,
            backoff_ms: 9,
            kill_grace_ms: 10,
            result_path: "out.json".into(),
            whole_agent: true,
            distinct_agents: true,
            prefer: vec![Preference {
                constraint: Constraint::new(Name::new("disk").unwrap(), fb::ConstraintOp::Exists, ""),
                weight: -7,
            }],
            ..task()
        };
        let job = job(vec![full, TaskSpec { name: Name::new("other").unwrap(), ..task() }]).unwrap();
        assert_eq!(JobSpec::from_wire(&job.to_wire()).unwrap(), job);
        assert_eq!(job.task_count(), 1_001);
    }

    #[test]
    fn what_cannot_run_is_refused() {
        assert_eq!(job(vec![]), Err(JobError::NoTasks));
        assert!(matches!(job(vec![task(), task()]), Err(JobError::DuplicateTask(_))));
        let wrong: [TaskSpec; 8] = [
            TaskSpec { count: 0, ..task() },
            TaskSpec { count: ARRAY_TASKS_MAX + 1, ..task() },
            TaskSpec { command: String::new(), ..task() },
            TaskSpec { max_attempts: 0, ..task() },
            TaskSpec { arguments: vec!["a\0b".into()], ..task() },
            TaskSpec { environment: vec![("A=B".into(), String::new())], ..task() },
            TaskSpec { result_path: "../x".into(), ..task() },
            TaskSpec {
                files: vec![FileSpec { path: "/etc/passwd".into(), data: vec![], executable: false }],
                ..task()
            },
        ];
        for task in wrong {
            assert!(job(vec![task.clone()]).is_err(), "{task:?}");
        }
    }

    #[test]
    fn a_job_that_was_once_accepted_is_read_back_although_it_would_be_refused_now() {
        let zone = |value| Constraint::new(Name::new("zone").unwrap(), fb::ConstraintOp::Equal, value);
        let task = TaskSpec { constraints: vec![zone("eu"), zone("us")], ..task() };
        let old = JobSpec::accepted(Name::new("j").unwrap(), vec![task.clone()], Terms::default()).unwrap();
        assert_eq!(JobSpec::from_own_wire(&old.to_wire()).as_ref(), Ok(&old));
        assert!(matches!(JobSpec::from_wire(&old.to_wire()), Err(JobError::Constraints { .. })));
        assert!(matches!(job(vec![task]), Err(JobError::Constraints { .. })));
    }

    #[test]
    fn hostile_bytes_are_refused() {
        assert!(JobSpec::from_wire(&[]).is_err());
        assert!(JobSpec::from_wire(&[0xff; 100]).is_err());
    }
}
