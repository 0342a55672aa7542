//! Runs: taken on once and only if they fit, reported, stopped, recovered.

use super::*;

#[test]
fn a_task_runs_from_assignment_to_acknowledgement() {
    let mut t = Story::new();
    t.online(&[]);
    t.said();
    let a = id(0, 1);
    t.assign(a, process(500));
    assert_eq!((t.said(), t.did()), (vec!["accept 1.0.0#1".into()], vec!["spawn 1.0.0#1".into()]));
    t.started(a);
    t.pass(Duration::from_secs(1));
    t.report(a, 0.5, &[("loss".into(), 0.25)]);
    t.pass(Duration::from_secs(1));
    t.exit(a, 0);
    assert_eq!(t.said(), ["Running 1.0.0#1 0%", "Running 1.0.0#1 50%", "Completed 1.0.0#1 Exited 0"]);
    assert_eq!(t.agent.live().used(), Resources::ZERO);
    t.ack(a);
    assert!(t.agent.state().attempts().is_empty());
    assert_eq!(t.did(), ["settled 1.0.0#1"]);
    t.ack(a);
    assert!(t.said().is_empty() && t.did().is_empty());
}

#[test]
fn nothing_is_accepted_or_started_before_it_is_durable() {
    let mut t = Story::new();
    t.online(&[]);
    t.said();
    t.syncing = false;
    t.assign(id(0, 1), process(500));
    t.assign(id(1, 1), noop());
    assert!(t.said().is_empty() && t.did().is_empty());
    t.crash();
    assert!(t.agent.state().attempts().is_empty(), "it was never promised");
    t.syncing = true;
    t.online(&[]);
    t.assign(id(0, 1), process(500));
    assert_eq!(t.did(), ["spawn 1.0.0#1"]);
}

#[test]
fn the_same_assignment_again_starts_nothing() {
    let mut t = Story::new();
    t.online(&[]);
    t.said();
    let a = id(0, 1);
    t.assign(a, process(500));
    t.assign(a, process(500));
    assert_eq!(t.said(), ["accept 1.0.0#1", "accept 1.0.0#1"]);
    assert_eq!(t.did(), ["spawn 1.0.0#1"]);
    t.exit(a, 3);
    t.assign(a, process(500));
    assert_eq!(t.said(), ["Failed 1.0.0#1 Exited 3", "Failed 1.0.0#1 Exited 3"]);
}

#[test]
fn what_cannot_run_here_is_rejected_with_its_reason() {
    let mut t = Story::with(Config { executors: vec![fb::Executor::Process], ..config() });
    t.online(&[]);
    t.said();
    t.assign(id(0, 1), process(2_001));
    t.assign(id(1, 1), noop());
    t.assign(id(2, 1), TaskSpec { agent_type: Some(fb::AgentType::Rater), ..process(1) });
    t.assign_until(id(3, 1), process(1), t.cluster_ms() - 1);
    t.assign(id(4, 1), TaskSpec { command: String::new(), ..process(1) });
    t.assign(id(5, 2), process(1));
    t.assign(id(5, 1), process(1));
    assert_eq!(
        t.said(),
        [
            "reject 1.0.0#1 DoesNotFit",
            "reject 1.0.1#1 Validation",
            "reject 1.0.2#1 Validation",
            "reject 1.0.3#1 MessageTimeout",
            "reject 1.0.4#1 Validation",
            "accept 1.0.5#2",
            "reject 1.0.5#1 AttemptEnded",
        ]
    );
    assert_eq!(t.did(), ["spawn 1.0.5#2"]);
    let wrong = fb::TaskAssignmentT { task_id: Some("x".into()), attempt: 1, ..Default::default() };
    t.receive(Message::Rare(fb::SchedulerMessageT::TaskAssignment(Box::new(wrong))));
    assert_eq!(t.said(), ["reject x#1 Validation"]);
}

#[test]
fn more_than_fits_never_runs_whatever_the_scheduler_believes() {
    let mut t = Story::new();
    t.online(&[]);
    t.said();
    for index in 0..5 {
        t.assign(id(index, 1), process(900));
    }
    assert_eq!(t.processes.len(), 2);
    t.cancel(id(0, 1));
    t.assign(id(5, 1), process(900));
    assert_eq!(t.processes.len(), 2, "cancelled is not gone");
    t.end(id(0, 1), fb::TaskStatus::Cancelled, End { reason: fb::EndReason::Cancelled, ..End::default() });
    t.assign(id(6, 1), process(900));
    assert_eq!(t.processes.len(), 2);
    assert!(t.said().contains(&"accept 1.0.6#1".to_owned()));
}

#[test]
fn reports_are_coalesced_and_the_latest_wins() {
    let mut t = Story::new();
    t.online(&[]);
    let a = id(0, 1);
    t.assign(a, process(100));
    t.started(a);
    t.said();
    for step in 1..=100 {
        t.pass(Duration::from_millis(10));
        t.report(a, step as f32 / 100.0, &[("step".into(), f64::from(step))]);
    }
    t.pass(Duration::from_secs(1));
    assert_eq!(t.said(), ["Running 1.0.0#1 49%", "Running 1.0.0#1 99%", "Running 1.0.0#1 100%"]);
}

#[test]
fn numbers_that_are_none_are_refused_and_the_note_says_so() {
    let mut t = Story::new();
    t.online(&[]);
    let a = id(0, 1);
    t.assign(a, process(100));
    t.started(a);
    t.report(a, 0.5, &[("good".into(), 1.0)]);
    for (progress, metrics) in [
        (f32::NAN, vec![]),
        (1.5, vec![]),
        (0.5, vec![("bad".to_owned(), f64::INFINITY)]),
        (0.5, vec![("x".repeat(65), 1.0)]),
        (0.5, (0..100).map(|n| (format!("m{n}"), 1.0)).collect()),
    ] {
        t.pass(Duration::from_secs(1));
        t.said();
        t.report(a, progress, &metrics);
        let Some(Message::Status(status)) = t.sent.last() else { panic!("it is reported") };
        assert!(status.note.contains("refused"), "{}", status.note);
        assert_eq!(status.progress, 0.5);
        assert!(status.metrics.len() <= 64 && status.metrics.iter().all(|(_, value)| value.is_finite()));
    }
    let long = "é".repeat(2_000);
    t.handle(Event::Run(RunEvent::Report { attempt: a, progress: None, note: &long, metrics: &[] }));
    t.pass(Duration::from_secs(1));
    let Some(Message::Status(status)) = t.sent.last() else { panic!("it is reported") };
    assert_eq!(status.note.len(), 512);
}

#[test]
fn a_cancel_is_done_once_and_its_reason_comes_back() {
    let mut t = Story::new();
    t.online(&[]);
    let a = id(0, 1);
    t.assign(a, TaskSpec { kill_grace_ms: 700, ..process(100) });
    t.did();
    t.receive(Message::Cancellation(a, fb::EndReason::Rival));
    t.cancel(a);
    assert_eq!(t.did(), ["cancel 1.0.0#1 700ms"]);
    t.said();
    t.end(a, fb::TaskStatus::Cancelled, End { reason: fb::EndReason::Cancelled, ..End::default() });
    t.cancel(a);
    assert_eq!(t.said(), ["Cancelled 1.0.0#1 Rival 0", "Cancelled 1.0.0#1 Rival 0"]);
}

#[test]
fn cancelling_what_is_not_here_is_answered_so_that_it_can_be_released() {
    let mut t = Story::new();
    t.online(&[]);
    t.said();
    t.cancel(id(9, 4));
    assert_eq!(t.said(), ["Cancelled 1.0.9#4 Cancelled 0"]);
    t.ack(id(9, 4));
    t.nack(id(9, 4), fb::ErrorCode::AttemptEnded);
    assert!(t.said().is_empty() && t.did().is_empty());
}

#[test]
fn what_was_cancelled_before_it_arrived_is_not_started() {
    let mut story = Story::new();
    story.online(&[]);
    story.said();
    story.cancel(id(0, 1));
    assert_eq!(story.said(), ["Cancelled 1.0.0#1 Cancelled 0"]);
    story.cancel(id(1, 1));
    story.said();
    // The assignment was large, and its pieces came later than the cancellation.
    for _ in 0..2 {
        story.assign(id(0, 1), process(100));
        assert_eq!(story.said(), ["reject 1.0.0#1 AttemptEnded"]);
    }
    story.nack(id(0, 1), fb::ErrorCode::AttemptEnded);
    assert!(story.said().is_empty() && story.did().is_empty() && story.agent.state().attempts().is_empty());
    // Another attempt of the task is another matter, and so is another session.
    story.assign(id(0, 2), process(100));
    assert_eq!(story.did(), ["spawn 1.0.0#2"]);
    story.handle(Event::Disconnected);
    story.online(&[]);
    story.assign(id(1, 1), process(100));
    assert_eq!(story.did(), ["spawn 1.0.1#1"]);
}

#[test]
fn the_registers_verdicts_are_obeyed() {
    let mut t = Story::new();
    t.online(&[]);
    for index in 0..3 {
        t.assign(id(index, 1), process(100));
        t.started(id(index, 1));
    }
    t.handle(Event::Disconnected);
    t.report(id(0, 1), 0.75, &[]);
    t.said();
    t.did();
    t.online(&[
        (id(0, 1), fb::AttemptVerdict::Keep),
        (id(1, 1), fb::AttemptVerdict::Stop),
        (id(2, 1), fb::AttemptVerdict::Unknown),
    ]);
    assert_eq!(t.said(), ["register 1.0.0#1=Running 1.0.1#1=Running 1.0.2#1=Running"]);
    assert_eq!(t.did(), ["cancel 1.0.1#1 5s", "cancel 1.0.2#1 5s"]);
    t.pass(Duration::from_millis(1));
    assert_eq!(t.said(), ["Running 1.0.0#1 75%", "Running 1.0.1#1 0%", "Running 1.0.2#1 0%"]);
    t.end(id(2, 1), fb::TaskStatus::Cancelled, End { reason: fb::EndReason::Cancelled, ..End::default() });
    assert_eq!(t.said(), ["Cancelled 1.0.2#1 AgentForgotten 0"]);
    t.nack(id(2, 1), fb::ErrorCode::UnknownAttempt);
    assert!(t.agent.state().attempt(id(2, 1)).is_none());
}

#[test]
fn a_running_attempt_that_the_scheduler_ended_is_stopped() {
    let mut t = Story::new();
    t.online(&[]);
    t.assign(id(0, 1), process(100));
    t.started(id(0, 1));
    t.did();
    t.said();
    t.nack(id(0, 1), fb::ErrorCode::AttemptEnded);
    assert_eq!(t.did(), ["cancel 1.0.0#1 5s"]);
}

#[test]
fn a_restart_finds_out_what_became_of_everything() {
    let mut t = Story::new();
    t.online(&[]);
    for index in 0..4 {
        t.assign(id(index, 1), process(100));
    }
    t.crash();
    assert_eq!(t.agent.unresolved().count(), 4);
    assert_eq!(t.agent.live().used().cpu, 400, "accounted for from the first moment");
    t.handle(Event::Recovered { attempt: id(0, 1), state: Recovered::Running });
    let end = End { exit_code: 7, ..End::default() };
    let state = Recovered::Ended { status: fb::TaskStatus::Failed, end };
    t.handle(Event::Recovered { attempt: id(1, 1), state });
    let end = End { reason: fb::EndReason::SupervisorLost, ..End::default() };
    let state = Recovered::Ended { status: fb::TaskStatus::Lost, end };
    t.handle(Event::Recovered { attempt: id(2, 1), state });
    t.did();
    t.handle(Event::Recovered { attempt: id(8, 8), state: Recovered::Running });
    assert_eq!(t.did(), ["cancel 1.0.8#8 0ns"], "nobody knows it");
    t.handle(Event::Surveyed { rebooted: true });
    assert!(t.did().is_empty(), "what may have run does not run again");
    t.online(&[]);
    assert_eq!(
        t.said(),
        [
            "register 1.0.0#1=Running 1.0.1#1=Failed 1.0.2#1=Lost 1.0.3#1=Lost",
            "Failed 1.0.1#1 Exited 7",
            "Lost 1.0.2#1 SupervisorLost 0",
            "Lost 1.0.3#1 SupervisorLost 0",
        ]
    );
}
