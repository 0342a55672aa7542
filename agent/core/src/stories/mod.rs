//! Stories on virtual time: one real core, messages that were sealed and opened, a journal of bytes that
//! loses what was not synced, and a shadow state that is compared after every event.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod keys;
mod restarts;
mod results;
mod runs;
mod sessions;
mod waiting;

use crate::*;
use fleetwire_common::{
    custom::Custom,
    envelope::{
        CONTROL_STREAM, Features, Opener, Sealer,
        handshake::{Proof, WelcomeInfo},
        keys::{Direction, Secret, plain_key},
    },
    facts::FactIter,
    ids::{JobId, JobKey, TaskId},
    job::TaskSpec,
    message::{Ack, Assignment, End, Heartbeat, Message, Status},
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// A core with a world around it.
pub(crate) struct Story {
    pub agent: Agent,
    pub now: Time,
    config: Config,
    effects: Effects,
    /// Durable facts, and those that a crash would lose.
    journal: Vec<u8>,
    unsynced: Vec<u8>,
    durable: Position,
    outbox: VecDeque<(Position, Effect)>,
    shadow: State,
    sealer: Sealer,
    opener: Opener,
    /// Syncs that had something to do.
    pub syncs: usize,
    /// Whether every event is followed by a sync.
    pub syncing: bool,
    /// What was released and not yet looked at.
    pub sent: Vec<Message>,
    pub done: Vec<Effect>,
    /// Attempts that would have a process.
    pub processes: BTreeMap<AttemptId, Resources>,
    /// Attempts that the executor would start when another ends.
    pub staged: VecDeque<(AttemptId, Resources)>,
    /// After a restart, what never started counts as if it ran until the executor has said what does.
    recovering: bool,
    /// Which job the assignments are of.
    pub job_key: JobKey,
}

pub(crate) fn id(index: u32, attempt: u32) -> AttemptId {
    AttemptId { task: TaskId { job: JobId(1), entry: 0, index }, attempt }
}

pub(crate) fn config() -> Config {
    Config {
        name: Name::new("pi").unwrap(),
        capacity: Resources { cpu: 2_000, memory: 1_000, gpu: 0, storage: 10 },
        custom: Custom::new([("fpga", 2)]).unwrap(),
        labels: vec![("zone".into(), "a".into())],
        agent_types: vec![fb::AgentType::Trainer],
        executors: vec![fb::Executor::Process, fb::Executor::Noop],
        data_id: [1; 16],
        address: String::new(),
        software: "test".into(),
        host: "host".into(),
        heartbeat_interval: Duration::from_secs(30),
    }
}

pub(crate) fn process(cpu: u32) -> TaskSpec {
    TaskSpec { command: "work".into(), resources: Resources { cpu, ..Resources::ZERO }, ..TaskSpec::default() }
}

pub(crate) fn noop() -> TaskSpec {
    TaskSpec { executor: fb::Executor::Noop, ..TaskSpec::default() }
}

pub(crate) fn proof(position: u64) -> Proof {
    Proof { receipt: receipt(position), incarnation_id: [9; 16] }
}

pub(crate) fn receipt(position: u64) -> fb::Receipt {
    fb::Receipt::new(1, position, &[7; 16])
}

impl Story {
    pub fn new() -> Story {
        Story::with(config())
    }

    pub fn with(config: Config) -> Story {
        let key = || plain_key(&Secret::new([5; 32]), Direction::FromScheduler);
        let mut story = Story {
            agent: Agent::new(config.clone()),
            now: Time(1_000_000),
            config,
            effects: Effects::new(),
            journal: Vec::new(),
            unsynced: Vec::new(),
            durable: Position(0),
            outbox: VecDeque::new(),
            shadow: State::default(),
            sealer: Sealer::new(key(), 1, Features::ALL),
            opener: Opener::new(key(), 1),
            syncs: 0,
            syncing: true,
            sent: Vec::new(),
            done: Vec::new(),
            processes: BTreeMap::new(),
            staged: VecDeque::new(),
            recovering: false,
            job_key: JobKey::default(),
        };
        story.start();
        story
    }

    fn start(&mut self) {
        self.agent = Agent::new(Config { data_id: [self.now.0 as u8; 16], ..self.config.clone() });
        for fact in FactIter::over(&self.journal) {
            let position = Position(self.agent.position().0 + 1);
            self.agent.replay(position, fact).unwrap();
        }
        self.durable = self.agent.position();
        self.shadow = self.agent.state().clone();
        let mut effects = std::mem::take(&mut self.effects);
        self.agent.start(self.now, &mut effects);
        self.effects = effects;
        self.settle();
    }

    /// The process dies; what was not synced is lost. Processes of attempts go on.
    pub fn crash(&mut self) {
        self.unsynced.clear();
        self.outbox.clear();
        self.effects = Effects::new();
        self.sent.clear();
        self.staged.clear();
        self.recovering = true;
        self.now = Time(5_000_000); // The device restarted: its clock too.
        self.start();
    }

    /// The executor has told all that it found.
    pub fn surveyed(&mut self, rebooted: bool) {
        self.handle(Event::Surveyed { rebooted });
        self.recovering = false;
    }

    pub fn handle(&mut self, event: Event<'_>) {
        let mut effects = std::mem::take(&mut self.effects);
        self.agent.handle(self.now, event, &mut effects);
        self.effects = effects;
        self.settle();
    }

    /// The invariants, the journal, and the outbox.
    fn settle(&mut self) {
        for fact in self.effects.facts.iter() {
            let (at, fact) = Fact::decode(fact).unwrap();
            self.shadow.apply(at, &fact).unwrap();
        }
        assert_eq!(&self.shadow, self.agent.state(), "the replay is the live state");
        if !self.recovering {
            let used = self.processes.values().fold(Resources::ZERO, |sum, needs| sum.plus(*needs));
            assert!(used.fits(self.config.capacity), "never more than the capacity");
        }
        self.unsynced.extend_from_slice(self.effects.facts.bytes());
        self.effects.facts.clear();
        self.outbox.extend(self.effects.drain());
        self.syncs += usize::from(self.syncing && !self.unsynced.is_empty());
        if self.syncing {
            self.sync();
        }
    }

    /// Bytes of all facts that are durable.
    pub fn written(&self) -> usize {
        self.journal.len()
    }

    /// A crash, and instead of the journal a snapshot of it.
    pub fn crash_with_snapshot(&mut self) {
        let mut snapshot = fleetwire_common::facts::FactBatch::default();
        let push = &mut |fact: &[u8]| -> Result<(), ()> {
            snapshot.push(fact);
            Ok(())
        };
        self.agent.state().write_snapshot(push).unwrap();
        self.journal = snapshot.bytes().to_vec();
        self.crash();
    }

    pub fn sync(&mut self) {
        self.journal.append(&mut self.unsynced);
        self.durable = self.agent.position();
        let mut started = Vec::new();
        while let Some((_, effect)) = self.outbox.pop_front_if(|(position, _)| *position <= self.durable) {
            match effect {
                Effect::StartStaged => started.extend(self.staged.pop_front()),
                Effect::Send(message) => self.sent.push(message),
                Effect::Spawn { attempt, ref assignment, .. } => {
                    let doubled = self.processes.insert(attempt, assignment.resources);
                    assert!(doubled.is_none(), "{attempt} was started twice");
                    self.done.push(effect);
                }
                Effect::Stage { attempt, ref assignment } => {
                    self.staged.push_back((attempt, assignment.resources));
                    self.done.push(effect);
                }
                effect => self.done.push(effect),
            }
        }
        for (attempt, resources) in started {
            self.processes.insert(attempt, resources);
            self.handle(Event::Run(RunEvent::StagedStarted { attempt }));
        }
        let sum = self.processes.values().fold(Resources::ZERO, |sum, one| sum.plus(*one));
        assert!(sum.fits(self.config.capacity), "what runs fits");
    }

    pub fn cluster_ms(&self) -> u64 {
        1_800_000_000_000 + self.now.as_ms()
    }

    pub fn connect(&mut self) {
        let welcome = WelcomeInfo {
            features: Features::ALL,
            cluster_time: Time::from_ms(self.cluster_ms()),
            incarnation: 1,
            receipt: Some(proof(1)),
            cluster: "c".into(),
            software: "test".into(),
        };
        self.handle(Event::Connected { welcome });
    }

    /// Connects and registers, with these verdicts.
    pub fn online(&mut self, answers: &[(AttemptId, fb::AttemptVerdict)]) {
        self.connect();
        self.registered(answers);
    }

    pub fn registered(&mut self, answers: &[(AttemptId, fb::AttemptVerdict)]) {
        let answer = |(id, verdict): &(AttemptId, fb::AttemptVerdict)| fb::AttemptAnswerT {
            task_id: Some(id.task.to_string()),
            attempt: id.attempt,
            verdict: *verdict,
        };
        let registered = fb::RegisteredT {
            answers: Some(answers.iter().map(answer).collect()),
            heartbeat_interval_ms: 30_000,
            answer_every: 4,
        };
        self.receive(Message::Rare(fb::SchedulerMessageT::Registered(Box::new(registered))));
    }

    /// A message of the scheduler, sealed and opened.
    pub fn receive(&mut self, message: Message) {
        let mut frame = Vec::new();
        let ms = self.cluster_ms();
        assert_eq!(self.sealer.seal(ms, &[message], &mut frame), 1);
        let mut effects = std::mem::take(&mut self.effects);
        let opened = self.opener.open(&frame, CONTROL_STREAM, ms, 5_000).unwrap();
        for (_, message) in opened.messages() {
            self.agent.handle(self.now, Event::Received { message, timestamp_ms: ms }, &mut effects);
        }
        self.effects = effects;
        self.settle();
    }

    pub fn assign(&mut self, attempt: AttemptId, spec: TaskSpec) {
        self.assign_until(attempt, spec, 0);
    }

    pub fn assign_until(&mut self, attempt: AttemptId, spec: TaskSpec, deadline_ms: u64) {
        let receipt = receipt(100 + u64::from(attempt.task.index));
        self.receive(Message::Assignment(Assignment {
            attempt,
            spec: Arc::new(spec),
            receipt,
            deadline_ms,
            stop_on_disconnect_after_ms: 0,
            job_key: self.job_key,
        }));
    }

    pub fn recall(&mut self, attempt: AttemptId) {
        self.receive(Message::Recall(attempt));
    }

    pub fn cancel(&mut self, attempt: AttemptId) {
        self.receive(Message::Cancellation(attempt, fb::EndReason::Cancelled));
    }

    pub fn ack(&mut self, attempt: AttemptId) {
        self.receive(Message::Ack(Ack::Final(attempt)));
    }

    pub fn nack(&mut self, attempt: AttemptId, code: fb::ErrorCode) {
        let nack =
            fb::NackT { code, task_id: Some(attempt.task.to_string()), attempt: attempt.attempt, ..Default::default() };
        self.receive(Message::Rare(fb::SchedulerMessageT::Nack(Box::new(nack))));
    }

    pub fn started(&mut self, attempt: AttemptId) {
        let at_ms = self.cluster_ms();
        self.handle(Event::Run(RunEvent::Started { attempt, at_ms }));
    }

    pub fn report(&mut self, attempt: AttemptId, progress: f32, metrics: &[(String, f64)]) {
        self.handle(Event::Run(RunEvent::Report { attempt, progress: Some(progress), note: "", metrics }));
    }

    pub fn exit(&mut self, attempt: AttemptId, exit_code: i32) {
        let status = if exit_code == 0 { fb::TaskStatus::Completed } else { fb::TaskStatus::Failed };
        self.end(attempt, status, End { exit_code, ..End::default() });
    }

    /// An attempt ends, and the executor starts a staged one in its room.
    pub fn end(&mut self, attempt: AttemptId, status: fb::TaskStatus, end: End) {
        let mut next = None;
        if self.processes.remove(&attempt).is_some()
            && let Some((staged, resources)) = self.staged.pop_front()
        {
            self.processes.insert(staged, resources);
            next = Some(staged);
        }
        self.handle(Event::Run(RunEvent::Ended { attempt, status, end, next }));
    }

    /// The executor takes a staged attempt back, unless it has started it.
    pub fn unstage(&mut self, attempt: AttemptId) {
        let Some(place) = self.staged.iter().position(|(staged, _)| *staged == attempt) else { return };
        self.staged.remove(place);
        self.end(attempt, fb::TaskStatus::Cancelled, End { reason: fb::EndReason::Released, ..End::default() });
    }

    /// Lets time pass, firing what is due.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.agent.next_deadline().filter(|at| *at <= until) {
            assert!(at >= self.now, "a deadline in the past was not handled");
            self.now = at;
            self.handle(Event::Deadline);
        }
        self.now = until;
    }

    /// Takes what was sent, as short texts.
    pub fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.sent).iter().map(brief).collect()
    }

    /// Takes what else was done, as short texts.
    pub fn did(&mut self) -> Vec<String> {
        let brief = |effect: Effect| match effect {
            Effect::Spawn { attempt, .. } => format!("spawn {attempt}"),
            Effect::Stage { attempt, .. } => format!("stage {attempt}"),
            Effect::StartStaged => "start staged".to_owned(),
            Effect::Unstage { attempt } => format!("unstage {attempt}"),
            Effect::Cancel { attempt, grace } => format!("cancel {attempt} {grace:?}"),
            Effect::ReadLog { attempt, offset, limit, .. } => format!("log {attempt} {offset} {limit}"),
            Effect::Settled { attempt } => format!("settled {attempt}"),
            Effect::Close { reason } => format!("close: {reason}"),
            Effect::Send(_) => unreachable!("kept apart"),
        };
        std::mem::take(&mut self.done).into_iter().map(brief).collect()
    }
}

fn brief(message: &Message) -> String {
    match message {
        Message::Status(status) => brief_status(status),
        Message::Heartbeat(Heartbeat { running, answer, .. }) => format!("heartbeat {running} {answer}"),
        Message::Acceptance(id) => format!("accept {id}"),
        Message::Rare(fb::SchedulerMessageT::Register(register)) => {
            let brief = |report: &fb::AttemptReportT| {
                format!(" {}#{}={:?}", report.task_id.as_deref().unwrap(), report.attempt, report.status)
            };
            format!("register{}", register.attempts.iter().flatten().map(brief).collect::<String>())
        }
        Message::Rare(fb::SchedulerMessageT::TaskRejection(no)) => {
            format!("reject {}#{} {:?}", no.task_id.as_deref().unwrap_or("-"), no.attempt, no.code)
        }
        Message::Rare(fb::SchedulerMessageT::Nack(nack)) => format!("nack {:?}", nack.code),
        Message::Rare(other) => format!("{:?}", other.scheduler_message_type()),
        other => format!("{:?}", other.kind()),
    }
}

fn brief_status(status: &Status) -> String {
    let percent = (status.progress * 100.0).round();
    match &status.end {
        Some(end) => format!("{:?} {} {:?} {}", status.status, status.attempt, end.reason, end.exit_code),
        None => format!("{:?} {} {percent}%", status.status, status.attempt),
    }
}
