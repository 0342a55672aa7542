//! The story of joining: tokens are made, and redeemed for a name.
//!
//! Invariants: a name belongs to the first key that it was granted to; each use of a token belongs to the
//! first key that redeemed it, and that key may ask again, so that a lost reply costs nothing.

use crate::{
    core::Core,
    event::{Effect, Effects, Rejected},
    fact::Fact,
    limits::TOKEN_LIFE_MAX,
    state::TokenRecord,
};
use fleetwire_common::{
    envelope::keys::Secret,
    fb,
    ids::{Name, NameError, Principal, SessionId, TokenId},
    message::Message,
    time::Time,
    token::JoinToken,
};
use std::{borrow::Cow, time::Duration};

/// Why a device is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum EnrolmentRefused {
    #[error("the join token is not known here: it was made by another cluster, or ended long ago")]
    TokenUnknown,
    #[error("the join token ended at {} ms", expired_at.as_ms())]
    TokenExpired { expired_at: Time },
    #[error("the join token was made for {uses} uses, and all were redeemed")]
    TokenUsedUp { uses: u32 },
    #[error("the join token lets one become {expected:?}, not {found:?}")]
    TokenWrongRole { expected: fb::Role, found: fb::Role },
    #[error("the name `{name}` was issued before, to another key: choose another name")]
    NameTaken { name: Name },
    #[error("{0}")]
    Name(#[from] NameError),
    #[error("the cluster has as many principals as it may: {max}")]
    Full { max: usize },
}

impl EnrolmentRefused {
    /// The code that the answer carries.
    pub fn code(&self) -> fb::ErrorCode {
        match self {
            EnrolmentRefused::TokenUnknown => fb::ErrorCode::TokenUnknown,
            EnrolmentRefused::TokenExpired { .. } => fb::ErrorCode::TokenExpired,
            EnrolmentRefused::TokenUsedUp { .. } => fb::ErrorCode::TokenUsedUp,
            EnrolmentRefused::TokenWrongRole { .. } => fb::ErrorCode::TokenWrongRole,
            EnrolmentRefused::NameTaken { .. } => fb::ErrorCode::NameTaken,
            EnrolmentRefused::Name(_) => fb::ErrorCode::Validation,
            EnrolmentRefused::Full { .. } => fb::ErrorCode::Busy,
        }
    }
}

impl Core {
    /// A device that holds a token asks for a name.
    pub fn on_enrolling(
        &mut self,
        session: SessionId,
        token: TokenId,
        (name, role): (&str, fb::Role),
        key: [u8; 32],
        effects: &mut Effects,
    ) {
        match self.grant(token, name, role, key) {
            Ok((principal, new)) => {
                if new {
                    let fact = Fact::PrincipalEnrolled { principal: principal.clone(), key_sha256: key, token };
                    self.decide(&fact, effects);
                }
                effects.push(Effect::Certify { session, principal });
            }
            Err(refused) => {
                let (code, message) = (refused.code(), refused.to_string());
                effects.push(Effect::RefuseEnrolment { session, code, message });
            }
        }
    }

    // §join-3 §join-5
    /// Whom a key may become, and whether that must be written down.
    fn grant(
        &self,
        token: TokenId,
        name: &str,
        role: fb::Role,
        key: [u8; 32],
    ) -> Result<(Principal, bool), EnrolmentRefused> {
        let principal = Principal { role, name: Name::new(name)? };
        let TokenRecord { role: expected, uses, expires_at, redeemed, .. } =
            self.state.tokens.get(&token).ok_or(EnrolmentRefused::TokenUnknown)?;
        if *expected != role {
            return Err(EnrolmentRefused::TokenWrongRole { expected: *expected, found: role });
        }
        if redeemed.get(&key) == Some(&principal) && self.state.principals.get(&principal) == Some(&key) {
            return Ok((principal, false));
        }
        if *expires_at <= self.now {
            return Err(EnrolmentRefused::TokenExpired { expired_at: *expires_at });
        }
        if redeemed.contains_key(&key) || redeemed.len() >= *uses as usize {
            return Err(EnrolmentRefused::TokenUsedUp { uses: *uses });
        }
        if self.state.principals.get(&principal).is_some_and(|owner| *owner != key) {
            return Err(EnrolmentRefused::NameTaken { name: principal.name });
        }
        let max = self.config.policy.principals_max;
        if self.state.principals.len() >= max {
            return Err(EnrolmentRefused::Full { max });
        }
        Ok((principal, true))
    }

    /// Credentials for the scheduler's own machine.
    pub fn on_enrol_locally(&mut self, principal: Principal, key_sha256: [u8; 32], effects: &mut Effects) {
        if self.state.principals.get(&principal) != Some(&key_sha256) {
            self.decide(&Fact::PrincipalEnrolled { principal, key_sha256, token: TokenId(0) }, effects);
        }
    }

    /// An operator asks for a token.
    pub fn on_create_token(
        &mut self,
        session: SessionId,
        issued_by: &str,
        message: fb::CreateToken<'_>,
        effects: &mut Effects,
    ) -> Result<(), Rejected> {
        let expires_in = Duration::from_secs(message.expires_s());
        let token = self.issue_token(issued_by, message.role(), message.uses(), expires_in, effects)?;
        let created = fb::TokenCreatedT { request: message.request(), token: Some(token.to_text()) };
        effects.send(session, Message::Rare(fb::SchedulerMessageT::TokenCreated(Box::new(created))));
        Ok(())
    }

    /// Makes a token.
    pub fn issue_token(
        &mut self,
        issued_by: &str,
        role: fb::Role,
        uses: u32,
        expires_in: Duration,
        effects: &mut Effects,
    ) -> Result<JoinToken, Rejected> {
        let policy = &self.config.policy;
        if role.variant_name().is_none() {
            return Err(Rejected::Invalid { what: "role", found: role.0.to_string(), expected: "a role that exists" });
        }
        if uses == 0 || uses > policy.token_uses_max {
            let expected = "a number of uses from 1 to 100,000";
            return Err(Rejected::Invalid { what: "uses", found: uses.to_string(), expected });
        }
        if expires_in.is_zero() || expires_in > TOKEN_LIFE_MAX {
            let found = format!("{} s", expires_in.as_secs());
            return Err(Rejected::Invalid { what: "expires", found, expected: "from 1 s to 10 years" });
        }
        // Those that are over go with the fact that makes this one, and only then.
        let full = self.state.tokens.len() >= policy.tokens_max;
        if full && self.state.tokens.values().filter(|token| !token.is_over(self.now)).count() >= policy.tokens_max {
            return Err(Rejected::Busy { what: "join tokens", max: policy.tokens_max as u64 });
        }
        let token = TokenId(self.state.last_token.0 + 1);
        let expires_at = self.now + expires_in;
        let fact = Fact::TokenIssued { token, role, uses, expires_at, issued_by: Cow::Borrowed(issued_by) };
        self.decide(&fact, effects);
        Ok(JoinToken {
            id: token,
            role,
            cluster: self.config.cluster.clone(),
            authority_sha256: self.config.authority_sha256,
            secret: self.config.keys.token_secret(token, expires_at),
            issued_at: self.now,
            expires_at,
            addresses: self.config.addresses.clone(),
        })
    }

    /// The secret by which a device proves that it holds a token; `None` if there is no such token.
    pub fn token_secret(&self, token: TokenId) -> Option<Secret> {
        let record = self.state.tokens.get(&token)?;
        Some(self.config.keys.token_secret(token, record.expires_at))
    }
}
