//! Sessions: registering, heartbeats, the clock, what does not belong.

use super::*;

#[test]
fn an_agent_registers_and_beats() {
    let mut t = Story::new();
    t.connect();
    assert_eq!(t.said(), ["register"]);
    t.pass(Duration::from_secs(31));
    assert!(t.said().is_empty(), "nothing before the answer");
    t.registered(&[]);
    t.pass(Duration::from_secs(100));
    assert_eq!(t.said(), ["heartbeat 0 true", "heartbeat 0 false", "heartbeat 0 false"]);
}

#[test]
fn a_scheduler_that_does_not_answer_is_left() {
    let mut t = Story::new();
    t.connect();
    t.pass(Duration::from_secs(61));
    assert_eq!(t.did(), ["close: the scheduler did not answer Register in time"]);
    t.handle(Event::Disconnected);
    assert_eq!(t.agent.next_deadline(), None);

    t.online(&[]);
    t.pass(Duration::from_secs(30 * 13));
    assert_eq!(t.did(), ["close: 3 heartbeats were not answered"]);
}

#[test]
fn answered_heartbeats_keep_the_session_and_set_the_clock() {
    let mut t = Story::new();
    t.online(&[]);
    for _ in 0..40 {
        t.pass(Duration::from_secs(30));
        let echo = t.cluster_ms() - 20;
        t.receive(Message::Ack(Ack::Heartbeat(echo)));
    }
    assert!(t.did().is_empty());
    let exact = (t.cluster_ms() * 1_000) as i64 - t.now.0 as i64;
    assert_eq!(t.agent.cluster_offset_us(), Some(exact), "an estimate that can be right is left alone");

    // The device's clock runs a second fast: the answer, and half of a second's round trip, say so.
    t.now = t.now + Duration::from_secs(1);
    let (scheduler_ms, echo_ms) = (t.cluster_ms() - 1_000, t.cluster_ms() - 100);
    let mut frame = Vec::new();
    t.sealer.seal(scheduler_ms, &[Message::Ack(Ack::Heartbeat(echo_ms))], &mut frame);
    let opened = t.opener.open(&frame, CONTROL_STREAM, scheduler_ms, 5_000).unwrap();
    let event = Event::Received { message: opened.message().unwrap(), timestamp_ms: scheduler_ms };
    t.agent.handle(t.now, event, &mut t.effects);
    let moved = exact - t.agent.cluster_offset_us().unwrap();
    assert!((800_000..=1_000_000).contains(&moved), "{moved}");
}

#[test]
fn the_scheduler_sets_the_interval_within_reason() {
    let mut t = Story::new();
    for (asked, expected) in [(1, 100), (5_000, 5_000), (u32::MAX, 3_600_000), (0, 3_600_000)] {
        t.connect();
        let registered = fb::RegisteredT { heartbeat_interval_ms: asked, answer_every: 0, ..Default::default() };
        t.receive(Message::Rare(fb::SchedulerMessageT::Registered(Box::new(registered))));
        assert_eq!(t.agent.next_heartbeat().unwrap().since(t.now).as_millis(), expected);
        t.handle(Event::Disconnected);
    }
}

#[test]
fn the_latest_receipt_is_returned_also_after_a_crash() {
    let mut t = Story::new();
    assert_eq!(t.agent.receipt(), None);
    t.online(&[]);
    assert_eq!(t.agent.receipt(), Some(proof(1)));
    t.assign(id(3, 1), process(100));
    assert_eq!(t.agent.receipt(), Some(proof(103)));
    t.crash();
    assert_eq!(t.agent.receipt(), Some(proof(103)));
}

#[test]
fn a_scheduler_that_does_not_take_an_agent_in_does_not_get_its_proof() {
    let mut t = Story::new();
    t.online(&[]);
    t.assign(id(3, 1), process(100));
    t.handle(Event::Disconnected);
    t.connect();
    assert_eq!(t.agent.receipt(), Some(proof(103)), "what it has may prove that the other is a restored backup");
    t.handle(Event::Disconnected);
    t.connect();
    t.registered(&[]);
    assert_eq!(t.agent.receipt(), Some(proof(1)));
}

#[test]
fn the_data_folder_keeps_its_id() {
    let mut t = Story::new();
    let data_id = t.agent.data_id();
    t.crash();
    assert_ne!(config().data_id, [5_000_000_u64 as u8; 16]);
    assert_eq!(t.agent.data_id(), data_id);
}

#[test]
fn what_an_agent_does_not_take_is_refused_with_its_reason() {
    let mut t = Story::new();
    t.online(&[]);
    t.said();
    t.receive(Message::Heartbeat(Heartbeat::default()));
    t.receive(Message::Acceptance(id(0, 1)));
    t.registered(&[]);
    assert_eq!(t.said(), ["nack WrongState", "nack WrongState", "nack WrongState"]);
    t.receive(Message::Rare(fb::SchedulerMessageT::Nack(Box::default())));
    t.receive(Message::Ack(Ack::Request(9)));
    assert!(t.said().is_empty(), "a Nack is never answered");
    let cancel = fb::TaskCancellationT { task_id: Some("nonsense".into()), attempt: 1, ..Default::default() };
    t.receive(Message::Rare(fb::SchedulerMessageT::TaskCancellation(Box::new(cancel))));
    assert_eq!(t.said(), ["nack Validation"]);
}

#[test]
fn a_refused_registration_ends_the_session() {
    let mut t = Story::new();
    t.connect();
    let nack = fb::NackT { code: fb::ErrorCode::AlreadyConnected, message: Some("twice".into()), ..Default::default() };
    t.receive(Message::Rare(fb::SchedulerMessageT::Nack(Box::new(nack))));
    assert_eq!(t.did(), ["close: the scheduler refused to register this agent: twice (AlreadyConnected)"]);
}

#[test]
fn logs_are_read_of_the_attempt_that_was_asked_for() {
    let mut t = Story::new();
    t.online(&[]);
    t.assign(id(0, 2), process(100));
    t.said();
    t.did();
    let mut ask = |index: u32, attempt| {
        let request = fb::LogRequestT {
            request: 4,
            task_id: Some(id(index, 0).task.to_string()),
            attempt,
            offset: 10,
            limit: u32::MAX,
            ..Default::default()
        };
        t.receive(Message::Rare(fb::SchedulerMessageT::LogRequest(Box::new(request))));
    };
    ask(0, 0);
    ask(0, 1);
    ask(5, 0);
    assert_eq!(t.did(), ["log 1.0.0#2 10 65536", "log 1.0.0#1 10 65536"]);
    assert_eq!(t.said(), ["nack UnknownAttempt"]);
}

#[test]
fn goodbye_is_said_once_connected() {
    let mut t = Story::new();
    t.handle(Event::Stopping { reason: "bye" });
    assert!(t.said().is_empty());
    t.online(&[]);
    t.said();
    t.handle(Event::Stopping { reason: "bye" });
    assert_eq!(t.said(), ["Deregister"]);
    assert_eq!(t.did(), ["close: bye"]);
}

#[test]
fn what_is_heard_counts_from_the_sending_of_what_was_answered() {
    let mut t = Story::new();
    assert_eq!(t.agent.live().heard(), None);
    t.connect();
    let connected = t.now;
    t.pass(Duration::from_secs(7));
    assert_eq!(t.agent.live().heard(), None, "connected is not answered");
    t.registered(&[]);
    assert_eq!(t.agent.live().heard(), Some(connected));
    t.pass(Duration::from_secs(30));
    let (beat, echo) = (t.now, t.cluster_ms());
    t.pass(Duration::from_secs(4));
    assert_eq!(t.agent.live().heard(), Some(connected));
    t.receive(Message::Ack(Ack::Heartbeat(echo)));
    let heard = t.agent.live().heard().unwrap();
    assert!(heard <= beat && beat.since(heard) < Duration::from_millis(2), "{heard:?}, sent at {beat:?}");
    // With an assignment comes the answer to a heartbeat of long ago.
    t.pass(Duration::from_secs(50));
    let (beat, echo) = (t.now, t.cluster_ms());
    t.pass(Duration::from_secs(29));
    t.receive(Message::Ack(Ack::Heartbeat(echo)));
    let heard = t.agent.live().heard().filter(|later| *later > heard).unwrap();
    assert!(heard <= beat && beat.since(heard) < Duration::from_millis(2), "{heard:?}, sent at {beat:?}");
    t.handle(Event::Disconnected);
    t.pass(Duration::from_secs(60));
    assert_eq!(t.agent.live().heard(), Some(heard));
    t.crash();
    assert_eq!(t.agent.live().heard(), None, "the clock may be another");
}
