//! fleetwire-agent

pub mod executor;
