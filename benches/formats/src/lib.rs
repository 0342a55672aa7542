//! The same messages, with the same guarantees, in other formats beside Fleetwire's own (docs/formats.md).
//!
//! Each format has one file in `formats/`: its schema, how it seals and how it opens. A frame is everywhere a length, the
//! message, a key id and an HMAC-SHA256 tag over all before it, which is checked before anything is parsed; the HMAC, the
//! checks of version, order and freshness, and the LZ4 are the same code for all. What differs is what is compared.
//!
//! A new format is a file there and a line in [`each_format!`].

pub mod formats;
pub mod framing;
#[allow(clippy::all, clippy::pedantic, unused)]
#[rustfmt::skip]
mod messages_capnp;
pub mod sample;
pub mod visit;

use sample::{Kind, Sample};
use visit::Visit;

/// One format in one session: a sender and a receiver, with all that the library lets one use again.
pub trait Format {
    /// Whether it says anything about that message that another row does not.
    fn has(_: Kind) -> bool {
        true
    }

    /// Ready to send the sample, in whatever the library keeps a message as.
    fn new(sample: &'static Sample) -> Self;

    /// Appends the next frame.
    fn seal(&mut self, out: &mut Vec<u8>);

    /// Opens the next frame: authenticated, decompressed, validated or decoded, in order and fresh. A visitor that wants
    /// to see the fields is shown each of them.
    fn open<V: Visit>(&mut self, frame: &[u8], visitor: &mut V) -> Result<(), Refused>;
}

/// Why a frame is not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its length or its tag is wrong: nothing was parsed.
    #[error("not authentic")]
    Authentic,
    /// It is authentic, and not of the format.
    #[error("malformed: {0}")]
    Malformed(String),
    /// It is not what was expected next, or not of now.
    #[error("out of order, stale or of another version")]
    Order,
}

impl Refused {
    /// As the format's library puts it.
    pub fn malformed(error: impl std::fmt::Display) -> Refused {
        Refused::Malformed(error.to_string())
    }
}

/// Calls `$call!(Type, "id", "name")` for each format, in the order of the tables.
#[macro_export]
macro_rules! each_format {
    ($call:ident) => {
        $call!($crate::formats::fleetwire::Fleetwire, "fleetwire", "Fleetwire");
        $call!($crate::formats::fleetwire::NamesAsText, "fleetwire-text", "Fleetwire, names as text");
        $call!($crate::formats::protobuf::Protobuf, "protobuf", "Protocol Buffers (prost)");
        $call!($crate::formats::capnproto::Plain, "capnp", "Cap'n Proto");
        $call!($crate::formats::capnproto::Packed, "capnp-packed", "Cap'n Proto, packed");
        $call!($crate::formats::rkyvs::Rkyv, "rkyv", "rkyv");
        $call!($crate::formats::serdes::Postcard, "postcard", "postcard");
        $call!($crate::formats::cbor::Cbor, "cbor", "CBOR (minicbor)");
        $call!($crate::formats::serdes::MessagePack, "messagepack", "MessagePack (rmp-serde)");
        $call!($crate::formats::serdes::Json, "json", "JSON (serde_json)");
        $call!($crate::formats::serdes::JsonGzip, "json-gzip", "JSON, gzip");
        $call!($crate::formats::seed::Seed, "seed-003", "JSON, gzip, base64 (seed 003)");
    };
}
