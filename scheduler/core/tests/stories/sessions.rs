//! Sessions: who may say what and when, registration and reconciling.

use crate::harness::*;
use fleetwire_common::{
    fb::{self, AttemptVerdict as V, ErrorCode as C, SchedulerMessage as M, TaskStatus as S},
    ids::{Name, Principal, SessionId},
    job::TaskSpec,
    message::{Ack, Heartbeat, Message, MessageRef},
    resources::Resources,
    roles::may_send,
};
use fleetwire_scheduler_core::{Event, Origin, Policy};

fn nacks(messages: Vec<Message>) -> Vec<fb::NackT> {
    let nack = |message| match message {
        Message::Rare(fb::SchedulerMessageT::Nack(nack)) => Some(*nack),
        _ => None,
    };
    messages.into_iter().filter_map(nack).collect()
}

fn empty(kind: M) -> Option<fb::SchedulerMessageT> {
    use fb::SchedulerMessageT as T;
    Some(match kind {
        M::TaskAssignment => T::TaskAssignment(Box::default()),
        M::StatusUpdate => T::StatusUpdate(Box::default()),
        M::Heartbeat => T::Heartbeat(Box::default()),
        M::Hello => T::Hello(Box::default()),
        M::Welcome => T::Welcome(Box::default()),
        M::Register => T::Register(Box::default()),
        M::Registered => T::Registered(Box::default()),
        M::Deregister => T::Deregister(Box::default()),
        M::TaskAcceptance => T::TaskAcceptance(Box::default()),
        M::TaskRejection => T::TaskRejection(Box::default()),
        M::TaskCancellation => T::TaskCancellation(Box::default()),
        M::Ack => T::Ack(Box::default()),
        M::Nack => T::Nack(Box::default()),
        M::LogRequest => T::LogRequest(Box::default()),
        M::LogChunk => T::LogChunk(Box::default()),
        M::Enroll => T::Enroll(Box::default()),
        M::Enrolled => T::Enrolled(Box::default()),
        M::SubmitJob => T::SubmitJob(Box::default()),
        M::JobSubmitted => T::JobSubmitted(Box::default()),
        M::CancelWork => T::CancelWork(Box::default()),
        M::CreateToken => T::CreateToken(Box::default()),
        M::TokenCreated => T::TokenCreated(Box::default()),
        M::Query => T::Query(Box::default()),
        M::Page => T::Page(Box::default()),
        M::PlanJob => T::PlanJob(Box::default()),
        _ => return None,
    })
}

// §open-12 §role-1
#[test]
fn nobody_is_heard_who_may_not_say_it_and_nothing_empty_does_harm() {
    let mut t = T::new();
    for role in [fb::Role::Agent, fb::Role::Operator, fb::Role::Viewer, fb::Role::Service] {
        for message in (1..=M::ENUM_MAX).map(M) {
            let Some(empty) = empty(message) else { continue };
            let session = t.connect(role, &format!("p-{}", message.0));
            t.send(session, Message::Rare(empty));
            let codes: Vec<_> = nacks(t.inbox(session)).into_iter().map(|nack| nack.code).collect();
            let refused = codes.contains(&C::Authorization);
            // A Nack is not answered by a Nack, even where it may not be sent.
            assert_eq!(refused, !may_send(role, message) && message != M::Nack, "{role:?} {message:?}: {codes:?}");
        }
    }
    assert_eq!(t.scheduler.state().jobs.len(), 0);
}

// §open-15
#[test]
fn a_message_type_of_the_future_gets_a_nack_that_names_it() {
    let mut t = T::new();
    let session = t.operator();
    let from = Origin { stream: 0, sequence: 5, item: 3, timestamp_ms: 0 };
    t.handle(Event::Received { session, from, message: MessageRef::Unknown(200) });
    let nack = nacks(t.inbox(session)).remove(0);
    assert_eq!((nack.code, nack.sequence, nack.item), (C::UnknownMessage, 5, 3));
    t.send(session, Message::Rare(fb::SchedulerMessageT::Nack(Box::new(nack))));
    assert!(t.inbox(session).is_empty());
    // A session that is not there is not answered.
    t.handle(Event::Received { session: SessionId(999), from, message: MessageRef::Unknown(200) });
}

#[test]
fn an_agent_registers_before_anything_else() {
    let mut t = T::new();
    let job = t.submit(vec![task()]);
    t.agent("a").connect();
    assert_eq!(t.agent("a").runs(attempt(job, 0, 1)).nacked(), C::WrongState);
    assert_eq!(t.agent("a").accepts(attempt(job, 0, 1)).nacked(), C::WrongState);
    assert_eq!(t.counts(job), [1, 0, 0, 0, 0, 0]);
    t.agent("a").register();
    assert_eq!(t.counts(job), [0, 1, 0, 0, 0, 0]);
}

#[test]
fn an_agent_that_does_not_register_or_falls_silent_is_closed() {
    let mut t = T::new();
    let mute = t.agent("a").connect().session();
    let b = t.agent("b").register().session();
    t.pass(secs(31));
    assert_eq!(t.closed, [(mute, C::MessageTimeout)]);
    t.agent("b").send(Message::Heartbeat(Heartbeat::default()));
    t.pass(secs(119));
    assert_eq!(t.closed.len(), 1);
    t.pass(secs(2));
    assert_eq!(t.closed[1], (b, C::MessageTimeout));
}

#[test]
fn an_answered_heartbeat_echoes_its_time_and_shows_in_queries() {
    let mut t = T::new();
    t.agent("a").register().inbox();
    let usage = Resources { cpu: 5, memory: 6, gpu: 0, storage: 7 };
    let now_ms = t.now.as_ms();
    t.agent("a").send(Message::Heartbeat(Heartbeat { usage, running: 0, answer: false }));
    assert!(t.agent("a").inbox().is_empty());
    t.agent("a").send(Message::Heartbeat(Heartbeat { usage, running: 0, answer: true }));
    assert!(matches!(&t.agent("a").inbox()[..], [Message::Ack(Ack::Heartbeat(echo))] if *echo == now_ms));
    let query = fb::QueryT { kind: fb::QueryKind::Agent, agent: Some("a".into()), ..fb::QueryT::default() };
    let agent = t.query(query).unwrap().agents.unwrap().remove(0);
    assert_eq!(*agent.usage.unwrap(), usage.to_wire());
    assert!(agent.connected);
}

#[test]
fn the_newest_session_of_an_agent_counts() {
    let mut t = T::new();
    let job = t.submit(vec![task()]);
    let old = t.agent("a").register().session();
    let new = t.agent("a").connect().session();
    assert_eq!(t.closed, [(old, C::AlreadyConnected)]);
    // The old session's end, which the shell reports afterwards, changes nothing.
    t.handle(Event::Disconnected { session: old });
    t.agent("a").register();
    assert_eq!(t.agent("a").session(), new);
    t.agent("a").completes(attempt(job, 0, 1));
    assert_eq!(t.counts(job), [0, 0, 0, 1, 0, 0]);
}

#[test]
fn operators_may_have_many_sessions() {
    let mut t = T::new();
    let (one, two) = (t.operator(), t.operator());
    assert!(t.closed.is_empty());
    t.disconnect(one);
    t.disconnect(two);
}

#[test]
fn a_flood_ends_the_session_but_work_does_not_count_as_one() {
    let policy = Policy { messages_per_s: 10, messages_burst: 120, ..Policy::default() };
    let mut t = T::with(fleetwire_scheduler_core::Config { policy, ..config() });
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { count: 100, ..task() }]);
    while t.scheduler.state().jobs[&fleetwire_common::ids::JobId(job)].ended_at.is_none() {
        for attempt in t.agent("a").holds() {
            t.agent("a").accepts(attempt).completes(attempt);
        }
    }
    assert!(t.closed.is_empty());
    let session = t.agent("a").session();
    for _ in 0..25 {
        if t.closed.is_empty() {
            t.send(session, Message::Heartbeat(Heartbeat::default()));
        }
    }
    assert_eq!(t.closed, [(session, C::RateLimited)]);
}

fn answers(messages: Vec<Message>) -> Vec<(String, V)> {
    let registered = messages.into_iter().find_map(|message| match message {
        Message::Rare(fb::SchedulerMessageT::Registered(registered)) => Some(registered),
        _ => None,
    });
    let answer =
        |answer: fb::AttemptAnswerT| (format!("{}#{}", answer.task_id.unwrap(), answer.attempt), answer.verdict);
    registered.unwrap().answers.unwrap().into_iter().map(answer).collect()
}

// §session-6
#[test]
fn every_listed_attempt_is_answered() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { count: 3, ..task() }]);
    let [kept, cancelled, ended] = [0, 1, 2].map(|index| attempt(job, index, 1));
    t.agent("a").runs(kept).completes(ended).lose();
    t.cancel(job, Some(cancelled.task)).unwrap();
    // It says that it still has what it reported as ended, and something nobody knows.
    let unknown = attempt(99, 0, 1);
    for attempt in [ended, unknown] {
        t.agent("a").model().holds.insert(attempt, (small(), S::Running));
    }
    let found = answers(t.agent("a").register().inbox());
    let expected = [(kept, V::Keep), (cancelled, V::Stop), (ended, V::Stop), (unknown, V::Unknown)];
    assert_eq!(found, expected.map(|(attempt, verdict)| (attempt.to_string(), verdict)));
    assert_eq!(t.counts(job), [0, 1, 1, 1, 0, 0]);
}

#[test]
fn whatever_an_agent_lists_is_counted_until_it_is_gone() {
    let mut t = T::new();
    let unknown = [attempt(98, 0, 1), attempt(99, 0, 7)];
    for attempt in unknown {
        t.agent("a").model().holds.insert(attempt, (small(), S::Running));
    }
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { count: 4, ..task() }]);
    // Two of its four cores are taken by what it listed; the harness checks the sum.
    assert_eq!(t.counts(job), [2, 2, 0, 0, 0, 0]);
    assert_eq!(t.agent("a").ends(unknown[0], S::Cancelled, Default::default()).nacked(), C::UnknownAttempt);
    assert_eq!(t.counts(job), [1, 3, 0, 0, 0, 0]);
    t.agent("a").model().holds.remove(&unknown[1]);
    t.agent("a").lose().register();
    assert_eq!(t.counts(job), [0, 4, 0, 0, 0, 0]);
}

#[test]
fn an_assignment_that_did_not_arrive_is_sent_again() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![task()]);
    t.agent("a").model().holds.clear();
    t.agent("a").lose().register();
    assert_eq!(t.agent("a").assigned(), [attempt(job, 0, 1)]);
    // The same after the scheduler itself was gone.
    t.agent("a").model().holds.clear();
    t.restart();
    t.agent("a").register();
    assert_eq!(t.agent("a").assigned(), [attempt(job, 0, 1)]);
    t.agent("a").completes(attempt(job, 0, 1));
    assert_eq!(t.counts(job), [0, 0, 0, 1, 0, 0]);
}

#[test]
fn an_agent_without_its_data_has_lost_its_attempts() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { max_losses: 2, ..task() }]);
    for loss in 1..=2 {
        t.agent("a").lose();
        let model = t.agent("a").model().data_id[1] + 1;
        t.agent("a").model().data_id[1] = model;
        t.agent("a").model().holds.clear();
        t.agent("a").register();
        assert_eq!(t.task(id(job, 0, 0)).losses, loss);
    }
    let ended = t.task(id(job, 0, 0));
    assert_eq!((ended.status, ended.end.unwrap().reason), (S::Lost, fb::EndReason::AgentLost));
    assert_eq!(t.counts(job), [0, 0, 0, 0, 1, 0]);
}

#[test]
fn a_restarted_scheduler_keeps_what_agents_run() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { count: 6, ..task() }]);
    t.agent("a").runs(attempt(job, 0, 1));
    t.restart();
    assert_eq!(t.counts(job), [2, 4, 0, 0, 0, 0]);
    t.agent("a").register();
    assert_eq!(t.counts(job), [2, 3, 1, 0, 0, 0]);
    for attempt in t.agent("a").holds() {
        t.agent("a").completes(attempt);
    }
    assert_eq!(t.counts(job), [0, 2, 0, 4, 0, 0]);
}

#[test]
fn an_agent_that_says_goodbye_gets_nothing_new_until_it_registers_again() {
    let mut t = T::new();
    t.agent("a").register();
    let first = t.submit(vec![task()]);
    t.agent("a").send(Message::Rare(fb::SchedulerMessageT::Deregister(Box::default())));
    let second = t.submit(vec![task()]);
    assert_eq!(t.counts(second), [1, 0, 0, 0, 0, 0]);
    t.agent("a").completes(attempt(first, 0, 1)).lose();
    t.restart();
    assert!(t.scheduler.state().agents.iter().all(|(_, agent)| agent.left_at.is_some()));
    t.agent("a").register();
    assert_eq!(t.counts(second), [0, 1, 0, 0, 0, 0]);
}

#[test]
fn another_capacity_is_taken_and_less_than_is_in_use_takes_nothing() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { count: 3, ..task() }]);
    let all = t.agent("a").holds();
    // One core less than it holds; its own books would say the same, so they are kept out of it.
    t.agent("a").model().holds.clear();
    t.agent("a").lose();
    for attempt in &all {
        t.agent("a").model().holds.insert(*attempt, (Resources::ZERO, S::Running));
    }
    t.agent("a").capacity(Resources { cpu: 2_000, memory: 1_000, ..Resources::ZERO }).register();
    let more = t.submit(vec![TaskSpec { resources: Resources { memory: 1, ..Resources::ZERO }, ..task() }]);
    assert_eq!(t.counts(more), [1, 0, 0, 0, 0, 0]);
    t.agent("a").completes(attempt(job, 0, 1));
    assert_eq!(t.counts(more), [0, 1, 0, 0, 0, 0]);
}

#[test]
fn a_register_that_makes_no_sense_is_refused() {
    let mut t = T::new();
    t.agent("a").connect();
    let register = |change: fn(&mut fb::RegisterT)| {
        let mut register = fb::RegisterT { data_id: Some(vec![0; 16]), ..fb::RegisterT::default() };
        change(&mut register);
        Message::Rare(fb::SchedulerMessageT::Register(Box::new(register)))
    };
    let wrong: [fn(&mut fb::RegisterT); 4] = [
        |register| register.data_id = None,
        |register| register.agent_types = Some(vec![fb::AgentType(77)]),
        |register| register.labels = Some(fleetwire_common::job::key_values(&[("a b".into(), "v".into())])),
        |register| {
            let report = fb::AttemptReportT { task_id: Some("7.0".into()), ..fb::AttemptReportT::default() };
            register.attempts = Some(vec![report]);
        },
    ];
    for change in wrong {
        assert_eq!(t.agent("a").send(register(change)).nacked(), C::Validation);
    }
    assert_eq!(t.scheduler.state().agents.count(), 0);
}

#[test]
fn a_principal_has_one_name_in_each_role() {
    let mut t = T::new();
    t.agent("op").register();
    t.operator();
    assert!(t.closed.is_empty());
    let principal = Principal { role: fb::Role::Agent, name: Name::new("op").unwrap() };
    assert_eq!(principal.to_string(), "agent/op");
}
