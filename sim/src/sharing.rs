//! Queues, held against the devices and the journal's bytes: what a queue's attempts hold anywhere is never more than its
//! quota, whenever it is given one more.

use crate::{
    agent::AgentNode,
    history::History,
    random::Random,
    trace::{Violation, broken},
    workload::{Offer, name},
};
use fleetwire_common::{
    ids::{AttemptId, TaskId},
    policy::{Ageing, ClusterPolicy, Placing, Preempt, QueueRule, Quota, Rules},
    resources::{Resources, ResourcesSum},
};
use fleetwire_scheduler_core::State;
use std::{collections::BTreeSet, time::Duration};

/// The queues that drawn jobs name, beside the default one.
pub const QUEUES: [&str; 2] = ["research", "rare"];

/// A policy of these queues, in which every task that one of these agents can run may run.
pub fn policy(offers: &[Offer], random: &mut Random) -> ClusterPolicy {
    let most = offers.iter().fold(Resources::ZERO, |most, offer| most.or_more(offer.capacity));
    let mut rule = || {
        let mut limit =
            |amount: u32| random.chance(400).then(|| amount.max(1).saturating_mul(random.between(1, 2) as u32));
        let quota = Quota {
            cpu: limit(most.cpu),
            memory: limit(most.memory),
            gpu: limit(most.gpu),
            storage: limit(most.storage),
        };
        QueueRule { weight: random.between(1, 9) as u32, quota, ..QueueRule::default() }
    };
    let queues: Vec<_> = ["default"].iter().chain(&QUEUES).map(|queue| (name(queue), rule())).collect();
    let every = Duration::from_secs(random.between(10, 120));
    let ageing = random.chance(500).then(|| Ageing { every, most: random.between(1, 10) as u8 });
    let (pack, spread) = (random.between(0, 3) as u16, random.between(0, 3) as u16);
    let preempt = Preempt {
        gap: random.between(0, 12) as u8,
        after: Duration::from_millis(random.skewed(100, 10_000)),
        per_minute: random.between(1, 60) as u32,
        per_task: random.between(1, 4) as u32,
    };
    let rules = Rules {
        placing: (pack + spread > 0).then_some(Placing { pack, spread }),
        preempt: random.chance(500).then_some(preempt),
        // What is reserved after what time is a seed's setting.
        reserve: None,
    };
    ClusterPolicy::new(queues, ageing)
        .and_then(|policy| policy.with_rules(rules))
        .unwrap_or_else(|error| unreachable!("the simulation makes only policies that are valid: {error}"))
}

/// With the attempt that a task was just given, what its queue's attempts hold on all devices, or may yet hold, of anything that
/// it takes, is not more than its quota. What had ended before the scheduler's latest start is known to it again only when its agent says so.
pub fn invariant_quotas_are_kept(
    shadow: &State,
    history: &History,
    agents: &[AgentNode],
    task: TaskId,
) -> Result<(), Violation> {
    let Some(job) = history.job(task.job) else { return Ok(()) };
    let queue = &job.spec.queue;
    let Some(rule) = shadow.policy.policy.queue(queue).filter(|rule| !rule.quota.is_none()) else { return Ok(()) };
    let is_of = |id: &AttemptId| history.job(id.task.job).is_some_and(|job| job.spec.queue == *queue);
    let open = shadow.agents.iter().flat_map(|(_, record)| &record.assigned).copied();
    let mut there: BTreeSet<AttemptId> = open.collect();
    for node in agents.iter().filter(|node| !node.was_copied) {
        let runs = node.device.slots().map(|(id, _)| id).filter(|id| node.device.runs(*id));
        let runs = runs.filter(|id| !node.history.has_outlived(*id));
        there.extend(runs.filter(|id| history.attempt(*id).is_some_and(|attempt| history.is_of_this_start(attempt))));
    }
    let mut sum = ResourcesSum::default();
    for id in there.iter().filter(|id| is_of(id)) {
        sum.add(history.spec_of(id.task).map_or(Resources::ZERO, |spec| spec.resources));
    }
    // A quota may have been set below what was held by then: whoever takes nothing of that may start.
    let needs = history.spec_of(task).map_or(Resources::ZERO, |spec| spec.resources);
    let mut limits = rule.quota.limits(sum.cut()).zip(rule.quota.limits(needs));
    match limits.find(|((_, quota, held), (.., needs))| held > quota && *needs > 0) {
        None => Ok(()),
        Some(((what, quota, held), _)) => broken(
            "quota",
            format!("with {task}, queue `{queue}` holds {held} of {what}, and may hold {quota}: {there:?}"),
        ),
    }
}
