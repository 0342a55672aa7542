//! Semaphores: what all tasks of all jobs hold of a name together. The harness checks after every event that agents hold no
//! more of any name than there is.

use crate::{forgetting::forget, harness::*};
use fleetwire_common::{
    fb::{self, EndReason as R, ErrorCode as C, TaskStatus as S},
    ids::{AttemptId, Name, TaskId},
    job::{JobSpec, Semaphore, TaskSpec, Terms},
    message::End,
    resources::Resources,
};

fn terms() -> Terms {
    Terms { stop_on_disconnect_after_ms: 90_000, ..Terms::lost_after(120) }
}

fn of(name: &str, max: u32, units: u32) -> Semaphore {
    Semaphore { name: Name::new(name).unwrap(), max, units }
}

fn holds(count: u32, semaphores: &[Semaphore]) -> TaskSpec {
    TaskSpec { count, array: count > 1, max_losses: 9, semaphores: semaphores.to_vec(), ..task() }
}

fn submit(t: &mut T, spec: TaskSpec) -> u64 {
    t.submit_with(spec, terms()).unwrap()
}

fn why(t: &mut T, task: TaskId) -> String {
    let query = fb::QueryT { kind: fb::QueryKind::Explain, task_id: Some(task.to_string()), ..fb::QueryT::default() };
    t.query(query).unwrap().explanation.unwrap().summary.unwrap()
}

/// What of it runs.
fn active(t: &mut T, job: u64) -> u32 {
    t.counts(job)[1]
}

#[test]
fn tasks_of_all_jobs_share_what_there_is_of_a_name_in_their_order() {
    let mut t = T::new();
    t.agent("a").register();
    let db = [of("db", 2, 1)];
    let first = submit(&mut t, holds(3, &db));
    let second = submit(&mut t, holds(9, &db));
    let other = submit(&mut t, holds(1, &[of("other", 1, 1)]));
    assert_eq!(t.agent("a").assigned(), [attempt(first, 0, 1), attempt(first, 1, 1), attempt(other, 0, 1)]);
    assert_eq!(
        why(&mut t, id(second, 0, 0)),
        format!(
            "waits for semaphore `db`: 2 of its 2 are taken, it needs 1; held by {first}.0.0 on `a`, {first}.0.1 on `a`"
        )
    );
    // What ended leaves it to the next; so does what is tried again, after those that wait.
    t.agent("a").completes(attempt(first, 1, 1));
    assert_eq!(t.agent("a").assigned(), [attempt(first, 2, 1)]);
    t.agent("a").fails(attempt(first, 0, 1));
    assert_eq!(t.agent("a").assigned(), [attempt(second, 0, 1)]);
    // What was asked to stop holds it until its last process is gone.
    t.cancel(second, Some(id(second, 0, 0))).unwrap();
    assert!(t.agent("a").assigned().is_empty());
    t.agent("a").ends(attempt(second, 0, 1), S::Cancelled, End { reason: R::Cancelled, ..End::default() });
    assert_eq!(t.agent("a").assigned(), [attempt(second, 1, 1)]);
    // One that comes first by its priority is served first.
    let urgent = submit(&mut t, TaskSpec { priority: 1, ..holds(1, &db) });
    t.agent("a").rejects(attempt(second, 1, 1));
    assert_eq!(t.agent("a").assigned(), [attempt(urgent, 0, 1)]);
}

#[test]
fn a_limit_is_what_open_jobs_say() {
    let mut t = T::new();
    t.agent("a").register();
    let first = submit(&mut t, holds(1, &[of("db", 2, 1)]));
    assert_eq!(t.submit_with(holds(1, &[of("db", 3, 1)]), terms()), Err(C::Conflict));
    assert_eq!(active(&mut t, first), 1);
    t.agent("a").completes(attempt(first, 0, 1));
    let second = submit(&mut t, holds(1, &[of("db", 3, 1)]));
    assert_eq!(active(&mut t, second), 1);
}

#[test]
fn neither_more_units_nor_more_names_make_a_task_wait_for_ever() {
    let mut t = T::new();
    t.agent("a").register();
    let one = submit(&mut t, holds(1, &[of("db", 2, 1)]));
    let both = submit(&mut t, holds(1, &[of("db", 2, 2)]));
    let small = submit(&mut t, holds(9, &[of("db", 2, 1)]));
    // There is one left, and the first that waits needs two: it is kept for that.
    assert_eq!((active(&mut t, one), active(&mut t, both), active(&mut t, small)), (1, 0, 0));
    assert!(why(&mut t, id(small, 0, 0)).contains("what is before it waits for more of semaphore `db`"));
    t.agent("a").completes(attempt(one, 0, 1));
    assert_eq!((active(&mut t, both), active(&mut t, small)), (1, 0));
    t.agent("a").completes(attempt(both, 0, 1));
    assert_eq!(active(&mut t, small), 2);
    t.cancel(small, None).unwrap();
    for index in 0..2 {
        t.agent("a").ends(attempt(small, index, 1), S::Cancelled, End::default());
    }
    // Of two names nothing is held until both are to be had: nobody waits in a circle.
    let (x, y) = (of("x", 1, 1), of("y", 1, 1));
    let holds_y = submit(&mut t, holds(1, std::slice::from_ref(&y)));
    let x_and_y = submit(&mut t, holds(1, &[x.clone(), y.clone()]));
    let y_and_x = submit(&mut t, holds(1, &[y, x.clone()]));
    let only_x = submit(&mut t, holds(1, &[x]));
    let of_all = |t: &mut T| [holds_y, x_and_y, y_and_x, only_x].map(|job| active(t, job));
    assert_eq!(of_all(&mut t), [1, 0, 0, 0]);
    t.agent("a").completes(attempt(holds_y, 0, 1));
    assert_eq!(of_all(&mut t), [0, 1, 0, 0]);
    t.agent("a").completes(attempt(x_and_y, 0, 1));
    assert_eq!(of_all(&mut t), [0, 0, 1, 0]);
    t.agent("a").completes(attempt(y_and_x, 0, 1));
    assert_eq!(of_all(&mut t), [0, 0, 0, 1]);
}

#[test]
fn what_fits_no_agent_keeps_nothing_from_others() {
    let mut t = T::new();
    t.agent("a").register();
    let gpu = Resources { gpu: 1, ..small() };
    let first = submit(&mut t, TaskSpec { resources: gpu, ..holds(1, &[of("db", 2, 2)]) });
    let second = submit(&mut t, holds(9, &[of("db", 2, 1)]));
    assert_eq!((active(&mut t, first), active(&mut t, second)), (0, 2));
    t.agent("a").completes(attempt(second, 0, 1));
    assert_eq!(active(&mut t, second), 2);
    // As soon as there is an agent for it, it is its turn again.
    t.agent("g").capacity(gpu).register();
    t.agent("a").completes(attempt(second, 1, 1));
    assert_eq!((active(&mut t, first), active(&mut t, second)), (0, 1));
    t.agent("a").completes(attempt(second, 2, 1));
    assert_eq!((active(&mut t, first), active(&mut t, second)), (1, 0));
    t.agent("g").completes(attempt(first, 0, 1));
    assert_eq!(active(&mut t, second), 2);
}

#[test]
fn what_its_cap_or_its_agent_turns_down_gives_back_what_it_was_to_hold() {
    let mut t = T::new();
    t.agent("a").register();
    // One of each is planned in one step, and there is a place for one of both.
    let entry = |name: &str| TaskSpec { name: Name::new(name).unwrap(), ..holds(1, &[of("db", 2, 1)]) };
    let terms = Terms { max_running: 1, ..terms() };
    let spec = JobSpec::new(Name::new("j").unwrap(), vec![entry("one"), entry("other")], terms).unwrap();
    let submit_id = t.submit_id();
    let (job, _) = t.submit_as(submit_id, &spec).unwrap();
    let other = submit(&mut t, holds(9, &[of("db", 2, 1)]));
    t.pass(secs(1));
    assert_eq!((active(&mut t, job), active(&mut t, other)), (1, 1));
}

#[test]
fn an_agent_that_is_not_heard_holds_it_until_it_has_stopped() {
    let mut t = T::new();
    t.agent("a").register();
    let job = submit(&mut t, holds(2, &[of("db", 1, 1)]));
    t.agent("a").runs(attempt(job, 0, 1)).lose();
    t.agent("b").register();
    t.pass_beating(secs(119));
    assert!(t.agent("b").assigned().is_empty(), "it has not ended, and might be sent again");
    t.agent("a").model().holds.clear();
    t.pass_beating(secs(2));
    assert_eq!(t.agent("b").assigned(), [attempt(job, 0, 2)]);
    // It is back, and was killed in the meantime.
    t.agent("a").register();
    assert!(t.agent("a").assigned().is_empty());
    t.agent("b").completes(attempt(job, 0, 2));
    let (a, b) = (t.agent("a").assigned(), t.agent("b").assigned());
    assert_eq!([a, b].concat(), [attempt(job, 1, 1)]);
}

#[test]
fn what_was_assigned_and_never_came_holds_it_until_it_has_ended() {
    let mut t = T::new();
    t.agent("a").register();
    let job = submit(&mut t, holds(2, &[of("db", 1, 1)]));
    t.agent("a").model().holds.clear();
    t.agent("a").lose();
    t.agent("b").register();
    t.pass_beating(secs(110));
    assert!(t.agent("b").assigned().is_empty());
    // Sent again, it starts.
    t.agent("a").register();
    assert_eq!(t.agent("a").assigned(), [attempt(job, 0, 1)]);
    t.pass_beating(secs(120));
    assert!(t.agent("b").assigned().is_empty());
    t.agent("a").completes(attempt(job, 0, 1));
    assert_eq!(active(&mut t, job), 1);
}

#[test]
fn a_restart_knows_who_holds_what() {
    let mut t = T::new();
    t.agent("a").register();
    let first = submit(&mut t, holds(2, &[of("db", 2, 1)]));
    let second = submit(&mut t, holds(2, &[of("db", 2, 1)]));
    t.restart();
    // Before its agent is back, too.
    t.agent("b").register();
    assert_eq!((active(&mut t, first), active(&mut t, second)), (2, 0));
    t.agent("a").register();
    assert_eq!((active(&mut t, first), active(&mut t, second)), (2, 0));
    t.agent("a").completes(attempt(first, 1, 1));
    assert_eq!(active(&mut t, second), 1);
}

#[test]
fn after_a_restored_backup_it_is_free_once_whatever_may_hold_it_has_stopped() {
    let mut t = T::new();
    t.agent("a").register();
    // Assigned after the backup, and stopped later than the other job says of its own.
    let slow = Terms { stop_on_disconnect_after_ms: 300_000, ..Terms::lost_after(600) };
    t.agent("a").lose();
    let _ = t.submit_with(holds(1, &[of("db", 1, 1)]), slow).unwrap();
    let second = submit(&mut t, holds(1, &[of("db", 1, 1)]));
    let facts = t.facts.clone();
    t.agent("a").register();
    t.agent("a").model().proof = Some(t.scheduler.proof(t.scheduler.position()));
    t.restore(facts, 4, false);
    let _ = t.agent("a").connect();
    let facts = t.facts.clone();
    t.restore(facts, 5, true);
    t.agent("b").register();
    t.pass_beating(secs(300));
    assert_eq!(active(&mut t, second), 0);
    t.agent("a").model().holds.clear();
    t.pass_beating(secs(20));
    assert_eq!(t.agent("b").assigned().len(), 1);
}

#[test]
fn a_forgotten_agent_holds_it_until_it_has_stopped_also_over_a_restart() {
    for restarts in [false, true] {
        let mut t = T::new();
        t.agent("a").register();
        let job = submit(&mut t, TaskSpec { max_losses: 1, ..holds(2, &[of("db", 1, 1)]) });
        t.agent("a").runs(attempt(job, 0, 1)).lose();
        t.agent("b").register();
        forget(&mut t, "a").unwrap();
        assert_eq!(t.task(id(job, 0, 0)).status, S::Lost);
        if restarts {
            t.restart();
            t.agent("b").register();
        }
        t.pass_beating(secs(97));
        assert!(t.agent("b").assigned().is_empty());
        t.agent("a").model().holds.clear();
        t.pass_beating(secs(1));
        assert_eq!(t.agent("b").assigned(), [attempt(job, 1, 1)]);
    }
}

#[test]
fn an_agent_that_lost_its_data_holds_it_until_what_it_had_is_stopped() {
    let mut t = T::new();
    t.agent("a").register();
    let job = submit(&mut t, TaskSpec { max_losses: 1, ..holds(2, &[of("db", 1, 1)]) });
    t.agent("a").runs(attempt(job, 0, 1)).lose();
    t.agent("a").model().data_id = [9; 16];
    t.agent("a").model().holds.clear();
    t.agent("a").register();
    assert_eq!(t.task(id(job, 0, 0)).status, S::Lost);
    t.pass_beating(secs(97));
    assert!(t.agent("a").assigned().is_empty());
    t.pass_beating(secs(1));
    assert_eq!(t.agent("a").assigned(), [attempt(job, 1, 1)]);
    // With its data, it knows that nothing of it is there.
    t.agent("a").lose();
    t.agent("a").model().holds.clear();
    t.agent("a").register();
    assert_eq!(t.agent("a").assigned(), [attempt(job, 1, 1)]);
    t.agent("a").completes(attempt(job, 1, 1));
    assert!(t.job(job).ended_at > 0);
}

#[test]
fn what_was_known_to_have_ended_and_is_listed_again_holds_it_until_it_is_gone() {
    let mut t = T::new();
    t.agent("a").register();
    let job = submit(&mut t, TaskSpec { max_losses: 1, ..holds(2, &[of("db", 1, 1)]) });
    let first: AttemptId = attempt(job, 0, 1);
    t.agent("a").runs(first).lose();
    forget(&mut t, "a").unwrap();
    t.agent("a").register();
    assert_eq!(t.agent("a").verdict(first), fb::AttemptVerdict::Stop);
    t.pass_beating(secs(200));
    assert!(t.agent("a").assigned().is_empty());
    t.agent("a").ends(first, S::Cancelled, End::default());
    assert_eq!(t.agent("a").assigned(), [attempt(job, 1, 1)]);
}

#[test]
fn what_may_outlive_its_agents_silence_may_hold_nothing() {
    let spec = holds(1, &[of("db", 1, 1)]);
    let job = |terms| JobSpec::new(Name::new("j").unwrap(), vec![spec.clone()], terms);
    assert!(job(Terms::lost_after(120)).is_err(), "nobody stops it");
    assert!(job(Terms { lost_after_s: 97, ..terms() }).is_err(), "it is stopped too late");
    assert!(job(terms()).unwrap().terms.exclusive);
}
