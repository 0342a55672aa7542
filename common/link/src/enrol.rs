//! The joining side of joining: prove the token's secret and the own new key, get an identity.

use crate::{
    certificate::{CertificateError, check_issued},
    clock::ClusterClock,
    closed::close_code,
    config::LinkConfig,
    connect::{ConnectError, Dialed, closed, dial, first_frame_error, refuse},
    frames::FrameReader,
    handshake::first_frame,
    identity::{DeviceKey, Identity, KeyError},
    limits::{ENROLMENT_FRAME_BYTES_MAX, LAST_PACKET_TIMEOUT},
    tls::Expected,
};
use fleetwire_common::{
    envelope::{
        CONTROL_STREAM, Features, OpenError, Opener, Sealer,
        keys::{Direction, Secret, plain_key, sha256},
    },
    fb::{self, ErrorCode},
    ids::{Name, Principal},
    message::{Message, MessageRef},
    token::JoinToken,
};
use tokio::time::timeout;

/// Why a device is not let in.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The scheduler cannot be reached, is not the token's, or closed the connection.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// The scheduler refused, with an authentic answer.
    #[error("the scheduler refused: {message} ({code:?})")]
    Refused {
        /// Why, for programs: `NameTaken`, `TokenExpired`, `TokenUsedUp`, ….
        code: ErrorCode,
        /// Why, for people.
        message: String,
    },
    /// The answer is not authentic.
    #[error("the scheduler's answer: {0}")]
    Open(#[from] OpenError),
    /// The answer is something else, or a part of it is missing.
    #[error("the scheduler's answer has no usable {0}")]
    Answer(&'static str),
    /// The certificate that came is not the one that was asked for.
    #[error("the scheduler's answer: {0}")]
    Certificate(#[from] CertificateError),
    /// The own key.
    #[error("{0}")]
    Key(#[from] KeyError),
}

impl EnrolError {
    /// The code for programs.
    pub fn code(&self) -> ErrorCode {
        match self {
            EnrolError::Connect(error) => error.code(),
            EnrolError::Refused { code, .. } => *code,
            EnrolError::Open(error) => error.code(),
            EnrolError::Answer(_) => ErrorCode::MessageFormat,
            EnrolError::Certificate(_) => ErrorCode::Authorization,
            EnrolError::Key(_) => ErrorCode::None,
        }
    }
}

/// Joins the token's cluster under that name. Keep `key` on disk before asking
/// ([`DeviceKey::load_or_generate`]): if the answer is lost, the same key may ask again and gets it.
pub async fn enrol(
    token: &JoinToken,
    name: &Name,
    key: &DeviceKey,
    config: &LinkConfig,
) -> Result<Identity, EnrolError> {
    let expected = Expected {
        cluster: &token.cluster,
        authority_sha256: token.authority_sha256,
        known_time: token.issued_at,
        identity: None,
    };
    let principal = Principal { role: token.role, name: name.clone() };
    let mut last = EnrolError::Connect(ConnectError::NoAddress);
    for address in &token.addresses {
        let asked = async {
            let dialed = dial(address, &expected, config).await?;
            ask(address, dialed, token, &principal, key).await
        };
        let asked = timeout(config.handshake_timeout, asked).await;
        match asked.unwrap_or_else(|_| Err(ConnectError::TimedOut { address: address.clone() }.into())) {
            Ok(identity) => return Ok(identity),
            // It was our scheduler, and it has decided: other addresses lead to the same.
            Err(error @ EnrolError::Refused { .. }) => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn ask(
    address: &str,
    dialed: Dialed,
    token: &JoinToken,
    principal: &Principal,
    key: &DeviceKey,
) -> Result<Identity, EnrolError> {
    let Dialed { endpoint, connection } = dialed;
    let clock = ClusterClock::from_wall();
    let (mut send, mut recv) = connection.open_bi().await.map_err(|error| closed(address, error))?;
    let request =
        fb::EnrollT { name: Some(principal.name.as_str().to_owned()), role: principal.role, csr: Some(key.csr()?) };
    let message = Message::Rare(fb::SchedulerMessageT::Enroll(Box::new(request)));
    let seal_key = plain_key(&token.secret, Direction::ToScheduler);
    let mut frame = Vec::with_capacity(1 << 10);
    Sealer::new(seal_key, token.id.0, Features::NONE).seal(clock.now().as_ms(), &[message], &mut frame);
    if send.write_all(&frame).await.is_err() {
        return Err(closed(address, connection.closed().await).into());
    }
    let mut reader = FrameReader::new(0, ENROLMENT_FRAME_BYTES_MAX);
    let came = first_frame(&connection, &mut recv, &mut reader, &clock).await.map_err(|error| {
        refuse(&connection, &error);
        first_frame_error(address, error)
    })?;
    let identity = read_answer(&came.bytes, token, principal, key);
    let code = if identity.is_ok() { ErrorCode::None } else { ErrorCode::Validation };
    connection.close(close_code(code), b"the answer was read");
    // The transport lingers to repeat itself; the first copy leaves at once.
    let _ = timeout(LAST_PACKET_TIMEOUT, endpoint.wait_idle()).await;
    identity
}

// §join-4
/// Opens the answer and checks that it is what was asked for.
fn read_answer(
    frame: &[u8],
    token: &JoinToken,
    principal: &Principal,
    key: &DeviceKey,
) -> Result<Identity, EnrolError> {
    let mut opener = Opener::new(plain_key(&token.secret, Direction::FromScheduler), token.id.0);
    let opened = opener.open(frame, CONTROL_STREAM, 0, u64::MAX)?;
    let enrolled = match opened.message() {
        Some(MessageRef::Enrolled(enrolled)) => enrolled,
        Some(MessageRef::Nack(nack)) => {
            let message = fleetwire_common::message::cut(nack.message().unwrap_or_default()).to_owned();
            return Err(EnrolError::Refused { code: nack.code(), message });
        }
        _ => return Err(EnrolError::Answer("Enrolled")),
    };
    let certificate = enrolled.certificate().ok_or(EnrolError::Answer("certificate"))?.bytes().to_vec();
    let authority = enrolled.authority().ok_or(EnrolError::Answer("authority"))?.bytes().to_vec();
    if sha256(&authority) != token.authority_sha256 {
        return Err(EnrolError::Answer("authority: another one than the token names"));
    }
    check_issued(&certificate, &authority, key.public_key(), principal, &token.cluster)?;
    let enrolment_key = enrolled.enrolment_key().and_then(|key| Secret::from_slice(key.bytes()));
    Ok(Identity {
        principal: principal.clone(),
        cluster: token.cluster.clone(),
        enrolment_key: enrolment_key.ok_or(EnrolError::Answer("enrolment key"))?,
        addresses: token.addresses.clone(),
        known_time: token.issued_at,
        certificate,
        authority,
        key: key.clone(),
    })
}
