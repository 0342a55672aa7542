//! The Rust client of Fleetwire: connect as an operator, submit jobs, watch them, read their results
//! and logs. The command line and the bindings use nothing else.

pub mod jobfile;
