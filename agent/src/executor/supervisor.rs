//! The supervisor: the tiny process beside each running attempt, which outlives the agent.
//!
//! Forked by the spawner, it holds the slot's lock from before its first instruction until its
//! end (the agent took the lock and handed it over, so there is no moment without it). It starts
//! the task in a session of its own, keeps its output, hears cancels through the slot's FIFO,
//! enforces the run timeout, kills and reaps every descendant, and only then writes the verdict.
//! Nobody has to be listening: events to the agent are sent without waiting, and what matters is
//! in the slot.
//!
//! Invariants: single-threaded; the verdict is written after the last descendant is gone; a task
//! whose supervisor dies is killed by the kernel (parent-death signal).

mod capture;
mod descendants;
mod explain;
mod launch;
mod waiting;
mod words;
mod workdir;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fleetwire_schemas::EndReason;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, openat};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process_group};

use self::capture::Capture;
pub(super) use self::descendants::{Look, children, reap_one};
use self::descendants::{Reaped, kill_all};
use self::explain::{NotStarted, explain, not_started};
use self::launch::{Program, launch};
use self::waiting::boot_us;
pub(super) use self::waiting::{Woken, hear_of_children, now, wait};
use self::words::{begin, write_verdict};
pub(super) use self::words::{tell_ended, write_released, write_spawn_failure};
use self::workdir::Taken;
use super::heard::Heard;
use super::limits::STARTED_DELAY_US;
use super::notice::{CANCEL_BYTES, Cancel, Notice};
use super::record::{LIVE_OFFSET, Live, Moment, StartFailure, Usage, VERDICT_OFFSET, Verdict};
use super::report::Reports;
use super::request::Order;
use super::slots::write_all;

/// Runs one attempt to its end. `record` is the slot's `attempt` file with the slot's lock. Says whether the
/// verdict is written.
pub(super) fn supervise(order: &Order<'_>, record: &OwnedFd, events: BorrowedFd<'_>) -> bool {
    let mut heard = Heard { at_us: order.heard_us, order };
    if heard.is_too_long_ago(boot_us()) {
        // By now the scheduler may have given it to another.
        let mut verdict = Verdict::bare(order.key(), EndReason::Disconnected, heard.message());
        verdict.ended = now();
        return write_verdict(record, &mut verdict, order.mark).is_ok();
    }
    let mut verdict = match Running::start(order, record, events, heard) {
        Ok(mut running) => {
            running.drive();
            running.finish()
        }
        Err(NotStarted { failure, message }) => {
            let mut verdict = Verdict::bare(order.key(), EndReason::SpawnFailed, message);
            verdict.failure = Some(failure);
            verdict
        }
    };
    verdict.ended = now();
    write_verdict(record, &mut verdict, order.mark).is_ok()
}

/// Empties the working directory, in which we are: the disk space is free again before the slot is.
pub(super) fn tidy() {
    if let Ok(work) = openat(CWD, c"work", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = workdir::empty(work.as_fd());
    }
}

/// The task is to end: SIGTERM was sent, and at `kill_at_us` everything is killed.
struct Stop {
    reason: EndReason,
    message: String,
    kill_at_us: u64,
}

struct Running<'a> {
    order: &'a Order<'a>,
    heard: Heard<'a>,
    record: &'a OwnedFd,
    events: BorrowedFd<'a>,
    control: OwnedFd,
    work: OwnedFd,
    stdout: Capture,
    stderr: Capture,
    report_pipe: Option<OwnedFd>,
    reports: Reports,
    main: Pid,
    /// How the main process ended.
    main_end: Option<Reaped>,
    used: Usage,
    started: Moment,
    ended_us: u64,
    started_sent: bool,
    /// Nobody listens any more: reports are noted in the slot.
    agent_gone: bool,
    try_again_us: u64,
    stop: Option<Stop>,
    noted: Option<Live>,
    scratch: Vec<u8>,
}

impl<'a> Running<'a> {
    fn start(
        order: &'a Order<'a>,
        record: &'a OwnedFd,
        events: BorrowedFd<'a>,
        heard: Heard<'a>,
    ) -> Result<Self, NotStarted> {
        let slot = order.slot.0.to_string();
        rustix::process::chdir(slot.as_str()).map_err(|errno| not_started(StartFailure::Files, "its slot", errno))?;
        let work = workdir::open_empty(CWD)
            .map_err(|errno| not_started(StartFailure::Files, "its working directory", errno))?;
        for file in &order.files {
            workdir::place_file(work.as_fd(), file.path, file.data, file.executable)
                .map_err(|errno| not_started(StartFailure::Files, &format!("the file `{}`", file.path), errno))?;
        }
        let resources = |errno| not_started(StartFailure::Resources, "a pipe", errno);
        let control = open_control().map_err(resources)?;
        let (stdout, stdout_end) = pipe_with(PipeFlags::CLOEXEC).map_err(resources)?;
        let (stderr, stderr_end) = pipe_with(PipeFlags::CLOEXEC).map_err(resources)?;
        let (report, report_end) = pipe_with(PipeFlags::CLOEXEC).map_err(resources)?;
        let started = now();
        let program = Program {
            paths: &order.programs,
            arguments: &order.arguments,
            environment: &order.environment,
            work: work.as_fd(),
            stdout: stdout_end.as_fd(),
            stderr: stderr_end.as_fd(),
            report: report_end.as_fd(),
        };
        begin(record, order.mark, started)
            .map_err(|errno| not_started(StartFailure::Files, "its slot's file", errno))?;
        let main = launch(&program).map_err(|error| explain(order, work.as_fd(), error))?;
        Ok(Self {
            order,
            heard,
            record,
            events,
            control,
            work,
            stdout: Capture::new(stdout, c"stdout", order.output_bytes_max),
            stderr: Capture::new(stderr, c"stderr", order.output_bytes_max),
            report_pipe: Some(report),
            reports: Reports::default(),
            main,
            main_end: None,
            used: Usage::default(),
            started,
            ended_us: started.boot_us,
            started_sent: false,
            agent_gone: false,
            try_again_us: 0,
            stop: None,
            noted: None,
            scratch: Vec::with_capacity(SCRATCH_BYTES),
        })
    }

    /// Until the main process has ended or everything was killed.
    fn drive(&mut self) {
        loop {
            let now_us = boot_us();
            if self.enforce(now_us) {
                return;
            }
            self.announce(now_us);
            let pipes = [
                Some(self.control.as_fd()),
                self.stdout.pipe(),
                self.stderr.pipe(),
                self.report_pipe.as_ref().map(AsFd::as_fd),
            ];
            match wait(pipes, self.wake_at(now_us).map(|at| at.saturating_sub(now_us))) {
                Woken::ChildEnded => {
                    if self.on_child_ended() {
                        return;
                    }
                }
                Woken::Ready([control, stdout, stderr, report]) => {
                    if control {
                        self.on_control();
                    }
                    if stdout {
                        self.stdout.on_readable(&mut self.scratch);
                    }
                    if stderr {
                        self.stderr.on_readable(&mut self.scratch);
                    }
                    if report {
                        self.on_report_readable();
                    }
                }
            }
        }
    }

    /// Acts on deadlines that have passed. True when everything was killed.
    fn enforce(&mut self, now_us: u64) -> bool {
        if let Some(stop) = &self.stop {
            if now_us < stop.kill_at_us {
                return false;
            }
            let _ = kill_process_group(self.main, Signal::KILL);
            kill_all(|child| self.on_reaped(child));
            return true;
        }
        let timeout_us = self.order.timeout_us;
        if timeout_us != 0 && now_us >= self.started.boot_us.saturating_add(timeout_us) {
            let seconds = timeout_us as f64 / 1e6;
            let message = format!("stopped after its run timeout of {seconds} s");
            self.stop(EndReason::RunTimeout, message, self.order.grace_us, now_us);
        } else if self.heard.is_too_long_ago(now_us) {
            // What of its grace has passed already, because the device slept, it has had: another may run by now.
            let overdue_us = now_us.saturating_sub(self.heard.until_us().unwrap_or(now_us));
            let grace_us = self.order.grace_us.saturating_sub(overdue_us);
            self.stop(EndReason::Disconnected, self.heard.message(), grace_us, now_us);
        }
        false
    }

    fn stop(&mut self, reason: EndReason, message: String, grace_us: u64, now_us: u64) {
        self.stop = Some(Stop { reason, message, kill_at_us: now_us.saturating_add(grace_us) });
        let _ = kill_process_group(self.main, Signal::TERM);
        // A stopped process hears nothing until it is continued.
        let _ = kill_process_group(self.main, Signal::CONT);
    }

    fn wake_at(&self, now_us: u64) -> Option<u64> {
        let mut wake_at: Option<u64> = None;
        let mut at = |time_us: u64| wake_at = Some(wake_at.map_or(time_us, |other| other.min(time_us)));
        if let (None, Some(until_us)) = (&self.stop, self.heard.until_us()) {
            at(until_us.min(now_us + LOOK_UP_US));
        }
        if let Some(stop) = &self.stop {
            at(stop.kill_at_us);
        } else if self.order.timeout_us != 0 {
            // The kernel's wait does not count suspended time, so look at the clock now and then.
            at(self.started.boot_us.saturating_add(self.order.timeout_us).min(now_us + LOOK_UP_US));
        }
        if !self.started_sent {
            at(self.started.boot_us.saturating_add(STARTED_DELAY_US).max(self.try_again_us));
        } else if let Some(due_us) = self.reports.due_at() {
            at(due_us.max(self.try_again_us));
        }
        wake_at
    }

    /// Tells the agent what is due. When it does not listen, the same is tried again later.
    fn announce(&mut self, now_us: u64) {
        if !self.started_sent && now_us < self.started.boot_us.saturating_add(STARTED_DELAY_US) {
            return;
        }
        self.note_live();
        if now_us < self.try_again_us {
            return;
        }
        if !self.started_sent {
            let notice = Notice::Started {
                supervisor: raw(rustix::process::getpid()),
                main: raw(self.main),
                started: self.started,
            };
            self.started_sent = self.send(&notice, now_us);
        }
        if !self.started_sent || self.reports.due_at().is_none_or(|due_us| due_us > now_us) {
            return;
        }
        if !self.agent_gone {
            let notice = Notice::Report(self.reports.news());
            if self.send(&notice, now_us) {
                self.reports.on_sent(now_us);
            }
        }
        if self.agent_gone {
            let report = self.reports.latest().seal(self.order.mark);
            let _ = write_all(self.record, &report, VERDICT_OFFSET);
            self.reports.on_sent(now_us);
            self.try_again_us = now_us.saturating_add(NOTE_INTERVAL_US);
        }
    }

    fn send(&mut self, notice: &Notice, now_us: u64) -> bool {
        let bytes = notice.encode(self.order.slot, self.order.mark);
        match send(self.events, &bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) => true,
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => {
                self.try_again_us = now_us.saturating_add(TRY_AGAIN_US);
                false
            }
            // Whoever comes next reads the slot.
            Err(_) => {
                self.agent_gone = true;
                true
            }
        }
    }

    /// Notes in the slot what a reader of the running attempt has to know.
    fn note_live(&mut self) {
        let live = Live {
            mark: self.order.mark,
            supervisor: raw(rustix::process::getpid()),
            main: raw(self.main),
            started: self.started,
            stdout: self.stdout.count(),
            stderr: self.stderr.count(),
        };
        if self.noted != Some(live) {
            let _ = rustix::io::pwrite(self.record, &live.encode(), LIVE_OFFSET);
            self.noted = Some(live);
        }
    }

    fn on_child_ended(&mut self) -> bool {
        loop {
            match reap_one(false) {
                Look::Reaped(child) => self.on_reaped(child),
                Look::NoneReady => return self.main_end.is_some(),
                Look::NoneLeft => return true,
            }
        }
    }

    fn on_reaped(&mut self, child: Reaped) {
        if child.pid == self.main {
            self.main_end = Some(child);
            self.ended_us = boot_us();
        }
        self.used.user_us = self.used.user_us.saturating_add(child.usage.user_us);
        self.used.system_us = self.used.system_us.saturating_add(child.usage.system_us);
        self.used.memory_peak_kb = self.used.memory_peak_kb.max(child.usage.memory_peak_kb);
    }

    fn on_control(&mut self) {
        let mut bytes = [0_u8; CANCEL_BYTES];
        // Each write of an agent is one whole message: it is far below the pipe's atomic size.
        let Ok(count) = rustix::io::read(&self.control, &mut bytes) else {
            return;
        };
        let Ok(cancel) = Cancel::decode(bytes.get(..count).unwrap_or_default()) else {
            return;
        };
        if cancel.mark != self.order.mark {
            return;
        }
        let now_us = boot_us();
        let grace_us = u64::try_from(cancel.grace.as_micros()).unwrap_or(u64::MAX);
        match &mut self.stop {
            None => self.stop(EndReason::Cancelled, String::new(), grace_us, now_us),
            // Asked again, perhaps with less patience.
            Some(stop) => stop.kill_at_us = stop.kill_at_us.min(now_us.saturating_add(grace_us)),
        }
    }

    fn on_report_readable(&mut self) -> usize {
        let Some(pipe) = &self.report_pipe else {
            return 0;
        };
        self.scratch.clear();
        match rustix::io::read(pipe, rustix::buffer::spare_capacity(&mut self.scratch)) {
            Ok(count @ 1..) => {
                self.reports.on_bytes(&self.scratch);
                count
            }
            Err(Errno::INTR) => 0,
            Ok(0) | Err(_) => {
                self.report_pipe = None;
                0
            }
        }
    }

    /// Ends what is left, takes what is in the pipes, and makes the verdict.
    fn finish(mut self) -> Verdict {
        kill_all(|child| self.on_reaped(child));
        for _ in 0..DRAIN_ROUNDS_MAX {
            let report = self.report_pipe.as_ref().map(AsFd::as_fd);
            let taken = match wait([None, self.stdout.pipe(), self.stderr.pipe(), report], Some(0)) {
                Woken::Ready([_, stdout, stderr, report]) => {
                    let mut taken = 0;
                    if stdout {
                        taken += self.stdout.on_readable(&mut self.scratch);
                    }
                    if stderr {
                        taken += self.stderr.on_readable(&mut self.scratch);
                    }
                    if report {
                        taken += self.on_report_readable();
                    }
                    taken
                }
                Woken::ChildEnded => continue,
            };
            // No writer is left, so what is not there now never comes.
            if taken == 0 {
                break;
            }
        }
        self.reports.on_end();
        let (exit_code, signal) = self.main_end.map_or((0, 0), |main| (main.exit_code, main.signal));
        let (reason, message) = match self.stop.take() {
            Some(stop) => (stop.reason, stop.message),
            None if signal != 0 => (EndReason::Signalled, String::new()),
            None => (EndReason::Exited, String::new()),
        };
        let mut verdict = Verdict::bare(self.order.key(), reason, message);
        verdict.exit_code = exit_code;
        verdict.signal = u8::try_from(signal).unwrap_or(u8::MAX);
        match workdir::take_result(self.work.as_fd(), self.order.result_path) {
            Taken::Absent => {}
            Taken::Whole(bytes) => verdict.result = Some(bytes),
            Taken::Refused(why) if verdict.message.is_empty() => verdict.message = why,
            Taken::Refused(why) => verdict.message = format!("{}; {why}", verdict.message),
        }
        verdict.usage = Usage { wall_us: self.ended_us.saturating_sub(self.started.boot_us), ..self.used };
        verdict.stdout = self.stdout.count();
        verdict.stderr = self.stderr.count();
        verdict.started = self.started;
        verdict.report = self.reports.latest().clone();
        verdict
    }
}

/// Once in a supervisor's life: leaves the spawner's session and adopts orphans. (It hears of
/// children that end as the spawner does.)
pub(super) fn isolate() -> Result<(), Errno> {
    rustix::process::setsid()?;
    // Any process id says yes.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    rustix::thread::set_name(c"fw-supervisor")
}

fn open_control() -> Result<OwnedFd, Errno> {
    // Open for reading and writing, so that an agent that comes and goes is no end of file.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(CWD, c"control", flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            mknodat(CWD, c"control", FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
            openat(CWD, c"control", flags, Mode::empty())
        }
        other => other,
    }
}

fn raw(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

const SCRATCH_BYTES: usize = 64 << 10;
const LOOK_UP_US: u64 = 60_000_000;
const TRY_AGAIN_US: u64 = 50_000;
const NOTE_INTERVAL_US: u64 = 1_000_000;
// A pipe holds at most 1 MiB without privileges; nobody writes any more.
const DRAIN_ROUNDS_MAX: u32 = 64;
