//! Sessions: what one session's keys seal is worth nothing in another, and a handshake agrees on keys
//! only with the peer it was meant for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use fleetwire_common::{
    envelope::{
        CONTROL_STREAM, Features, OpenError,
        handshake::{Greeted, Greeting, HandshakeError, HelloInfo, Session, WelcomeInfo, clock_offset_us},
        keys::{Epoch, RootKeys, Secret},
    },
    fb,
    ids::{Name, Principal},
    limits::*,
    message::Message,
    time::Time,
};
use support::*;

struct Cluster {
    root: RootKeys,
    epoch: Epoch,
}

impl Cluster {
    fn new() -> Cluster {
        let root = RootKeys::new(Secret::new([1; 32]));
        Cluster { root, epoch: Epoch { number: 5, secret: Secret::new([2; 32]) } }
    }

    fn session(&self, agent: &str, nonces: u8, features: Features) -> (Session, Session) {
        let principal = principal(agent);
        let enrolment = self.root.enrolment_key(&principal);
        let (mut there, mut back) = (Vec::new(), Vec::new());
        let greeting = Greeting::hello(&enrolment, [nonces; 16], &hello(features), 0, &mut there);
        let greeted = Greeted::on_hello(&enrolment, &there).unwrap();
        let scheduler = greeted.welcome(&principal, &self.epoch, [nonces + 100; 16], &welcome(), &mut back);
        let (agent, info) = greeting.on_welcome(&back).unwrap();
        assert_eq!(info.features, features.common(Features::ALL));
        (scheduler, agent)
    }
}

fn principal(name: &str) -> Principal {
    Principal { role: fb::Role::Agent, name: Name::new(name).unwrap() }
}

fn hello(features: Features) -> HelloInfo {
    HelloInfo { features, boot_id: [3; 16], process_start_id: [4; 16], receipt: None, software: "test".into() }
}

fn welcome() -> WelcomeInfo {
    WelcomeInfo {
        features: Features::ALL,
        cluster_time: Time::from_ms(NOW_MS),
        incarnation: 1,
        receipt: None,
        cluster: "c".into(),
        software: "test".into(),
    }
}

fn seal(session: &mut Session) -> Vec<u8> {
    let mut frame = Vec::new();
    session.sealer.seal(NOW_MS, &[heartbeat()], &mut frame);
    frame
}

fn refused(session: &mut Session, frame: &[u8]) -> OpenError {
    session.opener.open(frame, CONTROL_STREAM, NOW_MS, STALE_AFTER_MS).unwrap_err()
}

// §session-3
#[test]
fn a_frame_is_not_played_into_another_session() {
    let cluster = Cluster::new();
    let (mut scheduler, mut agent) = cluster.session("a", 1, Features::ALL);
    let frame = seal(&mut agent);
    scheduler.opener.open(&frame, CONTROL_STREAM, NOW_MS, STALE_AFTER_MS).unwrap();
    // The same agent's next session, another agent's with the same nonces, and the same agent's in the next epoch.
    let (mut later, _) = cluster.session("a", 2, Features::ALL);
    let (mut other, _) = cluster.session("b", 1, Features::ALL);
    for session in [&mut later, &mut other] {
        assert_eq!(refused(session, &frame), OpenError::Signature);
    }
    let next = Cluster { epoch: Epoch { number: 6, secret: Secret::new([7; 32]) }, ..Cluster::new() };
    let (mut rotated, _) = next.session("a", 1, Features::ALL);
    assert_eq!(refused(&mut rotated, &frame), OpenError::KeyId { found: 5, expected: 6 });
}

#[test]
fn a_frame_is_not_reflected_to_its_sender() {
    let (mut scheduler, mut agent) = Cluster::new().session("a", 1, Features::ALL);
    let (to, from) = (seal(&mut agent), seal(&mut scheduler));
    assert_eq!(refused(&mut agent, &to), OpenError::Signature);
    assert_eq!(refused(&mut scheduler, &from), OpenError::Signature);
}

// §session-2
#[test]
fn a_welcome_answers_its_own_hello_only() {
    let cluster = Cluster::new();
    let principal = principal("a");
    let enrolment = cluster.root.enrolment_key(&principal);
    let (mut first, mut second, mut back) = (Vec::new(), Vec::new(), Vec::new());
    let recorded = Greeting::hello(&enrolment, [1; 16], &hello(Features::ALL), 0, &mut first);
    let waiting = Greeting::hello(&enrolment, [2; 16], &hello(Features::ALL), 0, &mut second);
    let greeted = Greeted::on_hello(&enrolment, &first).unwrap();
    greeted.welcome(&principal, &cluster.epoch, [9; 16], &welcome(), &mut back);
    assert_eq!(waiting.on_welcome(&back).unwrap_err(), HandshakeError::Nonce);
    recorded.on_welcome(&back).unwrap();
}

#[test]
fn a_hello_sealed_for_another_name_or_cluster_is_refused() {
    let cluster = Cluster::new();
    let mut frame = Vec::new();
    Greeting::hello(&cluster.root.enrolment_key(&principal("a")), [1; 16], &hello(Features::ALL), 0, &mut frame);
    let elsewhere = RootKeys::new(Secret::new([9; 32]));
    for enrolment in [cluster.root.enrolment_key(&principal("b")), elsewhere.enrolment_key(&principal("a"))] {
        let error = Greeted::on_hello(&enrolment, &frame).unwrap_err();
        assert_eq!(error, HandshakeError::Open(OpenError::Signature));
    }
}

#[test]
fn a_refusal_says_why_and_another_message_is_unexpected() {
    let cluster = Cluster::new();
    let enrolment = cluster.root.enrolment_key(&principal("a"));
    let (mut there, mut back) = (Vec::new(), Vec::new());
    let greeting = Greeting::hello(&enrolment, [1; 16], &hello(Features::ALL), 0, &mut there);
    let greeted = Greeted::on_hello(&enrolment, &there).unwrap();
    greeted.refuse(Time(1), fb::ErrorCode::AlreadyConnected, "a lives already", &mut back);
    let error = greeting.on_welcome(&back).unwrap_err();
    let expected = HandshakeError::Refused { code: fb::ErrorCode::AlreadyConnected, message: "a lives already".into() };
    assert_eq!(error, expected);
    // A Welcome where a Hello is due is sealed for the other direction.
    assert_eq!(Greeted::on_hello(&enrolment, &back).unwrap_err(), HandshakeError::Open(OpenError::Signature));
}

// §session-1
#[test]
fn a_hello_with_a_field_of_the_wrong_size_is_refused() {
    use fleetwire_common::envelope::{
        ENROLMENT_KEY_ID, Sealer,
        keys::{Direction, plain_key},
    };
    let enrolment = Secret::new([1; 32]);
    let good = fb::HelloT {
        nonce: Some(vec![1; 16]),
        boot_id: Some(vec![2; 16]),
        process_start_id: Some(vec![3; 16]),
        ..Default::default()
    };
    let wrong = [
        ("nonce", fb::HelloT { nonce: Some(vec![1; 15]), ..good.clone() }),
        ("nonce", fb::HelloT { nonce: None, ..good.clone() }),
        ("boot_id", fb::HelloT { boot_id: Some(vec![1; 17]), ..good.clone() }),
        ("process_start_id", fb::HelloT { process_start_id: Some(vec![]), ..good.clone() }),
    ];
    for (field, hello) in wrong {
        let mut sealer = Sealer::new(plain_key(&enrolment, Direction::ToScheduler), ENROLMENT_KEY_ID, Features::NONE);
        let mut frame = Vec::new();
        sealer.seal(0, &[Message::Rare(fb::SchedulerMessageT::Hello(Box::new(hello)))], &mut frame);
        assert_eq!(Greeted::on_hello(&enrolment, &frame).unwrap_err(), HandshakeError::Field(field));
    }
}

// §version-2
#[test]
fn features_are_what_both_know() {
    let unknown = Features(1 << 40);
    let (scheduler, agent) =
        Cluster::new().session("a", 1, Features(Features::BATCH.0 | Features::EXTENDED_STATUS.0 | unknown.0));
    for session in [scheduler, agent] {
        assert_eq!(session.sealer.features(), Features(Features::BATCH.0 | Features::EXTENDED_STATUS.0));
    }
}

#[test]
fn the_offset_to_cluster_time_is_measured_in_the_middle_of_the_round_trip() {
    assert_eq!(clock_offset_us(1_000, 3_000, u64::MAX, Time(1_002_000)), 1_000_000);
    assert_eq!(clock_offset_us(1_001_000, 1_003_000, u64::MAX, Time(2_000)), -1_000_000);
    // The scheduler was busy for four seconds before it read the Hello: the network takes 2 ms.
    assert_eq!(clock_offset_us(1_000_000, 5_000_000, 2_000, Time(105_000_000 - 1_000)), 100_000_000);
    assert_eq!(clock_offset_us(1_000, 3_000, 5_000, Time(1_002_000)), 1_000_000, "never more than it took");
}
