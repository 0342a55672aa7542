//! Restored backups: recognised by what agents prove, accepted by the operator.

use crate::harness::*;
use fleetwire_common::{
    envelope::handshake::Proof,
    fb::{self, ErrorCode as C},
    job::{TaskSpec, Terms},
    resources::Resources,
};

/// `a` holds what it can of the first job; the backup was made before the second job, and what `a` proves
/// after it.
fn backup() -> (T, Vec<Vec<u8>>) {
    let mut t = T::new();
    t.agent("a").register();
    t.submit(vec![TaskSpec { count: 8, ..task() }]);
    let facts = t.facts.clone();
    t.submit(vec![TaskSpec { count: 3, ..task() }]);
    t.agent("a").model().proof = Some(t.scheduler.proof(t.scheduler.position()));
    (t, facts)
}

fn explain(t: &mut T) -> String {
    let query =
        fb::QueryT { kind: fb::QueryKind::Explain, task_id: Some(id(1, 0, 7).to_string()), ..Default::default() };
    t.query(query).unwrap().explanation.unwrap().summary.unwrap()
}

fn note(t: &mut T, name: &str) -> Option<String> {
    let query = fb::QueryT { kind: fb::QueryKind::Agent, agent: Some(name.into()), ..Default::default() };
    t.query(query).unwrap().agents.unwrap().remove(0).note
}

#[test]
fn a_restored_backup_assigns_nothing_until_it_is_accepted() {
    let (mut t, facts) = backup();
    t.restore(facts, 4, false);
    let _ = t.agent("a").connect();
    assert_eq!(t.closed.last().map(|(_, code)| *code), Some(C::WrongState), "what it holds is left to it");
    t.agent("b").register();
    assert!(t.agent("b").assigned().is_empty());
    assert!(note(&mut t, "b").unwrap().contains("--accept-restore"));
    assert!(explain(&mut t).contains("restored backup"));
    let submit = t.submit_id();
    assert_eq!(t.submit_as(submit, &job(vec![task()])), Err(C::WrongState));
    // A restart alone changes nothing.
    t.restart();
    t.agent("b").register();
    assert!(t.agent("b").assigned().is_empty());
    let facts = t.facts.clone();
    t.restore(facts, 5, true);
    t.agent("b").register();
    assert_eq!(t.agent("b").assigned().len(), 4);
    assert_eq!(note(&mut t, "b"), None);
    let proved = t.agent("a").model().proof.unwrap().receipt.position();
    let facts = t.facts.len();
    t.agent("a").register();
    assert_eq!(t.facts.len(), facts, "what was accepted is no news");
    let next = t.submit(vec![task()]);
    assert!(next > 2 && next <= 2 + proved, "the second job's number was given before: {next}");
}

/// The journal that went on had assigned what the backup takes for unstarted, and what it takes for lost.
#[test]
fn exclusive_work_waits_after_a_restored_backup_until_nothing_can_be_left_of_it_anywhere() {
    let terms = Terms { exclusive: true, stop_on_disconnect_after_ms: 90_000, ..Terms::lost_after(120) };
    let waits = terms.gone_after(task().kill_grace_ms).unwrap();
    let mut t = T::new();
    t.agent("a").register();
    let started = t.submit_with(TaskSpec { max_attempts: 3, backoff_ms: 10, ..task() }, terms).unwrap();
    t.agent("a").runs(attempt(started, 0, 1));
    t.agent("a").fails(attempt(started, 0, 1));
    t.agent("a").lose();
    let unstarted = t.submit_with(TaskSpec { count: 2, ..task() }, terms).unwrap();
    let facts = t.facts.clone();
    t.agent("a").register();
    t.agent("a").model().proof = Some(t.scheduler.proof(t.scheduler.position()));
    t.restore(facts, 4, false);
    let _ = t.agent("a").connect();
    let facts = t.facts.clone();
    t.restore(facts, 5, true);

    t.agent("b").register();
    assert_eq!(t.agent("b").assigned(), []);
    let other = t.submit(vec![task()]);
    assert_eq!(t.agent("b").assigned(), [attempt(other, 0, 1)], "what may run twice waits for nothing");
    let query = fb::QueryT {
        kind: fb::QueryKind::Explain,
        task_id: Some(id(unstarted, 0, 1).to_string()),
        ..Default::default()
    };
    let summary = t.query(query).unwrap().explanation.unwrap().summary.unwrap();
    assert!(summary.contains("it is exclusive"), "{summary}");
    // A restart makes it neither shorter nor longer.
    t.pass_beating(waits - secs(2));
    t.restart();
    t.agent("b").register();
    assert_eq!(t.agent("b").assigned(), []);
    t.pass(secs(2));
    let mut assigned = t.agent("b").assigned();
    assigned.sort();
    assert_eq!(assigned, [attempt(started, 0, 2), attempt(unstarted, 0, 1), attempt(unstarted, 1, 1)]);
}

#[test]
fn both_sides_of_a_fork_notice() {
    let (mut t, facts) = backup();
    let original = t.facts.clone();
    // The backup runs as well, and gives `c` work of its own.
    t.agent("a").model().proof = None;
    t.restore(facts, 4, false);
    t.agent("c").register();
    t.agent("c").model().proof = Some(t.scheduler.proof(t.scheduler.position()));
    // The original goes on; `c` comes over.
    t.restore(original, 5, false);
    let _ = t.agent("c").connect();
    assert_eq!(t.closed.last().map(|(_, code)| *code), Some(C::WrongState));
    t.agent("b").register();
    assert!(t.agent("b").assigned().is_empty());
}

#[test]
fn what_proves_nothing_stops_nobody() {
    let (mut t, facts) = backup();
    let genuine = t.agent("a").model().proof.unwrap();
    t.restore(facts, 4, false);
    let (receipt, id) = (genuine.receipt, genuine.incarnation_id);
    let mut mac: [u8; 16] = std::array::from_fn(|byte| receipt.mac().get(byte));
    mac[15] ^= 1;
    let forged = fb::Receipt::new(receipt.incarnation(), receipt.position(), &mac);
    let further = fb::Receipt::new(
        receipt.incarnation(),
        receipt.position() + 1_000,
        &std::array::from_fn(|byte| receipt.mac().get(byte)),
    );
    let proofs = [
        Proof { receipt: forged, incarnation_id: id },
        Proof { receipt: further, incarnation_id: id },
        Proof { receipt, incarnation_id: [7; 16] },
    ];
    for proof in proofs {
        t.agent("b").model().proof = Some(proof);
        t.agent("b").register();
        assert_eq!(note(&mut t, "b"), None, "{proof:?}");
        t.agent("b").lose();
    }
    assert!(!t.agent("b").holds().is_empty());
}

#[test]
fn what_the_journal_knows_is_no_proof_of_anything_else() {
    let (mut t, _) = backup();
    t.restart();
    t.agent("a").register();
    assert_eq!(note(&mut t, "a"), None);
    for _ in 0..3 {
        t.agent("a").model().proof = Some(t.scheduler.proof(t.scheduler.position()));
        t.restart();
        t.agent("a").register();
    }
    assert_eq!(note(&mut t, "a"), None);
    assert!(t.closed.is_empty());
}

#[test]
fn what_is_listed_by_a_number_that_is_another_jobs_here_takes_what_its_agent_says() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![task()]);
    t.agent("a").completes(attempt(job, 0, 1));
    // The other journal had given that number to something larger.
    let large = Resources { cpu: 3_000, memory: 500, gpu: 0, storage: 0 };
    t.agent("a").model().holds.insert(attempt(job, 0, 1), (large, fb::TaskStatus::Running));
    t.agent("a").register();
    let name = fleetwire_common::ids::Name::new("a").unwrap();
    let agent = t.scheduler.state().agents.named(&name).unwrap();
    assert_eq!(t.scheduler.live().agent(agent).unwrap().in_use(), large);
}
