//! Jobs whose own terms say when they start, how much of them runs at once and when they are stopped, held against the journal's record alone: what the
//! times of the facts and the ends of tasks say, by a reading of docs/jobs.md that shares nothing with the core's.

use crate::{
    history::{History, JobHistory},
    trace::{Violation, broken},
};
use fleetwire_common::{
    fb::EndReason,
    ids::{JobId, TaskId},
};

impl JobHistory {
    fn budget_is_spent(&self) -> bool {
        let budget = u64::from(self.spec.terms.stop_after_failures);
        budget > 0 && self.failed >= budget
    }

    /// Whether its deadline had come at that time, in µs.
    fn is_due(&self, at: u64) -> bool {
        let deadline_ms = self.spec.terms.deadline_ms;
        deadline_ms > 0 && at >= self.accepted_at + 1_000 * deadline_ms
    }
}

/// Nothing of a job is assigned before its start, nor after its budget of failures or its deadline has ended it. `at` is
/// the assignment's time in µs.
pub fn invariant_jobs_run_in_their_time(history: &History, task: TaskId, at: u64) -> Result<(), Violation> {
    let Some(job) = history.job(task.job) else { return Ok(()) };
    let terms = job.spec.terms;
    if at < (job.accepted_at + 1_000 * terms.start_after_ms).max(1_000 * terms.start_at_ms) {
        return broken("terms", format!("{task} was assigned before its job's start"));
    }
    if job.budget_is_spent() {
        return broken("terms", format!("{task} was assigned although {} tasks of its job have failed", job.failed));
    }
    match job.stopped_at {
        Some(stopped_at) if stopped_at <= at => broken("terms", format!("{task} was assigned after its job's end")),
        _ => Ok(()),
    }
}

/// Whatever is stopped by a job's own terms has a reason that these give at that time.
pub fn invariant_jobs_are_stopped_for_a_reason(job: &JobHistory, reason: EndReason, at: u64) -> Result<(), Violation> {
    match reason {
        EndReason::FailureBudget if !job.budget_is_spent() => {
            broken("terms", format!("a job was stopped after {} failures", job.failed))
        }
        EndReason::DeadlinePassed if !job.is_due(at) => broken("terms", "a job was stopped before its deadline"),
        _ => Ok(()),
    }
}

/// After the event in which a budget is spent or a deadline comes, nothing of the job waits any more.
pub fn invariant_what_is_stopped_does_not_wait(history: &History, id: JobId) -> Result<(), Violation> {
    let Some(job) = history.job(id).filter(|job| !job.forgotten && job.open > 0) else { return Ok(()) };
    if !job.budget_is_spent() && job.stopped_at.is_none() {
        return Ok(());
    }
    for (entry, spec) in (0..).zip(&job.spec.tasks) {
        for task in (0..spec.count).map(|index| TaskId { job: id, entry, index }) {
            let known = history.task(task);
            let runs = known.is_some_and(|known| known.attempts.values().any(|attempt| attempt.ended.is_none()));
            if !runs && known.is_none_or(|known| known.ended.is_none()) {
                return broken("terms", format!("{task} waits, and its job was stopped"));
            }
        }
    }
    Ok(())
}

/// No more attempts of a job, or of one of its entries, have not ended than its caps allow.
pub fn invariant_caps_are_kept(history: &History, task: TaskId) -> Result<(), Violation> {
    let Some(job) = history.job(task.job) else { return Ok(()) };
    let (mut of_job, mut of_entry) = (0, 0);
    for (id, known) in history.tasks_of(task.job) {
        let open = known.attempts.values().filter(|attempt| attempt.ended.is_none()).count();
        of_job += open;
        of_entry += if id.entry == task.entry { open } else { 0 };
    }
    let of_entry_max = job.spec.tasks.get(usize::from(task.entry)).map_or(0, |spec| spec.max_running);
    for (open, max) in [(of_job, job.spec.terms.max_running), (of_entry, of_entry_max)] {
        if max > 0 && open > max as usize {
            return broken("caps", format!("with {task}, {open} attempts are assigned at once, of at most {max}"));
        }
    }
    Ok(())
}
