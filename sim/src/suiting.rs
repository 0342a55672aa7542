//! Where tasks are placed, held against what their jobs ask of an agent's labels, by a reading of docs/jobs.md that
//! shares nothing with the core's.

use crate::trace::{Violation, broken};
use fleetwire_common::{
    fb::ConstraintOp as Op,
    ids::{AgentId, AttemptId},
    job::{Constraint, JobSpec, TaskSpec},
};
use fleetwire_scheduler_core::State;

/// Nothing is assigned to an agent whose labels do not satisfy what its job asks for.
pub fn invariant_labels_suit(shadow: &State, attempt: AttemptId, agent: AgentId) -> Result<(), Violation> {
    let (Some(spec), Some(record)) = (shadow.task_spec(attempt.task), shadow.agents.find(agent)) else { return Ok(()) };
    let label = |constraint: &Constraint| record.profile.labels.get(constraint.label.as_str()).map(String::as_str);
    match spec.constraints.iter().find(|constraint| !satisfied(constraint, label(constraint))) {
        None => Ok(()),
        Some(not) => broken("labels", format!("{attempt} was assigned to {}, where not `{not}`", record.name)),
    }
}

/// A job that does not wait for agents to come is taken only if each of its tasks could run on one that is known, if
/// any is, and each of its gangs on as many as it has members.
pub fn invariant_what_is_taken_could_run(shadow: &State, spec: &JobSpec) -> Result<(), Violation> {
    let known = || shadow.agents.known().map(|(_, record)| &record.profile);
    if spec.terms.await_agents || known().next().is_none() {
        return Ok(());
    }
    let could = |task: &TaskSpec| {
        let suitable = known().filter(|profile| {
            let label = |constraint: &Constraint| profile.labels.get(constraint.label.as_str()).map(String::as_str);
            task.resources.fits(profile.capacity)
                && task.custom.iter().all(|(name, amount)| profile.custom.amount(name) >= amount)
                && task.agent_type.is_none_or(|kind| profile.agent_types.contains(&kind))
                && task.constraints.iter().all(|constraint| satisfied(constraint, label(constraint)))
        });
        suitable.count() >= task.gang.max(1) as usize
    };
    match spec.tasks.iter().find(|task| !could(task)) {
        None => Ok(()),
        Some(task) => broken("fitting", format!("a job was taken of which `{}` could run nowhere", task.name)),
    }
}

/// Nothing is assigned beside what is to be alone on its agent, or beside a task from which it is to be apart.
pub fn invariant_alone_and_apart(shadow: &State, attempt: AttemptId, agent: AgentId) -> Result<(), Violation> {
    let Some(record) = shadow.agents.find(agent) else { return Ok(()) };
    invariant_nothing_is_beside(shadow, attempt, record.assigned.iter().copied())
}

/// The same of any others that are on its agent.
pub fn invariant_nothing_is_beside(
    shadow: &State,
    attempt: AttemptId,
    others: impl Iterator<Item = AttemptId>,
) -> Result<(), Violation> {
    let Some(spec) = shadow.task_spec(attempt.task) else { return Ok(()) };
    for other in others.filter(|other| *other != attempt) {
        let whole = spec.whole_agent || shadow.task_spec(other.task).is_some_and(|spec| spec.whole_agent);
        if whole {
            return broken("P3, alone", format!("{attempt} was assigned beside {other}"));
        }
        let of = |id: AttemptId| (id.task.job, id.task.entry);
        if spec.distinct_agents && of(other) == of(attempt) {
            return broken("apart", format!("{attempt} was assigned beside {other}"));
        }
        let gang = |id: AttemptId| id.task.index.checked_div(spec.gang);
        if of(other) == of(attempt) && gang(attempt).is_some() && gang(other) == gang(attempt) {
            return broken("gang", format!("{attempt} was assigned beside {other}, which is of the same gang"));
        }
    }
    Ok(())
}

fn satisfied(constraint: &Constraint, label: Option<&str>) -> bool {
    let Some(label) = label else { return matches!(constraint.op, Op::NotExists | Op::NotEqual) };
    let wanted = constraint.value.as_str();
    let versions = numbers(label).zip(numbers(wanted));
    match constraint.op {
        Op::Exists => true,
        Op::NotExists => false,
        Op::Equal => label == wanted,
        Op::NotEqual => label != wanted,
        Op::In => constraint.values.contains(&label.to_owned()),
        Op::Matches => alike(wanted.as_bytes(), label.as_bytes()),
        Op::Less => versions.is_some_and(|(found, wanted)| found < wanted),
        Op::AtMost => versions.is_some_and(|(found, wanted)| found <= wanted),
        Op::AtLeast => versions.is_some_and(|(found, wanted)| found >= wanted),
        Op::More => versions.is_some_and(|(found, wanted)| found > wanted),
        _ => false,
    }
}

fn numbers(version: &str) -> Option<Vec<u64>> {
    let mut parts = version.split('.').map(str::parse).collect::<Result<Vec<u64>, _>>().ok()?;
    while parts.last() == Some(&0) {
        parts.pop();
    }
    Some(parts)
}

/// The simulation's labels are ASCII.
fn alike(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), None) => alike(rest, text),
        (Some((b'*', rest)), Some((_, others))) => alike(rest, text) || alike(pattern, others),
        (Some((one, rest)), Some((other, others))) => (one == other || *one == b'?') && alike(rest, others),
        _ => false,
    }
}
