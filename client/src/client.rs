//! [`Client`]: what an operator or a viewer may ask of a cluster, as async functions.

use crate::{
    error::ClientError,
    jobfile::Recurs,
    plans::PlanView,
    schedules::ScheduleView,
    session::{Call, Session},
    transport::Transport,
    views::{AgentView, ClusterView, ExplanationView, JobView, LogView, Page, PolicyView, TaskView},
};
use fleetwire_common::{
    fb,
    ids::{JobId, SubmitId, TaskId},
    job::JobSpec,
    labels::{self, Texts},
    limits::{LOG_CHUNK_BYTES_MAX, PAGE_ROWS_MAX, QUERY_WAIT_MS_MAX},
    policy::ClusterPolicy,
};
use fleetwire_link::Identity;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};

/// A connection to a cluster under one identity. Cheap to clone; all clones share one session, which
/// is opened again when it is lost.
#[derive(Clone, Debug)]
pub struct Client {
    calls: mpsc::Sender<Call>,
    patience: Duration,
}

/// What became of a submit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The job's number.
    pub job: JobId,
    /// It was accepted before, under the same submit id.
    pub repeated: bool,
}

/// What a cancel or an explanation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A whole job.
    Job(JobId),
    /// One task.
    Task(TaskId),
}

/// Which of a task's two outputs.
pub use fleetwire_common::fb::LogStream;

impl Client {
    /// Opens the first session; what goes wrong with it is told at once. Later ones are opened as needed,
    /// and a request waits for them up to the client's patience.
    pub async fn connect(identity: Identity) -> Result<Client, ClientError> {
        let mut transport = Transport::new(identity);
        let started = tokio::time::Instant::now();
        while let Err(failure) = transport.connect().await {
            if !failure.retriable || started.elapsed() + failure.wait > FIRST_CONNECT {
                return Err(failure.error);
            }
            tokio::time::sleep(failure.wait).await;
        }
        let (calls, receiver) = mpsc::channel(CALLS_MAX);
        tokio::spawn(Session::new(transport, receiver).run());
        Ok(Client { calls, patience: PATIENCE })
    }

    /// The same client, which waits that long for an answer (30 s otherwise).
    pub fn with_patience(self, patience: Duration) -> Client {
        Client { patience, ..self }
    }

    /// Submits a job. However often the connection is lost on the way, it is accepted once.
    pub async fn submit(&self, job: &JobSpec) -> Result<Submitted, ClientError> {
        self.submit_as(new_submit_id()?, job).await
    }

    /// Submits a job under an id that the caller keeps, so that it may be submitted again after a crash
    /// of the caller: the same id and the same job are the same submit.
    pub async fn submit_as(&self, id: SubmitId, job: &JobSpec) -> Result<Submitted, ClientError> {
        let message = fb::SubmitJobT { request: 0, submit_id: Some(id.0.to_vec()), job: Some(job.to_wire()) };
        match self.call(fb::SchedulerMessageT::SubmitJob(Box::new(message)), true).await? {
            fb::SchedulerMessageT::JobSubmitted(done) => {
                Ok(Submitted { job: JobId(done.job), repeated: done.repeated })
            }
            other => Err(unexpected("JobSubmitted", &other)),
        }
    }

    /// What would become of a job, were it submitted now. Nothing is.
    pub async fn plan(&self, job: &JobSpec) -> Result<PlanView, ClientError> {
        let message = fb::PlanJobT { request: 0, job: Some(job.to_wire()) };
        match self.call(fb::SchedulerMessageT::PlanJob(Box::new(message)), true).await? {
            fb::SchedulerMessageT::Page(page) => {
                page.plan.map(|plan| PlanView::from(*plan)).ok_or_else(|| missing("plan in the answer"))
            }
            other => Err(unexpected("Page", &other)),
        }
    }

    /// Stops a job or a task. Returns once that is durable; what runs has its grace to end.
    pub async fn cancel(&self, work: Work) -> Result<(), ClientError> {
        let (job, task_id) = match work {
            Work::Job(job) => (job.0, None),
            Work::Task(task) => (task.job.0, Some(task.to_string())),
        };
        let message = fb::CancelWorkT { request: 0, job, task_id, agent: None };
        self.command(fb::SchedulerMessageT::CancelWork(Box::new(message)), true).await
    }

    /// Forgets an agent that is not expected back: what it was assigned ends there, its capacity counts no more.
    /// Should it return it registers anew.
    pub async fn forget_agent(&self, name: &str) -> Result<(), ClientError> {
        let message = fb::CancelWorkT { agent: Some(name.to_owned()), ..fb::CancelWorkT::default() };
        self.command(fb::SchedulerMessageT::CancelWork(Box::new(message)), false).await
    }

    /// Says what becomes of an agent: that it gets no work, that it lets go of what it has (after `within`, what
    /// still runs there is stopped; `None` = it may run to its end), or that it works again.
    pub async fn change_agent(
        &self,
        name: &str,
        action: fb::AgentAction,
        within: Option<Duration>,
        reason: &str,
    ) -> Result<(), ClientError> {
        let message = fb::ChangeAgentT {
            request: 0,
            agent: Some(name.to_owned()),
            action,
            within_ms: within.map_or(0, |within| u64::try_from(within.as_millis()).unwrap_or(u64::MAX)),
            reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
        };
        self.command(fb::SchedulerMessageT::ChangeAgent(Box::new(message)), true).await
    }

    /// Sets the policy by which work is placed; returns once that is durable.
    pub async fn set_policy(&self, policy: &ClusterPolicy) -> Result<(), ClientError> {
        let message = fb::SetPolicyT { request: 0, policy: Some(Box::new(policy.to_wire())) };
        self.command(fb::SchedulerMessageT::SetPolicy(Box::new(message)), true).await
    }

    /// The policy by which work is placed, and what each queue has.
    pub async fn policy(&self) -> Result<PolicyView, ClientError> {
        let page = self.query(fb::QueryT { kind: fb::QueryKind::Policy, ..Default::default() }).await?;
        page.policy.map(|policy| PolicyView::from(*policy)).ok_or_else(|| missing("policy in the answer"))
    }

    /// Sets a schedule, or another one in place of that of its name; returns once that is durable.
    pub async fn set_schedule(&self, job: &JobSpec, recurs: &Recurs) -> Result<(), ClientError> {
        let Recurs { cron, time_zone, overlap, catch_up } = recurs;
        let schedule = fb::ScheduleT {
            name: Some(job.name.to_string()),
            cron: Some(cron.clone()),
            time_zone: time_zone.clone(),
            overlap: *overlap,
            catch_up_ms: u64::try_from(catch_up.as_millis()).unwrap_or(u64::MAX),
            job: Some(job.to_wire()),
        };
        let message = fb::SetScheduleT { request: 0, schedule: Some(Box::new(schedule)) };
        self.command(fb::SchedulerMessageT::SetSchedule(Box::new(message)), true).await
    }

    /// Has a schedule rest, go on, or be no more.
    pub async fn change_schedule(&self, name: &str, action: fb::ScheduleAction) -> Result<(), ClientError> {
        let message = fb::ChangeScheduleT { request: 0, name: Some(name.to_owned()), action };
        // Who removes twice is told that there is none.
        let repeatable = action != fb::ScheduleAction::Remove;
        self.command(fb::SchedulerMessageT::ChangeSchedule(Box::new(message)), repeatable).await
    }

    /// All schedules.
    pub async fn schedules(&self) -> Result<Vec<ScheduleView>, ClientError> {
        let (mut all, mut cursor) = (Vec::new(), 0);
        loop {
            let query =
                fb::QueryT { kind: fb::QueryKind::Schedules, cursor, limit: PAGE_ROWS_MAX, ..Default::default() };
            let page = self.query(query).await?;
            all.extend(page.schedules.into_iter().flatten().map(ScheduleView::from));
            if page.cursor <= cursor {
                return Ok(all);
            }
            cursor = page.cursor;
        }
    }

    /// Makes a join token; returns its one-line form.
    pub async fn create_token(&self, role: fb::Role, uses: u32, expires: Duration) -> Result<String, ClientError> {
        let message = fb::CreateTokenT { request: 0, role, uses, expires_s: expires.as_secs() };
        match self.call(fb::SchedulerMessageT::CreateToken(Box::new(message)), false).await? {
            fb::SchedulerMessageT::TokenCreated(done) => Ok(done.token.unwrap_or_default()),
            other => Err(unexpected("TokenCreated", &other)),
        }
    }

    /// The cluster at a glance.
    pub async fn cluster(&self) -> Result<ClusterView, ClientError> {
        let page = self.query(fb::QueryT { kind: fb::QueryKind::Cluster, ..Default::default() }).await?;
        page.cluster.map(|cluster| ClusterView::from(*cluster)).ok_or_else(|| missing("cluster in the answer"))
    }

    /// What the scheduler has counted since it was started, in Prometheus's text format.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let page = self.query(fb::QueryT { kind: fb::QueryKind::Metrics, ..Default::default() }).await?;
        page.metrics.ok_or_else(|| missing("metrics in the answer"))
    }

    /// One page of jobs, the newest last. `cursor` is 0 or what the page before said.
    pub async fn jobs(&self, cursor: u64, limit: u32, labels: &Texts) -> Result<Page<JobView>, ClientError> {
        self.jobs_of(None, cursor, limit, labels).await
    }

    /// The same, of one queue only.
    pub async fn jobs_of(
        &self,
        queue: Option<&str>,
        cursor: u64,
        limit: u32,
        labels: &Texts,
    ) -> Result<Page<JobView>, ClientError> {
        let (labels, queue) = (labels::to_wire(labels), queue.map(str::to_owned));
        let query = fb::QueryT { kind: fb::QueryKind::Jobs, cursor, limit, labels, queue, ..Default::default() };
        let page = self.query(query).await?;
        Ok(Page { cursor: page.cursor, rows: rows(page.jobs) })
    }

    /// One job.
    pub async fn job(&self, job: JobId) -> Result<JobView, ClientError> {
        self.job_after(job, 0, Duration::ZERO).await
    }

    /// One job, as soon as its version differs from `version`, or after `wait` (at most 30 s).
    pub async fn job_after(&self, job: JobId, version: u64, wait: Duration) -> Result<JobView, ClientError> {
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(QUERY_WAIT_MS_MAX).min(QUERY_WAIT_MS_MAX);
        let query = fb::QueryT { kind: fb::QueryKind::Job, job: job.0, version, wait_ms, ..Default::default() };
        let page = self.query(query).await?;
        let first = page.jobs.unwrap_or_default().into_iter().next();
        first.map(JobView::from).ok_or_else(|| missing(&format!("job {job}")))
    }

    /// Follows a job until all its tasks ended; `on_change` sees every version that came in between.
    pub async fn watch(&self, job: JobId, mut on_change: impl FnMut(&JobView)) -> Result<JobView, ClientError> {
        let mut view = self.job(job).await?;
        loop {
            on_change(&view);
            if view.has_ended() {
                return Ok(view);
            }
            view = self.job_after(job, view.version, WATCH_WAIT).await?;
        }
    }

    /// One page of a job's tasks.
    pub async fn tasks(&self, job: JobId, cursor: u64, limit: u32) -> Result<Page<TaskView>, ClientError> {
        let query = fb::QueryT { kind: fb::QueryKind::Tasks, job: job.0, cursor, limit, ..Default::default() };
        let page = self.query(query).await?;
        Ok(Page { cursor: page.cursor, rows: rows(page.tasks) })
    }

    /// A job's tasks, up to `max` of them, page by page.
    pub async fn tasks_up_to(&self, job: JobId, max: usize) -> Result<Vec<TaskView>, ClientError> {
        let mut tasks = Vec::new();
        let mut cursor = 0;
        loop {
            let left = u32::try_from(max.saturating_sub(tasks.len())).unwrap_or(PAGE_ROWS_MAX).min(PAGE_ROWS_MAX);
            if left == 0 {
                return Ok(tasks);
            }
            let page = self.tasks(job, cursor, left).await?;
            tasks.extend(page.rows);
            if page.cursor == 0 {
                return Ok(tasks);
            }
            cursor = page.cursor;
        }
    }

    /// One task.
    pub async fn task(&self, task: TaskId) -> Result<TaskView, ClientError> {
        self.one_task(fb::QueryKind::Task, task).await
    }

    /// What a task left as its result; `None` if it ended without one.
    pub async fn result(&self, task: TaskId) -> Result<Option<Vec<u8>>, ClientError> {
        Ok(self.one_task(fb::QueryKind::Result, task).await?.end.and_then(|end| end.result))
    }

    /// Why a task waits, or what became of it.
    pub async fn explain(&self, task: TaskId) -> Result<ExplanationView, ClientError> {
        let query = fb::QueryT {
            kind: fb::QueryKind::Explain,
            job: task.job.0,
            task_id: Some(task.to_string()),
            ..Default::default()
        };
        let page = self.query(query).await?;
        page.explanation.map(|it| ExplanationView::from(*it)).ok_or_else(|| missing("explanation in the answer"))
    }

    /// One page of agents.
    pub async fn agents(&self, cursor: u64, limit: u32) -> Result<Page<AgentView>, ClientError> {
        let query = fb::QueryT { kind: fb::QueryKind::Agents, cursor, limit, ..Default::default() };
        let page = self.query(query).await?;
        Ok(Page { cursor: page.cursor, rows: rows(page.agents) })
    }

    /// One agent, with what it holds.
    pub async fn agent(&self, name: &str) -> Result<AgentView, ClientError> {
        let query = fb::QueryT { kind: fb::QueryKind::Agent, agent: Some(name.to_owned()), ..Default::default() };
        let page = self.query(query).await?;
        let first = page.agents.unwrap_or_default().into_iter().next();
        first.map(AgentView::from).ok_or_else(|| missing(&format!("agent `{name}`")))
    }

    /// A piece of a task's output from `offset` on: what is there now, which may be nothing. `attempt` 0
    /// is the latest.
    pub async fn log(
        &self,
        task: TaskId,
        attempt: u32,
        stream: LogStream,
        offset: u64,
    ) -> Result<LogView, ClientError> {
        let limit = LOG_CHUNK_BYTES_MAX;
        let task_id = Some(task.to_string());
        let message = fb::LogRequestT { task_id, attempt, stream, offset, limit, ..Default::default() };
        match self.call(fb::SchedulerMessageT::LogRequest(Box::new(message)), true).await? {
            fb::SchedulerMessageT::LogChunk(chunk) => Ok(LogView::from(*chunk)),
            other => Err(unexpected("LogChunk", &other)),
        }
    }

    async fn one_task(&self, kind: fb::QueryKind, task: TaskId) -> Result<TaskView, ClientError> {
        let query = fb::QueryT { kind, job: task.job.0, task_id: Some(task.to_string()), ..Default::default() };
        let page = self.query(query).await?;
        let first = page.tasks.unwrap_or_default().into_iter().next();
        first.map(TaskView::from).ok_or_else(|| missing(&format!("task {task}")))
    }

    async fn query(&self, query: fb::QueryT) -> Result<fb::PageT, ClientError> {
        match self.call(fb::SchedulerMessageT::Query(Box::new(query)), true).await? {
            fb::SchedulerMessageT::Page(page) => Ok(*page),
            other => Err(unexpected("Page", &other)),
        }
    }

    /// Sends what is answered by an `Ack` once it is durable.
    async fn command(&self, message: fb::SchedulerMessageT, repeatable: bool) -> Result<(), ClientError> {
        match self.call(message, repeatable).await? {
            fb::SchedulerMessageT::Ack(_) => Ok(()),
            other => Err(unexpected("Ack", &other)),
        }
    }

    async fn call(
        &self,
        message: fb::SchedulerMessageT,
        repeatable: bool,
    ) -> Result<fb::SchedulerMessageT, ClientError> {
        let held = match &message {
            fb::SchedulerMessageT::Query(query) => Duration::from_millis(u64::from(query.wait_ms)),
            _ => Duration::ZERO,
        };
        let (answer, answered) = oneshot::channel();
        self.calls.send(Call { message, repeatable, answer }).await.map_err(|_| ClientError::Closed)?;
        let after = self.patience + held;
        match tokio::time::timeout(after, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(ClientError::Closed),
            Err(_) => Err(ClientError::TimedOut { after }),
        }
    }
}

/// A new submit id: the time, and 80 random bits.
pub fn new_submit_id() -> Result<SubmitId, ClientError> {
    let mut random = [0; 10];
    getrandom::fill(&mut random).map_err(|error| ClientError::Unreachable {
        addresses: Vec::new(),
        error: format!("no randomness: {error}"),
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(SubmitId::new(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), random))
}

fn rows<W, V: From<W>>(rows: Option<Vec<W>>) -> Vec<V> {
    rows.unwrap_or_default().into_iter().map(V::from).collect()
}

fn missing(what: &str) -> ClientError {
    ClientError::NotFound { what: what.to_owned() }
}

fn unexpected(expected: &'static str, found: &fb::SchedulerMessageT) -> ClientError {
    let found = found.scheduler_message_type().variant_name().unwrap_or("an unknown message");
    ClientError::Unexpected { expected, found }
}

/// How long an answer may take, lost connections included.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the first connection may take.
const FIRST_CONNECT: Duration = Duration::from_secs(8);
/// How long a watch lets the scheduler hold its answer back.
const WATCH_WAIT: Duration = Duration::from_secs(20);
/// Requests that may wait to be sent.
const CALLS_MAX: usize = 64;
