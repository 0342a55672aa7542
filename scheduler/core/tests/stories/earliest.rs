//! When something that waits could start at the earliest: what is said, that it is so, and what nobody knows.

use crate::harness::*;
use fleetwire_common::{
    custom::Custom,
    fb::{self, DependencyOn as On, EndReason as R, TaskStatus as S},
    graph::Dependency,
    ids::{AttemptId, Name, TaskId},
    job::{JobSpec, Semaphore, TaskSpec, Terms},
    message::End,
    resources::Resources,
};
use std::collections::BTreeMap;

fn earliest(t: &mut T, task: TaskId) -> fb::EarliestStartT {
    let query = fb::QueryT { kind: fb::QueryKind::Explain, task_id: Some(task.to_string()), ..fb::QueryT::default() };
    *t.query(query).unwrap().explanation.unwrap().earliest.expect("it is pending")
}

/// In how many ms, and why: a time, or that nobody knows.
fn when(t: &mut T, task: TaskId) -> (Option<u64>, String) {
    let found = earliest(t, task);
    ((found.at > 0).then_some(found.in_ms), found.why.unwrap_or_default())
}

fn within(timeout_s: u64, cores: u32) -> TaskSpec {
    let resources = Resources { cpu: 1_000 * cores, memory: 100, ..Resources::ZERO };
    TaskSpec { timeout_s, kill_grace_ms: 5_000, resources, ..task() }
}

fn times_out(t: &mut T, agent: &str, attempt: AttemptId) {
    t.agent(agent).ends(attempt, S::TimedOut, End { reason: R::RunTimeout, ..End::default() });
}

#[test]
fn it_is_known_when_what_runs_ends_by_its_timeouts() {
    let mut t = T::new();
    t.agent("a").register();
    t.agent("b").register();
    let long = t.submit(vec![TaskSpec { count: 2, array: true, ..within(300, 3) }]);
    let agents = [0, 1].map(|index| t.task(id(long, 0, index)).agent.unwrap());
    t.agent(&agents[0]).runs(attempt(long, 0, 1));
    t.pass_beating(secs(40));
    t.agent(&agents[1]).runs(attempt(long, 1, 1));
    t.pass_beating(secs(10));
    let waits = t.submit(vec![within(10, 4)]);
    // The first to end makes room, with its kill grace: 50 s of it have passed.
    let found = earliest(&mut t, id(waits, 0, 0));
    assert_eq!((found.in_ms, found.at), (255_000, t.now.as_ms() + 255_000));
    assert_eq!((found.agent.as_deref(), found.ends), (Some(agents[0].as_str()), 1));
    assert_eq!((found.task_id, found.attempt, found.why), (Some(id(long, 0, 0).to_string()), 1, None));
    assert_eq!((found.looked_at, found.suitable), (2, 2));
    // What is small has room, and what runs is not asked.
    let small = t.submit(vec![TaskSpec { priority: -1, ..within(10, 4) }]);
    assert_eq!(when(&mut t, id(small, 0, 0)).0, Some(255_000), "nothing else is thought to be placed before");
    t.pass_beating(secs(255));
    times_out(&mut t, &agents[0], attempt(long, 0, 1));
    assert_eq!(t.task(id(waits, 0, 0)).agent, Some(agents[0].clone()));
    // What was sent and does not run yet has its whole time, and some to start.
    assert_eq!(when(&mut t, id(small, 0, 0)).0, Some(10_000 + 15_000));
    // A time that has passed says nothing any more.
    t.agent(&agents[0]).runs(attempt(waits, 0, 1));
    t.pass_beating(secs(41));
    let why = format!("nobody knows when what runs there ends, such as {long}.0.1#1 on `{}`", agents[1]);
    assert_eq!(when(&mut t, id(small, 0, 0)), (None, why));
}

#[test]
fn nobody_knows_when_what_has_no_timeout_ends() {
    let mut t = T::new();
    let early = t.submit(vec![within(10, 4)]);
    let none = "no agent that takes work now suits it and is large enough";
    assert_eq!(when(&mut t, id(early, 0, 0)), (None, none.into()));
    t.agent("a").register();
    t.agent("a").completes(attempt(early, 0, 1));
    let endless = t.submit(vec![within(0, 2)]);
    let timed = t.submit(vec![within(60, 2)]);
    t.agent("a").runs(attempt(endless, 0, 1)).runs(attempt(timed, 0, 1));
    let waits = t.submit(vec![TaskSpec { name: Name::new("x").unwrap(), ..within(10, 4) }]);
    let why = format!("nobody knows when what runs there ends, such as {endless}.0.0#1 on `a`");
    assert_eq!(when(&mut t, id(waits, 0, 0)), (None, why));
    // For half of the agent it is enough that the other ends.
    let half = t.submit(vec![within(10, 2)]);
    assert_eq!(when(&mut t, id(half, 0, 0)).0, Some(65_000));
    // Agents that are away or too small are none.
    t.agent("c").capacity(small()).register();
    assert_eq!(earliest(&mut t, id(waits, 0, 0)).suitable, 1);
    t.agent("a").lose();
    assert_eq!(when(&mut t, id(half, 0, 0)), (None, none.into()));
}

#[test]
fn what_is_known_by_itself_is_said() {
    let mut t = T::new();
    t.agent("a").register();
    let later = t.submit_with(within(10, 1), Terms { start_after_ms: 600_000, ..Terms::default() }).unwrap();
    t.pass_beating(secs(100));
    let not_before = |ms, why: &str| (Some(ms), why.to_owned());
    assert_eq!(when(&mut t, id(later, 0, 0)), not_before(500_000, "its job does not start before"));
    assert_eq!(earliest(&mut t, id(later, 0, 0)).agent.as_deref(), Some("a"));
    let failing = t.submit(vec![TaskSpec { max_attempts: 2, backoff_ms: 60_000, ..within(10, 1) }]);
    t.agent("a").fails(attempt(failing, 0, 1));
    let retry_at = t.task(id(failing, 0, 0)).retry_at;
    let (Some(in_ms), why) = when(&mut t, id(failing, 0, 0)) else { panic!("it is known") };
    assert!(in_ms.abs_diff(retry_at - t.now.as_ms()) <= 1, "{in_ms}");
    assert_eq!(why, "its retry is not due before");
    // What rejected it is not asked at once.
    let rejected = t.submit(vec![within(10, 2)]);
    t.agent("a").rejects(attempt(rejected, 0, 1));
    let (in_ms, why) = when(&mut t, id(rejected, 0, 0));
    assert!(in_ms.is_some_and(|in_ms| in_ms > 0), "{in_ms:?}");
    assert_eq!(why, "agents that rejected such a task are not asked again before");
    t.pass_beating(std::time::Duration::from_millis(in_ms.unwrap()));
    assert_eq!(t.task(id(rejected, 0, 0)).agent.as_deref(), Some("a"));
    // Those of one entry that are to be apart wait for each other.
    let apart = t.submit(vec![TaskSpec { count: 2, array: true, distinct_agents: true, ..within(100, 1) }]);
    t.agent("a").runs(attempt(apart, 0, 1));
    let why = "agents have tasks of the same entry, and those are to be apart";
    assert_eq!(when(&mut t, id(apart, 0, 1)), not_before(105_000, why));
}

#[test]
fn what_waits_for_others_of_its_job_has_no_time() {
    let mut t = T::new();
    t.agent("a").register();
    let name = |name: &str| Name::new(name).unwrap();
    let after = vec![Dependency { task: name("one"), on: On::Success, each: false, input: String::new() }];
    let job = t.submit(vec![
        TaskSpec { name: name("one"), ..within(10, 1) },
        TaskSpec { name: name("two"), after, ..within(10, 1) },
    ]);
    let why = "waits for `one` to succeed (1 of its 1 tasks have not ended)";
    assert_eq!(when(&mut t, id(job, 1, 0)), (None, why.into()));
    let capped = t.submit(vec![TaskSpec { count: 2, array: true, max_running: 1, ..within(10, 1) }]);
    let why = "waits for its turn: max_running of `task` is 1, and 1 attempts are assigned or run";
    assert_eq!(when(&mut t, id(capped, 0, 1)), (None, why.into()));
}

#[test]
fn semaphores_are_had_again_when_their_holders_end() {
    let mut t = T::new();
    t.agent("a").register();
    let db = |units| vec![Semaphore { name: Name::new("db").unwrap(), max: 3, units }];
    let holds = |timeout_s, units| TaskSpec { semaphores: db(units), ..within(timeout_s, 1) };
    let terms = Terms { stop_on_disconnect_after_ms: 90_000, ..Terms::lost_after(120) };
    let first = t.submit_with(holds(50, 1), terms).unwrap();
    let second = t.submit_with(holds(100, 2), terms).unwrap();
    t.agent("a").runs(attempt(first, 0, 1)).runs(attempt(second, 0, 1));
    let one = t.submit_with(holds(10, 1), terms).unwrap();
    let two = t.submit_with(holds(10, 2), terms).unwrap();
    let why = |job| format!("semaphore `db` has too few units left until {job}.0.0#1 ends");
    assert_eq!(when(&mut t, id(one, 0, 0)), (Some(55_000), why(first)));
    assert_eq!(when(&mut t, id(two, 0, 0)), (Some(105_000), why(second)), "the first leaves one unit only");
    // Where its agent is away, nobody knows when a holder ends.
    t.agent("b").register();
    t.agent("a").lose();
    let why = format!("semaphore `db` is held by {first}.0.0#1 on `a`, and nobody knows when that ends");
    assert_eq!(when(&mut t, id(one, 0, 0)), (None, why));
}

#[test]
fn a_quota_leaves_more_when_what_its_queue_holds_ends() {
    let mut t = T::new();
    t.agent("a").register();
    let quota = Some(Box::new(fb::QuotaT { cpu: 2_000, ..Default::default() }));
    let queues = Some(vec![fb::QueueRuleT { name: Some("q".into()), quota, ..Default::default() }]);
    let policy = Some(Box::new(fb::ClusterPolicyT { queues, ..Default::default() }));
    t.request(|request| fb::SchedulerMessageT::SetPolicy(Box::new(fb::SetPolicyT { request, policy })));
    let submit = |t: &mut T, task: TaskSpec| {
        let job = JobSpec::new(Name::new("j").unwrap(), vec![task], Terms::lost_after(60)).unwrap();
        let submit = t.submit_id();
        t.submit_as(submit, &job.in_queue(Name::new("q").unwrap())).unwrap().0
    };
    let other = t.submit(vec![within(20, 1)]);
    let first = submit(&mut t, within(50, 1));
    let second = submit(&mut t, within(100, 1));
    for job in [other, first, second] {
        t.agent("a").runs(attempt(job, 0, 1));
    }
    let one = submit(&mut t, within(10, 1));
    let two = submit(&mut t, within(10, 2));
    let why = "the quota of queue `q` leaves too little before";
    assert_eq!(when(&mut t, id(one, 0, 0)), (Some(55_000), why.into()), "another queue's end leaves no more");
    assert_eq!(when(&mut t, id(two, 0, 0)), (Some(105_000), why.into()));
    t.agent("a").completes(attempt(first, 0, 1)).completes(attempt(one, 0, 1)).completes(attempt(second, 0, 1));
    assert_eq!(t.task(id(two, 0, 0)).agent.as_deref(), Some("a"));
    t.agent("a").completes(attempt(two, 0, 1));
    let endless = submit(&mut t, within(0, 1));
    t.agent("a").runs(attempt(endless, 0, 1));
    let two = submit(&mut t, within(10, 2));
    let why = "the quota of queue `q` leaves too little, and nobody knows when enough of it ends";
    assert_eq!(when(&mut t, id(two, 0, 0)), (None, why.into()));
}

#[test]
fn of_many_agents_the_ones_on_which_the_least_is_missing_are_looked_at() {
    let mut t = T::new();
    let count = 520;
    for number in 0..count {
        t.agent(&format!("a{number:03}")).register();
    }
    // Three cores of each are taken, of the last one only two: there the least is missing.
    let long = t.submit(vec![TaskSpec { count: count - 1, array: true, ..within(900, 3) }]);
    let short = t.submit(vec![within(100, 2)]);
    for index in 0..count - 1 {
        let agent = t.task(id(long, 0, index)).agent.unwrap();
        t.agent(&agent).runs(attempt(long, index, 1));
    }
    let last = t.task(id(short, 0, 0)).agent.unwrap();
    t.agent(&last).runs(attempt(short, 0, 1));
    let waits = t.submit(vec![within(10, 4)]);
    let found = earliest(&mut t, id(waits, 0, 0));
    assert_eq!((found.in_ms, found.agent), (105_000, Some(last)));
    assert_eq!((found.looked_at, found.suitable), (512, count));
}

/// Numbers that look like chance.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as u32) % below
    }
}

/// With nothing else pending, what has a time starts no later than it if all that runs goes on to its timeout.
#[test]
fn a_time_that_was_said_is_kept_if_all_run_to_their_timeouts() {
    let (mut known, mut waited) = (0, 0);
    for seed in 0..60 {
        let (mut t, mut dice) = (T::new(), Dice(seed));
        for name in ["a", "b", "c"] {
            t.agent(name).custom("fpga", 2).register();
        }
        let spec = |dice: &mut Dice| TaskSpec {
            custom: if dice.roll(3) == 0 { Custom::new([("fpga", 1)]).unwrap() } else { Custom::default() },
            whole_agent: dice.roll(8) == 0,
            ..within([0, 40, 90, 200, 300][dice.roll(5) as usize], 1 + dice.roll(4))
        };
        // What is running, and since when at the latest; of some that is not known yet.
        let mut ends: BTreeMap<AttemptId, (u64, String)> = BTreeMap::new();
        for _ in 0..3 + dice.roll(6) {
            let spec = spec(&mut dice);
            let allowed_ms = 1_000 * spec.timeout_s + 5_000;
            let job = t.submit(vec![spec.clone()]);
            let Some(agent) = t.task(id(job, 0, 0)).agent.filter(|agent| !agent.is_empty()) else {
                t.cancel(job, None).unwrap();
                continue;
            };
            t.pass_beating(secs(u64::from(dice.roll(8))));
            t.agent(&agent).runs(attempt(job, 0, 1));
            if spec.timeout_s > 0 {
                ends.insert(attempt(job, 0, 1), (t.now.as_ms() + allowed_ms, agent));
            }
        }
        let job = t.submit(vec![spec(&mut dice)]);
        let has_started = |t: &mut T| t.counts(job)[1] == 1;
        if has_started(&mut t) {
            continue;
        }
        let said = earliest(&mut t, id(job, 0, 0));
        known += u32::from(said.at > 0);
        let mut ends: Vec<_> = ends.into_iter().collect();
        ends.sort_by_key(|(_, (at, _))| *at);
        for (attempt, (at, agent)) in ends {
            t.pass_beating(std::time::Duration::from_millis(at.saturating_sub(t.now.as_ms())));
            times_out(&mut t, &agent, attempt);
            if has_started(&mut t) {
                break;
            }
        }
        assert_eq!(has_started(&mut t), said.at > 0, "{seed}: {said:?}");
        if said.at > 0 {
            waited += 1;
            assert!(t.now.as_ms() <= said.at, "{seed}: it started {} ms late", t.now.as_ms() - said.at);
        }
    }
    assert!(known > 15 && waited == known, "{known} times were said");
}

#[test]
fn what_does_not_wait_has_no_time() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![within(10, 1)]);
    let query = |task: TaskId| fb::QueryT {
        kind: fb::QueryKind::Explain,
        task_id: Some(task.to_string()),
        ..fb::QueryT::default()
    };
    let explained = t.query(query(id(job, 0, 0))).unwrap().explanation.unwrap();
    assert_eq!(explained.earliest, None);
}
