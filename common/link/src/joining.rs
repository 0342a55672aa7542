//! The listening side of joining: one request, one answer, under a join token's secret.

use crate::{
    admission::Slot,
    authority::{Authority, AuthorityError},
    certificate::{Csr, CsrError},
    closed::{close_code, cut_reason},
    limits::ENROLMENT_FRAME_BYTES_MAX,
    link::Parts,
};
use bytes::Bytes;
use fleetwire_common::{
    envelope::{
        CONTROL_STREAM, Features, OpenError, Opener, SIGNATURE_BYTES, Sealer,
        keys::{Direction, Secret, plain_key},
    },
    fb::{self, ErrorCode},
    ids::{Principal, TokenId},
    limits::NAME_BYTES_MAX,
    message::{Message, MessageRef},
    time::Time,
};
use std::net::SocketAddr;

/// A device that asks to join, its request not yet opened. Dropped, it is closed.
#[derive(Debug)]
pub struct Joining {
    /// The token that the request says it was sealed with. Nothing proves that yet.
    pub token: TokenId,
    frame: Bytes,
    parts: Parts,
    slot: Slot,
}

/// A device that has proved the token's secret and its own new key, and waits for its certificate.
#[derive(Debug)]
pub struct Enrolling {
    /// The token whose secret it knows.
    pub token: TokenId,
    /// The name that it asks for; not checked, at most 64 bytes.
    pub name: String,
    /// The role that it asks for.
    pub role: fb::Role,
    /// Its new key.
    pub csr: Csr,
    secret: Secret,
    parts: Parts,
    slot: Slot,
}

/// Why a request to join is refused before anything is decided. The device was told.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum JoinError {
    /// The token's secret is not known to it, or the frame was changed.
    #[error("the request to join: {0}")]
    Open(#[from] OpenError),
    /// Something else than a request.
    #[error("expected Enroll, got {found:?}")]
    Unexpected {
        /// What came.
        found: fb::SchedulerMessage,
    },
    /// The name is longer than any name.
    #[error("a name of {found} bytes: at most {NAME_BYTES_MAX}")]
    Name {
        /// Its length.
        found: usize,
    },
    /// The certificate request.
    #[error("{0}")]
    Csr(#[from] CsrError),
}

impl JoinError {
    /// The code that the device is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            JoinError::Open(error) => error.code(),
            JoinError::Unexpected { .. } => ErrorCode::WrongState,
            JoinError::Name { .. } => ErrorCode::Validation,
            JoinError::Csr(_) => ErrorCode::BadCertificateRequest,
        }
    }
}

impl Joining {
    pub(crate) fn new(parts: Parts, frame: Bytes, slot: Slot) -> Joining {
        Joining { token: TokenId(key_id(&frame)), frame, parts, slot }
    }

    /// Where it came from.
    pub fn remote_address(&self) -> SocketAddr {
        self.parts.connection.remote_address()
    }

    /// Opens the request under the token's secret and checks the new key's proof. On an error the device is
    /// told and the connection closed.
    pub fn open(self, secret: &Secret) -> Result<Enrolling, JoinError> {
        match open(&self.frame, self.token, secret) {
            Ok((name, role, csr)) => Ok(Enrolling {
                token: self.token,
                name,
                role,
                csr,
                secret: secret.clone(),
                parts: self.parts,
                slot: self.slot,
            }),
            Err(error) => {
                self.reject(error.code(), &error.to_string());
                Err(error)
            }
        }
    }

    /// Closes the connection with a reason that nothing authenticates: there is no such token.
    pub fn reject(self, code: ErrorCode, reason: &str) {
        self.parts.connection.close(close_code(code), cut_reason(reason).as_bytes());
    }
}

impl Enrolling {
    /// Where it came from.
    pub fn remote_address(&self) -> SocketAddr {
        self.parts.connection.remote_address()
    }

    /// Makes the principal's certificate and sends it with the enrolment key. Does not wait.
    pub fn certify(
        self,
        authority: &Authority,
        principal: &Principal,
        enrolment_key: &Secret,
        now: Time,
    ) -> Result<(), AuthorityError> {
        let certificate = match authority.certify(&self.csr, principal, now) {
            Ok(certificate) => certificate,
            Err(error) => {
                self.refuse(now, ErrorCode::Internal, "the certificate could not be made");
                return Err(error);
            }
        };
        let enrolled = fb::EnrolledT {
            certificate: Some(certificate),
            authority: Some(authority.certificate().to_vec()),
            principal: Some(principal.uri(authority.cluster())),
            enrolment_key: Some(enrolment_key.bytes().to_vec()),
        };
        self.answer(now, fb::SchedulerMessageT::Enrolled(Box::new(enrolled)), ErrorCode::None, "enrolled");
        Ok(())
    }

    /// Refuses it with an authentic answer. Does not wait.
    pub fn refuse(self, now: Time, code: ErrorCode, message: &str) {
        let nack = fb::NackT { code, message: Some(message.to_owned()), ..Default::default() };
        self.answer(now, fb::SchedulerMessageT::Nack(Box::new(nack)), code, message);
    }

    fn answer(self, now: Time, message: fb::SchedulerMessageT, code: ErrorCode, reason: &str) {
        let key = plain_key(&self.secret, Direction::FromScheduler);
        let mut frame = Vec::with_capacity(2 << 10);
        Sealer::new(key, self.token.0, Features::NONE).seal(now.as_ms(), &[Message::Rare(message)], &mut frame);
        debug_assert!(frame.len() <= ENROLMENT_FRAME_BYTES_MAX, "two certificates fit the bound");
        self.parts.answer(frame, code, reason, self.slot);
    }
}

// §join-2
fn open(frame: &[u8], token: TokenId, secret: &Secret) -> Result<(String, fb::Role, Csr), JoinError> {
    let mut opener = Opener::new(plain_key(secret, Direction::ToScheduler), token.0);
    let opened = opener.open(frame, CONTROL_STREAM, 0, u64::MAX)?;
    let request = match opened.message() {
        Some(MessageRef::Enroll(request)) => request,
        other => {
            let found = other.map_or(fb::SchedulerMessage::NONE, |message| message.kind());
            return Err(JoinError::Unexpected { found });
        }
    };
    let name = request.name().unwrap_or_default();
    if name.len() > NAME_BYTES_MAX {
        return Err(JoinError::Name { found: name.len() });
    }
    let csr = Csr::parse(request.csr().map(|csr| csr.bytes()).unwrap_or_default())?;
    Ok((name.to_owned(), request.role(), csr))
}

/// The key id that a frame says it was sealed with: the four bytes before its tag.
fn key_id(frame: &[u8]) -> u32 {
    let tail = frame.len().checked_sub(SIGNATURE_BYTES).and_then(|at| frame.get(at..));
    tail.and_then(<[u8]>::first_chunk::<4>).map_or(0, |id| u32::from_le_bytes(*id))
}
