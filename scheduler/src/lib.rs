//! The scheduler of Fleetwire around its core: data folder, journal, network, and the loop that joins
//! them. [`Scheduler::start`] is a whole scheduler; the binary `fleetwire-scheduler` and `fleetwire dev`
//! both call it.

mod arrived;
mod bodies;
mod config;
mod data;
mod decider;
mod driver;
mod error;
mod joining;
pub mod journal_tool;
mod limits;
mod network;
mod patience;
mod peers;
mod refusals;
mod scheduler;
mod snapshots;

pub use config::{
    CLOCK_JUMP_MAX, FORGET_AFTER, HEARTBEAT_INTERVAL, PORT, SNAPSHOT_BYTES, SNAPSHOT_FACTS, SNAPSHOT_FACTS_MAX,
    SchedulerConfig,
};
pub use data::{ADDRESS, OPERATOR};
pub use error::{RunError, StartError};
pub use scheduler::{Scheduler, Started};
pub use snapshots::Replica;

const SOFTWARE: &str = concat!("fleetwire-scheduler ", env!("CARGO_PKG_VERSION"));
