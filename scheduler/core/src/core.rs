//! The state, the live side and the journal's position under one roof: how every story decides a fact.
//!
//! Invariant: a fact is applied, encoded and counted in one place, [`Core::decide`]; whatever is pushed
//! after it waits for it.

use crate::{
    attempts::{Job, is_end},
    bodies::Stream,
    caps::Caps,
    deadlines::Deadline,
    event::{Config, Effects, Origin, Rejected},
    fact::Fact,
    gathering::{Gathering, gang_of},
    limits::BODY_INLINE_BYTES_MAX,
    live::{Held, JobLive, Live},
    placement::{Placement, is_of},
    queue::Request,
    shares::QueueId,
    state::State,
    waits::Waits,
};
use fixedbitset::FixedBitSet;
use fleetwire_common::{
    blob::BlobRef,
    envelope::handshake::Proof,
    fb,
    graph::Graph,
    ids::{AgentId, AttemptId, JobId, Position, SessionId, TaskId},
    job::{TaskSpec, Terms},
    message::Message,
    time::Time,
};
use std::{ops::Range, sync::Arc, time::Duration};

/// Everything that a story works on.
#[derive(Debug)]
pub struct Core {
    /// How it was started.
    pub config: Config,
    /// What facts say.
    pub state: State,
    /// What they do not.
    pub live: Live,
    /// How many facts there are.
    pub position: Position,
    /// The time of the event that is handled; never goes back.
    pub now: Time,
    /// Placements on their way to become facts; kept for its memory.
    pub placements: Vec<Placement>,
    builder: Builder,
}

/// The reused builder; a type of its own because the library's has no `Debug`.
#[derive(Default)]
struct Builder(flatbuffers::FlatBufferBuilder<'static>);

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Builder")
    }
}

impl Core {
    /// Nothing yet.
    pub fn new(config: Config) -> Core {
        Core {
            config,
            state: State::default(),
            live: Live::default(),
            position: Position(0),
            now: Time::ZERO,
            placements: Vec::new(),
            builder: Builder::default(),
        }
    }

    /// Decides a fact: applies it and hands it to the journal.
    ///
    /// # Panics
    /// If the fact contradicts the state: a bug of the story that decided it.
    pub fn decide(&mut self, fact: &Fact<'_>, effects: &mut Effects) {
        let applied = self.state.apply(self.now, fact);
        assert!(applied.is_ok(), "a story decided what contradicts the state: {applied:?}");
        self.note_ends(fact);
        effects.facts.push(fact.encode(self.now, &mut self.builder.0));
        self.position.0 += 1;
        effects.set_position(self.position);
    }

    /// What ends leaves its place under a cap, and is passed on later: if anything comes after it, or a failure may be
    /// one too many.
    fn note_ends(&mut self, fact: &Fact<'_>) {
        let (id, entry, range, places) = match fact {
            Fact::AttemptEnded(ended) => {
                self.note_gang(ended.attempt.task);
                let TaskId { job, entry, index } = ended.attempt.task;
                let tasks = u32::from(is_end(ended.task_status));
                (job, entry, index..index + tasks, 1 + u32::from(ended.ends_rival))
            }
            Fact::TasksEnded { job, entry, from, to, .. } => {
                self.note_end_in_gang(TaskId { job: *job, entry: *entry, index: 0 }, &(*from..*to));
                (*job, *entry, *from..*to, 0)
            }
            _ => return,
        };
        if places > 0 {
            self.live.leave_places(TaskId { job: id, entry, index: range.start }, places);
        }
        let Some(job) = self.live.jobs.get(&id).filter(|_| !range.is_empty()) else { return };
        if job.has_budget {
            self.live.spending.push(id);
        }
        if job.waits.as_ref().is_some_and(|waits| !waits.graph.feeds_of(entry).is_empty()) {
            self.live.ended.push_back((id, entry, range));
        }
    }

    /// Tasks of an entry have ended: where that was not a whole gang, it is looked at.
    fn note_end_in_gang(&mut self, of: TaskId, range: &Range<u32>) {
        let size = self.state.task_spec(of).map_or(0, |spec| spec.gang);
        let ends = [range.start, range.end];
        let parts = ends.into_iter().filter(|index| index.checked_rem(size).is_some_and(|rank| rank > 0));
        self.live.gangs.extend(parts.map(|index| gang_of(TaskId { index, ..of }, size)));
    }

    /// Keeps a body beside the journal, if it is one for that; a fact that names it is decided next. While the disk is
    /// low it is not, nor where a segment of the reserve would have to be begun for it: those are for facts.
    pub fn set_apart(&mut self, stream: &mut Stream, bytes: &[u8], effects: &mut Effects) -> Option<BlobRef> {
        let policy = &self.config.policy;
        let disk = &mut self.live.disk;
        let has_room = !disk.low && self.state.blobs.segments() < policy.blob_segments_max;
        let begins = stream.begins(bytes.len(), policy.blob_segment_bytes);
        let may_begin = !begins || disk.blob_segments < disk.blob_segments_max;
        if bytes.len() <= BODY_INLINE_BYTES_MAX || !has_room || !may_begin {
            return None;
        }
        disk.blob_segments += u64::from(begins);
        let blob = stream.place(bytes, policy.blob_segment_bytes);
        effects.facts.push_blob(blob, bytes);
        Some(blob)
    }

    /// Proof that this incarnation has reached a position.
    pub fn receipt(&self, position: Position) -> fb::Receipt {
        let (incarnation, id) = (self.state.incarnation, &self.state.incarnation_id);
        fb::Receipt::new(incarnation, position.0, &self.config.keys.receipt_mac(incarnation, id, position))
    }

    /// The same, with whose proof it is.
    pub fn proof(&self, position: Position) -> Proof {
        Proof { receipt: self.receipt(position), incarnation_id: self.state.incarnation_id }
    }

    /// Answers a message that is not acted on.
    pub fn refuse(&self, session: SessionId, origin: Origin, about: About, rejected: &Rejected, effects: &mut Effects) {
        let nack = fb::NackT {
            request: about.request,
            task_id: about.attempt.map(|attempt| attempt.task.to_string()),
            attempt: about.attempt.map_or(0, |attempt| attempt.attempt),
            stream: origin.stream,
            sequence: origin.sequence,
            item: origin.item,
            ..nack_of(rejected)
        };
        effects.send(session, Message::Rare(fb::SchedulerMessageT::Nack(Box::new(nack))));
    }

    /// The spec of a task that exists.
    pub fn spec(&self, task: TaskId) -> Option<Arc<TaskSpec>> {
        self.state.task_spec(task).cloned()
    }

    /// How long an agent that holds attempts of this job may be silent.
    pub fn lost_after(&self, job: JobId) -> Duration {
        self.state.jobs.get(&job).map_or(Duration::MAX, |job| job.spec.terms.suspect_after())
    }

    /// What becomes of a job's attempts when an agent is not heard.
    pub fn terms(&self, job: JobId) -> Terms {
        self.state.jobs.get(&job).map_or(Terms::default(), |job| job.spec.terms)
    }

    /// When nothing of an exclusive attempt can be left on its agent, whatever the agent does: then, and not
    /// before, its task may be tried elsewhere. Other attempts wait for nothing.
    pub fn gone_at(&self, agent: AgentId, task: TaskId) -> Time {
        let terms = self.terms(task.job);
        let grace_ms = self.state.task_spec(task).map_or(0, |spec| spec.kill_grace_ms);
        let away = self.live.agent(agent).filter(|live| live.session.is_none());
        let heard_at = away.map_or(self.now, |live| live.heard_at);
        match terms.gone_after(grace_ms).filter(|_| terms.exclusive) {
            Some(after) => heard_at + after,
            None => self.now,
        }
    }

    /// When nothing can be left of an exclusive job's attempts that are not in this journal, because it is a backup of
    /// one that had assigned them: from then on its tasks are assigned. Their agents were heard by the other journal's
    /// scheduler until the operator went on with this one at the latest.
    pub fn settled_at(&self, id: JobId) -> Time {
        let Some(job) = self.state.jobs.get(&id).filter(|job| job.spec.terms.exclusive) else { return Time::ZERO };
        let accepted_at = self.state.chain.accepted_at;
        let grace_ms = job.entries.iter().map(|entry| entry.spec.kill_grace_ms).max().unwrap_or_default();
        let others = job.entries.iter().any(|entry| !entry.spec.semaphores.is_empty());
        let others = if others { self.live.semaphores_gone_after } else { Duration::ZERO };
        match job.spec.terms.gone_after(grace_ms).map(|after| after.max(others)) {
            Some(after) if accepted_at > Time::ZERO => accepted_at + after,
            _ => Time::ZERO,
        }
    }

    /// How long after their agents were last heard nothing can be left of any attempts that hold semaphores.
    pub fn semaphores_gone_after(&self) -> Duration {
        let entries = self.state.jobs.values().flat_map(|job| job.entries.iter().map(|entry| (&job.spec.terms, entry)));
        let holds = entries.filter(|(_, entry)| !entry.spec.semaphores.is_empty());
        let gone_after = holds.filter_map(|(terms, entry)| terms.gone_after(entry.spec.kill_grace_ms));
        gone_after.max().unwrap_or_default()
    }

    /// From when on tasks of a job may be assigned.
    pub fn opens_at(&self, id: JobId) -> Time {
        self.settled_at(id).max(self.state.jobs.get(&id).map_or(Time::ZERO, Job::starts_at))
    }

    /// How an attempt enters a ledger that knows nothing of it.
    pub fn new_held(&self, attempt: AttemptId) -> Held {
        let spec = self.state.task_spec(attempt.task);
        let (resources, custom) = spec.map(|spec| (spec.resources, spec.custom.clone())).unwrap_or_default();
        let stops = self.terms(attempt.task.job).stop_on_disconnect_after_ms > 0;
        let whole_agent = spec.is_some_and(|spec| spec.whole_agent);
        let queue = self.queue_of(attempt.task.job);
        let priority = spec.map_or(0, |spec| spec.priority);
        Held { queue, resources, custom, whole_agent, stops, priority, ..Held::default() }
    }

    /// The queue of a job that is known; `None` if there is none of its name any more.
    pub fn queue_of(&self, job: JobId) -> Option<QueueId> {
        let live = self.live.jobs.get(&job).map(|live| live.queue);
        live.or_else(|| self.live.queue.shares().find(&self.state.jobs.get(&job)?.spec.queue))
    }

    /// The session of an agent that has registered in it.
    pub fn session_of(&self, agent: AgentId) -> Option<SessionId> {
        self.live.agent(agent)?.session
    }

    /// An agent's name, for people.
    pub fn agent_name(&self, agent: AgentId) -> String {
        self.state.agents.find(agent).map(|record| record.name.to_string()).unwrap_or_default()
    }

    /// A job that was just accepted, or that the state had at start: its classes, its waiting tasks,
    /// its queue timeouts.
    pub fn enter_job(&mut self, id: JobId) {
        let opens_at = self.opens_at(id);
        let queue = self.queue_of(id).unwrap_or_default();
        let Some(job) = self.state.jobs.get(&id) else { return };
        let live = &mut self.live;
        live.queue.enter_job(id, queue, job.starts_at());
        live.deadlines.arm(job.due_at(), Deadline::Due(id));
        live.version += 1;
        let graph = Graph::of(&job.spec.tasks).unwrap_or_else(|_| unreachable!("a job that exists was checked"));
        let waits = graph.map(|graph| Box::new(Waits::new(graph)));
        let has_budget = job.spec.terms.stop_after_failures > 0;
        let mut entered = JobLive { version: live.version, has_budget, queue, ..JobLive::default() };
        for (ordinal, entry) in job.ordinals().zip(&job.entries) {
            let agents = &self.state.agents;
            let class = live.queue.enter(&Request::of_entry(&entry.spec, (id, ordinal), queue), |request| {
                let suitable = agents.iter().filter(|(_, agent)| is_of(request, &agent.profile));
                let mut eligible = FixedBitSet::with_capacity(agents.count());
                suitable.for_each(|(agent, _)| eligible.insert(agent.0 as usize));
                eligible
            });
            live.queue.semaphores.enter(class, &entry.spec.semaphores);
            entered.classes.push(class);
            if entry.unstarted.count() > 0
                && let Some(due) = entry_queue_timeout(job, waits.as_deref(), ordinal)
            {
                live.deadlines.arm(due, Deadline::EntryQueued(id, ordinal));
            }
        }
        entered.waits = waits;
        entered.caps = Caps::of(job);
        entered.gathering = Gathering::of(&job.spec);
        live.jobs.insert(id, entered);
        if opens_at > self.now {
            live.deadlines.arm(opens_at, Deadline::Settled(id));
        } else {
            self.on_settled(id);
        }
    }

    /// The tasks of a job that were never started may be assigned: at once, but those of a job that starts later, and of
    /// an exclusive one that might still run somewhere.
    pub fn on_settled(&mut self, id: JobId) {
        let (Some(job), Some(entered)) = (self.state.jobs.get(&id), self.live.jobs.get_mut(&id)) else { return };
        entered.settled = true;
        let mut ready: Vec<(u16, Range<u32>)> = Vec::new();
        for (ordinal, entry) in job.ordinals().zip(&job.entries) {
            match &entered.waits {
                Some(waits) => ready.extend(waits.ready(job, ordinal).into_iter().map(|range| (ordinal, range))),
                None => ready.extend(entry.unstarted.ranges(()).map(|range| (ordinal, range))),
            }
        }
        for (entry, range) in ready {
            self.live.enqueue_all(id, entry, range);
        }
    }

    /// A job that has ended: nothing waits for it any more.
    pub fn leave_job(&mut self, id: JobId) {
        let Some(left) = self.live.jobs.remove(&id) else { return };
        self.live.deadlines.disarm(self.opens_at(id), Deadline::Settled(id));
        let job = self.state.jobs.get(&id);
        for (place, class) in left.classes.iter().enumerate() {
            if let Some(entry) = job.and_then(|job| job.entries.get(place)) {
                self.live.queue.semaphores.leave(*class, &entry.spec.semaphores);
            }
            self.live.queue.leave(*class);
        }
        self.live.queue.leave_job(id, left.queue);
        let Some(job) = job else { return };
        self.live.deadlines.disarm(job.due_at(), Deadline::Due(id));
        for ordinal in job.ordinals() {
            if let Some(due) = entry_queue_timeout(job, left.waits.as_deref(), ordinal) {
                self.live.deadlines.disarm(due, Deadline::EntryQueued(id, ordinal));
            }
        }
    }

    /// A task that was started and waits again: at once, or when its retry is due.
    pub fn await_agent(&mut self, task: TaskId) {
        let Some(since) = self.waits_until(task) else { return };
        if since > self.now {
            self.live.deadlines.arm(since, Deadline::Retry(task));
        } else {
            self.live.enqueue(task);
        }
        if let Some(due) = self.queue_timeout(task) {
            self.live.deadlines.arm(due, Deadline::TaskQueued(task));
        }
    }

    /// A task that was started and waits no longer.
    pub fn cease_waiting(&mut self, task: TaskId) {
        let Some(since) = self.waits_until(task) else { return };
        self.live.deadlines.disarm(since, Deadline::Retry(task));
        self.live.dequeue(task);
        if let Some(due) = self.queue_timeout(task) {
            self.live.deadlines.disarm(due, Deadline::TaskQueued(task));
        }
    }

    /// Before which moment a task that was started is not tried again.
    fn waits_until(&self, task: TaskId) -> Option<Time> {
        let retry_at = self.state.tasks.get(&task)?.pending_since;
        Some(retry_at.max(self.opens_at(task.job)))
    }

    /// When a task that was started before has waited too long.
    fn queue_timeout(&self, task: TaskId) -> Option<Time> {
        let timeout_s = self.state.task_spec(task)?.queue_timeout_s;
        let since = self.state.tasks.get(&task)?.pending_since;
        (timeout_s > 0).then(|| since + Duration::from_secs(timeout_s))
    }
}

/// When the tasks of an entry that were never started have waited too long, counted from when they wait for nothing but
/// agents. `None` if they may wait for ever, or something else has to end first.
fn entry_queue_timeout(job: &Job, waits: Option<&Waits>, ordinal: u16) -> Option<Time> {
    let timeout_s = job.entry(ordinal)?.spec.queue_timeout_s;
    let since = waits.map_or(Some(job.starts_at()), |waits| waits.waits_since(job, ordinal))?;
    (timeout_s > 0).then(|| since + Duration::from_secs(timeout_s))
}

/// A refusal for the wire, of whatever it is.
pub fn nack_of(rejected: &Rejected) -> fb::NackT {
    fb::NackT {
        code: rejected.code(),
        message: Some(fleetwire_common::message::cut(&rejected.to_string()).to_owned()),
        retriable: rejected.is_retriable(),
        ..fb::NackT::default()
    }
}

/// What a refused message was about.
#[derive(Clone, Copy, Debug, Default)]
pub struct About {
    /// The client's request, or 0.
    pub request: u64,
    /// The attempt.
    pub attempt: Option<AttemptId>,
}
