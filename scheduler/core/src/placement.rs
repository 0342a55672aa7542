//! Choosing an agent for a task: the fullest on which it fits, decided per class.
//!
//! Invariants: nothing is placed where it does not fit (promise P3); the work grows with what changed. A class whose
//! tasks just came is tried on all agents, by an order of them that is brought up to date only when it is asked; an agent
//! that was freed is offered to the waiting classes in their order. Neither goes through what cannot fit.

use crate::{
    agents::AgentProfile,
    audiences::{AudienceId, EMPTY},
    ganging::Together,
    limits::{AUDIENCE_FEW, BACKFILL_TURNS_MAX, CHANGES_LEFT_MAX},
    policy::Policy,
    queue::{Class, ClassId, Free, Queue, Request, Turn},
    ranked::{Mark, Most, Ranked},
    reserved::Reserved,
};
use fleetwire_common::{
    custom::Custom,
    fb,
    ids::{AgentId, TaskId},
    job::{Constraint, Preference},
    policy::Placing,
    resources::Resources,
};
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

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

/// All rooms, and the order in which they are filled.
#[derive(Clone, Debug, Default)]
pub struct Index {
    seats: Vec<Seat>,
    freed: BTreeSet<AgentId>,
    /// Whose place in the order may be another.
    changed: VecDeque<AgentId>,
    order: Ranked<(Rank, AgentId), Most>,
    nothing: Custom,
    placing: Placing,
    /// Agents that are kept free for who has waited for long.
    pub reserved: Reserved,
    /// Classes of which a gang found too few agents in this step.
    pub(crate) spent: BTreeSet<ClassId>,
}

/// The lower, the sooner an agent is filled: [`Index::rank`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    has_gpu: bool,
    scarce: u32,
    held: u32,
}

/// One agent's room, and where it is in the order, if it is there.
#[derive(Clone, Debug, Default)]
struct Seat {
    room: Room,
    /// Of custom resources what is free.
    custom: Custom,
    ranked: Option<(Rank, Mark)>,
    changed: bool,
}

/// A task that goes to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Which task.
    pub task: TaskId,
    /// Which agent.
    pub agent: AgentId,
    /// So many of the next are of the same gang, and go with it.
    pub more: u32,
}

/// Why an agent does not suit a request, whatever is free on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
    /// It is of other kinds.
    AgentType(fb::AgentType),
    /// It cannot run this.
    Executor(fb::Executor),
    /// It has never so much of a custom resource.
    Custom {
        /// Its name.
        name: String,
        /// How much is needed.
        needs: u32,
        /// How much there is in all.
        has: u32,
    },
    /// A label does not satisfy a constraint.
    Label(Constraint),
}

/// Whether an agent's kind, executors, labels and custom resources in all suit a request.
pub fn suits(request: &Request, profile: &AgentProfile) -> Result<(), Lack> {
    if let Some(kind) = request.agent_type
        && !profile.agent_types.contains(&kind)
    {
        return Err(Lack::AgentType(kind));
    }
    if !profile.executors.contains(&request.executor) {
        return Err(Lack::Executor(request.executor));
    }
    let holds =
        |constraint: &&Constraint| constraint.holds(profile.labels.get(constraint.label.as_str()).map(String::as_str));
    if let Some(lacking) = request.constraints.iter().find(|constraint| !holds(constraint)) {
        return Err(Lack::Label(lacking.clone()));
    }
    match request.custom.lacks(&profile.custom) {
        Some((name, needs, has)) => Err(Lack::Custom { name: name.to_owned(), needs, has }),
        None => Ok(()),
    }
}

/// Whether an agent is of a request's audience: it suits, and its preferences come to what they must.
pub fn is_of(request: &Request, profile: &AgentProfile) -> bool {
    let holds =
        |one: &&Preference| one.constraint.holds(profile.labels.get(one.constraint.label.as_str()).map(String::as_str));
    let score = || request.prefer.iter().filter(holds).map(|one| i32::from(one.weight)).sum::<i32>();
    suits(request, profile).is_ok() && request.score.is_none_or(|wanted| wanted == score())
}

/// Places as many waiting tasks as fit, at most [`Policy::placements_per_step`], into `out`; says
/// whether it stopped at that bound.
pub fn plan(index: &mut Index, queue: &mut Queue, policy: &Policy, out: &mut Vec<Placement>) -> bool {
    queue.heed_semaphores();
    queue.heed_quotas();
    index.spent.clear();
    // So that no question has to wait for more than so many.
    index.catch_up(queue, policy, CHANGES_LEFT_MAX);
    while let Some(agent) = index.freed.first().copied() {
        if !index.offer(agent, queue, policy, out) {
            return true;
        }
        index.freed.pop_first();
    }
    index.place_fresh(queue, policy, out)
}

impl Index {
    /// Places what is to be tried on all agents. Where several queues have something of one priority, each placement is
    /// another's turn.
    fn place_fresh(&mut self, queue: &mut Queue, policy: &Policy, out: &mut Vec<Placement>) -> bool {
        let mut cursors: BTreeMap<ClassId, (Rank, AgentId)> = BTreeMap::new();
        while let Some((class, alone)) = queue.first_fresh() {
            let placed = out.len();
            if queue.find(class).is_some_and(Class::is_of_gangs) {
                match self.place_gang(class, queue, policy, out) {
                    Together::Placed => self.note_fuller(out.get(placed..).unwrap_or_default(), &mut cursors),
                    Together::Waits => queue.settle(class),
                    Together::NextStep => return true,
                }
                continue;
            }
            let apart = queue.find(class).is_some_and(|class| class.request.distinct.is_some());
            let mut from = cursors.remove(&class);
            let mut goes_on = queue.has_quota(class);
            while goes_on {
                let Some(found) = self.best_for(class, from, queue, policy) else { break };
                let (_, agent) = found;
                if out.len() >= policy.placements_per_step {
                    return true;
                }
                let Some(task) = queue.take_first(class) else { break };
                self.occupy(agent, class, queue);
                let placement = Placement { task, agent, more: 0 };
                self.note_fuller(&[placement], &mut cursors);
                out.push(placement);
                // Those before it have one of its tasks already.
                from = apart.then_some(found);
                goes_on = alone && queue.has_quota(class) && queue.find(class).is_some_and(Class::may_be_placed);
            }
            if goes_on {
                queue.settle(class);
            } else if let Some(from) = from {
                cursors.insert(class, from);
            }
        }
        false
    }

    /// What was given something has got fuller, and may be before where another class goes on for that.
    fn note_fuller(&self, placed: &[Placement], cursors: &mut BTreeMap<ClassId, (Rank, AgentId)>) {
        // Most often nobody does.
        if cursors.is_empty() {
            return;
        }
        for Placement { agent, .. } in placed {
            let rank = rank(self.room(*agent), self.placing);
            cursors.values_mut().for_each(|cursor| *cursor = (*cursor).min((rank, *agent)));
        }
    }

    /// What is known of an agent.
    pub fn room(&self, agent: AgentId) -> Room {
        self.seats.get(agent.0 as usize).map(|seat| seat.room).unwrap_or_default()
    }

    /// The lower, the sooner an agent is filled.
    pub fn rank(&self, agent: AgentId) -> Rank {
        rank(self.room(agent), self.placing)
    }

    /// Sets what is known of an agent; one with more room than before is offered to waiting classes.
    pub fn set_room(&mut self, agent: AgentId, room: Room) {
        let known = self.room(agent);
        if known == room {
            return;
        }
        let more = (room.placeable && !known.placeable) || !room.free.fits(known.free) || room.held < known.held;
        if room.placeable && more {
            self.freed.insert(agent);
        }
        self.note_change(agent).room = room;
    }

    /// The agent is to be offered to waiting classes, although its room did not change.
    pub fn offer_again(&mut self, agent: AgentId) {
        if self.room(agent).placeable {
            self.freed.insert(agent);
        }
    }

    /// How agents are to be filled from now on.
    pub fn set_placing(&mut self, placing: Placing) {
        if std::mem::replace(&mut self.placing, placing) != placing {
            (0..self.seats.len()).for_each(|agent| _ = self.note_change(AgentId(agent as u32)));
        }
    }

    fn note_change(&mut self, agent: AgentId) -> &mut Seat {
        let place = agent.0 as usize;
        if self.seats.len() <= place {
            self.seats.resize_with(place + 1, Seat::default);
        }
        let Some(seat) = self.seats.get_mut(place) else { unreachable!("it was just made") };
        if !std::mem::replace(&mut seat.changed, true) {
            self.changed.push_back(agent);
        }
        seat
    }

    /// Sets what is free of an agent's custom resources. There is more of them only when it holds less, or registered: then
    /// its room has changed too.
    pub fn set_custom(&mut self, agent: AgentId, free: Custom) {
        if *self.custom(agent) != free {
            self.note_change(agent).custom = free;
        }
    }

    /// What an agent has free.
    pub fn free(&self, agent: AgentId) -> Free<'_> {
        let Room { free, held, .. } = self.room(agent);
        Free { resources: free, custom: self.custom(agent), empty: held == 0 }
    }

    /// What is free of an agent's custom resources.
    pub fn custom(&self, agent: AgentId) -> &Custom {
        self.seats.get(agent.0 as usize).map_or(&self.nothing, |seat| &seat.custom)
    }

    pub(crate) fn occupy(&mut self, agent: AgentId, class: ClassId, queue: &mut Queue) {
        let Some(found) = queue.find_mut(class) else { return };
        if found.request.distinct.is_some() {
            found.taken.insert(agent);
        }
        let Request { resources, custom, whole_agent, queue: of, .. } = &found.request;
        if !custom.is_empty() {
            let left = self.custom(agent).minus(custom);
            self.set_custom(agent, left);
        }
        let (resources, whole_agent, of) = (*resources, *whole_agent, *of);
        queue.shares_mut().plan(of, resources);
        self.reserved.note_placed(class, agent, resources);
        let room = self.room(agent);
        let placeable = room.placeable && !room.last && !whole_agent;
        self.set_room(agent, Room { free: room.free.minus(resources), held: room.held + 1, placeable, ..room });
    }

    /// Offers a freed agent to the waiting classes in their order. `false`: the step's bound was met.
    fn offer(&mut self, agent: AgentId, queue: &mut Queue, policy: &Policy, out: &mut Vec<Placement>) -> bool {
        let mut from = None;
        queue.unstick(agent, self.free(agent));
        while has_room(self.room(agent), policy)
            && let Some(turn) = self.first_turn(agent, queue, from)
        {
            if out.len() >= policy.placements_per_step {
                return false;
            }
            let class = turn.class;
            from = Some(turn);
            if queue.find(class).is_some_and(Class::is_of_gangs) {
                match self.place_gang(class, queue, policy, out) {
                    Together::Placed | Together::Waits => continue,
                    Together::NextStep => return false,
                }
            }
            let Some(task) = queue.take_first(class) else { return true };
            self.occupy(agent, class, queue);
            out.push(Placement { task, agent, more: 0 });
        }
        if has_room(self.room(agent), policy) {
            queue.hold_back(agent, self.free(agent));
        }
        true
    }

    /// The first class from a turn on that the agent may be given now. Of a reserved one so many are asked that it may not
    /// be given, and no more but the one that it is for.
    fn first_turn(&self, agent: AgentId, queue: &Queue, from: Option<Turn>) -> Option<Turn> {
        let free = self.free(agent);
        let Some(reservation) = self.reserved.find(agent) else {
            return queue.first_for(agent, free, from, |class| !self.spent.contains(&class));
        };
        let refused = Cell::new(0);
        let wanted = |class| {
            if self.spent.contains(&class) {
                return false;
            }
            let admitted = self.reserved.admits(queue, class, agent);
            refused.set(refused.get() + usize::from(!admitted));
            admitted || refused.get() > BACKFILL_TURNS_MAX
        };
        let found = queue.first_for(agent, free, from, wanted)?;
        if self.reserved.admits(queue, found.class, agent) {
            return Some(found);
        }
        let own = queue.find(reservation.class).filter(|_| !self.spent.contains(&reservation.class))?;
        let fits = own.request.resources.fits(free.resources) && queue.has_quota(reservation.class);
        queue.turn(reservation.class).filter(|_| fits && queue.admits(reservation.class, agent, free))
    }

    /// Whether a task of the class would fit somewhere, if one waited.
    pub fn has_room(&mut self, class: ClassId, queue: &mut Queue, policy: &Policy) -> bool {
        self.best_for(class, None, queue, policy).is_some()
    }

    /// Whether the agent may be offered the class's next task, resources aside that are counted for all.
    pub fn admits(&self, queue: &Queue, class: ClassId, agent: AgentId) -> bool {
        queue.admits(class, agent, self.free(agent)) && self.reserved.admits(queue, class, agent)
    }

    /// The agent on which the class's next task fits best.
    fn best_for(
        &mut self,
        class: ClassId,
        from: Option<(Rank, AgentId)>,
        queue: &mut Queue,
        policy: &Policy,
    ) -> Option<(Rank, AgentId)> {
        self.catch_up(queue, policy, 0);
        let found = queue.find(class)?;
        if found.tiers.is_empty() {
            return self.best_of(found.audience, class, from, queue, |_| true);
        }
        found.tiers.iter().find_map(|tier| self.best_of(*tier, class, None, queue, |_| true))
    }

    /// The same of one audience, of those that may be taken.
    pub(crate) fn best_of(
        &self,
        audience: AudienceId,
        class: ClassId,
        from: Option<(Rank, AgentId)>,
        queue: &Queue,
        may_be: impl Fn((Rank, AgentId)) -> bool,
    ) -> Option<(Rank, AgentId)> {
        let (request, agents) = (&queue.find(class)?.request, queue.audiences().find(audience)?);
        let asked = request.resources;
        let bits = audience.bit() | if request.whole_agent { EMPTY } else { 0 };
        if agents.count() <= AUDIENCE_FEW {
            let place = |agent: usize| Some((self.seats.get(agent)?.ranked?.0, AgentId(agent as u32)));
            let fits = |(rank, agent): &(Rank, AgentId)| {
                asked.fits(self.room(*agent).free) && self.admits(queue, class, *agent) && may_be((*rank, *agent))
            };
            return agents.agents().filter_map(place).filter(fits).min();
        }
        let may = |offered: Mark| offered.bits & bits == bits && asked.fits(offered.amount);
        // On an agent that has no more than this, and nothing of it in use.
        let fullest = Room { free: asked, capacity: asked, ..Room::default() };
        let from = from.unwrap_or((rank(fullest, self.placing), AgentId(0)));
        let accept =
            |(rank, agent)| agents.contains(agent) && self.admits(queue, class, agent) && may_be((rank, agent));
        self.order.first(Some(from), may, accept)
    }

    /// Puts all but the latest `left` agents of which something has changed to their places in the order.
    pub(crate) fn catch_up(&mut self, queue: &mut Queue, policy: &Policy, left: usize) {
        for agent in queue.audiences_mut().take_remarked() {
            self.note_change(agent);
        }
        while self.changed.len() > left
            && let Some(agent) = self.changed.pop_front()
        {
            let Some(seat) = self.seats.get_mut(agent.0 as usize) else { continue };
            seat.changed = false;
            let empty = if seat.room.held == 0 { EMPTY } else { 0 };
            let mark = Mark { amount: seat.room.free, bits: queue.audiences_mut().bits_of(agent) | empty };
            let ranked = has_room(seat.room, policy).then(|| (rank(seat.room, self.placing), mark));
            let before = std::mem::replace(&mut seat.ranked, ranked);
            // What was freed was often taken again by the like.
            if before == ranked {
                continue;
            }
            if let Some((rank, _)) = before {
                self.order.remove((rank, agent));
            }
            if let Some((rank, mark)) = ranked {
                self.order.insert((rank, agent), mark);
            }
        }
    }
}

/// Whether an agent may be given one more attempt, whatever that needs.
fn has_room(room: Room, policy: &Policy) -> bool {
    room.placeable && room.held < policy.attempts_per_agent
}

/// An agent is filled the sooner, the less it has left of what is scarcer there, cores or memory (best fit), or the less of
/// that is in use (spreading), as the policy weighs them; then, the fewer attempts it holds. Those with gpus left come last,
/// so that these find cores and memory. Whatever fits into an agent ranks no higher than that.
fn rank(room: Room, placing: Placing) -> Rank {
    let Room { free, capacity, held, .. } = room;
    let left = scarce(free);
    let scarce = match placing {
        // As most clusters have it; what follows comes to the same.
        Placing { spread: 0, .. } => left,
        Placing { pack, spread } => {
            let all = u64::from(scarce(capacity).max(1));
            let used = all.saturating_sub(u64::from(left)) * SPREAD_SCALE / all;
            let sum = u64::from(pack) * u64::from(left) + u64::from(spread) * used;
            u32::try_from(sum / u64::from(pack + spread)).unwrap_or(u32::MAX)
        }
    };
    Rank { has_gpu: free.gpu > 0, scarce, held }
}

/// What there is of the scarcer of cores and memory, in MB.
fn scarce(amount: Resources) -> u32 {
    amount.cpu.saturating_mul(MEMORY_PER_CPU).min(amount.memory)
}

/// MB of memory that stand for a millicore.
const MEMORY_PER_CPU: u32 = 4;
/// What is in use of an agent counts as if all were of this size, in MB: 16 cores.
const SPREAD_SCALE: u64 = 64_000;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::{
        queue::{Exclusion, Turn},
        shares::QueueId,
    };
    use fixedbitset::FixedBitSet;
    use fleetwire_common::{
        ids::{JobId, Name},
        job::TaskSpec,
        policy::Quota,
        time::Time,
    };
    use proptest::prelude::*;

    const AGENTS: u32 = 48;
    const RARE: fb::Executor = fb::Executor(7);
    const EXECUTORS: [fb::Executor; 3] = [fb::Executor::Process, fb::Executor::Noop, RARE];

    /// Many agents run processes, few the rare one, and all can do nothing.
    fn runs(agent: u32, executor: fb::Executor) -> bool {
        match executor {
            fb::Executor::Process => !agent.is_multiple_of(4),
            RARE => agent % 4 == 1,
            _ => true,
        }
    }

    fn room(agent: u32, parts: (u32, u32, u32), placeable: bool) -> Room {
        let capacity = Resources { cpu: 100 + agent % 2 * 100, memory: 100, gpu: agent % 3, storage: 10 };
        let (cpu, memory, held) = parts;
        let free = Resources { cpu, memory, gpu: held.min(agent % 3), storage: 10 };
        Room { free, capacity, held, placeable, last: cpu == 7 }
    }

    #[derive(Clone, Debug)]
    enum Change {
        Room(u32, Room),
        Tasks(u8, u32, u32, u16),
        Held(u16, u32, u32),
        Exclude(usize, u32, bool),
        Requalify(u32, bool),
        Placing(u16, u16),
    }

    fn change() -> impl Strategy<Value = Change> {
        let rooms = (0..AGENTS, (0..100u32, 0..100u32, 0..4u32), prop::bool::weighted(0.8));
        prop_oneof![
            3 => rooms.prop_map(|(agent, parts, placeable)| Change::Room(agent, room(agent, parts, placeable))),
            3 => (0..96u8, 0..2u32, 1..5u32, 0..3u16).prop_map(|(class, gpu, count, queue)| Change::Tasks(class, gpu, count, queue)),
            1 => (0..3u16, 0..200u32, 0..200u32).prop_map(|(queue, cpu, memory)| Change::Held(queue, cpu, memory)),
            1 => (0..20usize, 0..AGENTS, any::<bool>()).prop_map(|(class, agent, on)| Change::Exclude(class, agent, on)),
            1 => (0..AGENTS, any::<bool>()).prop_map(|(agent, rare)| Change::Requalify(agent, rare)),
            1 => (0..3u16, 0..3u16).prop_map(|(pack, spread)| Change::Placing(pack, spread.max(1 - pack.min(1)))),
        ]
    }

    /// The default queue, one with a larger weight and a quota, and one with a quota only.
    fn with_queues() -> Queue {
        let mut queue = Queue::default();
        let shares = queue.shares_mut();
        shares.enter(&Name::new("a").unwrap(), 3, Quota { cpu: Some(150), gpu: Some(1), ..Quota::default() });
        shares.enter(&Name::new("b").unwrap(), 1, Quota { memory: Some(120), ..Quota::default() });
        shares.change_capacity(Resources::ZERO, Resources { cpu: 5_000, memory: 4_000, gpu: 48, storage: 480 });
        queue
    }

    fn request(class: u8, gpu: u32, queue: u16) -> Request {
        let (cpu, memory) = (10 + 20 * u32::from(class % 4), 10 + 20 * u32::from(class / 4 % 4));
        let resources = Resources { cpu, memory, gpu: gpu * u32::from(class) / 90, storage: 0 };
        let (executor, priority) = (EXECUTORS[usize::from(class / 16 % 3)], (class / 48) as i8);
        let (whole_agent, distinct_agents) = (class % 11 == 3, class % 7 == 2);
        let gang = if class % 5 == 4 { 2 + u32::from(class % 3) } else { 0 };
        let spec =
            TaskSpec { resources, executor, priority, whole_agent, distinct_agents, gang, ..TaskSpec::default() };
        Request::of_entry(&spec, (JobId(1), 0), QueueId(queue))
    }

    /// What [`plan`] is to do, by going through everything each time.
    fn full_search(index: &Index, mut queue: Queue, policy: &Policy) -> Vec<Placement> {
        let mut rooms: Vec<Room> = index.seats.iter().map(|seat| seat.room).collect();
        let mut out = Vec::new();
        let fits = |rooms: &[Room], queue: &Queue, class: ClassId, agent: AgentId| {
            let (room, asked) = (rooms[agent.0 as usize], queue.find(class).unwrap().request.resources);
            let free = Free { resources: room.free, custom: &Custom::default(), empty: room.held == 0 };
            has_room(room, policy)
                && asked.fits(room.free)
                && queue.admits(class, agent, free)
                && queue.has_quota(class)
        };
        let mut place = |rooms: &mut [Room], queue: &mut Queue, class: ClassId, agent: AgentId, more: u32| {
            let room = &mut rooms[agent.0 as usize];
            room.free = room.free.minus(queue.find(class).unwrap().request.resources);
            room.held += 1;
            let request = queue.find(class).unwrap().request.clone();
            queue.shares_mut().plan(request.queue, request.resources);
            room.placeable &= !room.last && !request.whole_agent;
            if request.distinct.is_some() {
                queue.find_mut(class).unwrap().taken.insert(agent);
            }
            out.push(Placement { task: queue.take_first(class).unwrap(), agent, more });
        };
        // As many as are placed at once, the best first.
        let best = |rooms: &[Room], queue: &Queue, class: ClassId| {
            let agents = (0..rooms.len() as u32).map(AgentId).filter(|agent| fits(rooms, queue, class, *agent));
            let mut agents: Vec<AgentId> = agents.collect();
            agents.sort_by_key(|agent| (rank(rooms[agent.0 as usize], index.placing), *agent));
            let unit = queue.find(class).unwrap().unit() as usize;
            agents.truncate(unit);
            (agents.len() == unit).then_some((class, agents))
        };
        let mut place_all = |rooms: &mut [Room], queue: &mut Queue, class: ClassId, agents: Vec<AgentId>| {
            let count = agents.len() as u32;
            agents.into_iter().zip((0..count).rev()).for_each(|(agent, more)| place(rooms, queue, class, agent, more));
        };
        for agent in &index.freed {
            let turn = |rooms: &[Room], queue: &Queue| {
                let of = |class| match queue.find(class).unwrap().is_of_gangs() {
                    true => best(rooms, queue, class),
                    false => Some((class, vec![*agent])),
                };
                queue.turns().filter(|turn| fits(rooms, queue, turn.class, *agent)).find_map(|turn| of(turn.class))
            };
            while let Some((class, agents)) = turn(&rooms, &queue) {
                place_all(&mut rooms, &mut queue, class, agents);
            }
        }
        let next =
            |rooms: &[Room], queue: &Queue| queue.turns().find_map(|Turn { class, .. }| best(rooms, queue, class));
        while let Some((class, agents)) = next(&rooms, &queue) {
            place_all(&mut rooms, &mut queue, class, agents);
        }
        out
    }

    #[test]
    fn changes_do_not_pile_up_where_nobody_asks() {
        let (mut index, mut queue, policy) = (Index::default(), Queue::default(), Policy::default());
        for agent in 0..1_000 {
            index.set_room(AgentId(agent), room(agent, (10, 10, 0), true));
            assert!(!plan(&mut index, &mut queue, &policy, &mut Vec::new()));
            assert!(index.changed.len() <= CHANGES_LEFT_MAX);
        }
        assert_eq!(index.order.keys(None).count(), 1_000 - CHANGES_LEFT_MAX);
    }

    #[test]
    fn an_agent_that_got_fuller_for_another_queue_is_not_passed_over() {
        let (mut index, mut queue, policy) = (Index::default(), with_queues(), Policy::default());
        for (agent, memory) in [(0, 60), (1, 90), (2, 95)] {
            index.set_room(AgentId(agent), room(agent, (100, memory, 0), true));
        }
        plan(&mut index, &mut queue, &policy, &mut Vec::new());
        for (job, distinct_agents, count) in [(1, true, 2), (2, false, 1)] {
            let resources = Resources { cpu: 1, memory: 45, ..Resources::ZERO };
            let spec = TaskSpec { resources, distinct_agents, ..TaskSpec::default() };
            let request = Request::of_entry(&spec, (JobId(job), 0), QueueId(job as u16 - 1));
            let class = queue.enter(&request, |_| (0..AGENTS as usize).collect());
            queue.push(class, JobId(job), 0, 0, count);
        }
        let (expected, mut placements) = (full_search(&index, queue.clone(), &policy), Vec::new());
        plan(&mut index, &mut queue, &policy, &mut placements);
        assert_eq!(placements, expected);
        let agents = placements.iter().map(|placement| placement.agent.0);
        assert_eq!(agents.collect::<Vec<_>>(), [0, 1, 1], "first one of each, then the second of the first job");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn the_lazy_index_places_as_a_full_search_would(changes in prop::collection::vec(change(), 1..120)) {
            let (mut index, mut queue) = (Index::default(), with_queues());
            let mut held = [Resources::ZERO; 3];
            let policy = Policy { attempts_per_agent: 6, ..Policy::default() };
            let mut classes = Vec::new();
            for (number, change) in changes.into_iter().enumerate() {
                match change {
                    Change::Room(agent, room) => index.set_room(AgentId(agent), room),
                    Change::Held(of, cpu, memory) => {
                        let amount = Resources { cpu, memory, ..Resources::ZERO };
                        queue.shares_mut().hold(QueueId(of), amount);
                        let before = std::mem::replace(&mut held[usize::from(of)], amount);
                        if before != Resources::ZERO {
                            queue.shares_mut().release(QueueId(of), before);
                        }
                    }
                    Change::Tasks(class, gpu, count, of) => {
                        let class = queue.enter(&request(class, gpu, of), |request| {
                            let able = (0..AGENTS).filter(|agent| runs(*agent, request.executor));
                            able.map(|agent| agent as usize).collect::<FixedBitSet>()
                        });
                        classes.push(class);
                        let gang = queue.find(class).unwrap().request.gang.max(1);
                        queue.push(class, JobId(number as u64), 0, 0, count.div_ceil(gang) * gang);
                    }
                    Change::Placing(pack, spread) => index.set_placing(Placing { pack, spread }),
                    Change::Exclude(class, agent, on) => {
                        let Some(class) = classes.get(class) else { continue };
                        let exclusion = Exclusion { until: on.then_some(Time::NEVER), strikes: 1 };
                        queue.find_mut(*class).unwrap().excluded.insert(AgentId(agent), exclusion);
                        index.offer_again(AgentId(agent));
                    }
                    Change::Requalify(agent, rare) => {
                        let able = |request: &Request| match request.executor {
                            RARE => rare,
                            executor => runs(agent, executor),
                        };
                        queue.requalify(AgentId(agent), able);
                        index.offer_again(AgentId(agent));
                    }
                }
                let expected = full_search(&index, queue.clone(), &policy);
                let mut placements = Vec::new();
                prop_assert!(!plan(&mut index, &mut queue, &policy, &mut placements));
                prop_assert_eq!(placements, expected);
                // What was planned comes to nothing.
                queue.shares_mut().forget_planned();
                let (order, seats) = (&index.order, &index.seats);
                let ranked = seats.iter().zip(0..).filter_map(|(seat, agent)| Some((seat.ranked?.0, AgentId(agent))));
                prop_assert!(order.keys(None).eq(ranked.collect::<BTreeSet<_>>()));
            }
        }
    }
}
