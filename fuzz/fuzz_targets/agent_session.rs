//! Sessions of the agent's core with a scheduler that says whatever it likes, in whatever order: assignments of any
//! number and size, again and again, cancels, acknowledgements and verdicts about what nobody knows, messages that belong
//! elsewhere. Its executor is honest; the agent dies and starts again on its journal.
//!
//! What holds: nothing panics; what runs together fits the device; no attempt runs twice at a time; what the agent says can be
//! sealed, and opens; its bounds hold; the facts lead to the same state.
#![no_main]

use fleetwire_agent_core::{Agent, Config, Effect, Effects, Event, Fact, Recovered, RunEvent, State};
use fleetwire_common::{
    envelope::{
        CONTROL_STREAM, Features, Opener, Sealer,
        handshake::{Proof, WelcomeInfo},
        keys::{Direction, MacKey, Secret, plain_key},
    },
    fb,
    ids::{AttemptId, JobId, JobKey, Name, Position, TaskId},
    job::TaskSpec,
    limits::STALE_AFTER_MS,
    message::{Ack, Assignment, End, Message},
    resources::Resources,
    time::Time,
};
use libfuzzer_sys::{
    arbitrary::{self, Arbitrary, Unstructured},
    fuzz_target,
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

#[derive(Arbitrary, Debug)]
enum Step {
    Connect { incarnation: u8 },
    Disconnect,
    Say(Said),
    SayMore(Said),
    Started(u8),
    Report { which: u8, progress: u8 },
    Ended { which: u8, failed: bool, result: u8 },
    Pass(u16),
    Usage(u8),
    Crash { rebooted: bool },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Id {
    job: u8,
    index: u8,
    attempt: u8,
    key: u8,
}

#[derive(Arbitrary, Debug)]
enum Said {
    Registered { answers: Vec<(Id, u8)>, interval: u16, every: u8 },
    Assign { id: Id, cpu: u8, noop: bool, position: u8, deadline: bool, stop_after: u8 },
    AssignMore { id: Id, cpu: u8 },
    Cancel(Id, u8),
    Recall(Id),
    Final(Id),
    Echo(bool),
    Nack { code: u8, id: Id },
    Log { id: Id, limit: u16 },
    Wrong(u8),
}

const STEPS_MAX: usize = 100;
const CAPACITY: Resources = Resources { cpu: 1_000, memory: 1_000, gpu: 0, storage: 10 };
const CLUSTER_MS: u64 = 1_800_000_000_000;

struct World {
    agent: Agent,
    now: Time,
    effects: Effects,
    journal: Vec<Vec<u8>>,
    shadow: State,
    processes: BTreeMap<AttemptId, Resources>,
    staged: VecDeque<(AttemptId, Resources)>,
    scheduler: Sealer,
    ours: Opener,
    us: Sealer,
    theirs: Opener,
    connected: bool,
    /// Since a crash, until the executor has said what it found.
    recovering: bool,
    /// When the last heartbeat was sent.
    beat_ms: u64,
}

fn config() -> Config {
    Config {
        name: Name::new("pi").expect("a name"),
        capacity: CAPACITY,
        custom: Default::default(),
        labels: Vec::new(),
        agent_types: vec![fb::AgentType::Trainer],
        executors: vec![fb::Executor::Process, fb::Executor::Noop],
        data_id: [1; 16],
            address: String::new(),
        software: String::new(),
        host: String::new(),
        heartbeat_interval: Duration::from_secs(30),
    }
}

fn key(direction: Direction) -> MacKey {
    plain_key(&Secret::new([5; 32]), direction)
}

impl World {
    fn new() -> World {
        let mut world = World {
            agent: Agent::new(config()),
            now: Time(1_000_000),
            effects: Effects::new(),
            journal: Vec::new(),
            shadow: State::default(),
            processes: BTreeMap::new(),
            staged: VecDeque::new(),
            scheduler: Sealer::new(key(Direction::FromScheduler), 1, Features::ALL),
            ours: Opener::new(key(Direction::FromScheduler), 1),
            us: Sealer::new(key(Direction::ToScheduler), 1, Features::ALL),
            theirs: Opener::new(key(Direction::ToScheduler), 1),
            connected: false,
            recovering: false,
            beat_ms: 0,
        };
        world.agent.start(world.now, &mut world.effects);
        world.settle();
        world.handle(Event::Surveyed { rebooted: false });
        world
    }

    fn cluster_ms(&self) -> u64 {
        CLUSTER_MS + self.now.as_ms()
    }

    fn handle(&mut self, event: Event<'_>) {
        self.agent.handle(self.now, event, &mut self.effects);
        self.settle();
    }

    /// Everything is durable at once; the executor does what it is told.
    fn settle(&mut self) {
        loop {
            for bytes in self.effects.facts.iter() {
                let (at, fact) = Fact::decode(bytes).expect("what was encoded");
                self.shadow.apply(at, &fact).expect("facts follow from each other");
                self.journal.push(bytes.to_vec());
            }
            self.effects.facts.clear();
            let effects: Vec<_> = self.effects.drain().collect();
            assert!(effects.len() < 1_000, "one step has so many effects");
            if effects.is_empty() {
                break;
            }
            for (_, effect) in effects {
                self.take(effect);
            }
        }
        let sum = self.processes.values().fold(Resources::ZERO, |sum, needs| sum.plus(*needs));
        assert!(self.recovering || sum.fits(CAPACITY), "what runs together takes {sum:?}");
    }

    fn take(&mut self, effect: Effect) {
        match effect {
            Effect::Send(message) => self.sent(message),
            Effect::Spawn { attempt, assignment, .. } => self.run(attempt, assignment.resources),
            Effect::Stage { attempt, assignment } => self.staged.push_back((attempt, assignment.resources)),
            Effect::StartStaged => {
                if let Some((attempt, resources)) = self.staged.pop_front() {
                    self.run(attempt, resources);
                    self.agent.handle(self.now, Event::Run(RunEvent::StagedStarted { attempt }), &mut self.effects);
                }
            }
            Effect::Unstage { attempt } => {
                if let Some(place) = self.staged.iter().position(|(staged, _)| *staged == attempt) {
                    self.staged.remove(place);
                    let end = End { reason: fb::EndReason::Released, ..End::default() };
                    let status = fb::TaskStatus::Cancelled;
                    let event = RunEvent::Ended { attempt, status, end, next: None };
                    self.agent.handle(self.now, Event::Run(event), &mut self.effects);
                }
            }
            Effect::Close { .. } => self.connected = false,
            Effect::Cancel { .. } | Effect::ReadLog { .. } | Effect::Settled { .. } => {}
        }
    }

    fn run(&mut self, attempt: AttemptId, resources: Resources) {
        assert!(self.processes.insert(attempt, resources).is_none(), "{attempt} runs twice");
    }

    /// What the agent says can be sealed, and opens.
    fn sent(&mut self, message: Message) {
        let now_ms = self.cluster_ms();
        if matches!(message, Message::Heartbeat(_)) {
            self.beat_ms = now_ms;
        }
        let mut frame = Vec::new();
        if self.us.seal(now_ms, &[message], &mut frame) == 1 {
            let opened = self.theirs.open(&frame, CONTROL_STREAM, now_ms, STALE_AFTER_MS).expect("what an agent says");
            assert!(opened.refused().is_empty());
        }
    }

    fn say(&mut self, said: &Said) {
        if !self.connected {
            return;
        }
        let (message, now_ms) = (self.message(said), self.cluster_ms());
        let mut frame = Vec::new();
        assert_eq!(self.scheduler.seal(now_ms, &[message], &mut frame), 1);
        let Ok(opened) = self.ours.open(&frame, CONTROL_STREAM, now_ms, STALE_AFTER_MS) else { return };
        for (_, message) in opened.messages() {
            let event = Event::Received { message, timestamp_ms: now_ms };
            self.agent.handle(self.now, event, &mut self.effects);
        }
        self.settle();
    }

    fn message(&self, said: &Said) -> Message {
        let text = |id: &Id| Some(attempt(*id).task.to_string());
        let rare = match said {
            Said::Registered { answers, interval, every } => {
                let answer = |(id, verdict): &(Id, u8)| fb::AttemptAnswerT {
                    task_id: text(id),
                    attempt: attempt(*id).attempt,
                    verdict: fb::AttemptVerdict(verdict % 4),
                };
                fb::SchedulerMessageT::Registered(Box::new(fb::RegisteredT {
                    answers: Some(answers.iter().take(8).map(answer).collect()),
                    heartbeat_interval_ms: u32::from(*interval),
                    answer_every: (*every).into(),
                }))
            }
            Said::Assign { id, cpu, noop, position, deadline, stop_after } => {
                let executor = if *noop { fb::Executor::Noop } else { fb::Executor::Process };
                let deadline_ms = if *deadline { self.cluster_ms() + 1 } else { 0 };
                let stop_ms = u64::from(*stop_after) * 100;
                return assignment(*id, *cpu, executor, *position, deadline_ms, stop_ms);
            }
            Said::AssignMore { id, cpu } => return assignment(*id, *cpu, fb::Executor::Process, 1, 0, 0),
            Said::Cancel(id, reason) => return Message::Cancellation(attempt(*id), fb::EndReason(*reason % 18)),
            Said::Recall(id) => return Message::Recall(attempt(*id)),
            Said::Final(id) => return Message::Ack(Ack::Final(attempt(*id))),
            Said::Echo(right) => return Message::Ack(Ack::Heartbeat(if *right { self.beat_ms } else { 1 })),
            Said::Nack { code, id } => fb::SchedulerMessageT::Nack(Box::new(fb::NackT {
                code: fb::ErrorCode(u16::from(*code % 40)),
                task_id: text(id),
                attempt: attempt(*id).attempt,
                ..Default::default()
            })),
            Said::Log { id, limit } => fb::SchedulerMessageT::LogRequest(Box::new(fb::LogRequestT {
                request: 1,
                task_id: text(id),
                attempt: attempt(*id).attempt,
                limit: (*limit).into(),
                job_key: u64::from(id.key % 3),
                ..Default::default()
            })),
            Said::Wrong(kind) => match kind % 5 {
                0 => fb::SchedulerMessageT::Hello(Box::default()),
                1 => fb::SchedulerMessageT::Register(Box::default()),
                2 => fb::SchedulerMessageT::StatusUpdate(Box::default()),
                3 => fb::SchedulerMessageT::SubmitJob(Box::default()),
                _ => fb::SchedulerMessageT::Page(Box::default()),
            },
        };
        Message::Rare(rare)
    }

    fn connect(&mut self, incarnation: u8) {
        if self.connected {
            self.handle(Event::Disconnected);
        }
        self.connected = true;
        let receipt = fb::Receipt::new(incarnation.into(), 1, &[7; 16]);
        let welcome = WelcomeInfo {
            features: Features::ALL,
            cluster_time: Time::from_ms(self.cluster_ms()),
            incarnation: incarnation.into(),
            receipt: Some(Proof { receipt, incarnation_id: [9; 16] }),
            cluster: "c".into(),
            software: String::new(),
        };
        self.handle(Event::Connected { welcome });
    }

    fn pick(&self, which: u8) -> Option<AttemptId> {
        self.processes.keys().nth(usize::from(which) % self.processes.len().max(1)).copied()
    }

    fn end(&mut self, attempt: AttemptId, failed: bool, result: u8) {
        self.processes.remove(&attempt);
        // The executor starts the next in its room, if the agent staged one.
        let next = self.staged.pop_front();
        if let Some((staged, resources)) = next {
            self.run(staged, resources);
        }
        let status = if failed { fb::TaskStatus::Failed } else { fb::TaskStatus::Completed };
        let end = End { result: Some(vec![3; result.into()]), exit_code: failed.into(), ..End::default() };
        let next = next.map(|(staged, _)| staged);
        self.handle(Event::Run(RunEvent::Ended { attempt, status, end, next }));
    }

    fn pass(&mut self, ms: u16) {
        let until = self.now + Duration::from_millis(u64::from(ms) * 4);
        for _ in 0..100_000 {
            let Some(due) = self.agent.next_deadline().filter(|due| *due <= until) else { break };
            self.now = self.now.max(due);
            self.handle(Event::Deadline);
        }
        assert!(self.agent.next_deadline().is_none_or(|due| due > until), "time stands still");
        self.now = until;
    }

    fn crash(&mut self, rebooted: bool) {
        self.check();
        let mut agent = Agent::new(config());
        for (fact, position) in self.journal.iter().zip(1..) {
            agent.replay(Position(position), fact).expect("it was decided");
        }
        (self.agent, self.effects, self.connected, self.recovering) = (agent, Effects::new(), false, true);
        self.staged.clear();
        if rebooted {
            self.processes.clear();
        }
        self.agent.start(self.now, &mut self.effects);
        self.settle();
        for attempt in self.processes.keys().copied().collect::<Vec<_>>() {
            self.handle(Event::Recovered { attempt, state: Recovered::Running });
        }
        self.handle(Event::Surveyed { rebooted });
        self.recovering = false;
    }

    fn check(&self) {
        assert!(self.shadow == *self.agent.state(), "the facts lead to another state");
    }
}

fn attempt(id: Id) -> AttemptId {
    let task = TaskId { job: JobId(u64::from(id.job % 2) + 1), entry: 0, index: u32::from(id.index % 6) };
    AttemptId { task, attempt: u32::from(id.attempt % 3) + 1 }
}

fn assignment(id: Id, cpu: u8, executor: fb::Executor, position: u8, deadline_ms: u64, stop_ms: u64) -> Message {
    let spec = TaskSpec {
        executor,
        command: "x".into(),
        resources: Resources { cpu: u32::from(cpu) * 5, memory: 10, ..Resources::ZERO },
        ..TaskSpec::default()
    };
    Message::Assignment(Assignment {
        attempt: attempt(id),
        spec: Arc::new(spec),
        receipt: fb::Receipt::new(1, position.into(), &[7; 16]),
        deadline_ms,
        stop_on_disconnect_after_ms: stop_ms,
        job_key: JobKey(u64::from(id.key % 3)),
    })
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Unstructured::new(bytes);
    let mut world = World::new();
    if input.arbitrary().is_ok_and(|online: bool| online) {
        world.connect(1);
        world.say(&Said::Registered { answers: Vec::new(), interval: 30_000, every: 4 });
    }
    for _ in 0..STEPS_MAX {
        // Beyond its end an input is all zeros.
        if input.is_empty() {
            break;
        }
        let Ok(step) = Step::arbitrary(&mut input) else { break };
        match &step {
            Step::Connect { incarnation } => world.connect(*incarnation),
            Step::Disconnect if world.connected => {
                world.connected = false;
                world.handle(Event::Disconnected);
            }
            Step::Disconnect => {}
            Step::Say(said) | Step::SayMore(said) => world.say(said),
            Step::Started(which) => {
                if let Some(attempt) = world.pick(*which) {
                    let at_ms = world.cluster_ms();
                    world.handle(Event::Run(RunEvent::Started { attempt, at_ms }));
                }
            }
            Step::Report { which, progress } => {
                if let Some(attempt) = world.pick(*which) {
                    let (progress, metrics) = (f32::from(*progress) / 200.0, [("m".to_owned(), f64::NAN), ("n".to_owned(), 1.0)]);
                    let event = RunEvent::Report { attempt, progress: Some(progress), note: "n", metrics: &metrics };
                    world.handle(Event::Run(event));
                }
            }
            Step::Ended { which, failed, result } => {
                if let Some(attempt) = world.pick(*which) {
                    world.end(attempt, *failed, *result);
                }
            }
            Step::Pass(ms) => world.pass(*ms),
            Step::Usage(cpu) => world.handle(Event::Usage(Resources { cpu: (*cpu).into(), ..Resources::ZERO })),
            Step::Crash { rebooted } => world.crash(*rebooted),
        }
    }
    world.check();
});
