//! Why frames are refused, and what that means for the session (docs/protocol.md#errors).

use super::{SIGNATURE_BYTES, VERSION};
use crate::{fb, limits::BULK_STREAMS_MAX, message::MetricNameError};

/// Why a frame is refused. The session ends on all but [`OpenError::is_fatal`]'s exceptions.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OpenError {
    /// Shorter than any frame.
    #[error("a frame of {found} bytes: the shortest has {}", SIGNATURE_BYTES + 8)]
    TooShort {
        /// Its size.
        found: usize,
    },
    /// Longer than a session takes.
    #[error("a frame of {found} bytes: at most {max} are taken")]
    TooLong {
        /// What its length prefix says.
        found: usize,
        /// The cap.
        max: usize,
    },
    /// The length prefix is not that of the frame.
    #[error("the length prefix says {prefix}, the frame has {found} bytes after it")]
    Length {
        /// What the prefix says.
        prefix: usize,
        /// What is there.
        found: usize,
    },
    /// Sealed with a key that is not this session's.
    #[error("sealed with key id {found}: expected {expected}")]
    KeyId {
        /// What came.
        found: u32,
        /// The session's.
        expected: u32,
    },
    /// The tag is not that of the bytes under the session's key.
    #[error("the signature is wrong: the frame was changed, or sealed for another session or direction")]
    Signature,
    /// Authentic, but not a well-formed FlatBuffer.
    #[error("not a well-formed {what}: {error}")]
    Malformed {
        /// Which part.
        what: &'static str,
        /// The verifier's words.
        error: String,
    },
    /// The table's signature field is not the frame's tail.
    #[error("the signature field is not the last {SIGNATURE_BYTES} bytes of the frame")]
    SignaturePlace,
    /// A version of the envelope that this build does not read.
    #[error("envelope version {found}: expected {VERSION}")]
    Version {
        /// What came.
        found: u16,
    },
    /// The stream it says is not the stream it came on.
    #[error("the frame says stream {found}, it came on {expected}")]
    Stream {
        /// What it says.
        found: u32,
        /// Where it came.
        expected: u32,
    },
    /// Not the next on its stream: replayed, dropped or reordered.
    #[error("sequence {found} on stream {stream}: expected {expected}")]
    Sequence {
        /// The stream.
        stream: u32,
        /// What came.
        found: u64,
        /// The next.
        expected: u64,
    },
    /// Too far from cluster time.
    #[error("stale: sealed at {timestamp_ms} ms, arrived at {arrived_ms} ms, more than {tolerance_ms} ms apart")]
    Stale {
        /// The envelope's timestamp.
        timestamp_ms: u64,
        /// The receiver's cluster time.
        arrived_ms: u64,
        /// What is tolerated.
        tolerance_ms: u64,
    },
    /// None or more than one of message, packed and batch, or one where it may not be.
    #[error("the envelope's content is wrong: {0}")]
    Content(&'static str),
    /// The packed part does not keep to its own words or our bounds.
    #[error("the packed body is wrong: {0}")]
    Packed(&'static str),
    /// A chunk that does not continue its body.
    #[error("chunk at {found} of a body of {total} bytes: expected offset {expected}")]
    Chunk {
        /// Its offset.
        found: u64,
        /// The total it says.
        total: u64,
        /// Where the body stands.
        expected: u64,
    },
    /// A bulk stream that has carried its body already: a stream's number is never used again.
    #[error("stream {stream} has ended: its number is not used again")]
    StreamEnded {
        /// The stream.
        stream: u32,
    },
    /// More bulk streams than may be open.
    #[error("more than {BULK_STREAMS_MAX} bulk streams at a time")]
    BulkStreams,
    /// A metric's name or value that may not be.
    #[error("metric: {0}")]
    MetricName(#[from] MetricNameError),
    /// Metrics without a name, without a value, or too many.
    #[error("metrics: {0}")]
    Metrics(&'static str),
    /// A status that this build does not know, and cannot guess the meaning of.
    #[error("status {found}: expected 0 to {}", fb::TaskStatus::ENUM_MAX)]
    Status {
        /// What came.
        found: i8,
    },
    /// NaN, infinite, or outside its range.
    #[error("{what} is {found}: expected {expected}")]
    Number {
        /// Which field.
        what: &'static str,
        /// What came.
        found: f64,
        /// What would do.
        expected: &'static str,
    },
}

impl OpenError {
    /// The classes of what is refused, by the names that counters bear.
    pub const CLASSES: [&str; 20] = [
        "too_short",
        "too_long",
        "length",
        "key_id",
        "signature",
        "malformed",
        "signature_place",
        "version",
        "stream",
        "sequence",
        "stale",
        "content",
        "packed",
        "chunk",
        "stream_ended",
        "bulk_streams",
        "metric_name",
        "metrics",
        "status",
        "number",
    ];

    /// The place of its class among [`OpenError::CLASSES`].
    pub fn class(&self) -> usize {
        match self {
            OpenError::TooShort { .. } => 0,
            OpenError::TooLong { .. } => 1,
            OpenError::Length { .. } => 2,
            OpenError::KeyId { .. } => 3,
            OpenError::Signature => 4,
            OpenError::Malformed { .. } => 5,
            OpenError::SignaturePlace => 6,
            OpenError::Version { .. } => 7,
            OpenError::Stream { .. } => 8,
            OpenError::Sequence { .. } => 9,
            OpenError::Stale { .. } => 10,
            OpenError::Content(_) => 11,
            OpenError::Packed(_) => 12,
            OpenError::Chunk { .. } => 13,
            OpenError::StreamEnded { .. } => 14,
            OpenError::BulkStreams => 15,
            OpenError::MetricName(_) => 16,
            OpenError::Metrics(_) => 17,
            OpenError::Status { .. } => 18,
            OpenError::Number { .. } => 19,
        }
    }

    /// The code of the `Nack` that answers it.
    pub fn code(&self) -> fb::ErrorCode {
        match self {
            OpenError::Stale { .. } => fb::ErrorCode::Stale,
            OpenError::TooLong { .. } => fb::ErrorCode::TooLarge,
            OpenError::KeyId { .. } | OpenError::Signature | OpenError::SignaturePlace => fb::ErrorCode::Authorization,
            OpenError::Version { .. } => fb::ErrorCode::UnsupportedVersion,
            OpenError::MetricName(_) | OpenError::Metrics(_) | OpenError::Status { .. } | OpenError::Number { .. } => {
                fb::ErrorCode::Validation
            }
            OpenError::TooShort { .. }
            | OpenError::Length { .. }
            | OpenError::Malformed { .. }
            | OpenError::Stream { .. }
            | OpenError::Sequence { .. }
            | OpenError::Content(_)
            | OpenError::Packed(_)
            | OpenError::Chunk { .. }
            | OpenError::StreamEnded { .. }
            | OpenError::BulkStreams => fb::ErrorCode::MessageFormat,
        }
    }

    // §open-13
    /// Whether the session must end: all that says the peer, or the link, cannot be trusted to go on.
    /// A refused number, metric or status is the sender's mistake in one message, answered and passed over.
    pub fn is_fatal(&self) -> bool {
        !matches!(self, OpenError::Number { .. } | OpenError::Metrics(_) | OpenError::Status { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_bears_its_variants_name() {
        let some = [
            (OpenError::TooShort { found: 0 }, "too_short"),
            (OpenError::Signature, "signature"),
            (OpenError::SignaturePlace, "signature_place"),
            (OpenError::Stale { timestamp_ms: 0, arrived_ms: 0, tolerance_ms: 0 }, "stale"),
            (OpenError::StreamEnded { stream: 1 }, "stream_ended"),
            (OpenError::Number { what: "", found: 0.0, expected: "" }, "number"),
        ];
        for (error, name) in some {
            assert_eq!(OpenError::CLASSES.get(error.class()), Some(&name));
        }
    }
}
