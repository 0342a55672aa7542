//! Journals that are not what they should be: an error that names position and cause, never a panic.

use crate::harness::*;
use fleetwire_common::{
    fb::{self, TaskStatus as S},
    ids::*,
    job::TaskSpec,
    message::End,
    time::Time,
};
use fleetwire_scheduler_core::{
    ReplayCause, ReplayError, Scheduler,
    fact::{Ended, Fact, FactError},
    state::ApplyError,
};
use proptest::prelude::*;
use std::borrow::Cow;

/// A journal with every kind of fact.
fn journal() -> Vec<Vec<u8>> {
    story().facts
}

fn story() -> T {
    let mut t = T::new();
    t.handle(fleetwire_scheduler_core::Event::IssueToken { role: fb::Role::Agent, uses: 1, expires_in: secs(9) });
    let name = Name::new("op").unwrap();
    t.handle(fleetwire_scheduler_core::Event::EnrolLocally { name, role: fb::Role::Operator, key_sha256: [1; 32] });
    t.agent("a").label("zone", "x").kind(fb::AgentType::Rater).register();
    let job = t.submit(vec![TaskSpec { count: 9, ..task() }]);
    t.agent("a").runs(attempt(job, 0, 1)).completes(attempt(job, 0, 1)).fails(attempt(job, 1, 1));
    t.cancel(job, Some(id(job, 0, 8))).unwrap();
    t.agent("a").lose();
    t.pass(secs(100));
    t.restart();
    t.agent("a").register();
    t.cancel(job, None).unwrap();
    t
}

fn replay(facts: &[Vec<u8>]) -> Result<Scheduler, ReplayError> {
    let mut scheduler = Scheduler::new(config());
    for fact in facts {
        scheduler.replay(fact)?;
    }
    Ok(scheduler)
}

#[test]
fn a_fact_that_is_missing_or_comes_twice_is_noticed() {
    let facts = journal();
    assert!(replay(&facts).is_ok());
    let kind = |at: usize| Fact::decode(&facts[at]).unwrap().1;
    for at in 0..facts.len() {
        // What sets something to what it is already may come twice.
        let repeats = matches!(
            kind(at),
            Fact::AgentRegistered { .. }
                | Fact::AgentUnreachable { .. }
                | Fact::AgentReturned { .. }
                | Fact::CancelRequested { .. }
                | Fact::PrincipalEnrolled { .. }
        );
        let mut twice = facts.clone();
        twice.insert(at, facts[at].clone());
        assert_eq!(replay(&twice).is_ok(), repeats, "{:?}", kind(at));
    }
    let mut missing = facts.clone();
    let assigned = facts.iter().position(|fact| matches!(Fact::decode(fact).unwrap().1, Fact::AttemptAssigned { .. }));
    missing.remove(assigned.unwrap());
    let error = replay(&missing).err().unwrap();
    assert!(matches!(error.cause, ReplayCause::Contradiction(_)), "{error}");
    assert!(error.to_string().starts_with(&format!("the fact at position {}: ", error.position.0)), "{error}");
}

#[test]
fn a_snapshot_fact_that_is_missing_comes_twice_or_too_early_is_noticed() {
    let facts = story().snapshot();
    assert!(replay(&facts).is_ok());
    let kind = |at: usize| Fact::decode(&facts[at]).unwrap().1;
    for at in 0..facts.len() {
        let mut twice = facts.clone();
        twice.insert(at, facts[at].clone());
        let kept = matches!(kind(at), Fact::Kept(_));
        assert_eq!(replay(&twice).is_err(), kept, "{:?}", kind(at));
    }
    assert!(facts.iter().any(|fact| matches!(Fact::decode(fact).unwrap().1, Fact::AgentRegistered { .. })));
    for end in 1..facts.len() {
        let backwards: Vec<_> = facts[..end].iter().rev().cloned().collect();
        let _ = replay(&backwards);
    }
    let late = [journal(), facts].concat();
    assert!(replay(&late).is_err(), "a snapshot is no continuation");
}

#[test]
fn an_agents_fact_is_none_of_the_schedulers() {
    let body = fb::FactBodyT::DataCreated(Box::new(fb::DataCreatedT { id: Some(vec![0; 16]), ..Default::default() }));
    let record = fb::FactRecordT { at: 1, fact: body };
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let root = record.pack(&mut builder);
    builder.finish(root, None);
    let error = replay(&[builder.finished_data().to_vec()]).err().unwrap();
    assert_eq!(error.cause, ReplayCause::Unreadable(FactError::Kind(fb::FactBody::DataCreated.0)));
    assert_eq!(error.position, Position(1));
}

#[test]
fn an_end_that_leaves_a_task_with_too_many_attempts_is_refused() {
    let mut facts = journal();
    let at = facts.iter().position(|fact| matches!(Fact::decode(fact).unwrap().1, Fact::AttemptEnded(_))).unwrap();
    facts.truncate(at);
    let ended = |task_status, attempt| {
        let end = Cow::Owned(End::default());
        let ended = Ended {
            result: None,
            attempt,
            status: S::Completed,
            task_status,
            retry_at: Time::ZERO,
            failure: false,
            loss: false,
            end,
            metrics: Cow::Borrowed(&[]),
            ends_rival: false,
        };
        Fact::AttemptEnded(ended).encode(Time(1), &mut flatbuffers::FlatBufferBuilder::new()).to_vec()
    };
    let mut with = |fact| {
        facts.truncate(at);
        facts.push(fact);
        replay(&facts).err().map(|error| error.cause)
    };
    let first = attempt(1, 0, 1);
    let outcome = with(ended(S::Assigned, first));
    assert!(matches!(outcome, Some(ReplayCause::Contradiction(ApplyError::Outcome { open: 0, .. }))), "{outcome:?}");
    let none = with(ended(S::Completed, AttemptId { attempt: 2, ..first }));
    assert_eq!(
        none,
        Some(ReplayCause::Contradiction(ApplyError::NotOpen { attempt: AttemptId { attempt: 2, ..first } }))
    );
    assert_eq!(with(ended(S::Completed, first)), None);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_the_journal_holds_replay_ends_without_a_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..4),
        order in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..3),
    ) {
        let mut facts = journal();
        for (fact, place, value) in changes {
            let count = facts.len();
            let fact = &mut facts[fact.index(count)];
            let place = place.index(fact.len());
            fact[place] = value;
        }
        for (from, to) in order {
            let (from, to) = (from.index(facts.len()), to.index(facts.len()));
            facts.swap(from, to);
        }
        let _ = replay(&facts);
        let cut = facts[0].len() / 2;
        let _ = Fact::decode(&facts[0][..cut]);
    }

    #[test]
    fn whatever_a_snapshot_holds_a_start_from_it_ends_without_a_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..4),
        order in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..3),
    ) {
        let t = story();
        let mut facts = t.snapshot();
        for (fact, place, value) in changes {
            let count = facts.len();
            let fact = &mut facts[fact.index(count)];
            let place = place.index(fact.len());
            fact[place] = value;
        }
        for (from, to) in order {
            let (from, to) = (from.index(facts.len()), to.index(facts.len()));
            facts.swap(from, to);
        }
        if let Ok(mut scheduler) = replay(&facts) {
            let mut effects = fleetwire_scheduler_core::Effects::new();
            scheduler.start(t.now, &mut effects);
            scheduler.handle(t.now, fleetwire_scheduler_core::Event::Deadline, &mut effects);
        }
    }
}
