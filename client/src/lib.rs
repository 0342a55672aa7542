//! fleetwire-client
