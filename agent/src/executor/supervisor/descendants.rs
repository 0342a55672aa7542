//! Nothing outlives an attempt: every descendant is found, killed and reaped.
//!
//! The supervisor is a subreaper, so a process whose parent has gone becomes its child, however
//! often it forked and whatever session it made for itself. Killing all children until the kernel
//! says that there are none therefore ends the whole tree.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};

/// What one look at the children found.
#[derive(Debug, Clone, Copy)]
pub enum Reaped {
    /// This child ended.
    Child(Pid, WaitStatus),
    /// There are children, and none has ended.
    NoneReady,
    /// There are no children left.
    NoneLeft,
}

/// Reaps one child if one has ended.
pub fn reap_one(block: bool) -> Reaped {
    let options = if block { WaitOptions::empty() } else { WaitOptions::NOHANG };
    loop {
        match wait(options) {
            Ok(Some((pid, status))) => return Reaped::Child(pid, status),
            Ok(None) => return Reaped::NoneReady,
            Err(Errno::INTR) => {}
            Err(_) => return Reaped::NoneLeft,
        }
    }
}

/// Kills and reaps until there are no children; `on_reaped` sees each of them.
pub fn kill_all(mut on_reaped: impl FnMut(Pid, WaitStatus)) {
    loop {
        match reap_one(false) {
            Reaped::Child(pid, status) => on_reaped(pid, status),
            Reaped::NoneLeft => return,
            Reaped::NoneReady => {
                kill_children();
                // At least one was killed, or is already on its way out; the kernel wakes us.
                if let Reaped::Child(pid, status) = reap_one(true) {
                    on_reaped(pid, status);
                }
            }
        }
    }
}

fn kill_children() {
    for pid in children() {
        // A child that ended meanwhile is a zombie until we reap it, so the number is still its own.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Our children now. The kernel's own list, or without it a walk through all processes.
fn children() -> Vec<Pid> {
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
