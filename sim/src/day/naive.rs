//! What a day comes to without a scheduler worth the name, to hold ours against: strictly in order, or whatever fits first.
//!
//! Neither knows priorities, queues, preferences or what comes after what; days that need these are none for them.

use super::{
    Day, Happening, Run,
    replay::UNKNOWN_RUN,
    verdict::{Meter, Verdict},
};
use fleetwire_common::{
    fb,
    ids::{AgentId, AttemptId, JobId, SubmitId, TaskId},
    message::End,
    resources::Resources,
    time::Time,
};
use fleetwire_scheduler_core::fact::{Ended, Fact};
use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// How it chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naive {
    /// The task that has waited longest, on the first agent with room; until it has found one, nothing else starts.
    Fifo,
    /// Whatever waits, in the order in which it came, on the first agent with room.
    FirstFit,
}

/// Runs a day.
pub fn run(day: &Day, how: Naive) -> Verdict {
    let arrivals = day.happenings.iter().filter(|(_, what)| matches!(what, Happening::Submits { .. }));
    let mut state = State {
        day,
        how,
        free: vec![Resources::ZERO; day.agents.len()],
        waiting: VecDeque::new(),
        ends: BTreeMap::new(),
        started: 0,
        meter: Meter::until(arrivals.map(|(at, _)| *at).next_back().unwrap_or(Time::ZERO)),
    };
    let mut next = day.happenings.iter().peekable();
    loop {
        let ends = state.ends.first_key_value().map(|((at, _), _)| *at);
        let Some(now) = next.peek().map(|(at, _)| *at).into_iter().chain(ends).min() else { break };
        if ends == Some(now) {
            state.end(now);
        } else if let Some((_, happening)) = next.next() {
            state.on_happening(now, happening);
        }
        // Everything that happens at once comes before what is decided.
        let later = next.peek().is_none_or(|(at, _)| *at > now);
        if later && state.ends.first_key_value().is_none_or(|((at, _), _)| *at > now) {
            state.place(now);
        }
    }
    state.meter.verdict()
}

/// Tasks of a job that have not started.
struct Waiting {
    job: usize,
    entry: u16,
    next: u32,
    count: u32,
    resources: Resources,
}

struct State<'d> {
    day: &'d Day,
    how: Naive,
    free: Vec<Resources>,
    waiting: VecDeque<Waiting>,
    ends: BTreeMap<(Time, u64), (usize, AttemptId, Resources, Run)>,
    started: u64,
    meter: Meter,
}

impl State<'_> {
    fn on_happening(&mut self, now: Time, happening: &Happening) {
        match happening {
            Happening::Joins { agent, profile } => {
                let (Some(free), Some(name)) = (self.free.get_mut(*agent), self.day.agents.get(*agent).cloned()) else {
                    return;
                };
                *free = profile.capacity;
                let fact = Fact::AgentRegistered { agent: AgentId(*agent as u32), name, profile: Arc::clone(profile) };
                self.meter.take(now, &fact);
            }
            Happening::Submits { job } => {
                let Some(of) = self.day.jobs.get(*job) else { return };
                let fact = Fact::JobAccepted {
                    job: JobId(*job as u64),
                    submit_id: SubmitId([0; 16]),
                    digest: [0; 32],
                    owner: Cow::Borrowed(&of.owner),
                    bytes: Cow::Borrowed(&[]),
                    spec: Arc::clone(&of.spec),
                    files: Box::default(),
                };
                self.meter.take(now, &fact);
                let entry = |(entry, task): (u16, &Arc<fleetwire_common::job::TaskSpec>)| Waiting {
                    job: *job,
                    entry,
                    next: 0,
                    count: task.count,
                    resources: task.resources,
                };
                self.waiting.extend((0..).zip(&of.spec.tasks).map(entry));
            }
            // Drawn days have none of these.
            Happening::Leaves { .. } | Happening::Changes { .. } | Happening::Cancels { .. } => {}
        }
    }

    fn place(&mut self, now: Time) {
        let mut in_vain: Vec<Resources> = Vec::new();
        let mut left = VecDeque::new();
        while let Some(mut tasks) = self.waiting.pop_front() {
            // Where less found no room, more will not.
            let hopeless = in_vain.iter().any(|other| other.fits(tasks.resources));
            let mut agent = 0;
            while let Some(free) = self.free.get_mut(agent).filter(|_| !hopeless && tasks.next < tasks.count) {
                if tasks.resources.fits(*free) {
                    *free = free.minus(tasks.resources);
                    self.start(now, agent, &tasks);
                    tasks.next += 1;
                } else {
                    agent += 1;
                }
            }
            if tasks.next == tasks.count {
                continue;
            }
            if !hopeless {
                in_vain.push(tasks.resources);
            }
            left.push_back(tasks);
            if self.how == Naive::Fifo {
                break;
            }
        }
        left.append(&mut self.waiting);
        self.waiting = left;
    }

    fn start(&mut self, now: Time, agent: usize, tasks: &Waiting) {
        let task = TaskId { job: JobId(tasks.job as u64), entry: tasks.entry, index: tasks.next };
        let attempt = AttemptId { task, attempt: 1 };
        self.meter.take(now, &Fact::AttemptAssigned { attempt, agent: AgentId(agent as u32) });
        let run = self.day.run_of((tasks.job, tasks.entry, tasks.next), 0).unwrap_or(UNKNOWN_RUN);
        self.started += 1;
        self.ends.insert((now + run.lasts, self.started), (agent, attempt, tasks.resources, run));
    }

    fn end(&mut self, now: Time) {
        let Some((_, (agent, attempt, resources, run))) = self.ends.pop_first() else { return };
        if let Some(free) = self.free.get_mut(agent) {
            *free = free.plus(resources);
        }
        let end = End { reason: fb::EndReason::Exited, wall_us: run.lasts.as_micros() as u64, ..End::default() };
        let ended = Ended {
            attempt,
            status: run.status,
            task_status: run.status,
            retry_at: Time::ZERO,
            failure: false,
            loss: false,
            end: Cow::Owned(end),
            result: None,
            metrics: Cow::Borrowed(&[]),
            ends_rival: false,
        };
        self.meter.take(now, &Fact::AttemptEnded(ended));
    }
}
