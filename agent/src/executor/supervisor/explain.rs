//! Why an attempt did not start, in words that say what to look at.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;

use super::super::record::StartFailure;
use super::super::request::Order;
use super::launch::LaunchError;

/// Why an attempt did not start.
pub struct NotStarted {
    pub failure: StartFailure,
    pub message: String,
}

/// Something that a program needs could not be prepared.
pub fn not_started(failure: StartFailure, what: &str, errno: Errno) -> NotStarted {
    let error = std::io::Error::from(errno);
    NotStarted { failure, message: format!("{what} could not be prepared: {error}") }
}

/// Says to people why the program did not start, and what to look at.
pub fn explain(order: &Order<'_>, work: BorrowedFd<'_>, error: LaunchError) -> NotStarted {
    let failure = error.failure();
    let command = order.command;
    let exists = || statat(work, command, AtFlags::empty()).is_ok();
    let message = match failure {
        StartFailure::NotFound if !command.contains('/') => {
            let path = order.environment.iter().find_map(|text| text.to_bytes().strip_prefix(b"PATH="));
            let path = String::from_utf8_lossy(path.unwrap_or_default()).into_owned();
            format!("program `{command}` was not found in PATH ({path})")
        }
        StartFailure::NotFound if exists() => {
            format!("program `{command}` is there, but the interpreter that it names is not")
        }
        StartFailure::NotFound => format!("there is no program `{command}`"),
        StartFailure::PermissionDenied => format!("program `{command}` may not be executed: permission denied"),
        StartFailure::TooLarge => {
            format!("the arguments and the environment of `{command}` are larger than the kernel takes")
        }
        StartFailure::NotExecutable => {
            format!("program `{command}` is nothing that this machine can execute (a script needs a `#!` line)")
        }
        StartFailure::Files | StartFailure::Resources | StartFailure::Other => {
            let error = std::io::Error::from(error.errno);
            format!("program `{command}` could not be started: {error}")
        }
    };
    NotStarted { failure, message }
}
