//! How much the core decides in a second, without network and disk. Not a test: run it with
//! `cargo test --release -p fleetwire-scheduler-core --test throughput -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

mod driver;

use driver::{Driver, config};
use fleetwire_common::{fb, job::TaskSpec, message::Message, resources::Resources};
use fleetwire_scheduler_core::{Effect, Scheduler};
use std::time::{Duration, Instant};

fn run(agents: u64, slots: u32, classes: u32, tasks: u32) {
    let config = config();
    let mut driver = Driver::new(config.clone());
    driver.facts = Some(Vec::new());
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
    driver.spent = Duration::ZERO;
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
    let facts = driver.facts.unwrap();
    for fact in &facts {
        replayed.replay(fact).unwrap();
    }
    println!("  replay: {:.0} facts/s", facts.len() as f64 / start.elapsed().as_secs_f64());
    assert_eq!(replayed.state(), driver.scheduler.state());
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
