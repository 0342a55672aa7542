//! How fast processes run here, beside what this machine can do at all.
//!
//! `cargo test --release -p fleetwire-agent rates -- --ignored --nocapture`
//!
//! Two at a time on two cores: 75–84 % of `posix_spawn`'s rate, with output, result and verdict
//! kept. With a supervisor forked anew for each attempt it was 53 %.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::ffi::CString;
use std::time::Instant;

use super::tests::Device;
use super::*;

/// Processes per second by `posix_spawn` alone, two at a time, nothing kept.
fn floor(program: &str, count: usize) -> f64 {
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..count / 2 {
                    posix_spawn_and_wait(program);
                }
            });
        }
    });
    count as f64 / begin.elapsed().as_secs_f64()
}

fn posix_spawn_and_wait(program: &str) {
    let path = CString::new(program).unwrap();
    let arguments = [path.as_ptr().cast_mut(), std::ptr::null_mut()];
    let environment = [std::ptr::null_mut()];
    let mut pid = 0;
    #[expect(unsafe_code, reason = "the floor is the bare call")]
    // SAFETY: the path and both arrays are valid and end as they must; the status may be null.
    unsafe {
        let result = libc::posix_spawn(
            &raw mut pid,
            path.as_ptr(),
            std::ptr::null(),
            std::ptr::null(),
            arguments.as_ptr(),
            environment.as_ptr(),
        );
        assert_eq!(result, 0);
        assert_eq!(libc::waitpid(pid, std::ptr::null_mut(), 0), pid);
    }
}

async fn ours(device: &mut Device, program: &str, count: usize) -> f64 {
    let begin = Instant::now();
    let (mut spawned, mut ended) = (0, 0);
    while ended < count {
        while spawned < count && device.executor.running() < 2 {
            let task_id = format!("{}-{spawned}", begin.elapsed().as_nanos());
            let request = SpawnRequest { task_id: &task_id, attempt: 1, command: program, ..SpawnRequest::default() };
            device.executor.spawn(&request).unwrap();
            spawned += 1;
        }
        if let ExecutorEvent::Ended(verdict, _) = device.executor.next_event().await {
            device.executor.recycle(&verdict.key.task_id, verdict.key.attempt);
            assert_eq!((verdict.exit_code, verdict.signal), (0, 0), "{verdict:?}");
            device.executor.release(&verdict.key.task_id, 1);
            ended += 1;
        }
    }
    count as f64 / begin.elapsed().as_secs_f64()
}

#[tokio::test]
#[ignore = "a measurement: it wants the machine for itself"]
async fn rates_of_process_tasks() {
    let rounds: usize = std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(6);
    let mut device = Device::new(8);
    let program = "/bin/true";
    let warm = std::env::var("WARM").ok().and_then(|count| count.parse().ok()).unwrap_or(100);
    println!("warm: executor {:.0}/s", ours(&mut device, program, warm).await);
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let bare = floor(program, 2000);
        let full = ours(&mut device, program, 2000).await;
        let again = floor(program, 2000);
        let ratio = full / ((bare + again) / 2.0);
        println!("posix_spawn {bare:.0} and {again:.0}/s, executor {full:.0}/s: {:.0} %", ratio * 100.0);
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    if let Some(median) = ratios.get(ratios.len() / 2) {
        println!("median {:.0} %", median * 100.0);
        assert!(*median >= 0.7, "process tasks run at less than 70 % of posix_spawn");
    }
}
