//! fleetwire-link
