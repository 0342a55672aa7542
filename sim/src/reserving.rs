//! What goes on an agent that is reserved for another class, held against what the journal says of the tasks there and
//! against what the reservation said before, by a reading of docs/jobs.md that shares nothing with the core's.

use crate::{
    coverage::Coverage,
    trace::{Violation, broken},
};
use fleetwire_common::{
    ids::{AgentId, AttemptId, TaskId},
    job::TaskSpec,
    resources::Resources,
    time::Time,
};
use fleetwire_scheduler_core::{Live, State};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// What a scheduler had said of an agent: whose it is to be, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Promise {
    first: TaskId,
    spec: Arc<TaskSpec>,
    waited_since: Time,
    starts_at: Time,
}

/// How an assignment agrees with a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agrees {
    /// It comes first.
    ComesBefore,
    /// It has ended in time.
    EndsInTime,
    /// It leaves enough.
    LeavesEnough,
}

/// All that is promised now.
pub fn promises(live: &Live, state: &State) -> BTreeMap<AgentId, Promise> {
    let promise = |(agent, reservation): (AgentId, &fleetwire_scheduler_core::reserved::Reservation)| {
        let first = live.queue.find(reservation.class)?.first()?;
        let spec = Arc::clone(state.task_spec(first)?);
        let (waited_since, starts_at) = (reservation.waited_since, live.index.reserved.starts_at(reservation));
        Some((agent, Promise { first, spec, waited_since, starts_at }))
    };
    live.index.reserved.iter().filter_map(promise).collect()
}

/// Whether the same class still waits for the same agent.
pub fn still_stands(before: &Promise, now: &Promise) -> bool {
    now.first == before.first && now.waited_since == before.waited_since
}

/// What was assigned to an agent that is reserved for another takes nothing from whom that is for.
pub fn invariant_the_reserved_start_is_not_delayed(
    shadow: &State,
    making_way: &BTreeSet<AttemptId>,
    (promise, now): (&Promise, &Promise),
    (attempt, agent, at): (AttemptId, AgentId, Time),
    coverage: &mut Coverage,
) -> Result<(), Violation> {
    let (Some(spec), Some(record)) = (shadow.task_spec(attempt.task), shadow.agents.find(agent)) else { return Ok(()) };
    // How far it may have risen by waiting.
    let rises = shadow.policy.policy.ageing().map_or(0, |ageing| i32::from(ageing.most));
    let before = |spec: &TaskSpec, job, rises: i32| (-i32::from(spec.priority) - rises, job);
    let lasts = Duration::from_secs(spec.timeout_s) + Duration::from_millis(u64::from(spec.kill_grace_ms));
    let starts_at = |promise: &&Promise| promise.starts_at < Time::NEVER && at + lasts <= promise.starts_at;
    let ends_in_time = spec.timeout_s > 0 && [promise, now].iter().any(starts_at);
    // Whatever has no limit of its own, and was not asked to go, is there when the reserved task is to start.
    let others = record.assigned.iter().filter(|other| **other != attempt && !making_way.contains(other));
    let stays = others.filter_map(|other| shadow.task_spec(other.task)).filter(|other| other.timeout_s == 0);
    let stays = stays.fold(spec.resources, |sum, other| sum.plus(other.resources));
    let agrees = if before(spec, attempt.task.job, rises) <= before(&promise.spec, promise.first.job, 0) {
        Agrees::ComesBefore
    } else if ends_in_time {
        Agrees::EndsInTime
    } else if leaves(spec.resources, stays.plus(promise.spec.resources), record.profile.capacity) {
        Agrees::LeavesEnough
    } else {
        let (name, first) = (&record.name, promise.first);
        return broken("reserved", format!("{attempt} was assigned to {name}, which is kept for {first}: {promise:?}"));
    };
    coverage.reserved(Some(agrees));
    Ok(())
}

/// Whether there is as much as is needed of everything that is taken.
fn leaves(takes: Resources, needed: Resources, has: Resources) -> bool {
    let part = |takes: u32, needed: u32, has: u32| takes == 0 || needed <= has;
    part(takes.cpu, needed.cpu, has.cpu)
        && part(takes.memory, needed.memory, has.memory)
        && part(takes.gpu, needed.gpu, has.gpu)
        && part(takes.storage, needed.storage, has.storage)
}
