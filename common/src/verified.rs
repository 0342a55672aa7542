//! FlatBuffers that are read only after they were verified (docs/protocol.md#opening).
//!
//! Our own pass ([`fb::verify`]) says yes to what is honest; to what it does not like, the generated verifier says
//! why, or yes.

use crate::fb::{self, verify};
use flatbuffers::{InvalidFlatbuffer, VerifierOptions};

// §open-4
/// The bounds under which a FlatBuffer of `length` bytes is verified: hostile ones cost no more than
/// honest ones, which need at most 1.26 × their length.
pub fn verifier_options(length: usize) -> VerifierOptions {
    VerifierOptions {
        max_depth: 16,
        max_tables: length / 8 + 16,
        max_apparent_size: 4 * length + 4096,
        ignore_missing_null_terminator: false,
    }
}

const _: () = assert!(verify::DEPTH <= 16, "what is honest is verified by our own pass");

/// The envelope in a frame, which begins with its length.
pub fn envelope(frame: &[u8]) -> Result<fb::MessageEnvelope<'_>, InvalidFlatbuffer> {
    let options = verifier_options(frame.len());
    let theirs = || flatbuffers::size_prefixed_root_with_opts::<fb::MessageEnvelope<'_>>(&options, frame);
    verify::envelope(&options, frame).map_or_else(theirs, Ok)
}

// §stream-7
/// The body that a frame or its pieces hold.
pub fn body(bytes: &[u8]) -> Result<fb::Body<'_>, InvalidFlatbuffer> {
    let options = verifier_options(bytes.len());
    let theirs = || flatbuffers::root_with_opts::<fb::Body<'_>>(&options, bytes);
    verify::body(&options, bytes).map_or_else(theirs, Ok)
}

/// A job as it is submitted and kept.
pub fn job_spec(bytes: &[u8]) -> Result<fb::JobSpec<'_>, InvalidFlatbuffer> {
    let options = verifier_options(bytes.len());
    let theirs = || flatbuffers::root_with_opts::<fb::JobSpec<'_>>(&options, bytes);
    verify::job_spec(&options, bytes).map_or_else(theirs, Ok)
}

/// A fact of a journal.
pub fn fact_record(bytes: &[u8]) -> Result<fb::FactRecord<'_>, InvalidFlatbuffer> {
    let options = verifier_options(bytes.len());
    let theirs = || flatbuffers::root_with_opts::<fb::FactRecord<'_>>(&options, bytes);
    verify::fact_record(&options, bytes).map_or_else(theirs, Ok)
}
