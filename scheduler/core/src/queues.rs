//! The story of the queues: operators set a policy, jobs enter the queue that they name, and people ask who has what.
//!
//! Invariants: a job that has not ended is in a queue of the policy, and fits into its quota; a policy that would make
//! that untrue is refused.

use crate::{
    core::Core,
    event::{Effects, Rejected},
    fact::Fact,
    queue::Request,
    shares::QueueId,
};
use fleetwire_common::{
    fb,
    ids::{SessionId, TaskId},
    job::JobSpec,
    message::{Ack, Message},
    policy::ClusterPolicy,
};
use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

impl Core {
    /// An operator sets another policy. It holds from then on: what runs goes on.
    pub fn on_set_policy(
        &mut self,
        session: SessionId,
        by: &str,
        message: fb::SetPolicy<'_>,
        effects: &mut Effects,
    ) -> Result<(), Rejected> {
        let expected = "a policy";
        let absent = Rejected::Invalid { what: "policy", found: String::from("absent"), expected };
        let policy = ClusterPolicy::from_wire(message.policy().ok_or(absent)?)?;
        self.check_policy(&policy)?;
        self.decide(&Fact::PolicySet { policy: Arc::new(policy), by: Cow::Borrowed(by) }, effects);
        self.heed_policy();
        effects.send(session, Message::Ack(Ack::Request(message.request())));
        Ok(())
    }

    /// Does as the policy says, from now on.
    pub fn heed_policy(&mut self) {
        let policy = &self.state.policy.policy;
        self.live.queue.set_policy(policy);
        self.live.index.set_placing(policy.rules().placing.unwrap_or_default());
        // What it reserves and who makes way is read where it is decided; it may be sooner than it was.
        self.arm_reserving();
    }

    /// Whether every job that has not ended could still run.
    fn check_policy(&self, policy: &ClusterPolicy) -> Result<(), Rejected> {
        let shares = self.live.queue.shares();
        for (name, queue) in shares.names() {
            let jobs = shares.get(queue).map_or(0, |share| share.jobs);
            if policy.queue(name).is_none() && jobs > 0 {
                return Err(Rejected::QueueInUse { queue: name.clone(), jobs });
            }
        }
        for Request { queue, resources, gang, .. } in self.live.queue.requests() {
            let Some(name) = shares.get(*queue).map(|share| &share.name) else { continue };
            let Some(rule) = policy.queue(name) else { continue };
            if let Some((what, quota, needs)) =
                rule.quota.limits(resources.times((*gang).max(1))).find(|(_, limit, needs)| needs > limit)
            {
                return Err(Rejected::QuotaBelowJobs { queue: name.clone(), what, quota, needs });
            }
        }
        Ok(())
    }

    /// Refuses a job that its queue could never run.
    pub fn check_queue(&self, job: &JobSpec) -> Result<(), Rejected> {
        Ok(self.state.policy.policy.check_job(job)?)
    }

    /// The policy, and what each queue has.
    pub fn policy_summary(&self) -> fb::PolicySummaryT {
        let record = &self.state.policy;
        let mut waiting: BTreeMap<QueueId, u64> = BTreeMap::new();
        for turn in self.live.queue.turns() {
            *waiting.entry(turn.queue).or_default() +=
                self.live.queue.find(turn.class).map_or(0, |class| class.pending());
        }
        let shares = self.live.queue.shares();
        let queues = record.policy.queues().filter_map(|(name, _)| shares.find(name));
        let summaries = queues.filter_map(|queue| {
            let waiting = waiting.get(&queue).copied().unwrap_or_default();
            Some(fb::QueueSummaryT { waiting, ..self.queue_summary(queue)? })
        });
        fb::PolicySummaryT {
            policy: Some(Box::new(record.policy.to_wire())),
            set_by: (!record.by.is_empty()).then(|| record.by.to_string()),
            set_at: record.at.as_ms(),
            queues: Some(summaries.collect()),
        }
    }

    /// What a queue has and may, but for the tasks that wait; `None` if the policy has none of its name any more.
    pub fn queue_summary(&self, queue: QueueId) -> Option<fb::QueueSummaryT> {
        let shares = self.live.queue.shares();
        let share = shares.get(queue)?;
        let rule = self.state.policy.policy.queue(&share.name)?;
        Some(fb::QueueSummaryT {
            rule: Some(Box::new(rule.to_wire(&share.name))),
            held: Some(Box::new(share.held().cut().to_wire())),
            attempts: u32::try_from(share.attempts()).unwrap_or(u32::MAX),
            share: shares.dominant(queue) as f32,
            waiting: 0,
            jobs: share.jobs,
        })
    }

    /// Whose quota or share holds a task back that waits for an agent; `None` where there is one queue without a quota.
    pub fn queue_in_words(&self, task: TaskId) -> Option<String> {
        let class = self.live.class_of(task)?;
        let queue = self.queue_of(task.job)?;
        let shares = self.live.queue.shares();
        let share = shares.get(queue)?;
        let needs = self.live.queue.find(class)?.at_once();
        let (name, held) = (&share.name, share.held().cut());
        if let Some((what, quota, _)) = share.quota.limits(needs.plus(held)).find(|(_, quota, sum)| sum > quota) {
            let of =
                |amount| share.quota.limits(amount).find(|(other, ..)| *other == what).map_or(0, |(.., part)| part);
            return Some(format!(
                "the quota of queue `{name}` holds it back: it needs {} of {what}, and the queue's attempts hold {} of the {quota} \
                 that they may",
                of(needs),
                of(held),
            ));
        }
        if shares.order().len() <= 1 {
            return None;
        }
        let percent = 100.0 * shares.dominant(queue);
        let weight = share.weight;
        let ahead = shares.order().iter().take_while(|other| **other != queue).count();
        let others = match ahead {
            0 => String::from("which makes it the next of them"),
            1 => String::from("and one queue comes before it, because it has no more for its weight"),
            _ => format!("and {ahead} queues come before it, because they have no more for their weights"),
        };
        Some(format!("queue `{name}`, of weight {weight}, has {percent:.1} % of the cluster, {others}"))
    }
}
