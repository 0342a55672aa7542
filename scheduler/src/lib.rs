//! fleetwire-scheduler
