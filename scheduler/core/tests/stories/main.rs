//! Stories of the scheduler's core on virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

mod asking;
mod backlog;
mod bodies;
mod breaking;
mod cancelling;
mod capping;
mod depending;
mod draining;
mod earliest;
mod failing;
mod fitting;
mod forgetting;
mod harness;
mod holding;
mod inputs;
mod joining;
mod limits;
mod losing;
mod numbers;
mod planning;
mod preempting;
mod reconciling;
mod replaying;
mod requesting;
mod reserving;
mod restoring;
mod ruling;
mod running;
mod sessions;
mod sharing;
mod stopping;
mod submitting;
mod sweeping;
mod terms;
mod walk;
