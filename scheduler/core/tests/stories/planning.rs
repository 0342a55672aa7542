//! Plans: what would become of a job, were it submitted now. Whatever a story submits is planned before, and what the plan said
//! of being accepted holds (harness/operators.rs).

use crate::harness::*;
use fleetwire_common::{
    custom::Custom,
    fb::{self, ConstraintOp as Op, DependencyOn as On, ErrorCode as C},
    graph::Dependency,
    ids::Name,
    job::{Constraint, JobSpec, Semaphore, TaskSpec, Terms},
    message::Message,
    resources::Resources,
};

fn name(name: &str) -> Name {
    Name::new(name).unwrap()
}

fn plan(t: &mut T, job: &JobSpec) -> fb::PlanT {
    t.plan(job.to_wire())
}

fn entries(t: &mut T, tasks: Vec<TaskSpec>) -> Vec<fb::PlanEntryT> {
    plan(t, &job(tasks)).entries.unwrap()
}

fn entry(t: &mut T, task: TaskSpec) -> fb::PlanEntryT {
    entries(t, vec![task]).remove(0)
}

fn array(count: u32) -> TaskSpec {
    TaskSpec { count, array: true, ..task() }
}

fn after(task: TaskSpec, other: &str) -> TaskSpec {
    let after = vec![Dependency { task: name(other), on: On::Success, each: false, input: String::new() }];
    TaskSpec { after, ..task }
}

fn why(entry: &fb::PlanEntryT) -> &str {
    entry.earliest.as_ref().unwrap().why.as_deref().unwrap_or_default()
}

fn reasons(entry: &fb::PlanEntryT) -> Vec<(u32, String)> {
    let rows = entry.obstacles.iter().flatten();
    rows.map(|row| (row.agents, row.reason.clone().unwrap_or_default())).collect()
}

#[test]
fn it_says_where_tasks_would_go_and_what_the_rest_lacks() {
    let mut t = T::new();
    t.agent("a").label("zone", "eu").register();
    t.agent("b").label("zone", "eu").register();
    t.agent("c").label("zone", "us").register();
    t.agent("d").label("zone", "eu").capacity(Resources { cpu: 500, ..small() }).register();
    t.agent("e").label("zone", "eu").register().lose();
    let constraints = vec![Constraint::new(name("zone"), Op::Equal, "eu")];
    t.submit(vec![TaskSpec { constraints: constraints.clone(), ..task() }]);
    let (facts, state) = (t.facts.len(), t.scheduler.state().clone());
    let planned = plan(&mut t, &job(vec![TaskSpec { constraints, ..array(10) }]));
    assert_eq!((&state, facts), (t.scheduler.state(), t.facts.len()), "nothing is taken");
    assert_eq!((planned.refused, planned.tasks, planned.agents), (None, 10, 5));
    let total = |total: Option<Box<fb::ResourceTotalT>>| total.map(|it| (it.cpu, it.memory)).unwrap();
    assert_eq!((total(planned.asked), total(planned.capacity)), ((10_000, 1_000), (16_500, 4_100)));
    assert_eq!(planned.queue.unwrap().rule.unwrap().name.as_deref(), Some("default"));
    let found = &planned.entries.unwrap()[0];
    assert_eq!((found.count, found.now, found.agents, found.suitable, found.looked_at), (10, 7, 2, 3, 5));
    let places = found.places.iter().flatten().map(|place| (place.agent.as_deref().unwrap(), place.tasks));
    assert_eq!(places.collect::<Vec<_>>(), [("a", 3), ("b", 4)], "the fuller one comes first");
    assert_eq!(found.held_back, None);
    let expected = [
        (1, "it is not connected"),
        (1, "it is too small: cpu: has 500 millicores, the task needs 1000 millicores"),
        (1, "its label `zone` is not `eu`"),
    ];
    assert_eq!(reasons(found), expected.map(|(agents, reason)| (agents, reason.to_owned())));
    let earliest = found.earliest.as_ref().unwrap();
    assert_eq!((earliest.in_ms, earliest.agent.as_deref()), (0, Some("a")));
}

#[test]
fn a_plan_is_refused_with_what_a_submit_would_be() {
    let mut t = T::new();
    t.agent("a").register();
    let large = TaskSpec { resources: Resources { cpu: 64_000, ..small() }, ..task() };
    let spec = JobSpec::new(name("j"), vec![large], Terms::default()).unwrap();
    let planned = plan(&mut t, &spec);
    let refused = planned.refused.unwrap();
    assert_eq!((refused.code, refused.retriable), (C::DoesNotFit, false));
    let said = refused.message.unwrap();
    assert!(
        said.contains("the nearest of 1 that suit it otherwise is `a`, for cpu of 4000 millicores at most"),
        "{said}"
    );
    let found = &planned.entries.unwrap()[0];
    assert_eq!((found.suitable, found.now), (0, 0), "it says what to change");
    // What cannot be read has no entries.
    let planned = t.plan(vec![1, 2, 3]);
    assert_eq!((planned.refused.unwrap().code, planned.entries, planned.agents), (C::Validation, None, 1));
    let elsewhere = job(vec![task()]).in_queue(name("nowhere"));
    let planned = plan(&mut t, &elsewhere);
    assert!(planned.refused.unwrap().message.unwrap().contains("there is no queue `nowhere`"));
    assert_eq!((planned.queue, planned.entries.unwrap()[0].now), (None, 1));
    // While the disk is low nothing is taken.
    t.handle(fleetwire_scheduler_core::Event::Disk { low: true, blob_segments_max: u64::MAX });
    let refused = plan(&mut t, &job(vec![task()])).refused.unwrap();
    assert_eq!((refused.code, refused.retriable), (C::DiskFull, true));
}

#[test]
fn only_who_may_submit_may_plan() {
    let mut t = T::new();
    let bytes = job(vec![task()]).to_wire();
    for (role, may) in [(fb::Role::Operator, true), (fb::Role::Service, true), (fb::Role::Viewer, false)] {
        let session = t.connect(role, "who");
        let plan = fb::PlanJobT { request: 1, job: Some(bytes.clone()) };
        t.send(session, Message::Rare(fb::SchedulerMessageT::PlanJob(Box::new(plan))));
        match t.inbox(session).pop() {
            Some(Message::Rare(fb::SchedulerMessageT::Page(page))) => assert!(may && page.request == 1),
            Some(Message::Rare(fb::SchedulerMessageT::Nack(nack))) => {
                assert_eq!((may, nack.code, nack.request), (false, C::Authorization, 1));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn entries_come_in_the_order_in_which_they_would_start() {
    let mut t = T::new();
    t.agent("a").register();
    let of = |text: &str, task: TaskSpec| TaskSpec { name: name(text), ..task };
    let found = entries(
        &mut t,
        vec![
            after(of("report", task()), "train"),
            after(of("train", array(9)), "prepare"),
            of("prepare", task()),
            of("first", TaskSpec { priority: 1, ..task() }),
        ],
    );
    let order: Vec<_> = found.iter().map(|entry| (entry.name.as_deref().unwrap(), entry.step, entry.now)).collect();
    assert_eq!(order, [("first", 0, 1), ("prepare", 0, 1), ("train", 1, 0), ("report", 2, 0)]);
    assert_eq!((why(&found[2]), found[3].after.as_deref()), ("it comes after `prepare`", Some(&["train".into()][..])));
    assert_eq!((found[2].suitable, reasons(&found[2])), (1, Vec::new()));
}

#[test]
fn what_one_entry_takes_the_next_does_not_find() {
    let mut t = T::new();
    t.agent("a").register();
    let of = |text: &str, task: TaskSpec| TaskSpec { name: name(text), ..task };
    let found = entries(&mut t, vec![of("one", array(3)), of("two", array(3)), of("three", task())]);
    assert_eq!(found.iter().map(|entry| entry.now).collect::<Vec<_>>(), [3, 1, 0]);
    let crowded = "tasks of this job before it take what is free there";
    assert_eq!(reasons(&found[2]), [(1, crowded.to_owned())]);
    assert_eq!(found[2].earliest.as_ref().unwrap().at, 0);
    assert!(why(&found[2]).contains("goes to tasks of this job before it"));
}

#[test]
fn it_says_what_leaves_room_for_no_more() {
    let mut t = T::new();
    t.agent("a").custom("fpga", 5).register();
    let found = entry(&mut t, TaskSpec { max_running: 2, ..array(9) });
    assert_eq!((found.now, found.held_back.as_deref()), (2, Some("max_running of `task` is 2")));
    let capped = JobSpec::new(name("j"), vec![array(9)], Terms { max_running: 3, ..Terms::lost_after(60) }).unwrap();
    let found = plan(&mut t, &capped).entries.unwrap().remove(0);
    assert_eq!((found.now, found.held_back.as_deref()), (3, Some("max_running of the job leaves no more")));
    let found = entry(&mut t, TaskSpec { custom: Custom::new([("fpga", 2)]).unwrap(), ..array(9) });
    assert_eq!((found.now, found.held_back), (2, None));
    let found = entry(&mut t, TaskSpec { distinct_agents: true, ..array(9) });
    assert_eq!(found.now, 1);
    let found = entry(&mut t, TaskSpec { whole_agent: true, ..array(9) });
    assert_eq!(found.now, 1);
    // Semaphores, of which others have some.
    let db = |units| vec![Semaphore { name: name("db"), max: 3, units }];
    let terms = Terms { stop_on_disconnect_after_ms: 90_000, ..Terms::lost_after(120) };
    t.submit_with(TaskSpec { semaphores: db(1), ..task() }, terms).unwrap();
    let of = |units| JobSpec::new(name("j"), vec![TaskSpec { semaphores: db(units), ..array(9) }], terms).unwrap();
    let planned = plan(&mut t, &of(1));
    let semaphore = &planned.semaphores.unwrap()[0];
    assert_eq!((semaphore.name.as_deref(), semaphore.max, semaphore.taken), (Some("db"), 3, 1));
    let found = &planned.entries.unwrap()[0];
    assert_eq!((found.now, found.held_back.as_deref()), (2, Some("semaphore `db` has no more units left")));
    let found = plan(&mut t, &of(3)).entries.unwrap().remove(0);
    assert_eq!(found.now, 0);
    assert!(why(&found).contains("semaphore `db` is held by 1.0.0#1"), "{}", why(&found));
    // Quotas.
    let quota = Some(Box::new(fb::QuotaT { cpu: 2_500, ..Default::default() }));
    let queues = Some(vec![fb::QueueRuleT { name: Some("q".into()), quota, ..Default::default() }]);
    let policy = Some(Box::new(fb::ClusterPolicyT { queues, ..Default::default() }));
    t.request(|request| fb::SchedulerMessageT::SetPolicy(Box::new(fb::SetPolicyT { request, policy })));
    let found = plan(&mut t, &job(vec![array(9)]).in_queue(name("q"))).entries.unwrap().remove(0);
    assert_eq!((found.now, found.held_back.as_deref()), (2, Some("the quota of queue `q` leaves no more")));
}

#[test]
fn the_earliest_start_of_what_does_not_fit_now_is_said() {
    let mut t = T::new();
    t.agent("a").register();
    let running = t.submit(vec![TaskSpec { timeout_s: 100, ..array(4) }]);
    (0..4).for_each(|index| drop(t.agent("a").runs(attempt(running, index, 1))));
    let found = entry(&mut t, array(2));
    let earliest = found.earliest.unwrap();
    assert_eq!((found.now, earliest.in_ms, earliest.agent.as_deref()), (0, 105_000, Some("a")));
    assert!(earliest.task_id.is_some());
    let terms = Terms { start_after_ms: 500_000, ..Terms::lost_after(60) };
    let found = plan(&mut t, &JobSpec::new(name("j"), vec![task()], terms).unwrap()).entries.unwrap().remove(0);
    assert_eq!((found.now, found.earliest.as_ref().unwrap().in_ms), (0, 500_000));
    assert_eq!(why(&found), "its job does not start before");
}

#[test]
fn gangs_find_room_as_a_whole_or_not_at_all() {
    let mut t = T::new();
    for agent in ["a", "b", "c"] {
        t.agent(agent).register();
    }
    let terms = Terms { stop_on_disconnect_after_ms: 90_000, await_agents: true, ..Terms::lost_after(120) };
    let of = |gang, count| JobSpec::new(name("j"), vec![TaskSpec { gang, ..array(count) }], terms).unwrap();
    for (gang, count, expected) in [(3, 18, 12), (2, 18, 12), (2, 2, 2), (4, 8, 0)] {
        let found = plan(&mut t, &of(gang, count)).entries.unwrap().remove(0);
        assert_eq!(found.now, expected, "{count} in gangs of {gang}");
        let places = found.places.iter().flatten();
        assert!(places.clone().all(|place| place.tasks <= expected / gang), "each on an agent of its own");
        assert_eq!(why(&found).contains("have room for a gang at once"), expected == 0);
    }
    t.agent("c").lose();
    let (three, two) = (of(3, 3), of(2, 18));
    assert_eq!(plan(&mut t, &three).entries.unwrap()[0].now, 0);
    let said = plan(&mut t, &two).entries.unwrap()[0].now;
    let submit = t.submit_id();
    let job = t.submit_as(submit, &two).unwrap().0;
    assert_eq!((t.counts(job)[1], said), (8, 8));
}

#[test]
fn as_many_are_placed_as_the_plan_said() {
    let mut seed = 0u64;
    let mut roll = |below: u32| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((seed >> 33) as u32) % below
    };
    let mut placed = 0;
    for _ in 0..60 {
        let mut t = T::new();
        for agent in ["a", "b", "c", "d"] {
            let capacity =
                Resources { cpu: 1_000 * (1 + roll(8)), memory: 200 * (1 + roll(8)), gpu: roll(3), storage: 9 };
            t.agent(agent).capacity(capacity).custom("fpga", 1 + u64::from(roll(4))).register();
        }
        for _ in 0..6 {
            let resources = Resources { cpu: 500 * (1 + roll(5)), memory: 100 * roll(5), gpu: roll(2), storage: 0 };
            let task = TaskSpec {
                resources,
                whole_agent: roll(6) == 0,
                distinct_agents: roll(4) == 0,
                max_running: roll(3) * 3,
                custom: if roll(3) == 0 { Custom::new([("fpga", 1)]).unwrap() } else { Custom::default() },
                ..array(1 + roll(12))
            };
            let said = entry(&mut t, task.clone()).now;
            let job = t.submit(vec![task]);
            assert_eq!(t.counts(job)[1], said);
            placed += said;
        }
    }
    assert!(placed > 300, "{placed}");
}
