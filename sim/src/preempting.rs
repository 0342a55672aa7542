//! Who is asked to make way, held against the journal: somebody more urgent waits for an agent at that moment.

use crate::{
    history::History,
    trace::{Violation, broken},
};
use fleetwire_common::{
    ids::{AttemptId, TaskId},
    job::TaskSpec,
};
use fleetwire_scheduler_core::{Live, State};

/// Some task that has not ended is more urgent by enough than the attempt that is to make way, nobody who is heard was given
/// it (of who is not, the scheduler is asked), and the one that is to make way has not done so too often.
pub fn invariant_way_is_made_for_someone(
    history: &History,
    shadow: &State,
    live: &Live,
    attempt: AttemptId,
) -> Result<(), Violation> {
    let preempt = shadow.policy.policy.rules().preempt.unwrap_or_default();
    let Some(spec) = shadow.task_spec(attempt.task) else { return Ok(()) };
    let is_urgent = |other: &TaskSpec| i16::from(other.priority) >= i16::from(spec.priority) + i16::from(preempt.gap);
    let waits = |task: TaskId| {
        let known = history.task(task);
        let open = shadow.tasks.get(&task).map(|record| record.open);
        // One that is not heard may get a rival.
        let is_suspect =
            |agent, attempt| live.held(agent, AttemptId { task, attempt }).is_some_and(|held| held.suspect);
        let goes_on = open.is_some_and(|open| open.iter().any(|one| !is_suspect(one.agent, one.attempt)));
        !(goes_on || known.is_some_and(|known| known.ended.is_some()))
    };
    let of_job = |(job, tasks): (_, &[std::sync::Arc<TaskSpec>])| {
        (0..)
            .zip(tasks)
            .filter(|(_, spec)| is_urgent(spec))
            .any(|(entry, spec)| (0..spec.count).any(|index| waits(TaskId { job, entry, index })))
    };
    let mut jobs = shadow.jobs.iter().filter(|(_, job)| job.ended_at.is_none());
    if !jobs.any(|(job, record)| of_job((*job, record.spec.tasks.as_slice()))) {
        return broken("way", format!("{attempt} is to make way, and nothing waits that is more urgent by enough"));
    }
    match shadow.tasks.get(&attempt.task).map(|record| u32::from(record.preemptions)) {
        Some(times) if times >= preempt.per_task => {
            broken("way", format!("{attempt} is to make way, and its task has done so {times} times"))
        }
        _ => Ok(()),
    }
}
