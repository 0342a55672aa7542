//! What a task costs in memory, all of the core: counted by the allocator itself.
#![allow(clippy::unwrap_used)]

mod driver;

use driver::{Driver, config};
use fleetwire_common::{fb, job::TaskSpec, message::Message, resources::Resources};
use fleetwire_scheduler_core::Effect;
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

struct Counting;

thread_local! {
    /// Bytes of this thread: tests run beside each other.
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

fn count(bytes: i64) {
    let _ = BYTES.try_with(|count| count.set(count.get() + bytes));
}

#[expect(unsafe_code, reason = "an allocator is an unsafe trait")]
// SAFETY: every call goes to the system's allocator unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn bytes_of(work: impl FnOnce()) -> f64 {
    let before = BYTES.get();
    work();
    (BYTES.get() - before) as f64
}

fn array(count: u32, cpu: u32) -> TaskSpec {
    TaskSpec {
        count,
        array: true,
        executor: fb::Executor::Process,
        command: "x".into(),
        resources: Resources { cpu, ..Resources::ZERO },
        timeout_s: 600,
        ..TaskSpec::default()
    }
}

/// Bytes for each task that runs, where each of so many agents has so many of them; and, once as many have ended, for
/// each that has.
fn running(agents: u64, each: u32) -> (f64, f64) {
    let mut driver = Driver::new(config());
    let mut sent = Vec::new();
    for session in 1..=agents {
        driver.register(session, Resources { cpu: each * 100, memory: 1_000, gpu: 0, storage: 0 });
    }
    let tasks = agents as u32 * each;
    let running = bytes_of(|| {
        let mut effects = driver.submit(array(2 * tasks, 100), 1);
        loop {
            let assignments = effects.drain(..).filter_map(|effect| match effect {
                Effect::Send { session, message: Message::Assignment(assignment) } => {
                    Some((session, assignment.attempt))
                }
                _ => None,
            });
            sent.extend(assignments);
            match sent.len() < tasks as usize {
                true => effects = driver.deadline(),
                false => break,
            }
        }
        for (session, attempt) in &sent {
            driver.run(*session, *attempt);
        }
        sent.shrink_to_fit();
    });
    let held = std::mem::size_of_val(sent.as_slice()) as f64;
    let ended = bytes_of(|| sent.iter().for_each(|(session, attempt)| drop(driver.complete(*session, *attempt))));
    ((running - held) / f64::from(tasks), ended / f64::from(tasks))
}

#[test]
fn a_pending_task_of_an_array_takes_next_to_nothing() {
    let mut driver = Driver::new(config());
    let bytes = bytes_of(|| drop(driver.submit(array(1_000_000, 100), 1))) / 1e6;
    println!("{bytes:.3} bytes for each pending task");
    assert!(bytes < 1.0, "{bytes} bytes");
}

#[test]
fn a_running_task_takes_less_than_500_bytes() {
    for (agents, each) in [(500, 40), (2_000, 10), (5_000, 1)] {
        let (bytes, ended) = running(agents, each);
        println!("{agents} agents, {each} each: {bytes:.0} bytes for each running task, {ended:.0} for each ended one");
        // The first on an agent makes its tables.
        assert!(bytes < 500.0 || each == 1, "{bytes} bytes");
    }
}
