//! fleetwire-common
