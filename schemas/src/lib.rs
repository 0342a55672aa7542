//! Generated FlatBuffers code for everything on the wire and on disk.
//!
//! The source of truth are the `.fbs` files beside this crate; `build.rs` refuses to build when the
//! generated code is stale. Nothing here is written by hand but this page and [`verify`]'s.
//!
//! The generated accessors are safe on buffers that were verified; `common` and `common/journal`
//! are the only crates that verify, and everyone else gets their checked views.

// §version-3
// Left exactly as flatc writes it, so that it can be compared byte for byte.
#[rustfmt::skip]
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    missing_docs,
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    deprecated,
    mismatched_lifetime_syntaxes,
    unused
)]
#[rustfmt::skip]
mod generated;

pub mod verify;

pub use generated::fleetwire::*;

/// The schemas themselves, with the names that they have for each other: for tools that read a frame without
/// knowing its messages beforehand.
pub const TEXTS: [(&str, &str); 6] = [
    ("storage.fbs", include_str!("../storage.fbs")),
    ("task.fbs", include_str!("../task.fbs")),
    ("session.fbs", include_str!("../session.fbs")),
    ("client.fbs", include_str!("../client.fbs")),
    ("envelope.fbs", include_str!("../envelope.fbs")),
    ("journal.fbs", include_str!("../journal.fbs")),
];
