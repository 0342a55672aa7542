//! What every part of Fleetwire shares, without IO, clock or randomness: identifiers, time,
//! resources, limits, roles, jobs, messages, and the envelope that is sealed and opened.
//!
//! Invariants: only [`envelope::Opener`] makes an [`envelope::Opened`], so whoever holds one holds an
//! authenticated, verified message; only [`job::JobSpec::from_wire`] and [`job::JobSpec::new`] make a
//! [`job::JobSpec`], so whoever holds one holds a validated job.
#![forbid(unsafe_code)]

pub mod blob;
pub mod constraint;
pub mod custom;
pub mod envelope;
pub mod facts;
pub mod gang;
pub mod graph;
pub mod ids;
pub mod job;
pub mod labels;
pub mod limits;
pub mod message;
pub mod nearest;
pub mod policy;
pub mod resources;
pub mod roles;
pub mod semaphore;
pub mod sweep;
pub mod terms;
pub mod time;
pub mod token;
pub mod verified;

/// The generated schema types, under the short name that the code uses.
pub use fleetwire_schemas as fb;
