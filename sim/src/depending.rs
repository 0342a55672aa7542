//! Tasks that come after others, held against the journal's record alone: what the facts' order says of who waited for
//! whom, by a reading of docs/jobs.md#dependencies that shares nothing with the core's.

use crate::{
    history::History,
    trace::{Violation, broken},
};
use fleetwire_common::{
    fb::{DependencyOn, TaskStatus},
    graph::Dependency,
    ids::{JobId, TaskId},
    job::{JobSpec, TaskSpec},
    message::Assignment,
};

/// What a dependency of a task has come to; `None` if that is still open.
fn came_to(history: &History, spec: &JobSpec, task: TaskId, dependency: &Dependency) -> Option<bool> {
    let place = spec.tasks.iter().position(|other| other.name == dependency.task)?;
    let count = spec.tasks.get(place)?.count;
    let indices = if dependency.each { task.index..task.index + 1 } else { 0..count };
    let of = |index| TaskId { entry: place as u16, index, ..task };
    let ends: Vec<Option<TaskStatus>> = indices.map(|index| Some(history.task(of(index))?.ended?.1)).collect();
    let success = |end: &TaskStatus| *end == TaskStatus::Completed;
    let failure = |end: &TaskStatus| matches!(*end, TaskStatus::Failed | TaskStatus::TimedOut | TaskStatus::Lost);
    if dependency.on == DependencyOn::Success && ends.iter().flatten().any(|end| !success(end)) {
        return Some(false);
    }
    let ends: Vec<TaskStatus> = ends.into_iter().collect::<Option<_>>()?;
    Some(match dependency.on {
        DependencyOn::Success => ends.iter().all(success),
        DependencyOn::Failure => ends.iter().any(failure),
        _ => true,
    })
}

fn needs(history: &History, task: TaskId) -> Option<Vec<Option<bool>>> {
    let spec = &history.job(task.job)?.spec;
    let after = &spec.tasks.get(usize::from(task.entry))?.after;
    Some(after.iter().map(|dependency| came_to(history, spec, task, dependency)).collect())
}

/// No attempt is assigned before all that its task comes after came to what it must.
pub fn invariant_what_comes_after_waits(history: &History, task: TaskId) -> Result<(), Violation> {
    match needs(history, task) {
        Some(needs) if needs.iter().any(|need| *need != Some(true)) => {
            broken("dependencies", format!("{task} was assigned while what it comes after stood at {needs:?}"))
        }
        _ => Ok(()),
    }
}

/// A task is skipped once what it comes after can never come to what it must, at once, and only then.
pub fn invariant_what_waits_in_vain_is_skipped(history: &History, job: JobId) -> Result<(), Violation> {
    let Some(record) = history.job(job).filter(|record| !record.forgotten) else { return Ok(()) };
    for (entry, spec) in (0..).zip(&record.spec.tasks).filter(|(_, spec)| !spec.after.is_empty()) {
        for task in (0..spec.count).map(|index| TaskId { job, entry, index }) {
            let known = history.task(task);
            let ended = known.and_then(|known| known.ended).map(|(_, status)| status);
            let in_vain = needs(history, task).is_some_and(|needs| needs.contains(&Some(false)));
            if in_vain && ended.is_none() {
                return broken("dependencies", format!("{task} waits in vain"));
            }
            if ended == Some(TaskStatus::Skipped) && !in_vain {
                return broken("dependencies", format!("{task} was skipped, and could have run"));
            }
        }
    }
    Ok(())
}

/// An assignment carries the files of its task as they were submitted, and after them every result that it asks for, as the
/// attempt left it that ended the other task.
pub fn invariant_inputs_are_what_was_left(history: &History, assignment: &Assignment) -> Result<(), Violation> {
    let task = assignment.attempt.task;
    let Some(spec) = history.job(task.job).map(|job| &job.spec) else { return Ok(()) };
    let Some(own) = spec.tasks.get(usize::from(task.entry)) else { return Ok(()) };
    let mut expected: Vec<(String, Option<Vec<u8>>)> = own.files.iter().map(|file| (file.path.clone(), None)).collect();
    for wanted in own.after.iter().filter(|after| !after.input.is_empty()) {
        let Some(place) = spec.tasks.iter().position(|other| other.name == wanted.task) else { continue };
        let Some(other) = spec.tasks.get(place) else { continue };
        for index in if wanted.each { task.index..task.index + 1 } else { 0..other.count } {
            let known = history.task(TaskId { entry: place as u16, index, ..task });
            let beside = known.and_then(|known| history.bodies.get(known.left_beside.as_ref()?));
            let Some(left) = beside.or_else(|| known?.left.as_ref()) else { continue };
            let folder = other.array && !wanted.each;
            let path = if folder { format!("{}/{index}", wanted.input) } else { wanted.input.clone() };
            expected.push((path, Some(left.clone())));
        }
    }
    invariant_each_has_its_combination(own, task.index, assignment)?;
    let agrees = expected.len() == assignment.spec.files.len()
        && expected
            .iter()
            .zip(&assignment.spec.files)
            .all(|((path, data), file)| *path == file.path && data.as_ref().is_none_or(|data| *data == file.data));
    if agrees { Ok(()) } else { broken("inputs", format!("{} was handed something else", assignment.attempt)) }
}

/// Of a sweep each task has the combination of its index, by counting all of them through.
fn invariant_each_has_its_combination(own: &TaskSpec, index: u32, assignment: &Assignment) -> Result<(), Violation> {
    let Some(sweep) = own.sweep.as_ref() else { return Ok(()) };
    let mut combinations = vec![Vec::new()];
    for axis in &sweep.axes {
        let longer = combinations.iter().flat_map(|found: &Vec<String>| {
            axis.values.iter().map(move |value| [found.as_slice(), std::slice::from_ref(&value.text)].concat())
        });
        combinations = longer.collect();
    }
    let environment = &assignment.spec.environment;
    let added = environment.iter().skip(own.environment.len()).filter(|(name, _)| !name.starts_with("FLEETWIRE_GANG_"));
    let found: Vec<String> = added.map(|(_, value)| value.clone()).collect();
    if combinations.get(index as usize) == Some(&found) {
        return Ok(());
    }
    broken("sweep", format!("{} has {found:?} of {} combinations", assignment.attempt, combinations.len()))
}
