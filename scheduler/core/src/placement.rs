//! Choosing an agent for a task: best fit by dominant share, decided per class.
//!
//! Invariants: nothing is placed where it does not fit (promise P3); the work grows with what changed. A
//! class whose tasks just came is tried on all agents that suit it, by an index that is brought up to
//! date only when it is asked; an agent that was freed is offered to the waiting classes in their order.

use crate::{
    agents::AgentProfile,
    limits::CHANGES_KEPT,
    policy::Policy,
    queue::{Class, ClassId, Queue, Request},
};
use fleetwire_common::{
    fb,
    ids::{AgentId, Name, TaskId},
    resources::Resources,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What placement knows of an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Capacity less everything in the ledger.
    pub free: Resources,
    /// In all.
    pub capacity: Resources,
    /// Attempts in the ledger.
    pub held: u32,
    /// Registered, connected, and not overcommitted.
    pub placeable: bool,
    /// It may be given one more, and no more after that.
    pub last: bool,
}

/// All rooms, and what changed in them.
#[derive(Clone, Debug, Default)]
pub struct Index {
    rooms: Vec<Room>,
    freed: BTreeSet<AgentId>,
    changed: VecDeque<AgentId>,
    changes: u64,
    candidates: BTreeMap<ClassId, Candidates>,
}

/// The agents on which a class's next task fits, best first, as of `seen` changes.
#[derive(Clone, Debug, Default)]
struct Candidates {
    order: BTreeSet<(u64, AgentId)>,
    scores: Vec<u64>,
    seen: u64,
}

/// A task that goes to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Which task.
    pub task: TaskId,
    /// Which agent.
    pub agent: AgentId,
}

/// Why an agent does not suit a request, whatever is free on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
    /// It is of other kinds.
    AgentType(fb::AgentType),
    /// It cannot run this.
    Executor(fb::Executor),
    /// A label does not satisfy a constraint.
    Label {
        /// The label.
        label: Name,
        /// The comparison.
        op: fb::ConstraintOp,
        /// The value it is compared with.
        value: String,
    },
}

const ABSENT: u64 = u64::MAX;

/// Whether an agent's kind, executors and labels suit a request.
pub fn suits(request: &Request, profile: &AgentProfile) -> Result<(), Lack> {
    if let Some(kind) = request.agent_type
        && !profile.agent_types.contains(&kind)
    {
        return Err(Lack::AgentType(kind));
    }
    if !profile.executors.contains(&request.executor) {
        return Err(Lack::Executor(request.executor));
    }
    let holds = |constraint: &&fleetwire_common::job::Constraint| {
        constraint.holds(profile.labels.get(constraint.label.as_str()).map(String::as_str))
    };
    match request.constraints.iter().find(|constraint| !holds(constraint)) {
        None => Ok(()),
        Some(lacking) => {
            Err(Lack::Label { label: lacking.label.clone(), op: lacking.op, value: lacking.value.clone() })
        }
    }
}

/// Places as many waiting tasks as fit, at most [`Policy::placements_per_step`], into `out`; says
/// whether it stopped at that bound.
pub fn plan(index: &mut Index, queue: &mut Queue, policy: &Policy, out: &mut Vec<Placement>) -> bool {
    while let Some(agent) = index.freed.first().copied() {
        if !index.offer(agent, queue, policy, out) {
            return true;
        }
        index.freed.pop_first();
    }
    while let Some(class) = queue.first_fresh() {
        while let Some(agent) = index.best(class, queue, policy) {
            if out.len() >= policy.placements_per_step {
                return true;
            }
            let Some(task) = queue.take_first(class) else { break };
            let resources = queue.find(class).map_or(Resources::ZERO, |class| class.request.resources);
            index.occupy(agent, resources);
            out.push(Placement { task, agent });
        }
        queue.settle(class);
    }
    false
}

impl Index {
    /// What is known of an agent.
    pub fn room(&self, agent: AgentId) -> Room {
        self.rooms.get(agent.0 as usize).copied().unwrap_or_default()
    }

    /// Sets what is known of an agent; one with more room than before is offered to waiting classes.
    pub fn set_room(&mut self, agent: AgentId, room: Room) {
        let place = agent.0 as usize;
        if self.rooms.len() <= place {
            self.rooms.resize(place + 1, Room::default());
        }
        let Some(known) = self.rooms.get_mut(place) else { return };
        if *known == room {
            return;
        }
        let more = (room.placeable && !known.placeable) || !room.free.fits(known.free) || room.held < known.held;
        *known = room;
        if room.placeable && more {
            self.freed.insert(agent);
        }
        self.note_change(agent);
    }

    /// The agent is to be offered to waiting classes, although its room did not change.
    pub fn offer_again(&mut self, agent: AgentId) {
        if self.room(agent).placeable {
            self.freed.insert(agent);
        }
        self.note_change(agent);
    }

    /// A class is gone.
    pub fn forget_class(&mut self, class: ClassId) {
        self.candidates.remove(&class);
    }

    fn note_change(&mut self, agent: AgentId) {
        if self.changed.len() > CHANGES_KEPT + 2 * self.rooms.len() {
            self.changed.pop_front();
        }
        self.changed.push_back(agent);
        self.changes += 1;
    }

    fn occupy(&mut self, agent: AgentId, resources: Resources) {
        let room = self.room(agent);
        let placeable = room.placeable && !room.last;
        self.set_room(agent, Room { free: room.free.minus(resources), held: room.held + 1, placeable, ..room });
    }

    /// Offers a freed agent to the waiting classes in their order. `false`: the step's bound was met.
    fn offer(&mut self, agent: AgentId, queue: &mut Queue, policy: &Policy, out: &mut Vec<Placement>) -> bool {
        let mut from = None;
        loop {
            let room = self.room(agent);
            let fits = |turn: &(_, _, ClassId)| {
                let (_, _, class) = turn;
                queue.find(*class).is_some_and(|class| score(class, agent, room, policy) != ABSENT)
            };
            let Some(turn) = queue.turns(from).find(fits) else { return true };
            if out.len() >= policy.placements_per_step {
                return false;
            }
            let (_, _, class) = turn;
            let Some(task) = queue.take_first(class) else { return true };
            let resources = queue.find(class).map_or(Resources::ZERO, |class| class.request.resources);
            self.occupy(agent, resources);
            out.push(Placement { task, agent });
            from = Some(turn);
        }
    }

    /// Whether a task of the class would fit somewhere, if one waited.
    pub fn has_room(&mut self, id: ClassId, queue: &Queue, policy: &Policy) -> bool {
        queue.find(id).and_then(|class| self.best_for(id, class, policy)).is_some()
    }

    /// The agent on which the class's next task fits best.
    fn best(&mut self, id: ClassId, queue: &Queue, policy: &Policy) -> Option<AgentId> {
        let class = queue.find(id).filter(|class| class.pending() > 0)?;
        self.best_for(id, class, policy)
    }

    fn best_for(&mut self, id: ClassId, class: &Class, policy: &Policy) -> Option<AgentId> {
        let rooms = &self.rooms;
        let room = |agent: AgentId| rooms.get(agent.0 as usize).copied().unwrap_or_default();
        let behind = |seen: u64| usize::try_from(self.changes - seen).unwrap_or(usize::MAX);
        match self.candidates.get_mut(&id) {
            Some(candidates) if behind(candidates.seen) <= self.changed.len() => {
                let unseen = self.changed.len() - behind(candidates.seen);
                for agent in self.changed.iter().skip(unseen) {
                    candidates.rescore(*agent, score(class, *agent, room(*agent), policy));
                }
                candidates.seen = self.changes;
            }
            Some(_) | None => {
                let mut candidates = Candidates { seen: self.changes, ..Candidates::default() };
                for agent in class.eligible.ones().map(|agent| AgentId(agent as u32)) {
                    candidates.rescore(agent, score(class, agent, room(agent), policy));
                }
                self.candidates.insert(id, candidates);
            }
        }
        self.candidates.get(&id)?.order.first().map(|(_, agent)| *agent)
    }
}

impl Candidates {
    fn rescore(&mut self, agent: AgentId, score: u64) {
        let place = agent.0 as usize;
        if self.scores.len() <= place {
            self.scores.resize(place + 1, ABSENT);
        }
        let Some(known) = self.scores.get_mut(place) else { return };
        if *known == score {
            return;
        }
        if *known != ABSENT {
            self.order.remove(&(*known, agent));
        }
        if score != ABSENT {
            self.order.insert((score, agent));
        }
        *known = score;
    }
}

/// Best fit: the lower, the less would be left of what is free, as the dominant share of the capacity;
/// then the fewer attempts. [`ABSENT`] where the next task may not go.
fn score(class: &Class, agent: AgentId, room: Room, policy: &Policy) -> u64 {
    let request = class.request.resources;
    let fits = room.placeable && room.held < policy.attempts_per_agent && request.fits(room.free);
    if !fits || !class.admits(agent) {
        return ABSENT;
    }
    let left = room.free.minus(request).dominant_share_ppm(room.capacity).min(u64::from(u32::MAX) - 1);
    left << 32 | u64::from(room.held)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use fixedbitset::FixedBitSet;
    use fleetwire_common::{ids::JobId, job::TaskSpec};
    use proptest::prelude::*;

    const AGENTS: u32 = 6;

    fn request(cpu: u32, memory: u32) -> Request {
        Request::of(&TaskSpec { resources: Resources { cpu, memory, ..Resources::ZERO }, ..TaskSpec::default() })
    }

    fn room(cpu: u32, memory: u32, placeable: bool) -> Room {
        let capacity = Resources { cpu: 100, memory: 100, ..Resources::ZERO };
        Room { free: Resources { cpu, memory, ..Resources::ZERO }, capacity, held: 0, placeable, last: false }
    }

    fn all() -> FixedBitSet {
        let mut all = FixedBitSet::with_capacity(AGENTS as usize);
        all.insert_range(..);
        all
    }

    #[derive(Clone, Debug)]
    enum Change {
        Room(u32, Room),
        Tasks(u32, u32, u32),
    }

    fn change() -> impl Strategy<Value = Change> {
        let rooms = (0..AGENTS, 0..100u32, 0..100u32, prop::bool::weighted(0.8));
        prop_oneof![
            rooms.prop_map(|(agent, cpu, memory, placeable)| Change::Room(agent, room(cpu, memory, placeable))),
            (0..4u32, 0..4u32, 1..5u32).prop_map(|(cpu, memory, count)| Change::Tasks(cpu, memory, count)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn the_lazy_index_places_as_a_full_search_would(changes in prop::collection::vec(change(), 1..60)) {
            let (mut index, mut queue, policy) = (Index::default(), Queue::default(), Policy::default());
            let mut classes = BTreeMap::new();
            let mut next = 0;
            for change in changes {
                let mut came = None;
                match change {
                    Change::Room(agent, room) => index.set_room(AgentId(agent), room),
                    Change::Tasks(cpu, memory, count) => {
                        let asked = request(10 + 20 * cpu, 10 + 20 * memory);
                        let class = *classes.entry((cpu, memory)).or_insert_with(|| queue.enter(&asked, |_| all()));
                        next += 1;
                        queue.push(class, JobId(next), 0, 0, count);
                        came = Some(asked.resources);
                    }
                }
                let mut rooms = index.rooms.clone();
                let mut placements = Vec::new();
                prop_assert!(!plan(&mut index, &mut queue, &policy, &mut placements));
                for placement in &placements {
                    let room = rooms.get_mut(placement.agent.0 as usize).unwrap();
                    if let Some(asked) = came {
                        // Only the class that came was tried: each of its tasks went where it fitted best.
                        let left = |room: &Room| room.free.minus(asked).dominant_share_ppm(room.capacity);
                        prop_assert!(room.placeable && asked.fits(room.free));
                        let chosen = left(room);
                        let fitting = rooms.iter().filter(|room| room.placeable && asked.fits(room.free));
                        prop_assert_eq!(fitting.map(left).min(), Some(chosen));
                        let room = rooms.get_mut(placement.agent.0 as usize).unwrap();
                        room.free = room.free.minus(asked);
                    }
                }
                for (_, _, class) in queue.turns(None) {
                    let class = queue.find(class).unwrap();
                    let fits = |agent: &u32| score(class, AgentId(*agent), index.room(AgentId(*agent)), &policy) != ABSENT;
                    prop_assert_eq!((0..AGENTS).find(fits), None, "a task waits although it fits");
                }
            }
        }
    }
}
