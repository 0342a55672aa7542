//! Links: connections between Fleetwire's peers, the only code that touches QUIC and TLS.
//!
//! A device joins once ([`enrol`]) and gets an [`Identity`]; from then on it opens sessions
//! ([`connect`]). The scheduler accepts both ([`Listener`]). A session is a [`Link`]: a [`Sender`] whose
//! queue is bounded and whose writer seals what is queued, a [`Receiver`] that yields whole frames, and
//! the opener under which they are read.
//!
//! Invariants: TLS 1.3 with mutual authentication, always, except on the joining protocol, which carries
//! nothing but enrolment; a private key never leaves the machine that made it; nothing is allocated for
//! a frame before its length was checked; every wait on a peer ends in time.

mod admission;
mod authority;
mod backoff;
mod certificate;
mod clock;
mod closed;
mod config;
mod connect;
mod enrol;
mod frames;
mod handshake;
mod identity;
mod joining;
pub mod limits;
mod link;
mod listener;
mod pem;
mod private_file;
mod receiver;
mod reset;
mod sender;
#[cfg(test)]
mod tests;
mod tls;
mod waiting;
mod weight;
mod writer;

pub use authority::{Authority, AuthorityError, ServerIdentity};
pub use backoff::Backoff;
pub use certificate::{CertificateError, Csr, CsrError};
pub use clock::ClusterClock;
pub use closed::LinkClosed;
pub use config::{ConfigError, LinkConfig};
pub use connect::{ConnectError, Connected, connect};
pub use enrol::{EnrolError, enrol};
pub use frames::{Arrival, Frame, FrameError, FrameReader};
pub use identity::{DeviceKey, Identity, IdentityError, KeyError};
pub use joining::{Enrolling, JoinError, Joining};
pub use link::Link;
pub use listener::{AcceptError, Accepted, BindError, Keys, Listener, Pending, Refused};
pub use private_file::{read_private, write_private};
pub use receiver::Receiver;
pub use sender::{SendError, Sender};
pub use tls::TrustError;
pub use weight::weight;

/// The application protocol of sessions; the number is the protocol's major version.
pub const SESSION_ALPN: &[u8] = b"fleetwire/1";
/// The application protocol of joining.
pub const JOIN_ALPN: &[u8] = b"fleetwire-join/1";
