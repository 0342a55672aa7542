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

fn found_running(t: &mut Story, attempt: AttemptId) {
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
