//! Jobs that no agent could ever run: refused at once, with what is the nearest to them.

use crate::harness::*;
use fleetwire_common::{
    custom::Custom,
    fb::{self, ConstraintOp as Op, ErrorCode as C},
    ids::Name,
    job::{Constraint, JobSpec, TaskSpec, Terms},
    message::Message,
    resources::Resources,
};

fn spec(tasks: Vec<TaskSpec>, await_agents: bool) -> JobSpec {
    JobSpec::new(Name::new("j").unwrap(), tasks, Terms { await_agents, ..Terms::default() }).unwrap()
}

/// What a submit of that task is refused with; empty if it is not.
fn refused(t: &mut T, task: TaskSpec) -> String {
    let (submit, job) = (t.submit_id(), spec(vec![task], false).to_wire());
    let answer = t.request(|request| {
        let (submit_id, job) = (Some(submit.0.to_vec()), Some(job));
        fb::SchedulerMessageT::SubmitJob(Box::new(fb::SubmitJobT { request, submit_id, job }))
    });
    match answer {
        Message::Rare(fb::SchedulerMessageT::JobSubmitted(_)) => String::new(),
        Message::Rare(fb::SchedulerMessageT::Nack(nack)) => {
            assert_eq!((nack.code, nack.retriable), (C::DoesNotFit, false));
            nack.message.unwrap()
        }
        other => panic!("{other:?}"),
    }
}

fn wants(cpu: u32, memory: u32) -> TaskSpec {
    TaskSpec { resources: Resources { cpu, memory, ..Resources::ZERO }, ..task() }
}

fn zone(zone: &str) -> Vec<Constraint> {
    vec![Constraint::new(Name::new("zone").unwrap(), Op::Equal, zone)]
}

#[test]
fn what_is_larger_than_every_agent_is_refused_with_the_nearest_request() {
    let mut t = T::new();
    assert_eq!(refused(&mut t, wants(64_000, 1)), "", "no agent is known yet");
    let room = |cpu, memory| Resources { cpu, memory, ..Resources::ZERO };
    t.agent("a").capacity(room(32_000, 100)).label("zone", "eu").register();
    t.agent("b").capacity(room(8_000, 4_000)).label("zone", "eu").register();
    t.agent("c").capacity(room(64_000, 8_000)).label("zone", "us").register();
    let eu = |cpu, memory| TaskSpec { constraints: zone("eu"), ..wants(cpu, memory) };
    let job = t.scheduler.state().last_job;
    assert_eq!(
        refused(&mut t, eu(64_000, 100)),
        "no agent could ever run task `task`: of 3 that are known, the nearest of 2 that suit it otherwise is `a`, for cpu of \
         32000 millicores at most; ask for no more, or let the job wait for agents that are to come (await_agents)"
    );
    // Two that are large enough each in its own way are not one that is.
    assert!(refused(&mut t, eu(16_000, 4_000)).contains("is `b`, for cpu of 8000 millicores at most;"));
    assert!(
        refused(&mut t, eu(64_000, 4_400))
            .contains("is `b`, for cpu of 8000 millicores at most and memory of 4000 MB at most;")
    );
    assert_eq!(t.scheduler.state().last_job, job, "nothing was taken");
    assert_eq!(refused(&mut t, eu(32_000, 100)), "");
    assert_eq!(refused(&mut t, wants(64_000, 8_000)), "");
    // What is busy, away or cordoned could run it.
    t.agent("c").lose();
    assert_eq!(refused(&mut t, wants(64_000, 8_000)), "");
}

#[test]
fn what_suits_no_agent_is_refused_with_what_they_lack() {
    let mut t = T::new();
    t.agent("a").label("zone", "eu").kind(fb::AgentType::Trainer).register();
    t.agent("b").label("zone", "us").custom("fpga", 2).register();
    let asia = TaskSpec { constraints: zone("asia"), ..task() };
    assert!(refused(&mut t, asia).contains("of 2 that are known, 2 of them: its label `zone` is not `asia`;"));
    let rater = TaskSpec { agent_type: Some(fb::AgentType::Rater), ..task() };
    assert!(refused(&mut t, rater).contains("2 of them: it is not of kind rater;"));
    let fpgas = TaskSpec { custom: Custom::new([("fpga", 4)]).unwrap(), ..task() };
    assert!(refused(&mut t, fpgas).contains("is `b`, for fpga of 2 at most;"));
}

#[test]
fn a_job_may_wait_for_agents_to_come_and_one_bad_task_refuses_all_of_it() {
    let mut t = T::new();
    t.agent("a").register();
    let tasks = || vec![task(), TaskSpec { name: Name::new("large").unwrap(), ..wants(64_000, 1) }];
    let submit = t.submit_id();
    assert_eq!(t.submit_as(submit, &spec(tasks(), false)), Err(C::DoesNotFit));
    let (job, repeated) = t.submit_as(submit, &spec(tasks(), true)).unwrap();
    assert!(!repeated, "what was refused was not taken");
    assert_eq!(t.counts(job)[..2], [1, 1]);
    t.agent("b").capacity(Resources { cpu: 64_000, ..small() }).register();
    assert_eq!(t.counts(job)[1], 2);
}
