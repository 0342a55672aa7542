//! Days that are run again: what a journal has of one is the same day, and comes to the same; policies differ in what they are
//! there for.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use fleetwire_common::{
    fb,
    ids::Name,
    job::{JobSpec, TaskSpec, Terms},
    policy::{ClusterPolicy, Placing, Preempt, QueueRule, Rules},
    resources::Resources,
    time::Time,
};
use fleetwire_scheduler_core::agents::AgentProfile;
use fleetwire_sim::day::{
    Day, DayJob, Happening, Run,
    drawn::{self, Terms2019},
    naive::{self, Naive},
    recorded::{RecordError, Recorded, Recorder},
    replay::{replay, replay_telling},
};
use std::{sync::Arc, time::Duration};

fn small() -> Day {
    drawn::draw(Terms2019 { seed: 3, agents: 4, load_percent: 90 })
}

fn recorded(day: &Day, policy: Option<&ClusterPolicy>) -> Recorded {
    let mut recorder = Recorder::default();
    replay_telling(day, policy, &mut |fact| recorder.take(fact).unwrap()).unwrap();
    recorder.finish().unwrap()
}

#[test]
fn a_journal_has_the_whole_day_whatever_was_decided_on_it() {
    let (day, policy) = (small(), drawn::policy().unwrap());
    let fair = recorded(&day, Some(&policy));
    assert_eq!(fair.policy.as_ref(), Some(&policy));
    assert_eq!(fair.verdict, replay(&day, Some(&policy)).unwrap(), "facts say how it went");
    assert!(fair.day.happenings == day.happenings);
    assert_eq!((fair.day.runs.len(), fair.unknown), (day.runs.len(), 0));
    // Where tasks made way, they ran to their end later: as long as they did on the drawn day.
    assert!(fair.day.runs == day.runs);
    let again = recorded(&fair.day, Some(&policy));
    assert_eq!(again.verdict, fair.verdict, "the same again under the same policy");
    let other = policy.with_rules(Rules { placing: Some(Placing { pack: 0, spread: 1 }), ..Rules::default() }).unwrap();
    let spread = recorded(&fair.day, Some(&other));
    assert_ne!(spread.verdict, fair.verdict);
    assert!(spread.day.runs == day.runs, "and the day is what it was");
}

#[test]
fn what_is_more_urgent_waits_less_than_without_a_scheduler_worth_the_name() {
    let (day, policy) = (small(), drawn::policy().unwrap());
    let [fifo, first] = [naive::run(&day, Naive::Fifo), naive::run(&day, Naive::FirstFit)];
    let ours = replay(&day, Some(&policy)).unwrap();
    assert_eq!([fifo.ended, first.ended, ours.ended], [day.runs.len() as u64; 3]);
    let urgent = |verdict: &fleetwire_sim::day::verdict::Verdict| verdict.by_priority[0].1;
    assert!(urgent(&ours) < urgent(&first) && urgent(&first) < urgent(&fifo), "{ours:?} {first:?} {fifo:?}");
    assert!(ours.fairness > first.fairness && first.fairness > fifo.fairness, "{ours:?} {first:?} {fifo:?}");
    let nobody = Preempt { gap: 0, ..Preempt::default() };
    let patient = policy.with_rules(Rules { preempt: Some(nobody), ..Rules::default() }).unwrap();
    let patient = replay(&day, Some(&patient)).unwrap();
    assert!(patient.made_way == 0 && ours.made_way > 0, "{patient:?} {ours:?}");
    assert!(urgent(&patient) > urgent(&ours), "{patient:?} {ours:?}");
}

fn agent(number: u8) -> Arc<AgentProfile> {
    Arc::new(AgentProfile {
        capacity: Resources { cpu: 1_000, memory: 1_000, gpu: 0, storage: 0 },
        custom: Default::default(),
        labels: Default::default(),
        agent_types: Vec::new(),
        executors: vec![fb::Executor::Process],
        data_id: [number; 16],
        software: String::new(),
        host: String::new(),
        address: String::new(),
    })
}

fn job(queue: &str, count: u32) -> DayJob {
    let resources = Resources { cpu: 1_000, memory: 1, gpu: 0, storage: 0 };
    let task = TaskSpec { command: "x".into(), count, array: true, resources, ..TaskSpec::default() };
    let spec = JobSpec::new(Name::new("j").unwrap(), vec![task], Terms::default()).unwrap();
    DayJob { spec: Arc::new(spec.in_queue(Name::new(queue).unwrap())), owner: "o".into() }
}

/// Two agents of one core each, and two jobs that run for a minute.
fn two_agents(then: Vec<(u64, Happening)>) -> Day {
    let at = |s: u64| Time::from_ms(1_600_000_000_000 + 1_000 * s);
    let joins = |number| (at(0), Happening::Joins { agent: number, profile: agent(number as u8) });
    let mut day = Day {
        agents: ["a", "b"].iter().map(|name| Name::new(name).unwrap()).collect(),
        jobs: vec![job("default", 2), job("default", 2)],
        happenings: vec![joins(0), joins(1), (at(10), Happening::Submits { job: 0 })],
        ..Day::default()
    };
    day.happenings.extend(then.into_iter().map(|(s, what)| (at(s), what)));
    let run = Run { lasts: Duration::from_secs(60), status: fb::TaskStatus::Completed };
    day.runs.extend([0, 1].map(|job| ((job, 0, 0), vec![run])));
    day
}

#[test]
fn losses_absences_cancels_and_drains_are_as_they_were() {
    let joins = |number| Happening::Joins { agent: number, profile: agent(number as u8) };
    let leaves = |number, dies| Happening::Leaves { agent: number, dies };
    let secs = Duration::from_secs;
    // Its task is gone with it, and runs anew when it is back.
    let dead = two_agents(vec![(40, leaves(0, true)), (50, joins(0))]);
    let verdict = replay(&dead, None).unwrap();
    assert_eq!((verdict.ended, verdict.lost, verdict.lasts), (2, 1, secs(100)));
    let kept = recorded(&dead, None);
    assert_eq!(kept.verdict.lost, 1);
    assert!(
        kept.day.happenings.iter().any(|(_, what)| matches!(what, Happening::Leaves { dies: true, .. })),
        "{kept:?}"
    );
    // Who is only away goes on.
    let away = replay(&two_agents(vec![(40, leaves(0, false)), (50, joins(0))]), None).unwrap();
    assert_eq!((away.ended, away.lost, away.lasts), (2, 0, secs(60)));
    // A cancel ends what runs.
    let cancelled = two_agents(vec![(30, Happening::Cancels { job: 0 })]);
    assert_eq!(replay(&cancelled, None).unwrap().lasts, secs(20));
    assert!(recorded(&cancelled, None).day.happenings.contains(cancelled.happenings.last().unwrap()));
    // Whoever is drained gets nothing more.
    let drain = Happening::Changes { agent: 0, action: fb::AgentAction::Drain, within: Duration::ZERO };
    let drained = two_agents(vec![(30, drain), (40, Happening::Submits { job: 1 })]);
    assert_eq!(replay(&drained, None).unwrap().lasts, secs(180));
    let again = recorded(&drained, None);
    assert_eq!(again.day.happenings, drained.happenings);
    assert_eq!(replay(&again.day, None).unwrap().lasts, secs(180));
}

#[test]
fn what_a_policy_would_refuse_is_told() {
    let mut day = two_agents(vec![(20, Happening::Submits { job: 1 })]);
    day.jobs[1] = job("research", 2);
    let verdict = replay(&day, None).unwrap();
    assert_eq!((verdict.refused, verdict.ended), (1, 2));
    assert!(verdict.why.unwrap().contains("no queue `research`"));
    let queues = ClusterPolicy::new([(Name::new("research").unwrap(), QueueRule::default())], None).unwrap();
    assert_eq!(replay(&day, Some(&queues)).unwrap().ended, 4);
}

#[test]
fn facts_that_are_no_day_are_refused() {
    assert_eq!(Recorder::default().finish().unwrap_err(), RecordError::NoJob);
    assert!(matches!(Recorder::default().take(b"x"), Err(RecordError::Fact(_))));
}
