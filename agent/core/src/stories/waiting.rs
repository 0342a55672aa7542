//! The backlog: what does not fit waits without holding anything, starts in order, and can be taken back.

use super::{restarts::found_running, *};

fn busy() -> Story {
    let mut t = Story::new();
    t.online(&[]);
    t.assign(id(0, 1), process(1_000));
    t.assign(id(1, 1), process(1_000));
    t.said();
    t.did();
    t
}

#[test]
fn what_waits_holds_nothing_and_starts_in_order() {
    let mut t = busy();
    // Other needs than those of what runs: nothing can be staged.
    t.assign(id(2, 1), process(700));
    t.assign(id(3, 1), process(900));
    t.assign(id(4, 1), process(100));
    assert_eq!(t.said(), ["accept 1.0.2#1", "accept 1.0.3#1", "accept 1.0.4#1"]);
    assert!(t.did().is_empty());
    assert_eq!((t.agent.live().used().cpu, t.agent.live().running(), t.agent.live().waiting()), (2_000, 2, 3));
    t.exit(id(0, 1), 0);
    assert_eq!(t.did(), ["spawn 1.0.2#1"], "the third would fit as well, and does not overtake");
    t.exit(id(1, 1), 0);
    assert_eq!(t.did(), ["spawn 1.0.3#1", "spawn 1.0.4#1"]);
    assert_eq!((t.agent.live().used().cpu, t.agent.live().waiting()), (1_700, 0));
}

#[test]
fn what_asks_for_the_same_as_all_that_runs_is_staged() {
    let mut t = busy();
    for index in 2..40 {
        t.assign(id(index, 1), process(1_000));
    }
    let did = t.did();
    assert_eq!(did.len(), 16, "eight for each that runs");
    assert_eq!(did.first().map(String::as_str), Some("stage 1.0.2#1"));
    t.exit(id(0, 1), 0);
    assert_eq!(t.did(), ["stage 1.0.18#1"], "1.0.2 runs by now, and another moves up");
    assert_eq!((t.agent.live().used().cpu, t.agent.live().running()), (2_000, 2));
    // To the end: each once, never more than two at a time.
    let mut order = Vec::new();
    while let Some(attempt) = t.processes.keys().next().copied() {
        order.push(attempt.task.index);
        t.exit(attempt, 0);
    }
    order.sort_unstable();
    assert_eq!(order, (1..40).collect::<Vec<_>>());
    assert_eq!((t.agent.live().used(), t.agent.live().running(), t.agent.live().waiting()), (Resources::ZERO, 0, 0));
}

#[test]
fn a_backlog_is_bounded_in_number_and_bytes() {
    let mut t = busy();
    for index in 2..132 {
        t.assign(id(index, 1), process(1_500));
    }
    let said = t.said();
    assert_eq!(said.iter().filter(|said| said.starts_with("accept")).count(), 128);
    assert_eq!(said.last().map(String::as_str), Some("reject 1.0.131#1 Busy"));
    let mut t = busy();
    let file = fleetwire_common::job::FileSpec { path: "f".into(), data: vec![0; 64 << 10], executable: false };
    for index in 2..18 {
        t.assign(id(index, 1), TaskSpec { files: vec![file.clone()], ..process(1_500) });
    }
    assert_eq!(t.said().last().map(String::as_str), Some("reject 1.0.17#1 Busy"), "a mebibyte is full");
}

#[test]
fn what_could_never_fit_is_rejected_and_does_not_wait() {
    let mut t = busy();
    t.assign(id(2, 1), process(2_001));
    assert_eq!(t.said(), ["reject 1.0.2#1 DoesNotFit"]);
}

// §session-7
#[test]
fn what_waits_is_given_back_when_it_is_recalled_and_what_runs_is_not() {
    let mut t = busy();
    t.assign(id(2, 1), process(700));
    t.assign(id(3, 1), process(1_000));
    t.said();
    t.recall(id(0, 1));
    t.recall(id(9, 1));
    assert!(t.said().is_empty() && t.did().is_empty());
    t.recall(id(2, 1));
    assert_eq!(t.said(), ["Cancelled 1.0.2#1 Released 0"]);
    assert_eq!(t.did(), ["stage 1.0.3#1"], "it is next by now");
    t.recall(id(3, 1));
    assert_eq!(t.did(), ["unstage 1.0.3#1"]);
    t.unstage(id(3, 1));
    assert_eq!(t.said(), ["Cancelled 1.0.3#1 Released 0"]);
    assert_eq!((t.agent.live().used().cpu, t.agent.live().running(), t.agent.live().waiting()), (2_000, 2, 0));
    t.assign(id(3, 1), process(1_000));
    assert_eq!(t.said(), ["Cancelled 1.0.3#1 Released 0"], "what was given back is never started");
    assert!(t.did().is_empty());
}

#[test]
fn what_waits_is_cancelled_at_once() {
    let mut t = busy();
    t.assign(id(2, 1), process(700));
    t.said();
    t.receive(Message::Cancellation(id(2, 1), fb::EndReason::Rival));
    assert_eq!(t.said(), ["Cancelled 1.0.2#1 Rival 0"]);
    assert!(t.did().is_empty());
    t.exit(id(0, 1), 0);
    assert!(t.did().is_empty());
}

#[test]
fn a_register_says_what_waits() {
    let mut t = busy();
    t.assign(id(2, 1), process(700));
    t.handle(Event::Disconnected);
    t.sent.clear();
    t.online(&[]);
    let Some(Message::Rare(fb::SchedulerMessageT::Register(register))) = t.sent.first() else { panic!("it registers") };
    assert_eq!(register.backlog, 128);
    let waits: Vec<bool> = register.attempts.iter().flatten().map(|report| report.waits).collect();
    assert_eq!(waits, [false, false, true]);
}

#[test]
fn noop_tasks_wait_for_room_as_any_other() {
    let mut t = busy();
    for index in 2..5 {
        t.assign(id(index, 1), TaskSpec { resources: Resources { cpu: 1_000, ..Resources::ZERO }, ..noop() });
    }
    assert!(t.said().is_empty());
    t.exit(id(0, 1), 0);
    let ended = |index| format!("Completed 1.0.{index}#1 Exited 0");
    assert_eq!(t.said(), [ended(0), ended(2), ended(3), ended(4)]);
}

#[test]
fn what_ended_before_the_executor_knew_what_is_staged_leaves_its_room_to_it() {
    let mut t = busy();
    t.syncing = false;
    for index in 2..6 {
        t.assign(id(index, 1), process(1_000));
    }
    assert!(t.staged.is_empty(), "nothing is staged before it is durable");
    t.exit(id(0, 1), 0);
    t.exit(id(1, 1), 0);
    assert_eq!((t.agent.live().running(), t.agent.live().waiting()), (0, 4));
    t.syncing = true;
    t.sync();
    assert_eq!((t.agent.live().running(), t.agent.live().waiting()), (2, 2));
    assert_eq!(t.processes.keys().map(|attempt| attempt.task.index).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn what_is_staged_by_an_end_waits_for_the_next() {
    let mut t = Story::new();
    t.online(&[]);
    t.assign(id(0, 1), process(700));
    t.assign(id(1, 1), process(1_000));
    t.assign(id(2, 1), process(1_000));
    t.assign(id(3, 1), process(1_000));
    t.did();
    t.exit(id(0, 1), 0);
    assert_eq!(t.did(), ["spawn 1.0.2#1", "stage 1.0.3#1"]);
    assert_eq!(t.agent.live().used().cpu, 2_000);
}

fn fpga(count: u64) -> TaskSpec {
    TaskSpec { custom: Custom::new([("fpga", count)]).unwrap(), ..process(100) }
}

#[test]
fn what_needs_more_of_a_custom_resource_than_is_free_waits() {
    let mut t = Story::new();
    t.online(&[]);
    t.assign(id(0, 1), fpga(2));
    t.assign(id(1, 1), fpga(1));
    assert_eq!(t.did(), ["spawn 1.0.0#1"]);
    t.crash_with_snapshot();
    found_running(&mut t, id(0, 1));
    t.surveyed(false);
    assert!(t.did().is_empty(), "after a restart as before");
    t.exit(id(0, 1), 0);
    assert_eq!(t.did(), ["spawn 1.0.1#1"]);
    // As much as there is, and one more.
    t.online(&[]);
    t.said();
    t.assign(id(2, 1), fpga(3));
    assert_eq!(t.said(), ["reject 1.0.2#1 DoesNotFit"]);
}
