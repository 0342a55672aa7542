//! Results: durable before they are sent, kept until they are acknowledged, offered again.

use super::*;

#[test]
fn a_result_is_sent_only_once_it_is_durable() {
    let mut t = Story::new();
    t.online(&[]);
    t.assign(id(0, 1), process(100));
    t.said();
    t.syncing = false;
    t.exit(id(0, 1), 0);
    assert!(t.said().is_empty());
    t.sync();
    assert_eq!(t.said(), ["Completed 1.0.0#1 Exited 0"]);
}

#[test]
fn noop_tasks_end_at_once_and_take_two_facts() {
    let mut t = Story::new();
    t.online(&[]);
    t.said();
    let before = t.agent.position().0;
    t.assign(id(0, 1), noop());
    assert_eq!(t.said(), ["Completed 1.0.0#1 Exited 0"]);
    assert!(t.did().is_empty());
    assert_eq!(t.agent.position().0, before + 2);
    t.ack(id(0, 1));
    assert!(t.agent.state().attempts().is_empty());
}

#[test]
fn results_survive_crashes_and_lost_sessions_until_they_are_acknowledged() {
    let mut t = Story::new();
    t.online(&[]);
    t.assign(id(0, 1), process(100));
    t.handle(Event::Disconnected);
    t.said();
    t.exit(id(0, 1), 0);
    assert!(t.said().is_empty());
    for _ in 0..3 {
        t.online(&[(id(0, 1), fb::AttemptVerdict::Keep)]);
        assert_eq!(t.said(), ["register 1.0.0#1=Completed", "Completed 1.0.0#1 Exited 0"]);
        t.handle(Event::Disconnected);
        t.online(&[(id(0, 1), fb::AttemptVerdict::Unknown)]);
        assert_eq!(t.said(), ["register 1.0.0#1=Completed", "Completed 1.0.0#1 Exited 0"]);
        t.crash();
    }
    t.online(&[]);
    t.ack(id(0, 1));
    t.crash();
    t.online(&[]);
    assert_eq!(t.said(), ["register"]);
}

#[test]
fn each_refusal_that_is_final_settles() {
    let codes = [
        fb::ErrorCode::AttemptEnded,
        fb::ErrorCode::UnknownAttempt,
        fb::ErrorCode::NotYourAttempt,
        fb::ErrorCode::ForeignAttempt,
    ];
    for code in codes {
        let mut t = Story::new();
        t.online(&[]);
        t.assign(id(0, 1), noop());
        t.nack(id(0, 1), code);
        assert!(t.agent.state().attempts().is_empty());
    }
}

#[test]
fn a_refusal_that_may_pass_is_tried_again() {
    let mut t = Story::new();
    t.online(&[]);
    t.assign(id(0, 1), noop());
    t.said();
    t.nack(id(0, 1), fb::ErrorCode::Busy);
    assert!(t.said().is_empty());
    t.pass(Duration::from_secs(2));
    assert_eq!(t.said(), ["Completed 1.0.0#1 Exited 0"]);
}

#[test]
fn a_thousand_large_results_come_back_in_a_window() {
    let capacity = Resources { cpu: 1_000_000, ..Resources::ZERO };
    let mut t = Story::with(Config { capacity, ..config() });
    t.online(&[]);
    for index in 0..300 {
        t.assign(id(index, 1), process(1));
    }
    t.handle(Event::Disconnected);
    for index in 0..300 {
        let end = End { result: Some(vec![1; 64 << 10]), ..End::default() };
        t.end(id(index, 1), fb::TaskStatus::Completed, end);
    }
    t.online(&[]);
    let (mut seen, mut largest) = (0, 0);
    loop {
        let sent = std::mem::take(&mut t.sent);
        let results: Vec<AttemptId> = sent
            .iter()
            .filter_map(|message| match message {
                Message::Status(status) if status.end.is_some() => Some(status.attempt),
                _ => None,
            })
            .collect();
        largest = largest.max(results.len());
        seen += results.len();
        if results.is_empty() {
            break;
        }
        for attempt in results {
            t.ack(attempt);
        }
    }
    assert_eq!(seen, 300, "each once");
    assert!(largest <= 17, "1 MiB at a time: {largest}");
    assert!(t.agent.state().attempts().is_empty() && t.agent.state().result_bytes() == 0);
}

#[test]
fn results_that_nobody_takes_stop_new_work() {
    let capacity = Resources { cpu: 1_000_000, ..Resources::ZERO };
    let mut t = Story::with(Config { capacity, ..config() });
    t.online(&[]);
    for index in 0..600 {
        t.assign(id(index, 1), process(1));
        let end = End { result: Some(vec![1; 64 << 10]), ..End::default() };
        t.end(id(index, 1), fb::TaskStatus::Completed, end);
    }
    assert!(t.said().contains(&"reject 1.0.599#1 Busy".to_owned()));
    assert!(t.agent.state().result_bytes() < 33 << 20);
}

#[test]
fn an_executor_that_says_too_much_is_cut() {
    let mut t = Story::new();
    t.online(&[]);
    t.assign(id(0, 1), process(1));
    t.said();
    let end = End { result: Some(vec![1; (64 << 10) + 1]), message: "m".repeat(9_999), ..End::default() };
    t.end(id(0, 1), fb::TaskStatus::Running, end);
    let Some(Message::Status(status)) = t.sent.last() else { panic!("it is sent") };
    assert_eq!(status.status, fb::TaskStatus::Failed, "not a final status");
    let end = status.end.as_deref().unwrap();
    assert!(end.result.is_none() && end.message.contains("65537 bytes"), "{}", end.message);
}

/// Any order of events keeps the invariants that `Story` checks after each: the replay is the live state,
/// what runs fits, nothing is started twice; and in the end everything is settled.
#[test]
fn whatever_happens_the_books_are_right() {
    for seed in 0..200_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut t = Story::new();
        t.online(&[]);
        for _ in 0..150 {
            let attempt = id(next(6) as u32, 1 + next(3) as u32);
            match next(12) {
                0..=2 => t.assign(attempt, process(300 + 200 * next(4) as u32)),
                3 => t.assign(attempt, noop()),
                4 if t.processes.contains_key(&attempt) => t.exit(attempt, next(2) as i32),
                5 => t.cancel(attempt),
                6 => t.ack(attempt),
                7 => t.nack(attempt, fb::ErrorCode::AttemptEnded),
                8 => t.report(attempt, next(3) as f32 / 2.0, &[]),
                9 => t.pass(Duration::from_millis(next(2_000))),
                10 if next(4) == 0 => {
                    t.handle(Event::Disconnected);
                    t.online(&[(attempt, fb::AttemptVerdict::Unknown)]);
                }
                11 if next(4) == 0 => {
                    t.crash();
                    let unresolved: Vec<_> = t.agent.unresolved().collect();
                    t.processes.retain(|attempt, _| unresolved.contains(attempt));
                    let rebooted = next(2) == 0;
                    for attempt in unresolved.into_iter().filter(|_| !rebooted) {
                        if t.processes.contains_key(&attempt) {
                            t.handle(Event::Recovered { attempt, state: Recovered::Running });
                        }
                    }
                    if rebooted {
                        t.processes.clear();
                    }
                    t.surveyed(rebooted);
                    t.online(&[]);
                }
                _ => t.syncing = !t.syncing,
            }
        }
        t.syncing = true;
        t.sync();
        for attempt in t.agent.unresolved().collect::<Vec<_>>() {
            t.exit(attempt, 0);
        }
        for attempt in t.agent.state().attempts().keys().copied().collect::<Vec<_>>() {
            t.ack(attempt);
        }
        assert!(t.agent.state().attempts().is_empty() && t.agent.live().used() == Resources::ZERO, "seed {seed}");
    }
}

#[test]
fn what_waits_and_is_stopped_at_once_is_offered_once() {
    let mut t = Story::new();
    t.online(&[]);
    t.assign(id(0, 1), process(2_000));
    t.assign(id(1, 1), process(1_000));
    t.handle(Event::Disconnected);
    t.said();
    t.online(&[(id(0, 1), fb::AttemptVerdict::Keep), (id(1, 1), fb::AttemptVerdict::Unknown)]);
    let offered = t.said().into_iter().filter(|said| said.starts_with("Cancelled 1.0.1#1")).count();
    assert_eq!(offered, 1);
}
