//! What comes in and what goes out.

use fleetwire_common::{
    envelope::{handshake::HelloInfo, keys::RootKeys},
    facts::FactBatch,
    fb,
    ids::{AttemptId, JobId, Name, Position, Principal, SessionId, TaskId, TokenId},
    job::JobError,
    message::{Message, MessageRef},
    policy::{PolicyError, QueueError},
    token::JoinToken,
};
use std::time::Duration;

use crate::{bodies::Lacks, policy::Policy, schedules::ScheduleError};

/// What a scheduler is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's root keys: tokens and receipts are derived from them.
    pub keys: RootKeys,
    /// SHA-256 of the cluster CA's certificate, for join tokens.
    pub authority_sha256: [u8; 32],
    /// Where the scheduler listens, for join tokens.
    pub addresses: Vec<String>,
    /// This start's random id.
    pub incarnation_id: [u8; 16],
    /// For the retries' jitter.
    pub seed: u64,
    /// What agents are told.
    pub heartbeat_interval: Duration,
    /// Software and version.
    pub software: String,
    /// The operator goes on with a restored backup.
    pub accept_restore: bool,
    /// Settings and bounds.
    pub policy: Policy,
}

/// Where in a session a message came: what a `Nack` names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The stream.
    pub stream: u32,
    /// Its frame's place on the stream.
    pub sequence: u64,
    /// Its place in the frame's batch.
    pub item: u16,
    /// Its envelope's timestamp, ms.
    pub timestamp_ms: u64,
}

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A session was agreed.
    Connected {
        /// Its number.
        session: SessionId,
        /// Whom its certificate names.
        principal: Principal,
        /// What the peer said of itself.
        hello: HelloInfo,
        /// The IP address from which it came, for whoever is to reach it.
        address: &'a str,
    },
    /// A message came.
    Received {
        /// In which session.
        session: SessionId,
        /// Where in it.
        from: Origin,
        /// What.
        message: MessageRef<'a>,
    },
    /// A session is gone.
    Disconnected {
        /// Which.
        session: SessionId,
    },
    /// A device asks to be let in. The seal of its `Enroll` has proved the token's secret, and the
    /// request's own signature was checked.
    Enrolling {
        /// The enrolment connection.
        session: SessionId,
        /// The token.
        token: TokenId,
        /// The name it asks for.
        name: &'a str,
        /// The role it asks for.
        role: fb::Role,
        /// SHA-256 of its public key.
        key_sha256: [u8; 32],
    },
    /// The scheduler's own machine: credentials without a token. May replace the key of a name.
    EnrolLocally {
        /// The name.
        name: Name,
        /// The role.
        role: fb::Role,
        /// SHA-256 of its public key.
        key_sha256: [u8; 32],
    },
    /// The scheduler's own machine: a token without a session. Answered by [`Effect::Token`].
    IssueToken {
        /// What it lets a holder become.
        role: fb::Role,
        /// How many keys may redeem it.
        uses: u32,
        /// For how long.
        expires_in: Duration,
    },
    /// What is due at `now` is to be done. Given only after all arrived events.
    Deadline,
    /// The disk has room for nothing but what must still be written, or has room again.
    Disk {
        /// Whether it is low.
        low: bool,
        /// How many segments of bodies may have been begun since the start; what would begin another stays in its fact.
        blob_segments_max: u64,
    },
    /// A message of ours could not be sent, because what it lacks cannot be read.
    Unreadable {
        /// In which session.
        session: SessionId,
        /// The message.
        message: Message,
        /// Why.
        why: String,
    },
    /// The driver itself stood still: silence in that time was our own.
    Stalled {
        /// For how long.
        gap: Duration,
    },
}

/// What the shell is to do, once its position is durable.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send a message; nothing if the session is gone.
    Send {
        /// In which session.
        session: SessionId,
        /// What.
        message: Message,
    },
    /// The same, once what the message lacks was read ([`crate::bodies::complete`]); else [`Event::Unreadable`].
    Complete {
        /// In which session.
        session: SessionId,
        /// What.
        message: Message,
        /// What it lacks.
        lacks: Lacks,
    },
    /// End a session.
    Close {
        /// Which.
        session: SessionId,
        /// Why, for programs.
        code: fb::ErrorCode,
        /// Why, for people.
        reason: String,
    },
    /// Sign the certificate that was asked for, and answer.
    Certify {
        /// The enrolment connection.
        session: SessionId,
        /// Whom the certificate names.
        principal: Principal,
    },
    /// Refuse an enrolment.
    RefuseEnrolment {
        /// The enrolment connection.
        session: SessionId,
        /// Why, for programs.
        code: fb::ErrorCode,
        /// Why, for people.
        message: String,
    },
    /// A token that [`Event::IssueToken`] asked for.
    Token {
        /// The token.
        token: JoinToken,
    },
}

/// What a step decided: facts for the journal, and effects that wait for them.
#[derive(Debug, Default)]
pub struct Effects {
    /// The facts, in order.
    pub facts: FactBatch,
    queue: Vec<(Position, Effect)>,
    prompt: Vec<Effect>,
    position: Position,
}

impl Effects {
    /// Nothing yet.
    pub fn new() -> Effects {
        Effects::default()
    }

    /// Adds an effect, to be released once all facts decided so far are durable.
    pub fn push(&mut self, effect: Effect) {
        self.queue.push((self.position, effect));
    }

    /// Adds a message.
    pub(crate) fn send(&mut self, session: SessionId, message: Message) {
        self.push(Effect::Send { session, message });
    }

    /// Adds a message that says nothing of what was decided, and so waits for nothing: what tells an agent that
    /// it is heard, which must not depend on how fast the disk is.
    pub(crate) fn send_at_once(&mut self, session: SessionId, message: Message) {
        self.prompt.push(Effect::Send { session, message });
    }

    /// Takes the effects that wait for no fact.
    pub fn drain_prompt(&mut self) -> impl Iterator<Item = Effect> + '_ {
        self.prompt.drain(..)
    }

    /// Takes all other effects with their positions, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = (Position, Effect)> + '_ {
        self.queue.drain(..)
    }

    /// How many effects wait to be drained.
    pub fn count(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn set_position(&mut self, position: Position) {
        self.position = position;
    }
}

/// Why a message was not acted on; becomes a `Nack`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Rejected {
    #[error("a principal with the role {role:?} may not send {message:?}")]
    NotAllowed { role: fb::Role, message: fb::SchedulerMessage },
    #[error("message type {found} is not known to this version")]
    UnknownMessage { found: u8 },
    #[error("{message:?} came before the Register that must open an agent's session")]
    NotRegistered { message: fb::SchedulerMessage },
    #[error("{what} is `{found}`: expected {expected}")]
    Invalid { what: &'static str, found: String, expected: &'static str },
    #[error(transparent)]
    Job(#[from] JobError),
    #[error("attempt {attempt} has ended; the latest of its task is {latest}")]
    AttemptEnded { attempt: AttemptId, latest: u32 },
    #[error("attempt {attempt} is not assigned to {principal}")]
    NotYourAttempt { attempt: AttemptId, principal: String },
    #[error("attempt {attempt} was never assigned")]
    UnknownAttempt { attempt: AttemptId },
    #[error("attempt {attempt} is {found:?}: {message:?} came in the wrong state")]
    WrongState { attempt: AttemptId, found: fb::TaskStatus, message: fb::SchedulerMessage },
    #[error(
        "attempt {attempt} was assigned by a scheduler with another journal, in which that number is another job's"
    )]
    ForeignAttempt { attempt: AttemptId },
    #[error(
        "this scheduler's journal is a restored backup, and numbers of jobs may have been given before: restart it with \
         --accept-restore to go on with the backup"
    )]
    Restored,
    #[error("there is no job {job}")]
    UnknownJob { job: JobId },
    #[error("there is no task {task}")]
    UnknownTask { task: TaskId },
    #[error("there is no agent `{name}`")]
    UnknownAgent { name: String },
    #[error("the submit id was used before for another job: number {job}")]
    Conflict { job: JobId },
    #[error(
        "semaphore `{name}` has {found} units in this job, and {open} in job {job}, which has not ended: say the same, or submit \
         it again then"
    )]
    Semaphore { name: String, found: u32, open: u32, job: JobId },
    #[error(
        "no agent could ever run task `{task}`: of {agents} that are known, {why}; ask for no more, or let the job wait for \
         agents that are to come (await_agents)"
    )]
    Unplaceable { task: String, agents: u32, why: String },
    #[error("the submit id was made at {made_at_ms} ms, longer ago than ids are kept: make a new one")]
    TooOld { made_at_ms: u64 },
    #[error("too many {what}: at most {max}")]
    Busy { what: &'static str, max: u64 },
    #[error(
        "the scheduler's disk is full: no new job is taken until there is room for another journal segment in its \
         data folder; jobs that were taken go on"
    )]
    DiskFull,
    #[error("{why}")]
    Damaged { why: String },
    #[error("task {task} has left no result")]
    NoResult { task: TaskId },
    #[error("the logs of attempt {attempt} are not to be had any more")]
    LogsGone { attempt: AttemptId },
    #[error("agent `{name}` is connected: stop it before it is forgotten, or it would only register anew")]
    AgentConnected { name: String },
    #[error("agent `{name}` is not connected")]
    AgentUnreachable { name: String },
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(
        "queue `{queue}` has {jobs} jobs that have not ended: keep it until they have (with a quota, if need be), or cancel them"
    )]
    QueueInUse { queue: Name, jobs: u32 },
    #[error(
        "the quota of queue `{queue}` would be {quota} of {what}, and it has jobs with tasks that need {needs}: they could never \
         run; raise it, or cancel them"
    )]
    QuotaBelowJobs { queue: Name, what: &'static str, quota: u32, needs: u32 },
    #[error("agent `{name}` did not answer in time")]
    NoAnswer { name: String },
}

impl Rejected {
    /// The code that a `Nack` carries.
    pub fn code(&self) -> fb::ErrorCode {
        match self {
            Rejected::NotAllowed { .. } => fb::ErrorCode::Authorization,
            Rejected::UnknownMessage { .. } => fb::ErrorCode::UnknownMessage,
            Rejected::NotRegistered { .. }
            | Rejected::WrongState { .. }
            | Rejected::AgentConnected { .. }
            | Rejected::QueueInUse { .. }
            | Rejected::QuotaBelowJobs { .. }
            | Rejected::Restored => fb::ErrorCode::WrongState,
            Rejected::Invalid { .. }
            | Rejected::Job(_)
            | Rejected::Policy(_)
            | Rejected::Schedule(_)
            | Rejected::Queue(_) => fb::ErrorCode::Validation,
            Rejected::AttemptEnded { .. } => fb::ErrorCode::AttemptEnded,
            Rejected::NotYourAttempt { .. } => fb::ErrorCode::NotYourAttempt,
            Rejected::UnknownAttempt { .. } => fb::ErrorCode::UnknownAttempt,
            Rejected::ForeignAttempt { .. } => fb::ErrorCode::ForeignAttempt,
            Rejected::UnknownJob { .. } => fb::ErrorCode::UnknownJob,
            Rejected::UnknownTask { .. } => fb::ErrorCode::UnknownTask,
            Rejected::UnknownAgent { .. } => fb::ErrorCode::UnknownAgent,
            Rejected::Conflict { .. } | Rejected::Semaphore { .. } => fb::ErrorCode::Conflict,
            Rejected::Unplaceable { .. } => fb::ErrorCode::DoesNotFit,
            Rejected::TooOld { .. } => fb::ErrorCode::TooOld,
            Rejected::Busy { .. } => fb::ErrorCode::Busy,
            Rejected::DiskFull => fb::ErrorCode::DiskFull,
            Rejected::NoResult { .. } => fb::ErrorCode::NoResult,
            Rejected::Damaged { .. } => fb::ErrorCode::Damaged,
            Rejected::LogsGone { .. } => fb::ErrorCode::LogsGone,
            Rejected::AgentUnreachable { .. } => fb::ErrorCode::AgentUnreachable,
            Rejected::NoAnswer { .. } => fb::ErrorCode::MessageTimeout,
        }
    }

    /// Whether the same message may be taken later, without anybody changing it. Every refusal has its place here.
    pub fn is_retriable(&self) -> bool {
        match self {
            Rejected::Busy { .. }
            | Rejected::DiskFull
            | Rejected::NotRegistered { .. }
            | Rejected::AgentUnreachable { .. }
            | Rejected::NoAnswer { .. } => true,
            Rejected::NotAllowed { .. }
            | Rejected::UnknownMessage { .. }
            | Rejected::Invalid { .. }
            | Rejected::Job(_)
            | Rejected::Policy(_)
            | Rejected::Schedule(_)
            | Rejected::Queue(_)
            | Rejected::QueueInUse { .. }
            | Rejected::QuotaBelowJobs { .. }
            | Rejected::AttemptEnded { .. }
            | Rejected::NotYourAttempt { .. }
            | Rejected::UnknownAttempt { .. }
            | Rejected::ForeignAttempt { .. }
            | Rejected::WrongState { .. }
            | Rejected::Restored
            | Rejected::UnknownJob { .. }
            | Rejected::UnknownTask { .. }
            | Rejected::UnknownAgent { .. }
            | Rejected::Conflict { .. }
            | Rejected::Semaphore { .. }
            | Rejected::Unplaceable { .. }
            | Rejected::TooOld { .. }
            | Rejected::NoResult { .. }
            | Rejected::Damaged { .. }
            | Rejected::LogsGone { .. }
            | Rejected::AgentConnected { .. } => false,
        }
    }
}
