//! Devices that join: from their request, through the core's decision, to the answer.
//!
//! Invariant: every request is answered or closed. How many there can be at a time is bounded by the
//! listener's handshakes, as which they count until then.

use crate::decider::Decider;
use fleetwire_common::{
    envelope::keys::RootKeys,
    fb,
    ids::{Principal, SessionId},
    time::Time,
};
use fleetwire_link::{Authority, Enrolling, Joining};
use fleetwire_scheduler_core::Event;
use std::{collections::BTreeMap, sync::Arc};

/// Requests whose decision is not durable yet.
pub(crate) struct Joiners {
    authority: Arc<Authority>,
    keys: RootKeys,
    waiting: BTreeMap<SessionId, Enrolling>,
}

impl Joiners {
    pub fn new(authority: Arc<Authority>, keys: RootKeys) -> Joiners {
        Joiners { authority, keys, waiting: BTreeMap::new() }
    }

    /// Opens a request under its token's secret and lets the core decide.
    pub fn on_request(&mut self, session: SessionId, joining: Joining, now: Time, decider: &mut Decider) {
        let remote = joining.remote_address();
        let Some(secret) = decider.core().token_secret(joining.token) else {
            tracing::warn!(%remote, token = joining.token.0, "a request to join with a token that is not known");
            joining.reject(fb::ErrorCode::TokenUnknown, "the join token is not known here: ask for a new one");
            return;
        };
        match joining.open(&secret) {
            Ok(request) => {
                let (token, role, key_sha256) = (request.token, request.role, request.csr.key_sha256);
                let event = Event::Enrolling { session, token, name: &request.name, role, key_sha256 };
                decider.handle(now, event);
                self.waiting.insert(session, request);
            }
            Err(error) => tracing::warn!(%remote, "a request to join was refused: {error}"),
        }
    }

    /// The core has let it in, durably.
    pub fn certify(&mut self, session: SessionId, principal: &Principal, now: Time) {
        let Some(request) = self.waiting.remove(&session) else { return };
        let remote = request.remote_address();
        match request.certify(&self.authority, principal, &self.keys.enrolment_key(principal), now) {
            Ok(()) => tracing::info!(%remote, %principal, "joined"),
            Err(error) => tracing::error!(%remote, %principal, "the certificate could not be made: {error}"),
        }
    }

    /// The core has not let it in.
    pub fn refuse(&mut self, session: SessionId, code: fb::ErrorCode, message: &str, now: Time) {
        let Some(request) = self.waiting.remove(&session) else { return };
        let (remote, name) = (request.remote_address(), &request.name);
        tracing::warn!(%remote, ?name, "not let in: {message} ({code:?})");
        request.refuse(now, code, message);
    }
}
