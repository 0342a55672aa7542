//! fleetwire-cli
