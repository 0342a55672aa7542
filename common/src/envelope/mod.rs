//! The envelope: the signed unit on the wire (docs/protocol.md#envelope).
//!
//! [`Sealer`] turns messages into frames, [`Opener`] turns frames into verified views. The order of
//! `open` is promise P5: length cap, MAC, bounded verification, the signature's place, sequence and
//! freshness, decompression under a cap, verification of the body. Nothing is parsed before the MAC
//! was checked, and nothing is allocated in the steady state.

mod bulk;
mod check;
mod error;
mod examine;
mod fields;
pub mod handshake;
pub mod keys;
mod mac;
mod open;
mod pack;
mod seal;

pub use error::OpenError;
pub use examine::{Examined, Examiner, Knowledge, Violation};
pub use open::{Messages, Opened, Opener};
pub use seal::{SealError, Sealer};

/// Optional parts of the protocol that both peers must know before either uses them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(pub u64);

impl Features {
    /// Nothing beyond what the seed's text names.
    pub const NONE: Features = Features(0);
    /// Metric names as numbers that the session defined.
    pub const INTERNED_METRICS: Features = Features(1);
    /// Compressed bodies.
    pub const PACKED: Features = Features(1 << 1);
    /// Many messages under one signature.
    pub const BATCH: Features = Features(1 << 2);
    /// Statuses beyond the first four.
    pub const EXTENDED_STATUS: Features = Features(1 << 3);
    /// All that this build knows.
    pub const ALL: Features = Features(0b1111);

    /// Whether all of `other` are among these.
    pub fn has(self, other: Features) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those that both know.
    pub fn common(self, other: Features) -> Features {
        Features(self.0 & other.0)
    }
}

/// The envelope's version on the wire.
pub const VERSION: u16 = 1;
// §version-2
/// The protocol's minor version that this build speaks.
pub const MINOR: u16 = 0;
/// The stream number of a session's control stream.
pub const CONTROL_STREAM: u32 = 0;
/// Bytes of the signature: key id and tag.
pub const SIGNATURE_BYTES: usize = 4 + keys::TAG_BYTES;
/// The key id of `Hello` and `Welcome`.
pub const ENROLMENT_KEY_ID: u32 = 0;
