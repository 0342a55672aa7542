//! Stateless resets that outlive the process: a scheduler that was killed and started again tells its
//! old peers so with the first packet that they send (RFC 9000 section 10.3). Without, they would notice
//! only by the idle timeout.
//!
//! The keys are derived from the server's private key, which a restart finds again. Whoever lacks that
//! key can make no reset that a peer believes.

use crate::authority::ServerIdentity;
use fleetwire_common::envelope::keys::{MacKey, Secret, TAG_BYTES, sha256};
use quinn::{
    EndpointConfig,
    crypto::{CryptoError, HmacKey},
};
use quinn_proto::{ConnectionIdGenerator, HashedConnectionIdGenerator};
use std::{sync::Arc, time::Duration};

/// At most one reset in this time: a thousand a second, each smaller than the packet that caused it.
const RESET_INTERVAL: Duration = Duration::from_millis(1);

/// An endpoint's settings with keys that are the same after a restart.
pub(crate) fn endpoint_config(server: &ServerIdentity) -> EndpointConfig {
    let root = Secret::new(sha256(server.key.bytes()));
    let resets = root.derive(&[], &[b"fleetwire stateless reset"]);
    let mut config = EndpointConfig::new(Arc::new(ResetKey(MacKey::new(&resets))));
    // Connection ids are known by a keyed hash; those of the process before must pass as well.
    let ids = root.derive(&[], &[b"fleetwire connection ids"]);
    let key = ids.bytes().first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    config
        .cid_generator(move || -> Box<dyn ConnectionIdGenerator> {
            Box::new(HashedConnectionIdGenerator::from_key(key))
        })
        .min_reset_interval(RESET_INTERVAL);
    config
}

struct ResetKey(MacKey);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        for (to, from) in out.iter_mut().zip(self.0.tag(data)) {
            *to = from;
        }
    }

    fn signature_len(&self) -> usize {
        TAG_BYTES
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        if self.0.verify(data, signature) { Ok(()) } else { Err(CryptoError) }
    }
}
