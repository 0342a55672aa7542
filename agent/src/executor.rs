//! The process executor: runs attempts as processes that outlive the agent.
//!
//! ```text
//! agent ── requests ──▶ spawner ── fork ──▶ supervisor ── vfork, exec ──▶ task
//!   ▲                                           │  │
//!   └──────────── events (no waiting) ──────────┘  └─▶ slot: attempt, stdout, stderr, control, work/
//! ```
//!
//! * The **spawner** is this executable started again: small, single-threaded, it only forks.
//! * A **supervisor** stands beside each running attempt and needs nobody: it holds the slot's
//!   lock, keeps output within bounds, enforces the timeout, hears cancels through a FIFO, leaves
//!   no descendant behind, and writes the verdict into the slot. Then it takes the next attempt, the first of
//!   those that the agent has staged, or one that is asked for within a moment.
//! * A **slot** is a folder that is used again and again, because creating files costs more than
//!   starting a process. Its lock says whether a supervisor lives; its `attempt` file says which
//!   attempt it is and how it ended.
//!
//! The invariants that everything here keeps: a slot in use is locked without a gap from the
//! moment an agent takes it until its last process is gone; whoever holds the lock writes the
//! verdict, once; a verdict is written after the last descendant is gone; the disk decides, messages
//! only hurry. So an agent may be killed at any point and the next one finds what there is.
//!
//! What a task sees of all this is in [`report`] and in the variables `FLEETWIRE_TASK_ID`,
//! `FLEETWIRE_ATTEMPT`, `FLEETWIRE_INDEX`, `FLEETWIRE_PARAMETERS`, `FLEETWIRE_RESULT`,
//! `FLEETWIRE_REPORT_FD` and `FLEETWIRE_MARK`.

mod event;
mod handover;
mod heard;
pub mod limits;
mod link;
mod logs;
mod notice;
mod process;
mod record;
pub mod report;
mod request;
mod slots;
mod spawner;
mod staging;
mod strays;
mod supervisor;
mod wire;

#[cfg(test)]
mod rates;
#[cfg(test)]
mod tests;

pub use event::{ExecutorConfig, ExecutorEvent, SlotCondition, SlotState, StartError, UnknownAttempt};
pub use logs::{LogError, LogPiece, OutputStream};
pub use process::ProcessExecutor;
pub use record::{AttemptKey, Moment, OutputCount, Report, SlotId, StartFailure, Usage, Verdict};
pub use request::{
    InlineFile, PathRefused, RESULT_PATH_DEFAULT, SEARCH_PATH_DEFAULT, SpawnError, SpawnRequest, check_path,
};
pub use spawner::{SPAWNER_ARG, spawner_if_asked, spawner_main};
