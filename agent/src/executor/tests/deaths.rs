//! Stories in which somebody dies: supervisors, spawners, and agents at any moment.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use super::*;

/// The argument that makes the test binary an agent that runs short tasks for ever.
pub(super) const AGENT_ARG: &str = "__agent";

/// An agent of its own process: three tasks at a time, each of which writes its name to a ledger.
pub(super) fn be_agent(folder: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut executor = start(&folder.join("slots"), 64);
        let mut next = 0;
        loop {
            while executor.running() < 3 {
                let task_id = format!("{}-{next}", std::process::id());
                let ledger = folder.join("ledger");
                let script = format!("echo {task_id} >> {}; sleep 0.02; exit 9", ledger.display());
                executor.spawn(&sh(&task_id, &script)).unwrap();
                next += 1;
            }
            let event = executor.next_event().await;
            recycle_ended(&mut executor, &event);
        }
    });
}

fn start_agent(folder: &Path) -> Child {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("agent").arg(AGENT_ARG).arg(folder).stdin(Stdio::null());
    command.spawn().unwrap()
}

#[tokio::test]
async fn agents_are_killed_at_any_moment_and_nothing_that_ran_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = || std::fs::read_to_string(folder.path().join("ledger")).unwrap_or_default();
    for round in 1..=8 {
        let before = ledger().lines().count();
        let mut agent = start_agent(folder.path());
        until("some tasks have run", || ledger().lines().count() >= before + round);
        agent.kill().unwrap();
        agent.wait().unwrap();
    }
    // Whatever was under way goes on without any agent, and the next one finds all of it.
    let mut executor = start(&folder.path().join("slots"), 64);
    let found = executor.survey();
    while executor.running() > 0 {
        tokio::time::timeout(PATIENCE, executor.next_event()).await.expect("no event came");
    }
    assert!(found.len() > 8);
    let ran = ledger();
    // What was killed between taking its slot and asking for it is not in a slot: it never ran.
    assert_eq!(ran.lines().collect::<std::collections::BTreeSet<_>>().len(), ran.lines().count(), "one ran twice");
    for SlotState { key, .. } in found {
        let verdict = executor.verdict(&key.task_id, 1).unwrap().unwrap();
        let in_ledger = ran.lines().any(|line| line == key.task_id);
        match verdict.reason {
            EndReason::Exited => assert!(in_ledger && verdict.exit_code == 9, "{verdict:?}"),
            _ => panic!("{verdict:?}"),
        }
    }
}

#[tokio::test]
async fn a_killed_supervisor_takes_its_task_with_it_and_the_slot_is_lost() {
    let mut device = Device::new(4);
    let slot = device.sh("t", "env -i setsid sleep 600 & echo $!; exec sleep 600");
    let main = device.started("t").await;
    until("the stray is there", || device.log("t", OutputStream::Stdout).ends_with('\n'));
    let stray = device.log("t", OutputStream::Stdout).trim().parse().unwrap();
    kill_process(pid(device.live(slot).supervisor), Signal::KILL).unwrap();
    let verdict = device.ended("t").await;
    assert_eq!((verdict.reason, verdict.exit_code), (EndReason::SupervisorLost, 0));
    until("the task is gone", || is_gone(main));
    until("its stray is gone", || is_gone(stray));
    // It was written before it was told.
    let (device, found) = device.restart();
    assert_eq!(found[0].condition, SlotCondition::Ended { reason: EndReason::SupervisorLost });
    assert_eq!(device.executor.verdict("t", 1).unwrap().unwrap(), verdict);
}

#[tokio::test]
async fn strays_are_found_by_their_mark_when_the_spawner_has_died_too() {
    let mut device = Device::new(4);
    let slot = device.sh("t", "setsid sleep 600 & echo $!; exec sleep 600");
    let main = device.started("t").await;
    until("the stray is there", || device.log("t", OutputStream::Stdout).ends_with('\n'));
    let stray = device.log("t", OutputStream::Stdout).trim().parse().unwrap();
    let supervisor = device.live(slot).supervisor;
    kill_process(pid(device.executor.spawner_id().unwrap()), Signal::KILL).unwrap();
    kill_process(pid(supervisor), Signal::KILL).unwrap();
    assert_eq!(device.ended("t").await.reason, EndReason::SupervisorLost);
    assert!(is_gone(stray) && is_gone(main));
}

#[tokio::test]
async fn a_task_outlives_its_agent_and_its_verdict_is_found() {
    let mut device = Device::new(4);
    let slot = device.sh("t", "while [ ! -e go ]; do sleep 0.01; done; echo done; echo 5 > result; exit 6");
    device.started("t").await;
    let gate = device.folder.path().join(format!("{}/work/go", slot.0));
    // The first agent goes while it runs; the second finds it and goes too.
    let (device, found) = device.restart();
    assert_eq!(found.len(), 1);
    assert!(matches!(found[0].condition, SlotCondition::Supervised { started: Some(_) }));
    let folder = {
        let Device { folder, executor, .. } = device;
        drop(executor);
        folder
    };
    std::fs::write(gate, "").unwrap();
    until("the supervisor has gone", || {
        let mut executor = start(folder.path(), 4);
        executor.survey()[0].condition == SlotCondition::Ended { reason: EndReason::Exited }
    });
    let executor = start(folder.path(), 4);
    let verdict = executor.verdict("t", 1).unwrap().unwrap();
    assert_eq!((verdict.exit_code, verdict.result.as_deref()), (6, Some(&b"5\n"[..])));
    assert_eq!(executor.read_log(("t", 1, 0), OutputStream::Stdout, 0, 100).unwrap().data, b"done\n");
}

#[tokio::test]
async fn an_adopted_task_is_watched_and_can_be_cancelled() {
    let mut device = Device::new(4);
    let script = "trap 'exit 8' TERM; echo on; while [ ! -e go ]; do sleep 0.01; done; \
        echo 'progress 0.5 adopted' >&3; while :; do sleep 0.01; done";
    let slot = device.sh("t", script);
    device.started("t").await;
    until("it listens", || !device.log("t", OutputStream::Stdout).is_empty());
    let (mut device, found) = device.restart();
    std::fs::write(device.folder.path().join(format!("{}/work/go", slot.0)), "").unwrap();
    let ExecutorEvent::Report { report, .. } = device.next().await else { panic!("no report") };
    assert_eq!((report.progress, report.note.as_str()), (Some(0.5), "adopted"));
    assert_eq!((found.len(), device.executor.running()), (1, 1));
    assert!(matches!(device.executor.spawn(&sh("t", "true")), Err(SpawnError::AlreadyHere { .. })));
    assert_eq!(device.log("t", OutputStream::Stdout), "on\n");
    device.executor.cancel("t", 1, Duration::from_secs(20)).unwrap();
    let verdict = device.ended("t").await;
    assert_eq!((verdict.reason, verdict.exit_code), (EndReason::Cancelled, 8));
    assert_eq!(device.executor.running(), 0);
}

#[tokio::test]
async fn a_request_whose_agent_died_at_once_is_started_and_found() {
    let mut device = Device::new(4);
    device.sh("t", "echo hello");
    // Not one event was seen; the request may still be in the socket.
    let (mut device, found) = device.restart();
    assert_eq!(found.len(), 1);
    match found[0].condition {
        SlotCondition::Ended { reason } => assert_eq!(reason, EndReason::Exited),
        SlotCondition::Supervised { .. } => assert_eq!(device.ended("t").await.reason, EndReason::Exited),
    }
    assert_eq!(device.log("t", OutputStream::Stdout), "hello\n");
}

#[tokio::test]
async fn a_spawner_that_dies_is_replaced_and_nothing_else_happens() {
    let mut device = Device::new(4);
    let slot = device.sh("before", "while [ ! -e go ]; do sleep 0.01; done; exit 2");
    device.started("before").await;
    let first = device.executor.spawner_id().unwrap();
    kill_process(pid(first), Signal::KILL).unwrap();
    while !matches!(device.next().await, ExecutorEvent::SpawnerDied { restart_failed: None }) {}
    device.sh("after", "exit 3");
    assert_eq!(device.ended("after").await.exit_code, 3);
    assert_ne!(device.executor.spawner_id().unwrap(), first);
    std::fs::write(device.folder.path().join(format!("{}/work/go", slot.0)), "").unwrap();
    assert_eq!(device.ended("before").await.exit_code, 2);
}

#[tokio::test]
async fn the_spawner_goes_with_its_agent() {
    let device = Device::new(4);
    let spawner = device.executor.spawner_id().unwrap();
    drop(device.executor);
    assert!(test_kill_process(pid(spawner)).is_err());
}

/// A request of work that stops when the scheduler was not heard for so long.
fn unheard(after: Duration) -> SpawnRequest<'static> {
    // It ends by itself, too, should nobody stop it.
    let script = "trap 'exit 8' TERM; echo on; i=0; while [ $i -lt 3000 ]; do i=$((i+1)); sleep 0.01; done";
    SpawnRequest { stop_unheard_after: Some(after), ..sh("t", script) }
}

fn boot_us() -> u64 {
    super::supervisor::now().boot_us
}

#[tokio::test]
async fn work_stops_when_the_scheduler_is_not_heard_although_its_agent_has_died() {
    let mut device = Device::new(4);
    device.executor.on_heard(boot_us(), true);
    device.executor.spawn(&unheard(Duration::from_millis(400))).unwrap();
    device.started("t").await;
    let Device { folder, executor, .. } = device;
    drop(executor);
    until("it has stopped by itself", || {
        start(folder.path(), 4).survey()[0].condition == SlotCondition::Ended { reason: EndReason::Disconnected }
    });
    let verdict = start(folder.path(), 4).verdict("t", 1).unwrap().unwrap();
    assert_eq!(verdict.exit_code, 8, "it had its grace");
    assert!(verdict.message.contains("not heard for 0.4 s"), "{}", verdict.message);
    let cell = super::super::heard::HeardCell::of(&folder.path().canonicalize().unwrap(), [0; 16]);
    assert!(!cell.path().exists(), "nobody needs it any more, and the last agent left it");
}

#[tokio::test]
async fn a_request_that_dies_with_the_spawner_was_never_taken_and_can_be_asked_for_again() {
    let mut device = Device::new(4);
    let spawner = pid(device.executor.spawner_id().unwrap());
    kill_process(spawner, Signal::STOP).unwrap();
    device.sh("t", "echo ran >> ../../ledger; exit 4");
    device.sh("u", "exit 5");
    device.executor.cancel("u", 1, Duration::ZERO).unwrap();
    kill_process(spawner, Signal::KILL).unwrap();
    let mut not_taken = Vec::new();
    while not_taken.len() < 2 {
        if let ExecutorEvent::NotTaken { key, cancelled } = device.next().await {
            not_taken.push((key.task_id, cancelled));
        }
    }
    not_taken.sort();
    assert_eq!(not_taken, [("t".to_owned(), false), ("u".to_owned(), true)]);
    assert_eq!(device.executor.running(), 0);
    device.sh("t", "echo ran >> ../../ledger; exit 4");
    assert_eq!(device.ended("t").await.exit_code, 4);
    assert_eq!(std::fs::read_to_string(device.folder.path().join("ledger")).unwrap(), "ran\n");
}

#[tokio::test]
async fn an_old_spawner_that_forks_late_runs_what_the_next_agent_then_watches() {
    let mut device = Device::new(4);
    let spawner = pid(device.executor.spawner_id().unwrap());
    kill_process(spawner, Signal::STOP).unwrap();
    device.sh("t", "echo ran >> ../../ledger; exit 4");
    // The agent goes as by `kill -9`: its sockets close, and the request is still on its way.
    let Device { folder, executor, .. } = device;
    let gone = std::thread::spawn(move || drop(executor));
    let mut executor = start(folder.path(), 4);
    let found = executor.survey();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].condition, SlotCondition::Supervised { started: None }, "its lock is on its way");
    assert!(matches!(executor.spawn(&sh("t", "true")), Err(SpawnError::AlreadyHere { .. })));
    let asked = tokio::time::timeout(Duration::from_millis(700), executor.next_event()).await;
    assert!(asked.is_err(), "it was judged while somebody could still begin: {asked:?}");
    kill_process(spawner, Signal::CONT).unwrap();
    gone.join().unwrap();
    let mut device = Device { folder, executor, events: Vec::new() };
    assert_eq!(device.ended("t").await.exit_code, 4);
    assert_eq!(std::fs::read_to_string(device.folder.path().join("ledger")).unwrap(), "ran\n");
}

#[tokio::test]
async fn an_old_spawner_that_dies_with_its_request_leaves_it_lost() {
    let mut device = Device::new(4);
    let spawner = pid(device.executor.spawner_id().unwrap());
    kill_process(spawner, Signal::STOP).unwrap();
    device.sh("t", "exit 4");
    let Device { folder, executor, .. } = device;
    let gone = std::thread::spawn(move || drop(executor));
    let mut executor = start(folder.path(), 4);
    assert_eq!(executor.survey()[0].condition, SlotCondition::Supervised { started: None });
    kill_process(spawner, Signal::KILL).unwrap();
    gone.join().unwrap();
    let mut device = Device { folder, executor, events: Vec::new() };
    // Only who asked has what it takes to ask again.
    assert_eq!(device.ended("t").await.reason, EndReason::SupervisorLost);
}

#[tokio::test]
async fn work_goes_on_while_the_scheduler_is_heard_also_by_the_next_agent() {
    let mut device = Device::new(4);
    let after = Duration::from_secs(3);
    // Heard so long ago that only what is heard later lets it go on.
    let first = boot_us();
    device.executor.on_heard(first, true);
    device.executor.spawn(&unheard(after)).unwrap();
    device.started("t").await;
    let (mut device, _) = device.restart();
    let mut told = first;
    let verdict = loop {
        let telling = boot_us();
        if telling < first + 4_000_000 {
            device.executor.on_heard(telling, true);
        }
        if let Ok(verdict) = tokio::time::timeout(Duration::from_millis(200), device.ended("t")).await {
            break verdict;
        }
        if telling < first + 4_000_000 {
            told = telling;
        }
    };
    assert_eq!(verdict.reason, EndReason::Disconnected);
    assert!(verdict.ended.boot_us >= told + 3_000_000, "it was heard later than that");
}

#[tokio::test]
async fn what_is_begun_too_late_does_not_start() {
    let mut device = Device::new(4);
    device.executor.on_heard(boot_us().saturating_sub(2_000_000), true);
    device.executor.spawn(&unheard(Duration::from_secs(1))).unwrap();
    let verdict = device.ended("t").await;
    assert_eq!((verdict.reason, verdict.started), (EndReason::Disconnected, Moment::default()));
}
