//! fleetwire-agent
