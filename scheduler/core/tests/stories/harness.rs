//! A scheduler on virtual time, and peers whose messages are sealed and opened as on the wire.
//!
//! After every event the facts that it decided are decoded from their bytes and applied to a shadow
//! state, which must equal the live one; and what the agents hold, as their messages say, must fit into
//! their capacity.

use fleetwire_common::{
    blob::BlobRef,
    envelope::{
        Features, Opener, Sealer,
        handshake::{HelloInfo, Proof},
        keys::MacKey,
        keys::RootKeys,
        keys::Secret,
    },
    fb,
    ids::*,
    job::{JobSpec, TaskSpec, Terms},
    message::{Ack, End, Heartbeat, Message, Status},
    resources::Resources,
    time::Time,
};
use fleetwire_scheduler_core::{
    Config, Effect, Effects, Event, Origin, Policy, Scheduler, State, bodies::complete, fact::Fact,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

pub struct T {
    pub scheduler: Scheduler,
    pub now: Time,
    pub facts: Vec<Vec<u8>>,
    pub shadow: State,
    pub closed: Vec<(SessionId, fb::ErrorCode)>,
    pub other: Vec<Effect>,
    /// What lies beside the journal, by its place.
    pub bodies: BTreeMap<BlobRef, Vec<u8>>,
    /// An agent has come to hold more than it has: that is a story's own doing.
    pub skip_fit: bool,
    peers: BTreeMap<SessionId, Peer>,
    agents: BTreeMap<String, AgentModel>,
    config: Config,
    effects: Effects,
    sessions: u64,
    requests: u64,
}

struct Peer {
    sealer: Sealer,
    opener: Opener,
    inbox: Vec<Message>,
    agent: Option<String>,
    sequence: u64,
}

/// What an agent has, as its own messages and those to it say.
#[derive(Clone)]
pub struct AgentModel {
    pub session: Option<SessionId>,
    pub capacity: Resources,
    pub labels: Vec<(String, String)>,
    pub kinds: Vec<fb::AgentType>,
    pub data_id: [u8; 16],
    pub holds: BTreeMap<AttemptId, (Resources, fb::TaskStatus)>,
    /// Of all that it lists.
    pub progress: f32,
    /// What it returns in its `Hello`.
    pub proof: Option<Proof>,
    /// How many assignments it takes that have to wait for room,
    pub backlog: u32,
    /// and those that do, in their order.
    pub waits: VecDeque<AttemptId>,
}

impl AgentModel {
    /// What runs takes together.
    fn used(&self) -> Resources {
        let runs = self.holds.iter().filter(|(attempt, _)| !self.waits.contains(attempt));
        runs.fold(Resources::ZERO, |sum, (_, (amount, _))| sum.plus(*amount))
    }

    fn take_on(&mut self, attempt: AttemptId, resources: Resources) {
        if self.holds.contains_key(&attempt) {
            return;
        }
        let waits = !self.waits.is_empty() || !resources.fits(self.capacity.minus(self.used()));
        if self.backlog > 0 && waits {
            self.waits.push_back(attempt);
            assert!(self.waits.len() <= self.backlog as usize, "more ahead than it takes");
        }
        self.holds.insert(attempt, (resources, fb::TaskStatus::Assigned));
    }

    fn drop_hold(&mut self, attempt: AttemptId) {
        self.holds.remove(&attempt);
        self.waits.retain(|waiting| *waiting != attempt);
        while let Some(next) = self.waits.front()
            && self.holds.get(next).is_some_and(|(amount, _)| amount.fits(self.capacity.minus(self.used())))
        {
            self.waits.pop_front();
        }
    }
}

pub fn config() -> Config {
    Config {
        cluster: "c".into(),
        keys: RootKeys::new(Secret::new([1; 32])),
        authority_sha256: [2; 32],
        addresses: vec!["localhost:7450".into()],
        incarnation_id: [3; 16],
        seed: 7,
        heartbeat_interval: Duration::from_secs(30),
        software: "test".into(),
        accept_restore: false,
        policy: Policy::default(),
    }
}

pub fn small() -> Resources {
    Resources { cpu: 1_000, memory: 100, gpu: 0, storage: 0 }
}

pub fn task() -> TaskSpec {
    TaskSpec { command: "true".into(), resources: small(), ..TaskSpec::default() }
}

pub fn job(tasks: Vec<TaskSpec>) -> JobSpec {
    JobSpec::new(Name::new("j").unwrap(), tasks, 60).unwrap()
}

pub fn id(job: u64, entry: u16, index: u32) -> TaskId {
    TaskId { job: JobId(job), entry, index }
}

pub fn attempt(job: u64, index: u32, attempt: u32) -> AttemptId {
    AttemptId { task: id(job, 0, index), attempt }
}

pub fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

impl T {
    pub fn new() -> T {
        T::with(config())
    }

    pub fn with(config: Config) -> T {
        let mut t = T {
            scheduler: Scheduler::new(config.clone()),
            now: Time::from_ms(1_700_000_000_000),
            facts: Vec::new(),
            shadow: State::default(),
            closed: Vec::new(),
            other: Vec::new(),
            bodies: BTreeMap::new(),
            skip_fit: false,
            peers: BTreeMap::new(),
            agents: BTreeMap::new(),
            config,
            effects: Effects::new(),
            sessions: 0,
            requests: 0,
        };
        t.scheduler.start(t.now, &mut t.effects);
        t.settle();
        t.has_room();
        t
    }

    /// The facts of a snapshot of all that is known.
    pub fn snapshot(&self) -> Vec<Vec<u8>> {
        let mut facts = Vec::new();
        let mut keep = |fact: &[u8]| {
            facts.push(fact.to_vec());
            Ok::<(), std::convert::Infallible>(())
        };
        self.scheduler.state().write_snapshot(&mut keep).unwrap();
        facts
    }

    /// A scheduler starts on these facts, with this random id; all sessions are gone.
    pub fn restore(&mut self, facts: Vec<Vec<u8>>, incarnation_id: u8, accept_restore: bool) {
        self.config = Config { incarnation_id: [incarnation_id; 16], accept_restore, ..self.config.clone() };
        let mut scheduler = Scheduler::new(self.config.clone());
        for fact in &facts {
            scheduler.replay(fact).unwrap();
        }
        self.shadow = scheduler.state().clone();
        self.facts = facts;
        self.scheduler = scheduler;
        self.peers.clear();
        for agent in self.agents.values_mut() {
            agent.session = None;
        }
        self.scheduler.start(self.now, &mut self.effects);
        self.settle();
    }

    /// The scheduler dies and starts again on a snapshot; all sessions are gone. Its facts say the same.
    pub fn restart(&mut self) {
        let mut scheduler = Scheduler::new(self.config.clone());
        for fact in &self.facts {
            scheduler.replay(fact).unwrap();
        }
        assert_eq!(scheduler.state(), self.scheduler.state());
        assert_eq!(scheduler.position(), self.scheduler.position());
        let mut restored = Scheduler::new(self.config.clone());
        for fact in self.snapshot() {
            restored.replay_at(scheduler.position(), &fact).unwrap();
        }
        assert_eq!(restored.state(), scheduler.state());
        assert_eq!(restored.position(), scheduler.position());
        self.scheduler = restored;
        self.peers.clear();
        for agent in self.agents.values_mut() {
            agent.session = None;
        }
        self.scheduler.start(self.now, &mut self.effects);
        self.settle();
    }

    pub fn handle(&mut self, event: Event<'_>) {
        self.scheduler.handle(self.now, event, &mut self.effects);
        self.settle();
    }

    /// The disk has room for all that may come.
    pub fn has_room(&mut self) {
        self.handle(Event::Disk { low: false, blob_segments_max: u64::MAX });
    }

    fn settle(&mut self) {
        for fact in self.effects.facts.iter() {
            let (at, decoded) = Fact::decode(fact).unwrap();
            self.shadow.apply(at, &decoded).unwrap();
            self.facts.push(fact.to_vec());
        }
        self.bodies.extend(self.effects.facts.blobs().map(|(blob, bytes)| (blob, bytes.to_vec())));
        self.effects.facts.clear();
        assert_eq!(self.scheduler.position().0, self.facts.len() as u64);
        assert_eq!(&self.shadow, self.scheduler.state(), "what facts say differs from what is live");
        for effect in self.effects.drain_prompt().collect::<Vec<_>>() {
            self.take(effect);
        }
        let effects: Vec<_> = self.effects.drain().collect();
        let mut last = Position(0);
        for (position, effect) in effects {
            assert!(position >= last, "effects bear their positions in order");
            last = position;
            self.take(effect);
        }
        self.check_fit();
        self.check_nothing_waits_needlessly();
    }

    fn take(&mut self, effect: Effect) {
        match effect {
            Effect::Complete { session, mut message, lacks } => {
                let read = |blob: &BlobRef| self.bodies.get(blob).cloned().ok_or(());
                match complete(&mut message, &lacks, read) {
                    Ok(()) => self.take(Effect::Send { session, message }),
                    Err(()) => self.handle(Event::Unreadable { session, message, why: "it is gone".into() }),
                }
            }
            Effect::Send { session, message } => {
                let Some(peer) = self.peers.get_mut(&session) else { return };
                if let (Message::Assignment(assignment), Some(agent)) = (&message, &peer.agent) {
                    let agent = self.agents.get_mut(agent).unwrap();
                    agent.take_on(assignment.attempt, assignment.spec.resources);
                }
                peer.inbox.push(message);
            }
            Effect::Close { session, code, .. } => {
                self.closed.push((session, code));
                self.drop_peer(session);
            }
            other => self.other.push(other),
        }
    }

    fn drop_peer(&mut self, session: SessionId) {
        if let Some(peer) = self.peers.remove(&session)
            && let Some(agent) = peer.agent.and_then(|agent| self.agents.get_mut(&agent))
            && agent.session == Some(session)
        {
            agent.session = None;
        }
    }

    /// P3, by the agents' own books: what they hold fits into what they have.
    fn check_fit(&self) {
        if self.skip_fit {
            return;
        }
        for (name, agent) in &self.agents {
            let sum = agent.used();
            assert!(sum.fits(agent.capacity), "{name} holds {sum:?} of {:?}", agent.capacity);
        }
    }

    /// No class that waits fits an agent that may be given work.
    fn check_nothing_waits_needlessly(&self) {
        let live = self.scheduler.live();
        if live.unplanned || self.scheduler.state().chain.restored.is_some() {
            return;
        }
        for (_, _, class) in live.queue.turns(None) {
            let class = live.queue.find(class).unwrap();
            for (agent, record) in self.scheduler.state().agents.iter() {
                let room = live.index.room(agent);
                let fits = class.request.resources.fits(room.free) && room.held < self.config.policy.attempts_per_agent;
                assert!(!(room.placeable && fits && class.admits(agent)), "{} is idle", record.name);
            }
        }
    }

    pub fn connect(&mut self, role: fb::Role, name: &str) -> SessionId {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let key = MacKey::new(&Secret::new([9; 32]));
        let agent = (role == fb::Role::Agent).then(|| name.to_owned());
        let peer = Peer {
            sealer: Sealer::new(key.clone(), 1, Features::ALL),
            opener: Opener::new(key, 1),
            inbox: Vec::new(),
            agent,
            sequence: 0,
        };
        self.peers.insert(session, peer);
        let hello = HelloInfo {
            features: Features::ALL,
            boot_id: [0; 16],
            process_start_id: [0; 16],
            receipt: self.agents.get(name).filter(|_| role == fb::Role::Agent).and_then(|agent| agent.proof),
            software: String::new(),
        };
        let principal = Principal { role, name: Name::new(name).unwrap() };
        self.handle(Event::Connected { session, principal, hello });
        session
    }

    pub fn operator(&mut self) -> SessionId {
        self.connect(fb::Role::Operator, "op")
    }

    pub fn disconnect(&mut self, session: SessionId) {
        self.drop_peer(session);
        self.handle(Event::Disconnected { session });
    }

    /// Sends a message in a session, sealed and opened.
    pub fn send(&mut self, session: SessionId, message: Message) {
        let mut frame = Vec::new();
        let peer = self.peers.get_mut(&session).unwrap();
        let now_ms = self.now.as_ms();
        assert_eq!(peer.sealer.seal(now_ms, &[message], &mut frame), 1);
        let opened = peer.opener.open(&frame, 0, now_ms, 5_000).unwrap();
        let from = Origin { stream: 0, sequence: peer.sequence, item: 0, timestamp_ms: now_ms };
        peer.sequence += 1;
        let message = opened.message().unwrap();
        self.scheduler.handle(self.now, Event::Received { session, from, message }, &mut self.effects);
        self.settle();
    }

    /// Everything that came in a session since the last look.
    pub fn inbox(&mut self, session: SessionId) -> Vec<Message> {
        self.peers.get_mut(&session).map(|peer| std::mem::take(&mut peer.inbox)).unwrap_or_default()
    }

    /// Lets time pass, handling every deadline when it is due.
    pub fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(due) = self.scheduler.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.handle(Event::Deadline);
        }
        self.now = end;
    }

    /// Lets time pass while all agents beat.
    pub fn pass_beating(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            let sessions: Vec<_> = self.agents.values().filter_map(|agent| agent.session).collect();
            for session in sessions {
                self.send(session, Message::Heartbeat(Heartbeat::default()));
            }
            self.pass(Duration::from_secs(20).min(end.since(self.now)));
        }
    }

    // ---- agents ----

    pub fn agent(&mut self, name: &str) -> AgentHand<'_> {
        let capacity = Resources { cpu: 4_000, memory: 1_000, gpu: 0, storage: 0 };
        let mut data_id = [0; 16];
        data_id[0] = name.as_bytes()[0];
        self.agents.entry(name.to_owned()).or_insert(AgentModel {
            session: None,
            capacity,
            labels: Vec::new(),
            kinds: Vec::new(),
            data_id,
            holds: BTreeMap::new(),
            backlog: 0,
            waits: VecDeque::new(),
            progress: 0.0,
            proof: None,
        });
        AgentHand { t: self, name: name.to_owned() }
    }

    // ---- operators ----

    pub fn request(&mut self, message: impl FnOnce(u64) -> fb::SchedulerMessageT) -> Message {
        let session = self.peers.keys().copied().find(|id| self.peers[id].agent.is_none());
        let session = session.unwrap_or_else(|| self.operator());
        self.requests += 1;
        self.inbox(session);
        self.send(session, Message::Rare(message(self.requests)));
        self.inbox(session).pop().expect("an answer")
    }

    pub fn submit_id(&mut self) -> SubmitId {
        self.requests += 1;
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.requests.to_be_bytes());
        SubmitId::new(self.now.as_ms(), random)
    }

    pub fn submit_as(&mut self, submit: SubmitId, job: &JobSpec) -> Result<(u64, bool), fb::ErrorCode> {
        let bytes = job.to_wire();
        let answer = self.request(|request| {
            fb::SchedulerMessageT::SubmitJob(Box::new(fb::SubmitJobT {
                request,
                submit_id: Some(submit.0.to_vec()),
                job: Some(bytes),
            }))
        });
        match answer {
            Message::Rare(fb::SchedulerMessageT::JobSubmitted(done)) => Ok((done.job, done.repeated)),
            Message::Rare(fb::SchedulerMessageT::Nack(nack)) => Err(nack.code),
            other => panic!("{other:?}"),
        }
    }

    pub fn submit(&mut self, tasks: Vec<TaskSpec>) -> u64 {
        let submit = self.submit_id();
        self.submit_as(submit, &job(tasks)).unwrap().0
    }

    pub fn submit_with(&mut self, task: TaskSpec, terms: Terms) -> Result<u64, fb::ErrorCode> {
        let submit = self.submit_id();
        let job = JobSpec::new(Name::new("j").unwrap(), vec![task], terms).unwrap();
        self.submit_as(submit, &job).map(|(job, _)| job)
    }

    pub fn cancel(&mut self, job: u64, task: Option<TaskId>) -> Result<(), fb::ErrorCode> {
        let task_id = task.map(|task| task.to_string());
        let answer = self.request(|request| {
            fb::SchedulerMessageT::CancelWork(Box::new(fb::CancelWorkT { request, job, task_id, agent: None }))
        });
        match answer {
            Message::Ack(Ack::Request(_)) => Ok(()),
            Message::Rare(fb::SchedulerMessageT::Nack(nack)) => Err(nack.code),
            other => panic!("{other:?}"),
        }
    }

    pub fn query(&mut self, mut query: fb::QueryT) -> Result<fb::PageT, fb::ErrorCode> {
        if query.limit == 0 {
            query.limit = 100;
        }
        let answer = self.request(|request| fb::SchedulerMessageT::Query(Box::new(fb::QueryT { request, ..query })));
        match answer {
            Message::Rare(fb::SchedulerMessageT::Page(page)) => Ok(*page),
            Message::Rare(fb::SchedulerMessageT::Nack(nack)) => Err(nack.code),
            other => panic!("{other:?}"),
        }
    }

    pub fn task(&mut self, task: TaskId) -> fb::TaskSummaryT {
        let query = fb::QueryT { kind: fb::QueryKind::Task, task_id: Some(task.to_string()), ..fb::QueryT::default() };
        self.query(query).unwrap().tasks.unwrap().remove(0)
    }

    pub fn job(&mut self, job: u64) -> fb::JobSummaryT {
        let query = fb::QueryT { kind: fb::QueryKind::Job, job, ..fb::QueryT::default() };
        self.query(query).unwrap().jobs.unwrap().remove(0)
    }

    /// pending, assigned, running, completed, failed, cancelled
    pub fn counts(&mut self, job: u64) -> [u32; 6] {
        let counts = self.job(job).counts.unwrap();
        [counts.pending, counts.assigned, counts.running, counts.completed, counts.failed, counts.cancelled]
    }
}

pub struct AgentHand<'t> {
    t: &'t mut T,
    name: String,
}

impl AgentHand<'_> {
    pub fn model(&mut self) -> &mut AgentModel {
        self.t.agents.get_mut(&self.name).unwrap()
    }

    pub fn session(&mut self) -> SessionId {
        self.model().session.expect("connected")
    }

    pub fn capacity(mut self, capacity: Resources) -> Self {
        self.model().capacity = capacity;
        self
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.model().labels.push((key.into(), value.into()));
        self
    }

    pub fn kind(mut self, kind: fb::AgentType) -> Self {
        self.model().kinds.push(kind);
        self
    }

    pub fn backlog(mut self, backlog: u32) -> Self {
        self.model().backlog = backlog;
        self
    }

    /// Attempts that were asked back since the last look.
    pub fn recalled(&mut self) -> Vec<AttemptId> {
        let recalled = |message| match message {
            Message::Recall(attempt) => Some(attempt),
            _ => None,
        };
        self.inbox().into_iter().filter_map(recalled).collect()
    }

    /// Gives an attempt back that it has not started.
    pub fn releases(self, attempt: AttemptId) -> Self {
        let end = End { reason: fb::EndReason::Released, ..End::default() };
        self.ends(attempt, fb::TaskStatus::Cancelled, end)
    }

    pub fn connect(mut self) -> Self {
        let name = self.name.clone();
        let session = self.t.connect(fb::Role::Agent, &name);
        self.model().session = Some(session);
        self
    }

    /// Connects if it must, and registers with everything that it holds.
    pub fn register(mut self) -> Self {
        if self.model().session.is_none() {
            self = self.connect();
        }
        let model = self.model().clone();
        let report = |(attempt, (resources, status)): (&AttemptId, &(Resources, fb::TaskStatus))| fb::AttemptReportT {
            task_id: Some(attempt.task.to_string()),
            attempt: attempt.attempt,
            status: *status,
            resources: Some(Box::new(resources.to_wire())),
            waits: model.waits.contains(attempt),
            progress: model.progress,
        };
        let register = fb::RegisterT {
            capacity: Some(Box::new(model.capacity.to_wire())),
            labels: Some(fleetwire_common::job::key_values(&model.labels)),
            agent_types: Some(model.kinds.clone()),
            executors: Some(vec![fb::Executor::Process, fb::Executor::Noop]),
            data_id: Some(model.data_id.to_vec()),
            attempts: Some(model.holds.iter().map(report).collect()),
            software: Some("t".into()),
            host: Some(self.name.clone()),
            backlog: model.backlog,
        };
        self.send(Message::Rare(fb::SchedulerMessageT::Register(Box::new(register))))
    }

    pub fn send(mut self, message: Message) -> Self {
        let session = self.session();
        self.t.send(session, message);
        self
    }

    pub fn lose(mut self) -> Self {
        let session = self.session();
        self.t.disconnect(session);
        self
    }

    pub fn inbox(&mut self) -> Vec<Message> {
        let session = self.session();
        self.t.inbox(session)
    }

    pub fn holds(&mut self) -> BTreeSet<AttemptId> {
        self.model().holds.keys().copied().collect()
    }

    /// Assignments that came since the last look.
    pub fn assigned(&mut self) -> Vec<AttemptId> {
        let assigned = |message| match message {
            Message::Assignment(assignment) => Some(assignment.attempt),
            _ => None,
        };
        self.inbox().into_iter().filter_map(assigned).collect()
    }

    /// What the latest `Registered` since the last look says of that attempt.
    pub fn verdict(&mut self, attempt: AttemptId) -> fb::AttemptVerdict {
        let registered = self.inbox().into_iter().rev().find_map(|message| match message {
            Message::Rare(fb::SchedulerMessageT::Registered(registered)) => Some(registered),
            _ => None,
        });
        let answers = registered.expect("a Registered").answers.unwrap();
        let of = |answer: &&fb::AttemptAnswerT| {
            answer.task_id == Some(attempt.task.to_string()) && answer.attempt == attempt.attempt
        };
        answers.iter().find(of).expect("an answer").verdict
    }

    /// The code of the only Nack that came since the last look.
    pub fn nacked(&mut self) -> fb::ErrorCode {
        let nacks: Vec<_> = self
            .inbox()
            .into_iter()
            .filter_map(|message| match message {
                Message::Rare(fb::SchedulerMessageT::Nack(nack)) => Some(nack.code),
                _ => None,
            })
            .collect();
        assert_eq!(nacks.len(), 1, "{nacks:?}");
        nacks[0]
    }

    pub fn cancelled(&mut self) -> Vec<(AttemptId, fb::EndReason)> {
        let cancelled = |message| match message {
            Message::Cancellation(attempt, reason) => Some((attempt, reason)),
            _ => None,
        };
        self.inbox().into_iter().filter_map(cancelled).collect()
    }

    pub fn accepts(self, attempt: AttemptId) -> Self {
        self.send(Message::Acceptance(attempt))
    }

    pub fn rejects(mut self, attempt: AttemptId) -> Self {
        self.model().drop_hold(attempt);
        self.send(Message::Rare(fb::SchedulerMessageT::TaskRejection(Box::new(fb::TaskRejectionT {
            task_id: Some(attempt.task.to_string()),
            attempt: attempt.attempt,
            code: fb::ErrorCode::DoesNotFit,
            message: Some("no".into()),
        }))))
    }

    pub fn reports(mut self, attempt: AttemptId, status: fb::TaskStatus, progress: f32) -> Self {
        if let Some(held) = self.model().holds.get_mut(&attempt) {
            held.1 = status;
        }
        self.send(Message::Status(Status {
            attempt,
            status,
            progress,
            note: String::new(),
            metrics: Vec::new(),
            end: None,
        }))
    }

    pub fn runs(self, attempt: AttemptId) -> Self {
        self.reports(attempt, fb::TaskStatus::Running, 0.0)
    }

    pub fn ends(mut self, attempt: AttemptId, status: fb::TaskStatus, end: End) -> Self {
        self.model().drop_hold(attempt);
        self.send(Message::Status(Status {
            attempt,
            status,
            progress: 1.0,
            note: String::new(),
            metrics: vec![("loss".into(), 0.5)],
            end: Some(Box::new(end)),
        }))
    }

    pub fn completes(self, attempt: AttemptId) -> Self {
        self.ends(attempt, fb::TaskStatus::Completed, End::default())
    }

    pub fn fails(self, attempt: AttemptId) -> Self {
        self.ends(attempt, fb::TaskStatus::Failed, End { exit_code: 1, ..End::default() })
    }

    /// Whether a final status of that attempt was acknowledged since the last look.
    pub fn acked(&mut self, attempt: AttemptId) -> bool {
        self.inbox().iter().any(|message| matches!(message, Message::Ack(Ack::Final(id)) if *id == attempt))
    }
}
