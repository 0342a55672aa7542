//! Secrets and the keys derived from them (docs/protocol.md#keys).
//!
//! The scheduler keeps one root secret and one secret per epoch; a principal's keys are derived, so
//! nothing is stored per agent. Secrets are wiped when dropped and never printed.

use crate::{
    ids::{Position, Principal, TokenId},
    time::Time,
};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

pub use super::mac::{MacKey, TAG_BYTES};

/// 32 secret bytes.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes the bytes.
    pub fn new(bytes: [u8; 32]) -> Secret {
        Secret(bytes)
    }

    /// Reads exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Secret> {
        Some(Secret(bytes.try_into().ok()?))
    }

    /// The bytes, for writing them down or sending them.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    // §key-1
    /// HKDF-SHA256 (RFC 5869) of this secret: `info` is the length-prefixed concatenation of its parts.
    pub fn derive(&self, salt: &[u8], info: &[&[u8]]) -> Secret {
        expand(&Hkdf::new(Some(salt), &self.0), info)
    }
}

fn expand(extracted: &Hkdf<Sha256>, info: &[&[u8]]) -> Secret {
    let mut joined = Vec::with_capacity(64);
    for part in info {
        joined.extend_from_slice(&(part.len() as u32).to_le_bytes());
        joined.extend_from_slice(part);
    }
    let mut derived = Secret([0; 32]);
    let expanded = extracted.expand(&joined, &mut derived.0);
    assert!(expanded.is_ok(), "32 bytes are far below HKDF's limit of 8,160");
    derived
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// SHA-256 of the bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// What a scheduler keeps secret, and everything it derives from that.
#[derive(Clone, Debug)]
pub struct RootKeys {
    root: Secret,
    receipt: MacKey,
}

impl RootKeys {
    /// From the cluster's root secret.
    pub fn new(root: Secret) -> RootKeys {
        let receipt = MacKey::new(&root.derive(&[], &[b"fleetwire receipt"]));
        RootKeys { root, receipt }
    }

    /// The key under which a principal's `Hello` and `Welcome` are sealed (key id 0).
    pub fn enrolment_key(&self, principal: &Principal) -> Secret {
        self.root.derive(&[], &[b"fleetwire enrolment", principal.to_string().as_bytes()])
    }

    /// The secret that a join token carries.
    pub fn token_secret(&self, token: TokenId, expires_at: Time) -> Secret {
        self.root.derive(&[], &[b"fleetwire token", &token.0.to_le_bytes(), &expires_at.0.to_le_bytes()])
    }

    // §key-4
    /// A receipt's MAC: over the incarnation's number and random id, and the position.
    pub fn receipt_mac(&self, incarnation: u64, incarnation_id: &[u8; 16], position: Position) -> [u8; 16] {
        let mut bytes = [0u8; 32];
        let parts = incarnation.to_le_bytes().into_iter().chain(*incarnation_id).chain(position.0.to_le_bytes());
        for (to, from) in bytes.iter_mut().zip(parts) {
            *to = from;
        }
        let mut short = [0; 16];
        for (to, from) in short.iter_mut().zip(self.receipt.tag(&bytes)) {
            *to = from;
        }
        short
    }
}

impl RootKeys {
    /// Whether a scheduler of this cluster made that receipt.
    pub fn verify(&self, proof: &super::handshake::Proof) -> bool {
        let (receipt, id) = (&proof.receipt, &proof.incarnation_id);
        let expected = self.receipt_mac(receipt.incarnation(), id, Position(receipt.position()));
        // All bytes are looked at, so that the time taken tells nothing.
        receipt.mac().into_iter().zip(expected).fold(0, |wrong, (found, right)| wrong | (found ^ right)) == 0
    }
}

/// One key epoch: its number, which is the key id of session frames, and its secret.
#[derive(Clone, Debug)]
pub struct Epoch {
    /// From 1; 0 is the enrolment key's id.
    pub number: u32,
    /// The epoch's random secret.
    pub secret: Secret,
}

impl Epoch {
    /// A principal's key of this epoch.
    pub fn key(&self, principal: &Principal) -> Secret {
        self.secret.derive(&[], &[b"fleetwire epoch", principal.to_string().as_bytes()])
    }
}

/// Who sends the frames that a key seals. A frame reflected to its sender fails the MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From whoever connected to the scheduler.
    ToScheduler,
    /// From the scheduler.
    FromScheduler,
}

/// The keys of a session, one for each direction.
#[derive(Debug)]
pub struct SessionKeys {
    /// For what whoever connected to the scheduler sends.
    pub to_scheduler: MacKey,
    /// For what the scheduler sends.
    pub from_scheduler: MacKey,
}

/// The keys of one session: HKDF(epoch key, both nonces, direction). What HKDF extracts is the same for both.
pub fn session_keys(epoch_key: &Secret, hello: &[u8; 16], welcome: &[u8; 16]) -> SessionKeys {
    let mut salt = [0u8; 32];
    for (to, from) in salt.iter_mut().zip(hello.iter().chain(welcome)) {
        *to = *from;
    }
    let extracted = Hkdf::new(Some(&salt), epoch_key.bytes());
    let key = |direction: &[u8]| MacKey::new(&expand(&extracted, &[b"fleetwire session", direction]));
    SessionKeys { to_scheduler: key(b"to scheduler"), from_scheduler: key(b"from scheduler") }
}

/// The keys under an enrolment or token secret, where there are no nonces yet.
pub fn plain_keys(secret: &Secret) -> SessionKeys {
    session_keys(secret, &[0; 16], &[0; 16])
}

/// That of one direction.
pub fn plain_key(secret: &Secret, direction: Direction) -> MacKey {
    let keys = plain_keys(secret);
    match direction {
        Direction::ToScheduler => keys.to_scheduler,
        Direction::FromScheduler => keys.from_scheduler,
    }
}
