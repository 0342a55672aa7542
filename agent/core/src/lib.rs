//! fleetwire-agent-core
