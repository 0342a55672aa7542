//! A simulated client: it submits jobs, cancels, asks, and keeps a record of everything that was
//! acknowledged. What it got no answer to it asks again, with the same submit id, in its next session.
//!
//! Invariants: what was acknowledged once is never taken back: the same submit is the same job, and a task
//! that was seen ended stays as it was seen.

use crate::{
    history::History,
    network::{ConnectionId, End, Peer},
    trace::{Violation, broken},
    wire::{Link, send},
    world::{Happening, World},
};
use fleetwire_common::{
    envelope::{
        Features,
        handshake::{Greeting, HelloInfo},
        keys::{RootKeys, Secret},
    },
    fb,
    ids::{JobId, Name, Principal, SubmitId, TaskId},
    job::JobSpec,
    limits::STALE_AFTER_MS,
    message::{Message, MessageRef, is_final},
    time::Time,
};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// Something that a client wants.
#[derive(Clone, Debug)]
pub enum Wish {
    /// Submit a job.
    Submit(SubmitId, Vec<u8>),
    /// Say again what was submitted, on purpose.
    Again(SubmitId),
    /// Cancel a job, or one task of it, once it was acknowledged.
    Cancel(SubmitId, Option<(u16, u32)>),
    /// Ask something about a job, once it was acknowledged.
    Ask(SubmitId, fb::QueryKind),
    /// Read what a task of it wrote.
    Log(SubmitId),
    /// Take an agent out of service, or back.
    Change(String, fb::AgentAction, Duration),
    /// Place work by another policy.
    Policy(Box<fb::ClusterPolicyT>),
    /// Have a job submitted by a cron.
    Recur(Box<fb::ScheduleT>),
    /// Have it rest, go on, or be no more.
    ChangeRecurring(String, fb::ScheduleAction),
}

/// A client.
#[derive(Debug)]
pub struct ClientNode {
    number: usize,
    /// Whom its certificate names.
    pub principal: Principal,
    /// What its `Hello` is sealed with.
    enrolment: Secret,
    link: Link,
    plans: VecDeque<(Time, Wish)>,
    open: BTreeMap<u64, (Wish, Time)>,
    /// What plans said that submits would be refused with, by the requests of these, sent right behind them.
    planned: BTreeMap<u64, Option<fb::ErrorCode>>,
    requests: u64,
    bulk_streams: u32,
    dials_failed: u32,
    submitted: BTreeMap<SubmitId, Vec<u8>>,
    /// The jobs that were acknowledged.
    pub jobs: BTreeMap<SubmitId, JobId>,
    /// The cancels that were acknowledged.
    pub cancelled: Vec<(JobId, Option<(u16, u32)>)>,
    /// The ends that were seen.
    pub ends_seen: BTreeMap<TaskId, fb::TaskStatus>,
    /// How many answers came.
    pub answers: u64,
}

/// Without an answer for so long, it asks again.
const PATIENCE: Duration = Duration::from_secs(45);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What is larger might travel on a stream of its own.
const PLANNED_BYTES_MAX: usize = 8 << 10;

impl ClientNode {
    /// A client that wants nothing yet.
    pub fn new(number: usize, name: Name, keys: &RootKeys) -> ClientNode {
        let principal = Principal { role: fb::Role::Operator, name };
        ClientNode {
            number,
            enrolment: keys.enrolment_key(&principal),
            principal,
            link: Link::Down,
            plans: VecDeque::new(),
            open: BTreeMap::new(),
            planned: BTreeMap::new(),
            requests: 0,
            bulk_streams: 0,
            dials_failed: 0,
            submitted: BTreeMap::new(),
            jobs: BTreeMap::new(),
            cancelled: Vec::new(),
            ends_seen: BTreeMap::new(),
            answers: 0,
        }
    }

    /// Wants something, from that time on.
    pub fn wish(&mut self, world: &mut World, at: Time, wish: Wish) {
        let place = self.plans.partition_point(|(planned, _)| *planned <= at);
        self.plans.insert(place, (at, wish));
        world.queue.plan(at, Happening::Client(self.number));
    }

    /// Wants a job; returns the submit id by which it is known until its number is.
    pub fn submit(&mut self, world: &mut World, at: Time, job: &JobSpec) -> SubmitId {
        let id = SubmitId::new(at.as_ms(), world.random.bytes());
        let bytes = job.to_wire();
        self.submitted.insert(id, bytes.clone());
        self.wish(world, at, Wish::Submit(id, bytes));
        id
    }

    /// Whether it wants nothing more.
    pub fn is_idle(&self) -> bool {
        self.plans.is_empty() && self.open.is_empty()
    }

    /// The connection of its session or handshake.
    pub fn connection(&self) -> Option<ConnectionId> {
        self.link.connection()
    }

    /// Tries to connect.
    pub fn on_dial(&mut self, world: &mut World, reachable: bool) {
        if self.link.connection().is_some() {
            return;
        }
        if !reachable {
            return self.dial_again(world);
        }
        let connection = world.connect(Peer::Client(self.number));
        let info = HelloInfo {
            features: Features::ALL,
            boot_id: [1; 16],
            process_start_id: [2; 16],
            receipt: None,
            software: "sim".to_owned(),
        };
        let mut frame = Vec::new();
        let greeting = Greeting::hello(&self.enrolment, world.random.bytes(), &info, 0, &mut frame);
        self.link = Link::Greeting(connection, greeting, 0);
        self.bulk_streams = 0;
        world.send_frames(connection, End::Scheduler, 0, &frame);
        world.plan(Duration::from_secs(20), Happening::Idle(connection, End::Peer, u64::MAX));
    }

    /// A handshake that got no answer is given up.
    pub fn on_greeting_late(&mut self, world: &mut World, connection: ConnectionId) {
        if matches!(&self.link, Link::Greeting(greeting, ..) if *greeting == connection) {
            world.close(connection, End::Peer);
            self.link = Link::Down;
            self.dial_again(world);
        }
    }

    /// The connection is gone.
    pub fn on_gone(&mut self, world: &mut World, connection: ConnectionId) {
        world.network.close(connection, End::Peer);
        if self.link.connection() == Some(connection) {
            self.link = Link::Down;
            self.dial_again(world);
        }
    }

    /// Looks at what it wants next, and at what it waits for in vain.
    pub fn on_tick(&mut self, world: &mut World) {
        if !matches!(self.link, Link::Open(..)) {
            return;
        }
        let late: Vec<u64> =
            self.open.iter().filter(|(_, (_, asked))| *asked + PATIENCE <= world.now).map(|(id, _)| *id).collect();
        let mut again: Vec<Wish> = late.iter().filter_map(|id| self.open.remove(id)).map(|(wish, _)| wish).collect();
        while let Some((_, wish)) = self.plans.pop_front_if(|(at, _)| *at <= world.now) {
            again.push(wish);
        }
        for wish in again {
            self.ask(world, wish);
        }
        if !self.open.is_empty() {
            world.plan(PATIENCE, Happening::Client(self.number));
        }
    }

    /// A frame has arrived.
    pub fn on_frame(
        &mut self,
        world: &mut World,
        history: &History,
        stream: u32,
        bytes: &[u8],
    ) -> Result<(), Violation> {
        match std::mem::replace(&mut self.link, Link::Down) {
            Link::Down => Ok(()),
            Link::Greeting(connection, greeting, _) => {
                match greeting.on_welcome(bytes) {
                    Ok((session, _)) => {
                        self.link = Link::Open(connection, Box::new(session));
                        self.dials_failed = 0;
                        // Whatever was under way may or may not have arrived: ask again.
                        let open = std::mem::take(&mut self.open);
                        open.into_values().for_each(|(wish, _)| self.ask(world, wish));
                        self.on_tick(world);
                    }
                    Err(_) => {
                        world.close(connection, End::Peer);
                        self.dial_again(world);
                    }
                }
                Ok(())
            }
            Link::Open(connection, mut session) => {
                let now_ms = world.now.as_ms();
                match session.opener.open(bytes, stream, now_ms, STALE_AFTER_MS) {
                    Ok(opened) => {
                        for (_, message) in opened.messages() {
                            self.on_message(world, history, message)?;
                        }
                        self.link = Link::Open(connection, session);
                        Ok(())
                    }
                    Err(error) if error.code() == fb::ErrorCode::Stale => {
                        world.close(connection, End::Peer);
                        self.dial_again(world);
                        Ok(())
                    }
                    Err(error) => broken("P5", format!("an honest scheduler's frame was refused: {error}")),
                }
            }
        }
    }

    /// The scheduler goes on with a backup: what was acknowledged and is not in it is gone, and jobs are submitted again.
    pub fn forget_what_is_gone(&mut self, world: &mut World, history: &History) {
        let is_there = |submit: &SubmitId, job: &JobId| {
            let accepted = history.job(*job).map(|job| job.accepted);
            history.job_of(*submit) == Some(*job) && accepted.is_some_and(|at| at <= history.durable)
        };
        let (kept, gone) = std::mem::take(&mut self.jobs).into_iter().partition(|(submit, job)| is_there(submit, job));
        self.jobs = kept;
        let gone: BTreeMap<SubmitId, JobId> = gone;
        for submit in gone.into_keys() {
            if let Some(bytes) = self.submitted.get(&submit).cloned() {
                self.wish(world, world.now, Wish::Submit(submit, bytes));
            }
        }
        self.cancelled.retain(|(job, task)| is_stopping(history, *job, *task));
        self.ends_seen.retain(|task, status| {
            let ended = history.task(*task).and_then(|task| task.ended);
            ended.is_some_and(|(at, now)| at <= history.durable && now == *status)
        });
    }

    /// What was acknowledged must be in the record, now and after every crash.
    pub fn invariant_p1_acknowledged_is_durable(&self, history: &History) -> Result<(), Violation> {
        for (submit, job) in &self.jobs {
            let accepted = history.job(*job).map(|job| job.accepted);
            if history.job_of(*submit) != Some(*job) || accepted.is_none_or(|at| at > history.durable) {
                return broken("P1", format!("job {job} was acknowledged and is not durable"));
            }
        }
        for (job, task) in &self.cancelled {
            if !is_stopping(history, *job, *task) {
                return broken("P1", format!("the cancel of job {job} ({task:?}) was acknowledged and is not durable"));
            }
        }
        for (task, status) in &self.ends_seen {
            let ended = history.task(*task).and_then(|task| task.ended);
            if ended.is_none_or(|(at, now)| at > history.durable || now != *status) {
                return broken("P1", format!("{task} was seen {status:?} and now is {ended:?}"));
            }
        }
        Ok(())
    }

    fn ask(&mut self, world: &mut World, wish: Wish) {
        let job = |submit: &SubmitId| self.jobs.get(submit).copied();
        self.requests += 1;
        let request = self.requests;
        let first = |job: JobId| Some(format!("{job}.0.0"));
        let message = match &wish {
            Wish::Submit(id, bytes) => Some(submit(request, *id, bytes.clone())),
            Wish::Again(id) => self.submitted.get(id).map(|bytes| submit(request, *id, bytes.clone())),
            Wish::Cancel(submit, task) => job(submit).map(|job| {
                let task_id = task.map(|(entry, index)| TaskId { job, entry, index }.to_string());
                fb::SchedulerMessageT::CancelWork(Box::new(fb::CancelWorkT {
                    request,
                    job: job.0,
                    task_id,
                    agent: None,
                }))
            }),
            Wish::Ask(submit, kind) => job(submit).map(|job| {
                let agent = (*kind == fb::QueryKind::Agent).then(|| "agent-0".to_owned());
                let query = fb::QueryT {
                    request,
                    kind: *kind,
                    job: job.0,
                    task_id: first(job),
                    agent,
                    ..fb::QueryT::default()
                };
                fb::SchedulerMessageT::Query(Box::new(query))
            }),
            Wish::Log(submit) => job(submit).map(|job| {
                let task_id = first(job);
                fb::SchedulerMessageT::LogRequest(Box::new(fb::LogRequestT {
                    request,
                    task_id,
                    limit: 1_000,
                    ..Default::default()
                }))
            }),
            Wish::Change(agent, action, within) => {
                Some(fb::SchedulerMessageT::ChangeAgent(Box::new(fb::ChangeAgentT {
                    request,
                    agent: Some(agent.clone()),
                    action: *action,
                    within_ms: within.as_millis() as u64,
                    reason: None,
                })))
            }
            Wish::Policy(policy) => {
                let policy = Some(policy.clone());
                Some(fb::SchedulerMessageT::SetPolicy(Box::new(fb::SetPolicyT { request, policy })))
            }
            Wish::Recur(schedule) => {
                let schedule = Some(schedule.clone());
                Some(fb::SchedulerMessageT::SetSchedule(Box::new(fb::SetScheduleT { request, schedule })))
            }
            Wish::ChangeRecurring(name, action) => {
                let (name, action) = (Some(name.clone()), *action);
                let change = fb::ChangeScheduleT { request, name, action };
                Some(fb::SchedulerMessageT::ChangeSchedule(Box::new(change)))
            }
        };
        let Some(message) = message else {
            // Its job has no number yet: later.
            let at = world.now + LOOK_EVERY;
            return self.wish(world, at, wish);
        };
        // Both are in one frame, and nothing comes between them.
        let plan = match &wish {
            Wish::Submit(_, bytes) if bytes.len() < PLANNED_BYTES_MAX => {
                self.requests += 1;
                let plan = fb::PlanJobT { request: self.requests, job: Some(bytes.clone()) };
                Some(fb::SchedulerMessageT::PlanJob(Box::new(plan)))
            }
            _ => None,
        };
        self.open.insert(request, (wish, world.now));
        let Link::Open(connection, session) = &mut self.link else { return };
        let now = world.now;
        let messages: Vec<Message> = plan.into_iter().chain([message]).map(Message::Rare).collect();
        let streams = &mut self.bulk_streams;
        send(world, *connection, End::Scheduler, &mut session.sealer, streams, now, &messages);
        world.plan(PATIENCE, Happening::Client(self.number));
    }

    fn on_message(&mut self, world: &mut World, history: &History, message: MessageRef<'_>) -> Result<(), Violation> {
        self.answers += 1;
        match message {
            MessageRef::JobSubmitted(answer) => {
                let job = JobId(answer.job());
                world.trace.say(world.now, || format!("client {} ← JobSubmitted {job}", self.number));
                let Some((Wish::Submit(id, _) | Wish::Again(id), _)) = self.open.remove(&answer.request()) else {
                    return Ok(());
                };
                if self.jobs.insert(id, job).is_some_and(|before| before != job) {
                    return broken("P1", format!("one submit was acknowledged as two jobs, the second {job}"));
                }
                let planned = self.planned.remove(&answer.request()).flatten().filter(|_| !answer.repeated());
                if let Some(code) = planned.filter(|code| *code != fb::ErrorCode::Busy) {
                    return broken("plan", format!("job {job} was taken, and was planned to be refused: {code:?}"));
                }
                if history.job_of(id) != Some(job) {
                    return broken("P1", format!("job {job} was acknowledged and is not in the journal"));
                }
                self.invariant_p1_acknowledged_is_durable(history)
            }
            MessageRef::Ack(ack) => {
                let wish = self.open.remove(&ack.request()).map(|(wish, _)| wish);
                world.trace.say(world.now, || format!("client {} ← Ack of {wish:?}", self.number));
                if let Some(Wish::Cancel(submit, task)) = wish {
                    let job = self.jobs.get(&submit).copied().unwrap_or_default();
                    self.cancelled.push((job, task));
                    return self.invariant_p1_acknowledged_is_durable(history);
                }
                Ok(())
            }
            MessageRef::Page(page) => {
                self.open.remove(&page.request());
                // The submit's number is the one before the plan's.
                if let Some(plan) = page.plan() {
                    self.planned.insert(page.request() - 1, plan.refused().map(|nack| nack.code()));
                }
                page.jobs().into_iter().flatten().try_for_each(|row| check_counts(history, row))?;
                for row in page.tasks().into_iter().flatten().filter(|row| is_final(row.status())) {
                    let Ok(task) = row.task_id().unwrap_or_default().parse::<TaskId>() else { continue };
                    if self.ends_seen.insert(task, row.status()).is_some_and(|before| before != row.status()) {
                        return broken("P1", format!("{task} was seen ended, and later ended otherwise"));
                    }
                }
                Ok(())
            }
            MessageRef::LogChunk(chunk) => {
                self.open.remove(&chunk.request());
                Ok(())
            }
            MessageRef::Nack(nack) => self.on_nack(world, history, nack),
            _ => Ok(()),
        }
    }

    fn on_nack(&mut self, world: &mut World, history: &History, nack: fb::Nack<'_>) -> Result<(), Violation> {
        let Some((wish, _)) = self.open.remove(&nack.request()) else { return Ok(()) };
        let said = nack.message().unwrap_or_default();
        world.trace.say(world.now, || format!("client {} ← Nack {:?} {said}", self.number, nack.code()));
        if let Some(planned) = self.planned.remove(&nack.request())
            && planned != Some(nack.code())
            && !matches!(nack.code(), fb::ErrorCode::TooOld | fb::ErrorCode::Conflict)
        {
            return broken("plan", format!("{:?} {said}: it was planned to be {planned:?}", nack.code()));
        }
        let restored = history.is_restored() && nack.code() == fb::ErrorCode::WrongState;
        if nack.retriable() || restored {
            let at = world.now + 5 * LOOK_EVERY;
            if !matches!(wish, Wish::Ask(..) | Wish::Log(_)) {
                self.wish(world, at, wish);
            }
            return Ok(());
        }
        // Whoever could do it may be yet to come.
        if let (Wish::Submit(..) | Wish::Again(_), fb::ErrorCode::DoesNotFit) = (&wish, nack.code()) {
            world.trace.coverage.unplaceable();
            self.wish(world, world.now + 50 * LOOK_EVERY, wish);
            return Ok(());
        }
        // Nobody has set the policy yet in which its queue is, or only in the journal of which this is a backup.
        let early = said.contains("there is no queue");
        if let (Wish::Submit(..) | Wish::Again(_), true) = (&wish, early) {
            self.wish(world, world.now + 5 * LOOK_EVERY, wish);
            return Ok(());
        }
        let submit = match &wish {
            Wish::Cancel(submit, _) | Wish::Ask(submit, _) => history.job_of(*submit),
            Wish::Submit(..) | Wish::Again(_) | Wish::Log(_) | Wish::Change(..) => None,
            Wish::Policy(_) | Wish::Recur(_) | Wish::ChangeRecurring(..) => None,
        };
        let forgotten = submit.and_then(|job| history.job(job)).is_some_and(|job| job.forgotten);
        if forgotten && matches!(nack.code(), fb::ErrorCode::UnknownJob | fb::ErrorCode::UnknownTask) {
            return Ok(());
        }
        match wish {
            Wish::Submit(..) | Wish::Again(_) => {
                broken("P1", format!("a good submit was refused: {:?} {said}", nack.code()))
            }
            Wish::Cancel(..) => broken("P1", format!("a good cancel was refused: {:?} {said}", nack.code())),
            Wish::Ask(_, kind) if !matches!(kind, fb::QueryKind::Result | fb::QueryKind::Agent) => {
                broken("P1", format!("a good query ({kind:?}) was refused: {:?} {said}", nack.code()))
            }
            // It may not have registered yet.
            Wish::Change(..) if nack.code() != fb::ErrorCode::UnknownAgent => {
                broken("cordon", format!("a good change was refused: {:?} {said}", nack.code()))
            }
            Wish::Policy(_) => broken("quota", format!("a good policy was refused: {:?} {said}", nack.code())),
            Wish::Recur(_) => broken("cron", format!("a good schedule was refused: {:?} {said}", nack.code())),
            // It may not be set yet, or only in the journal of which this is a backup.
            Wish::Ask(..) | Wish::Log(_) | Wish::Change(..) | Wish::ChangeRecurring(..) => Ok(()),
        }
    }

    fn dial_again(&mut self, world: &mut World) {
        self.dials_failed += 1;
        let most = Duration::from_millis(100) * 2u32.pow(self.dials_failed.min(6));
        let after = world.between(most / 2, most);
        world.plan(after, Happening::Dial(Peer::Client(self.number), 0));
    }
}

fn submit(request: u64, id: SubmitId, job: Vec<u8>) -> fb::SchedulerMessageT {
    let submit = fb::SubmitJobT { request, submit_id: Some(id.0.to_vec()), job: Some(job) };
    fb::SchedulerMessageT::SubmitJob(Box::new(submit))
}

/// Whether a cancel shows in what is durable: as a fact of its own, or because there was nothing left to
/// stop.
fn is_stopping(history: &History, job: JobId, task: Option<(u16, u32)>) -> bool {
    let durable = |position: Option<_>| position.is_some_and(|position| position <= history.durable);
    let Some(record) = history.job(job) else { return false };
    if durable(record.cancelled) || record.open == 0 {
        return true;
    }
    let ended = |id: TaskId| {
        let task = history.task(id);
        durable(task.and_then(|task| task.ended).map(|(at, _)| at)) || durable(task.and_then(|task| task.cancelled))
    };
    match task {
        Some((entry, index)) => ended(TaskId { job, entry, index }),
        None => (0..)
            .zip(&record.spec.tasks)
            .all(|(entry, spec)| (0..spec.count).all(|index| ended(TaskId { job, entry, index }))),
    }
}

/// A job's counts, as a client sees them: together they are all its tasks, and no more have ended than
/// the record knows of.
fn check_counts(history: &History, row: fb::JobSummary<'_>) -> Result<(), Violation> {
    let job = JobId(row.job());
    let (Some(counts), Some(record)) = (row.counts(), history.job(job)) else {
        return broken("P1", format!("a page has job {job}, which is not in the record"));
    };
    let ended = u64::from(counts.completed()) + u64::from(counts.failed()) + u64::from(counts.cancelled());
    let ended = ended + u64::from(counts.skipped());
    let open = u64::from(counts.pending()) + u64::from(counts.assigned()) + u64::from(counts.running());
    let all = record.spec.task_count();
    if ended + open != all || ended > all - record.open {
        return broken("P1", format!("job {job} has {all} tasks, {} open; a page says {counts:?}", record.open));
    }
    Ok(())
}
