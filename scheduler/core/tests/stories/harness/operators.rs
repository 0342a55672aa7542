//! What operators and clients of a story ask for.

use super::{T, job};
use fleetwire_common::{
    fb,
    ids::{Name, SubmitId, TaskId},
    job::{JobSpec, TaskSpec, Terms},
    message::{Ack, Message},
};
use fleetwire_scheduler_core::limits::PLAN_COST;

impl T {
    pub fn request(&mut self, message: impl FnOnce(u64) -> fb::SchedulerMessageT) -> Message {
        let session = self.peers.keys().copied().find(|id| self.peers[id].agent.is_none());
        let session = session.unwrap_or_else(|| self.operator());
        self.requests += 1;
        self.inbox(session);
        self.send(session, Message::Rare(message(self.requests)));
        self.inbox(session).pop().expect("an answer")
    }

    pub fn submit_id(&mut self) -> SubmitId {
        self.requests += 1;
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.requests.to_be_bytes());
        SubmitId::new(self.now.as_ms(), random)
    }

    pub fn submit_as(&mut self, submit: SubmitId, job: &JobSpec) -> Result<(u64, bool), fb::ErrorCode> {
        let bytes = job.to_wire();
        // Of many the first are enough.
        let (state, may_ask) = (self.scheduler.state(), self.config.policy.messages_burst >= PLAN_COST);
        let is_asked = may_ask && state.jobs.len() < 100 && !state.submits.contains_key(&submit);
        let planned = is_asked.then(|| self.plan(bytes.clone()).refused.map(|nack| nack.code));
        let answer = self.request(|request| {
            fb::SchedulerMessageT::SubmitJob(Box::new(fb::SubmitJobT {
                request,
                submit_id: Some(submit.0.to_vec()),
                job: Some(bytes),
            }))
        });
        match answer {
            Message::Rare(fb::SchedulerMessageT::JobSubmitted(done)) => {
                assert_eq!(planned.flatten(), None, "what is taken would have been refused");
                Ok((done.job, done.repeated))
            }
            Message::Rare(fb::SchedulerMessageT::Nack(nack)) => {
                // Of its submit id a plan knows nothing.
                let of_its_id =
                    nack.code == fb::ErrorCode::TooOld || nack.message.iter().any(|it| it.contains("submit_id"));
                assert!(
                    of_its_id || planned.is_none_or(|it| it == Some(nack.code)),
                    "{nack:?} was planned as {planned:?}"
                );
                Err(nack.code)
            }
            other => panic!("{other:?}"),
        }
    }

    /// What would become of a job; somebody else asks, and nothing changes by it.
    pub fn plan(&mut self, job: Vec<u8>) -> fb::PlanT {
        let (session, facts) = (self.connect(fb::Role::Operator, "planner"), self.facts.len());
        let plan = fb::PlanJobT { request: 1, job: Some(job) };
        self.send(session, Message::Rare(fb::SchedulerMessageT::PlanJob(Box::new(plan))));
        let answer = self.inbox(session).pop();
        assert_eq!(self.facts.len(), facts, "a plan decides nothing");
        self.disconnect(session);
        match answer {
            Some(Message::Rare(fb::SchedulerMessageT::Page(page))) => *page.plan.expect("a plan"),
            other => panic!("{other:?}"),
        }
    }

    pub fn submit(&mut self, tasks: Vec<TaskSpec>) -> u64 {
        let submit = self.submit_id();
        self.submit_as(submit, &job(tasks)).unwrap().0
    }

    pub fn submit_with(&mut self, task: TaskSpec, terms: Terms) -> Result<u64, fb::ErrorCode> {
        let submit = self.submit_id();
        let terms = Terms { await_agents: true, ..terms };
        let job = JobSpec::new(Name::new("j").unwrap(), vec![task], terms).unwrap();
        self.submit_as(submit, &job).map(|(job, _)| job)
    }

    pub fn cancel(&mut self, job: u64, task: Option<TaskId>) -> Result<(), fb::ErrorCode> {
        let task_id = task.map(|task| task.to_string());
        let answer = self.request(|request| {
            fb::SchedulerMessageT::CancelWork(Box::new(fb::CancelWorkT { request, job, task_id, agent: None }))
        });
        match answer {
            Message::Ack(Ack::Request(_)) => Ok(()),
            Message::Rare(fb::SchedulerMessageT::Nack(nack)) => Err(nack.code),
            other => panic!("{other:?}"),
        }
    }

    pub fn query(&mut self, mut query: fb::QueryT) -> Result<fb::PageT, fb::ErrorCode> {
        if query.limit == 0 {
            query.limit = 100;
        }
        let answer = self.request(|request| fb::SchedulerMessageT::Query(Box::new(fb::QueryT { request, ..query })));
        match answer {
            Message::Rare(fb::SchedulerMessageT::Page(page)) => Ok(*page),
            Message::Rare(fb::SchedulerMessageT::Nack(nack)) => Err(nack.code),
            other => panic!("{other:?}"),
        }
    }

    pub fn task(&mut self, task: TaskId) -> fb::TaskSummaryT {
        let query = fb::QueryT { kind: fb::QueryKind::Task, task_id: Some(task.to_string()), ..fb::QueryT::default() };
        self.query(query).unwrap().tasks.unwrap().remove(0)
    }

    pub fn job(&mut self, job: u64) -> fb::JobSummaryT {
        let query = fb::QueryT { kind: fb::QueryKind::Job, job, ..fb::QueryT::default() };
        self.query(query).unwrap().jobs.unwrap().remove(0)
    }

    /// pending, assigned, running, completed, failed, cancelled
    pub fn counts(&mut self, job: u64) -> [u32; 6] {
        let counts = self.job(job).counts.unwrap();
        [counts.pending, counts.assigned, counts.running, counts.completed, counts.failed, counts.cancelled]
    }
}
