//! The core with a shell that carries nothing anywhere: for measurements.
#![allow(dead_code, clippy::unwrap_used, clippy::disallowed_methods)]

use fleetwire_common::{
    envelope::{Features, handshake::HelloInfo, keys::RootKeys, keys::Secret},
    fb,
    ids::*,
    job::{JobSpec, TaskSpec},
    message::{MessageRef, MetricNames, StatusRef},
    resources::Resources,
    time::Time,
};
use fleetwire_scheduler_core::{Config, Effect, Effects, Event, Origin, Policy, Scheduler};
use std::time::{Duration, Instant};

/// A scheduler, and a shell that does nothing.
pub struct Driver {
    pub scheduler: Scheduler,
    effects: Effects,
    now: Time,
    builder: flatbuffers::FlatBufferBuilder<'static>,
    names: MetricNames,
    /// Those decided so far, if they are kept.
    pub facts: Option<Vec<Vec<u8>>>,
    /// In the core.
    pub spent: Duration,
}

impl Driver {
    /// One that was just started.
    pub fn new(config: Config) -> Driver {
        let mut driver = Driver {
            scheduler: Scheduler::new(config),
            effects: Effects::new(),
            now: Time::from_ms(1_700_000_000_000),
            builder: flatbuffers::FlatBufferBuilder::new(),
            names: MetricNames::default(),
            facts: None,
            spent: Duration::ZERO,
        };
        driver.scheduler.start(driver.now, &mut driver.effects);
        driver.connect(0, fb::Role::Operator);
        driver
    }

    fn handle(&mut self, event: Event<'_>) -> Vec<Effect> {
        self.now = self.now + Duration::from_micros(10);
        let start = Instant::now();
        self.scheduler.handle(self.now, event, &mut self.effects);
        self.spent += start.elapsed();
        self.drain()
    }

    fn drain(&mut self) -> Vec<Effect> {
        if let Some(facts) = &mut self.facts {
            facts.extend(self.effects.facts.iter().map(<[u8]>::to_vec));
        }
        self.effects.facts.clear();
        let prompt: Vec<_> = self.effects.drain_prompt().collect();
        prompt.into_iter().chain(self.effects.drain().map(|(_, effect)| effect)).collect()
    }

    pub fn connect(&mut self, session: u64, role: fb::Role) {
        let principal = Principal { role, name: Name::new(&format!("p{session}")).unwrap() };
        let hello = HelloInfo {
            features: Features::ALL,
            boot_id: [0; 16],
            process_start_id: [0; 16],
            receipt: None,
            software: String::new(),
        };
        self.handle(Event::Connected { session: SessionId(session), principal, hello, address: "::1" });
    }

    pub fn register(&mut self, session: u64, capacity: Resources) -> Vec<Effect> {
        self.connect(session, fb::Role::Agent);
        let register = fb::RegisterT {
            capacity: Some(Box::new(capacity.to_wire())),
            data_id: Some(vec![1; 16]),
            ..fb::RegisterT::default()
        };
        let mut builder = flatbuffers::FlatBufferBuilder::new();
        let root = register.pack(&mut builder);
        builder.finish(root, None);
        let message = MessageRef::Register(flatbuffers::root::<fb::Register<'_>>(builder.finished_data()).unwrap());
        self.handle(Event::Received { session: SessionId(session), from: Origin::default(), message })
    }

    pub fn submit(&mut self, spec: TaskSpec, number: u8) -> Vec<Effect> {
        let job = JobSpec::new(Name::new("j").unwrap(), vec![spec], 300).unwrap();
        let submit = fb::SubmitJobT {
            request: 1,
            submit_id: Some(SubmitId::new(self.now.as_ms(), [number; 10]).0.to_vec()),
            job: Some(job.to_wire()),
        };
        let mut builder = flatbuffers::FlatBufferBuilder::new();
        let root = submit.pack(&mut builder);
        builder.finish(root, None);
        let message = MessageRef::SubmitJob(flatbuffers::root::<fb::SubmitJob<'_>>(builder.finished_data()).unwrap());
        self.handle(Event::Received { session: SessionId(0), from: Origin::default(), message })
    }

    /// What is due now.
    pub fn deadline(&mut self) -> Vec<Effect> {
        self.handle(Event::Deadline)
    }

    /// An attempt ends well.
    pub fn complete(&mut self, session: SessionId, attempt: AttemptId) -> Vec<Effect> {
        self.update(session, attempt, fb::TaskStatus::Completed)
    }

    /// An attempt's process runs.
    pub fn run(&mut self, session: SessionId, attempt: AttemptId) {
        self.update(session, attempt, fb::TaskStatus::Running);
    }

    fn update(&mut self, session: SessionId, attempt: AttemptId, status: fb::TaskStatus) -> Vec<Effect> {
        let mut builder = std::mem::take(&mut self.builder);
        builder.reset();
        let task_id = Some(fleetwire_common::message::write_task_id(&mut builder, attempt.task));
        let args = fb::StatusUpdateArgs { task_id, status, attempt: attempt.attempt, ..Default::default() };
        let root = fb::StatusUpdate::create(&mut builder, &args);
        builder.finish(root, None);
        let names = std::mem::take(&mut self.names);
        let update = flatbuffers::root::<fb::StatusUpdate<'_>>(builder.finished_data()).unwrap();
        let message = MessageRef::StatusUpdate(StatusRef { update, names: &names });
        let effects = self.handle(Event::Received { session, from: Origin::default(), message });
        self.builder = builder;
        effects
    }
}

/// How a scheduler is started for a measurement.
pub fn config() -> Config {
    Config {
        cluster: "c".into(),
        keys: RootKeys::new(Secret::new([1; 32])),
        authority_sha256: [2; 32],
        addresses: vec![],
        incarnation_id: [3; 16],
        seed: 7,
        heartbeat_interval: Duration::from_secs(30),
        software: "test".into(),
        accept_restore: false,
        policy: Policy::default(),
    }
}
