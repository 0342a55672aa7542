//! Peers of the minor version before this one and of the one after it, in Rust: see tests/exchange.rs.
