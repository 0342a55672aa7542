//! fleetwire-journal
