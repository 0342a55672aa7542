//! Whether an assignment is taken on, and whether it has to wait. Pure questions to the state; the stories act on the answer.

use crate::{Config, State, backlog::Backlog, limits::*, spec::spec_of};
use fleetwire_common::{
    custom::Custom,
    fb,
    ids::AttemptId,
    job::{JobError, TaskSpec},
    limits::AGENT_ATTEMPTS_MAX,
    resources::Resources,
};
use std::sync::Arc;

/// Why an assignment is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Refused {
    /// A later attempt of the same task is here already.
    #[error("a later attempt of this task, {held}, is here already")]
    Older {
        /// The one that is here.
        held: AttemptId,
    },
    /// An attempt of that number is here, and it is another job's.
    #[error("an attempt of that number is here already, of a job from another journal")]
    Foreign,
    /// An executor that this agent does not have.
    #[error("this agent does not have the executor {found:?}")]
    Executor {
        /// What was asked for.
        found: fb::Executor,
    },
    /// A kind of work that this agent does not take.
    #[error("this agent takes no work of kind {found:?}")]
    AgentType {
        /// What was asked for.
        found: fb::AgentType,
    },
    /// More than is free.
    #[error("it needs {asked:?}, but {free:?} is free")]
    DoesNotFit {
        /// What it needs.
        asked: Resources,
        /// What is free.
        free: Resources,
    },
    /// More of a custom resource than there is.
    #[error("it needs {asked} of `{name}`, and this agent has {has}")]
    TooLittle {
        /// Which.
        name: String,
        /// What it needs.
        asked: u32,
        /// What there is in all.
        has: u32,
    },
    /// Others wait for room already, as many as may.
    #[error(
        "{waiting} attempts with {bytes} bytes wait here for room, and nothing overtakes them: at most {BACKLOG_MAX} \
         with {BACKLOG_BYTES_MAX} bytes may"
    )]
    Backlog {
        /// How many wait.
        waiting: usize,
        /// What their specs take.
        bytes: usize,
    },
    /// Too late to start.
    #[error("its deadline was {deadline_ms} ms, and it is {now_ms} ms")]
    DeadlinePassed {
        /// Cluster time, ms.
        deadline_ms: u64,
        /// Cluster time, ms.
        now_ms: u64,
    },
    /// As many attempts as an agent may hold.
    #[error("this agent holds {AGENT_ATTEMPTS_MAX} attempts already")]
    Attempts,
    /// Results that nobody has acknowledged fill the memory set aside for them.
    #[error("{found} bytes of results wait to be acknowledged")]
    Results {
        /// Bytes that are kept.
        found: usize,
    },
    /// Something in it that cannot be.
    #[error("{0}")]
    Spec(#[from] JobError),
}

impl Refused {
    /// The code of the rejection.
    pub fn code(&self) -> fb::ErrorCode {
        match self {
            Refused::Older { .. } => fb::ErrorCode::AttemptEnded,
            Refused::Foreign => fb::ErrorCode::ForeignAttempt,
            Refused::Executor { .. } | Refused::AgentType { .. } | Refused::Spec(_) => fb::ErrorCode::Validation,
            Refused::DoesNotFit { .. } | Refused::TooLittle { .. } => fb::ErrorCode::DoesNotFit,
            Refused::DeadlinePassed { .. } => fb::ErrorCode::MessageTimeout,
            Refused::Backlog { .. } | Refused::Attempts | Refused::Results { .. } => fb::ErrorCode::Busy,
        }
    }
}

/// An attempt that is taken on.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// What is to be started; `None` for what the core ends itself.
    pub spec: Option<Arc<TaskSpec>>,
    /// What it needs.
    pub resources: Resources,
    /// What else it needs.
    pub custom: Custom,
    /// There is no room for it yet.
    pub waits: bool,
}

/// Asks everything that must hold before an attempt is taken on. `now_ms` is cluster time. What does not fit
/// now waits in the backlog, if it could ever fit and the backlog has room.
pub(crate) fn admit(
    config: &Config,
    (state, backlog): (&State, &Backlog),
    attempt: AttemptId,
    assignment: fb::TaskAssignment<'_>,
    now_ms: u64,
) -> Result<Admitted, Refused> {
    if let Some(held) = state.latest(attempt.task).filter(|held| *held > attempt) {
        return Err(Refused::Older { held });
    }
    let executor = assignment.executor();
    if !config.executors.contains(&executor) {
        return Err(Refused::Executor { found: executor });
    }
    if !assignment.any_agent_type() && !config.agent_types.contains(&assignment.agent_type()) {
        return Err(Refused::AgentType { found: assignment.agent_type() });
    }
    let deadline_ms = assignment.deadline();
    if deadline_ms != 0 && deadline_ms < now_ms {
        return Err(Refused::DeadlinePassed { deadline_ms, now_ms });
    }
    if state.attempts().len() >= AGENT_ATTEMPTS_MAX {
        return Err(Refused::Attempts);
    }
    if state.result_bytes() >= RESULTS_KEPT_BYTES_MAX {
        return Err(Refused::Results { found: state.result_bytes() });
    }
    let resources = Resources::from_wire(assignment.resources());
    let free = config.capacity.minus(backlog.used());
    let custom = Custom::from_wire(assignment.resources()).unwrap_or_default();
    let waits = backlog.len() > 0 || !resources.fits(free) || !backlog.has_custom(&custom, &config.custom);
    if !resources.fits(config.capacity) {
        return Err(Refused::DoesNotFit { asked: resources, free });
    }
    if let Some((name, asked, has)) = custom.lacks(&config.custom) {
        return Err(Refused::TooLittle { name: name.to_owned(), asked, has });
    }
    let (waiting, bytes) = (backlog.len(), backlog.bytes());
    if waits && waiting >= BACKLOG_MAX {
        return Err(Refused::Backlog { waiting, bytes });
    }
    let spec = match executor {
        fb::Executor::Noop => None,
        _ => Some(spec_of(assignment, resources)?),
    };
    if waits && bytes + spec.as_deref().map_or(0, TaskSpec::bytes) > BACKLOG_BYTES_MAX {
        return Err(Refused::Backlog { waiting, bytes });
    }
    Ok(Admitted { spec, resources, custom, waits })
}
