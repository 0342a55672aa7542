//! What a job wants when an agent is not heard: what goes on, what is tried elsewhere, what is stopped.

use crate::harness::*;
use fleetwire_common::{
    fb::{AttemptVerdict as V, EndReason as R, ErrorCode as C, Keep, TaskStatus as S},
    ids::AttemptId,
    job::{TaskSpec, Terms},
    message::{Ack, Heartbeat, Message},
};

fn exclusive() -> Terms {
    Terms { exclusive: true, stop_on_disconnect_after_ms: 90_000, ..Terms::lost_after(120) }
}

/// `a` runs the only task under these terms, `b` is ready.
fn with_terms(spec: TaskSpec, terms: Terms) -> (T, AttemptId, AttemptId) {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit_with(spec, terms).unwrap();
    t.agent("b").register();
    t.agent("a").runs(attempt(job, 0, 1));
    (t, attempt(job, 0, 1), attempt(job, 0, 2))
}

/// `a` was away for longer than the job allows, `b` runs the rival and is half done; `a` comes back.
fn after_return(keep: Keep, progress: f32) -> (T, AttemptId, AttemptId) {
    let (mut t, first, second) = with_terms(task(), Terms { keep, ..Terms::lost_after(60) });
    t.agent("a").lose();
    t.pass_beating(secs(61));
    assert_eq!(t.agent("b").assigned(), [second]);
    t.agent("b").reports(second, S::Running, 0.5);
    t.agent("a").model().progress = progress;
    t.agent("a").register();
    (t, first, second)
}

#[test]
fn the_original_goes_on_and_its_replacement_ends() {
    let (mut t, first, second) = after_return(Keep::Original, 0.1);
    assert_eq!(t.agent("b").cancelled(), [(second, R::Rival)]);
    assert_eq!(t.agent("b").completes(second).nacked(), C::AttemptEnded);
    assert!(t.agent("a").completes(first).acked(first));
    let summary = t.task(first.task);
    assert_eq!((summary.status, summary.losses, summary.failures), (S::Completed, 0, 0));
}

#[test]
fn the_replacement_goes_on_and_the_original_is_told_to_stop() {
    let (mut t, first, second) = after_return(Keep::Replacement, 0.9);
    assert!(t.agent("b").cancelled().is_empty());
    assert_eq!(t.agent("a").verdict(first), V::Stop);
    assert_eq!(t.agent("a").completes(first).nacked(), C::AttemptEnded);
    assert!(t.agent("b").completes(second).acked(second));
    assert_eq!(t.task(first.task).losses, 0);
}

#[test]
fn of_two_the_one_that_came_further_goes_on() {
    let (mut t, _, second) = after_return(Keep::BestProgress, 0.9);
    assert_eq!(t.agent("b").cancelled(), [(second, R::Rival)]);
    let (mut t, first, _) = after_return(Keep::BestProgress, 0.4);
    assert_eq!(t.agent("a").verdict(first), V::Stop);
    // As far as each other: whoever had it first.
    let (mut t, _, second) = after_return(Keep::BestProgress, 0.5);
    assert_eq!(t.agent("b").cancelled(), [(second, R::Rival)]);
}

#[test]
fn a_result_that_is_there_already_decides_by_itself() {
    let (mut t, first, second) = with_terms(task(), Terms { keep: Keep::Replacement, ..Terms::lost_after(60) });
    t.agent("a").lose();
    t.pass_beating(secs(61));
    t.agent("b").runs(second);
    t.agent("a").model().holds.get_mut(&first).unwrap().1 = S::Completed;
    t.agent("a").register();
    assert!(t.agent("a").completes(first).acked(first));
    assert_eq!(t.agent("b").cancelled(), [(second, R::Rival)]);
}

#[test]
fn while_the_replacement_is_not_heard_nothing_is_decided() {
    let (mut t, first, second) = with_terms(task(), Terms { keep: Keep::Replacement, ..Terms::lost_after(60) });
    t.agent("a").lose();
    t.pass_beating(secs(61));
    t.agent("b").runs(second).lose();
    t.pass(secs(30));
    t.agent("a").register();
    assert_eq!(t.agent("a").verdict(first), V::Keep);
    t.agent("b").register();
    assert_eq!(t.agent("a").cancelled(), [(first, R::Rival)]);
    assert_eq!(t.agent("b").verdict(second), V::Keep);
    let (mut t, first, second) = with_terms(TaskSpec { max_losses: 5, ..task() }, Terms::lost_after(60));
    t.agent("a").lose();
    t.pass_beating(secs(61));
    t.agent("b").runs(second).lose();
    t.pass(secs(61));
    // The rival is suspect too: the older has ended.
    t.agent("a").register();
    assert_eq!(t.agent("a").verdict(first), V::Stop);
}

#[test]
fn what_is_not_to_be_retried_has_failed_with_its_agent() {
    let (mut t, first, _) = with_terms(task(), Terms { retry_lost: false, ..Terms::lost_after(60) });
    t.agent("a").lose();
    t.pass_beating(secs(59));
    assert_eq!(t.task(first.task).status, S::Running);
    t.pass_beating(secs(2));
    let summary = t.task(first.task);
    assert_eq!((summary.status, summary.end.unwrap().reason), (S::Lost, R::AgentLost));
    assert!(t.agent("b").assigned().is_empty());
}

#[test]
fn exclusive_work_has_one_open_attempt_at_a_time() {
    let (mut t, first, second) = with_terms(task(), exclusive());
    t.agent("a").lose();
    t.pass_beating(secs(119));
    assert!(t.agent("b").assigned().is_empty());
    t.pass_beating(secs(2));
    assert_eq!(t.agent("b").assigned(), [second]);
    assert_eq!(t.scheduler.state().tasks[&first.task].open.count(), 1);
    assert_eq!(t.task(first.task).losses, 1);
    t.agent("a").register();
    assert_eq!(t.agent("a").verdict(first), V::Stop);
}

#[test]
fn exclusive_work_that_was_lost_is_not_tried_before_its_agent_has_stopped_it() {
    let (mut t, first, second) = with_terms(task(), exclusive());
    // The device is back with an empty folder; what ran on it may run still, until it stops for want of an answer.
    let a = t.agent("a").lose();
    drop(a);
    t.agent("a").model().data_id = [9; 16];
    t.agent("a").model().holds.clear();
    t.agent("a").register();
    assert_eq!(t.task(first.task).losses, 1);
    // With 5 s of grace, and what a slow clock and the killing may take.
    t.pass_beating(secs(96));
    assert!(t.agent("a").assigned().is_empty() && t.agent("b").assigned().is_empty());
    t.pass_beating(secs(2));
    let (a, b) = (t.agent("a").assigned(), t.agent("b").assigned());
    assert_eq!([a, b].concat(), [second]);
}

#[test]
fn exclusive_work_beyond_its_run_timeout_ends_only_when_its_agent_says_so() {
    let (mut t, first, _) = with_terms(TaskSpec { timeout_s: 10, max_attempts: 2, ..task() }, exclusive());
    t.agent("a").inbox();
    t.pass_beating(secs(300));
    assert_eq!(t.scheduler.state().tasks[&first.task].attempts, 1);
    assert!(t.agent("a").cancelled().contains(&(first, R::RunTimeout)));
    t.agent("a").ends(first, S::TimedOut, Default::default());
    t.pass_beating(secs(10));
    assert_eq!(t.scheduler.state().tasks[&first.task].attempts, 2);
}

#[test]
fn terms_that_cannot_be_kept_are_refused() {
    let mut t = T::new();
    let stops = |stop_on_disconnect_after_ms| Terms { stop_on_disconnect_after_ms, ..Terms::lost_after(600) };
    // Agents of the harness beat every 30 s.
    assert_eq!(t.submit_with(task(), stops(89_999)), Err(C::Validation));
    assert!(t.submit_with(task(), stops(90_000)).is_ok());
}

#[test]
fn where_work_ends_that_is_not_heard_every_heartbeat_is_answered() {
    let answered = |t: &mut T, name: &str| {
        t.agent(name).inbox();
        let mut agent = t.agent(name).send(Message::Heartbeat(Heartbeat::default()));
        agent.inbox().iter().any(|message| matches!(message, Message::Ack(Ack::Heartbeat(_))))
    };
    let (mut t, first, _) = with_terms(task(), Terms { stop_on_disconnect_after_ms: 90_000, ..Terms::lost_after(60) });
    assert!(answered(&mut t, "a"));
    assert!(!answered(&mut t, "b"), "an answer was not asked for, and nothing ends there without it");
    // What is suspect is not told that it is heard before it was reconciled.
    t.agent("a").lose();
    t.pass_beating(secs(61));
    t.agent("a").connect();
    assert!(!answered(&mut t, "a"));
    t.agent("a").register();
    assert!(answered(&mut t, "a"));
    t.agent("a").completes(first);
    assert!(!answered(&mut t, "a"));
}

#[test]
fn an_agent_that_is_given_what_stops_unheard_is_told_first_that_it_was_heard() {
    let mut t = T::new();
    t.agent("a").register();
    let mut told = |terms: Terms| {
        let mut agent = t.agent("a").send(Message::Heartbeat(Heartbeat::default()));
        agent.inbox();
        t.submit_with(task(), terms).unwrap();
        let said = t.agent("a").inbox();
        let is_answer = |message: &Message| matches!(message, Message::Ack(Ack::Heartbeat(_)));
        let is_work = |message: &Message| matches!(message, Message::Assignment(_));
        (said.iter().position(is_answer), said.iter().position(is_work))
    };
    assert_eq!(told(Terms::lost_after(60)), (None, Some(0)), "its work goes on unheard");
    assert_eq!(told(exclusive()), (Some(0), Some(1)));
    assert_eq!(told(exclusive()), (None, Some(0)), "the heartbeat was answered when it came");
}

#[test]
fn the_agent_is_told_when_to_stop() {
    let mut t = T::new();
    t.agent("a").register();
    t.submit_with(task(), exclusive()).unwrap();
    let told = |message: &Message| match message {
        Message::Assignment(assignment) => Some(assignment.stop_on_disconnect_after_ms),
        _ => None,
    };
    assert_eq!(t.agent("a").inbox().iter().find_map(told), Some(90_000));
}
