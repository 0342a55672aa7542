//! A day of a cluster: who was there, what came, and how long it ran. Recorded in a journal ([`recorded`]) or drawn from
//! published distributions ([`drawn`]); run again under another policy ([`replay`]), and judged ([`verdict`]).
//!
//! Invariants: what a day holds does not depend on the policy under which it is run: arrivals, capacities, absences and run
//! times are as they were; where and when tasks start is not kept.

use fleetwire_common::{fb, ids::Name, job::JobSpec, time::Time};
use fleetwire_scheduler_core::agents::AgentProfile;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

mod device;
pub mod drawn;
pub mod naive;
pub mod recorded;
pub mod replay;
pub mod verdict;

/// A day.
#[derive(Clone, Debug, Default)]
pub struct Day {
    /// The agents' names; others say which by the place here.
    pub agents: Vec<Name>,
    /// The jobs, in the order in which they came.
    pub jobs: Vec<DayJob>,
    /// What happened, in order.
    pub happenings: Vec<(Time, Happening)>,
    /// How long tasks ran, one after the other for those that were tried again; of a task that is not here, what its entry's
    /// others took.
    pub runs: BTreeMap<TaskKey, Vec<Run>>,
}

/// A job, an entry of it, and an index of that.
pub type TaskKey = (usize, u16, u32);

/// A job that came.
#[derive(Clone, Debug)]
pub struct DayJob {
    /// What it asked for.
    pub spec: Arc<JobSpec>,
    /// Who submitted it.
    pub owner: String,
}

/// What happens whatever the scheduler decides.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// An agent registers: for the first time, again, or with other terms.
    Joins {
        /// Which.
        agent: usize,
        /// What it offers.
        profile: Arc<AgentProfile>,
    },
    /// It is not heard any more.
    Leaves {
        /// Which.
        agent: usize,
        /// What ran there is gone, too.
        dies: bool,
    },
    /// An operator wants something else of it.
    Changes {
        /// Which.
        agent: usize,
        /// What.
        action: fb::AgentAction,
        /// To drain: within that time; zero: however long it takes.
        within: Duration,
    },
    /// A job comes.
    Submits {
        /// Which.
        job: usize,
    },
    /// Somebody cancels one.
    Cancels {
        /// Which.
        job: usize,
    },
}

/// One try of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// For so long.
    pub lasts: Duration,
    /// How it ended.
    pub status: fb::TaskStatus,
}

impl Day {
    /// How a task's try runs; the last that is known, for any more. `None`: nobody knows of one of its entry.
    pub fn run_of(&self, task: TaskKey, tries: usize) -> Option<Run> {
        let (job, entry, _) = task;
        let known = self.runs.get(&task).or_else(|| {
            let mut others = self.runs.range((job, entry, 0)..=(job, entry, u32::MAX));
            others.next().map(|(_, runs)| runs)
        })?;
        known.get(tries).or(known.last()).copied()
    }
}
