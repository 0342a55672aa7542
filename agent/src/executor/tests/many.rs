//! Stories of more attempts than slots.

use super::*;

#[tokio::test]
async fn two_hundred_tasks_go_through_a_few_slots() {
    let mut device = Device::new(6);
    let names: Vec<String> = (0..200).map(|n| format!("task-{n}")).collect();
    let scripts: Vec<String> = (0..200)
        .map(|n| format!("echo out {n}; echo {n} > f{n}; mkdir d; echo {n} > result; exit {}", n % 100))
        .collect();
    let mut next = 0;
    let mut ended = 0;
    while ended < 200 {
        while next < 200 && device.executor.running() < 3 {
            match device.executor.spawn(&sh(&names[next], &scripts[next])) {
                Ok(_) => next += 1,
                // On a slow machine supervisors still empty their working directories.
                Err(SpawnError::NoFreeSlot { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        if device.executor.running() == 0 {
            continue;
        }
        let ExecutorEvent::Ended(verdict, _) = device.next().await else { continue };
        let n: usize = verdict.key.task_id.strip_prefix("task-").unwrap().parse().unwrap();
        assert_eq!((verdict.reason, verdict.exit_code as usize), (EndReason::Exited, n % 100), "{verdict:?}");
        assert_eq!(verdict.result.as_deref(), Some(format!("{n}\n").as_bytes()));
        assert_eq!(device.log(&names[n], OutputStream::Stdout), format!("out {n}\n"));
        device.executor.release(&verdict.key.task_id, 1);
        ended += 1;
    }
    let slots = std::fs::read_dir(device.folder.path()).unwrap().count();
    assert!(slots <= 12, "{slots} slots");
    // The latest are still readable, the first are gone.
    assert!(device.executor.read_log((&names[0], 1, 0), OutputStream::Stdout, 0, 10).is_err());
    assert!(device.executor.read_log((&names[199], 1, 0), OutputStream::Stdout, 0, 10).is_ok());
}

#[tokio::test]
async fn slots_in_use_are_never_recycled() {
    let mut device = Device::new(2);
    device.sh("a", "exec sleep 600");
    device.sh("b", "exec sleep 600");
    assert!(matches!(device.executor.spawn(&sh("c", "true")), Err(SpawnError::NoFreeSlot { slots_max: 2 })));
    device.executor.cancel("a", 1, Duration::ZERO).unwrap();
    device.ended("a").await;
    device.executor.cancel("b", 1, Duration::ZERO).unwrap();
    device.ended("b").await;
}

#[tokio::test]
async fn a_hundred_requests_at_once_all_run() {
    let mut device = Device::new(128);
    let names: Vec<String> = (0..100).map(|n| format!("{n}")).collect();
    let padding = "p".repeat(20_000);
    for name in &names {
        let request = SpawnRequest { parameters: &padding, ..sh(name, "exit 0") };
        device.executor.spawn(&request).unwrap();
    }
    let mut ended = 0;
    while ended < 100 {
        if let ExecutorEvent::Ended(verdict, _) = device.next().await {
            assert_eq!((verdict.reason, verdict.exit_code), (EndReason::Exited, 0), "{verdict:?}");
            ended += 1;
        }
    }
}
