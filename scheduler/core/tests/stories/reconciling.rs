//! What a scheduler answers for each combination of what an agent lists and what the state knows: the table of
//! docs/reconcile.md, cell by cell.

use crate::harness::*;
use fleetwire_common::{
    fb::{AttemptVerdict as V, ErrorCode as C, SchedulerMessageT as M, TaskStatus as S},
    ids::AttemptId,
    job::TaskSpec,
    message::{Ack, Message},
    resources::Resources,
};

/// What the state knows of an attempt when its agent comes back.
#[derive(Clone, Copy, Debug)]
enum Known {
    Open,
    Cancelled,
    Ended,
    OnAnother,
    Never,
}

/// What came of it.
#[derive(Debug, PartialEq)]
enum Came {
    Nothing,
    SentAgain,
    Committed,
    Refused(C),
}

/// The verdict on the attempt if it was listed, and what came of it: of a result, once it was offered.
fn cell(known: Known, listed: Option<S>) -> (Option<V>, Came) {
    let mut t = T::new();
    if matches!(known, Known::OnAnother) {
        t.agent("b").register();
    } else {
        t.agent("a").register();
    }
    let job = t.submit(vec![TaskSpec { max_losses: 1, ..task() }]);
    let id = if matches!(known, Known::Never) { attempt(99, 0, 1) } else { attempt(job, 0, 1) };
    if matches!(known, Known::OnAnother) {
        t.agent("a").register();
    }
    if matches!(known, Known::Never) {
        t.agent("a").completes(attempt(job, 0, 1));
    }
    t.agent("a").lose();
    match known {
        Known::Cancelled => t.cancel(job, None).unwrap(),
        Known::Ended => t.pass(secs(61)),
        Known::Open | Known::OnAnother | Known::Never => {}
    }
    let model = t.agent("a").model().clone();
    t.agent("a").model().holds.clear();
    if let Some(status) = listed {
        t.agent("a").model().holds.insert(id, (small(), status));
    }
    // Nobody gets new work whose list was not answered.
    t.agent("a").connect();
    let more = t.submit(vec![TaskSpec { count: 8, ..task() }]);
    let early = t.agent("a").inbox();
    assert!(!early.iter().any(|message| matches!(message, Message::Assignment(_))), "{early:?}");
    t.cancel(more, None).unwrap();
    t.agent("a").register();
    let answer = t.agent("a").inbox();
    let verdict = answer.iter().find_map(|message| match message {
        Message::Rare(M::Registered(registered)) => Some(registered.answers.iter().flatten().next()?.verdict),
        _ => None,
    });
    let again = |message: &Message| matches!(message, Message::Assignment(sent) if sent.attempt == id);
    let mut came = if answer.iter().any(again) { Came::SentAgain } else { Came::Nothing };
    if listed == Some(S::Completed) {
        t.agent("a").completes(id);
        came = offered(&t.agent("a").inbox(), id);
    }
    check_sums(&mut t);
    // Whatever it is told to stop it stops, and then nothing of it counts.
    if matches!(verdict, Some(V::Stop | V::Unknown)) && listed != Some(S::Completed) {
        t.agent("a").ends(id, S::Cancelled, Default::default());
        check_sums(&mut t);
        assert!(t.agent("a").holds().is_empty());
    }
    assert_eq!(model.data_id, t.agent("a").model().data_id);
    (verdict, came)
}

fn offered(answer: &[Message], id: AttemptId) -> Came {
    let of = |message: &Message| match message {
        Message::Ack(Ack::Final(acked)) if *acked == id => Some(Came::Committed),
        Message::Rare(M::Nack(nack)) => Some(Came::Refused(nack.code)),
        _ => None,
    };
    answer.iter().find_map(of).expect("an answer to the result")
}

/// What the ledger counts is what the agent holds.
fn check_sums(t: &mut T) {
    let holds = t.agent("a").model().holds.values().fold(Resources::ZERO, |sum, (amount, _)| sum.plus(*amount));
    let name = fleetwire_common::ids::Name::new("a").unwrap();
    let agent = t.scheduler.state().agents.named(&name).unwrap();
    let live = t.scheduler.live().agent(agent).unwrap();
    assert_eq!(live.in_use(), holds);
    assert_eq!(live.free(), Resources { cpu: 4_000, memory: 1_000, gpu: 0, storage: 0 }.minus(holds));
}

#[test]
fn what_is_not_listed_is_sent_again_ends_or_is_nothing() {
    assert_eq!(cell(Known::Open, None), (None, Came::SentAgain));
    assert_eq!(cell(Known::Cancelled, None), (None, Came::Nothing));
    assert_eq!(cell(Known::Ended, None), (None, Came::Nothing));
    assert_eq!(cell(Known::OnAnother, None), (None, Came::Nothing));
    assert_eq!(cell(Known::Never, None), (None, Came::Nothing));
}

#[test]
fn what_has_not_ended_there_is_kept_or_stopped() {
    for status in [S::Assigned, S::Running] {
        assert_eq!(cell(Known::Open, Some(status)), (Some(V::Keep), Came::Nothing));
        assert_eq!(cell(Known::Cancelled, Some(status)), (Some(V::Stop), Came::Nothing));
        assert_eq!(cell(Known::Ended, Some(status)), (Some(V::Stop), Came::Nothing));
        assert_eq!(cell(Known::OnAnother, Some(status)), (Some(V::Stop), Came::Nothing));
        assert_eq!(cell(Known::Never, Some(status)), (Some(V::Unknown), Came::Nothing));
    }
}

#[test]
fn a_result_is_taken_or_refused_by_its_number() {
    let result = Some(S::Completed);
    assert_eq!(cell(Known::Open, result), (Some(V::Keep), Came::Committed));
    assert_eq!(cell(Known::Cancelled, result), (Some(V::Stop), Came::Committed));
    assert_eq!(cell(Known::Ended, result), (Some(V::Stop), Came::Refused(C::AttemptEnded)));
    assert_eq!(cell(Known::OnAnother, result), (Some(V::Stop), Came::Refused(C::NotYourAttempt)));
    assert_eq!(cell(Known::Never, result), (Some(V::Unknown), Came::Refused(C::UnknownAttempt)));
}
