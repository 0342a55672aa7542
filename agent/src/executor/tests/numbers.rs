//! Two jobs that bear one number, in two journals: what is left of the one is nothing of the other's.

use super::*;

fn of(job_key: u64, script: &str) -> SpawnRequest<'_> {
    SpawnRequest { job_key, ..sh("t", script) }
}

// §job-3
#[tokio::test]
async fn what_another_job_left_under_a_number_is_neither_told_nor_shown() {
    let mut device = Device::new(4);
    device.executor.spawn(&of(7, "echo theirs")).unwrap();
    device.ended("t").await;
    let log = |device: &Device, key| device.executor.read_log(("t", 1, key), OutputStream::Stdout, 0, 100);
    assert_eq!(log(&device, 7).unwrap().data, b"theirs\n");
    assert!(matches!(log(&device, 8), Err(LogError::Gone { .. })));
    let again = device.executor.spawn(&of(7, "echo twice"));
    assert!(matches!(again, Err(SpawnError::AlreadyHere { .. })), "{again:?}");
    device.executor.spawn(&of(8, "echo ours; exit 3")).unwrap();
    assert_eq!(device.ended("t").await.exit_code, 3);
    assert_eq!(log(&device, 8).unwrap().data, b"ours\n");
    assert!(matches!(log(&device, 7), Err(LogError::Gone { .. })));
}

#[tokio::test]
async fn what_runs_of_another_job_under_a_number_must_end_first() {
    let mut device = Device::new(4);
    device.executor.spawn(&of(7, "sleep 1000")).unwrap();
    device.started("t").await;
    let refused = device.executor.spawn(&of(8, "true"));
    assert!(matches!(refused, Err(SpawnError::NoFreeSlot { .. })), "{refused:?}");
    device.executor.cancel("t", 1, Duration::ZERO).unwrap();
    device.ended("t").await;
    device.executor.spawn(&of(8, "true")).unwrap();
    assert_eq!(device.ended("t").await.reason, EndReason::Exited);
}

#[tokio::test]
async fn a_slot_knows_after_a_restart_whose_its_attempt_was() {
    let mut device = Device::new(4);
    device.executor.spawn(&of(7, "true")).unwrap();
    device.ended("t").await;
    drop(device.executor);
    let mut executor = start(device.folder.path(), 4);
    let survey = executor.survey();
    let [found] = &survey[..] else { panic!("{survey:?}") };
    assert_eq!((found.key.task_id.as_str(), found.job_key), ("t", 7));
    executor.forget(found.slot);
    assert!(executor.verdict("t", 1).is_err(), "nothing is found there any more");
}
