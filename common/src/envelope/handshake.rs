//! `Hello` and `Welcome`: how two peers that share an enrolment key agree on a session
//! (docs/protocol.md#sessions). Pure: nonces and times are arguments, frames go in and out.

use super::{
    CONTROL_STREAM, ENROLMENT_KEY_ID, Features, MINOR, OpenError, Opener, Sealer,
    keys::{Epoch, MacKey, Secret, plain_keys, session_keys},
};
use crate::{fb, ids::Principal, message::Message, message::MessageRef, time::Time};

/// Proof that an incarnation of this cluster's scheduler had reached a position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proof {
    /// The incarnation's number, the position, and a MAC over both and the id.
    pub receipt: fb::Receipt,
    /// The incarnation's random id.
    pub incarnation_id: [u8; 16],
}

impl Proof {
    fn read(receipt: Option<&fb::Receipt>, id: Option<flatbuffers::Vector<'_, u8>>) -> Option<Proof> {
        Some(Proof { receipt: *receipt?, incarnation_id: id?.bytes().try_into().ok()? })
    }
}

/// What a peer says of itself in its `Hello`.
#[derive(Clone, Debug, PartialEq)]
pub struct HelloInfo {
    /// What it knows.
    pub features: Features,
    /// The device's boot, as the kernel names it.
    pub boot_id: [u8; 16],
    /// Random per process start.
    pub process_start_id: [u8; 16],
    /// The latest receipt it persisted.
    pub receipt: Option<Proof>,
    /// Its software and version.
    pub software: String,
}

/// What the scheduler says in its `Welcome`.
#[derive(Clone, Debug, PartialEq)]
pub struct WelcomeInfo {
    /// What both know.
    pub features: Features,
    /// The scheduler's cluster time when it answered.
    pub cluster_time: Time,
    /// The incarnation that answered.
    pub incarnation: u64,
    /// Proof of its position.
    pub receipt: Option<Proof>,
    /// The cluster's name.
    pub cluster: String,
    /// Its software and version.
    pub software: String,
}

/// Both directions of an agreed session.
#[derive(Debug)]
pub struct Session {
    /// For what we send.
    pub sealer: Sealer,
    /// For what the peer sends.
    pub opener: Opener,
}

/// Why a handshake fails.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum HandshakeError {
    /// The frame cannot be opened under the enrolment key.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// Another message than the one that is due.
    #[error("expected {expected:?}, got {found:?}")]
    Unexpected {
        /// What is due.
        expected: fb::SchedulerMessage,
        /// What came.
        found: fb::SchedulerMessage,
    },
    /// The scheduler refused.
    #[error("the scheduler refused: {message} ({code:?})")]
    Refused {
        /// Why, for programs.
        code: fb::ErrorCode,
        /// Why, for people.
        message: String,
    },
    /// A field that is absent or of the wrong size.
    #[error("{0} is absent or of the wrong size")]
    Field(&'static str),
    /// The `Welcome` answers another `Hello`.
    #[error("the Welcome answers another Hello")]
    Nonce,
}

/// The side that connects, between its `Hello` and the `Welcome`.
#[derive(Debug)]
pub struct Greeting {
    nonce: [u8; 16],
    /// Of the `Welcome`.
    reply_key: MacKey,
}

impl Greeting {
    // §session-1
    /// Seals a `Hello` into `out`. `nonce` is random; `local_ms` the own clock, which nobody checks.
    pub fn hello(enrolment: &Secret, nonce: [u8; 16], info: &HelloInfo, local_ms: u64, out: &mut Vec<u8>) -> Greeting {
        let hello = fb::HelloT {
            nonce: Some(nonce.to_vec()),
            minor: MINOR,
            features: info.features.0,
            boot_id: Some(info.boot_id.to_vec()),
            process_start_id: Some(info.process_start_id.to_vec()),
            receipt: info.receipt.map(|proof| proof.receipt.unpack()),
            incarnation_id: info.receipt.map(|proof| proof.incarnation_id.to_vec()),
            software: Some(info.software.clone()),
        };
        let message = Message::Rare(fb::SchedulerMessageT::Hello(Box::new(hello)));
        let keys = plain_keys(enrolment);
        first_sealer(keys.to_scheduler).seal(local_ms, &[message], out);
        Greeting { nonce, reply_key: keys.from_scheduler }
    }

    /// Opens the `Welcome` and agrees on the session.
    pub fn on_welcome(self, frame: &[u8]) -> Result<(Session, WelcomeInfo), HandshakeError> {
        let mut opener = first_opener(self.reply_key);
        let opened = opener.open(frame, CONTROL_STREAM, 0, u64::MAX)?;
        let welcome = match opened.message() {
            Some(MessageRef::Welcome(welcome)) => welcome,
            Some(MessageRef::Nack(nack)) => {
                let message = nack.message().unwrap_or_default().to_owned();
                return Err(HandshakeError::Refused { code: nack.code(), message });
            }
            other => return Err(unexpected(fb::SchedulerMessage::Welcome, other)),
        };
        let nonce = array(welcome.nonce(), "nonce")?;
        // §session-2
        if array(welcome.peer_nonce(), "peer_nonce")? != self.nonce {
            return Err(HandshakeError::Nonce);
        }
        let epoch_key = Secret::new(array(welcome.epoch_key(), "epoch_key")?);
        // §session-5
        let features = Features(welcome.features()).common(Features::ALL);
        let info = WelcomeInfo {
            features,
            cluster_time: Time(welcome.cluster_time()),
            incarnation: welcome.incarnation(),
            receipt: Proof::read(welcome.receipt(), welcome.incarnation_id()),
            cluster: welcome.cluster().unwrap_or_default().to_owned(),
            software: welcome.software().unwrap_or_default().to_owned(),
        };
        // §session-3
        let keys = session_keys(&epoch_key, &self.nonce, &nonce);
        let session = Session {
            sealer: Sealer::new(keys.to_scheduler, welcome.epoch(), features),
            opener: Opener::new(keys.from_scheduler, welcome.epoch()),
        };
        Ok((session, info))
    }
}

/// The scheduler's side, after the `Hello` was opened.
#[derive(Debug)]
pub struct Greeted {
    /// What the peer said.
    pub hello: HelloInfo,
    nonce: [u8; 16],
    /// Of the `Welcome`, or of a refusal.
    reply_key: MacKey,
}

impl Greeted {
    /// Opens a `Hello` under the principal's enrolment key.
    pub fn on_hello(enrolment: &Secret, frame: &[u8]) -> Result<Greeted, HandshakeError> {
        let keys = plain_keys(enrolment);
        let mut opener = first_opener(keys.to_scheduler);
        let opened = opener.open(frame, CONTROL_STREAM, 0, u64::MAX)?;
        let hello = match opened.message() {
            Some(MessageRef::Hello(hello)) => hello,
            other => return Err(unexpected(fb::SchedulerMessage::Hello, other)),
        };
        let info = HelloInfo {
            features: Features(hello.features()),
            boot_id: array(hello.boot_id(), "boot_id")?,
            process_start_id: array(hello.process_start_id(), "process_start_id")?,
            receipt: Proof::read(hello.receipt(), hello.incarnation_id()),
            software: crate::message::cut(hello.software().unwrap_or_default()).to_owned(),
        };
        Ok(Greeted { hello: info, nonce: array(hello.nonce(), "nonce")?, reply_key: keys.from_scheduler })
    }

    /// Seals the `Welcome` into `out` and agrees on the session. `nonce` is random.
    pub fn welcome(
        self,
        principal: &Principal,
        epoch: &Epoch,
        nonce: [u8; 16],
        info: &WelcomeInfo,
        out: &mut Vec<u8>,
    ) -> Session {
        let epoch_key = epoch.key(principal);
        let features = self.hello.features.common(info.features);
        let welcome = fb::WelcomeT {
            nonce: Some(nonce.to_vec()),
            peer_nonce: Some(self.nonce.to_vec()),
            minor: MINOR,
            features: features.0,
            cluster_time: info.cluster_time.0,
            epoch: epoch.number,
            epoch_key: Some(epoch_key.bytes().to_vec()),
            incarnation: info.incarnation,
            receipt: info.receipt.map(|proof| proof.receipt.unpack()),
            incarnation_id: info.receipt.map(|proof| proof.incarnation_id.to_vec()),
            cluster: Some(info.cluster.clone()),
            software: Some(info.software.clone()),
        };
        let message = Message::Rare(fb::SchedulerMessageT::Welcome(Box::new(welcome)));
        first_sealer(self.reply_key).seal(info.cluster_time.as_ms(), &[message], out);
        let keys = session_keys(&epoch_key, &self.nonce, &nonce);
        Session {
            sealer: Sealer::new(keys.from_scheduler, epoch.number, features),
            opener: Opener::new(keys.to_scheduler, epoch.number),
        }
    }

    /// Seals a refusal instead.
    pub fn refuse(self, now: Time, code: fb::ErrorCode, message: &str, out: &mut Vec<u8>) {
        let nack = fb::NackT { code, message: Some(message.to_owned()), ..Default::default() };
        let message = Message::Rare(fb::SchedulerMessageT::Nack(Box::new(nack)));
        first_sealer(self.reply_key).seal(now.as_ms(), &[message], out);
    }
}

/// The cluster's time as the connecting side may assume it: the `Welcome`'s, half a round trip ago. A `Hello` may have waited
/// for seconds until a busy scheduler read it, so that no more than the transport's own round trip counts, as far as that
/// is known (else `u64::MAX`). Returns what must be added to the local clock (µs), given when the `Hello` left and the
/// `Welcome` came.
pub fn clock_offset_us(hello_sent_us: u64, welcome_came_us: u64, transport_rtt_us: u64, cluster_time: Time) -> i64 {
    let round_trip_us = welcome_came_us.saturating_sub(hello_sent_us).min(transport_rtt_us);
    let middle = welcome_came_us.saturating_sub(round_trip_us / 2);
    cluster_time.0.cast_signed().wrapping_sub(middle.cast_signed())
}

// §key-3
fn first_sealer(key: MacKey) -> Sealer {
    Sealer::new(key, ENROLMENT_KEY_ID, Features::NONE)
}

fn first_opener(key: MacKey) -> Opener {
    Opener::new(key, ENROLMENT_KEY_ID)
}

fn unexpected(expected: fb::SchedulerMessage, found: Option<MessageRef<'_>>) -> HandshakeError {
    let found = found.map_or(fb::SchedulerMessage::NONE, |message| message.kind());
    HandshakeError::Unexpected { expected, found }
}

fn array<const N: usize>(
    field: Option<flatbuffers::Vector<'_, u8>>,
    name: &'static str,
) -> Result<[u8; N], HandshakeError> {
    field.and_then(|field| field.bytes().try_into().ok()).ok_or(HandshakeError::Field(name))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{envelope::keys::RootKeys, ids::Name, message::Ack};

    fn agree() -> (Session, Session) {
        let root = RootKeys::new(Secret::new([1; 32]));
        let principal = Principal { role: fb::Role::Agent, name: Name::new("a").unwrap() };
        let epoch = Epoch { number: 5, secret: Secret::new([2; 32]) };
        let enrolment = root.enrolment_key(&principal);
        let hello = HelloInfo {
            features: Features::ALL,
            boot_id: [3; 16],
            process_start_id: [4; 16],
            receipt: Some(Proof { receipt: fb::Receipt::new(1, 2, &[5; 16]), incarnation_id: [8; 16] }),
            software: "test".into(),
        };
        let welcome = WelcomeInfo {
            features: Features::ALL,
            cluster_time: Time(9_000_000),
            incarnation: 1,
            receipt: None,
            cluster: "c".into(),
            software: "test".into(),
        };
        let (mut there, mut back) = (Vec::new(), Vec::new());
        let greeting = Greeting::hello(&enrolment, [6; 16], &hello, 0, &mut there);
        let greeted = Greeted::on_hello(&enrolment, &there).unwrap();
        assert_eq!(greeted.hello, hello);
        let scheduler = greeted.welcome(&principal, &epoch, [7; 16], &welcome, &mut back);
        let (agent, info) = greeting.on_welcome(&back).unwrap();
        assert_eq!(info, welcome);
        (scheduler, agent)
    }

    #[test]
    fn both_sides_agree_and_frames_are_neither_replayed_nor_reflected() {
        let (mut scheduler, mut agent) = agree();
        let mut frame = Vec::new();
        scheduler.sealer.seal(9_000, &[Message::Ack(Ack::Request(8))], &mut frame);
        let opened = agent.opener.open(&frame, CONTROL_STREAM, 9_001, 5_000).unwrap();
        assert!(matches!(opened.message(), Some(MessageRef::Ack(ack)) if ack.request() == 8));
        let replayed = agent.opener.open(&frame, CONTROL_STREAM, 9_001, 5_000).unwrap_err();
        assert_eq!(replayed, OpenError::Sequence { stream: 0, found: 0, expected: 1 });
        let reflected = scheduler.opener.open(&frame, CONTROL_STREAM, 9_001, 5_000).unwrap_err();
        assert_eq!(reflected, OpenError::Signature);
        // The other session has the same nonces here, which real ones never have; a wrong enrolment key fails.
        let wrong = Greeted::on_hello(&Secret::new([9; 32]), &frame).unwrap_err();
        assert_eq!(wrong, HandshakeError::Open(OpenError::KeyId { found: 5, expected: 0 }));
    }
}
