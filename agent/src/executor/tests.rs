//! Stories of real processes. The test binary itself is the spawner: see [`BECOME_SPAWNER`].

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::path::Path;
use std::time::{Duration, Instant};

use fleetwire_schemas::EndReason;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::record::{LIVE_OFFSET, Live};
use super::*;

mod deaths;
mod many;
mod numbers;
mod staging;
mod waking;

/// Runs before `main`, which belongs to the test harness: turns this very process into a spawner
/// when it was started as one.
#[expect(unsafe_code, reason = "the test harness owns `main`, so the spawner begins before it")]
#[used]
// SAFETY: the section holds functions of this signature; this one needs nothing but the arguments,
// which the standard library has taken from an earlier entry of the same section.
#[unsafe(link_section = ".init_array")]
static BECOME_SPAWNER: extern "C" fn() = become_spawner_if_asked;

extern "C" fn become_spawner_if_asked() {
    if spawner_if_asked().is_some() {
        std::process::exit(0);
    }
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|argument| argument == deaths::AGENT_ARG) {
        deaths::be_agent(Path::new(&arguments.next().unwrap()));
    }
}

/// A device: a folder, and perhaps an executor at work in it.
pub(super) struct Device {
    folder: tempfile::TempDir,
    pub executor: ProcessExecutor,
    events: Vec<ExecutorEvent>,
}

impl Device {
    pub fn new(slots_max: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let executor = start(folder.path(), slots_max);
        Self { folder, executor, events: Vec::new() }
    }

    /// The agent goes and another comes.
    fn restart(self) -> (Self, Vec<SlotState>) {
        let Self { folder, executor, events } = self;
        let slots_max = 8;
        drop(executor);
        let mut executor = start(folder.path(), slots_max);
        let found = executor.survey();
        (Self { folder, executor, events }, found)
    }

    fn sh(&mut self, task_id: &str, script: &str) -> SlotId {
        self.executor.spawn(&sh(task_id, script)).unwrap()
    }

    async fn next(&mut self) -> ExecutorEvent {
        let event = tokio::time::timeout(PATIENCE, self.executor.next_event()).await.expect("no event came");
        recycle_ended(&mut self.executor, &event);
        self.events.push(event.clone());
        event
    }

    pub async fn ended(&mut self, task_id: &str) -> Verdict {
        loop {
            if let ExecutorEvent::Ended(verdict, _) = self.next().await
                && verdict.key.task_id == task_id
            {
                return verdict;
            }
        }
    }

    async fn started(&mut self, task_id: &str) -> u32 {
        loop {
            if let ExecutorEvent::Started { key, pid, .. } = self.next().await
                && key.task_id == task_id
            {
                return pid;
            }
        }
    }

    async fn run(&mut self, script: &str) -> Verdict {
        self.sh("t", script);
        self.ended("t").await
    }

    fn log(&self, task_id: &str, stream: OutputStream) -> String {
        let piece = self.executor.read_log((task_id, 1, 0), stream, 0, 1 << 20).unwrap();
        String::from_utf8(piece.data).unwrap()
    }

    fn live(&self, slot: SlotId) -> Live {
        let bytes = std::fs::read(self.folder.path().join(slot.0.to_string()).join("attempt")).unwrap();
        Live::decode(&bytes[LIVE_OFFSET as usize..]).unwrap()
    }
}

pub(super) fn start(folder: &Path, slots_max: u32) -> ProcessExecutor {
    let mut config = ExecutorConfig::new(folder);
    config.slots_max = slots_max;
    config.output_bytes_max = 100_000;
    ProcessExecutor::start(config).unwrap()
}

/// As an agent whose journal is quick.
fn recycle_ended(executor: &mut ProcessExecutor, event: &ExecutorEvent) {
    if let ExecutorEvent::Ended(verdict, _) = event {
        executor.recycle(&verdict.key.task_id, verdict.key.attempt);
    }
}

fn sh<'a>(task_id: &'a str, script: &'a str) -> SpawnRequest<'a> {
    SpawnRequest {
        task_id,
        attempt: 1,
        command: "sh",
        arguments: vec!["-c", script],
        grace: Duration::from_secs(10),
        ..SpawnRequest::default()
    }
}

/// Waits until something is so, looking often.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        std::thread::yield_now();
    }
}

fn is_gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie is gone too: it only waits for its parent.
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number as i32).unwrap()
}

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn exit_codes_and_signals_are_told_with_what_was_used() {
    let mut device = Device::new(4);
    let verdict = device.run("exit 7").await;
    assert_eq!((verdict.reason, verdict.exit_code, verdict.signal), (EndReason::Exited, 7, 0));
    assert!(verdict.usage.wall_us > 0 && verdict.usage.memory_peak_kb > 0);
    assert!(verdict.started.unix_ms > 0 && verdict.ended.boot_us >= verdict.started.boot_us);
    device.sh("u", "kill -9 $$");
    let verdict = device.ended("u").await;
    assert_eq!((verdict.reason, verdict.exit_code, verdict.signal), (EndReason::Signalled, 0, 9));
    let starts = device.events.iter().filter(|event| matches!(event, ExecutorEvent::Started { .. })).count();
    assert_eq!(starts, 2);
    assert_eq!(device.executor.running(), 0);
}

#[tokio::test]
async fn a_task_sees_what_it_was_given_and_nothing_else() {
    let mut device = Device::new(4);
    let request = SpawnRequest {
        index: 41,
        environment: vec![("GIVEN", "yes")],
        parameters: r#"{"a":1}"#,
        files: vec![
            InlineFile { path: "data/in.txt", data: b"input\n", executable: false },
            InlineFile { path: "run.sh", data: b"#!/bin/sh\ncat data/in.txt\nenv | sort\n", executable: true },
        ],
        command: "./run.sh",
        arguments: vec![],
        ..sh("t", "")
    };
    let slot = device.executor.spawn(&request).unwrap();
    let verdict = device.ended("t").await;
    assert_eq!(verdict.exit_code, 0, "{verdict:?}: {}", device.log("t", OutputStream::Stderr));
    let folder = device.folder.path().canonicalize().unwrap();
    let log = device.log("t", OutputStream::Stdout);
    let mut lines: Vec<&str> = log.lines().filter(|line| !line.starts_with("FLEETWIRE_MARK=")).collect();
    lines.retain(|line| !line.starts_with("_=") && !line.starts_with("SHLVL="));
    let work = folder.join(slot.0.to_string()).join("work");
    let result = format!("FLEETWIRE_RESULT={}/result", work.display());
    let pwd = format!("PWD={}", work.display());
    let expected = [
        "input",
        "FLEETWIRE_ATTEMPT=1",
        "FLEETWIRE_INDEX=41",
        r#"FLEETWIRE_PARAMETERS={"a":1}"#,
        "FLEETWIRE_REPORT_FD=3",
        &result,
        "FLEETWIRE_TASK_ID=t",
        "GIVEN=yes",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        &pwd,
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn standard_input_is_empty_and_no_descriptor_leaks() {
    let mut device = Device::new(4);
    let verdict = device.run("cat; ls -l /proc/self/fd | grep -c pipe; ls /proc/self/fd | wc -l").await;
    assert_eq!(verdict.exit_code, 0);
    // Output, errors and reports (one of them is ls's own pipe to grep); then 0 to 3 and ls's folder.
    assert_eq!(device.log("t", OutputStream::Stdout).split_whitespace().collect::<Vec<_>>(), ["3", "5"]);
}

#[tokio::test]
async fn output_is_kept_to_its_bound_and_the_rest_is_counted() {
    let mut device = Device::new(4);
    let verdict = device.run("head -c 1000000 /dev/zero; echo oops >&2").await;
    assert_eq!(verdict.stdout, OutputCount { kept: 100_000, dropped: 900_000 });
    assert_eq!(verdict.stderr, OutputCount { kept: 5, dropped: 0 });
    assert_eq!(device.log("t", OutputStream::Stderr), "oops\n");
    let piece = device.executor.read_log(("t", 1, 0), OutputStream::Stdout, 99_990, 1000).unwrap();
    assert_eq!((piece.data.len(), piece.size, piece.dropped, piece.ended), (10, 100_000, 900_000, true));
    let beyond = device.executor.read_log(("t", 1, 0), OutputStream::Stdout, 100_001, 1);
    assert!(matches!(beyond, Err(LogError::BeyondEnd { offset: 100_001, size: 100_000 })));
    let unknown = device.executor.read_log(("t", 2, 0), OutputStream::Stdout, 0, 1);
    assert!(matches!(unknown, Err(LogError::Gone { .. })));
}

#[tokio::test]
async fn the_output_of_a_running_task_can_be_read() {
    let mut device = Device::new(4);
    device.sh("t", "echo first; exec sleep 600");
    until("the first line is there", || {
        device.executor.read_log(("t", 1, 0), OutputStream::Stdout, 0, 100).is_ok_and(|piece| piece.data == b"first\n")
    });
    let piece = device.executor.read_log(("t", 1, 0), OutputStream::Stdout, 6, 100).unwrap();
    assert_eq!((piece.data.len(), piece.ended), (0, false));
    device.executor.cancel("t", 1, Duration::ZERO).unwrap();
    assert_eq!(device.ended("t").await.reason, EndReason::Cancelled);
}

#[tokio::test]
async fn results_are_taken_and_too_large_ones_are_told() {
    let mut device = Device::new(4);
    let verdict = device.run(r#"printf '{"n":3}' > "$FLEETWIRE_RESULT""#).await;
    assert_eq!(verdict.result.as_deref(), Some(&br#"{"n":3}"#[..]));
    device.sh("u", r#"head -c 70000 /dev/zero > "$FLEETWIRE_RESULT""#);
    let verdict = device.ended("u").await;
    assert_eq!((verdict.reason, verdict.exit_code, verdict.result), (EndReason::Exited, 0, None));
    assert_eq!(verdict.message, "result is 70000 bytes, at most 65536 are taken");
    let request = SpawnRequest { result_path: Some("out/r.json"), ..sh("v", "mkdir out; echo 1 > out/r.json") };
    device.executor.spawn(&request).unwrap();
    assert_eq!(device.ended("v").await.result.as_deref(), Some(&b"1\n"[..]));
    device.sh("w", r#"head -c 65536 /dev/zero > "$FLEETWIRE_RESULT""#);
    assert_eq!(device.ended("w").await.result.map(|bytes| bytes.len()), Some(65_536));
    device.sh("x", r#"ln -s /etc/passwd "$FLEETWIRE_RESULT""#);
    let verdict = device.ended("x").await;
    assert!(verdict.result.is_none() && verdict.message.contains("symbolic link"));
}

#[tokio::test]
async fn a_program_that_cannot_start_says_why() {
    let mut device = Device::new(8);
    let large = "x".repeat(200_000);
    let not_executable = InlineFile { path: "f", data: b"x", executable: false };
    let binary = InlineFile { path: "g", data: b"\0\0\0\0", executable: true };
    let script = InlineFile { path: "h", data: b"#!/nowhere/python\n", executable: true };
    let twice = vec![not_executable, not_executable];
    type Case<'a> = (&'a str, Vec<&'a str>, Vec<InlineFile<'a>>, StartFailure, &'a str);
    let cases: [Case<'_>; 7] = [
        ("nosuch", vec![], vec![], StartFailure::NotFound, "`nosuch` was not found in PATH (/usr/local/sbin:"),
        ("/no/such", vec![], vec![], StartFailure::NotFound, "there is no program `/no/such`"),
        ("./f", vec![], vec![not_executable], StartFailure::PermissionDenied, "permission denied"),
        ("./g", vec![], vec![binary], StartFailure::NotExecutable, "`#!` line"),
        ("./h", vec![], vec![script], StartFailure::NotFound, "the interpreter that it names is not"),
        ("true", vec![&large], vec![], StartFailure::TooLarge, "larger than the kernel takes"),
        ("true", vec![], twice, StartFailure::Files, "the file `f` could not be prepared: File exists"),
    ];
    for (command, arguments, files, failure, message) in cases {
        device.executor.spawn(&SpawnRequest { command, arguments, files, ..sh("t", "") }).unwrap();
        let verdict = device.ended("t").await;
        assert_eq!((verdict.reason, verdict.failure), (EndReason::SpawnFailed, Some(failure)), "{verdict:?}");
        assert!(verdict.message.contains(message), "{}", verdict.message);
        // The same attempt again, in a slot that was used.
        device = device.restart().0;
        std::fs::remove_file(device.folder.path().join("0/attempt")).unwrap();
        device = device.restart().0;
    }
}

#[tokio::test]
async fn hostile_requests_are_refused_before_anything_happens() {
    let mut device = Device::new(4);
    for path in ["/etc/x", "../x", "a/../../x", "", "a\0b"] {
        let files = vec![InlineFile { path, data: b"x", executable: false }];
        let refused = device.executor.spawn(&SpawnRequest { files, ..sh("t", "true") });
        assert!(matches!(refused, Err(SpawnError::FilePath { .. })), "{path:?}");
        let refused = device.executor.spawn(&SpawnRequest { result_path: Some(path), ..sh("t", "true") });
        assert!(matches!(refused, Err(SpawnError::ResultPath { .. })), "{path:?}");
    }
    assert_eq!(device.executor.running(), 0);
    device.sh("t", "exec sleep 600");
    assert!(matches!(device.executor.spawn(&sh("t", "true")), Err(SpawnError::AlreadyHere { .. })));
    device.executor.cancel("t", 1, Duration::ZERO).unwrap();
    device.ended("t").await;
    assert!(device.executor.cancel("nobody", 1, Duration::ZERO).is_err());
}

#[tokio::test]
async fn large_files_and_parameters_arrive_whole() {
    let mut device = Device::new(4);
    let data = vec![b'x'; 1 << 20];
    let files = vec![InlineFile { path: "large", data: &data, executable: false }];
    let parameters = "p".repeat(100_000);
    let script = r#"wc -c < large; printf %s "$FLEETWIRE_PARAMETERS" | wc -c"#;
    device.executor.spawn(&SpawnRequest { files, parameters: &parameters, ..sh("t", script) }).unwrap();
    device.ended("t").await;
    assert_eq!(device.log("t", OutputStream::Stdout), "1048576\n100000\n");
}

#[tokio::test]
async fn a_timeout_asks_first_and_kills_then() {
    let mut device = Device::new(4);
    let timeout = Some(Duration::from_millis(500));
    let polite = r#"trap 'echo asked; exit 3' TERM; while :; do sleep 0.01; done"#;
    device.executor.spawn(&SpawnRequest { timeout, ..sh("polite", polite) }).unwrap();
    let verdict = device.ended("polite").await;
    assert_eq!((verdict.reason, verdict.exit_code), (EndReason::RunTimeout, 3));
    assert_eq!(verdict.message, "stopped after its run timeout of 0.5 s");
    assert!(verdict.usage.wall_us >= 500_000);
    assert_eq!(device.log("polite", OutputStream::Stdout), "asked\n");
    let stubborn = "trap '' TERM; while :; do sleep 0.01; done";
    let grace = Duration::from_millis(100);
    device.executor.spawn(&SpawnRequest { timeout, grace, ..sh("stubborn", stubborn) }).unwrap();
    let verdict = device.ended("stubborn").await;
    assert_eq!((verdict.reason, verdict.signal), (EndReason::RunTimeout, 9));
    assert!(verdict.usage.wall_us >= 600_000);
}

#[tokio::test]
async fn a_cancel_asks_the_group_and_then_kills_every_descendant() {
    let mut device = Device::new(4);
    // The group hears SIGTERM; a child that made a session of its own does not, and is killed.
    let script = "setsid sleep 600 & echo $!; trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done";
    device.sh("t", script);
    device.started("t").await;
    until("it is ready", || device.log("t", OutputStream::Stdout).ends_with("ready\n"));
    device.executor.cancel("t", 1, Duration::from_secs(20)).unwrap();
    let verdict = device.ended("t").await;
    assert_eq!((verdict.reason, verdict.exit_code), (EndReason::Cancelled, 5));
    let child = device.log("t", OutputStream::Stdout).lines().next().unwrap().parse().unwrap();
    assert!(is_gone(child));
    // A cancel before the supervisor listens is delivered when it does.
    device.sh("early", "exec sleep 600");
    device.executor.cancel("early", 1, Duration::from_secs(600)).unwrap();
    assert_eq!(device.ended("early").await.reason, EndReason::Cancelled);
    // A second one may be less patient.
    device.sh("twice", "trap '' TERM; echo ready; while :; do sleep 0.01; done");
    device.started("twice").await;
    until("it is ready", || device.log("twice", OutputStream::Stdout) == "ready\n");
    device.executor.cancel("twice", 1, Duration::from_secs(600)).unwrap();
    device.executor.cancel("twice", 1, Duration::ZERO).unwrap();
    let verdict = device.ended("twice").await;
    assert_eq!((verdict.reason, verdict.signal), (EndReason::Cancelled, 9));
}

#[tokio::test]
async fn a_stopped_task_can_be_cancelled() {
    let mut device = Device::new(4);
    device.sh("t", "trap 'exit 4' TERM; kill -STOP $$; exit 9");
    let main = device.started("t").await;
    until("it is stopped", || {
        std::fs::read_to_string(format!("/proc/{main}/stat")).is_ok_and(|stat| stat.contains(") T "))
    });
    device.executor.cancel("t", 1, Duration::from_secs(20)).unwrap();
    assert_eq!(device.ended("t").await.exit_code, 4);
}

// §status-3
#[tokio::test]
async fn daemons_are_left_nowhere() {
    let mut device = Device::new(4);
    // Each daemon forks twice, leaves its session and drops its environment.
    let script = "for n in 1 2 3 4 5; do \
        (setsid sh -c 'env -i sleep 600 & echo $!; exec 1>&-; exit 0' &) ; done; \
        while [ \"$(grep -c . out 2>/dev/null)\" = x ]; do :; done; exit 0";
    let verdict = device.run(&format!("{script} | tee out")).await;
    assert_eq!(verdict.reason, EndReason::Exited);
    let log = device.log("t", OutputStream::Stdout);
    for daemon in log.lines() {
        assert!(is_gone(daemon.parse().unwrap()), "{daemon} lives");
    }
    let bomb = "import os, time\n\
        for n in range(200):\n\
        \x20   if os.fork() == 0:\n\
        \x20       os.setsid()\n\
        \x20       if os.fork() == 0: print(os.getpid(), flush=True); time.sleep(600)\n\
        \x20       os._exit(0)\n";
    device.executor.spawn(&SpawnRequest { command: "python3", arguments: vec!["-c", bomb], ..sh("u", "") }).unwrap();
    let verdict = device.ended("u").await;
    assert_eq!((verdict.reason, verdict.exit_code), (EndReason::Exited, 0), "{verdict:?}");
    for daemon in device.log("u", OutputStream::Stdout).lines() {
        assert!(is_gone(daemon.parse().unwrap()), "{daemon} lives");
    }
}

#[tokio::test]
async fn orphans_that_end_while_the_task_runs_leave_no_zombies() {
    let mut device = Device::new(4);
    let script = "(sh -c 'true & echo $! > orphan' ); while [ -d /proc/$(cat orphan) ]; do sleep 0.01; done; exit 0";
    assert_eq!(device.run(script).await.exit_code, 0);
}

#[tokio::test]
async fn reports_come_from_a_shell_and_from_python() {
    let mut device = Device::new(4);
    let script = "echo 'progress 0.25 a quarter' >&\"$FLEETWIRE_REPORT_FD\"; echo 'metric words 12' >&3; \
        echo nonsense >&3; echo 'metric bad NaN' >&3; while [ ! -e go ]; do sleep 0.01; done; echo 'progress 1' >&3";
    let slot = device.sh("t", script);
    let report = loop {
        if let ExecutorEvent::Report { report, .. } = device.next().await
            && !report.metrics.is_empty()
        {
            break report;
        }
    };
    assert_eq!(report.metrics, [("words".to_owned(), 12.0)]);
    std::fs::write(device.folder.path().join(format!("{}/work/go", slot.0)), "").unwrap();
    let verdict = device.ended("t").await;
    assert_eq!((verdict.report.progress, verdict.report.refused), (Some(1.0), 2));
    assert_eq!(verdict.report.metrics, [("words".to_owned(), 12.0)]);
    let program = "import os\n\
        report = os.fdopen(int(os.environ['FLEETWIRE_REPORT_FD']), 'w', buffering=1)\n\
        for n in range(1000):\n\
        \x20   print(f'progress {n/999} step {n}', file=report)\n\
        \x20   print(f'metric loss {1/(n+1)}', file=report)\n";
    let before = device.events.len();
    device.executor.spawn(&SpawnRequest { command: "python3", arguments: vec!["-c", program], ..sh("u", "") }).unwrap();
    let verdict = device.ended("u").await;
    assert_eq!((verdict.report.progress, verdict.report.note.as_str()), (Some(1.0), "step 999"));
    assert_eq!((verdict.report.metrics.len(), verdict.report.refused), (1, 0));
    let reports = device.events[before..].iter().filter(|event| matches!(event, ExecutorEvent::Report { .. }));
    let most = 2 + verdict.usage.wall_us / limits::REPORT_INTERVAL_US;
    assert!(reports.count() as u64 <= most);
}
