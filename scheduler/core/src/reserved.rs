//! Agents that are reserved: each for one class whose tasks have found room nowhere for long, so that smaller ones cannot
//! take all that ends there (docs/jobs.md#what-waits-for-long).
//!
//! Invariants: what is placed on a reserved agent is of its class, or is served before it, or is *backfill*: it surely ends
//! before the class may start there, or leaves what that needs. A class has one reservation at most; but one class at a time,
//! in the whole cluster, has as many as the gang that it starts next has members. Volatile.

use crate::{
    limits::START_WITHIN,
    placement::Room,
    queue::{Class, ClassId, Queue},
};
use fleetwire_common::{custom::Custom, ids::AgentId, resources::Resources, time::Time};
use std::collections::{BTreeMap, BTreeSet};

/// One agent's.
#[derive(Clone, Debug, PartialEq)]
pub struct Reservation {
    /// For whom.
    pub class: ClassId,
    /// Since when that class had waited; if that has changed, it was served.
    pub waited_since: Time,
    /// When it may start there at the latest; [`Time::NEVER`]: that is not known.
    pub starts_at: Time,
    /// What is free then; while it is not known when that is, what is free now.
    pub free: Resources,
    /// What is free now of custom resources.
    pub custom: Custom,
    /// Others make way for it.
    pub preempts: bool,
    /// What was known of the agent when all this was found out.
    pub room: Room,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Reserved {
    by_agent: BTreeMap<AgentId, Reservation>,
    /// The class whose gang has agents, and when the last of them has room for it.
    gang: Option<(ClassId, Time)>,
    /// Where the next search begins.
    pub cursor: u32,
    /// Those for whom others made way, and who were served: the next of them need not wait for the same.
    pub hurried: BTreeSet<ClassId>,
    /// When somebody looks next whether one is needed.
    pub look_at: Option<Time>,
}

impl Reserved {
    /// For how many classes there are some.
    pub fn count(&self) -> usize {
        let of_gang = |class: ClassId| self.gang().is_some_and(|gang| gang == class);
        self.by_agent.values().filter(|one| !of_gang(one.class)).count() + usize::from(self.gang.is_some())
    }

    /// The class whose gang has agents.
    pub fn gang(&self) -> Option<ClassId> {
        self.gang.map(|(class, _)| class)
    }

    /// The agents that a class has.
    pub fn all_of(&self, class: ClassId) -> Vec<AgentId> {
        self.iter().filter(|(_, one)| one.class == class).map(|(agent, _)| agent).collect()
    }

    /// A class has agents for a gang from now on, or something else is known of them.
    pub fn note_gang(&mut self, class: ClassId) {
        let starts_at = self.by_agent.values().filter(|one| one.class == class).map(|one| one.starts_at).max();
        self.gang = starts_at.map(|at| (class, at));
    }

    /// When who has an agent may start there at the latest: a gang once the last of its agents has room.
    pub fn starts_at(&self, reservation: &Reservation) -> Time {
        let gang = self.gang.filter(|(class, _)| *class == reservation.class);
        gang.map_or(reservation.starts_at, |(_, at)| at.max(reservation.starts_at))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_agent.is_empty()
    }

    /// Whether that agent is.
    pub fn holds(&self, agent: AgentId) -> bool {
        !self.by_agent.is_empty() && self.by_agent.contains_key(&agent)
    }

    /// That agent's reservation.
    pub fn find(&self, agent: AgentId) -> Option<&Reservation> {
        self.by_agent.get(&agent)
    }

    /// The agent that is reserved for a class.
    pub fn of_class(&self, class: ClassId) -> Option<(AgentId, &Reservation)> {
        self.iter().find(|(_, reservation)| reservation.class == class)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (AgentId, &Reservation)> {
        self.by_agent.iter().map(|(agent, reservation)| (*agent, reservation))
    }

    /// Reserves an agent, or does so on other terms.
    pub fn set(&mut self, agent: AgentId, reservation: Reservation) {
        self.by_agent.insert(agent, reservation);
    }

    /// Gives up a reservation.
    pub fn remove(&mut self, agent: AgentId) {
        let Some(gone) = self.by_agent.remove(&agent) else { return };
        if self.gang() == Some(gone.class) {
            self.note_gang(gone.class);
        }
    }

    /// Whether an agent may be given the class's next task, as far as it is reserved.
    pub fn admits(&self, queue: &Queue, class: ClassId, agent: AgentId) -> bool {
        if self.by_agent.is_empty() {
            return true;
        }
        let Some(reservation) = self.by_agent.get(&agent) else { return true };
        let own = reservation.class == class;
        own || queue.precedes(class, reservation.class)
            || reservation.is_backfill(queue, class, self.starts_at(reservation))
    }

    /// A task of a class was given to an agent: there is less for others.
    pub fn note_placed(&mut self, class: ClassId, agent: AgentId, resources: Resources) {
        if self.by_agent.is_empty() {
            return;
        }
        if let Some(reservation) = self.by_agent.get_mut(&agent).filter(|reservation| reservation.class != class) {
            reservation.free = reservation.free.minus(resources);
        }
    }
}

impl Reservation {
    /// Whether a class's next task takes nothing from whom this is for.
    fn is_backfill(&self, queue: &Queue, class: ClassId, starts_at: Time) -> bool {
        let (Some(other), Some(own)) = (queue.find(class), queue.find(self.class)) else { return false };
        is_over_in_time(starts_at, queue.now, other) || self.is_left_enough(own, other)
    }

    /// Whether of everything that the other takes there is still as much as the own one needs.
    fn is_left_enough(&self, own: &Class, other: &Class) -> bool {
        let (own, other) = (&own.request, &other.request);
        if own.whole_agent || other.whole_agent {
            return false;
        }
        let (needs, takes, free) = (own.resources, other.resources, self.free);
        let part = |needs: u32, takes: u32, free: u32| takes == 0 || needs.saturating_add(takes) <= free;
        let named = |(name, takes)| part(own.custom.amount(name), takes, self.custom.amount(name));
        part(needs.cpu, takes.cpu, free.cpu)
            && part(needs.memory, takes.memory, free.memory)
            && part(needs.gpu, takes.gpu, free.gpu)
            && part(needs.storage, takes.storage, free.storage)
            && other.custom.iter().all(named)
    }
}

/// Whether a class's next task has surely ended when the reserved one may start.
fn is_over_in_time(starts_at: Time, now: Time, other: &Class) -> bool {
    let ends_at = |within| now + START_WITHIN + within;
    starts_at < Time::NEVER && other.request.ends_within.is_some_and(|within| ends_at(within) <= starts_at)
}
