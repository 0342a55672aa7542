//! The agents of a story: what they hold by their own books, and what they send.

use super::T;
use fleetwire_common::{
    custom::Custom,
    envelope::handshake::Proof,
    fb,
    ids::{AttemptId, JobKey, SessionId},
    message::{Ack, End, Message, Status},
    resources::Resources,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What an agent has, as its own messages and those to it say.
#[derive(Clone)]
pub struct AgentModel {
    pub session: Option<SessionId>,
    pub capacity: Resources,
    pub labels: Vec<(String, String)>,
    pub custom: Custom,
    pub kinds: Vec<fb::AgentType>,
    pub data_id: [u8; 16],
    pub holds: BTreeMap<AttemptId, (Resources, fb::TaskStatus)>,
    /// Which job each of them is of.
    pub keys: BTreeMap<AttemptId, JobKey>,
    /// Of all that it lists.
    pub progress: f32,
    /// What it returns in its `Hello`.
    pub proof: Option<Proof>,
    /// How many assignments it takes that have to wait for room,
    pub backlog: u32,
    /// and those that do, in their order.
    pub waits: VecDeque<AttemptId>,
}

impl AgentModel {
    /// What runs takes together.
    pub(super) fn used(&self) -> Resources {
        let runs = self.holds.iter().filter(|(attempt, _)| !self.waits.contains(attempt));
        runs.fold(Resources::ZERO, |sum, (_, (amount, _))| sum.plus(*amount))
    }

    pub(super) fn take_on(&mut self, attempt: AttemptId, key: JobKey, resources: Resources) {
        if self.holds.contains_key(&attempt) {
            assert_eq!(self.keys.insert(attempt, key), Some(key), "another job's attempt of that number is here");
            return;
        }
        self.keys.insert(attempt, key);
        let waits = !self.waits.is_empty() || !resources.fits(self.capacity.minus(self.used()));
        if self.backlog > 0 && waits {
            self.waits.push_back(attempt);
            assert!(self.waits.len() <= self.backlog as usize, "more ahead than it takes");
        }
        self.holds.insert(attempt, (resources, fb::TaskStatus::Assigned));
    }

    fn drop_hold(&mut self, attempt: AttemptId) {
        self.holds.remove(&attempt);
        self.waits.retain(|waiting| *waiting != attempt);
        while let Some(next) = self.waits.front()
            && self.holds.get(next).is_some_and(|(amount, _)| amount.fits(self.capacity.minus(self.used())))
        {
            self.waits.pop_front();
        }
    }
}

impl T {
    pub fn agent(&mut self, name: &str) -> AgentHand<'_> {
        let capacity = Resources { cpu: 4_000, memory: 1_000, gpu: 0, storage: 0 };
        let mut data_id = [0; 16];
        data_id[0] = name.as_bytes()[0];
        self.agents.entry(name.to_owned()).or_insert(AgentModel {
            session: None,
            capacity,
            labels: Vec::new(),
            custom: Custom::default(),
            kinds: Vec::new(),
            data_id,
            holds: BTreeMap::new(),
            keys: BTreeMap::new(),
            backlog: 0,
            waits: VecDeque::new(),
            progress: 0.0,
            proof: None,
        });
        AgentHand { t: self, name: name.to_owned() }
    }
}

pub struct AgentHand<'t> {
    t: &'t mut T,
    name: String,
}

impl AgentHand<'_> {
    pub fn model(&mut self) -> &mut AgentModel {
        self.t.agents.get_mut(&self.name).unwrap()
    }

    pub fn session(&mut self) -> SessionId {
        self.model().session.expect("connected")
    }

    pub fn capacity(mut self, capacity: Resources) -> Self {
        self.model().capacity = capacity;
        self
    }

    pub fn custom(mut self, name: &str, amount: u64) -> Self {
        self.model().custom = Custom::new([(name, amount)]).unwrap();
        self
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.model().labels.push((key.into(), value.into()));
        self
    }

    pub fn kind(mut self, kind: fb::AgentType) -> Self {
        self.model().kinds.push(kind);
        self
    }

    pub fn backlog(mut self, backlog: u32) -> Self {
        self.model().backlog = backlog;
        self
    }

    /// Attempts that were asked back since the last look.
    pub fn recalled(&mut self) -> Vec<AttemptId> {
        let recalled = |message| match message {
            Message::Recall(attempt) => Some(attempt),
            _ => None,
        };
        self.inbox().into_iter().filter_map(recalled).collect()
    }

    /// Gives an attempt back that it has not started.
    pub fn releases(self, attempt: AttemptId) -> Self {
        let end = End { reason: fb::EndReason::Released, ..End::default() };
        self.ends(attempt, fb::TaskStatus::Cancelled, end)
    }

    pub fn connect(mut self) -> Self {
        let name = self.name.clone();
        let session = self.t.connect(fb::Role::Agent, &name);
        self.model().session = Some(session);
        self
    }

    /// Connects if it must, and registers with everything that it holds.
    pub fn register(mut self) -> Self {
        if self.model().session.is_none() {
            self = self.connect();
        }
        let model = self.model().clone();
        let report = |(attempt, (resources, status)): (&AttemptId, &(Resources, fb::TaskStatus))| fb::AttemptReportT {
            task_id: Some(attempt.task.to_string()),
            attempt: attempt.attempt,
            status: *status,
            resources: Some(Box::new(resources.to_wire())),
            waits: model.waits.contains(attempt),
            progress: model.progress,
            job_key: model.keys.get(attempt).map_or(0, |key| key.0),
        };
        let register = fb::RegisterT {
            capacity: Some(Box::new(model.capacity.to_wire_with(&model.custom))),
            labels: Some(fleetwire_common::job::key_values(&model.labels)),
            agent_types: Some(model.kinds.clone()),
            executors: Some(vec![fb::Executor::Process, fb::Executor::Noop]),
            data_id: Some(model.data_id.to_vec()),
            attempts: Some(model.holds.iter().map(report).collect()),
            software: Some("t".into()),
            host: Some(self.name.clone()),
            backlog: model.backlog,
            address: None,
        };
        self.send(Message::Rare(fb::SchedulerMessageT::Register(Box::new(register))))
    }

    pub fn send(mut self, message: Message) -> Self {
        let session = self.session();
        self.t.send(session, message);
        self
    }

    pub fn lose(mut self) -> Self {
        let session = self.session();
        self.t.disconnect(session);
        self
    }

    pub fn inbox(&mut self) -> Vec<Message> {
        let session = self.session();
        self.t.inbox(session)
    }

    pub fn holds(&mut self) -> BTreeSet<AttemptId> {
        self.model().holds.keys().copied().collect()
    }

    /// Assignments that came since the last look.
    pub fn assigned(&mut self) -> Vec<AttemptId> {
        let assigned = |message| match message {
            Message::Assignment(assignment) => Some(assignment.attempt),
            _ => None,
        };
        self.inbox().into_iter().filter_map(assigned).collect()
    }

    /// The deadlines of the assignments that came since the last look.
    pub fn deadlines(&mut self) -> Vec<u64> {
        let deadline = |message| match message {
            Message::Assignment(assignment) => Some(assignment.deadline_ms),
            _ => None,
        };
        self.inbox().into_iter().filter_map(deadline).collect()
    }

    /// What the latest `Registered` since the last look says of that attempt.
    pub fn verdict(&mut self, attempt: AttemptId) -> fb::AttemptVerdict {
        let registered = self.inbox().into_iter().rev().find_map(|message| match message {
            Message::Rare(fb::SchedulerMessageT::Registered(registered)) => Some(registered),
            _ => None,
        });
        let answers = registered.expect("a Registered").answers.unwrap();
        let of = |answer: &&fb::AttemptAnswerT| {
            answer.task_id == Some(attempt.task.to_string()) && answer.attempt == attempt.attempt
        };
        answers.iter().find(of).expect("an answer").verdict
    }

    /// The code of the only Nack that came since the last look.
    pub fn nacked(&mut self) -> fb::ErrorCode {
        let nacks: Vec<_> = self
            .inbox()
            .into_iter()
            .filter_map(|message| match message {
                Message::Rare(fb::SchedulerMessageT::Nack(nack)) => Some(nack.code),
                _ => None,
            })
            .collect();
        assert_eq!(nacks.len(), 1, "{nacks:?}");
        nacks[0]
    }

    pub fn cancelled(&mut self) -> Vec<(AttemptId, fb::EndReason)> {
        let cancelled = |message| match message {
            Message::Cancellation(attempt, reason) => Some((attempt, reason)),
            _ => None,
        };
        self.inbox().into_iter().filter_map(cancelled).collect()
    }

    pub fn accepts(self, attempt: AttemptId) -> Self {
        self.send(Message::Acceptance(attempt))
    }

    pub fn rejects(mut self, attempt: AttemptId) -> Self {
        self.model().drop_hold(attempt);
        self.send(Message::Rare(fb::SchedulerMessageT::TaskRejection(Box::new(fb::TaskRejectionT {
            task_id: Some(attempt.task.to_string()),
            attempt: attempt.attempt,
            code: fb::ErrorCode::DoesNotFit,
            message: Some("no".into()),
        }))))
    }

    pub fn reports(mut self, attempt: AttemptId, status: fb::TaskStatus, progress: f32) -> Self {
        if let Some(held) = self.model().holds.get_mut(&attempt) {
            held.1 = status;
        }
        self.send(Message::Status(Status {
            attempt,
            status,
            progress,
            note: String::new(),
            metrics: Vec::new(),
            end: None,
            job_key: JobKey::default(),
        }))
    }

    pub fn runs(self, attempt: AttemptId) -> Self {
        self.reports(attempt, fb::TaskStatus::Running, 0.0)
    }

    pub fn ends(mut self, attempt: AttemptId, status: fb::TaskStatus, end: End) -> Self {
        self.model().drop_hold(attempt);
        let job_key = self.model().keys.get(&attempt).copied().unwrap_or_default();
        self.send(Message::Status(Status {
            attempt,
            status,
            progress: 1.0,
            note: String::new(),
            metrics: vec![("loss".into(), 0.5)],
            end: Some(Box::new(end)),
            job_key,
        }))
    }

    pub fn completes(self, attempt: AttemptId) -> Self {
        self.ends(attempt, fb::TaskStatus::Completed, End::default())
    }

    pub fn fails(self, attempt: AttemptId) -> Self {
        self.ends(attempt, fb::TaskStatus::Failed, End { exit_code: 1, ..End::default() })
    }

    /// Whether a final status of that attempt was acknowledged since the last look.
    pub fn acked(&mut self, attempt: AttemptId) -> bool {
        self.inbox().iter().any(|message| matches!(message, Message::Ack(Ack::Final(id)) if *id == attempt))
    }
}
