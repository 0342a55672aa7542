//! Restarts, of the process and of the device, without a network: what runs is adopted, what never started
//! starts, what is gone is lost.

use super::*;

/// Two run, the third and fourth wait, and the fifth waits with other needs.
fn busy() -> Story {
    let mut t = Story::new();
    t.online(&[]);
    for index in 0..4 {
        t.assign(id(index, 1), process(1_000));
    }
    t.assign(id(4, 1), process(300));
    t.said();
    t.did();
    t
}

pub(super) fn found_running(t: &mut Story, attempt: AttemptId) {
    t.handle(Event::Recovered { attempt, state: Recovered::Running });
}

#[test]
fn after_a_reboot_what_had_waited_starts_without_a_network_and_what_ran_is_lost() {
    let mut t = busy();
    t.crash();
    t.processes.clear();
    assert!(t.did().is_empty(), "nothing starts before it is known what runs");
    t.surveyed(true);
    assert_eq!(t.did(), ["spawn 1.0.2#1", "spawn 1.0.3#1"], "in the order in which they came");
    t.exit(id(3, 1), 0);
    assert_eq!(t.did(), ["spawn 1.0.4#1"]);
    t.online(&[]);
    assert_eq!(
        t.said(),
        [
            "register 1.0.0#1=Lost 1.0.1#1=Lost 1.0.2#1=Assigned 1.0.3#1=Completed 1.0.4#1=Assigned",
            "Lost 1.0.0#1 SupervisorLost 0",
            "Lost 1.0.1#1 SupervisorLost 0",
            "Completed 1.0.3#1 Exited 0",
        ]
    );
}

#[test]
fn what_waits_starts_only_once_it_is_known_what_runs() {
    let mut t = busy();
    t.crash();
    found_running(&mut t, id(0, 1));
    assert!(t.did().is_empty());
    // It was staged, and a supervisor took it when 1.0.1 ended.
    let resources = t.processes.remove(&id(1, 1)).unwrap();
    t.processes.insert(id(2, 1), resources);
    found_running(&mut t, id(2, 1));
    let end = End::default();
    let state = Recovered::Ended { status: fb::TaskStatus::Completed, end };
    t.handle(Event::Recovered { attempt: id(1, 1), state });
    assert!(t.did().is_empty());
    t.surveyed(false);
    assert_eq!(t.did(), ["stage 1.0.3#1"]);
    assert_eq!((t.agent.live().used().cpu, t.agent.live().running()), (2_000, 2));
    t.exit(id(0, 1), 0);
    t.exit(id(2, 1), 0);
    assert_eq!(t.did(), ["spawn 1.0.4#1"]);
}

#[test]
fn nothing_is_staged_while_it_is_not_known_whether_what_was_has_started() {
    let mut t = Story::new();
    t.online(&[]);
    for index in 0..4 {
        t.assign(id(index, 1), process(1_000));
    }
    t.crash();
    // Two run, and two lie where the supervisors of these two find them: nobody can tell which.
    (0..4).for_each(|index| found_running(&mut t, id(index, 1)));
    t.surveyed(false);
    t.online(&[]);
    t.did();
    t.assign(id(4, 1), process(1_000));
    t.end(id(2, 1), fb::TaskStatus::Cancelled, End::default());
    assert!(t.did().is_empty(), "it had no room that another could take");
    t.end(id(3, 1), fb::TaskStatus::Cancelled, End::default());
    assert_eq!(t.did(), ["stage 1.0.4#1"]);
    t.exit(id(0, 1), 0);
    assert_eq!(t.agent.live().used().cpu, 2_000);
}

#[test]
fn what_was_accepted_and_never_seen_by_the_executor_starts_after_the_agents_death() {
    let mut t = busy();
    t.processes.clear();
    t.crash();
    t.surveyed(false);
    assert_eq!(t.did()[..2], ["spawn 1.0.0#1", "spawn 1.0.1#1"]);
    assert_eq!(t.agent.live().used().cpu, 2_000);
}

#[test]
fn a_start_that_is_not_durable_does_not_happen() {
    let mut t = busy();
    t.cancel(id(2, 1));
    t.cancel(id(3, 1));
    t.unstage(id(2, 1));
    t.unstage(id(3, 1));
    t.did();
    t.syncing = false;
    t.exit(id(0, 1), 0);
    assert!(t.did().is_empty(), "1.0.4 has room, and that it starts is not durable");
    t.crash();
    t.syncing = true;
    found_running(&mut t, id(1, 1));
    t.surveyed(true);
    assert_eq!(t.did(), ["spawn 1.0.4#1"], "it had not started");
    t.crash();
    t.processes.clear();
    t.surveyed(true);
    assert!(t.did().is_empty(), "now it may have");
}

#[test]
fn what_is_too_large_to_be_kept_is_lost_when_nothing_of_it_ran() {
    let mut t = Story::new();
    t.online(&[]);
    t.assign(id(0, 1), process(2_000));
    let file = |bytes| fleetwire_common::job::FileSpec { path: "f".into(), data: vec![0; bytes], executable: false };
    t.assign(id(1, 1), TaskSpec { files: vec![file(15 << 10)], ..process(1_000) });
    t.assign(id(2, 1), TaskSpec { files: vec![file(17 << 10)], ..process(1_000) });
    t.crash();
    t.processes.clear();
    t.did();
    t.surveyed(true);
    assert_eq!(t.did(), ["spawn 1.0.1#1"]);
    t.online(&[]);
    let said = t.said();
    assert!(said.contains(&"Lost 1.0.2#1 SupervisorLost 0".to_owned()), "{said:?}");
}

#[test]
fn the_scheduler_still_stops_what_it_wants_no_more() {
    let mut t = busy();
    t.crash();
    t.processes.clear();
    t.surveyed(true);
    t.did();
    t.online(&[(id(2, 1), fb::AttemptVerdict::Stop), (id(4, 1), fb::AttemptVerdict::Unknown)]);
    assert_eq!(t.did(), ["cancel 1.0.2#1 5s"]);
    assert!(t.said().contains(&"Cancelled 1.0.4#1 AgentForgotten 0".to_owned()), "it had not started");
}

#[test]
fn a_deadline_is_kept_over_a_restart() {
    let mut t = Story::new();
    t.online(&[]);
    t.assign(id(0, 1), process(2_000));
    let deadline = t.cluster_ms() + 60_000;
    t.assign_until(id(1, 1), process(2_000), deadline);
    t.crash();
    t.processes.clear();
    t.done.clear();
    t.surveyed(true);
    assert!(matches!(t.done[..], [Effect::Spawn { deadline_ms, .. }] if deadline_ms == deadline), "{:?}", t.done);
}

#[test]
fn a_snapshot_stands_for_everything_that_is_held() {
    let mut t = busy();
    let file = fleetwire_common::job::FileSpec { path: "f".into(), data: vec![0; 20 << 10], executable: false };
    t.assign(id(5, 1), TaskSpec { files: vec![file], ..process(1_000) });
    t.assign_until(id(6, 1), process(100), t.cluster_ms() + 60_000);
    t.exit(id(0, 1), 3);
    t.exit(id(1, 1), 0);
    t.ack(id(1, 1));
    t.assign(id(7, 1), process(100));
    t.cancel(id(7, 1));
    t.ack(id(7, 1));
    let (held, receipt) = (t.agent.state().attempts().clone(), t.agent.receipt());
    assert_eq!(receipt.map(|proof| proof.receipt), Some(self::receipt(107)), "of an attempt that is forgotten");
    t.crash_with_snapshot();
    // The order is the same, counted anew.
    let anew = |attempts: &BTreeMap<AttemptId, Attempt>| {
        let mut orders: Vec<u64> = attempts.values().map(|held| held.order).collect();
        orders.sort_unstable();
        let place = |order| orders.iter().position(|other| *other == order).unwrap() as u64;
        let anew = |(id, held): (&AttemptId, &Attempt)| (*id, Attempt { order: place(held.order), ..held.clone() });
        attempts.iter().map(anew).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(t.agent.state().attempts(), &anew(&held));
    assert_eq!((t.agent.receipt(), t.agent.unresolved().count()), (receipt, 5));
}

#[test]
fn a_task_costs_three_syncs_and_an_idle_day_nothing() {
    let mut t = Story::new();
    t.online(&[]);
    let (written, syncs) = (t.written(), t.syncs);
    let spec = TaskSpec {
        command: "/usr/bin/inspect".into(),
        arguments: vec!["--input".into(), "/var/spool/camera/0017.jpg".into(), "--threshold".into(), "0.75".into()],
        environment: vec![("MODEL".into(), "/opt/models/defects-v3.tflite".into())],
        ..process(500)
    };
    t.assign(id(0, 1), spec);
    t.started(id(0, 1));
    t.pass(Duration::from_secs(5));
    t.report(id(0, 1), 0.5, &[("frames".into(), 200.0)]);
    let end = End { result: Some(vec![b'x'; 100]), ..End::default() };
    t.end(id(0, 1), fb::TaskStatus::Completed, end);
    t.ack(id(0, 1));
    let bytes = t.written() - written;
    assert!(bytes <= 1_100, "the facts of a small task have {bytes} bytes");
    assert_eq!(t.syncs - syncs, 3);
    let (written, syncs) = (t.written(), t.syncs);
    for _ in 0..24 * 120 {
        t.pass(Duration::from_secs(30));
        t.receive(Message::Ack(Ack::Heartbeat(t.cluster_ms())));
    }
    assert!(t.said().len() >= 24 * 119, "the agent was heard all day");
    assert_eq!((t.written() - written, t.syncs - syncs), (0, 0));
}
