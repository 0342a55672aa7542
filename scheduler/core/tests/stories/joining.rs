//! Tokens and names.

use crate::harness::*;
use fleetwire_common::{
    fb::{self, ErrorCode as C, Role},
    ids::{Name, SessionId, TokenId},
    message::Message,
    token::JoinToken,
};
use fleetwire_scheduler_core::{Config, Effect, Event, Policy};

pub fn issue(t: &mut T, role: Role, uses: u32) -> JoinToken {
    t.handle(Event::IssueToken { role, uses, expires_in: secs(3600) });
    match t.other.pop() {
        Some(Effect::Token { token }) => token,
        other => panic!("{other:?}"),
    }
}

/// The name granted, or the code of the refusal.
pub fn enrol(t: &mut T, token: TokenId, name: &str, role: Role, key: u8) -> Result<String, C> {
    t.handle(Event::Enrolling { session: SessionId(500), token, name, role, key_sha256: [key; 32] });
    match t.other.pop() {
        Some(Effect::Certify { principal, .. }) => Ok(principal.to_string()),
        Some(Effect::RefuseEnrolment { code, .. }) => Err(code),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_token_lets_as_many_keys_in_as_it_says() {
    let mut t = T::new();
    let token = issue(&mut t, Role::Agent, 2);
    assert_eq!(t.scheduler.token_secret(token.id).unwrap().bytes(), token.secret.bytes());
    let token = token.id;
    assert_eq!(enrol(&mut t, token, "a", Role::Agent, 1), Ok("agent/a".into()));
    // A lost reply: the same key asks again, and that is no use.
    let facts = t.facts.len();
    assert_eq!(enrol(&mut t, token, "a", Role::Agent, 1), Ok("agent/a".into()));
    assert_eq!(t.facts.len(), facts);
    // The same key for another name would be another use, and is refused: one key, one use.
    assert_eq!(enrol(&mut t, token, "a2", Role::Agent, 1), Err(C::TokenUsedUp));
    assert_eq!(enrol(&mut t, token, "b", Role::Operator, 2), Err(C::TokenWrongRole));
    assert_eq!(enrol(&mut t, token, "a", Role::Agent, 2), Err(C::NameTaken));
    assert_eq!(enrol(&mut t, token, "no name", Role::Agent, 2), Err(C::Validation));
    assert_eq!(enrol(&mut t, token, "b", Role::Agent, 2), Ok("agent/b".into()));
    assert_eq!(enrol(&mut t, token, "c", Role::Agent, 3), Err(C::TokenUsedUp));
    assert_eq!(enrol(&mut t, TokenId(77), "c", Role::Agent, 3), Err(C::TokenUnknown));
    t.restart();
    assert_eq!(enrol(&mut t, token, "a", Role::Agent, 1), Ok("agent/a".into()));
    assert_eq!(enrol(&mut t, token, "c", Role::Agent, 3), Err(C::TokenUsedUp));
}

// §join-5
#[test]
fn a_token_ends_but_a_lost_reply_may_still_be_asked_for() {
    let mut t = T::new();
    let token = issue(&mut t, Role::Agent, 9).id;
    enrol(&mut t, token, "a", Role::Agent, 1).unwrap();
    t.pass(secs(3601));
    assert_eq!(enrol(&mut t, token, "b", Role::Agent, 2), Err(C::TokenExpired));
    assert_eq!(enrol(&mut t, token, "a", Role::Agent, 1), Ok("agent/a".into()));
}

#[test]
fn tokens_that_ended_long_ago_do_not_keep_new_ones_out() {
    let policy = Policy { tokens_max: 2, ..Policy::default() };
    let mut t = T::with(Config { policy, ..config() });
    let create = |t: &mut T| {
        let answer = t.request(|request| {
            fb::SchedulerMessageT::CreateToken(Box::new(fb::CreateTokenT {
                request,
                role: Role::Agent,
                uses: 1,
                expires_s: 3600,
            }))
        });
        matches!(answer, Message::Rare(fb::SchedulerMessageT::TokenCreated(_)))
    };
    assert!(create(&mut t) && create(&mut t));
    assert!(!create(&mut t));
    t.pass(secs(7 * 24 * 3600 + 3601));
    assert!(create(&mut t));
    assert_eq!(t.scheduler.state().tokens.len(), 1);
}

// §join-3
#[test]
fn names_are_per_role_and_never_change_hands() {
    let mut t = T::new();
    let agents = issue(&mut t, Role::Agent, 9).id;
    let operators = issue(&mut t, Role::Operator, 9).id;
    enrol(&mut t, agents, "x", Role::Agent, 1).unwrap();
    assert_eq!(enrol(&mut t, operators, "x", Role::Operator, 2), Ok("operator/x".into()));
    assert_eq!(enrol(&mut t, operators, "x", Role::Operator, 3), Err(C::NameTaken));
    // Only who sits at the scheduler's own machine may give a name a new key.
    let name = Name::new("x").unwrap();
    t.handle(Event::EnrolLocally { name, role: Role::Operator, key_sha256: [4; 32] });
    assert_eq!(enrol(&mut t, operators, "x", Role::Operator, 2), Err(C::TokenUsedUp));
}

#[test]
fn operators_make_tokens_within_bounds() {
    let mut t = T::new();
    let mut create = |role, uses, expires_s| {
        let answer = t.request(|request| {
            fb::SchedulerMessageT::CreateToken(Box::new(fb::CreateTokenT { request, role, uses, expires_s }))
        });
        match answer {
            Message::Rare(fb::SchedulerMessageT::TokenCreated(created)) => Ok(created.token.unwrap()),
            Message::Rare(fb::SchedulerMessageT::Nack(nack)) => Err(nack.code),
            other => panic!("{other:?}"),
        }
    };
    let text = create(Role::Agent, 3, 60).unwrap();
    let token = JoinToken::from_text(&text).unwrap();
    assert_eq!((token.role, token.cluster.as_str()), (Role::Agent, "c"));
    assert_eq!(create(Role::Agent, 0, 60), Err(C::Validation));
    assert_eq!(create(Role::Agent, 1, 0), Err(C::Validation));
    assert_eq!(create(Role(9), 1, 60), Err(C::Validation));
    assert_eq!(create(Role::Agent, 1, u64::MAX), Err(C::Validation));
}
