//! Sessions with the scheduler's core: peers of every role shake hands, send whatever messages in whatever order, twice, out
//! of turn, stale, changed, in another's session, and go; time passes, the scheduler stands still or starts again.
//!
//! What holds: nothing panics; a frame is taken once, in its session, unchanged, in order and fresh, or not at all; what a role
//! may not send is refused; a closed session hears nothing more; attempts end once, tasks complete once, and only an
//! agent's own word completes one; what an agent was assigned fits it; everything is bounded; the facts lead to the
//! same state.
#![no_main]

use fleetwire_common::{
    envelope::{
        CONTROL_STREAM, Features, Opener, Sealer,
        handshake::{Greeted, Greeting, HelloInfo, Session, WelcomeInfo},
        keys::{Epoch, RootKeys, Secret},
    },
    fb,
    ids::{AttemptId, JobId, Name, Principal, SessionId, SubmitId, TaskId},
    job::{JobSpec, TaskSpec},
    limits::STALE_AFTER_MS,
    message::{Ack, End, Heartbeat, Message, Status},
    resources::Resources,
    roles::may_send,
    time::Time,
};
use fleetwire_scheduler_core::{
    Config, Effect, Effects, Event, Origin, Policy, Scheduler, State, bodies::complete, fact::Fact,
};
use libfuzzer_sys::{
    arbitrary::{self, Arbitrary, Unstructured},
    fuzz_target,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

#[derive(Debug)]
enum Step {
    Connect { peer: u8, tamper: Option<Handshake>, registers: bool },
    Leave(u8),
    Send { from: u8, say: Say, how: Option<How> },
    /// Several messages under one signature.
    Batch { from: u8, say: Vec<Say> },
    /// A frame that was sent before, perhaps in another session.
    Again { frame: u8, to: u8 },
    /// Up to an hour; what is due is done at its time. Agents beat meanwhile, or are silent.
    Pass { ms: u32, beating: bool },
    Stall { ms: u16 },
    DiskLow(bool),
    Restart,
}

impl<'a> Arbitrary<'a> for Step {
    /// Most of what happens is honest: else every session would end before it came far.
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Step> {
        Ok(match u8::arbitrary(input)? % 32 {
            0..=17 => Step::Send { from: input.arbitrary()?, say: input.arbitrary()?, how: None },
            18..=19 => Step::Send { from: input.arbitrary()?, say: input.arbitrary()?, how: Some(input.arbitrary()?) },
            20..=21 => Step::Batch { from: input.arbitrary()?, say: input.arbitrary()? },
            22 => Step::Again { frame: input.arbitrary()?, to: input.arbitrary()? },
            23..=24 => Step::Connect { peer: input.arbitrary()?, tamper: None, registers: true },
            25 => Step::Connect { peer: input.arbitrary()?, tamper: None, registers: false },
            26 => Step::Connect { peer: input.arbitrary()?, tamper: Some(input.arbitrary()?), registers: false },
            27 => Step::Pass { ms: u16::arbitrary(input)?.into(), beating: true },
            28 if input.arbitrary()? => Step::Pass { ms: input.arbitrary()?, beating: input.arbitrary()? },
            28 => Step::Restart,
            29 => Step::Leave(input.arbitrary()?),
            30 => Step::Stall { ms: input.arbitrary()? },
            _ => Step::DiskLow(input.arbitrary()?),
        })
    }
}

#[derive(Arbitrary, Debug, PartialEq)]
enum Handshake {
    HelloChanged(u16),
    WelcomeChanged(u16),
    AnothersKey,
}

#[derive(Arbitrary, Debug, PartialEq)]
enum How {
    Changed(u16),
    Cut(u16),
    Skipped,
    Stale,
    OtherStream,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Id {
    /// Odd: one of those that the agent was assigned.
    which: u8,
    job: u8,
    index: u8,
    attempt: u8,
}

#[derive(Arbitrary, Debug)]
enum Say {
    Register { data: bool, listed: Vec<(Id, u8, bool)> },
    Status { id: Id, status: u8, progress: u8, metrics: u8, end: Option<(u8, u8, u8)>, key: bool },
    /// One of its own has ended as it should.
    Done { which: u8, completed: bool },
    Heartbeat { running: u8, answer: bool },
    Acceptance(Id),
    Rejection(Id, u8),
    Deregister,
    LogChunk { request: u8, id: Id, data: u8, ended: bool },
    Submit { number: u8, count: u8, cpu: u8, file: u16, attempts: u8, exclusive: bool, queue_s: u8 },
    Cancel { job: u8, index: Option<u8>, agent: Option<u8> },
    Token { role: u8, uses: u8 },
    Query { kind: u8, job: u8, index: Option<u8>, agent: u8, limit: u8, version: u8, wait: u8 },
    LogRequest { request: u8, id: Id, limit: u16 },
    Ack(Id),
    Nack { code: u8, request: u8, id: Id },
    /// What only the scheduler sends, and what belongs elsewhere.
    Wrong { kind: u8, id: Id },
}

/// What follows is not looked at.
const STEPS_MAX: usize = 100;
const BEAT_MS: u32 = 60_000;
const START_MS: u64 = 1_700_000_000_000;
const PEERS: [(fb::Role, &str); 6] = [
    (fb::Role::Agent, "a"),
    (fb::Role::Agent, "b"),
    (fb::Role::Agent, "c"),
    (fb::Role::Operator, "op"),
    (fb::Role::Viewer, "eye"),
    (fb::Role::Service, "ci"),
];
const STATUSES: [fb::TaskStatus; 10] = [
    fb::TaskStatus::Completed,
    fb::TaskStatus::Running,
    fb::TaskStatus::Failed,
    fb::TaskStatus::Pending,
    fb::TaskStatus::Completed,
    fb::TaskStatus::Assigned,
    fb::TaskStatus::Cancelled,
    fb::TaskStatus::TimedOut,
    fb::TaskStatus::Lost,
    fb::TaskStatus(77),
];
const CAPACITY: Resources = Resources { cpu: 2_000, memory: 1_000, gpu: 1, storage: 10 };

struct Peer {
    place: usize,
    ours: Sealer,
    /// Not here while what it opened is handled.
    opener: Option<Opener>,
    theirs: Session,
    /// The first sequence that was not taken. One whose message was refused counts too.
    next: u64,
}

struct World {
    scheduler: Scheduler,
    config: Config,
    now: Time,
    shadow: State,
    facts: Vec<Vec<u8>>,
    effects: Effects,
    peers: BTreeMap<SessionId, Peer>,
    last_session: u64,
    frames: Vec<Vec<u8>>,
    ended: BTreeSet<AttemptId>,
    completed: BTreeSet<TaskId>,
    bodies: BTreeMap<fleetwire_common::blob::BlobRef, Vec<u8>>,
    /// Of the step under way: whom the scheduler refused something or threw out.
    refused: BTreeSet<SessionId>,
}

fn policy() -> Policy {
    Policy {
        sessions_max: 5,
        agents_max: 2,
        jobs_max: 5,
        tasks_max: 40,
        submits_max: 8,
        tokens_max: 3,
        kept_bytes_max: 16 << 10,
        ended_jobs_max: 3,
        messages_per_s: 20,
        messages_burst: 600,
        placements_per_step: 4,
        deadlines_per_step: 4,
        attempts_per_agent: 6,
        watches_max: (3, 2),
        logs_max: (3, 2),
        breaker_failures: 2,
        page_bytes: 512,
        ..Policy::default()
    }
}

impl World {
    fn new() -> World {
        let config = Config {
            cluster: "c".into(),
            keys: RootKeys::new(Secret::new([1; 32])),
            authority_sha256: [2; 32],
            addresses: Vec::new(),
            incarnation_id: [3; 16],
            seed: 7,
            heartbeat_interval: Duration::from_secs(30),
            software: String::new(),
            accept_restore: false,
            policy: policy(),
        };
        let mut world = World {
            scheduler: Scheduler::new(config.clone()),
            config,
            now: Time::from_ms(START_MS),
            shadow: State::default(),
            facts: Vec::new(),
            effects: Effects::new(),
            peers: BTreeMap::new(),
            last_session: 0,
            frames: Vec::new(),
            ended: BTreeSet::new(),
            completed: BTreeSet::new(),
            bodies: BTreeMap::new(),
            refused: BTreeSet::new(),
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.scheduler.start(self.now, &mut self.effects);
        self.settle(None);
        self.handle(Event::Disk { low: false, blob_segments_max: 2 }, None);
    }

    fn handle(&mut self, event: Event<'_>, speaker: Option<&str>) {
        self.scheduler.handle(self.now, event, &mut self.effects);
        self.settle(speaker);
    }

    /// Takes what was decided. `speaker` is the agent whose message it was.
    fn settle(&mut self, speaker: Option<&str>) {
        let mut effects = std::mem::take(&mut self.effects);
        for bytes in effects.facts.iter() {
            let (at, fact) = Fact::decode(bytes).expect("what was encoded");
            if let Fact::AttemptEnded(end) = &fact {
                assert!(self.ended.insert(end.attempt), "{} ended twice", end.attempt);
                if end.status == fb::TaskStatus::Completed {
                    assert!(self.completed.insert(end.attempt.task), "{} completed twice", end.attempt.task);
                    let holder = self.shadow.agents.iter().find(|(_, record)| record.assigned.contains(&end.attempt));
                    let holder = holder.map(|(_, record)| record.name.as_str());
                    assert_eq!(holder, speaker, "{} was completed by another's word", end.attempt);
                }
            }
            self.shadow.apply(at, &fact).expect("facts follow from each other");
            self.facts.push(bytes.to_vec());
        }
        self.bodies.extend(effects.facts.blobs().map(|(blob, bytes)| (blob, bytes.to_vec())));
        assert!(effects.count() < 1_000, "one step has so many effects");
        for effect in effects.drain_prompt().collect::<Vec<_>>() {
            self.take(effect);
        }
        for (_, effect) in effects.drain().collect::<Vec<_>>() {
            self.take(effect);
        }
        effects.facts.clear();
        self.effects = effects;
        self.check();
    }

    fn take(&mut self, effect: Effect) {
        match effect {
            Effect::Send { session, message } => self.deliver(session, message),
            Effect::Complete { session, mut message, lacks } => {
                let read = |blob: &_| self.bodies.get(blob).cloned().ok_or(());
                complete(&mut message, &lacks, read).expect("its bodies are there");
                self.deliver(session, message);
            }
            Effect::Close { session, .. } => {
                self.refused.insert(session);
                self.peers.remove(&session);
            }
            Effect::Certify { .. } | Effect::RefuseEnrolment { .. } | Effect::Token { .. } => {}
        }
    }

    /// What the scheduler says, the peer understands.
    fn deliver(&mut self, session: SessionId, message: Message) {
        if message.kind() == fb::SchedulerMessage::Nack {
            self.refused.insert(session);
        }
        let peer = self.peers.get_mut(&session).expect("a session that is closed hears nothing more");
        let mut frame = Vec::new();
        if peer.ours.seal(self.now.as_ms(), &[message], &mut frame) == 1 {
            let opened = peer.theirs.opener.open(&frame, CONTROL_STREAM, self.now.as_ms(), STALE_AFTER_MS);
            let opened = opened.expect("the scheduler sends what opens");
            assert!(opened.refused().is_empty());
        }
    }

    fn check(&mut self) {
        let (state, live, policy) = (self.scheduler.state(), self.scheduler.live(), &self.config.policy);
        assert!(live.sessions.len() <= policy.sessions_max && live.agent_sessions.len() <= live.sessions.len());
        assert!(state.agents.known_count() <= policy.agents_max && state.jobs.len() <= policy.jobs_max);
        assert!(state.task_count <= policy.tasks_max && state.submits.len() <= policy.submits_max);
        assert!(state.tokens.len() <= policy.tokens_max && live.watches.len() <= 3 && live.logs.len() <= 3);
        assert!(live.sessions.keys().eq(self.peers.keys()), "both know the same sessions");
        for (_, record) in state.agents.iter() {
            let needs = record.assigned.iter().filter_map(|attempt| state.task_spec(attempt.task));
            let sum = needs.fold(Resources::ZERO, |sum, spec| sum.plus(spec.resources));
            assert!(sum.fits(CAPACITY), "{} was assigned {sum:?}", record.name);
        }
    }

    fn connect(&mut self, place: usize, tamper: Option<&Handshake>) {
        let (role, name) = PEERS[place];
        let principal = Principal { role, name: Name::new(name).expect("a name") };
        let enrolment = self.config.keys.enrolment_key(&principal);
        let info = HelloInfo {
            features: Features::ALL,
            boot_id: [0; 16],
            process_start_id: [0; 16],
            receipt: None,
            software: String::new(),
        };
        let (mut there, mut back) = (Vec::new(), Vec::new());
        let nonce = |n: u8| [n ^ self.last_session as u8; 16];
        let greeting = Greeting::hello(&enrolment, nonce(0x55), &info, self.now.as_ms(), &mut there);
        let expected = match tamper {
            Some(Handshake::AnothersKey) => self.config.keys.enrolment_key(&Principal { role, name: Name::new("x").expect("a name") }),
            _ => enrolment,
        };
        if let Some(Handshake::HelloChanged(bit)) = tamper {
            flip(&mut there, *bit);
        }
        let greeted = Greeted::on_hello(&expected, &there);
        assert_eq!(greeted.is_ok(), matches!(tamper, None | Some(Handshake::WelcomeChanged(_))));
        let Ok(greeted) = greeted else { return };
        let hello = greeted.hello.clone();
        let welcome = WelcomeInfo {
            features: Features::ALL,
            cluster_time: self.now,
            incarnation: self.scheduler.incarnation(),
            receipt: Some(self.scheduler.proof(self.scheduler.position())),
            cluster: "c".into(),
            software: String::new(),
        };
        let epoch = Epoch { number: 3, secret: Secret::new([4; 32]) };
        let ours = greeted.welcome(&principal, &epoch, nonce(0xaa), &welcome, &mut back);
        self.last_session += 1;
        let session = SessionId(self.last_session);
        if let Some(Handshake::WelcomeChanged(bit)) = tamper {
            flip(&mut back, *bit);
            assert!(greeting.on_welcome(&back).is_err());
            return;
        }
        let (theirs, _) = greeting.on_welcome(&back).expect("an honest Welcome");
        self.peers.insert(session, Peer { place, ours: ours.sealer, opener: Some(ours.opener), theirs, next: 0 });
        self.handle(Event::Connected { session, principal, hello, address: "10.0.0.1" }, None);
    }

    fn session(&self, which: u8) -> Option<SessionId> {
        self.peers.keys().nth(usize::from(which) % self.peers.len().max(1)).copied()
    }

    fn send(&mut self, session: SessionId, say: &[Say], how: Option<&How>) {
        let place = self.peers[&session].place;
        let messages: Vec<Message> = say.iter().map(|say| self.message(place, say)).collect();
        let now_ms = self.now.as_ms();
        let peer = self.peers.get_mut(&session).expect("it is open");
        let (mut frame, mut skipped) = (Vec::new(), Vec::new());
        let sealed_at = if how == Some(&How::Stale) { now_ms - STALE_AFTER_MS - 1 } else { now_ms };
        if how == Some(&How::Skipped) {
            peer.theirs.sealer.seal(now_ms, &messages, &mut skipped);
        }
        if peer.theirs.sealer.seal(sealed_at, &messages, &mut frame) == 0 {
            return;
        }
        match how {
            Some(How::Changed(bit)) => flip(&mut frame, *bit),
            Some(How::Cut(at)) => frame.truncate(usize::from(*at) % frame.len()),
            _ => {}
        }
        let stream = if how == Some(&How::OtherStream) { 1 } else { CONTROL_STREAM };
        let taken = self.receive(session, &frame, stream);
        // Metric names that the frame defined may be beyond what a session may define.
        assert!(!taken || how.is_none(), "{how:?} was taken");
        if how.is_some() {
            self.leave(session);
        } else if taken {
            let again = self.receive(session, &frame, stream);
            assert!(!again, "a frame was taken twice");
        }
        self.frames.push(frame);
        self.frames.truncate(32);
    }

    /// As the link does: what does not open ends the session, and what opens comes to the core message by message.
    fn receive(&mut self, session: SessionId, frame: &[u8], stream: u32) -> bool {
        let Some(peer) = self.peers.get_mut(&session) else { return false };
        let now_ms = self.now.as_ms();
        let (role, name) = PEERS[peer.place];
        let mut opener = peer.opener.take().expect("one frame at a time");
        let opened = opener.open(frame, stream, now_ms, STALE_AFTER_MS);
        let taken = opened.is_ok();
        if let Ok(opened) = opened {
            assert!(opened.sequence >= peer.next, "frames are taken once, in their order");
            peer.next = opened.sequence + 1;
            for (item, message) in opened.messages() {
                let (kind, open) = (message.kind(), self.peers.contains_key(&session));
                let from = Origin { stream, sequence: opened.sequence, item, timestamp_ms: now_ms };
                self.refused.clear();
                self.handle(Event::Received { session, from, message }, (role == fb::Role::Agent).then_some(name));
                let may = may_send(role, kind) || kind == fb::SchedulerMessage::Nack;
                assert!(may || !open || self.refused.contains(&session), "{role:?} was not refused a {kind:?}");
            }
        }
        if let Some(peer) = self.peers.get_mut(&session) {
            peer.opener = Some(opener);
        }
        taken
    }

    fn leave(&mut self, session: SessionId) {
        if self.peers.remove(&session).is_some() {
            self.handle(Event::Disconnected { session }, None);
        }
    }

    fn pass_beating(&mut self, ms: u32) {
        for _ in 0..(ms % 3_600_000) / BEAT_MS {
            self.pass(BEAT_MS);
            for session in self.peers.keys().copied().collect::<Vec<_>>() {
                if self.peers.get(&session).is_some_and(|peer| PEERS[peer.place].0 == fb::Role::Agent) {
                    self.send(session, &[Say::Heartbeat { running: 1, answer: true }], None);
                }
            }
        }
        self.pass(ms % BEAT_MS);
    }

    fn pass(&mut self, ms: u32) {
        let until = self.now + Duration::from_millis(u64::from(ms % 3_600_000));
        // Whatever is armed, a step that does nothing ends.
        for _ in 0..10_000 {
            match self.scheduler.next_deadline().filter(|due| *due <= until) {
                Some(due) => self.now = self.now.max(due),
                None => break,
            }
            self.handle(Event::Deadline, None);
        }
        assert!(self.scheduler.next_deadline().is_none_or(|due| due > until), "time stands still");
        self.now = until;
    }

    fn restart(&mut self) {
        let mut scheduler = Scheduler::new(self.config.clone());
        for fact in &self.facts {
            scheduler.replay(fact).expect("it was decided");
        }
        assert!(*scheduler.state() == *self.scheduler.state(), "the facts lead to another state");
        (self.scheduler, self.effects) = (scheduler, Effects::new());
        self.peers.clear();
        self.begin();
    }

    fn attempt(&self, place: usize, id: Id) -> AttemptId {
        let name = PEERS[place].1;
        let record = self.scheduler.state().agents.iter().find(|(_, record)| record.name.as_str() == name);
        let assigned = record.map(|(_, record)| &record.assigned).filter(|assigned| !assigned.is_empty());
        match assigned {
            Some(assigned) if id.which % 2 == 1 => {
                *assigned.iter().nth(usize::from(id.which / 2) % assigned.len()).expect("below its length")
            }
            _ => AttemptId {
                task: TaskId { job: JobId(u64::from(id.job % 6)), entry: 0, index: u32::from(id.index % 9) },
                attempt: u32::from(id.attempt % 4),
            },
        }
    }

    fn message(&self, place: usize, say: &Say) -> Message {
        let at = |id: &Id| self.attempt(place, *id);
        let text = |id: &Id| Some(at(id).task.to_string());
        let rare = match say {
            Say::Done { which, completed } => {
                let id = Id { which: which | 1, job: 0, index: 0, attempt: 0 };
                let status = if *completed { 0 } else { 2 };
                return self.message(place, &Say::Status { id, status, progress: 200, metrics: 1, end: Some((0, 0, 9)), key: true });
            }
            Say::Status { id, status, progress, metrics, end, key } => {
                let end = end.map(|(reason, code, result)| {
                    let result = (result > 0).then(|| vec![7; usize::from(result) * 16]);
                    let reason = fb::EndReason(reason % (fb::EndReason::ENUM_MAX + 2));
                    Box::new(End { reason, exit_code: code.into(), result, ..End::default() })
                });
                let metrics = (0..metrics % 5).map(|n| (Arc::from(format!("m{n}")), f64::from(n))).collect();
                let job_key = self.scheduler.state().job_key(at(id).task.job);
                return Message::Status(Status {
                    attempt: at(id),
                    status: STATUSES[usize::from(*status) % STATUSES.len()],
                    progress: f32::from(*progress) / 200.0,
                    note: "n".into(),
                    metrics,
                    end,
                    job_key: if *key { job_key } else { Default::default() },
                });
            }
            Say::Heartbeat { running, answer } => {
                return Message::Heartbeat(Heartbeat { usage: CAPACITY, running: (*running).into(), answer: *answer });
            }
            Say::Acceptance(id) => return Message::Acceptance(at(id)),
            Say::Ack(id) => return Message::Ack(Ack::Final(at(id))),
            Say::Register { data, listed } => self.register(place, *data, listed),
            Say::Rejection(id, code) => fb::SchedulerMessageT::TaskRejection(Box::new(fb::TaskRejectionT {
                task_id: text(id),
                attempt: at(id).attempt,
                code: fb::ErrorCode(u16::from(*code % 40)),
                message: None,
            })),
            Say::Deregister => fb::SchedulerMessageT::Deregister(Box::default()),
            Say::LogChunk { request, id, data, ended } => fb::SchedulerMessageT::LogChunk(Box::new(fb::LogChunkT {
                request: (*request).into(),
                task_id: text(id),
                attempt: at(id).attempt,
                data: Some(vec![1; (*data).into()]),
                ended: *ended,
                ..Default::default()
            })),
            Say::Submit { .. } => submit(say, self.now),
            Say::Cancel { job, index, agent } => fb::SchedulerMessageT::CancelWork(Box::new(fb::CancelWorkT {
                request: 1,
                job: (job % 6).into(),
                task_id: index.map(|index| format!("{}.0.{}", job % 6, index % 9)),
                agent: agent.map(|agent| PEERS[usize::from(agent) % 4].1.into()),
            })),
            Say::Token { role, uses } => fb::SchedulerMessageT::CreateToken(Box::new(fb::CreateTokenT {
                request: 2,
                role: fb::Role(role % 6),
                uses: (*uses).into(),
                expires_s: 60,
            })),
            Say::Query { kind, job, index, agent, limit, version, wait } => {
                fb::SchedulerMessageT::Query(Box::new(fb::QueryT {
                    request: 3,
                    kind: fb::QueryKind(kind % 12),
                    job: (job % 6).into(),
                    task_id: index.map(|index| format!("{}.0.{}", job % 6, index % 9)),
                    agent: Some(PEERS[usize::from(*agent) % 4].1.into()),
                    cursor: 0,
                    limit: (*limit).into(),
                    version: (*version).into(),
                    wait_ms: u32::from(*wait) * 100,
                    ..Default::default()
                }))
            }
            Say::LogRequest { request, id, limit } => fb::SchedulerMessageT::LogRequest(Box::new(fb::LogRequestT {
                request: (*request).into(),
                task_id: text(id),
                attempt: at(id).attempt,
                limit: (*limit).into(),
                ..Default::default()
            })),
            Say::Nack { code, request, id } => fb::SchedulerMessageT::Nack(Box::new(fb::NackT {
                code: fb::ErrorCode(u16::from(*code % 40)),
                request: (*request).into(),
                task_id: text(id),
                attempt: at(id).attempt,
                ..Default::default()
            })),
            Say::Wrong { kind, id } => wrong(*kind, text(id), at(id).attempt),
        };
        Message::Rare(rare)
    }

    fn register(&self, place: usize, data: bool, listed: &[(Id, u8, bool)]) -> fb::SchedulerMessageT {
        let report = |(id, status, key): &(Id, u8, bool)| {
            let attempt = self.attempt(place, *id);
            let job_key = if *key { self.scheduler.state().job_key(attempt.task.job).0 } else { 0 };
            fb::AttemptReportT {
                task_id: Some(attempt.task.to_string()),
                attempt: attempt.attempt,
                status: STATUSES[usize::from(*status) % STATUSES.len()],
                resources: Some(Box::new(Resources { cpu: 100, ..Resources::ZERO }.to_wire())),
                job_key,
                ..Default::default()
            }
        };
        fb::SchedulerMessageT::Register(Box::new(fb::RegisterT {
            capacity: Some(Box::new(CAPACITY.to_wire())),
            data_id: Some(vec![u8::from(data); 16]),
            attempts: Some(listed.iter().take(8).map(report).collect()),
            ..Default::default()
        }))
    }
}

fn submit(say: &Say, now: Time) -> fb::SchedulerMessageT {
    let Say::Submit { number, count, cpu, file, attempts, exclusive, queue_s } = say else { unreachable!() };
    let file = fleetwire_common::job::FileSpec {
        path: "f".into(),
        data: vec![5; usize::from(*file % 3_000)],
        executable: false,
    };
    let task = TaskSpec {
        count: u32::from(count % 9) + 1,
        array: true,
        command: "x".into(),
        resources: Resources { cpu: u32::from(*cpu) * 20, memory: 10, ..Resources::ZERO },
        files: vec![file],
        max_attempts: u32::from(attempts % 3) + 1,
        queue_timeout_s: u64::from(*queue_s),
        timeout_s: u64::from(*queue_s),
        ..TaskSpec::default()
    };
    let terms = fleetwire_common::job::Terms {
        lost_after_s: 120,
        exclusive: *exclusive,
        stop_on_disconnect_after_ms: if *exclusive { 60_000 } else { 0 },
        ..Default::default()
    };
    let job = JobSpec::new(Name::new("j").expect("a name"), vec![task], terms).map(|job| job.to_wire());
    fb::SchedulerMessageT::SubmitJob(Box::new(fb::SubmitJobT {
        request: 4,
        submit_id: Some(SubmitId::new(now.as_ms(), [*number; 10]).0.to_vec()),
        job: Some(job.unwrap_or_else(|_| vec![*number; 20])),
    }))
}

fn wrong(kind: u8, task_id: Option<String>, attempt: u32) -> fb::SchedulerMessageT {
    match kind % 9 {
        0 => fb::SchedulerMessageT::Hello(Box::default()),
        1 => fb::SchedulerMessageT::Welcome(Box::default()),
        2 => fb::SchedulerMessageT::Registered(Box::default()),
        3 => fb::SchedulerMessageT::TaskAssignment(Box::new(fb::TaskAssignmentT { task_id, attempt, ..Default::default() })),
        4 => {
            let cancel = fb::TaskCancellationT { task_id, attempt, ..Default::default() };
            fb::SchedulerMessageT::TaskCancellation(Box::new(cancel))
        }
        5 => fb::SchedulerMessageT::JobSubmitted(Box::default()),
        6 => fb::SchedulerMessageT::Page(Box::default()),
        7 => fb::SchedulerMessageT::Enroll(Box::default()),
        _ => fb::SchedulerMessageT::TokenCreated(Box::default()),
    }
}

fn flip(bytes: &mut [u8], bit: u16) {
    let at = usize::from(bit) % (bytes.len() * 8);
    bytes[at / 8] ^= 1 << (at % 8);
}

/// Two agents and an operator, and a job under way: what most steps need to come far.
fn warm_up(world: &mut World) {
    for peer in [0, 1, 3] {
        world.connect(peer, None);
    }
    for agent in [1, 2] {
        world.send(SessionId(agent), &[Say::Register { data: true, listed: Vec::new() }], None);
    }
    let job = Say::Submit { number: 0, count: 8, cpu: 20, file: 1_500, attempts: 2, exclusive: false, queue_s: 0 };
    world.send(SessionId(3), &[job], None);
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Unstructured::new(bytes);
    let mut world = World::new();
    if input.arbitrary().is_ok_and(|warm: bool| warm) {
        warm_up(&mut world);
    }
    for _ in 0..STEPS_MAX {
        // Beyond its end an input is all zeros.
        if input.is_empty() {
            break;
        }
        let Ok(step) = Step::arbitrary(&mut input) else { break };
        match &step {
            Step::Connect { peer, tamper, registers } => {
                let place = usize::from(*peer) % PEERS.len();
                world.connect(place, tamper.as_ref());
                let session = SessionId(world.last_session);
                if *registers && PEERS[place].0 == fb::Role::Agent && world.peers.contains_key(&session) {
                    world.send(session, &[Say::Register { data: true, listed: Vec::new() }], None);
                }
            }
            Step::Leave(which) => {
                if let Some(session) = world.session(*which) {
                    world.leave(session);
                }
            }
            Step::Send { from, say, how } => {
                if let Some(session) = world.session(*from) {
                    world.send(session, std::slice::from_ref(say), how.as_ref());
                }
            }
            Step::Batch { from, say } => {
                if let Some(session) = world.session(*from) {
                    world.send(session, say.get(..say.len().min(8)).unwrap_or_default(), None);
                }
            }
            Step::Again { frame, to } => {
                let frame = world.frames.get(usize::from(*frame) % world.frames.len().max(1)).cloned();
                if let (Some(frame), Some(session)) = (frame, world.session(*to)) {
                    assert!(!world.receive(session, &frame, CONTROL_STREAM), "a frame of the past was taken");
                }
            }
            Step::Pass { ms, beating: true } => world.pass_beating(*ms),
            Step::Pass { ms, beating: false } => world.pass(*ms),
            Step::Stall { ms } => {
                let gap = Duration::from_millis((*ms).into());
                world.now = world.now + gap;
                world.handle(Event::Stalled { gap }, None);
            }
            Step::DiskLow(low) => world.handle(Event::Disk { low: *low, blob_segments_max: 2 }, None),
            Step::Restart => world.restart(),
        }
    }
    world.restart();
});
