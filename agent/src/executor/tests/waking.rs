//! Supervisors that wake up late, as after a suspend: what was overdue ends then.

use super::*;
use rustix::process::Pid;

/// How long the scheduler may be unheard, or the work run. Long enough to begin.
const AFTER: Duration = Duration::from_secs(2);
const GRACE: Duration = Duration::from_secs(4);

fn us(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

fn boot_us() -> u64 {
    super::supervisor::now().boot_us
}

/// Work that goes on until it is stopped.
fn goes_on(script: &str) -> SpawnRequest<'_> {
    SpawnRequest { grace: GRACE, ..sh("t", script) }
}

/// The supervisor is stopped, time passes, and it goes on. Returns when it did.
async fn sleeps_until(device: &Device, slot: SlotId, until_us: u64) -> u64 {
    let supervisor = Pid::from_raw(device.live(slot).supervisor as i32).unwrap();
    kill_process(supervisor, Signal::STOP).unwrap();
    while boot_us() < until_us {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let woken_us = boot_us();
    kill_process(supervisor, Signal::CONT).unwrap();
    woken_us
}

#[tokio::test]
async fn what_is_overdue_when_its_supervisor_wakes_up_has_had_as_much_of_its_grace_as_has_passed() {
    let mut device = Device::new(4);
    let heard_us = boot_us();
    device.executor.on_heard(heard_us, true);
    let script = "trap '' TERM; while :; do sleep 0.05; done";
    let slot = device.executor.spawn(&SpawnRequest { stop_unheard_after: Some(AFTER), ..goes_on(script) }).unwrap();
    device.started("t").await;
    let woken_us = sleeps_until(&device, slot, heard_us + us(AFTER + GRACE)).await;
    let verdict = device.ended("t").await;
    assert_eq!((verdict.reason, verdict.signal), (EndReason::Disconnected, 9), "{verdict:?}");
    // All of it had passed. Whoever gives it anew cannot be done before this.
    assert!(verdict.ended.boot_us < woken_us + us(GRACE), "it was given its grace a second time");
}

#[tokio::test]
async fn a_run_timeout_that_has_passed_in_its_supervisors_sleep_ends_the_work_with_its_grace() {
    let mut device = Device::new(4);
    let script = "trap 'exit 8' TERM; while :; do sleep 0.05; done";
    let slot = device.executor.spawn(&SpawnRequest { timeout: Some(AFTER), ..goes_on(script) }).unwrap();
    device.started("t").await;
    let until_us = device.live(slot).started.boot_us + us(AFTER + GRACE);
    let woken_us = sleeps_until(&device, slot, until_us).await;
    let verdict = device.ended("t").await;
    assert_eq!((verdict.reason, verdict.exit_code), (EndReason::RunTimeout, 8), "{verdict:?}");
    assert!(verdict.ended.boot_us >= woken_us);
}
