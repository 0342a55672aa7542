//! Bounds of this crate that are not configurable. What the protocol itself bounds is in
//! [`fleetwire_common::limits`].

use std::time::Duration;

// §envelope-6
/// `Hello`, `Welcome` and a refusal: a frame before the session is at most this long.
pub const GREETING_FRAME_BYTES_MAX: usize = 4 << 10;
/// `Enroll` and `Enrolled`: a certificate request, or two certificates.
pub const ENROLMENT_FRAME_BYTES_MAX: usize = 8 << 10;
/// The shortest frame: length prefix, root offset and signature.
pub const FRAME_BYTES_MIN: usize = fleetwire_common::envelope::SIGNATURE_BYTES + 8;
/// The writer seals about this much before it hands it to the transport: more would only age.
pub const WRITE_BYTES: usize = 64 << 10;
/// A buffer that grew beyond this is given back when the link is idle.
pub const IDLE_BUFFER_BYTES_MAX: usize = 8 << 10;
/// Frames of bulk streams that wait for the receiver; more are not read from the transport.
pub const BULK_FRAMES_WAITING_MAX: usize = 2;
/// Chunks taken from the transport at a time.
pub const CHUNKS_PER_READ: usize = 16;
/// What is shown and kept of a peer's reason for closing.
pub const REASON_BYTES_MAX: usize = 256;
/// How long a peer that finished its stream has to close the connection as well.
pub const FINISH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a joining device has to take its answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long name resolution may take.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that were accepted or refused and wait for the shell.
pub const ACCEPTED_WAITING_MAX: usize = 256;
/// Room that a listener asks for in its socket, for about 1,800 datagrams (Linux keeps them with twice their size).
pub const SOCKET_BYTES: usize = 4 << 20;
/// Certificates that a peer may present.
pub const CHAIN_CERTIFICATES_MAX: usize = 4;
/// Refused connections that are written to the log in one second; the rest are counted.
pub const REFUSALS_LOGGED_PER_SECOND: u32 = 5;
/// How long a client or agent certificate is valid.
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long the cluster authority's own certificate is valid.
pub const AUTHORITY_LIFETIME: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
/// Certificates begin this much before they are made, for verifiers whose clock is a little behind.
pub const CERTIFICATE_BACKDATE: Duration = Duration::from_secs(3600);
/// A private file (identity, key) is read up to this size.
pub const PRIVATE_FILE_BYTES_MAX: u64 = 64 << 10;
/// How long a connection waits for its network's turn: less than devices wait for an answer, with the handshake after it.
pub const WAIT_MAX: Duration = Duration::from_secs(7);
/// Connections that may wait for a handshake, for each handshake that may run: as many as get theirs within [`WAIT_MAX`], so
/// that a fleet that comes back keeps the scheduler busy. Whoever waits has shown its address, and takes about 2 KB.
pub const WAITING_PER_HANDSHAKE: usize = 16;
/// Addresses that are tried of those that a name has.
pub const PLACES_MAX: usize = 4;
/// How long one of them has before the next is tried beside it (RFC 8305 section 5).
pub const BETWEEN_PLACES: Duration = Duration::from_millis(250);
/// How long a closed connection's last packet has to leave; it leaves at once.
pub const LAST_PACKET_TIMEOUT: Duration = Duration::from_millis(2);
