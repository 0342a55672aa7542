//! Jobs: what a user submits, validated. The client makes one from a job file, the scheduler reads
//! one from the wire; both go through [`JobSpec::new`], so a job that exists is a job that can run.

mod check;
mod wire;

pub use crate::{
    constraint::{Constraint, ConstraintError, Preference},
    custom::{Custom, CustomError},
    gang::GangError,
    graph::{Dependency, Graph, GraphError},
    labels::Labels,
    semaphore::{Semaphore, SemaphoreError},
    sweep::Sweep,
    terms::{Terms, TermsError},
};
use crate::{
    fb, gang,
    ids::{Name, NameError},
    limits::*,
    resources::Resources,
    semaphore,
};
pub(crate) use check::bound;
pub use check::is_plain_path;
use std::{collections::BTreeSet, sync::Arc};
pub use wire::{key_values, pairs};

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
    /// The queue whose share of the cluster it has.
    pub queue: Name,
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
    /// What it holds, of whatever all tasks of all jobs share, while it may run.
    pub semaphores: Vec<Semaphore>,
    /// So many consecutive tasks start together, each on an agent of its own, or not at all; 0 = each alone.
    pub gang: u32,
    /// What becomes of a gang of which a member is lost.
    pub gang_lost: fb::OnLost,
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
            semaphores: Vec::new(),
            gang: 0,
            gang_lost: wire.gang_lost,
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
    /// Its semaphores cannot be had, or contradict each other.
    #[error("semaphores of task `{task}`: {error}")]
    Semaphores {
        /// The entry.
        task: String,
        /// What is wrong with them.
        error: Box<SemaphoreError>,
    },
    /// A gang that could never start.
    #[error("gang of task `{task}`: {error}")]
    Gang {
        /// The entry.
        task: String,
        /// What is wrong with it.
        error: GangError,
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
    fn accepted(name: Name, tasks: Vec<TaskSpec>, mut terms: Terms) -> Result<JobSpec, JobError> {
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
        semaphore::check(&tasks)?;
        gang::check(&tasks, &terms)?;
        // Of what holds one, and of a gang's members, no two attempts may be, and nothing may be left of one that is not
        // heard any more.
        terms.exclusive |= tasks.iter().any(|task| !task.semaphores.is_empty() || task.gang > 0);
        terms.check(&tasks)?;
        Graph::of(&tasks)?;
        let labels = Labels::default();
        let queue = Name::default_queue();
        Ok(JobSpec { name, tasks: tasks.into_iter().map(Arc::new).collect(), terms, labels, queue })
    }

    /// The same job with these labels and annotations.
    ///
    /// # Errors
    /// There are more than may be, or they are longer.
    pub fn labelled(self, labels: Labels) -> Result<JobSpec, JobError> {
        labels.check()?;
        Ok(JobSpec { labels, ..self })
    }

    /// The same job in that queue.
    pub fn in_queue(self, queue: Name) -> JobSpec {
        JobSpec { queue, ..self }
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
}

pub(crate) fn named(what: &str, name: Option<&str>) -> Result<Name, JobError> {
    Name::new(name.unwrap_or_default()).map_err(|error| JobError::Name { what: what.to_owned(), error })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
