//! Processes of an attempt whose supervisor was killed.
//!
//! The kernel kills the main process with its supervisor; what it had started is found by the
//! mark in its environment. Only then is the attempt reported as lost.

use std::io::Read;

use rustix::process::{Pid, Signal, kill_process};

use super::request::mark_variable;

/// Kills every process that carries `mark`, again and again until none is found, at most `rounds`
/// times. True when a whole look found none.
pub(super) fn kill_strays(mark: u64, rounds: u32) -> bool {
    let wanted = mark_variable(mark);
    (0..rounds).any(|round| {
        if round > 0 {
            // A killed process needs a moment to go; it is not ours, so nobody can wait for it.
            rustix::thread::sched_yield();
        }
        let strays = find(wanted.as_bytes());
        for pid in &strays {
            let _ = kill_process(*pid, Signal::KILL);
        }
        strays.is_empty()
    })
}

fn find(wanted: &[u8]) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut environment = Vec::new();
    let mut carries = |pid: &Pid| {
        environment.clear();
        let path = format!("/proc/{}/environ", pid.as_raw_nonzero());
        // Processes of other users cannot be read, and are none of ours.
        let Ok(file) = std::fs::File::open(path) else {
            return false;
        };
        let read = file.take(ENVIRONMENT_BYTES_MAX).read_to_end(&mut environment);
        read.is_ok() && environment.split(|byte| *byte == 0).any(|variable| variable == wanted)
    };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Pid::from_raw).filter(|pid| carries(pid)).collect()
}

const ENVIRONMENT_BYTES_MAX: u64 = 8 << 20;
