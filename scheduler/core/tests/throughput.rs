//! How much the core decides in a second, without network and disk. Not a test: run it with
//! `cargo test --release -p fleetwire-scheduler-core --test throughput -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use fleetwire_common::{
    envelope::{Features, handshake::HelloInfo, keys::RootKeys, keys::Secret},
    fb,
    ids::*,
    job::{JobSpec, TaskSpec},
    message::{Message, MessageRef, MetricNames, Status, StatusRef},
    resources::Resources,
    time::Time,
};
use fleetwire_scheduler_core::{Config, Effect, Effects, Event, Origin, Policy, Scheduler};
use std::time::{Duration, Instant};

struct Driver {
    scheduler: Scheduler,
    effects: Effects,
    now: Time,
    builder: flatbuffers::FlatBufferBuilder<'static>,
    names: MetricNames,
    facts: Vec<Vec<u8>>,
    spent: Duration,
    events: u64,
}

impl Driver {
    fn handle(&mut self, event: Event<'_>) -> Vec<Effect> {
        self.now = self.now + Duration::from_micros(10);
        let start = Instant::now();
        self.scheduler.handle(self.now, event, &mut self.effects);
        self.spent += start.elapsed();
        self.events += 1;
        self.drain()
    }

    fn drain(&mut self) -> Vec<Effect> {
        self.facts.extend(self.effects.facts.iter().map(<[u8]>::to_vec));
        self.effects.facts.clear();
        let prompt: Vec<_> = self.effects.drain_prompt().collect();
        prompt.into_iter().chain(self.effects.drain().map(|(_, effect)| effect)).collect()
    }

    fn connect(&mut self, session: u64, role: fb::Role) {
        let principal = Principal { role, name: Name::new(&format!("p{session}")).unwrap() };
        let hello = HelloInfo {
            features: Features::ALL,
            boot_id: [0; 16],
            process_start_id: [0; 16],
            receipt: None,
            software: String::new(),
        };
        self.handle(Event::Connected { session: SessionId(session), principal, hello });
    }

    fn register(&mut self, session: u64, capacity: Resources) -> Vec<Effect> {
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

    fn submit(&mut self, spec: TaskSpec, number: u8) -> Vec<Effect> {
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

    fn complete(&mut self, session: SessionId, attempt: AttemptId) -> Vec<Effect> {
        let mut builder = std::mem::take(&mut self.builder);
        builder.reset();
        let task_id = Some(fleetwire_common::message::write_task_id(&mut builder, attempt.task));
        let args = fb::StatusUpdateArgs {
            task_id,
            status: fb::TaskStatus::Completed,
            attempt: attempt.attempt,
            ..Default::default()
        };
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

fn run(agents: u64, slots: u32, classes: u32, tasks: u32) {
    let config = Config {
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
    };
    let mut driver = Driver {
        scheduler: Scheduler::new(config.clone()),
        effects: Effects::new(),
        now: Time::from_ms(1_700_000_000_000),
        builder: flatbuffers::FlatBufferBuilder::new(),
        names: MetricNames::default(),
        facts: Vec::new(),
        spent: Duration::ZERO,
        events: 0,
    };
    driver.scheduler.start(driver.now, &mut driver.effects);
    driver.connect(0, fb::Role::Operator);
    let mut waiting = std::collections::VecDeque::new();
    let mut effects = Vec::new();
    for class in 0..classes {
        let spec = TaskSpec {
            count: tasks / classes,
            executor: fb::Executor::Process,
            command: "x".into(),
            resources: Resources { cpu: 100 + class, memory: 10, ..Resources::ZERO },
            ..TaskSpec::default()
        };
        effects.extend(driver.submit(spec, class as u8));
    }
    for session in 1..=agents {
        effects.extend(driver.register(session, Resources { cpu: slots * 100, memory: 1_000_000, gpu: 0, storage: 0 }));
    }
    (driver.spent, driver.events) = (Duration::ZERO, 0);
    let mut done = 0u64;
    loop {
        for effect in effects.drain(..) {
            if let Effect::Send { session, message: Message::Assignment(assignment) } = effect {
                waiting.push_back((session, assignment.attempt));
            }
        }
        let Some((session, attempt)) = waiting.pop_front() else { break };
        done += 1;
        effects = driver.complete(session, attempt);
    }
    let per_s = done as f64 / driver.spent.as_secs_f64();
    println!(
        "{agents} agents × {slots} slots, {classes} classes: {done} tasks ended and placed, {per_s:.0}/s, {:.2} µs each",
        1e6 / per_s
    );
    assert!(done >= u64::from(tasks / classes * classes), "{done}");
    let start = Instant::now();
    let mut replayed = Scheduler::new(config);
    for fact in &driver.facts {
        replayed.replay(fact).unwrap();
    }
    println!("  replay: {:.0} facts/s", driver.facts.len() as f64 / start.elapsed().as_secs_f64());
    assert_eq!(replayed.state(), driver.scheduler.state());
    let _ = std::mem::size_of::<Status>();
}

#[test]
#[ignore = "a measurement"]
fn tasks_per_second() {
    run(3, 64, 1, 300_000);
    run(1_000, 16, 1, 300_000);
    run(1_000, 16, 100, 300_000);
    run(10_000, 4, 1, 300_000);
    run(10_000, 4, 200, 300_000);
}
