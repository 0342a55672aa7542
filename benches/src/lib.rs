//! fleetwire-benches
