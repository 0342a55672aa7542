//! A whole Fleetwire cluster on virtual time: the real cores, real sealed bytes and the real journal, over
//! a disk that loses what was not synced and a network that loses connections, with every misfortune drawn
//! from a seed.
//!
//! Invariants: nothing here reads a clock or an ambient source of randomness, so a seed gives the same run
//! everywhere (promise P7); the promises are held against journals' bytes and simulated devices, never
//! against the tables of the cores that they check.
//!
//! `random`, `queue`, `network`, `device`, `behaviour`, `clock`, `fate` are the world; `scheduler`, `agent`, `client` drive the real
//! cores as their shells do, with `wire` and `writer`; `history`, `shadow` and `invariants` hold the promises; `cluster` and `misfortune` make
//! things happen; `stories` are the words of scenarios, `sweep` runs seeds. `day` runs a recorded or drawn day of one scheduler again under other policies.
#![forbid(unsafe_code)]

mod agent;
mod behaviour;
mod client;
mod clock;
mod cluster;
mod coverage;
pub mod day;
mod depending;
mod device;
mod fate;
mod faults;
mod ganging;
mod history;
mod holding;
mod invariants;
mod misfortune;
mod network;
mod preempting;
mod queue;
mod random;
mod recurring;
mod reserving;
mod scheduler;
mod shadow;
mod sharing;
mod stopping;
pub mod stories;
mod suiting;
mod sweep;
mod trace;
mod wire;
mod workload;
mod world;
mod writer;

pub use behaviour::{Behaviour, Ending};
pub use client::Wish;
pub use cluster::{Cluster, Outcome};
pub use coverage::Coverage;
pub use faults::{ALL as ALL_FAULTS, Fault, Scale, Setting};
pub use history::{AttemptHistory, History, JobHistory, TaskHistory};
pub use sweep::{Failed, run, run_covering};
pub use trace::Violation;
pub use world::BEGAN;
