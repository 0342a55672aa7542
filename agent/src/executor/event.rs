//! What the executor is told at start and what it tells: its configuration, events and errors.

use std::io;
use std::path::PathBuf;

use fleetwire_schemas::EndReason;

use super::record::{AttemptKey, Moment, Report, SlotId, Verdict};

/// How an executor is set up.
#[derive(Debug, Clone)]
pub struct ExecutorConfig {
    /// The folder with the slots; made when it is missing. One executor per folder: the caller
    /// holds the lock of the data folder that it lies in.
    pub folder: PathBuf,
    /// Slots on disk. Ended attempts stay readable in them, so give twice as many as attempts may
    /// run at once, or more. (For moments there may be up to twice this number.)
    pub slots_max: u32,
    /// Most bytes kept of each of stdout and stderr of an attempt.
    pub output_bytes_max: u64,
    /// The executable that is started as the spawner; its `main` must call
    /// [`spawner_if_asked`](super::spawner_if_asked).
    pub spawner_exe: PathBuf,
    /// The device's boot.
    pub boot_id: [u8; 16],
}

impl ExecutorConfig {
    /// The usual: 64 slots, 1 MiB of each output, this very executable.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            slots_max: 64,
            output_bytes_max: 1 << 20,
            spawner_exe: PathBuf::from("/proc/self/exe"),
            boot_id: crate::probe::boot_id(),
        }
    }
}

/// Why an executor did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder cannot be used.
    #[error("the executor's folder {} cannot be used", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The sockets could not be made.
    #[error("the sockets between agent and supervisors could not be made")]
    Sockets {
        /// What the operating system said.
        source: io::Error,
    },
    /// The spawner did not start.
    #[error("the spawner {} could not be started", executable.display())]
    Spawner {
        /// Which executable.
        executable: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// The attempt is in no slot: it was never here, or its slot was used again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("attempt {attempt} of task {task_id} is in no slot")]
pub struct UnknownAttempt {
    /// The task.
    pub task_id: String,
    /// The attempt's number.
    pub attempt: u32,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum ExecutorEvent {
    /// The program runs (or ran: an attempt shorter than some milliseconds is announced with its end).
    Started {
        /// Which attempt.
        key: AttemptKey,
        /// When.
        at: Moment,
        /// The main process; 0 when it ended already.
        pid: u32,
    },
    /// The task reported; only what is new.
    Report {
        /// Which attempt.
        key: AttemptKey,
        /// What is new.
        report: Report,
    },
    /// The attempt's last process is gone. Comes once for every attempt that was spawned or found
    /// supervised at start, also when it could not be started (`SpawnFailed`) or its supervisor
    /// was killed (`SupervisorLost`). With the staged attempt that was started in its room.
    Ended(Verdict, Option<AttemptKey>),
    /// The request died with the spawner before anybody had begun with it: it never ran, its slot is free, and it may be
    /// asked for again.
    NotTaken {
        /// Which attempt.
        key: AttemptKey,
        /// It had been asked to end.
        cancelled: bool,
    },
    /// The spawner died and is started again; running attempts are not touched.
    SpawnerDied {
        /// Why it could not be started again at once; it is tried again every second.
        restart_failed: Option<String>,
    },
}

/// A slot that holds an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotState {
    /// The slot.
    pub slot: SlotId,
    /// The attempt in it.
    pub key: AttemptKey,
    /// Which job has that number; 0 = not known.
    pub job_key: u64,
    /// What is known of it.
    pub condition: SlotCondition,
}

/// What is known of an attempt in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotCondition {
    /// A supervisor has it; its end will come as an event.
    Supervised {
        /// When its program was started, if its supervisor has noted it yet.
        started: Option<Moment>,
    },
    /// It ended; [`verdict`](crate::executor::ProcessExecutor::verdict) reads how. `reason` is `SupervisorLost` when its
    /// supervisor was gone without a word.
    Ended {
        /// Why it ended.
        reason: EndReason,
    },
}
