//! Nothing outlives an attempt: every descendant is found, killed and reaped.
//!
//! The supervisor is a subreaper (and so is the spawner, should a supervisor be killed), so a process whose parent has gone becomes its child, however
//! often it forked and whatever session it made for itself. Killing all children until the kernel
//! says that there are none therefore ends the whole tree.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::super::record::Usage;

/// A child that was reaped.
#[derive(Debug, Clone, Copy)]
pub struct Reaped {
    pub pid: Pid,
    /// 0 when a signal ended it.
    pub exit_code: i32,
    /// 0 when it exited.
    pub signal: i32,
    /// Its own and that of the children that it had waited for; no wall time.
    pub usage: Usage,
}

/// What one look at the children found.
#[derive(Debug, Clone, Copy)]
pub enum Look {
    /// This child ended.
    Reaped(Reaped),
    /// There are children, and none has ended.
    NoneReady,
    /// There are no children left.
    NoneLeft,
}

/// Reaps one child if one has ended.
pub fn reap_one(block: bool) -> Look {
    let mut status = 0;
    let options = if block { libc::__WALL } else { libc::__WALL | libc::WNOHANG };
    loop {
        #[expect(unsafe_code, reason = "waiting with resource usage is not offered by a safe interface")]
        // SAFETY: both are plain data that the kernel fills in.
        let (pid, used) = unsafe {
            let mut used: libc::rusage = std::mem::zeroed();
            (libc::wait4(-1, &raw mut status, options, &raw mut used), used)
        };
        match Pid::from_raw(pid.max(0)) {
            Some(pid) => {
                let exited = libc::WIFEXITED(status);
                let exit_code = if exited { libc::WEXITSTATUS(status) } else { 0 };
                let signal = if exited { 0 } else { libc::WTERMSIG(status) };
                return Look::Reaped(Reaped { pid, exit_code, signal, usage: usage(&used) });
            }
            None if pid == 0 => return Look::NoneReady,
            None if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {}
            None => return Look::NoneLeft,
        }
    }
}

/// Kills and reaps until there are no children; `on_reaped` sees each of them.
pub fn kill_all(mut on_reaped: impl FnMut(Reaped)) {
    loop {
        match reap_one(false) {
            Look::Reaped(child) => on_reaped(child),
            Look::NoneLeft => return,
            Look::NoneReady => {
                kill_children();
                // At least one was killed, or is already on its way out; the kernel wakes us.
                if let Look::Reaped(child) = reap_one(true) {
                    on_reaped(child);
                }
            }
        }
    }
}

fn usage(used: &libc::rusage) -> Usage {
    let micros = |time: libc::timeval| {
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        seconds.saturating_mul(1_000_000).saturating_add(u64::try_from(time.tv_usec).unwrap_or(0))
    };
    Usage {
        user_us: micros(used.ru_utime),
        system_us: micros(used.ru_stime),
        memory_peak_kb: u64::try_from(used.ru_maxrss).unwrap_or(0),
        wall_us: 0,
    }
}

fn kill_children() {
    for pid in children() {
        // A child that ended meanwhile is a zombie until we reap it, so the number is still its own.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Our children now. The kernel's own list, or without it a walk through all processes.
pub fn children() -> Vec<Pid> {
    match read_file("/proc/thread-self/children") {
        Ok(text) => String::from_utf8_lossy(&text).split_ascii_whitespace().filter_map(parse_pid).collect(),
        Err(_) => children_by_walk(),
    }
}

fn children_by_walk() -> Vec<Pid> {
    let me = rustix::process::getpid().as_raw_nonzero().get().to_string();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let is_child = |pid: &Pid| {
        let stat = read_file(&format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
        let stat = String::from_utf8_lossy(&stat).into_owned();
        // After the name, which may hold anything and ends at the last parenthesis: state, parent.
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        after.split_ascii_whitespace().nth(1) == Some(me.as_str())
    };
    names.filter_map(|name| parse_pid(&name)).filter(is_child).collect()
}

fn parse_pid(text: &str) -> Option<Pid> {
    text.parse().ok().and_then(Pid::from_raw)
}

fn read_file(path: &str) -> Result<Vec<u8>, Errno> {
    let file: OwnedFd = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::with_capacity(4096);
    loop {
        if bytes.len() == bytes.capacity() {
            bytes.reserve(4096);
        }
        match rustix::io::read(&file, rustix::buffer::spare_capacity(&mut bytes)) {
            Ok(0) => return Ok(bytes),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_list_and_the_walk_find_the_same_child() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = parse_pid(&child.id().to_string()).unwrap();
        assert!(children().contains(&pid));
        assert!(children_by_walk().contains(&pid));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
