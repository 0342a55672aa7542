//! Semaphores: names of which the tasks of all jobs together hold no more than so many units at once
//! (docs/jobs.md#semaphores).
//!
//! Invariant: what was checked can be had: no task needs more of a name than there is, and a job says one limit for each.

use crate::{
    fb,
    ids::Name,
    job::{JobError, TaskSpec, bound, named},
    limits::{SEMAPHORE_UNITS_MAX, SEMAPHORES_MAX},
};
use std::collections::{BTreeMap, BTreeSet};

/// What a task holds of a name while it may run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Semaphore {
    /// Whoever says the same name means the same semaphore, whatever job it is of.
    pub name: Name,
    /// How many units there are in all.
    pub max: u32,
    /// How many the task holds.
    pub units: u32,
}

/// Why semaphores are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum SemaphoreError {
    #[error(
        "`{name}` has {max} units, of which the task holds {units}: expected 1 to {SEMAPHORE_UNITS_MAX} of both, and no more than there are"
    )]
    Units { name: Name, max: u32, units: u32 },
    #[error("`{name}` stands there twice: say how many `units` the task holds")]
    Twice { name: Name },
    #[error("`{name}` has {max} units here and {other} in task `{elsewhere}`: say the same everywhere")]
    Differs { name: Name, max: u32, other: u32, elsewhere: Name },
}

impl Semaphore {
    pub(crate) fn from_wire(task: &Name, wire: fb::Semaphore<'_>) -> Result<Semaphore, JobError> {
        let name = named(&format!("name of a semaphore of task `{task}`"), wire.name())?;
        Ok(Semaphore { name, max: wire.max(), units: wire.units() })
    }

    pub(crate) fn to_wire(&self) -> fb::SemaphoreT {
        fb::SemaphoreT { name: Some(self.name.to_string()), max: self.max, units: self.units }
    }
}

/// Checks the semaphores of all tasks of a job, in themselves and against each other.
pub(crate) fn check(tasks: &[TaskSpec]) -> Result<(), JobError> {
    let mut said: BTreeMap<&Name, (u32, &Name)> = BTreeMap::new();
    for task in tasks {
        bound(task.name.as_str(), "number of semaphores", task.semaphores.len(), SEMAPHORES_MAX)?;
        let refused = |error| JobError::Semaphores { task: task.name.to_string(), error: Box::new(error) };
        let mut seen = BTreeSet::new();
        for Semaphore { name, max, units } in &task.semaphores {
            let (max, units) = (*max, *units);
            if !(1..=max).contains(&units) || max > SEMAPHORE_UNITS_MAX {
                return Err(refused(SemaphoreError::Units { name: name.clone(), max, units }));
            }
            if !seen.insert(name) {
                return Err(refused(SemaphoreError::Twice { name: name.clone() }));
            }
            let (other, elsewhere) = *said.entry(name).or_insert((max, &task.name));
            if other != max {
                let (name, elsewhere) = (name.clone(), elsewhere.clone());
                return Err(refused(SemaphoreError::Differs { name, max, other, elsewhere }));
            }
        }
    }
    Ok(())
}
