//! fleetwire-tests
