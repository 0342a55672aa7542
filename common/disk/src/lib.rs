//! fleetwire-disk
