//! The story of a plan: what would become of a job, were it submitted now (docs/jobs.md#before-it-is-submitted).
//!
//! Invariants: nothing changes by it; it says that a job would be accepted if and only if a submit would be, for both ask
//! [`Core::admit`]. So many agents are looked at in all, shared among the job's entries.

use crate::{
    core::{Core, nack_of},
    earliest::{Candidates, Earliest, Gate},
    event::Effects,
    explain::{lack_in_words, obstacle_rows},
    limits::{PLAN_LOOKS_MAX, PLAN_OBSTACLES_MAX, PLAN_PLACES_MAX},
    placement::{Rank, suits},
    queue::Request,
    shares::QueueId,
    sketch::{Limit, Sketch},
};
use fleetwire_common::{
    fb,
    graph::Graph,
    ids::{AgentId, JobId, Name, SessionId},
    job::{JobSpec, TaskSpec},
    message::Message,
    resources::{Resources, ResourcesSum},
    time::Time,
};
use std::{collections::BTreeMap, time::Duration};

/// A job that is not there, and how far its entries have been planned.
struct Draft<'c> {
    queue: QueueId,
    /// When it would begin.
    gate: Gate,
    sketch: Sketch<'c>,
    looks: usize,
}

/// What was found for one entry.
#[derive(Default)]
struct Look {
    looked_at: u32,
    suitable: u32,
    /// Those with room, the ones that are filled first before the others.
    rooms: Vec<(Rank, AgentId, u32)>,
    lacks: BTreeMap<String, (u32, String)>,
    candidates: Candidates,
}

impl Core {
    /// A client asks what would become of a job.
    pub fn on_plan(&self, session: SessionId, message: fb::PlanJob<'_>, effects: &mut Effects) {
        let plan = Some(Box::new(self.plan_of(message.job().map(|job| job.bytes()).unwrap_or_default())));
        let page = fb::PageT { request: message.request(), plan, ..fb::PageT::default() };
        effects.send(session, Message::Rare(fb::SchedulerMessageT::Page(Box::new(page))));
    }

    fn plan_of(&self, bytes: &[u8]) -> fb::PlanT {
        let (spec, refused) = match self.admit(bytes) {
            Ok(spec) => (Some(spec), None),
            // What can be read is planned all the same: it says what to change.
            Err(rejected) => (JobSpec::from_wire(bytes).ok(), Some(Box::new(nack_of(&rejected)))),
        };
        let capacity = Some(Box::new(total(self.live.queue.shares().capacity())));
        let agents = self.state.agents.known_count() as u32;
        let Some(spec) = spec else { return fb::PlanT { refused, capacity, agents, ..fb::PlanT::default() } };
        let queue = self.live.queue.shares().find(&spec.queue);
        fb::PlanT {
            refused,
            name: Some(spec.name.to_string()),
            tasks: spec.task_count(),
            asked: Some(Box::new(total(asked(&spec)))),
            capacity,
            agents,
            queue: queue.and_then(|queue| self.queue_summary(queue)).map(Box::new),
            semaphores: self.semaphores_of(&spec),
            entries: Some(self.plan_entries(&spec, queue.unwrap_or_default())),
        }
    }

    /// In the order in which they would start, as far as that is known.
    fn plan_entries(&self, spec: &JobSpec, queue: QueueId) -> Vec<fb::PlanEntryT> {
        let (live, policy) = (&self.live, &self.config.policy);
        let steps = steps(spec);
        let mut order: Vec<(u32, i16, u16, &TaskSpec)> = (0..)
            .zip(spec.tasks.iter().zip(steps))
            .map(|(ordinal, (task, step))| (step, -i16::from(task.priority), ordinal, &**task))
            .collect();
        order.sort_unstable_by_key(|(step, priority, ordinal, _)| (*step, *priority, *ordinal));
        let sketch = Sketch::new(live, policy.attempts_per_agent, queue, spec.terms.max_running);
        let mut draft = Draft { queue, gate: self.gate_of_draft(spec), sketch, looks: 0 };
        let (mut left, count) = (PLAN_LOOKS_MAX, order.len());
        let mut entries = Vec::with_capacity(count);
        for (place, (step, _, ordinal, task)) in order.into_iter().enumerate() {
            draft.looks = left / (count - place);
            let entry = self.plan_entry(&mut draft, task, ordinal, step);
            left -= entry.looked_at as usize;
            entries.push(entry);
        }
        entries
    }

    /// When a job's first tasks could be assigned, were it submitted now.
    fn gate_of_draft(&self, spec: &JobSpec) -> Gate {
        if let Some(notice) = self.notice() {
            return Gate::never(notice);
        }
        let after = self.now + Duration::from_millis(spec.terms.start_after_ms);
        let at = after.max(Time::from_ms(spec.terms.start_at_ms));
        Gate::open(self.now).and(Gate { at, why: String::from("its job does not start before") })
    }

    fn plan_entry(&self, draft: &mut Draft<'_>, task: &TaskSpec, ordinal: u16, step: u32) -> fb::PlanEntryT {
        // No job has that number.
        let request = Request::of_entry(task, (JobId::default(), ordinal), draft.queue);
        let waits = step > 0 || draft.gate.at > self.now;
        let mut look = self.look(draft, &request, waits, task.count);
        let maxima: Vec<u32> = task.semaphores.iter().map(|one| one.max).collect();
        let (allowed, limit) = draft.sketch.allowed(&request, task.count, task.max_running, &maxima);
        let mut entry = fb::PlanEntryT {
            name: Some(task.name.to_string()),
            count: task.count,
            step,
            after: Some(task.after.iter().map(|other| other.task.to_string()).collect()),
            suitable: look.suitable,
            looked_at: look.looked_at,
            ..fb::PlanEntryT::default()
        };
        let first = look.rooms.first().map(|(_, agent, _)| *agent);
        // Members of a gang start together, each on an agent of its own.
        let gangs = gangs(&look.rooms, task.gang, allowed);
        let (allowed, each) = gangs.map_or((allowed, u32::MAX), |gangs| (gangs * task.gang, gangs));
        let mut places = Vec::new();
        for (_, agent, room) in std::mem::take(&mut look.rooms) {
            let tasks = room.min(each).min(allowed - entry.now);
            if tasks == 0 {
                break;
            }
            draft.sketch.take(agent, &request, tasks);
            entry.now += tasks;
            entry.agents += 1;
            if places.len() < PLAN_PLACES_MAX {
                places.push(fb::PlanPlaceT { agent: Some(self.agent_name(agent)), tasks });
            }
        }
        entry.places = Some(places);
        let limit = limit.filter(|_| !waits && entry.now == allowed);
        entry.held_back = limit.map(|limit| self.limit_in_words(&limit, task, draft.queue));
        let earliest = match first.filter(|_| entry.now > 0) {
            Some(agent) => Earliest { at: Some(self.now), agent: Some(agent), ..Earliest::default() },
            None if step > 0 => Earliest::unknown(after_in_words(task)),
            None if task.gang > 0 => {
                Earliest::unknown(format!("nobody knows when {} agents have room for a gang at once", task.gang))
            }
            None => self.earliest_of_entry(draft, &request, std::mem::take(&mut look.candidates), &entry),
        };
        entry.earliest = Some(Box::new(self.earliest_to_wire(&earliest)));
        entry.obstacles = Some(obstacle_rows(look.lacks, PLAN_OBSTACLES_MAX));
        entry
    }

    /// Looks at as many agents as there are for one entry.
    fn look(&self, draft: &Draft<'_>, request: &Request, waits: bool, count: u32) -> Look {
        let mut look = Look::default();
        for (agent, record) in self.state.agents.known().take(draft.looks) {
            look.looked_at += 1;
            let lack = suits(request, &record.profile).err().map(|lack| lack_in_words(&lack));
            let is_large_enough = request.resources.fits(record.profile.capacity);
            let could = lack.is_none() && is_large_enough;
            if could {
                look.suitable += 1;
                self.consider(agent, request, &mut look.candidates);
            }
            let room = if could && !waits { draft.sketch.room(agent, request, count) } else { 0 };
            if room > 0 {
                look.rooms.push((self.live.index.rank(agent), agent, room));
            } else if !could || !waits {
                let obstacle = lack.or_else(|| self.obstacle(agent, request, None));
                let reason = obstacle.unwrap_or_else(|| self.crowded_in_words(agent));
                look.lacks.entry(reason).or_insert_with(|| (0, record.name.to_string())).0 += 1;
            }
        }
        look.rooms.sort_unstable();
        look
    }

    /// When the first task of an entry could start of which none finds room now.
    fn earliest_of_entry(
        &self,
        draft: &Draft<'_>,
        request: &Request,
        candidates: Candidates,
        entry: &fb::PlanEntryT,
    ) -> Earliest {
        let gate = draft.gate.clone().and(self.semaphores_gate(&request.semaphores)).and(self.quota_gate(request));
        let found = self.earliest(gate, request, None, candidates);
        if found.at != Some(self.now) {
            return found;
        }
        // It would find what it needs, were there not those before it.
        let why = "what is free is kept for what has waited for long, or goes to tasks of this job before it";
        Earliest::unknown(entry.held_back.clone().unwrap_or_else(|| String::from(why)))
    }

    fn crowded_in_words(&self, agent: AgentId) -> String {
        String::from(match self.live.index.reserved.holds(agent) {
            true => "it is reserved for what has waited for long",
            false => "tasks of this job before it take what is free there",
        })
    }

    fn limit_in_words(&self, limit: &Limit, task: &TaskSpec, queue: QueueId) -> String {
        match limit {
            Limit::Entry => format!("max_running of `{}` is {}", task.name, task.max_running),
            Limit::Job => String::from("max_running of the job leaves no more"),
            Limit::Quota => {
                let name = self.live.queue.shares().get(queue).map(|share| share.name.as_str()).unwrap_or_default();
                format!("the quota of queue `{name}` leaves no more")
            }
            Limit::Semaphore(name) => format!("semaphore `{name}` has no more units left"),
        }
    }

    /// The semaphores that a job names, and what is taken of them.
    fn semaphores_of(&self, spec: &JobSpec) -> Option<Vec<fb::PlanSemaphoreT>> {
        let named: BTreeMap<&Name, u32> =
            spec.tasks.iter().flat_map(|task| &task.semaphores).map(|one| (&one.name, one.max)).collect();
        let row = |(name, max): (&Name, u32)| {
            let (max, taken) = self.live.queue.semaphores.find(name).unwrap_or((max, 0));
            fb::PlanSemaphoreT { name: Some(name.to_string()), max, taken }
        };
        (!named.is_empty()).then(|| named.into_iter().map(row).collect())
    }
}

/// How many other entries, one after the other, have to end before each.
fn steps(spec: &JobSpec) -> Vec<u32> {
    let mut steps = vec![0u32; spec.tasks.len()];
    let Some(graph) = Graph::of(&spec.tasks).ok().flatten() else { return steps };
    let mut changed = true;
    // There are no circles: as often as there are steps.
    while std::mem::take(&mut changed) {
        for (entry, needs) in graph.needs.iter().enumerate() {
            let before = needs.iter().filter_map(|need| steps.get(usize::from(need.entry))).max();
            let step = before.map_or(0, |step| step + 1);
            if let Some(known) = steps.get_mut(entry).filter(|known| **known != step) {
                (*known, changed) = (step, true);
            }
        }
    }
    steps
}

/// How many whole gangs find room, of so many tasks; `None` of what is none.
fn gangs(rooms: &[(Rank, AgentId, u32)], size: u32, tasks: u32) -> Option<u32> {
    let most = tasks.checked_div(size)?;
    let fit = |gangs: u32| {
        let places: u64 = rooms.iter().map(|(.., room)| u64::from((*room).min(gangs))).sum();
        places >= u64::from(gangs) * u64::from(size)
    };
    // What so many find, fewer do.
    let (mut known, mut too_many) = (0, most + 1);
    while too_many - known > 1 {
        let gangs = known + (too_many - known) / 2;
        if fit(gangs) { known = gangs } else { too_many = gangs }
    }
    Some(known)
}

fn after_in_words(task: &TaskSpec) -> String {
    let mut names: Vec<String> =
        task.after.iter().take(PLAN_PLACES_MAX).map(|other| format!("`{}`", other.task)).collect();
    let more = task.after.len() - names.len();
    if more > 0 {
        names.push(format!("{more} more"));
    }
    format!("it comes after {}", names.join(" and "))
}

/// What all tasks of a job need together.
fn asked(spec: &JobSpec) -> ResourcesSum {
    let mut sum = ResourcesSum::default();
    for task in &spec.tasks {
        let (Resources { cpu, memory, gpu, storage }, count) = (task.resources, u64::from(task.count));
        let of = |amount: u32| u64::from(amount) * count;
        sum = sum.plus(ResourcesSum { cpu: of(cpu), memory: of(memory), gpu: of(gpu), storage: of(storage) });
    }
    sum
}

fn total(sum: ResourcesSum) -> fb::ResourceTotalT {
    fb::ResourceTotalT { cpu: sum.cpu, memory: sum.memory, gpu: sum.gpu, storage: sum.storage }
}
