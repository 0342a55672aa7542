//! Jobs that are submitted by a cron: at each of its moments, once, whatever happens in between. A story begins at 22:13:20 UTC.

use crate::harness::*;
use fleetwire_common::{
    fb::{self, ErrorCode as C, Overlap, ScheduleAction as A, TaskStatus as S},
    ids::Name,
    job::{FileSpec, JobSpec, TaskSpec, Terms},
    message::{Ack, Message},
    resources::Resources,
};
use fleetwire_scheduler_core::{Event, limits::SCHEDULES_MAX};
use std::time::Duration;

const MIN: u64 = 60;
const HOUR: u64 = 60 * MIN;
/// From the beginning to 23:00.
const FIRST: Duration = Duration::from_secs(46 * MIN + 40);

fn hourly() -> fb::ScheduleT {
    fb::ScheduleT {
        name: Some("report".into()),
        cron: Some("0 * * * *".into()),
        job: Some(job(vec![task()]).to_wire()),
        ..fb::ScheduleT::default()
    }
}

fn answer(t: &mut T, message: impl FnOnce(u64) -> fb::SchedulerMessageT) -> Result<(), (C, String)> {
    match t.request(message) {
        Message::Ack(Ack::Request(_)) => Ok(()),
        Message::Rare(fb::SchedulerMessageT::Nack(nack)) => Err((nack.code, nack.message.unwrap())),
        other => panic!("{other:?}"),
    }
}

fn set(t: &mut T, schedule: fb::ScheduleT) -> Result<(), (C, String)> {
    let schedule = Some(Box::new(schedule));
    answer(t, |request| fb::SchedulerMessageT::SetSchedule(Box::new(fb::SetScheduleT { request, schedule })))
}

fn change(t: &mut T, name: &str, action: A) -> Result<(), (C, String)> {
    let name = Some(name.to_owned());
    answer(t, |request| fb::SchedulerMessageT::ChangeSchedule(Box::new(fb::ChangeScheduleT { request, name, action })))
}

fn shown(t: &mut T) -> fb::ScheduleSummaryT {
    let query = fb::QueryT { kind: fb::QueryKind::Schedules, ..fb::QueryT::default() };
    t.query(query).unwrap().schedules.unwrap().remove(0)
}

/// Runs, moments left out, and the latest job.
fn counts(t: &mut T) -> (u64, u64, u64) {
    let shown = shown(t);
    (shown.runs, shown.left_out, shown.last_job)
}

fn jobs(t: &T) -> usize {
    t.scheduler.state().jobs.len()
}

#[test]
fn a_job_is_submitted_at_each_moment_as_if_somebody_did() {
    let mut t = T::new();
    t.agent("a").register();
    set(&mut t, hourly()).unwrap();
    t.pass_beating(FIRST - secs(1));
    assert_eq!(jobs(&t), 0);
    let summary = shown(&mut t);
    assert_eq!((summary.next_at, summary.last_at, summary.note), (t.now.as_ms() + 1_000, 0, None));
    t.pass_beating(secs(1));
    assert_eq!((jobs(&t), counts(&mut t)), (1, (1, 0, 1)));
    assert_eq!(t.job(1).owner.as_deref(), summary.set_by.as_deref());
    t.agent("a").accepts(attempt(1, 0, 1)).runs(attempt(1, 0, 1)).completes(attempt(1, 0, 1));
    assert_eq!(t.task(id(1, 0, 0)).status, S::Completed);
    t.pass_beating(secs(HOUR));
    assert_eq!((jobs(&t), counts(&mut t)), (2, (2, 0, 2)));
    let summary = shown(&mut t);
    assert_eq!(summary.next_at - summary.last_at, HOUR * 1_000);
    t.restart();
    assert_eq!((jobs(&t), shown(&mut t)), (2, summary), "nothing is submitted twice");
}

#[test]
fn a_run_that_has_not_ended_is_left_alone_joined_or_replaced() {
    for (overlap, after, jobs_after) in
        [(Overlap::Skip, (1, 1, 1), 1), (Overlap::Allow, (2, 0, 2), 2), (Overlap::Replace, (2, 0, 2), 2)]
    {
        let mut t = T::new();
        t.agent("a").register();
        set(&mut t, fb::ScheduleT { overlap, ..hourly() }).unwrap();
        t.pass_beating(FIRST);
        t.agent("a").accepts(attempt(1, 0, 1)).runs(attempt(1, 0, 1));
        t.pass_beating(secs(HOUR));
        assert_eq!((counts(&mut t), jobs(&t)), (after, jobs_after), "{overlap:?}");
        let stopped = t.agent("a").cancelled();
        assert_eq!(!stopped.is_empty(), overlap == Overlap::Replace, "{overlap:?}: {stopped:?}");
        let note = shown(&mut t).note;
        let expected = (overlap == Overlap::Skip).then_some("job 1 had not ended");
        assert_eq!(note.as_deref(), expected, "{overlap:?}");
    }
}

#[test]
fn what_was_missed_is_made_up_for_once_and_not_for_ever() {
    let every_ten = fb::ScheduleT { cron: Some("*/10 * * * *".into()), catch_up_ms: 30 * MIN * 1_000, ..hourly() };
    let mut t = T::new();
    set(&mut t, every_ten.clone()).unwrap();
    // 23:09: six moments have passed, the last of them nine minutes ago.
    t.now = t.now + FIRST + secs(9 * MIN);
    t.restart();
    t.pass(secs(0));
    assert_eq!((jobs(&t), counts(&mut t)), (1, (1, 0, 1)));
    let last_at = shown(&mut t).last_at;
    assert_eq!(t.now.as_ms() - last_at, 9 * MIN * 1_000, "the last that was missed");
    t.pass(secs(MIN));
    assert_eq!(shown(&mut t).last_at, t.now.as_ms(), "and the next comes when it comes");

    let mut t = T::new();
    set(&mut t, fb::ScheduleT { catch_up_ms: 30 * MIN * 1_000, ..hourly() }).unwrap();
    t.now = t.now + FIRST + secs(30 * MIN + 2);
    t.restart();
    t.pass(secs(0));
    assert_eq!((jobs(&t), counts(&mut t)), (0, (0, 1, 0)));
    assert!(shown(&mut t).note.unwrap().contains("away for longer than 1800 s"));
    t.pass(secs(30 * MIN));
    assert_eq!(jobs(&t), 1);
}

#[test]
fn a_restart_at_the_moment_costs_nothing() {
    let mut t = T::new();
    set(&mut t, fb::ScheduleT { catch_up_ms: 0, ..hourly() }).unwrap();
    t.now = t.now + FIRST + secs(59);
    t.restart();
    t.pass(secs(0));
    assert_eq!(counts(&mut t), (1, 0, 1), "a minute is always made up for");
}

#[test]
fn it_rests_while_it_is_paused_and_is_gone_once_removed() {
    let mut t = T::new();
    set(&mut t, hourly()).unwrap();
    change(&mut t, "report", A::Pause).unwrap();
    change(&mut t, "report", A::Pause).unwrap();
    assert_eq!((shown(&mut t).next_at, shown(&mut t).paused), (0, true));
    t.restart();
    t.pass(FIRST + secs(MIN));
    assert_eq!(jobs(&t), 0);
    change(&mut t, "report", A::Resume).unwrap();
    assert_eq!(shown(&mut t).next_at, t.now.as_ms() + (HOUR - MIN) * 1_000, "what it slept through is not made up for");
    t.pass(secs(HOUR - MIN));
    assert_eq!(jobs(&t), 1);
    change(&mut t, "report", A::Remove).unwrap();
    t.restart();
    t.pass(secs(2 * HOUR));
    assert_eq!((jobs(&t), t.job(1).ended_at), (1, 0), "what it has submitted goes on");
    let (code, text) = change(&mut t, "report", A::Resume).unwrap_err();
    assert!(code == C::Validation && text.contains("`report`"), "{text}");
    assert_eq!(t.scheduler.live().agenda.first(), None);
}

#[test]
fn another_of_its_name_takes_its_place() {
    let mut t = T::new();
    set(&mut t, hourly()).unwrap();
    t.pass(FIRST);
    let later = fb::ScheduleT { cron: Some("30 * * * *".into()), ..hourly() };
    set(&mut t, later).unwrap();
    assert_eq!(shown(&mut t).next_at, t.now.as_ms() + 30 * MIN * 1_000);
    t.pass(secs(29 * MIN));
    assert_eq!(jobs(&t), 1, "its old moments are none any more");
    t.pass(secs(HOUR));
    assert_eq!(counts(&mut t), (1, 1, 1), "the run before has not ended, and still counts");
}

#[test]
fn what_is_refused_for_a_while_is_tried_again() {
    let mut t = T::new();
    set(&mut t, fb::ScheduleT { catch_up_ms: 10 * MIN * 1_000, ..hourly() }).unwrap();
    t.pass(FIRST - secs(10));
    t.handle(Event::Disk { low: true, blob_segments_max: 0 });
    t.pass(secs(MIN));
    let waits = shown(&mut t);
    assert!(waits.note.unwrap().contains("disk is full") && waits.left_out == 0 && jobs(&t) == 0);
    t.has_room();
    t.pass(secs(MIN));
    assert_eq!(counts(&mut t), (1, 0, 1));
    t.cancel(1, None).unwrap();
    t.pass(secs(58 * MIN));
    t.handle(Event::Disk { low: true, blob_segments_max: 0 });
    t.pass(secs(12 * MIN));
    assert_eq!(counts(&mut t), (1, 1, 1), "and left out once it is too late");
    assert!(shown(&mut t).note.unwrap().contains("disk is full"));
}

#[test]
fn nobody_takes_a_moments_submit_id_away() {
    let mut t = T::new();
    set(&mut t, hourly()).unwrap();
    t.pass(FIRST);
    let taken = *t.scheduler.state().submits.keys().next().unwrap();
    let mut t = T::new();
    set(&mut t, hourly()).unwrap();
    t.submit_as(taken, &job(vec![TaskSpec { name: name("other"), ..task() }])).unwrap();
    t.pass(FIRST);
    assert_eq!(counts(&mut t), (1, 0, 2));
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

#[test]
fn what_could_never_run_is_refused_when_it_is_set() {
    let mut t = T::new();
    let refused = |t: &mut T, schedule: fb::ScheduleT, code: C, words: &str| {
        let (found, text) = set(t, schedule).unwrap_err();
        assert!(found == code && text.contains(words), "{found:?}: {text}");
    };
    let text = |text: &str| Some(text.to_owned());
    refused(&mut t, fb::ScheduleT { cron: text("0 3 * *"), ..hourly() }, C::Validation, "4 fields");
    refused(&mut t, fb::ScheduleT { cron: text("0 0 31 2 *"), ..hourly() }, C::Validation, "no such moment");
    refused(&mut t, fb::ScheduleT { time_zone: text("Mars/Olympus"), ..hourly() }, C::Validation, "IANA");
    refused(&mut t, fb::ScheduleT { name: text("no name"), ..hourly() }, C::Validation, "name");
    refused(&mut t, fb::ScheduleT { overlap: Overlap(9), ..hourly() }, C::Validation, "skip, allow or replace");
    refused(&mut t, fb::ScheduleT { catch_up_ms: 86_400_001, ..hourly() }, C::Validation, "a day");
    refused(&mut t, fb::ScheduleT { job: Some(vec![1, 2, 3]), ..hourly() }, C::Validation, "cannot be read");
    let late = Terms { start_at_ms: t.now.as_ms() + 1, await_agents: true, ..Terms::default() };
    let late = JobSpec::new(name("j"), vec![task()], late).unwrap().to_wire();
    refused(&mut t, fb::ScheduleT { job: Some(late), ..hourly() }, C::Validation, "start_at");
    let alone = JobSpec::new(name("j"), vec![task()], Terms::default()).unwrap().to_wire();
    t.agent("a").capacity(Resources { cpu: 1, ..small() }).register();
    refused(&mut t, fb::ScheduleT { job: Some(alone), ..hourly() }, C::DoesNotFit, "no agent could ever run");
    assert_eq!(t.scheduler.state().schedules.len(), 0);
    for number in 0..SCHEDULES_MAX {
        t.pass(secs(1));
        set(&mut t, fb::ScheduleT { name: Some(format!("s{number}")), ..hourly() }).unwrap();
    }
    refused(&mut t, fb::ScheduleT { name: text("more"), ..hourly() }, C::Busy, "schedules: at most 512");
    set(&mut t, fb::ScheduleT { name: text("s1"), ..hourly() }).unwrap();
    let file = FileSpec { path: "data".into(), data: vec![0; 600_000], executable: false };
    let large = Some(job(vec![TaskSpec { files: vec![file], ..task() }]).to_wire());
    let mut most = 0;
    while set(&mut t, fb::ScheduleT { name: Some(format!("s{most}")), job: large.clone(), ..hourly() }).is_ok() {
        most += 1;
        t.pass(secs(1));
    }
    assert!((40..60).contains(&most), "{most}");
    let (_, text) = set(&mut t, fb::ScheduleT { name: Some(format!("s{most}")), job: large, ..hourly() }).unwrap_err();
    assert!(text.contains("bytes of schedules"), "{text}");
}

#[test]
fn many_at_one_moment_are_all_heeded_one_by_one() {
    let mut t = T::new();
    for number in 0..40 {
        set(&mut t, fb::ScheduleT { name: Some(format!("s{number}")), ..hourly() }).unwrap();
    }
    t.now = t.now + FIRST;
    t.handle(Event::Deadline);
    assert_eq!(jobs(&t), 1, "what one step may add to a batch");
    t.pass(secs(0));
    assert_eq!(jobs(&t), 40);
    let state = t.scheduler.state();
    assert!(state.schedules.values().all(|record| record.progress.runs == 1));
}
