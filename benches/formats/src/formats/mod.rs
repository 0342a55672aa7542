//! One file per format, or per family that shares its types.

pub mod capnproto;
pub mod cbor;
pub mod fleetwire;
pub mod protobuf;
pub mod rkyvs;
pub mod seed;
pub mod serdes;
mod types;
