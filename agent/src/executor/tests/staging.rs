//! Stories of staged attempts: one starts in the moment in which another ends, whoever dies meanwhile.

use super::*;

fn key(task_id: &str) -> AttemptKey {
    AttemptKey { task_id: task_id.to_owned(), attempt: 1 }
}

impl Device {
    fn stage(&mut self, task_id: &str, script: &str) {
        self.executor.stage(&sh(task_id, script)).unwrap();
    }

    /// Waits for the next end; says whose, how, and what was started in its room.
    async fn end(&mut self) -> (String, EndReason, Option<AttemptKey>) {
        loop {
            if let ExecutorEvent::Ended(verdict, next) = self.next().await {
                return (verdict.key.task_id, verdict.reason, next);
            }
        }
    }
}

#[tokio::test]
async fn staged_attempts_start_one_by_one_in_their_order() {
    let mut device = Device::new(16);
    device.sh("0", "echo 0 >> ../../order");
    for task in ["1", "2", "3", "4", "5"] {
        device.stage(task, &format!("echo {task} >> ../../order"));
    }
    for (task, next) in
        [("0", Some("1")), ("1", Some("2")), ("2", Some("3")), ("3", Some("4")), ("4", Some("5")), ("5", None)]
    {
        assert_eq!(device.end().await, (task.to_owned(), EndReason::Exited, next.map(key)));
    }
    assert_eq!(device.executor.running(), 0);
    let order = std::fs::read_to_string(device.folder.path().join("order")).unwrap();
    assert_eq!(order, "0\n1\n2\n3\n4\n5\n");
}

#[tokio::test]
async fn a_large_request_is_staged_as_well() {
    let mut device = Device::new(8);
    device.sh("0", "read line < ../../go");
    let data = vec![b'x'; 200_000];
    let files = vec![InlineFile { path: "large", data: &data, executable: false }];
    let request = SpawnRequest { files, ..sh("1", "wc -c < large > result") };
    rustix::fs::mknodat(
        rustix::fs::CWD,
        device.folder.path().join("go"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    device.executor.stage(&request).unwrap();
    // Taken back and staged again, as when another was wanted back.
    device.stage("2", "true");
    assert!(device.executor.unstage("2", 1));
    std::fs::write(device.folder.path().join("go"), "\n").unwrap();
    assert_eq!(device.end().await, ("0".to_owned(), EndReason::Exited, Some(key("1"))));
    let verdict = device.ended("1").await;
    assert_eq!(verdict.result.as_deref(), Some(b"200000\n".as_slice()));
}

#[tokio::test]
async fn what_is_taken_back_never_starts_and_what_has_started_is_not_taken_back() {
    let mut device = Device::new(8);
    device.sh("0", "exec sleep 600");
    let main = device.started("0").await;
    for task in ["1", "2", "3"] {
        device.stage(task, &format!("echo {task} >> ../../order"));
    }
    assert!(device.executor.unstage("2", 1));
    assert!(!device.executor.unstage("2", 1));
    assert!(!device.executor.unstage("0", 1));
    kill_process(pid(main), Signal::KILL).unwrap();
    assert_eq!(device.end().await, ("0".to_owned(), EndReason::Signalled, Some(key("1"))));
    assert!(!device.executor.unstage("1", 1));
    assert_eq!(device.end().await, ("1".to_owned(), EndReason::Exited, Some(key("3"))));
    assert_eq!(device.end().await, ("3".to_owned(), EndReason::Exited, None));
    assert_eq!(std::fs::read_to_string(device.folder.path().join("order")).unwrap(), "1\n3\n");
    assert_eq!(device.executor.running(), 0);
}

#[tokio::test]
async fn a_killed_supervisor_leaves_its_room_to_a_staged_attempt() {
    let mut device = Device::new(8);
    let slot = device.sh("0", "exec sleep 600");
    device.started("0").await;
    device.stage("1", "true");
    kill_process(pid(device.live(slot).supervisor), Signal::KILL).unwrap();
    assert_eq!(device.end().await, ("0".to_owned(), EndReason::SupervisorLost, Some(key("1"))));
    assert_eq!(device.end().await, ("1".to_owned(), EndReason::Exited, None));
}

#[tokio::test]
async fn a_killed_spawner_changes_nothing_for_what_is_staged() {
    let mut device = Device::new(8);
    device.sh("0", "exec sleep 600");
    let main = device.started("0").await;
    device.stage("1", "true");
    device.stage("2", "true");
    kill_process(pid(device.executor.spawner_id().unwrap()), Signal::KILL).unwrap();
    kill_process(pid(main), Signal::KILL).unwrap();
    assert_eq!(device.end().await, ("0".to_owned(), EndReason::Signalled, Some(key("1"))));
    assert_eq!(device.end().await, ("1".to_owned(), EndReason::Exited, Some(key("2"))));
    assert_eq!(device.end().await, ("2".to_owned(), EndReason::Exited, None));
}

/// The look at the slots comes before anybody has seen that the socket has something: what a supervisor said is
/// there nevertheless, and the staged attempt that it has taken is the one that follows.
#[tokio::test]
async fn a_look_at_the_slots_hears_what_a_supervisor_said_before_it_gave_up_its_lock() {
    let mut device = Device::new(8);
    let slot = device.sh("0", "exec sleep 600");
    let main = device.started("0").await;
    device.stage("1", "exec sleep 600");
    device.stage("2", "exec sleep 600");
    let lock = std::fs::File::open(device.folder.path().join(slot.0.to_string()).join("attempt")).unwrap();
    kill_process(pid(main), Signal::KILL).unwrap();
    until("the lock is free", || lock.try_lock_shared().is_ok());
    lock.unlock().unwrap();
    device.executor.sweep_soon();
    assert_eq!(device.end().await, ("0".to_owned(), EndReason::Signalled, Some(key("1"))));
    assert_eq!(device.executor.running(), 1);
    assert!(device.executor.unstage("2", 1), "two have started in the room of one");
    device.executor.cancel("1", 1, Duration::ZERO).unwrap();
    assert_eq!(device.end().await, ("1".to_owned(), EndReason::Cancelled, None));
}

#[tokio::test]
async fn room_that_was_free_before_is_given_to_the_first_on_demand() {
    let mut device = Device::new(8);
    device.stage("1", "true");
    device.stage("2", "true");
    assert_eq!(device.executor.start_staged(), Some(key("1")));
    assert_eq!(device.end().await, ("1".to_owned(), EndReason::Exited, Some(key("2"))));
    assert_eq!(device.end().await, ("2".to_owned(), EndReason::Exited, None));
    assert_eq!(device.executor.start_staged(), None);
}

#[tokio::test]
async fn what_is_staged_goes_on_without_the_agent_and_the_next_one_finds_it() {
    let mut device = Device::new(8);
    device.sh("0", "exec sleep 600");
    let main = device.started("0").await;
    device.stage("1", "exit 7");
    let (mut device, found) = device.restart();
    let supervised = |slot: &SlotState| matches!(slot.condition, SlotCondition::Supervised { .. });
    assert_eq!(found.iter().filter(|slot| supervised(slot)).count(), 2, "{found:?}");
    kill_process(pid(main), Signal::KILL).unwrap();
    let mut ends = vec![device.end().await, device.end().await];
    ends.sort_by(|a, b| a.0.cmp(&b.0));
    let ended = |task: &str, reason| (task.to_owned(), reason, None);
    assert_eq!(ends, [ended("0", EndReason::Signalled), ended("1", EndReason::Exited)]);
    assert_eq!(device.executor.verdict("1", 1).unwrap().unwrap().exit_code, 7);
}
