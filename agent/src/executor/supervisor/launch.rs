//! Starting the task's program with what vfork offers: the child runs in the supervisor's memory,
//! on a stack of its own, until it becomes the program; nothing is copied, and a failure comes back
//! as a value.
//!
//! Between the clone and the exec only system calls are made: no allocation, no locks.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::process::Pid;

use super::super::record::StartFailure;
use super::super::request::REPORT_FD;

/// Everything the child needs.
#[derive(Debug)]
pub struct Program<'a> {
    /// Paths to try, in order.
    pub paths: &'a [&'a CStr],
    /// The program's arguments, its own name first.
    pub arguments: &'a [&'a CStr],
    /// Its environment.
    pub environment: &'a [&'a CStr],
    /// Where it starts.
    pub work: BorrowedFd<'a>,
    /// The writing ends.
    pub stdout: BorrowedFd<'a>,
    /// The writing end for errors.
    pub stderr: BorrowedFd<'a>,
    /// The writing end for report lines.
    pub report: BorrowedFd<'a>,
}

/// Why the program did not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchError {
    /// What the kernel said.
    pub errno: Errno,
    /// Whether the program itself was refused, or the steps before it.
    pub at_exec: bool,
}

impl LaunchError {
    /// The class of the failure.
    pub fn failure(self) -> StartFailure {
        match self.errno {
            _ if !self.at_exec => StartFailure::Resources,
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => StartFailure::NotFound,
            Errno::ACCESS | Errno::PERM | Errno::ISDIR => StartFailure::PermissionDenied,
            Errno::TOOBIG => StartFailure::TooLarge,
            Errno::NOEXEC | Errno::LIBBAD => StartFailure::NotExecutable,
            Errno::NOMEM | Errno::AGAIN | Errno::NFILE | Errno::MFILE => StartFailure::Resources,
            _ => StartFailure::Other,
        }
    }
}

/// What the child sees, in memory that it shares with its waiting parent.
struct Plan {
    parent: Pid,
    paths: Vec<*const c_char>,
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    work: c_int,
    streams: [(c_int, c_int); 3],
    failed: Option<LaunchError>,
}

/// Starts the program in a process group of its own; it dies with the supervisor. Returns when the
/// program runs, or did not.
pub fn launch(program: &Program<'_>) -> Result<Pid, LaunchError> {
    let mut plan = Plan {
        parent: rustix::process::getpid(),
        paths: pointers(program.paths),
        arguments: pointers(program.arguments),
        environment: pointers(program.environment),
        work: program.work.as_raw_fd(),
        streams: [
            (program.stdout.as_raw_fd(), 1),
            (program.stderr.as_raw_fd(), 2),
            (program.report.as_raw_fd(), REPORT_FD),
        ],
        failed: None,
    };
    let mut stack: Vec<u8> = Vec::with_capacity(STACK_BYTES);
    let top = stack.as_mut_ptr().wrapping_add(STACK_BYTES);
    let top = top.wrapping_sub(top.addr() % STACK_ALIGNMENT);
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    #[expect(unsafe_code, reason = "vfork semantics are not offered by a safe interface")]
    // SAFETY: `top` is the aligned end of STACK_BYTES of memory that lives until this function
    // returns, and with CLONE_VFORK the child has left it by then (exec or exit). `plan` lives as
    // long, and this thread, the only one, does not touch it meanwhile. `become_program` does not
    // unwind: it makes system calls only.
    let pid = unsafe { libc::clone(become_program, top.cast(), flags, (&raw mut plan).cast()) };
    let failed = plan.failed;
    drop(stack);
    match (Pid::from_raw(pid.max(0)), failed) {
        (Some(pid), None) => Ok(pid),
        (Some(pid), Some(error)) => {
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            Err(error)
        }
        (None, _) => Err(LaunchError { errno: last_errno(), at_exec: false }),
    }
}

extern "C" fn become_program(plan: *mut c_void) -> c_int {
    #[expect(unsafe_code, reason = "the plan comes through the C interface of clone")]
    // SAFETY: `launch` passed a pointer to its Plan, which outlives this child, and is suspended.
    let plan = unsafe { &mut *plan.cast::<Plan>() };
    plan.failed = Some(match prepare(plan) {
        Ok(()) => execute(plan),
        Err(errno) => LaunchError { errno, at_exec: false },
    });
    127
}

fn prepare(plan: &Plan) -> Result<(), Errno> {
    // A group, not a session: a session would cost a scheduling group each, and there is no terminal.
    rustix::process::setpgid(None, None)?;
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // The supervisor may have died before the line above; then nobody watches, so nobody runs.
    if rustix::process::getppid() != Some(plan.parent) {
        return Err(Errno::CHILD);
    }
    for (from, to) in plan.streams {
        #[expect(unsafe_code, reason = "the numbers 1 to 3 are given to the program, not owned here")]
        // SAFETY: both are plain numbers; the child's table of descriptors is its own copy.
        let result = unsafe { libc::dup2(from, to) };
        if result < 0 {
            return Err(last_errno());
        }
    }
    #[expect(unsafe_code, reason = "the descriptor is borrowed through the plan as a number")]
    // SAFETY: a plain system call on a number.
    let result = unsafe { libc::fchdir(plan.work) };
    if result < 0 {
        return Err(last_errno());
    }
    unblock_signals()
}

/// The supervisor blocks SIGCHLD; a program starts with nothing blocked.
fn unblock_signals() -> Result<(), Errno> {
    #[expect(unsafe_code, reason = "signal masks are not offered by a safe interface")]
    // SAFETY: an all-zero set is a valid set, emptied again by `sigemptyset`; the mask of this
    // child is its own.
    let result = unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
    };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Tries every path, as a shell does: what is missing is passed over, and a refusal is remembered.
fn execute(plan: &Plan) -> LaunchError {
    let mut refused = Errno::NOENT;
    for path in plan.paths.iter().take_while(|path| !path.is_null()) {
        #[expect(unsafe_code, reason = "exec takes arrays of pointers")]
        // SAFETY: `path` and all entries point to texts with a closing NUL that the parent keeps,
        // and both arrays end with a null pointer.
        unsafe {
            libc::execve(*path, plan.arguments.as_ptr(), plan.environment.as_ptr())
        };
        match last_errno() {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => refused = Errno::ACCESS,
            errno => return LaunchError { errno, at_exec: true },
        }
    }
    LaunchError { errno: refused, at_exec: true }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn pointers(texts: &[&CStr]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

const STACK_BYTES: usize = 64 << 10;
const STACK_ALIGNMENT: usize = 16;
