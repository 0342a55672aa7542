//! Semaphores, held against the devices: what processes that run hold together, whatever any scheduler counts.

use crate::{
    history::History,
    trace::{Violation, broken},
};
use fleetwire_common::{
    ids::{AttemptId, TaskId},
    job::Semaphore,
};

/// Processes that run hold no more units of a name than there are, on all devices together.
pub fn invariant_semaphores_are_kept(
    history: &History,
    of: &Semaphore,
    running: impl Iterator<Item = (String, AttemptId)>,
) -> Result<(), Violation> {
    let units = |task: TaskId| -> u32 {
        let spec = history.job(task.job).and_then(|job| job.spec.tasks.get(usize::from(task.entry)));
        let held = spec.into_iter().flat_map(|spec| &spec.semaphores).find(|held| held.name == of.name);
        held.map_or(0, |held| held.units)
    };
    let there: Vec<(String, AttemptId, u32)> =
        running.map(|(on, id)| (on, id, units(id.task))).filter(|(.., units)| *units > 0).collect();
    let held: u32 = there.iter().map(|(.., units)| units).sum();
    if held <= of.max {
        return Ok(());
    }
    broken("semaphores", format!("`{}` has {} units, and {held} are held by {there:?}", of.name, of.max))
}
