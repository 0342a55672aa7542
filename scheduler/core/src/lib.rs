//! fleetwire-scheduler-core
