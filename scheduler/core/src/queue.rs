//! Pending tasks, by request class: tasks that ask for the same share one decision.
//!
//! Invariants: a class with pending tasks is in its lane under its first task's job; one that is not `fresh` fits no
//! placeable agent but those that were freed since, whatever its queue's quota leaves. What only a quota keeps from an
//! agent is fresh, so that it is tried again as soon as that leaves more.

pub use crate::lanes::{ClassId, Turn};

use crate::{
    ageing::Ageing,
    audiences::{Audience, AudienceId, Audiences},
    gathering::{Seats, gang_of},
    lanes::Lanes,
    limits::IDLE_CLASSES_MAX,
    ranges::Ranges,
    ranked::{Least, Mark, Ranked},
    semaphores::{Need, Semaphores},
    shares::{QueueId, Shares},
};
use fixedbitset::FixedBitSet;
use fleetwire_common::{
    custom::Custom,
    fb,
    ids::{AgentId, JobId, TaskId},
    job::{Constraint, Preference, TaskSpec},
    policy::ClusterPolicy,
    resources::Resources,
    time::Time,
};
use slab::Slab;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

/// What a task asks of an agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// Higher goes first.
    pub priority: i8,
    /// Among those of one priority, queues share.
    pub queue: QueueId,
    /// What it needs while it runs.
    pub resources: Resources,
    /// What else it needs.
    pub custom: Custom,
    /// The kind of agent; `None` = any.
    pub agent_type: Option<fb::AgentType>,
    /// What must be able to run it.
    pub executor: fb::Executor,
    /// What the agent's labels must satisfy.
    pub constraints: Vec<Constraint>,
    /// Within what time from its start an attempt surely ends, its kill grace included; `None`: nobody knows.
    pub ends_within: Option<Duration>,
    /// It must hold nothing else meanwhile.
    pub whole_agent: bool,
    /// No two tasks of this entry may be on one agent at once.
    pub distinct: Option<(JobId, u16)>,
    /// Which agents come first.
    pub prefer: Vec<Preference>,
    /// What it holds of semaphores meanwhile.
    pub semaphores: Vec<Need>,
    /// So many tasks start together, each on an agent of its own; 0 = each alone.
    pub gang: u32,
    /// Of an audience: only agents on which the preferences come to that.
    pub score: Option<i32>,
}

impl Request {
    /// What tasks of this spec ask for.
    pub fn of(spec: &TaskSpec) -> Request {
        Request {
            priority: spec.priority,
            queue: QueueId::default(),
            resources: spec.resources,
            custom: spec.custom.clone(),
            agent_type: spec.agent_type,
            executor: spec.executor,
            constraints: spec.constraints.clone(),
            ends_within: ends_within(spec),
            whole_agent: spec.whole_agent,
            distinct: None,
            prefer: spec.prefer.clone(),
            semaphores: spec.semaphores.iter().map(|one| (one.name.clone(), one.units)).collect(),
            gang: spec.gang,
            score: None,
        }
    }
}

impl Request {
    /// What tasks of an entry ask for, of a job in that queue.
    pub fn of_entry(spec: &TaskSpec, (job, entry): (JobId, u16), queue: QueueId) -> Request {
        Request { distinct: spec.distinct_agents.then_some((job, entry)), queue, ..Request::of(spec) }
    }

    /// What the preferences may come to, the most first.
    fn scores(&self) -> Vec<i32> {
        let mut sums = vec![0];
        for weight in self.prefer.iter().map(|one| i32::from(one.weight)) {
            sums.extend(sums.clone().iter().map(|sum| sum + weight));
        }
        sums.sort_unstable_by(|one, other| other.cmp(one));
        sums.dedup();
        sums
    }

    /// Whether it may be given ahead to an agent on which others run: what is counted by name, or must be apart from
    /// others, may not.
    pub fn may_wait_there(&self) -> bool {
        self.custom.is_empty()
            && !self.whole_agent
            && self.distinct.is_none()
            && self.semaphores.is_empty()
            && self.gang == 0
    }
}

/// Within what time from its start an attempt surely ends, its kill grace included, if it does.
pub fn ends_within(spec: &TaskSpec) -> Option<Duration> {
    let grace = Duration::from_millis(u64::from(spec.kill_grace_ms));
    (spec.timeout_s > 0).then(|| Duration::from_secs(spec.timeout_s).saturating_add(grace))
}

/// What an agent has free.
#[derive(Clone, Copy, Debug)]
pub struct Free<'a> {
    /// Of what is counted for all.
    pub resources: Resources,
    /// Of what is counted by name.
    pub custom: &'a Custom,
    /// It holds nothing.
    pub empty: bool,
}

/// An agent that rejected a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exclusion {
    /// Until when it is not offered; `None` = it is again, but its rejections are remembered.
    pub until: Option<Time>,
    /// Rejections in a row.
    pub strikes: u32,
}

/// Tasks that ask for the same.
#[derive(Clone, Debug)]
pub struct Class {
    /// What they ask for.
    pub request: Request,
    /// The agents whose kind, executors and labels suit it.
    pub audience: AudienceId,
    /// The same, apart by what its preferences come to, the most first; none if it has no preferences.
    pub tiers: Vec<AudienceId>,
    /// Of those, the ones that rejected it lately.
    pub excluded: BTreeMap<AgentId, Exclusion>,
    /// Those that have one of its tasks, if they must be distinct.
    pub taken: BTreeSet<AgentId>,
    /// When one of its tasks was last taken to be assigned, or the first that waits began to.
    pub served_at: Time,
    pending: Ranges<(JobId, u16)>,
    /// Entries of jobs that have not ended which are of this class.
    entries: u32,
    /// While there are none: its place among the idle ones.
    idle: Option<u64>,
    /// To be tried on all agents.
    fresh: bool,
    /// Its next task cannot have what it needs of semaphores: it has no turn.
    parked: bool,
    /// When it was last tried it fitted no agent, and none was freed since on which it would.
    stuck: bool,
    /// While it is both: its place among those.
    stuck_as: Option<(JobId, ClassId)>,
    /// While tasks wait: its place among the others, and when that is another.
    turn: Option<(Turn, Option<Time>)>,
}

impl Class {
    /// How many tasks wait.
    pub fn pending(&self) -> u64 {
        self.pending.count()
    }

    /// Whether its tasks wait for nothing but agents.
    pub fn may_be_placed(&self) -> bool {
        self.pending.count() > 0 && !self.parked
    }

    /// Whether they wait for semaphores.
    pub fn is_parked(&self) -> bool {
        self.parked
    }

    /// How many tasks of this class wait before that one.
    pub fn pending_before(&self, task: TaskId) -> u64 {
        self.pending.count_before((task.job, task.entry), task.index)
    }

    /// The task that is served next.
    pub fn first(&self) -> Option<TaskId> {
        self.pending.first().map(|((job, entry), index)| TaskId { job, entry, index })
    }

    /// The last tasks of an entry that wait in one range.
    pub fn last_of(&self, job: JobId, entry: u16) -> Option<Range<u32>> {
        self.pending.ranges((job, entry)).next_back()
    }

    /// Those of an entry that wait, from an index on.
    pub fn waiting_from(&self, job: JobId, entry: u16, index: u32) -> Vec<Range<u32>> {
        let ranges = self.pending.ranges_from((job, entry), index);
        ranges.map(|range| range.start.max(index)..range.end).collect()
    }

    /// Whether its tasks are placed in gangs.
    pub fn is_of_gangs(&self) -> bool {
        self.request.gang > 0
    }

    /// The gang of which some are served next, by its first member.
    pub fn first_gang(&self) -> Option<TaskId> {
        self.first().map(|task| gang_of(task, self.request.gang))
    }

    /// How many tasks are served at once next: all that wait of the first gang, or one.
    pub fn unit(&self) -> u32 {
        let Some(((job, entry), index)) = self.pending.first().filter(|_| self.is_of_gangs()) else { return 1 };
        let end = (index - index % self.request.gang).saturating_add(self.request.gang);
        let pieces = self.pending.ranges_from((job, entry), index).take_while(|piece| piece.start < end);
        pieces.map(|piece| piece.end.min(end) - piece.start).sum()
    }

    /// What those need together of what is counted for all.
    pub fn at_once(&self) -> Resources {
        self.request.resources.times(self.unit())
    }

    /// What those hold together of semaphores.
    pub fn needs(&self) -> Vec<Need> {
        let (needs, unit) = (self.request.semaphores.iter(), self.unit());
        needs.map(|(name, units)| (name.clone(), units.saturating_mul(unit))).collect()
    }

    /// Whether that task waits.
    pub fn holds(&self, task: TaskId) -> bool {
        self.pending.range_at((task.job, task.entry), task.index).is_some()
    }
}

/// All classes.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    classes: Slab<Class>,
    by_request: BTreeMap<Request, ClassId>,
    audiences: Audiences,
    lanes: Lanes,
    shares: Shares,
    ageing: Ageing,
    /// What is held by name, and by whom.
    pub semaphores: Semaphores,
    /// Which agents have members of gangs.
    pub seats: Seats,
    /// Classes whose next gang only their queue's quota keeps from agents, as far as that is known.
    short: BTreeSet<ClassId>,
    stuck: Ranked<(JobId, ClassId), Least>,
    idle: BTreeMap<u64, ClassId>,
    idled: u64,
    /// The time of the event that is handled.
    pub now: Time,
}

impl Queue {
    /// The class of a request, for one more entry of a job. `eligible` is asked for a new class only.
    pub fn enter(&mut self, request: &Request, eligible: impl Fn(&Request) -> FixedBitSet) -> ClassId {
        if let Some(class) = self.by_request.get(request).copied()
            && let Some(found) = self.classes.get_mut(class.0 as usize)
        {
            found.entries += 1;
            if let Some(idle) = found.idle.take() {
                self.idle.remove(&idle);
            }
            return class;
        }
        let tier = |score| self.audiences.enter(&Request { score: Some(score), ..request.clone() }, &eligible);
        let tiers =
            if request.prefer.is_empty() { Vec::new() } else { request.scores().into_iter().map(tier).collect() };
        let class = Class {
            request: request.clone(),
            audience: self.audiences.enter(&Request { prefer: Vec::new(), ..request.clone() }, &eligible),
            tiers,
            excluded: BTreeMap::new(),
            taken: BTreeSet::new(),
            served_at: self.now,
            pending: Ranges::default(),
            entries: 1,
            idle: None,
            fresh: false,
            parked: false,
            stuck: false,
            stuck_as: None,
            turn: None,
        };
        let id = ClassId(self.classes.insert(class) as u32);
        self.by_request.insert(request.clone(), id);
        id
    }

    /// One entry less. A class without entries is kept for a while, because the next job is often like the
    /// last; the one that has been without for longest goes in its place.
    pub fn leave(&mut self, class: ClassId) {
        let Some(found) = self.classes.get_mut(class.0 as usize) else { return };
        found.entries -= 1;
        if found.entries > 0 {
            return;
        }
        debug_assert!(found.pending.count() == 0, "an ended job has no pending tasks");
        self.idled += 1;
        found.idle = Some(self.idled);
        self.idle.insert(self.idled, class);
        let oldest = (self.idle.len() > IDLE_CLASSES_MAX).then(|| self.idle.pop_first()).flatten();
        let Some((_, oldest)) = oldest else { return };
        self.drop_class(oldest);
    }

    fn drop_class(&mut self, oldest: ClassId) {
        let Some(gone) = self.classes.try_remove(oldest.0 as usize) else { return };
        self.short.remove(&oldest);
        self.audiences.leave(gone.audience);
        gone.tiers.iter().for_each(|tier| self.audiences.leave(*tier));
        self.by_request.remove(&gone.request);
    }

    /// The class of that number.
    pub fn find(&self, class: ClassId) -> Option<&Class> {
        self.classes.get(class.0 as usize)
    }

    /// The same, to be changed.
    pub fn find_mut(&mut self, class: ClassId) -> Option<&mut Class> {
        self.classes.get_mut(class.0 as usize)
    }

    /// The agents that suit a class, its resources aside.
    pub fn audience(&self, class: ClassId) -> Option<&Audience> {
        self.audiences.find(self.find(class)?.audience)
    }

    /// All audiences.
    pub fn audiences(&self) -> &Audiences {
        &self.audiences
    }

    /// The same, to be changed.
    pub fn audiences_mut(&mut self) -> &mut Audiences {
        &mut self.audiences
    }

    /// Whether the agent, which has so much free, may be offered the class's tasks, resources aside that are counted for all.
    pub fn admits(&self, class: ClassId, agent: AgentId, free: Free<'_>) -> bool {
        let fits = |request: &Request| request.custom.fits(free.custom) && (free.empty || !request.whole_agent);
        self.find(class).is_some_and(|found| fits(&found.request) && self.suits(found, agent))
    }

    /// Whether the agent may be offered the class's tasks, whatever is free there.
    pub fn suits(&self, class: &Class, agent: AgentId) -> bool {
        self.audiences.find(class.audience).is_some_and(|audience| audience.contains(agent))
            && class.excluded.get(&agent).is_none_or(|exclusion| exclusion.until.is_none())
            && !class.taken.contains(&agent)
    }

    /// What an agent is has changed: `suits` says what it will do for now, and what it rejected is forgotten.
    pub fn requalify(&mut self, agent: AgentId, suits: impl Fn(&Request) -> bool) {
        self.audiences.requalify(agent, suits);
        for (_, class) in &mut self.classes {
            if class.excluded.get(&agent).is_some_and(|exclusion| exclusion.until.is_none()) {
                class.excluded.remove(&agent);
            }
        }
    }

    /// Adds tasks `from..to` of an entry. Where others of the class have been waiting, it fits nowhere.
    pub fn push(&mut self, class: ClassId, job: JobId, entry: u16, from: u32, to: u32) {
        let waited = self.find(class).is_some_and(|class| class.pending() > 0);
        self.change(class, |pending| pending.insert((job, entry), from, to));
        if !waited {
            self.note_served(class);
            self.freshen(class);
        }
    }

    /// Removes whatever of tasks `from..to` waits: of an entry that comes after another, or is capped, only some may.
    pub fn withdraw(&mut self, class: ClassId, job: JobId, entry: u16, from: u32, to: u32) {
        self.change(class, |pending| pending.remove((job, entry), from, to));
    }

    /// Removes and returns the first task.
    pub fn take_first(&mut self, class: ClassId) -> Option<TaskId> {
        let ((job, entry), index) = self.change(class, Ranges::take_first)??;
        self.note_served(class);
        if let Some(found) = self.classes.get(class.0 as usize).filter(|class| !class.request.semaphores.is_empty()) {
            self.semaphores.take(&found.request.semaphores);
            self.heed_semaphores();
        }
        Some(TaskId { job, entry, index })
    }

    /// What queues hold, and may.
    pub fn shares(&self) -> &Shares {
        &self.shares
    }

    /// The same, to be changed.
    pub fn shares_mut(&mut self) -> &mut Shares {
        &mut self.shares
    }

    /// The classes with pending tasks, in their order.
    pub fn turns(&self) -> impl Iterator<Item = Turn> + '_ {
        self.lanes.turns(&self.shares)
    }

    /// Whether its queue's quota leaves as much as the class's next tasks need at once.
    pub fn has_quota(&self, class: ClassId) -> bool {
        self.find(class).is_some_and(|class| class.at_once().fits(self.shares.left(class.request.queue)))
    }

    /// Whether the next gang of a class may have all that it needs but agents; if only its quota keeps that from it, it is
    /// looked at again.
    pub fn has_enough(&mut self, class: ClassId) -> bool {
        if !self.has_quota(class) {
            self.short.insert(class);
            return false;
        }
        self.find(class).is_some_and(|found| self.semaphores.have_room(&found.needs(), &BTreeMap::new()))
    }

    /// What was kept from agents by its quota is tried again once that leaves enough.
    pub fn heed_quotas(&mut self) {
        let ready: Vec<ClassId> = self.short.iter().copied().filter(|class| self.has_quota(*class)).collect();
        for class in ready {
            self.short.remove(&class);
            self.freshen(class);
        }
    }

    /// The first class from `turn` on that the agent may be offered, that needs no more than is free there, and than
    /// its quota leaves, and that is `wanted`. Those of the same lane before `turn` are not asked again.
    pub fn first_for(
        &self,
        agent: AgentId,
        free: Free<'_>,
        from: Option<Turn>,
        wanted: impl Fn(ClassId) -> bool,
    ) -> Option<Turn> {
        let bits = self.audiences.bits_of(agent);
        self.lanes.walk(from, &self.shares).find_map(|lane| {
            let room = free.resources.or_less(self.shares.left(lane.queue));
            let may = |asked: Mark| asked.bits & bits != 0 && asked.amount.fits(room);
            lane.first(from, may, |class| self.admits(class, agent, free) && wanted(class))
        })
    }

    /// The priority of what is served first; `None` if nothing waits.
    pub fn highest(&self) -> Option<i16> {
        let waits = !self.is_empty();
        waits.then(|| self.lanes.walk(None, &self.shares).next().map(|lane| lane.priority)).flatten()
    }

    /// Where a class stands that has waiting tasks.
    pub fn turn(&self, class: ClassId) -> Option<Turn> {
        Some(self.find(class)?.turn?.0)
    }

    /// Whether one class is served before another whatever has been served: it is more urgent, or of the same queue and
    /// earlier. Both have waiting tasks.
    pub fn precedes(&self, class: ClassId, other: ClassId) -> bool {
        let (Some(one), Some(other)) = (self.turn(class), self.turn(other)) else { return false };
        let is_earlier = one.queue == other.queue && (one.job, one.class) < (other.job, other.class);
        one.priority > other.priority || (one.priority == other.priority && is_earlier)
    }

    /// What only its quota keeps from an agent that has so much free is to be tried again.
    pub fn hold_back(&mut self, agent: AgentId, free: Free<'_>) {
        if !self.shares.has_limits() {
            return;
        }
        let bits = self.audiences.bits_of(agent);
        let may = |asked: Mark| asked.bits & bits != 0 && asked.amount.fits(free.resources);
        let kept = |class: ClassId| self.admits(class, agent, free) && !self.has_quota(class);
        let lanes = self.lanes.walk(None, &self.shares).filter(|lane| self.shares.is_limited(lane.queue));
        let held_back: Vec<_> = lanes.flat_map(|lane| lane.tried(may).filter(|turn| kept(turn.class))).collect();
        held_back.into_iter().for_each(|turn| self.freshen(turn.class));
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// The first class that must be tried on all agents; and whether it need not share with other queues.
    pub fn first_fresh(&self) -> Option<(ClassId, bool)> {
        let first = self.lanes.walk(None, &self.shares).find_map(|lane| {
            let left = self.shares.left(lane.queue);
            lane.first_fresh(|asked| asked.amount.fits(left))
        });
        first.map(|turn| (turn.class, self.lanes.is_alone(turn)))
    }

    fn note_served(&mut self, class: ClassId) {
        let now = self.now;
        if let Some(found) = self.find_mut(class) {
            found.served_at = now;
        }
    }

    /// The class may fit agents that were not freed: it is to be tried on all of them.
    fn freshen(&mut self, class: ClassId) {
        self.file(class, true);
    }

    /// The class was tried: it is empty, or fits no agent.
    pub fn settle(&mut self, class: ClassId) {
        self.file(class, false);
        let Some(found) = self.classes.get_mut(class.0 as usize) else { return };
        if found.may_be_placed() && !found.request.semaphores.is_empty() {
            // It keeps nothing from others any more.
            found.stuck = true;
            self.semaphores.note_change(&found.request.semaphores);
            self.heed_semaphores();
        }
    }

    /// A class waits for semaphores, or it does not any more: then it is tried on all agents.
    pub fn park(&mut self, class: ClassId, parked: bool) {
        let Some(found) = self.classes.get_mut(class.0 as usize).filter(|found| found.parked != parked) else { return };
        (found.parked, found.stuck) = (parked, found.stuck && parked);
        self.file(class, !parked);
    }

    /// The agent was freed: what is parked and would fit there keeps its turn from now on.
    pub fn unstick(&mut self, agent: AgentId, free: Free<'_>) {
        let bits = self.audiences.bits_of(agent);
        let may = |asked: Mark| asked.bits & bits != 0 && asked.amount.fits(free.resources);
        while let Some((_, class)) = self.stuck.first(None, may, |(_, class)| self.admits(class, agent, free)) {
            let Some(found) = self.classes.get_mut(class.0 as usize) else { break };
            found.stuck = false;
            self.semaphores.note_change(&found.request.semaphores);
            self.file(class, false);
        }
        self.heed_semaphores();
    }

    /// Whether a class keeps what it needs of semaphores from those behind it: not if there is no agent for it, or its
    /// queue may have no more.
    pub fn keeps_its_turn(&self, class: ClassId) -> bool {
        let keeps = |found: &Class| found.fresh || (found.parked && !found.stuck);
        self.find(class).is_some_and(keeps) && self.has_quota(class)
    }

    /// Which of the classes that need the same of semaphores come first, and by which job.
    pub fn rank(&self, class: ClassId) -> Option<(Reverse<i16>, JobId, ClassId)> {
        let found = self.find(class)?;
        let ((job, _), _) = found.pending.first()?;
        Some((Reverse(self.ageing.aged(found.request.priority, job).0), job, class))
    }

    /// One more job in a queue; its tasks wait from then on, as far as their priority goes.
    pub fn enter_job(&mut self, job: JobId, queue: QueueId, since: Time) {
        self.ageing.enter(job, since);
        self.shares.get_mut(queue).into_iter().for_each(|share| share.jobs += 1);
    }

    /// They have ended.
    pub fn leave_job(&mut self, job: JobId, queue: QueueId) {
        self.ageing.leave(job);
        self.seats.forget(job);
        self.shares.get_mut(queue).into_iter().for_each(|share| share.jobs -= 1);
    }

    /// Another policy: of the queues that it does not have no job is left.
    pub fn set_policy(&mut self, policy: &ClusterPolicy) {
        let gone: Vec<QueueId> =
            self.shares.names().filter(|(name, _)| policy.queue(name).is_none()).map(|(_, queue)| queue).collect();
        for queue in gone {
            let idle = self.idle.iter().map(|(idle, class)| (*idle, *class));
            let left = idle.filter(|(_, class)| self.find(*class).is_some_and(|class| class.request.queue == queue));
            for (idle, class) in left.collect::<Vec<_>>() {
                self.idle.remove(&idle);
                self.drop_class(class);
            }
            self.shares.leave(queue);
        }
        for (name, rule) in policy.queues() {
            self.shares.enter(name, rule.weight, rule.quota);
        }
        self.ageing.set_rule(policy.ageing());
        let classes: Vec<_> = self.classes.iter().map(|(class, found)| (ClassId(class as u32), found.fresh)).collect();
        classes.into_iter().for_each(|(class, fresh)| self.file(class, fresh));
    }

    /// What classes that have jobs ask for.
    pub fn requests(&self) -> impl Iterator<Item = &Request> {
        self.classes.iter().filter(|(_, class)| class.entries > 0).map(|(_, class)| &class.request)
    }

    /// It is that late: those that have waited for long enough rise.
    pub fn age(&mut self, now: Time) {
        self.ageing.set_now(now);
        while let Some(class) = self.ageing.take_due() {
            let Some(fresh) = self.find(class).map(|class| class.fresh) else { continue };
            self.file(class, fresh);
        }
    }

    /// Puts a class where it belongs, now that it is fresh or is not.
    fn file(&mut self, class: ClassId, fresh: bool) {
        let Some(found) = self.classes.get_mut(class.0 as usize) else { return };
        let Request { priority, queue, resources, .. } = found.request;
        let first = found.pending.first().map(|((job, _), _)| job);
        let stuck_as = first.filter(|_| found.parked && found.stuck).map(|job| (job, class));
        if found.stuck_as != stuck_as {
            let mark = Mark { amount: resources, bits: found.audience.bit() };
            std::mem::replace(&mut found.stuck_as, stuck_as).into_iter().for_each(|key| _ = self.stuck.remove(key));
            stuck_as.into_iter().for_each(|key| self.stuck.insert(key, mark));
        }
        let turn = first.filter(|_| !found.parked).map(|job| {
            let (priority, next) = self.ageing.aged(priority, job);
            (Turn { priority, queue, job, class }, next)
        });
        let fresh = fresh && turn.is_some();
        if (found.turn, found.fresh) == (turn, fresh) {
            return;
        }
        if let Some((before, next)) = std::mem::replace(&mut found.turn, turn) {
            self.lanes.remove(before, found.fresh);
            next.into_iter().for_each(|at| self.ageing.disarm(class, at));
        }
        if let Some((turn, next)) = turn {
            let mark = Mark { amount: resources, bits: found.audience.bit() };
            self.lanes.insert(turn, mark, fresh);
            next.into_iter().for_each(|at| self.ageing.arm(class, at));
        }
        found.fresh = fresh;
    }

    /// How many tasks of the same queue wait that are served before that one.
    pub fn ahead_of(&self, class: ClassId, task: TaskId) -> u64 {
        let Some(own) = self.find(class) else { return 0 };
        let (priority, _) = self.ageing.aged(own.request.priority, task.job);
        let own_turn = (-priority, task.job, class);
        let before = self.turns().take_while(|other| other.priority >= priority).filter(|other| {
            let turn = (-other.priority, other.job, other.class);
            other.queue == own.request.queue && turn < own_turn && other.class != class
        });
        let others: u64 = before.filter_map(|other| self.find(other.class)).map(Class::pending).sum();
        others + own.pending_before(task)
    }

    fn change<T>(&mut self, class: ClassId, f: impl FnOnce(&mut Ranges<(JobId, u16)>) -> T) -> Option<T> {
        let found = self.classes.get_mut(class.0 as usize)?;
        let turn = |pending: &Ranges<(JobId, u16)>| pending.first().map(|((job, _), _)| job);
        let before = turn(&found.pending);
        let result = f(&mut found.pending);
        // The next of its gangs may be a smaller one, of which some have ended.
        let is_of_gangs = found.is_of_gangs();
        if before != turn(&found.pending) || is_of_gangs {
            self.semaphores.note_change(&found.request.semaphores);
            let fresh = found.fresh || is_of_gangs;
            self.file(class, fresh);
        }
        Some(result)
    }
}
