//! The story of when: at what time something that waits could start at the earliest (docs/jobs.md#when-it-could-start).
//!
//! Invariants: every attempt is taken to end by its run timeout, and nothing else to be placed before; a time is said only if
//! everything that is in the way has one. No task is looked at, and of agents, attempts and holders so many.

use crate::{
    core::Core,
    limits::{EARLIEST_AGENTS_MAX, EARLIEST_ATTEMPTS_MAX},
    live::Held,
    outlook::Outlook,
    queue::{Class, Request},
    semaphores::Need,
    shares::QueueId,
};
use fleetwire_common::{
    fb,
    ids::{AgentId, AttemptId, TaskId},
    resources::Resources,
    time::Time,
};
use std::collections::BinaryHeap;

/// What has to be before something may start: when that is, and what it is, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// [`Time::NEVER`]: nobody knows.
    pub at: Time,
    /// Empty: nothing.
    pub why: String,
}

/// When something could start at the earliest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Earliest {
    /// `None`: that is not known.
    pub at: Option<Time>,
    /// Where.
    pub agent: Option<AgentId>,
    /// Whose end makes room there, if there is none.
    pub last: Option<AttemptId>,
    /// How many attempts are to end there by then.
    pub ends: usize,
    /// What else it waits for until then, or why it is not known.
    pub why: String,
    /// Agents that were looked at one by one …
    pub looked_at: usize,
    /// … of so many that may take it.
    pub suitable: usize,
}

/// The agents on which the least is missing for a request, of all that may take it.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    nearest: BinaryHeap<(u64, AgentId)>,
    count: usize,
}

impl Candidates {
    /// One more, and what part of it is missing there.
    pub fn note(&mut self, agent: AgentId, missing_ppm: u64) {
        self.count += 1;
        self.nearest.push((missing_ppm, agent));
        if self.nearest.len() > EARLIEST_AGENTS_MAX {
            self.nearest.pop();
        }
    }
}

impl Gate {
    /// Nothing is in the way.
    pub fn open(now: Time) -> Gate {
        Gate { at: now, why: String::new() }
    }

    /// Nobody knows when, because of that.
    pub fn never(why: String) -> Gate {
        Gate { at: Time::NEVER, why }
    }

    /// Both have to be before.
    pub fn and(self, other: Gate) -> Gate {
        if other.at > self.at { other } else { self }
    }
}

impl Earliest {
    /// Nobody knows when.
    pub fn unknown(why: String) -> Earliest {
        Earliest { why, ..Earliest::default() }
    }
}

impl Core {
    /// When a pending task could start at the earliest.
    pub fn earliest_of(&self, task: TaskId, others: Option<String>) -> Earliest {
        let gate = others.map_or_else(|| self.gate_of(task), Gate::never);
        let queue = &self.live.queue;
        let Some(class) = self.live.class_of(task).and_then(|class| queue.find(class)) else {
            return Earliest::unknown(String::from("its job has ended"));
        };
        let request = &class.request;
        let gate = gate.and(self.semaphores_gate(&request.semaphores)).and(self.quota_gate(request));
        let audience = queue.audiences().find(class.audience);
        let agents = audience.into_iter().flat_map(|audience| audience.agents()).map(|agent| AgentId(agent as u32));
        let mut candidates = Candidates::default();
        for agent in agents.filter(|_| gate.at < Time::NEVER) {
            self.consider(agent, request, &mut candidates);
        }
        self.earliest(gate, request, Some(class), candidates)
    }

    /// An agent that suits a request may take it at some time.
    pub fn consider(&self, agent: AgentId, request: &Request, candidates: &mut Candidates) {
        let room = self.live.index.room(agent);
        let works = self.live.agent(agent).is_some_and(|live| {
            live.session.is_some()
                && !live.leaving
                && !live.cordoned
                && live.breaker.is_passable()
                && live.presence.is_settled()
        });
        if works && request.resources.fits(room.capacity) {
            candidates.note(agent, request.resources.minus(room.free).dominant_share_ppm(room.capacity));
        }
    }

    /// What is known by itself of a task that nothing else of its job is before.
    fn gate_of(&self, task: TaskId) -> Gate {
        if let Some(notice) = self.notice() {
            return Gate::never(notice);
        }
        let starts_at = self.state.jobs.get(&task.job).map_or(Time::ZERO, |job| job.starts_at());
        let retry_at = self.state.tasks.get(&task).map_or(Time::ZERO, |record| record.pending_since);
        let at = |at: Time, why: &str| Gate { at, why: why.to_owned() };
        Gate::open(self.now)
            .and(at(starts_at, "its job does not start before"))
            .and(at(retry_at, "its retry is not due before"))
            .and(at(self.settled_at(task.job), "what the restored backup does not know may run until then"))
    }

    /// When so many units of all of these can be had.
    pub fn semaphores_gate(&self, needs: &[Need]) -> Gate {
        needs.iter().fold(Gate::open(self.now), |gate, need| gate.and(self.semaphore_gate(need)))
    }

    fn semaphore_gate(&self, (name, units): &Need) -> Gate {
        let semaphores = &self.live.queue.semaphores;
        let (max, taken) = semaphores.find(name).unwrap_or((u32::MAX, 0));
        let mut over = (taken + u64::from(*units)).saturating_sub(u64::from(max));
        if over == 0 {
            return Gate::open(self.now);
        }
        let ends_at = |(agent, attempt): &(AgentId, AttemptId)| match self.live.held(*agent, *attempt) {
            Some(held) if self.session_of(*agent).is_some() => self.ends_at(*attempt, held),
            Some(_) => Time::NEVER,
            None => semaphores.gone(*agent, *attempt).and_then(|(_, gone_at)| gone_at).unwrap_or(Time::NEVER),
        };
        let holders = semaphores.holders_of(name).take(EARLIEST_ATTEMPTS_MAX);
        let mut ends: Vec<_> = holders.map(|holder| (ends_at(holder), *holder)).collect();
        ends.sort_unstable();
        for (at, (agent, attempt)) in ends {
            if at == Time::NEVER {
                let name = format!("semaphore `{name}` is held by {attempt} on `{}`", self.agent_name(agent));
                return Gate::never(format!("{name}, and nobody knows when that ends"));
            }
            over = over.saturating_sub(semaphores.units((agent, attempt), name));
            if over == 0 {
                return Gate { at, why: format!("semaphore `{name}` has too few units left until {attempt} ends") };
            }
        }
        Gate::never(format!("semaphore `{name}` has too few units left"))
    }

    /// When the quota of its queue leaves what a request needs.
    pub fn quota_gate(&self, request: &Request) -> Gate {
        let shares = self.live.queue.shares();
        let Some(share) = shares.get(request.queue).filter(|_| !request.resources.fits(shares.left(request.queue)))
        else {
            return Gate::open(self.now);
        };
        let mut held = share.held();
        for (at, amount) in self.ends_of(request.queue) {
            if at == Time::NEVER {
                break;
            }
            held.subtract(amount);
            if request.resources.fits(share.left_beside(held)) {
                return Gate { at, why: format!("the quota of queue `{}` leaves too little before", share.name) };
            }
        }
        let name = &share.name;
        Gate::never(format!("the quota of queue `{name}` leaves too little, and nobody knows when enough of it ends"))
    }

    /// When attempts of a queue end, the first first; of so many attempts, whosever they are.
    fn ends_of(&self, queue: QueueId) -> Vec<(Time, Resources)> {
        let attempts = self.live.agents().flat_map(|(_, live)| live.held.iter().map(move |held| (live, held)));
        let own = attempts.take(EARLIEST_ATTEMPTS_MAX).filter(|(_, (_, held))| held.queue == Some(queue));
        let mut ends: Vec<(Time, Resources)> = own
            .map(|(live, (attempt, held))| match live.session {
                Some(_) => (self.ends_at(*attempt, held), held.resources),
                None => (Time::NEVER, held.resources),
            })
            .collect();
        ends.sort_unstable_by_key(|(at, _)| *at);
        ends
    }

    /// When a request could start at the earliest on one of these agents, not before the gate is open.
    pub fn earliest(&self, gate: Gate, request: &Request, class: Option<&Class>, candidates: Candidates) -> Earliest {
        if gate.at == Time::NEVER {
            return Earliest::unknown(gate.why);
        }
        let Candidates { nearest, count: suitable } = candidates;
        let (mut looked_at, mut attempts) = (0, 0);
        let mut best: Option<(Outlook, AgentId, Gate)> = None;
        for (_, agent) in nearest.into_sorted_vec() {
            if attempts >= EARLIEST_ATTEMPTS_MAX {
                break;
            }
            let Some(live) = self.live.agent(agent) else { continue };
            let from = gate.clone().and(self.admitted_from(agent, class));
            let ends_at = |attempt, held: &Held| self.ends_at(attempt, held);
            let most = self.config.policy.attempts_per_agent;
            let outlook = live.outlook(from.at, request, most, ends_at);
            looked_at += 1;
            attempts += outlook.held;
            if best.as_ref().is_none_or(|(known, ..)| outlook.starts_at < known.starts_at) {
                best = Some((outlook, agent, from));
            }
        }
        let found = match best {
            None => Earliest::unknown(String::from("no agent that takes work now suits it and is large enough")),
            Some((outlook, agent, _)) if outlook.starts_at == Time::NEVER => {
                Earliest::unknown(self.endless_in_words(agent))
            }
            Some((Outlook { starts_at, last, ends, .. }, agent, from)) => {
                // What was open long before is not what it waits for.
                let why = if starts_at > from.at { String::new() } else { from.why };
                Earliest { at: Some(starts_at), agent: Some(agent), last, ends, why, ..Earliest::default() }
            }
        };
        Earliest { looked_at, suitable, ..found }
    }

    /// From when on an agent may be offered a class's tasks, as far as that is between the two of them.
    fn admitted_from(&self, agent: AgentId, class: Option<&Class>) -> Gate {
        let Some(class) = class else { return Gate::open(self.now) };
        let at = |at: Time, why: &str| Gate { at, why: why.to_owned() };
        let until = class.excluded.get(&agent).and_then(|exclusion| exclusion.until).unwrap_or(Time::ZERO);
        let excluded = at(until, "agents that rejected such a task are not asked again before");
        let taken = class.request.distinct.filter(|_| class.taken.contains(&agent)).map(|(job, entry)| {
            let of = |index, attempt| AttemptId { task: TaskId { job, entry, index }, attempt };
            let held = self.live.agent(agent).map(|live| live.held.range(of(0, 0)..=of(u32::MAX, u32::MAX)));
            held.into_iter().flatten().map(|(attempt, held)| self.ends_at(*attempt, held)).max().unwrap_or(self.now)
        });
        let taken = at(taken.unwrap_or(Time::ZERO), "agents have tasks of the same entry, and those are to be apart");
        Gate::open(self.now).and(excluded).and(taken)
    }

    /// What stands in the way on the agent on which the least is missing, although nobody knows when it ends.
    fn endless_in_words(&self, agent: AgentId) -> String {
        let held = self.live.agent(agent).map(|live| live.held.iter()).into_iter().flatten();
        let mut endless = held.filter(|(attempt, held)| self.ends_at(**attempt, held) == Time::NEVER);
        let name = self.agent_name(agent);
        match endless.next() {
            Some((attempt, _)) => format!("nobody knows when what runs there ends, such as {attempt} on `{name}`"),
            None => format!("the agents that suit it have no room, `{name}` neither"),
        }
    }

    /// For the wire.
    pub fn earliest_to_wire(&self, earliest: &Earliest) -> fb::EarliestStartT {
        let cut = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        fb::EarliestStartT {
            at: earliest.at.map_or(0, Time::as_ms),
            in_ms: earliest.at.map_or(0, |at| at.since(self.now).as_micros().div_ceil(1_000) as u64),
            agent: earliest.agent.map(|agent| self.agent_name(agent)),
            task_id: earliest.last.map(|attempt| attempt.task.to_string()),
            attempt: earliest.last.map_or(0, |attempt| attempt.attempt),
            ends: cut(earliest.ends),
            why: (!earliest.why.is_empty()).then(|| earliest.why.clone()),
            looked_at: cut(earliest.looked_at),
            suitable: cut(earliest.suitable),
        }
    }
}
