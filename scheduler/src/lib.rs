//! The scheduler of Fleetwire around its core: data folder, journal, network, and the loop that joins
//! them. [`Scheduler::start`] is a whole scheduler; the binary `fleetwire-scheduler` and `fleetwire dev`
//! both call it.

mod config;
mod data;
mod decider;
mod driver;
mod error;
mod joining;
mod limits;
mod network;
mod patience;
mod peers;
mod scheduler;

pub use config::{CLOCK_JUMP_MAX, HEARTBEAT_INTERVAL, PORT, SchedulerConfig};
pub use data::{ADDRESS, OPERATOR};
pub use error::{RunError, StartError};
pub use scheduler::{Scheduler, Started};

const SOFTWARE: &str = concat!("fleetwire-scheduler ", env!("CARGO_PKG_VERSION"));
