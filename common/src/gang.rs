//! Gangs: consecutive tasks of an entry that start together, each on an agent of its own, or not at all
//! (docs/jobs.md#gangs).
//!
//! Invariant: what was checked can start as far as its job goes: no cap and no semaphore is smaller than a whole gang.

use crate::{
    job::{JobError, TaskSpec, Terms},
    limits::{ADDRESS_BYTES_MAX, GANG_MAX},
    resources::Resources,
};
use std::ops::Range;

/// Why a gang is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum GangError {
    #[error("it has {found} members: expected 2 to {GANG_MAX}")]
    Size { found: u32 },
    #[error("count is {count}: expected a multiple of the gang's {gang} members")]
    Count { count: u32, gang: u32 },
    #[error("max_running is {max}: expected at least {gang}, because its members run together")]
    Cap { max: u32, gang: u32 },
    #[error(
        "semaphore `{name}` has {max} units: expected at least {needs}, because {gang} members hold {units} each at once"
    )]
    Semaphore { name: String, max: u32, needs: u64, gang: u32, units: u32 },
    #[error("gang_lost says what becomes of a gang: set gang, or leave it out")]
    NoGang,
}

impl TaskSpec {
    /// The indices of all members of the gang that a task is of; its own, if it is of none.
    pub fn gang_of(&self, index: u32) -> Range<u32> {
        match index.checked_rem(self.gang) {
            Some(rank) => index - rank..(index - rank).saturating_add(self.gang),
            None => index..index.saturating_add(1),
        }
    }

    /// What must be there at once for one of its tasks to start: as much as its whole gang asks for.
    pub fn at_once(&self) -> Resources {
        self.resources.times(self.gang.max(1))
    }
}

/// Whether that can be where an agent's tasks are reached: a name or an IP address, none of whose characters separates
/// one from the next.
pub fn is_address(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".:-_[]%".contains(c);
    (1..=ADDRESS_BYTES_MAX).contains(&text.len()) && text.chars().all(plain)
}

/// Checks the gangs of all tasks of a job.
pub(crate) fn check(tasks: &[TaskSpec], terms: &Terms) -> Result<(), JobError> {
    for task in tasks {
        check_one(task, terms).map_err(|error| JobError::Gang { task: task.name.to_string(), error })?;
    }
    Ok(())
}

fn check_one(task: &TaskSpec, terms: &Terms) -> Result<(), GangError> {
    let gang = task.gang;
    if gang == 0 {
        return if task.gang_lost == Default::default() { Ok(()) } else { Err(GangError::NoGang) };
    }
    if !(2..=GANG_MAX).contains(&gang) {
        return Err(GangError::Size { found: gang });
    }
    if !task.count.is_multiple_of(gang) {
        return Err(GangError::Count { count: task.count, gang });
    }
    let caps = [task.max_running, terms.max_running];
    if let Some(max) = caps.into_iter().find(|max| (1..gang).contains(max)) {
        return Err(GangError::Cap { max, gang });
    }
    for one in &task.semaphores {
        let needs = u64::from(one.units) * u64::from(gang);
        if needs > u64::from(one.max) {
            return Err(GangError::Semaphore {
                name: one.name.to_string(),
                max: one.max,
                needs,
                gang,
                units: one.units,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{fb, ids::Name, job::JobSpec, job::Semaphore};

    fn job(change: impl FnOnce(&mut TaskSpec, &mut Terms)) -> Result<JobSpec, JobError> {
        let mut terms = Terms { stop_on_disconnect_after_ms: 90_000, ..Terms::lost_after(300) };
        let mut task = TaskSpec { command: "x".into(), count: 8, array: true, gang: 4, ..TaskSpec::default() };
        change(&mut task, &mut terms);
        JobSpec::new(Name::new("j").unwrap(), vec![task], terms)
    }

    fn refused(change: impl FnOnce(&mut TaskSpec, &mut Terms)) -> GangError {
        match job(change) {
            Err(JobError::Gang { task, error }) if task == "task" => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_could_never_start_together_is_refused() {
        assert!(job(|_, _| ()).unwrap().terms.exclusive, "of a member there is one attempt at a time");
        for found in [1, GANG_MAX + 1] {
            assert_eq!(refused(|task, _| task.gang = found), GangError::Size { found });
        }
        assert_eq!(refused(|task, _| task.count = 9), GangError::Count { count: 9, gang: 4 });
        assert_eq!(refused(|task, _| task.max_running = 3), GangError::Cap { max: 3, gang: 4 });
        assert_eq!(refused(|_, terms| terms.max_running = 3), GangError::Cap { max: 3, gang: 4 });
        let db = |max| vec![Semaphore { name: Name::new("db").unwrap(), max, units: 2 }];
        let error = refused(|task, _| task.semaphores = db(7));
        assert!(matches!(error, GangError::Semaphore { max: 7, needs: 8, .. }), "{error}");
        assert_eq!(refused(|task, _| (task.gang, task.gang_lost) = (0, fb::OnLost::Fail)), GangError::NoGang);
        let fits = job(|task, terms| (task.max_running, terms.max_running, task.semaphores) = (4, 4, db(8)));
        assert!(fits.is_ok());
        let never_stopped = job(|_, terms| terms.stop_on_disconnect_after_ms = 0);
        assert!(never_stopped.unwrap_err().to_string().contains("and a gang must be stopped by its agent"));
    }

    #[test]
    fn consecutive_tasks_are_a_gang() {
        let task = TaskSpec { gang: 4, ..TaskSpec::default() };
        assert_eq!((task.gang_of(0), task.gang_of(3), task.gang_of(6)), (0..4, 0..4, 4..8));
        assert_eq!(TaskSpec::default().gang_of(6), 6..7);
    }
}
