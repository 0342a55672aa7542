//! The spawner: the agent's own executable started again, which forks a supervisor per attempt.
//!
//! Forking costs what the forking process weighs, so the agent never forks. The spawner is started
//! early, stays single-threaded and small, and does nothing but receive requests and fork. It ends
//! when the agent's socket closes; its supervisors live on. It is always `/proc/self/exe`, so an
//! agent that was upgraded in place still starts the version that it is itself.
//!
//! `main` calls [`spawner_if_asked`] before anything else.

use std::ffi::OsStr;
use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg, socketpair,
};

use super::limits::{REQUEST_BYTES_MAX, REQUEST_INLINE_BYTES_MAX};
use super::request::Order;
use super::supervisor::{supervise, write_spawn_failure};

/// The first argument that makes this executable a spawner.
pub const SPAWNER_ARG: &str = "__spawner";

/// Runs the spawner if this process was started as one, and returns its exit code then.
///
/// Every binary that owns a [`ProcessExecutor`](super::ProcessExecutor) calls this first thing in
/// `main`, before threads, allocations and arguments:
///
/// ```ignore
/// fn main() -> std::process::ExitCode {
///     if let Some(code) = fleetwire_agent::executor::spawner_if_asked() {
///         return code;
///     }
///     …
/// }
/// ```
pub fn spawner_if_asked() -> Option<ExitCode> {
    (std::env::args_os().nth(1).as_deref() == Some(OsStr::new(SPAWNER_ARG))).then(spawner_main)
}

/// The spawner's life. Its standard input is the request socket, its standard output the event
/// socket, its working directory the executor's folder.
pub fn spawner_main() -> ExitCode {
    match Spawner::new() {
        Ok(mut spawner) => {
            spawner.run();
            ExitCode::SUCCESS
        }
        Err(errno) => {
            eprintln!("the spawner could not set itself up: {}", std::io::Error::from(errno));
            ExitCode::FAILURE
        }
    }
}

/// The agent's side of a running spawner.
#[derive(Debug)]
pub(super) struct SpawnerProcess {
    child: Child,
    /// The agent's end of the request socket; `None` once it is closed.
    pub requests: OwnedFd,
}

impl SpawnerProcess {
    /// Starts `executable` as a spawner in `folder`; its supervisors send to `events`.
    pub fn start(executable: &Path, folder: &Path, events: &OwnedFd) -> Result<Self, std::io::Error> {
        let (ours, theirs) = seqpacket_pair()?;
        let child = Command::new(executable)
            .arg(SPAWNER_ARG)
            .current_dir(folder)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(events.try_clone()?))
            .spawn()?;
        Ok(Self { child, requests: ours })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Closes the socket and waits until it has forked what it still had to, and is gone.
    pub fn end(mut self) {
        drop(self.requests);
        let _ = self.child.wait();
    }
}

/// A pair of sockets that keep messages whole.
pub(super) fn seqpacket_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

struct Spawner {
    /// `None` in a supervisor: the agent is to see the spawner's end although supervisors live.
    requests: Option<OwnedFd>,
    events: OwnedFd,
    null: OwnedFd,
    buffer: Vec<u8>,
}

impl Spawner {
    fn new() -> Result<Self, Errno> {
        // Whatever else was inherited is nobody's business here, least of all a task's.
        close_from(3)?;
        // This takes number 3, which is the report pipe's in every task, so that no descriptor of
        // ours can ever have that number.
        let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let requests = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 4)?;
        let events = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 4)?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        // Signals from a terminal are for the agent; it fails only if we lead a group already.
        let _ = rustix::process::setsid();
        rustix::thread::set_name(c"fw-spawner")?;
        reset_signals()?;
        Ok(Self { requests: Some(requests), events, null, buffer: vec![0; REQUEST_INLINE_BYTES_MAX] })
    }

    fn run(&mut self) {
        loop {
            match self.receive() {
                Ok(Some(request)) => self.on_request(request),
                Ok(None) => return,
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// The next request: how many bytes of it are in the buffer, the slot's lock, and the memory
    /// file with the whole of it when it is large.
    fn receive(&mut self) -> Result<Option<Request>, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut self.buffer)];
        let requests = self.requests.as_ref().ok_or(Errno::BADF)?;
        let message = recvmsg(requests, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        if message.bytes == 0 {
            return Ok(None);
        }
        let mut files = control.drain().filter_map(|part| match part {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        });
        let mut files = files.next().into_iter().flatten();
        Ok(Some(Request { bytes: message.bytes, lock: files.next(), memory: files.next() }))
    }

    fn on_request(&mut self, request: Request) {
        let Some(lock) = request.lock else {
            return;
        };
        #[expect(unsafe_code, reason = "fork is not offered by a safe interface")]
        // SAFETY: this process has one thread, so the child finds every lock and the allocator
        // in a state in which it may go on.
        let forked = unsafe { libc::fork() };
        match forked {
            0 => {
                self.requests = None;
                let inline = self.buffer.get(..request.bytes).unwrap_or_default();
                let (events, null) = (self.events.as_fd(), self.null.as_fd());
                // A panic must not unwind into the spawner's loop, of which this is a copy.
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    become_supervisor(inline, request.memory, &lock, events, null);
                }));
                #[expect(unsafe_code, reason = "a forked child must not run the spawner's exit handlers")]
                // SAFETY: ends this process at once, as it should.
                unsafe {
                    libc::_exit(i32::from(done.is_err()))
                }
            }
            1.. => {}
            _ => {
                let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::AGAIN);
                let inline = self.buffer.get(..request.bytes).unwrap_or_default();
                with_order(inline, request.memory, |order| {
                    write_spawn_failure(order, &lock, self.events.as_fd(), errno);
                });
            }
        }
    }
}

struct Request {
    bytes: usize,
    lock: Option<OwnedFd>,
    memory: Option<OwnedFd>,
}

fn become_supervisor(
    inline: &[u8],
    memory: Option<OwnedFd>,
    lock: &OwnedFd,
    events: BorrowedFd<'_>,
    null: BorrowedFd<'_>,
) {
    // The agent's terminal or log must not stay open because a task still runs.
    let _ = rustix::stdio::dup2_stderr(null);
    with_order(inline, memory, |order| supervise(order, lock, events));
}

/// Reads the request, from the memory file when there is one. A request that cannot be read is
/// left without a verdict, and the agent finds its slot lost.
fn with_order(inline: &[u8], memory: Option<OwnedFd>, then: impl FnOnce(&Order<'_>)) {
    let mut large = Vec::new();
    if let Some(memory) = memory {
        let file = std::fs::File::from(memory);
        if file.take(REQUEST_BYTES_MAX as u64).read_to_end(&mut large).is_err() {
            return;
        }
    }
    let bytes = if large.is_empty() { inline } else { &large };
    if let Ok(order) = Order::parse(bytes) {
        then(&order);
    }
}

/// Every signal does what it does by default, except that supervisors which end leave no zombie.
/// SIGCHLD is blocked, for the supervisors, which wait with it unblocked.
fn reset_signals() -> Result<(), Errno> {
    #[expect(unsafe_code, reason = "signal dispositions are not offered by a safe interface")]
    // SAFETY: default and ignore are always valid dispositions (numbers that have none are
    // refused by the kernel), and the set is a valid one.
    let result = unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        let mut blocked: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut blocked);
        libc::sigaddset(&raw mut blocked, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const blocked, std::ptr::null_mut())
    };
    if result < 0 { Err(Errno::INVAL) } else { Ok(()) }
}

/// Closes every descriptor from `first` on.
fn close_from(first: u32) -> Result<(), Errno> {
    #[expect(unsafe_code, reason = "closing descriptors that nobody owns")]
    // SAFETY: called at the start of the process, when nothing in it owns one of them.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if result == 0 {
        return Ok(());
    }
    // A kernel before 5.9 has no such call.
    for number in first..OLD_KERNEL_DESCRIPTORS {
        #[expect(unsafe_code, reason = "closing descriptors that nobody owns")]
        // SAFETY: as above; numbers that are not open are refused.
        unsafe {
            libc::close(i32::try_from(number).unwrap_or(i32::MAX));
        }
    }
    Ok(())
}

const OLD_KERNEL_DESCRIPTORS: u32 = 4096;
