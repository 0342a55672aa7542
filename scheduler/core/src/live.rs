//! What facts do not say: sessions, the resource ledger, health, progress, the queue and what is due.
//! Empty at start, rebuilt from the state and from what agents list when they register.
//!
//! Invariants: the ledger of an agent holds every attempt that was assigned to it or that it listed,
//! until it has said that the last process is gone; an attempt that has ended is not released by that.

use crate::{
    agenda::Agenda,
    attempts::Counts,
    backlog::Backlog,
    breaker::Breaker,
    caps::Caps,
    deadlines::{Deadline, Deadlines},
    gathering::{Gathering, gang_of},
    placement::{Index, Room},
    presence::Presence,
    queue::{ClassId, Queue},
    shares::QueueId,
    waits::Waits,
};
use fleetwire_common::{
    custom::{Custom, CustomSum},
    fb,
    ids::{AgentId, AttemptId, JobId, JobKey, Name, Principal, SessionId, TaskId},
    resources::{Resources, ResourcesSum},
    time::Time,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
    sync::Arc,
    time::Duration,
};

/// What facts do not say.
#[derive(Debug, Default)]
pub struct Live {
    /// Sessions, also those of agents that have not registered yet.
    pub sessions: BTreeMap<SessionId, Session>,
    /// The one session of each agent that is connected.
    pub agent_sessions: BTreeMap<Name, SessionId>,
    agents: Vec<AgentLive>,
    /// Jobs that have not ended.
    pub jobs: BTreeMap<JobId, JobLive>,
    /// Tasks that wait for an agent.
    pub queue: Queue,
    /// Agents by what is free on them.
    pub index: Index,
    /// What is due.
    pub deadlines: Deadlines,
    /// Held queries.
    pub watches: BTreeMap<u64, Watch>,
    /// Log requests that agents have not answered.
    pub logs: BTreeMap<u64, LogWait>,
    /// The last number given to a held query or a log request.
    pub last_number: u64,
    /// Counts changes of jobs; starts at the time of the start, so that versions rise across restarts.
    pub version: u64,
    /// Agents on which something has ended: they may be given more ahead.
    pub refill: BTreeSet<AgentId>,
    /// The last planning stopped at its bound: it goes on as soon as nothing else has arrived.
    pub unplanned: bool,
    /// What is known of the journal's disk.
    pub disk: DiskRoom,
    /// What has ended in this event and is not passed on yet, of jobs whose tasks come after each other.
    pub ended: VecDeque<(JobId, u16, Range<u32>)>,
    /// Jobs with a budget of failures of which something has ended in this event.
    pub spending: Vec<JobId>,
    /// Attempts that were assigned and have too much to carry, and how many bytes that is.
    pub unsendable: Vec<(AttemptId, usize)>,
    /// How long after the acceptance of a restored backup whatever may hold a semaphore unknown to it is gone.
    pub semaphores_gone_after: Duration,
    /// Jobs whose caps are to be looked at before the next placement.
    pub capped: Vec<JobId>,
    /// Gangs of which something has changed, each by its first member.
    pub gangs: BTreeSet<TaskId>,
    /// When each schedule is due.
    pub agenda: Agenda,
    /// How many attempts of each priority are in all ledgers.
    pub priorities: BTreeMap<i8, u32>,
    /// How many more may be asked to make way now.
    pub preemptions: Option<Allowance>,
}

/// What is known of the room on the journal's disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskRoom {
    /// It has none but its reserve: no job is taken.
    pub low: bool,
    /// How many segments of bodies were begun since the start …
    pub blob_segments: u64,
    /// … and how many may be.
    pub blob_segments_max: u64,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    /// Whom its certificate names.
    pub principal: Principal,
    /// From where it came; of agents.
    pub address: Box<str>,
    /// The agent's number, once it registered in this session.
    pub agent: Option<AgentId>,
    /// When it was agreed, or its latest message came.
    pub heard_at: Time,
    /// When its silence is looked at next; agents only.
    pub silence_at: Time,
    /// What it may send.
    pub allowance: Allowance,
    /// Its held queries.
    pub watches: u32,
    /// Its log requests under way.
    pub logs: u32,
}

/// A token bucket: messages that may come now.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    left: u64,
    at: Time,
}

impl Allowance {
    /// A full one.
    pub fn new(burst: u32, now: Time) -> Allowance {
        Allowance { left: u64::from(burst) * 1_000_000, at: now }
    }

    /// Takes what a message costs; `false` if that is not left.
    pub fn take(&mut self, now: Time, cost: u32, (per_s, burst): (u32, u32)) -> bool {
        let gained = (now.since(self.at).as_micros() as u64).saturating_mul(u64::from(per_s));
        self.left = self.left.saturating_add(gained).min(u64::from(burst) * 1_000_000);
        self.at = self.at.max(now);
        let rest = self.left.checked_sub(u64::from(cost) * 1_000_000);
        self.left = rest.unwrap_or(self.left);
        rest.is_some()
    }

    /// Gives one back: the message moved an attempt on.
    pub fn give(&mut self) {
        self.left = self.left.saturating_add(1_000_000);
    }
}

/// One agent's volatile side.
#[derive(Debug, Default)]
pub struct AgentLive {
    /// Its session, once it registered there.
    pub session: Option<SessionId>,
    /// It said goodbye in this session.
    pub leaving: bool,
    /// An operator's word: it gets no work.
    pub cordoned: bool,
    /// When what still runs there is stopped, for a drain.
    pub drain_at: Option<Time>,
    /// Everything in its ledger.
    pub held: BTreeMap<AttemptId, Held>,
    pub(crate) in_use: ResourcesSum,
    pub(crate) custom_in_use: CustomSum,
    /// How many of those are to be alone there.
    pub(crate) alone: u32,
    /// How many of those it stops itself when it is not heard.
    stops: u32,
    pub(crate) capacity: Resources,
    pub(crate) custom: Custom,
    /// When it was last heard of; while it has no session.
    pub heard_at: Time,
    /// When its lease is looked at next.
    pub lease_at: Option<Time>,
    /// How it does.
    pub breaker: Breaker,
    /// How it comes and goes.
    pub presence: Presence,
    /// When its absence becomes a fact.
    pub unreachable_at: Option<Time>,
    /// When it is not expected back any more.
    pub forget_at: Option<Time>,
    /// When it last did.
    pub noted_at: Time,
    /// What its latest heartbeat said is in use.
    pub usage: Resources,
    /// How many attempts its latest heartbeat said are running.
    pub running: u32,
    /// What it was given ahead.
    pub backlog: Backlog,
    /// When it sent the latest heartbeat of its session, unless that was answered.
    pub unanswered_ms: Option<u64>,
}

/// An attempt in an agent's ledger.
#[derive(Debug, Default)]
pub struct Held {
    /// Whose it is; `None` = of no queue, because its job is not known.
    pub queue: Option<QueueId>,
    /// What it holds.
    pub resources: Resources,
    /// What else it holds, even while it waits for room.
    pub custom: Custom,
    /// How far it is.
    pub phase: Phase,
    /// It has its agent for itself.
    pub whole_agent: bool,
    /// Its agent stops it when it is not heard.
    pub stops: bool,
    /// The scheduler counts it as ended, or never knew it; the agent has not said that it is gone.
    pub ended: bool,
    /// Its agent was not heard for the job's `lost_after`.
    pub suspect: bool,
    /// It waits on its agent for room, and holds nothing.
    pub waits: bool,
    /// It was asked back, should it still wait.
    pub recalled: bool,
    /// Why it was asked to make way, if it was: for a drain, or for what is more urgent.
    pub makes_way: Option<fb::EndReason>,
    /// Its task's.
    pub priority: i8,
    /// Since when it is known to run, in whole seconds: there are many of them.
    pub since_s: u32,
    /// Parts per million.
    pub progress_ppm: u32,
    /// When the scheduler stops waiting for its agent's run timeout.
    pub backstop_at: Option<Time>,
    /// Its latest words and values.
    pub report: Option<Box<Report>>,
}

/// What an agent says of an attempt that it lists.
#[derive(Clone, Debug)]
pub struct Reported {
    /// How it stands; any final status is `Completed`.
    pub status: fb::TaskStatus,
    /// What it holds.
    pub resources: Resources,
    /// What else it holds.
    pub custom: Custom,
    /// Parts per million.
    pub progress_ppm: u32,
    /// It waits for room.
    pub waits: bool,
    /// Which job its number was given to.
    pub job_key: JobKey,
}

/// What an attempt last said.
#[derive(Debug, Default)]
pub struct Report {
    /// Its own words.
    pub note: String,
    /// Its latest values.
    pub metrics: Vec<(Arc<str>, f64)>,
}

/// How far an attempt is, as its agent said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Sent.
    #[default]
    Assigned,
    /// Persisted by the agent.
    Accepted,
    /// Its process runs.
    Running,
}

/// One job's volatile side, while it has not ended.
#[derive(Debug, Default)]
pub struct JobLive {
    /// The class of each entry.
    pub classes: Vec<ClassId>,
    /// Whose share of the cluster it has.
    pub queue: QueueId,
    /// What its tasks wait for, if they come after each other.
    pub waits: Option<Box<Waits>>,
    /// Its tasks may be assigned.
    pub settled: bool,
    /// Only so many of its tasks may fail.
    pub has_budget: bool,
    /// How many of its attempts may be assigned at once, if not any number.
    pub caps: Option<Box<Caps>>,
    /// The members of its gangs that wait for each other, if it has any.
    pub gathering: Option<Box<Gathering>>,
    /// Attempts that run.
    pub running: u64,
    /// The sum of their progress, parts per million.
    pub progress_ppm: u64,
    /// Changes with everything that a query can show.
    pub version: u64,
    /// Held queries about it.
    pub watches: BTreeSet<u64>,
}

/// A query that is held until there is news.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// Who asked.
    pub session: SessionId,
    /// Their number for it.
    pub request: u64,
    /// About which job.
    pub job: JobId,
    /// News are not told before.
    pub not_before: Time,
    /// When it is answered at the latest, or as soon as the news may be told.
    pub due_at: Time,
}

/// A log request on its way.
#[derive(Clone, Copy, Debug)]
pub struct LogWait {
    /// Who asked.
    pub session: SessionId,
    /// Their number for it.
    pub request: u64,
    /// Who was asked.
    pub agent: AgentId,
    /// For the log of which attempt,
    pub attempt: AttemptId,
    /// and which of its streams.
    pub stream: fb::LogStream,
    /// For how long.
    pub due_at: Time,
}

impl Live {
    /// The agent's volatile side.
    pub fn agent(&self, agent: AgentId) -> Option<&AgentLive> {
        self.agents.get(agent.0 as usize)
    }

    /// The same, to be changed; made if it is not there yet.
    pub fn agent_mut(&mut self, agent: AgentId) -> &mut AgentLive {
        let place = agent.0 as usize;
        if self.agents.len() <= place {
            self.agents.resize_with(place + 1, AgentLive::default);
        }
        match self.agents.get_mut(place) {
            Some(found) => found,
            None => unreachable!("it was just made"),
        }
    }

    /// All agents' volatile sides, in the order of their numbers.
    pub fn agents(&self) -> impl Iterator<Item = (AgentId, &AgentLive)> {
        self.agents.iter().enumerate().map(|(number, agent)| (AgentId(number as u32), agent))
    }

    /// An attempt in an agent's ledger.
    pub fn held(&self, agent: AgentId, attempt: AttemptId) -> Option<&Held> {
        self.agent(agent)?.held.get(&attempt)
    }

    /// The same, to be changed in anything but its resources.
    pub fn held_mut(&mut self, agent: AgentId, attempt: AttemptId) -> Option<&mut Held> {
        self.agents.get_mut(agent.0 as usize)?.held.get_mut(&attempt)
    }

    /// Puts an attempt into an agent's ledger, in place of what the ledger said of it.
    pub fn hold(&mut self, agent: AgentId, attempt: AttemptId, held: Held) {
        let found = self.agent_mut(agent);
        let before = found.take_out(attempt);
        let (queue, amount, priority) = (held.queue, held.resources, held.priority);
        found.put_in(attempt, held);
        before.iter().for_each(|before| self.forget_priority(before.priority));
        *self.priorities.entry(priority).or_default() += 1;
        let shares = self.queue.shares_mut();
        if let Some((queue, amount)) = before.and_then(|before| Some((before.queue?, before.resources))) {
            shares.release(queue, amount);
        }
        if let Some(queue) = queue {
            shares.hold(queue, amount);
        }
        self.refresh_after(agent, attempt.task);
    }

    /// An attempt waits on its agent for room, or it does not any more.
    pub fn set_waits(&mut self, agent: AgentId, attempt: AttemptId, waits: bool) {
        let found = self.agent_mut(agent);
        let Some(mut held) =
            found.held.get(&attempt).is_some_and(|held| held.waits != waits).then(|| found.take_out(attempt)).flatten()
        else {
            return;
        };
        held.waits = waits;
        found.put_in(attempt, held);
        self.refresh_room(agent);
    }

    /// An attempt that was thought to wait has started: another, of which nothing was heard yet, must be the
    /// one that waits.
    fn on_waiting_started(&mut self, agent: AgentId, attempt: AttemptId) {
        self.set_waits(agent, attempt, false);
        let found = self.agent_mut(agent);
        let (_, overcommitted) = found.in_use.left_of(found.capacity);
        let silent = |held: &Held| !held.waits && !held.ended && held.phase != Phase::Running;
        let mistaken = found.held.iter().rev().find(|(other, held)| **other != attempt && silent(held));
        if let Some(mistaken) = mistaken.map(|(other, _)| *other).filter(|_| overcommitted) {
            self.set_waits(agent, mistaken, true);
        }
    }

    /// What waits on an agent starts there, in its order, as soon as it fits: the agent does the same.
    fn start_waiting(&mut self, agent: AgentId) {
        while let Some(found) = self.agents.get(agent.0 as usize)
            && let Some(next) = found.backlog.waiting.front().copied()
            && let Some(held) = found.held.get(&next)
            && held.resources.fits(found.free())
        {
            self.set_waits(agent, next, false);
        }
    }

    /// The agent has said that the attempt's last process is gone.
    pub fn release(&mut self, agent: AgentId, attempt: AttemptId) -> Option<Held> {
        let found = self.agent_mut(agent);
        let held = found.take_out(attempt)?;
        found.breaker.release(attempt);
        if let Some(at) = held.backstop_at {
            self.deadlines.disarm(at, Deadline::Backstop(attempt));
        }
        self.forget_priority(held.priority);
        if let Some(queue) = held.queue {
            self.queue.shares_mut().release(queue, held.resources);
        }
        self.start_waiting(agent);
        self.refresh_after(agent, attempt.task);
        Some(held)
    }

    fn forget_priority(&mut self, priority: i8) {
        if let Some(count) = self.priorities.get_mut(&priority) {
            *count -= 1;
            if *count == 0 {
                self.priorities.remove(&priority);
            }
        }
    }

    /// Sets an agent's capacity.
    pub fn set_capacity(&mut self, agent: AgentId, capacity: Resources, custom: Custom) {
        let found = self.agent_mut(agent);
        let before = std::mem::replace(&mut found.capacity, capacity);
        found.custom = custom;
        self.queue.shares_mut().change_capacity(before, capacity);
        self.refresh_room(agent);
    }

    /// Tells placement what is free on an agent now, and whether it has a task of that entry, if those must be
    /// distinct, or of that gang.
    pub fn refresh_after(&mut self, agent: AgentId, task: TaskId) {
        let class = self.class_of(task);
        let asks = class.and_then(|class| Some(&self.queue.find(class)?.request));
        let (apart, gang) = asks.map_or((false, 0), |request| (request.distinct.is_some(), request.gang));
        if gang > 0 {
            let first = gang_of(task, gang);
            let of = |index, attempt| AttemptId { task: TaskId { index, ..task }, attempt };
            let all = of(first.index, 0)..of(first.index.saturating_add(gang), 0);
            let there = self.agent(agent).is_some_and(|found| found.held.range(all).next().is_some());
            self.queue.seats.set(first, agent, there);
        }
        if let Some(class) = class.filter(|_| apart) {
            let of = |index, attempt| AttemptId { task: TaskId { index, ..task }, attempt };
            let there = |found: &AgentLive| found.held.range(of(0, 0)..=of(u32::MAX, u32::MAX)).next().is_some();
            let taken = self.agent(agent).is_some_and(there);
            if let Some(class) = self.queue.find_mut(class) {
                match taken {
                    true => class.taken.insert(agent),
                    false => class.taken.remove(&agent),
                };
            }
        }
        self.refresh_room(agent);
    }

    /// Whether some attempt in the ledger is to be alone there.
    pub fn is_whole(&self, agent: AgentId) -> bool {
        self.agent(agent).is_some_and(|found| found.alone > 0)
    }

    /// Tells placement what is free on an agent now.
    pub fn refresh_room(&mut self, agent: AgentId) {
        let found = self.agent_mut(agent);
        let (free, overcommitted) = found.in_use.left_of(found.capacity);
        let (custom, short) = found.custom_in_use.left_of(&found.custom);
        let overcommitted = overcommitted || short;
        let room = Room {
            free,
            capacity: found.capacity,
            held: found.held.len() as u32,
            placeable: found.session.is_some()
                && !(found.leaving || found.cordoned || overcommitted)
                && found.alone == 0
                && found.breaker.is_passable()
                && found.presence.is_settled(),
            last: !found.breaker.is_closed(),
        };
        self.index.set_room(agent, room);
        self.index.set_custom(agent, custom);
    }

    /// The attempt's process runs, or the attempt has ended: keeps the job's sums.
    pub fn set_running(&mut self, agent: AgentId, attempt: AttemptId, progress_ppm: u32) {
        if self.held(agent, attempt).is_some_and(|held| held.waits) {
            self.on_waiting_started(agent, attempt);
        }
        let now = self.queue.now;
        let Some(held) = self.held_mut(agent, attempt) else { return };
        let started = held.phase != Phase::Running;
        let before = std::mem::replace(&mut held.progress_ppm, progress_ppm);
        held.phase = Phase::Running;
        if started {
            held.since_s = u32::try_from(now.as_ms() / 1_000).unwrap_or(u32::MAX);
        }
        let Some(job) = self.jobs.get_mut(&attempt.task.job) else { return };
        job.running += u64::from(started);
        job.progress_ppm = (job.progress_ppm + u64::from(progress_ppm)).saturating_sub(u64::from(before));
    }

    /// The scheduler counts the attempt as ended; it stays in the ledger.
    pub fn set_ended(&mut self, agent: AgentId, attempt: AttemptId) {
        let Some(held) = self.held_mut(agent, attempt) else { return };
        let backstop_at = held.backstop_at.take();
        let counted = !held.ended && held.phase == Phase::Running;
        let progress_ppm = u64::from(held.progress_ppm);
        held.ended = true;
        held.suspect = false;
        if let Some(at) = backstop_at {
            self.deadlines.disarm(at, Deadline::Backstop(attempt));
        }
        if counted && let Some(job) = self.jobs.get_mut(&attempt.task.job) {
            job.running = job.running.saturating_sub(1);
            job.progress_ppm = job.progress_ppm.saturating_sub(progress_ppm);
        }
    }

    /// A number for a held query or a log request.
    pub fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

impl Held {
    /// Whether it ends soon, because it was asked to, or it has not begun and is wanted back.
    pub fn is_going(&self) -> bool {
        self.ended || self.makes_way.is_some() || (self.phase != Phase::Running && (self.recalled || self.waits))
    }
}

impl AgentLive {
    /// Everything in the ledger, cut to what an amount can be.
    pub fn in_use(&self) -> Resources {
        self.in_use.cut()
    }

    /// Whether anything in the ledger holds custom resources.
    pub fn holds_custom(&self) -> bool {
        !self.custom_in_use.is_empty()
    }

    fn put_in(&mut self, attempt: AttemptId, held: Held) {
        match held.waits {
            true => self.backlog.waiting.push_back(attempt),
            false => self.in_use.add(held.resources),
        }
        self.stops += u32::from(held.stops);
        self.alone += u32::from(held.whole_agent);
        self.custom_in_use.add(&held.custom);
        self.held.insert(attempt, held);
    }

    fn take_out(&mut self, attempt: AttemptId) -> Option<Held> {
        let held = self.held.remove(&attempt)?;
        match held.waits {
            // The oldest, as a rule.
            true => self.backlog.waiting.retain(|waiting| *waiting != attempt),
            false => self.in_use.subtract(held.resources),
        }
        self.stops -= u32::from(held.stops);
        self.alone -= u32::from(held.whole_agent);
        self.custom_in_use.subtract(&held.custom);
        Some(held)
    }

    /// Whether some attempt there ends if its agent is not told that it is heard.
    pub fn must_be_answered(&self) -> bool {
        self.stops > 0
    }

    /// The same of custom resources.
    pub fn custom_free(&self) -> Custom {
        self.custom_in_use.left_of(&self.custom).0
    }

    /// Capacity less everything in the ledger.
    pub fn free(&self) -> Resources {
        self.in_use.left_of(self.capacity).0
    }
}

impl JobLive {
    /// The mean progress of all its tasks, 0.0 to 1.0.
    pub fn progress(&self, counts: Counts) -> f32 {
        let whole = counts.ended() as f64 + self.progress_ppm as f64 / 1e6;
        (whole / counts.total.max(1) as f64).min(1.0) as f32
    }
}
