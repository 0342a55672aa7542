//! fleetwire-sim
