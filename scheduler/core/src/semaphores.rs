//! What is held of semaphores, by whom, and who may need some (docs/jobs.md#semaphores). Counters by name.
//!
//! Invariants: what is taken of a name is what holders hold, and what was placed in this event and is not assigned yet; a
//! holder is an attempt whose processes may run. Nothing is held by what waits, so nobody waits in a circle.

use crate::queue::ClassId;
use fleetwire_common::{
    ids::{AgentId, AttemptId, Name},
    job::Semaphore,
    time::Time,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A name, and how many units of it a task holds while it may run.
pub type Need = (Name, u32);

/// All semaphores.
#[derive(Clone, Debug, Default)]
pub struct Semaphores {
    all: BTreeMap<Name, One>,
    holders: BTreeMap<(AgentId, AttemptId), Holder>,
    /// Of these something else may be had than before, or by somebody else.
    changed: BTreeSet<Name>,
    nobody: BTreeSet<(AgentId, AttemptId)>,
}

/// One of them.
#[derive(Clone, Debug, Default)]
struct One {
    max: u32,
    taken: u64,
    holders: BTreeSet<(AgentId, AttemptId)>,
    /// The classes whose tasks need some, with how many entries of jobs that have not ended.
    classes: BTreeMap<ClassId, u32>,
}

/// An attempt that may run.
#[derive(Clone, Debug)]
struct Holder {
    needs: Vec<Need>,
    /// How long after its agent was last heard nothing can be left of it.
    gone_after: Duration,
    /// When that is, while its agent is not heard.
    gone_at: Option<Time>,
}

impl Semaphores {
    /// One more entry of a job, of that class, needs these.
    pub fn enter(&mut self, class: ClassId, semaphores: &[Semaphore]) {
        for Semaphore { name, max, .. } in semaphores {
            let one = self.all.entry(name.clone()).or_default();
            if one.classes.is_empty() {
                one.max = *max;
            }
            *one.classes.entry(class).or_default() += 1;
            self.changed.insert(name.clone());
        }
    }

    /// One less.
    pub fn leave(&mut self, class: ClassId, semaphores: &[Semaphore]) {
        for Semaphore { name, .. } in semaphores {
            let Some(one) = self.all.get_mut(name) else { continue };
            if let Some(entries) = one.classes.get_mut(&class) {
                *entries -= 1;
                if *entries == 0 {
                    one.classes.remove(&class);
                }
            }
            self.tidy(name);
        }
    }

    /// How many units there are of a name, if a job that has not ended says so.
    pub fn limit(&self, name: &Name) -> Option<u32> {
        self.all.get(name).filter(|one| !one.classes.is_empty()).map(|one| one.max)
    }

    /// Whether all of these can be had at once, beside what is kept for others.
    pub fn have_room(&self, needs: &[Need], kept: &BTreeMap<Name, u64>) -> bool {
        needs.iter().all(|(name, units)| {
            let wanted = u64::from(*units) + kept.get(name).copied().unwrap_or_default();
            self.all.get(name).is_none_or(|one| one.taken + wanted <= u64::from(one.max))
        })
    }

    /// Takes these for a task that was placed; who holds them is said next.
    pub fn take(&mut self, needs: &[Need]) {
        for (name, units) in needs {
            self.all.entry(name.clone()).or_default().taken += u64::from(*units);
            self.changed.insert(name.clone());
        }
    }

    /// Gives these back.
    pub fn give_back(&mut self, needs: &[Need]) {
        for (name, units) in needs {
            if let Some(one) = self.all.get_mut(name) {
                one.taken = one.taken.saturating_sub(u64::from(*units));
            }
            self.changed.insert(name.clone());
            self.tidy(name);
        }
    }

    /// An attempt may run from now on, and holds these; whether that is news.
    pub fn hold(&mut self, agent: AgentId, attempt: AttemptId, needs: Vec<Need>, gone_after: Duration) -> bool {
        if self.holders.contains_key(&(agent, attempt)) {
            return false;
        }
        self.take(&needs);
        for (name, _) in &needs {
            self.all.entry(name.clone()).or_default().holders.insert((agent, attempt));
        }
        self.holders.insert((agent, attempt), Holder { needs, gone_after, gone_at: None });
        true
    }

    /// Nothing of an attempt is left: says when that was to be looked at.
    pub fn release(&mut self, agent: AgentId, attempt: AttemptId) -> Option<Time> {
        let Holder { needs, gone_at, .. } = self.holders.remove(&(agent, attempt))?;
        for (name, _) in &needs {
            if let Some(one) = self.all.get_mut(name) {
                one.holders.remove(&(agent, attempt));
            }
        }
        self.give_back(&needs);
        gone_at
    }

    /// The attempts of an agent that hold something.
    pub fn held_on(&self, agent: AgentId) -> Vec<AttemptId> {
        let (first, last) = (AttemptId::default(), AttemptId::LAST);
        self.holders.range((agent, first)..=(agent, last)).map(|((_, attempt), _)| *attempt).collect()
    }

    /// How long after its agent was last heard nothing can be left of an attempt; and when, if that is known.
    pub fn gone(&self, agent: AgentId, attempt: AttemptId) -> Option<(Duration, Option<Time>)> {
        self.holders.get(&(agent, attempt)).map(|holder| (holder.gone_after, holder.gone_at))
    }

    /// Sets when nothing can be left of an attempt; says what was set before.
    pub fn set_gone_at(&mut self, agent: AgentId, attempt: AttemptId, gone_at: Option<Time>) -> Option<Time> {
        let holder = self.holders.get_mut(&(agent, attempt))?;
        std::mem::replace(&mut holder.gone_at, gone_at)
    }

    /// Notes that others may be served first of those that need these.
    pub fn note_change(&mut self, needs: &[Need]) {
        self.changed.extend(needs.iter().map(|(name, _)| name.clone()));
    }

    /// One of those of which something has changed.
    pub fn take_changed(&mut self) -> Option<Name> {
        self.changed.pop_first()
    }

    /// That one is looked at.
    pub fn note_seen(&mut self, name: &Name) {
        self.changed.remove(name);
    }

    /// The classes whose tasks need some of a name.
    pub fn classes_of(&self, name: &Name) -> impl Iterator<Item = ClassId> + '_ {
        self.all.get(name).into_iter().flat_map(|one| one.classes.keys().copied())
    }

    /// How many units there are of a name, and how many are taken.
    pub fn find(&self, name: &Name) -> Option<(u32, u64)> {
        self.all.get(name).map(|one| (one.max, one.taken))
    }

    /// How many units of a name an attempt holds.
    pub fn units(&self, holder: (AgentId, AttemptId), name: &Name) -> u64 {
        let needs = self.holders.get(&holder).map(|holder| holder.needs.iter()).unwrap_or_default();
        needs.filter(|(held, _)| held == name).map(|(_, units)| u64::from(*units)).sum()
    }

    /// Who holds some of a name.
    pub fn holders_of(&self, name: &Name) -> impl ExactSizeIterator<Item = &(AgentId, AttemptId)> {
        self.all.get(name).map_or(&self.nobody, |one| &one.holders).iter()
    }

    /// Forgets a name that nobody says or holds.
    fn tidy(&mut self, name: &Name) {
        if self.all.get(name).is_some_and(|one| one.classes.is_empty() && one.taken == 0) {
            self.all.remove(name);
        }
    }
}
