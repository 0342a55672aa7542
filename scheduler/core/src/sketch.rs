//! What the entries of a job would take one after the other, were they placed now: books of their own beside the ledger, of
//! which nothing changes.
//!
//! Invariants: what one entry took the next does not find; the books grow with the agents that something would go to.

use crate::{live::Live, placement::Room, queue::Request, semaphores::Need, shares::QueueId};
use fleetwire_common::{custom::Custom, ids::AgentId, ids::Name, resources::Resources};
use std::collections::BTreeMap;

/// The books.
#[derive(Debug)]
pub struct Sketch<'l> {
    live: &'l Live,
    /// Attempts that an agent may hold.
    most: u32,
    /// What the job's cap leaves, if it has one.
    cap: Option<u32>,
    /// What its queue's quota leaves, if it has one.
    quota: Option<Resources>,
    agents: BTreeMap<AgentId, Taken>,
    semaphores: BTreeMap<Name, u64>,
}

/// What would go to an agent.
#[derive(Clone, Debug, Default)]
struct Taken {
    resources: Resources,
    custom: Custom,
    attempts: u32,
    alone: bool,
}

/// What leaves room for no more tasks, whatever agents there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The entry's `max_running`.
    Entry,
    /// The job's.
    Job,
    /// The quota of its queue.
    Quota,
    /// That semaphore.
    Semaphore(Name),
}

impl<'l> Sketch<'l> {
    /// Nothing is taken yet.
    pub fn new(live: &'l Live, most: u32, queue: QueueId, max_running: u32) -> Sketch<'l> {
        let shares = live.queue.shares();
        let quota = shares.is_limited(queue).then(|| shares.left(queue));
        let cap = (max_running > 0).then_some(max_running);
        Sketch { live, most, cap, quota, agents: BTreeMap::new(), semaphores: BTreeMap::new() }
    }

    /// How many of an entry's tasks there may be at once, and what leaves no more.
    pub fn allowed(&self, request: &Request, count: u32, max_running: u32, maxima: &[u32]) -> (u32, Option<Limit>) {
        let entry = (max_running > 0).then_some((max_running, Limit::Entry));
        let job = self.cap.map(|cap| (cap, Limit::Job));
        let none = Custom::default();
        let quota = self.quota.map(|left| (times(request.resources, &none, left, &none), Limit::Quota));
        let semaphores = request
            .semaphores
            .iter()
            .zip(maxima)
            .map(|(need, max)| (self.units_left(need, *max), Limit::Semaphore(need.0.clone())));
        let limits = [entry, job, quota].into_iter().flatten().chain(semaphores);
        match limits.min_by_key(|(allowed, _)| *allowed).filter(|(allowed, _)| *allowed < count) {
            Some((allowed, limit)) => (allowed, Some(limit)),
            None => (count, None),
        }
    }

    /// How often a need can be had at once.
    fn units_left(&self, (name, units): &Need, max: u32) -> u32 {
        let (max, held) = self.live.queue.semaphores.find(name).unwrap_or((max, 0));
        let taken = held + self.semaphores.get(name).copied().unwrap_or_default();
        let left = u64::from(max).saturating_sub(taken) / u64::from(*units).max(1);
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// How many of so many tasks find room on an agent that suits them.
    pub fn room(&self, agent: AgentId, request: &Request, wanted: u32) -> u32 {
        let index = &self.live.index;
        let Room { free, held, placeable, last, .. } = index.room(agent);
        let taken = self.agents.get(&agent).cloned().unwrap_or_default();
        if !placeable || taken.alone || index.reserved.holds(agent) {
            return 0;
        }
        let may = match (request.whole_agent, last) {
            (true, _) => u32::from(held + taken.attempts == 0),
            (false, true) => u32::from(taken.attempts == 0),
            (false, false) => self.most.saturating_sub(held + taken.attempts),
        };
        let may = if request.distinct.is_some() { may.min(1) } else { may };
        let (free, custom) = (free.minus(taken.resources), index.custom(agent).minus(&taken.custom));
        times(request.resources, &request.custom, free, &custom).min(may).min(wanted)
    }

    /// So many tasks would go to an agent.
    pub fn take(&mut self, agent: AgentId, request: &Request, tasks: u32) {
        let taken = self.agents.entry(agent).or_default();
        taken.resources = taken.resources.plus(request.resources.times(tasks));
        let before = taken.custom.clone();
        let named = request
            .custom
            .iter()
            .map(|(name, amount)| (name, u64::from(before.amount(name)) + u64::from(amount) * u64::from(tasks)));
        let others = before.iter().filter(|(name, _)| request.custom.amount(name) == 0);
        let all = named.chain(others.map(|(name, amount)| (name, u64::from(amount))));
        taken.custom = Custom::new(all).unwrap_or(before.clone());
        taken.attempts += tasks;
        taken.alone |= request.whole_agent;
        self.cap = self.cap.map(|cap| cap.saturating_sub(tasks));
        self.quota = self.quota.map(|left| left.minus(request.resources.times(tasks)));
        for (name, units) in &request.semaphores {
            *self.semaphores.entry(name.clone()).or_default() += u64::from(*units) * u64::from(tasks);
        }
    }
}

/// How often an amount fits into what is free.
fn times(needs: Resources, custom: &Custom, free: Resources, left: &Custom) -> u32 {
    let part = |needs: u32, free: u32| free.checked_div(needs).unwrap_or(u32::MAX);
    let named = custom.iter().map(|(name, needs)| part(needs, left.amount(name)));
    let common =
        [(needs.cpu, free.cpu), (needs.memory, free.memory), (needs.gpu, free.gpu), (needs.storage, free.storage)];
    common.map(|(needs, free)| part(needs, free)).into_iter().chain(named).min().unwrap_or(u32::MAX)
}
