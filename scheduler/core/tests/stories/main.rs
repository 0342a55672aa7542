//! Stories of the scheduler's core on virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

mod harness;
mod running;
