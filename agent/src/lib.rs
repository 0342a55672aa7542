//! fleetwire-agent

mod clock;
mod config;
pub mod executor;
mod options;
mod probe;
mod runner;

pub use config::{AgentConfig, CapacityConfig, OnStop};
pub use options::Options;
