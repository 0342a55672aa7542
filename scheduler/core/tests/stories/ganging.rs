//! Gangs: their members start together, each on an agent of its own, and share what becomes of one that is lost. The harness
//! checks after every event that nothing of a gang is assigned without the rest, and no two of it are on one agent.

use crate::harness::*;
use fleetwire_common::{
    fb::{self, EndReason as R, ErrorCode as C, OnLost, TaskStatus as S},
    ids::{Name, TaskId},
    job::{JobSpec, Semaphore, TaskSpec, Terms},
    message::{End, Message},
    resources::Resources,
};

const AGENTS: [&str; 4] = ["a", "b", "c", "d"];

fn terms() -> Terms {
    Terms { stop_on_disconnect_after_ms: 90_000, ..Terms::lost_after(120) }
}

/// A gang of so many.
fn gang(size: u32) -> TaskSpec {
    TaskSpec { count: size, array: true, gang: size, max_attempts: 3, max_losses: 9, ..task() }
}

/// All of an agent's cores.
fn large(spec: TaskSpec) -> TaskSpec {
    TaskSpec { resources: Resources { cpu: 4_000, ..small() }, ..spec }
}

fn submit(t: &mut T, spec: TaskSpec) -> u64 {
    t.submit_with(spec, terms()).unwrap()
}

fn with_agents(names: &[&str]) -> T {
    let mut t = T::new();
    names.iter().for_each(|name| _ = t.agent(name).register());
    t
}

fn why(t: &mut T, task: TaskId) -> String {
    let query = fb::QueryT { kind: fb::QueryKind::Explain, task_id: Some(task.to_string()), ..fb::QueryT::default() };
    t.query(query).unwrap().explanation.unwrap().summary.unwrap()
}

fn agent_of(t: &mut T, job: u64, index: u32) -> Option<String> {
    t.task(id(job, 0, index)).agent
}

fn agents_of(t: &mut T, job: u64, count: u32) -> Vec<String> {
    (0..count).filter_map(|index| agent_of(t, job, index)).collect()
}

fn statuses(t: &mut T, job: u64, count: u32) -> Vec<S> {
    (0..count).map(|index| t.task(id(job, 0, index)).status).collect()
}

/// What the latest assignments on an agent say of their gangs.
fn told(t: &mut T, agent: &str) -> Vec<String> {
    let of = |message| match message {
        Message::Assignment(assignment) => {
            let own = assignment.spec.environment.iter().filter(|(name, _)| name.starts_with("FLEETWIRE_GANG_"));
            Some(own.map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(" "))
        }
        _ => None,
    };
    t.agent(agent).inbox().into_iter().filter_map(of).collect()
}

fn runs_all(t: &mut T, job: u64, count: u32, number: u32) {
    for index in 0..count {
        let agent = agent_of(t, job, index).unwrap();
        t.agent(&agent).runs(attempt(job, index, number));
    }
}

/// The agent of a member ends it as it was asked to.
fn stops(t: &mut T, job: u64, index: u32, number: u32) {
    let agent = agent_of(t, job, index).unwrap();
    assert_eq!(t.agent(&agent).cancelled(), [(attempt(job, index, number), R::GangLost)]);
    t.agent(&agent).ends(attempt(job, index, number), S::Cancelled, End { reason: R::GangLost, ..End::default() });
}

#[test]
fn a_gang_starts_together_or_not_at_all_and_knows_where_its_members_are() {
    let mut t = with_agents(&["a", "b"]);
    let own = ("FLEETWIRE_GANG_SIZE".to_owned(), "99".to_owned());
    let job = submit(&mut t, TaskSpec { environment: vec![own], ..gang(3) });
    assert_eq!(t.counts(job)[0], 3, "two agents are not enough");
    let words = why(&mut t, id(job, 0, 1));
    assert!(
        words.contains("on 3 agents at once: 2 of its members could be placed now, and 1 agents are missing"),
        "{words}"
    );
    t.agent("c").register();
    assert_eq!(agents_of(&mut t, job, 3), ["a", "b", "c"]);
    for (rank, agent) in ["a", "b", "c"].into_iter().enumerate() {
        assert_eq!(told(&mut t, agent), [format!("3 {rank} a.example,b.example,c.example")]);
    }
    runs_all(&mut t, job, 3, 1);
    for index in 0..3 {
        let agent = agent_of(&mut t, job, index).unwrap();
        t.agent(&agent).completes(attempt(job, index, 1));
    }
    assert_eq!(t.counts(job), [0, 0, 0, 3, 0, 0]);
}

#[test]
fn an_agent_says_where_its_tasks_are_reached_and_nonsense_is_refused() {
    let mut t = with_agents(&["a"]);
    for (address, known) in
        [("pi-1.local", Some("pi-1.local")), ("[fe80::1%eth0]", Some("[fe80::1%eth0]")), ("a,b", None)]
    {
        let register =
            fb::RegisterT { data_id: Some(vec![b'b'; 16]), address: Some(address.into()), ..fb::RegisterT::default() };
        let mut b = t.agent("b").connect();
        b = b.send(Message::Rare(fb::SchedulerMessageT::Register(Box::new(register))));
        match known {
            Some(_) => {
                assert!(b.inbox().iter().any(|it| matches!(it, Message::Rare(fb::SchedulerMessageT::Registered(_)))))
            }
            None => assert_eq!(b.nacked(), C::Validation),
        }
        let mut agents = t.scheduler.state().agents.known().map(|(_, record)| record.profile.address.clone());
        assert_eq!(agents.next_back().as_deref(), Some(known.unwrap_or("[fe80::1%eth0]")));
    }
}

#[test]
fn an_array_of_gangs_is_placed_gang_by_gang() {
    let mut t = with_agents(&["a", "b", "c"]);
    let job = submit(&mut t, large(TaskSpec { count: 4, ..gang(2) }));
    // Three agents: one gang, and half of another.
    assert_eq!(statuses(&mut t, job, 4), [S::Assigned, S::Assigned, S::Pending, S::Pending]);
    let small = t.submit(vec![task()]);
    assert_eq!(agent_of(&mut t, small, 0).as_deref(), Some("c"), "what it cannot use is not kept from others");
    runs_all(&mut t, job, 2, 1);
    for index in 0..2 {
        let agent = agent_of(&mut t, job, index).unwrap();
        t.agent(&agent).completes(attempt(job, index, 1));
    }
    assert_eq!(statuses(&mut t, job, 4)[2..], [S::Assigned, S::Assigned]);
}

#[test]
fn members_of_two_gangs_share_an_agent_and_those_of_one_do_not() {
    let mut t = with_agents(&["a", "b"]);
    let job = submit(&mut t, TaskSpec { count: 6, ..gang(2) });
    assert_eq!(t.counts(job)[1], 6);
    let agents = agents_of(&mut t, job, 6);
    assert!(agents.chunks(2).all(|pair| pair[0] != pair[1]), "{agents:?}");
}

#[test]
fn a_freed_agent_goes_to_the_gang_that_waits_before_smaller_tasks() {
    let mut t = with_agents(&["a", "b"]);
    let full = t.submit(vec![large(task())]);
    let on = agent_of(&mut t, full, 0).unwrap();
    let job = submit(&mut t, gang(2));
    let later = t.submit(vec![TaskSpec { count: 8, array: true, ..task() }]);
    assert_eq!((t.counts(job)[0], t.counts(later)[1]), (2, 4));
    t.agent(&on).completes(attempt(full, 0, 1));
    // The other agent is full by now: nothing of it is placed, and nothing kept.
    assert_eq!((t.counts(job)[0], t.counts(later)[1]), (2, 8));
    for index in 0..8 {
        let agent = agent_of(&mut t, later, index).unwrap();
        if t.counts(job)[0] > 0 {
            t.agent(&agent).completes(attempt(later, index, 1));
        }
    }
    assert_eq!(t.counts(job)[1], 2, "as soon as both have room");
}

#[test]
fn a_lost_member_restarts_all_of_them_and_that_uses_up_nothing_else() {
    let mut t = with_agents(&AGENTS);
    let job = submit(&mut t, large(TaskSpec { max_attempts: 2, ..gang(3) }));
    runs_all(&mut t, job, 3, 1);
    t.agent("a").fails(attempt(job, 0, 1));
    stops(&mut t, job, 1, 1);
    t.pass_beating(secs(5));
    let words = why(&mut t, id(job, 0, 0));
    assert!(words.contains("waits for the other members of its gang of 3: 1 of them are being stopped"), "{words}");
    // One that fails meanwhile, because the others are gone, has not used up a try either.
    let last = agent_of(&mut t, job, 2).unwrap();
    assert_eq!(t.agent(&last).cancelled(), [(attempt(job, 2, 1), R::GangLost)]);
    t.agent(&last).fails(attempt(job, 2, 1));
    t.pass_beating(secs(5));
    assert_eq!(t.counts(job)[1], 3);
    let record = |t: &T, index| t.scheduler.state().tasks[&id(job, 0, index)].clone();
    assert_eq!([0, 1, 2].map(|index| record(&t, index).failures), [1, 0, 0]);
    // The next failure of the first is its last.
    runs_all(&mut t, job, 3, 2);
    let first = agent_of(&mut t, job, 0).unwrap();
    t.agent(&first).fails(attempt(job, 0, 2));
    stops(&mut t, job, 1, 2);
    stops(&mut t, job, 2, 2);
    assert_eq!(statuses(&mut t, job, 3), [S::Failed, S::Failed, S::Failed]);
    assert!(why(&mut t, id(job, 0, 1)).contains("Failed (GangLost)"));
}

#[test]
fn a_member_whose_agent_is_not_heard_has_no_rival_and_the_gang_starts_anew_once_it_is_gone() {
    let mut t = with_agents(&AGENTS);
    let job = submit(&mut t, gang(3));
    runs_all(&mut t, job, 3, 1);
    t.agent("b").lose();
    t.pass_beating(secs(119));
    assert!(t.agent("a").cancelled().is_empty(), "it may come back");
    t.pass_beating(secs(3));
    stops(&mut t, job, 0, 1);
    assert_eq!(t.counts(job)[1..3], [0, 1]);
    stops(&mut t, job, 2, 1);
    assert_eq!(agents_of(&mut t, job, 3).len(), 3);
    assert!(!agents_of(&mut t, job, 3).contains(&"b".to_owned()));
    assert_eq!(t.scheduler.state().tasks[&id(job, 0, 1)].losses, 1);
}

#[test]
fn what_has_completed_is_not_run_again_with_the_rest() {
    let mut t = with_agents(&AGENTS);
    let job = submit(&mut t, gang(3));
    runs_all(&mut t, job, 3, 1);
    t.agent("b").completes(attempt(job, 1, 1));
    t.agent("a").fails(attempt(job, 0, 1));
    stops(&mut t, job, 2, 1);
    AGENTS.iter().for_each(|agent| _ = told(&mut t, agent));
    t.pass_beating(secs(5));
    assert_eq!(statuses(&mut t, job, 3), [S::Assigned, S::Completed, S::Assigned]);
    let first = agent_of(&mut t, job, 0).unwrap();
    let told = told(&mut t, &first);
    assert!(told[0].starts_with("3 0 ") && told[0].contains(",,"), "{told:?}");
}

#[test]
fn a_member_is_replaced_where_no_other_is_and_is_told_where_they_are() {
    let mut t = with_agents(&["a", "b", "c"]);
    let job = submit(&mut t, TaskSpec { gang_lost: OnLost::Replace, ..gang(3) });
    runs_all(&mut t, job, 3, 1);
    t.agent("b").lose();
    t.pass_beating(secs(122));
    assert_eq!(statuses(&mut t, job, 3), [S::Running, S::Pending, S::Running]);
    assert!(t.agent("a").cancelled().is_empty());
    let words = why(&mut t, id(job, 0, 1));
    assert!(words.contains("on 1 agents at once: 0 of its members could be placed now"), "{words}");
    t.agent("d").register();
    assert_eq!(agent_of(&mut t, job, 1).as_deref(), Some("d"));
    assert_eq!(told(&mut t, "d"), ["3 1 a.example,d.example,c.example"]);
    // The agent that was lost is back, and may have it next time.
    t.agent("b").register();
    t.agent("d").fails(attempt(job, 1, 2));
    t.pass_beating(secs(5));
    assert_eq!(t.counts(job)[1..3], [1, 2]);
}

#[test]
fn where_none_may_be_lost_all_of_them_fail_by_whatever_loses_one() {
    let losses: [fn(&mut T, u64); 3] = [
        |t, job| _ = t.agent("a").fails(attempt(job, 0, 1)),
        |t, job| _ = t.agent("a").ends(attempt(job, 0, 1), S::Cancelled, End { reason: R::Drained, ..End::default() }),
        |t, _| {
            t.agent("a").lose();
            t.pass_beating(secs(122));
        },
    ];
    for lose in losses {
        let mut t = with_agents(&AGENTS);
        let job = submit(&mut t, TaskSpec { gang_lost: OnLost::Fail, ..gang(2) });
        runs_all(&mut t, job, 2, 1);
        lose(&mut t, job);
        stops(&mut t, job, 1, 1);
        assert_eq!(t.counts(job)[4], 2);
        assert_eq!(t.task(id(job, 0, 1)).status, S::Failed);
    }
    let mut t = with_agents(&AGENTS);
    let job = submit(&mut t, TaskSpec { gang_lost: OnLost::Fail, ..gang(2) });
    t.agent("a").rejects(attempt(job, 0, 1));
    stops(&mut t, job, 1, 1);
    assert_eq!(statuses(&mut t, job, 2), [S::Failed, S::Failed], "also what an agent refuses");
}

#[test]
fn a_member_that_is_cancelled_ends_its_gang() {
    let mut t = with_agents(&["a", "b", "c"]);
    let job = submit(&mut t, TaskSpec { count: 6, ..gang(3) });
    let waits = submit(&mut t, large(gang(3)));
    runs_all(&mut t, job, 6, 1);
    t.cancel(job, Some(id(job, 0, 1))).unwrap();
    t.agent("b").ends(attempt(job, 1, 1), S::Cancelled, End { reason: R::Cancelled, ..End::default() });
    for index in [0, 2] {
        let agent = agent_of(&mut t, job, index).unwrap();
        assert!(t.agent(&agent).cancelled().contains(&(attempt(job, index, 1), R::GangLost)));
        t.agent(&agent).ends(attempt(job, index, 1), S::Cancelled, End { reason: R::GangLost, ..End::default() });
    }
    assert_eq!(t.counts(job), [0, 0, 3, 0, 0, 3], "the other gang goes on");
    t.cancel(waits, Some(id(waits, 0, 2))).unwrap();
    assert_eq!(t.counts(waits), [0, 0, 0, 0, 0, 3]);
}

#[test]
fn an_agent_that_refuses_a_member_makes_the_others_start_elsewhere_with_it() {
    let mut t = with_agents(&["a", "b", "c"]);
    let job = submit(&mut t, gang(2));
    t.agent("b").runs(attempt(job, 1, 1));
    t.agent("a").rejects(attempt(job, 0, 1));
    assert_eq!(t.agent("b").cancelled(), [(attempt(job, 1, 1), R::GangLost)]);
    t.agent("b").ends(attempt(job, 1, 1), S::Cancelled, End { reason: R::GangLost, ..End::default() });
    let agents = agents_of(&mut t, job, 2);
    assert!(agents.len() == 2 && !agents.contains(&"a".to_owned()), "{agents:?}");
}

#[test]
fn a_restart_finds_gangs_as_they_were() {
    let mut t = with_agents(&["a", "b", "c"]);
    let job = submit(&mut t, gang(3));
    let waits = submit(&mut t, TaskSpec { count: 8, ..gang(4) });
    runs_all(&mut t, job, 3, 1);
    t.agent("a").fails(attempt(job, 0, 1));
    assert_eq!(t.agent("b").cancelled(), [(attempt(job, 1, 1), R::GangLost)]);
    t.restart();
    ["a", "b", "c"].iter().for_each(|name| _ = t.agent(name).register());
    t.pass_beating(secs(10));
    assert_eq!(t.counts(job)[..3], [1, 0, 2], "the others have not stopped yet");
    stops(&mut t, job, 1, 1);
    // It stopped while nobody was there to hear of it.
    t.restart();
    ["a", "b"].iter().for_each(|name| _ = t.agent(name).register());
    t.agent("c").register();
    stops(&mut t, job, 2, 1);
    assert_eq!(t.counts(job)[1], 3);
    assert_eq!(t.scheduler.state().tasks[&id(job, 0, 2)].losses, 0);
    t.agent("d").register();
    assert_eq!(t.counts(waits)[1], 8);
}

#[test]
fn caps_semaphores_and_quotas_let_whole_gangs_through() {
    let mut t = with_agents(&AGENTS);
    let capped = submit(&mut t, TaskSpec { count: 9, max_running: 5, ..gang(3) });
    assert_eq!(t.counts(capped)[..2], [6, 3]);
    assert!(why(&mut t, id(capped, 0, 3)).contains("max_running"));
    let db = Semaphore { name: Name::new("db").unwrap(), max: 5, units: 1 };
    let held = submit(&mut t, TaskSpec { count: 9, semaphores: vec![db], ..gang(3) });
    assert_eq!(t.counts(held)[..2], [6, 3]);
    let words = why(&mut t, id(held, 0, 3));
    assert!(words.contains("3 of its 5 are taken, it needs 3"), "{words}");
    for index in 0..3 {
        let agent = agent_of(&mut t, held, index).unwrap();
        t.agent(&agent).completes(attempt(held, index, 1));
        let agent = agent_of(&mut t, capped, index).unwrap();
        t.agent(&agent).completes(attempt(capped, index, 1));
    }
    assert_eq!((t.counts(held)[1], t.counts(capped)[1]), (3, 3));
}

#[test]
fn a_gang_that_its_quota_held_back_starts_once_that_leaves_enough_wherever_that_became_free() {
    let mut t = with_agents(&["a"]);
    ["b", "c"].iter().for_each(|name| _ = t.agent(name).label("zone", "far").register());
    let quota = Some(Box::new(fb::QuotaT { cpu: 3_000, ..Default::default() }));
    let rule = fb::QueueRuleT { name: Some("default".into()), quota, ..Default::default() };
    let policy = fb::ClusterPolicyT { queues: Some(vec![rule]), ..Default::default() };
    let answer = t.request(|request| {
        fb::SchedulerMessageT::SetPolicy(Box::new(fb::SetPolicyT { request, policy: Some(Box::new(policy.clone())) }))
    });
    assert!(matches!(answer, Message::Ack(_)), "{answer:?}");
    let too_large = JobSpec::new(Name::new("j").unwrap(), vec![gang(4)], terms()).unwrap();
    let submit_id = t.submit_id();
    assert!(t.submit_as(submit_id, &too_large).is_err(), "no quota ever leaves enough for all four");
    let near = t.submit(vec![TaskSpec { count: 2, array: true, ..task() }]);
    let far = fleetwire_common::job::Constraint::new(Name::new("zone").unwrap(), fb::ConstraintOp::Equal, "far");
    let job = submit(&mut t, TaskSpec { constraints: vec![far], ..gang(2) });
    assert_eq!(t.counts(job)[0], 2);
    assert!(why(&mut t, id(job, 0, 0)).contains("it needs 2000 of cpu"));
    let agent = agent_of(&mut t, near, 0).unwrap();
    t.agent(&agent).completes(attempt(near, 0, 1));
    assert_eq!(t.counts(job)[1], 2);
}

#[test]
fn a_gang_that_no_agents_could_ever_run_is_refused() {
    let mut t = with_agents(&["a", "b"]);
    let terms = Terms { await_agents: false, ..terms() };
    let try_with = |t: &mut T, spec, terms| {
        let submit = t.submit_id();
        t.submit_as(submit, &JobSpec::new(Name::new("j").unwrap(), vec![spec], terms).unwrap())
    };
    assert_eq!(try_with(&mut t, gang(3), terms), Err(C::DoesNotFit));
    assert_eq!(try_with(&mut t, large(large(gang(2))), terms).map(|_| ()), Ok(()));
    assert!(try_with(&mut t, gang(3), Terms { await_agents: true, ..terms }).is_ok());
}

#[test]
fn gangs_that_wait_for_long_have_agents_reserved_one_after_the_other() {
    let mut t = with_agents(&AGENTS);
    let full = t.submit(vec![large(TaskSpec { count: 4, array: true, ..task() })]);
    // Each needs more than half of the agents; what is small keeps coming.
    let gangs = [submit(&mut t, large(gang(3))), submit(&mut t, large(gang(3)))];
    let small = t.submit(vec![TaskSpec { count: 200, array: true, ..task() }]);
    t.pass_beating(secs(31));
    let words = why(&mut t, id(gangs[0], 0, 0));
    assert!(words.contains(&format!("3 agents are reserved for the gang of {}.0.0", gangs[0])), "{words}");
    assert!(why(&mut t, id(gangs[1], 0, 0)).contains(&format!("for the gang of {}.0.0", gangs[0])));
    let live = t.scheduler.live();
    assert_eq!((live.index.reserved.count(), live.index.reserved.iter().count()), (1, 3));
    for index in 0..4 {
        let agent = agent_of(&mut t, full, index).unwrap();
        t.agent(&agent).completes(attempt(full, index, 1));
    }
    assert_eq!(agents_of(&mut t, gangs[0], 3).len(), 3);
    assert_eq!(t.counts(small)[1], 4, "one agent is left to everybody");
    t.pass_beating(secs(31));
    assert!(why(&mut t, id(gangs[1], 0, 0)).contains(&format!("for the gang of {}.0.0", gangs[1])), "its turn");
    for index in 0..3 {
        let agent = agent_of(&mut t, gangs[0], index).unwrap();
        t.agent(&agent).completes(attempt(gangs[0], index, 1));
    }
    assert_eq!(agents_of(&mut t, gangs[1], 3).len(), 3);
}

#[test]
fn a_more_urgent_gang_takes_over_what_was_reserved_for_another() {
    let mut t = with_agents(&AGENTS);
    t.submit(vec![large(TaskSpec { count: 4, array: true, ..task() })]);
    let first = submit(&mut t, large(gang(3)));
    t.pass_beating(secs(31));
    assert!(why(&mut t, id(first, 0, 0)).contains("3 agents are reserved"));
    let urgent = submit(&mut t, large(TaskSpec { priority: 1, ..gang(4) }));
    t.pass_beating(secs(62));
    assert!(why(&mut t, id(urgent, 0, 0)).contains("4 agents are reserved"));
    assert!(!why(&mut t, id(first, 0, 0)).contains("reserved"));
    // It can never have all: then none is kept for it.
    t.agent("d").lose();
    t.pass_beating(secs(62));
    assert!(!why(&mut t, id(urgent, 0, 0)).contains("reserved"));
    assert!(why(&mut t, id(first, 0, 0)).contains("3 agents are reserved"));
}

#[test]
fn a_less_urgent_gang_leaves_to_another_what_is_reserved_for_that() {
    let mut t = with_agents(&AGENTS);
    t.submit(vec![large(TaskSpec { count: 4, array: true, ..task() })]);
    let urgent = submit(&mut t, large(TaskSpec { priority: 1, ..gang(2) }));
    t.pass_beating(secs(31));
    assert!(why(&mut t, id(urgent, 0, 0)).contains("2 agents are reserved"));
    // There are two more that it could have.
    let other = submit(&mut t, large(gang(2)));
    for _ in 0..4 {
        t.pass_beating(secs(31));
        assert!(why(&mut t, id(urgent, 0, 0)).contains("2 agents are reserved"));
        assert!(!why(&mut t, id(other, 0, 0)).contains("reserved"));
    }
}

#[test]
fn nobody_of_a_gang_makes_way_and_for_a_gang_nobody_does() {
    let mut t = with_agents(&["a", "b"]);
    let job = submit(&mut t, large(gang(2)));
    runs_all(&mut t, job, 2, 1);
    t.submit(vec![large(TaskSpec { priority: 50, ..task() })]);
    t.pass_beating(secs(60));
    assert!(t.agent("a").cancelled().is_empty() && t.agent("b").cancelled().is_empty());
    let mut t = with_agents(&["a", "b"]);
    let low = t.submit(vec![large(TaskSpec { count: 2, array: true, ..task() })]);
    runs_all(&mut t, low, 2, 1);
    submit(&mut t, large(TaskSpec { priority: 50, ..gang(2) }));
    t.pass_beating(secs(60));
    assert!(t.agent("a").cancelled().is_empty() && t.agent("b").cancelled().is_empty());
}

#[test]
fn members_that_come_after_others_one_by_one_wait_for_the_last_of_them() {
    let mut t = with_agents(&["a", "b"]);
    let name = |text| Name::new(text).unwrap();
    let before = TaskSpec { name: name("before"), count: 2, array: true, ..task() };
    let after = fleetwire_common::job::Dependency {
        task: name("before"),
        on: fb::DependencyOn::Success,
        each: true,
        input: String::new(),
    };
    for fails in [false, true] {
        let gang = TaskSpec { after: vec![after.clone()], ..gang(2) };
        let terms = Terms { await_agents: true, ..terms() };
        let spec = JobSpec::new(name("j"), vec![before.clone(), gang], terms).unwrap();
        let submit = t.submit_id();
        let job = t.submit_as(submit, &spec).unwrap().0;
        let on = |t: &mut T, index| t.task(id(job, 0, index)).agent.unwrap();
        let agent = on(&mut t, 0);
        t.agent(&agent).completes(attempt(job, 0, 1));
        assert_eq!(t.task(id(job, 1, 0)).status, S::Pending);
        assert!(why(&mut t, id(job, 1, 0)).contains("1 may not start yet"));
        let agent = on(&mut t, 1);
        if fails {
            t.agent(&agent).fails(attempt(job, 1, 1));
            assert_eq!([0, 1].map(|index| t.task(id(job, 1, index)).status), [S::Cancelled, S::Skipped]);
        } else {
            t.agent(&agent).completes(attempt(job, 1, 1));
            assert_eq!([0, 1].map(|index| t.task(id(job, 1, index)).status), [S::Assigned, S::Assigned]);
        }
    }
}
