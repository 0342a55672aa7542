//! Stories of single misfortunes, told on virtual time. Each holds every promise after every event; what is
//! asserted here is what the story is about.
#![allow(clippy::expect_used)]

use fleetwire_common::{fb::TaskStatus, job::TaskSpec};
use fleetwire_sim::{
    BEGAN, Behaviour, Ending, Fault, Setting, Wish,
    stories::{CAPACITY, Story, runs_for, task},
};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const LOST_AFTER: Duration = Duration::from_secs(60);

fn array(count: u32, spec: TaskSpec) -> Vec<TaskSpec> {
    vec![TaskSpec { count, array: true, ..spec }]
}

#[test]
fn a_job_runs_across_three_agents_and_every_task_is_committed_once() {
    let mut t = Story::of(3);
    let job = t.submitted(array(30, runs_for(2 * SECOND)), LOST_AFTER);
    t.run_until_idle();
    assert!(t.all_completed(job));
    let started = ["a", "b", "c"].map(|agent| t.agent(agent).started());
    assert!(started.iter().all(|count| *count >= 8) && started.iter().sum::<usize>() == 30, "{started:?}");
}

#[test]
fn an_agent_killed_half_way_goes_on_and_every_task_is_committed_once() {
    let mut t = Story::of(3);
    let job = t.submitted(array(24, runs_for(5 * SECOND)), LOST_AFTER);
    t.run_for(7 * SECOND);
    assert_eq!(t.agent("a").running(), 4);
    t.agent("a").crash();
    t.run_for(10 * SECOND);
    assert_eq!(t.agent("a").running(), 0, "its supervisors saw its tasks to their end");
    t.agent("a").start();
    t.run_until_idle();
    assert!(t.all_completed(job));
    assert!((0..24).all(|index| t.attempts(job, index) == 1), "nothing ran twice because of it");
}

#[test]
fn a_rebooted_device_reports_what_it_lost_and_the_tasks_run_again() {
    let mut t = Story::of(2);
    let job = t.submitted(array(8, runs_for(20 * SECOND)), LOST_AFTER);
    t.run_for(5 * SECOND);
    t.agent("a").reboot();
    t.run_for(10 * SECOND);
    t.agent("a").start();
    t.run_until_idle();
    assert!(t.all_completed(job));
    let again = (0..8).filter(|index| t.attempts(job, *index) == 2).count();
    assert_eq!(again, 4, "exactly those that ran there");
}

#[test]
fn the_scheduler_killed_half_way_comes_back_and_the_job_ends_the_same() {
    let mut t = Story::of(3);
    let job = t.submitted(array(40, runs_for(3 * SECOND)), LOST_AFTER);
    t.run_for(4 * SECOND);
    let ended = t.ended(job);
    assert!(ended > 0 && ended < 40);
    t.scheduler().restart_after(5 * SECOND);
    t.run_until_idle();
    assert!(t.all_completed(job));
    assert!((0..40).all(|index| t.attempts(job, index) == 1), "no task was restarted because of it");
}

#[test]
fn a_submit_repeated_across_a_crash_is_one_job() {
    // The crash comes at every moment of the submit: before it arrived, while its fact was on its way to
    // the disk, after it was durable and before the answer left, and after the answer.
    for micros in (0..12_000).step_by(150) {
        let mut t = Story::of_seed(1, 1 + micros);
        let submit = t.submit(vec![runs_for(SECOND)], LOST_AFTER);
        t.run_for(Duration::from_micros(micros));
        t.scheduler().restart_after(SECOND / 2);
        t.run_until(|cluster| cluster.clients.iter().all(|client| client.jobs.contains_key(&submit)));
        t.run_until_idle();
        assert_eq!(t.cluster.history.jobs().count(), 1, "crash after {micros} µs");
        let job = t.job_of(submit);
        assert!(t.all_completed(job));
    }
}

#[test]
fn an_attempt_lost_for_long_gets_one_rival_and_the_original_may_return_and_win() {
    let mut t = Story::of(2);
    let job = t.submitted(array(1, runs_for(200 * SECOND)), LOST_AFTER);
    t.run_for(5 * SECOND);
    let first = if t.agent("a").running() == 1 { "a" } else { "b" };
    t.partition(first);
    // The link notices within 35 s, and lost_after counts from then on.
    t.run_for(100 * SECOND);
    assert_eq!(t.attempts(job, 0), 2, "it has one rival");
    t.heal(first);
    t.run_until_idle();
    assert!(t.all_completed(job));
    assert_eq!(t.attempts(job, 0), 2, "the original's return made no third");
    assert!(t.now().since(BEGAN) < 220 * SECOND, "the original, which was first to end, won");
}

#[test]
fn a_rival_wins_and_the_originals_result_is_refused_when_it_comes() {
    let mut t = Story::of(2);
    let job = t.submitted(array(1, runs_for(120 * SECOND)), LOST_AFTER);
    t.run_for(5 * SECOND);
    let (first, second) = if t.agent("a").running() == 1 { ("a", "b") } else { ("b", "a") };
    t.partition(first);
    t.run_for(115 * SECOND + 200 * SECOND);
    assert!(t.all_completed(job), "the rival's result counts while the original is away");
    assert_eq!((t.agent(first).started(), t.agent(second).started()), (1, 1));
    t.heal(first);
    // Promise P2 holds: the story would end here if the late result were committed.
    t.run_until_idle();
    assert!(t.all_completed(job));
}

#[test]
fn an_agent_that_never_returns_loses_its_tasks_to_others() {
    let mut t = Story::of(2);
    let job = t.submitted(array(8, runs_for(30 * SECOND)), LOST_AFTER);
    t.run_for(5 * SECOND);
    t.agent("a").reboot();
    t.run_until(|cluster| cluster.history.tasks_open() == 0);
    assert!(t.all_completed(job), "b did them all");
    assert_eq!(t.agent("b").started(), 8);
}

#[test]
fn a_short_outage_restarts_nothing_and_results_arrive_later_once() {
    let mut t = Story::of(2);
    let job = t.submitted(array(8, runs_for(10 * SECOND)), LOST_AFTER);
    t.run_for(5 * SECOND);
    t.partition("a");
    t.run_for(45 * SECOND);
    assert_eq!(t.agent("a").running(), 0, "it went on without the network");
    assert_eq!(t.ended(job), 4, "what it did is not known yet");
    t.heal("a");
    t.run_until_idle();
    assert!(t.all_completed(job));
    assert!((0..8).all(|index| t.attempts(job, index) == 1));
}

#[test]
fn results_that_gathered_offline_survive_a_reboot_and_are_delivered() {
    let mut t = Story::of(1);
    let job = t.submitted(array(4, runs_for(10 * SECOND)), Duration::from_secs(3_600));
    t.run_for(5 * SECOND);
    t.partition("a");
    t.run_for(60 * SECOND);
    t.agent("a").reboot();
    t.run_for(5 * SECOND);
    t.agent("a").start();
    t.run_for(30 * SECOND);
    t.heal("a");
    t.run_until_idle();
    assert!(t.all_completed(job));
    assert_eq!(t.agent("a").started(), 4, "nothing ran twice");
}

#[test]
fn a_cancel_reaches_an_agent_that_was_away_when_it_was_acknowledged() {
    let mut t = Story::of(1);
    let submit = t.submit(array(6, runs_for(600 * SECOND)), Duration::from_secs(3_600));
    t.run_for(5 * SECOND);
    assert_eq!(t.agent("a").running(), 4);
    t.partition("a");
    t.run_for(10 * SECOND);
    t.wish(Wish::Cancel(submit, None));
    t.run_until(|cluster| cluster.clients.iter().any(|client| !client.cancelled.is_empty()));
    let job = t.job_of(submit);
    assert_eq!(t.ended(job), 2, "those that had not started have ended; the others still run somewhere");
    assert_eq!(t.agent("a").running(), 4);
    t.run_for(60 * SECOND);
    t.heal("a");
    t.run_until_idle();
    assert!(t.ends(job).iter().all(|end| *end == Some(TaskStatus::Cancelled)));
}

#[test]
fn a_cancel_survives_the_schedulers_crash() {
    let mut t = Story::of(1);
    let submit = t.submit(array(6, runs_for(600 * SECOND)), LOST_AFTER);
    t.run_for(5 * SECOND);
    t.agent("a").crash();
    t.wish(Wish::Cancel(submit, None));
    t.run_until(|cluster| cluster.clients.iter().any(|client| !client.cancelled.is_empty()));
    t.scheduler().restart_after(SECOND);
    t.run_for(5 * SECOND);
    t.agent("a").start();
    t.run_until_idle();
    let job = t.job_of(submit);
    assert!(t.ends(job).iter().all(|end| *end == Some(TaskStatus::Cancelled)));
}

#[test]
fn a_task_that_fails_is_tried_again_and_then_fails() {
    let mut t = Story::of(1);
    let fails = task(&Behaviour { ends: Ending::Exit(3), runs_for: SECOND / 10, ..Behaviour::default() });
    let job = t.submitted(vec![TaskSpec { max_attempts: 3, backoff_ms: 100, ..fails }], LOST_AFTER);
    t.run_until_idle();
    assert_eq!(t.ends(job), [Some(TaskStatus::Failed)]);
    assert_eq!(t.attempts(job, 0), 3);
}

#[test]
fn a_run_timeout_stops_a_task_that_ignores_sigterm() {
    let mut t = Story::of(1);
    let stubborn = Behaviour { stubborn: true, runs_for: 600 * SECOND, ..Behaviour::default() };
    let spec = TaskSpec { timeout_s: 5, kill_grace_ms: 2_000, ..task(&stubborn) };
    let job = t.submitted(vec![spec], LOST_AFTER);
    t.run_until_idle();
    assert_eq!(t.ends(job), [Some(TaskStatus::TimedOut)]);
}

#[test]
fn a_session_whose_connection_breaks_is_replaced_and_nothing_is_lost() {
    let mut t = Story::of(2);
    let job = t.submitted(array(40, runs_for(2 * SECOND)), LOST_AFTER);
    for _ in 0..6 {
        t.run_for(2 * SECOND);
        t.agent("a").break_connection();
        t.run_for(SECOND);
        t.agent("b").break_connection();
    }
    t.run_until_idle();
    assert!(t.all_completed(job));
    assert!((0..40).all(|index| t.attempts(job, index) == 1));
}

#[test]
fn a_duplicate_is_answered_only_once_the_first_is_durable() {
    // A slow disk, and a client whose connection breaks while the first submit waits for it.
    for seed in 0..20 {
        let mut t = Story::with(Setting { agents: 1, sync_max: SECOND, ..Setting::calm() }, seed);
        let submit = t.submit(vec![runs_for(SECOND)], LOST_AFTER);
        t.run_for(SECOND / 50);
        t.strike(Fault::ClientConnection);
        t.wish(Wish::Again(submit));
        t.run_until_idle();
        assert_eq!(t.cluster.history.jobs().count(), 1);
    }
}

#[test]
fn power_lost_again_and_again_loses_nothing_that_was_acknowledged() {
    for seed in 0..8 {
        let mut t = Story::with(Setting { agents: 2, power_permille: 1_000, ..Setting::calm() }, seed);
        let mut jobs = Vec::new();
        for round in 0..12u32 {
            let spec = TaskSpec { arguments: vec!["for=100".into(), "result=3000".into()], ..runs_for(SECOND) };
            jobs.push(t.submitted(array(20, spec), LOST_AFTER));
            t.run_for(SECOND / 10 * (round % 5));
            t.scheduler().restart_after(SECOND / 4);
            t.run_for(SECOND / 2);
            t.agent("a").reboot();
            t.agent("a").start();
        }
        t.run_until_idle();
        assert!(jobs.into_iter().all(|job| t.ends(job).iter().all(Option::is_some)));
    }
}

#[test]
fn when_the_rival_is_lost_too_the_older_attempt_ends_first() {
    let mut t = Story::of(3);
    let job = t.submitted(vec![TaskSpec { max_losses: 5, ..runs_for(600 * SECOND) }], LOST_AFTER);
    for away in 1..=2 {
        t.run_for(5 * SECOND);
        for agent in ["a", "b", "c"] {
            if t.agent(agent).running() > 0 {
                t.partition(agent);
            }
        }
        t.run_for(110 * SECOND);
        assert_eq!(t.attempts(job, 0), away + 1);
    }
    for agent in ["a", "b", "c"] {
        t.heal(agent);
    }
    t.run_until_idle();
    assert!(t.all_completed(job));
}

#[test]
fn what_a_beaten_rival_still_takes_is_not_given_away() {
    // Their processes ignore SIGTERM: the originals are back, and end, long before the rivals are gone.
    let mut t = Story::of(2);
    let stubborn = task(&Behaviour { stubborn: true, runs_for: 300 * SECOND, ..Behaviour::default() });
    let stubborn = TaskSpec { kill_grace_ms: 240_000, max_losses: 5, ..stubborn };
    let job = t.submitted(array(4, stubborn), LOST_AFTER);
    t.run_for(5 * SECOND);
    assert_eq!((t.agent("a").running(), t.agent("b").running()), (0, 4), "one agent is filled before the next");
    t.partition("b");
    t.run_for(120 * SECOND);
    assert_eq!(t.agent("a").running(), 4, "their rivals");
    t.heal("b");
    // Each of these takes a whole agent.
    let whole = TaskSpec { resources: CAPACITY, ..runs_for(SECOND) };
    let more = t.submitted(array(3, whole), LOST_AFTER);
    t.run_for(190 * SECOND);
    assert!(t.all_completed(job));
    assert_eq!(t.agent("a").running(), 4, "the rivals are still being stopped");
    t.run_until_idle();
    assert!(t.all_completed(more));
}

#[test]
fn what_a_cancelled_task_still_takes_is_not_given_away() {
    let mut t = Story::of(1);
    let stubborn = task(&Behaviour { stubborn: true, runs_for: 600 * SECOND, ..Behaviour::default() });
    let submit = t.submit(array(4, TaskSpec { kill_grace_ms: 20_000, ..stubborn }), LOST_AFTER);
    t.run_for(5 * SECOND);
    t.wish(Wish::Cancel(submit, None));
    let more = t.submitted(array(4, runs_for(SECOND)), LOST_AFTER);
    t.run_for(10 * SECOND);
    assert_eq!((t.agent("a").running(), t.ended(more)), (4, 0), "what is being stopped still holds its place");
    t.run_until_idle();
    assert!(t.all_completed(more));
}

#[test]
fn a_frame_that_comes_back_to_its_sender_is_refused() {
    let mut t = Story::of(1);
    let job = t.submitted(array(4, runs_for(20 * SECOND)), LOST_AFTER);
    for _ in 0..10 {
        t.run_for(SECOND);
        t.strike(Fault::Replay);
    }
    t.run_until_idle();
    assert!(t.all_completed(job));
    assert!(t.cluster.outcome().refused >= 10);
}

#[test]
fn the_schedulers_own_pause_makes_nobody_lost() {
    let mut t = Story::of(3);
    let job = t.submitted(array(8, runs_for(200 * SECOND)), LOST_AFTER);
    t.run_for(5 * SECOND);
    t.partition("b");
    t.run_for(40 * SECOND);
    t.scheduler().pause(100 * SECOND);
    t.run_for(101 * SECOND);
    t.heal("b");
    t.run_until_idle();
    assert!(t.all_completed(job));
    assert!((0..8).all(|index| t.attempts(job, index) == 1), "only the time in which it could hear counts");
}

#[test]
fn the_schedulers_own_absence_makes_nobody_lost() {
    for seed in 0..10 {
        let mut t = Story::of_seed(3, seed);
        let job = t.submitted(array(8, runs_for(200 * SECOND)), LOST_AFTER);
        t.run_for(5 * SECOND);
        t.scheduler().restart_after(150 * SECOND);
        t.run_until_idle();
        assert!(t.all_completed(job));
        assert!((0..8).all(|index| t.attempts(job, index) == 1));
    }
}
