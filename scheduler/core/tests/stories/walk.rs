//! A random walk: agents and operators do whatever they may, in any order, and the promises hold.
//!
//! The harness checks after every event that the facts alone lead to the same state and that what agents
//! hold fits (P3); here a model that reads nothing but messages checks P2: each task is committed once.

use crate::harness::*;
use fleetwire_common::{
    fb::{DependencyOn as On, OnLost, TaskStatus as S},
    graph::Dependency,
    ids::{AttemptId, JobId, Name},
    job::{JobSpec, TaskSpec, Terms},
    message::{Ack, End, Message},
    resources::Resources,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Clone, Debug)]
enum Step {
    Submit {
        count: u32,
        cpu: u32,
        priority: i8,
        attempts: u32,
        losses: u32,
        queue_s: u64,
        after: usize,
        most: u32,
        gang: u32,
    },
    Cancel {
        job: u64,
        index: Option<u32>,
    },
    Register(usize),
    Lose(usize),
    LoseData(usize),
    Drop(usize),
    Accept(usize),
    Reject(usize),
    Run(usize),
    End(usize, usize),
    Again(usize),
    Pass(u64),
    Stall(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let agent = 0..NAMES.len();
    prop_oneof![
        3 => (1..20u32, 1..6u32, -1..2i8, 1..3u32, 1..4u32, 0..2u64, 0..12usize, 0..6u32, 0..6u32).prop_map(
            |(count, cpu, priority, attempts, losses, queue, after, most, gang)| Step::Submit {
                count, cpu: cpu * 500, priority, attempts, losses, queue_s: queue * 200, after, most, gang
            }
        ),
        1 => (1..6u64, prop::option::of(0..10u32)).prop_map(|(job, index)| Step::Cancel { job, index }),
        6 => agent.clone().prop_map(Step::Register),
        3 => agent.clone().prop_map(Step::Lose),
        1 => agent.clone().prop_map(Step::LoseData),
        1 => agent.clone().prop_map(Step::Drop),
        3 => agent.clone().prop_map(Step::Accept),
        1 => agent.clone().prop_map(Step::Reject),
        8 => agent.clone().prop_map(Step::Run),
        14 => (agent.clone(), 0..12usize).prop_map(|(agent, how)| Step::End(agent, how)),
        2 => agent.prop_map(Step::Again),
        4 => (1..100u64).prop_map(Step::Pass),
        1 => (1..50u64).prop_map(Step::Stall),
        1 => Just(Step::Restart),
    ]
}

#[derive(Default)]
struct Walk {
    /// What was acknowledged as a final status, by task: the attempt and its status.
    committed: BTreeMap<AttemptId, S>,
    ended: Vec<(String, AttemptId, S)>,
    accepted: BTreeSet<AttemptId>,
    jobs: Vec<u64>,
}

impl Walk {
    fn connected(&self, t: &mut T, name: &str) -> bool {
        t.agent(name).model().session.is_some()
    }

    fn pick(&self, t: &mut T, name: &str) -> Option<AttemptId> {
        if !self.connected(t, name) {
            return None;
        }
        t.agent(name).holds().first().copied()
    }

    fn read(&mut self, t: &mut T, name: &str, sent: Option<(AttemptId, S)>) {
        if !self.connected(t, name) {
            return;
        }
        for message in t.agent(name).inbox() {
            let Message::Ack(Ack::Final(attempt)) = message else { continue };
            let (of, status) = sent.expect("an ack answers a final status");
            assert_eq!(of, attempt);
            let before = self.committed.insert(attempt, status);
            assert!(before.is_none_or(|before| before == status), "{attempt} committed as two things");
            if status == S::Completed {
                let others = self.committed.iter().filter(|(other, _)| other.task == attempt.task);
                assert_eq!(others.filter(|(_, status)| **status == S::Completed).count(), 1, "{attempt}");
            }
        }
    }

    fn end(&mut self, t: &mut T, name: &str, attempt: AttemptId, status: S) {
        t.agent(name).ends(attempt, status, End::default());
        self.ended.push((name.to_owned(), attempt, status));
        self.read(t, name, Some((attempt, status)));
    }

    fn take(&mut self, t: &mut T, step: Step) {
        match step {
            Step::Submit { count, cpu, priority, attempts, losses, queue_s, after, most, gang } => {
                let resources = Resources { cpu, memory: 10, ..Resources::ZERO };
                // Some are gangs, of two or three, with each of the policies.
                const POLICIES: [OnLost; 3] = [OnLost::Restart, OnLost::Replace, OnLost::Fail];
                let size = if gang < 3 { 2 + count % 2 } else { 0 };
                let spec = TaskSpec {
                    gang: size,
                    gang_lost: POLICIES.get(gang as usize).copied().unwrap_or_default(),
                    count: count.div_ceil(size.max(1)) * size.max(1),
                    resources,
                    priority,
                    max_attempts: attempts,
                    max_losses: losses,
                    queue_timeout_s: queue_s,
                    max_running: if most == 0 { 0 } else { most.max(size) },
                    ..task()
                };
                // Now and then one more that comes after it.
                const ONS: [On; 3] = [On::Success, On::Failure, On::End];
                let on = ONS.get(after / 2).copied();
                let after =
                    on.map(|on| Dependency { task: spec.name.clone(), on, each: after % 2 == 0, input: String::new() });
                let second = after.map(|after| {
                    let name = Name::new("second").unwrap();
                    TaskSpec { name, after: vec![after], ..spec.clone() }
                });
                let (lost_after, stop_on_disconnect_after_ms) = if size > 0 { (120, 90_000) } else { (60, 0) };
                let terms = Terms { await_agents: true, stop_on_disconnect_after_ms, ..Terms::lost_after(lost_after) };
                let tasks = [spec].into_iter().chain(second).collect();
                let (submit, job) = (t.submit_id(), JobSpec::new(Name::new("j").unwrap(), tasks, terms).unwrap());
                self.jobs.push(t.submit_as(submit, &job).unwrap().0);
            }
            Step::Cancel { job, index } => {
                let _ = t.cancel(job, index.map(|index| id(job, 0, index)));
            }
            Step::Register(agent) => {
                let held = t.agent(NAMES[agent]).holds();
                self.accepted.extend(held);
                t.agent(NAMES[agent]).register();
            }
            Step::Lose(agent) if self.connected(t, NAMES[agent]) => {
                t.agent(NAMES[agent]).lose();
            }
            Step::LoseData(agent) => {
                if self.connected(t, NAMES[agent]) {
                    t.agent(NAMES[agent]).lose();
                }
                let mut hand = t.agent(NAMES[agent]);
                let model = hand.model();
                model.data_id[1] = model.data_id[1].wrapping_add(1);
                model.holds.clear();
            }
            // Assignments that were on their way when the connection broke.
            Step::Drop(agent) if self.connected(t, NAMES[agent]) => {
                t.agent(NAMES[agent]).lose();
                t.agent(NAMES[agent]).model().holds.retain(|_, (_, status)| *status != S::Assigned);
            }
            Step::Pass(s) => t.pass(secs(s)),
            Step::Stall(s) => {
                t.now = t.now + secs(s);
                t.handle(fleetwire_scheduler_core::Event::Stalled { gap: secs(s) });
            }
            Step::Restart => t.restart(),
            other => self.report(t, other),
        }
        for name in NAMES {
            self.read(t, name, None);
        }
    }

    /// What an agent says of an attempt.
    fn report(&mut self, t: &mut T, step: Step) {
        match step {
            Step::Accept(agent) => {
                if let Some(attempt) = self.pick(t, NAMES[agent]) {
                    self.accepted.insert(attempt);
                    t.agent(NAMES[agent]).accepts(attempt);
                }
            }
            Step::Reject(agent) => {
                let held = self.pick(t, NAMES[agent]);
                let waits = |t: &mut T, attempt| t.agent(NAMES[agent]).model().holds[&attempt].1 == S::Assigned;
                let accepted = self.accepted.clone();
                if let Some(attempt) = held.filter(|attempt| waits(t, *attempt) && !accepted.contains(attempt)) {
                    t.agent(NAMES[agent]).rejects(attempt);
                }
            }
            Step::Run(agent) => {
                if let Some(attempt) = self.pick(t, NAMES[agent]) {
                    t.agent(NAMES[agent]).reports(attempt, S::Running, 0.25);
                }
            }
            Step::End(agent, how) => {
                if let Some(attempt) = self.pick(t, NAMES[agent]) {
                    let status = [S::Completed, S::Completed, S::Failed, S::Cancelled, S::TimedOut, S::Lost];
                    let status = *status.get(how).unwrap_or(&S::Completed);
                    self.end(t, NAMES[agent], attempt, status);
                }
            }
            // A final status that comes again, or from one who was not asked.
            Step::Again(agent) => {
                let last = self.ended.last().cloned();
                if let Some((_, attempt, status)) = last.filter(|_| self.connected(t, NAMES[agent]))
                    && !t.agent(NAMES[agent]).holds().contains(&attempt)
                {
                    self.end(t, NAMES[agent], attempt, status);
                }
            }
            _ => {}
        }
    }

    /// Everything comes back and does what it is told: then every job ends.
    fn finish(&mut self, t: &mut T) {
        for round in 0.. {
            assert!(round < 2_000, "some task never ends");
            for name in NAMES {
                if !self.connected(t, name) || round == 0 {
                    t.agent(name).register();
                }
                self.read(t, name, None);
                while let Some(attempt) = self.pick(t, name) {
                    self.end(t, name, attempt, S::Completed);
                }
            }
            let open = t.scheduler.state().jobs.values().any(|job| job.ended_at.is_none());
            if !open && NAMES.iter().all(|name| t.agent(name).holds().is_empty()) {
                break;
            }
            t.pass_beating(secs(20));
        }
        for job in &self.jobs {
            let found = &t.scheduler.state().jobs[&JobId(*job)];
            assert_eq!(found.counts.ended(), found.counts.total);
            let [_, _, _, completed, ..] = t.counts(*job);
            let done = self.committed.iter().filter(|(attempt, _)| attempt.task.job.0 == *job);
            assert_eq!(done.filter(|(_, status)| **status == S::Completed).count() as u32, completed);
        }
        // Nothing is left behind: no ledger, no queue, no deadline but those of sessions and agents.
        let live = t.scheduler.live();
        assert!(live.queue.is_empty() && live.jobs.is_empty());
        for (_, agent) in live.agents() {
            assert!(agent.held.is_empty() && agent.in_use() == Resources::ZERO);
        }
        assert!(live.deadlines.count() < 20, "{:?}", live.deadlines);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_tasks_commit_once_and_nothing_is_oversubscribed(steps in prop::collection::vec(step(), 1..120)) {
        let mut t = T::new();
        let mut walk = Walk::default();
        for name in NAMES {
            t.agent(name).register();
        }
        for step in steps {
            walk.take(&mut t, step);
        }
        walk.finish(&mut t);
    }
}
