//! The spawner: the agent's own executable started again, which forks a supervisor per attempt.
//!
//! Forking costs what the forking process weighs, so the agent never forks. The spawner is started
//! early, stays single-threaded and small, and does nothing but receive requests and fork. It ends
//! when the agent's socket closes; its supervisors live on. It is always `/proc/self/exe`, so an
//! agent that was upgraded in place still starts the version that it is itself.
//!
//! A supervisor whose attempt has ended waits a moment for another one, on the same socket, before
//! it exits: for short tasks that saves a fork and an exit each. An attempt never notices, because
//! nothing is kept from one to the next.
//!
//! `main` calls [`spawner_if_asked`] before anything else.

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::handover::{Received, receive, send_files};
use super::limits::{
    IDLE_HEAD_START_US, IDLE_SUPERVISORS_MAX, REQUEST_BYTES_MAX, REQUEST_INLINE_BYTES_MAX, SUPERVISOR_IDLE_MAX,
};
use super::request::{Order, header};
use super::supervisor::{
    Look, Woken, children, hear_of_children, isolate, reap_one, supervise, tell_ended, tidy, wait, write_released,
    write_spawn_failure,
};
use super::wire::warm_up;

/// The first argument that makes this executable a spawner.
pub const SPAWNER_ARG: &str = "__spawner";

/// Runs the spawner if this process was started as one, and returns its exit code then.
///
/// Every binary that owns a [`ProcessExecutor`](super::ProcessExecutor) calls this first thing in
/// `main`, before threads, allocations and arguments:
///
/// ```text
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
    /// The agent's end of the request socket.
    pub requests: OwnedFd,
    /// Readable when the process has ended. (The socket would not tell: idle supervisors have it.)
    pub gone: OwnedFd,
}

impl SpawnerProcess {
    /// Starts `executable` as a spawner in `folder`; its supervisors send to `events`.
    pub fn start(
        executable: &Path,
        folder: &Path,
        (events, staged): (&OwnedFd, &OwnedFd),
    ) -> Result<Self, std::io::Error> {
        let (ours, theirs) = seqpacket_pair()?;
        // The first message is no request: it brings the socket with the staged ones.
        send_files(&ours, b"s", &[staged])?;
        let child = Command::new(executable)
            .arg(SPAWNER_ARG)
            .current_dir(folder)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(events.try_clone()?))
            .spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        // The child was not waited for, so the number is still its own.
        let gone = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { child, requests: ours, gone })
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
    /// Shared with the supervisors that are idle, which wait on it too.
    requests: OwnedFd,
    /// Requests that a supervisor takes when its attempt has ended.
    staged: OwnedFd,
    events: OwnedFd,
    null: OwnedFd,
    /// The executor's folder, where a supervisor begins.
    folder: OwnedFd,
    /// How many supervisors wait for another attempt, in memory shared with them.
    idle: &'static AtomicU32,
    /// The supervisors that live. Any other child was left by one that died.
    supervisors: Vec<Pid>,
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
        set_socket_timeout(&requests, Timeout::Recv, Some(SUPERVISOR_IDLE_MAX))?;
        let folder = rustix::fs::open(c".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        // Signals from a terminal are for the agent; it fails only if we lead a group already.
        let _ = rustix::process::setsid();
        rustix::thread::set_name(c"fw-spawner")?;
        // Any process id says yes.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        reset_signals()?;
        hear_of_children()?;
        // What the processor can do is asked once here; in each child it would be asked again.
        warm_up();
        let mut buffer = vec![0; REQUEST_INLINE_BYTES_MAX];
        let staged = receive(&requests, &mut buffer, RecvFlags::empty())?.and_then(|first| first.lock);
        let staged = staged.ok_or(Errno::PROTO)?;
        Ok(Self { requests, staged, events, null, folder, idle: shared_counter()?, supervisors: Vec::new(), buffer })
    }

    fn run(&mut self) {
        loop {
            if matches!(wait([Some(self.requests.as_fd()), None, None, None], None), Woken::ChildEnded) {
                self.on_child_ended();
                continue;
            }
            // A supervisor that waits takes it sooner than a new one could; if that one is gone,
            // or there are more requests, the rest is ours.
            if self.idle.load(Ordering::Relaxed) > 0 {
                let _ = wait([None; 4], Some(IDLE_HEAD_START_US));
            }
            loop {
                match self.receive(RecvFlags::DONTWAIT) {
                    Ok(Some(request)) => self.on_request(request),
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    Ok(None) | Err(_) => return,
                }
            }
        }
    }

    /// The next request. `None`: the agent is gone.
    fn receive(&mut self, flags: RecvFlags) -> Result<Option<Received>, Errno> {
        receive(&self.requests, &mut self.buffer, flags)
    }

    fn on_request(&mut self, request: Received) {
        #[expect(unsafe_code, reason = "fork is not offered by a safe interface")]
        // SAFETY: this process has one thread, so the child finds every lock and the allocator
        // in a state in which it may go on.
        let forked = unsafe { libc::fork() };
        match forked {
            0 => {
                // A panic must not unwind into the spawner's loop, of which this is a copy.
                let done = std::panic::catch_unwind(AssertUnwindSafe(|| self.be_supervisor(request)));
                #[expect(unsafe_code, reason = "a forked child must not run the spawner's exit handlers")]
                // SAFETY: ends this process at once, as it should.
                unsafe {
                    libc::_exit(i32::from(done.is_err()))
                }
            }
            1.. => self.supervisors.extend(Pid::from_raw(forked)),
            _ => {
                let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::AGAIN);
                let events = self.events.as_fd();
                self.with_order(request, |order, lock| write_spawn_failure(order, lock, events, errno));
            }
        }
    }

    /// Forgets supervisors that ended. One that was killed left its task's processes to us, unless
    /// the kernel killed them with it: none of them may go on.
    fn on_child_ended(&mut self) {
        let mut killed = false;
        while let Look::Reaped(child) = reap_one(false) {
            killed |= self.forget(child.pid) && child.signal != 0;
        }
        while killed {
            let strays: Vec<Pid> = children().into_iter().filter(|pid| !self.supervisors.contains(pid)).collect();
            killed = !strays.is_empty();
            for pid in strays {
                let _ = kill_process(pid, Signal::KILL);
            }
            // What a stray leaves behind comes to us when it has gone.
            if killed && let Look::Reaped(child) = reap_one(true) {
                self.forget(child.pid);
            }
        }
    }

    /// Whether this was one of the supervisors.
    fn forget(&mut self, pid: Pid) -> bool {
        let before = self.supervisors.len();
        self.supervisors.retain(|other| *other != pid);
        self.supervisors.len() < before
    }

    /// The life of a supervisor: this attempt, and then others as long as they come soon.
    fn be_supervisor(&mut self, first: Received) {
        self.supervisors.clear();
        // The agent's terminal or log must not stay open because a task still runs.
        let _ = rustix::stdio::dup2_stderr(&self.null);
        let isolated = isolate();
        let mut spare = vec![0; REQUEST_INLINE_BYTES_MAX];
        let mut next = Some(first);
        while let Some(request) = next {
            let mut staged = None;
            self.with_order(request, |order, lock| match isolated {
                Ok(()) => staged = self.run_one(order, lock, &mut spare),
                Err(errno) => write_spawn_failure(order, lock, self.events.as_fd(), errno),
            });
            // The lock was given up with the request, so the slot is free.
            if rustix::process::fchdir(&self.folder).is_err() {
                return;
            }
            if staged.is_some() {
                std::mem::swap(&mut self.buffer, &mut spare);
            }
            next = staged.or_else(|| self.next_as_supervisor());
        }
    }

    /// Runs one attempt to its end and takes a staged one, into `buffer`. The slot stays locked until the agent has been
    /// told which: whoever finds the lock free finds that word, too.
    fn run_one(&self, order: &Order<'_>, lock: &OwnedFd, buffer: &mut [u8]) -> Option<Received> {
        let events = self.events.as_fd();
        if !supervise(order, lock, events) {
            tidy();
            return None;
        }
        let mut taken = receive(&self.staged, buffer, RecvFlags::DONTWAIT).ok().flatten();
        let next = taken.as_ref().and_then(|taken| header(buffer.get(..taken.bytes)?).ok());
        if !tell_ended(order, next, events)
            && let Some(request) = taken.take()
        {
            self.with_bytes(buffer, request, write_released);
        }
        tidy();
        taken
    }

    /// Waits for another attempt. `None`: enough others wait, none came for long, or the agent
    /// is gone.
    fn next_as_supervisor(&mut self) -> Option<Received> {
        let others = self.idle.fetch_add(1, Ordering::Relaxed);
        let received = if others < IDLE_SUPERVISORS_MAX { self.receive(RecvFlags::empty()) } else { Ok(None) };
        self.idle.fetch_sub(1, Ordering::Relaxed);
        received.ok().flatten()
    }

    /// Reads the request, from the memory file when there is one. A request that cannot be read is
    /// left without a verdict, and the agent finds its slot lost.
    fn with_order(&self, request: Received, then: impl FnOnce(&Order<'_>, &OwnedFd)) {
        self.with_bytes(&self.buffer, request, then);
    }

    fn with_bytes(&self, buffer: &[u8], request: Received, then: impl FnOnce(&Order<'_>, &OwnedFd)) {
        let Some(lock) = request.lock else {
            return;
        };
        let mut large = Vec::new();
        if let Some(memory) = request.memory {
            let file = std::fs::File::from(memory);
            if file.take(REQUEST_BYTES_MAX as u64).read_to_end(&mut large).is_err() {
                return;
            }
        }
        let inline = buffer.get(..request.bytes).unwrap_or_default();
        let bytes = if large.is_empty() { inline } else { &large };
        if let Ok(order) = Order::parse(bytes) {
            then(&order, &lock);
        }
    }
}

fn shared_counter() -> Result<&'static AtomicU32, Errno> {
    let bytes = size_of::<AtomicU32>();
    #[expect(unsafe_code, reason = "memory shared with forked children")]
    // SAFETY: a new mapping that is never unmapped, page-aligned, zeroed, and used as this one
    // atomic number only.
    unsafe {
        let page = mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED)?;
        Ok(AtomicU32::from_ptr(page.cast()))
    }
}

/// Every signal does what it does by default. SIGCHLD is blocked, except while waiting.
fn reset_signals() -> Result<(), Errno> {
    #[expect(unsafe_code, reason = "signal dispositions are not offered by a safe interface")]
    // SAFETY: the default is always a valid disposition (numbers that have none are refused by
    // the kernel), and the set is a valid one.
    let result = unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
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
