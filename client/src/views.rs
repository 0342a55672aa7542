//! What a client sees of a cluster: owned, plain, and what `--json` prints. The names of the fields
//! are documented in docs/cli.md and only ever added to.
//!
//! Units are in the names. Times are cluster time in Unix milliseconds.

use crate::{jobfile::values::kind_name, plans::EarliestView};
use fleetwire_common::{fb, ids::Name};
use serde::Serialize;
use std::collections::BTreeMap;

/// A job as a list shows it; its entries are there when one job was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct JobView {
    /// Its number.
    pub job: u64,
    /// What its owner calls it.
    pub name: String,
    /// Who submitted it.
    pub owner: String,
    /// `pending`, `running`, `completed`, `failed` or `cancelled`.
    pub status: &'static str,
    /// How many tasks are in which state.
    pub counts: Counts,
    /// 0.0 to 1.0, the mean over its tasks.
    pub progress: f32,
    /// When it was accepted.
    pub submitted_at_ms: u64,
    /// When its last task ended.
    pub ended_at_ms: Option<u64>,
    /// Changes whenever anything of the job does.
    pub version: u64,
    /// Why it has not begun, or was stopped by its own terms.
    pub note: Option<String>,
    /// What is written on it, and by what it is found.
    pub labels: BTreeMap<String, String>,
    /// Whose share of the cluster it has.
    pub queue: String,
    /// What is only shown; there when one job was asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Its task entries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<EntryView>,
}

/// How many tasks are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Not placed yet, or waiting for their next attempt.
    pub pending: u32,
    /// Placed, not started.
    pub assigned: u32,
    /// Running.
    pub running: u32,
    /// Ended with a committed success.
    pub completed: u32,
    /// Ended otherwise.
    pub failed: u32,
    /// Stopped on request.
    pub cancelled: u32,
    /// Never started: what they were to come after came to something else.
    pub skipped: u32,
}

/// One entry of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EntryView {
    /// Its name in the job file.
    pub name: String,
    /// Tasks in it.
    pub count: u32,
    /// Whether it is an array.
    pub array: bool,
}

/// A task and its latest attempt.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TaskView {
    /// `JOB.ENTRY.INDEX`.
    pub task: String,
    /// Its entry's name.
    pub name: String,
    /// `pending`, `assigned`, `running`, `completed`, `failed`, `cancelled`, `timed_out` or `lost`.
    pub status: &'static str,
    /// Its latest attempt, 0 = none yet.
    pub attempt: u32,
    /// Where that runs or ran.
    pub agent: Option<String>,
    /// 0.0 to 1.0.
    pub progress: f32,
    /// Its own words about that.
    pub note: String,
    /// Latest values.
    pub metrics: BTreeMap<String, f64>,
    /// Attempts that failed.
    pub failures: u32,
    /// Agents that were lost with it.
    pub losses: u32,
    /// When it is tried again.
    pub retry_at_ms: Option<u64>,
    /// Whether its agent was not heard for longer than the job allows.
    pub suspect: bool,
    /// How its latest attempt ended.
    pub end: Option<EndView>,
}

/// How an attempt ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EndView {
    /// `exited`, `signalled`, `run_timeout`, `queue_timeout`, `cancelled`, `spawn_failed`, `rejected`,
    /// `agent_lost`, `rival`, `agent_forgotten`, `deadline_passed`, `supervisor_lost`, `released`, `disconnected`,
    /// `files_lost` or `drained`.
    pub reason: &'static str,
    /// With `exited`.
    pub exit_code: Option<i32>,
    /// With `signalled`.
    pub signal: Option<u8>,
    /// What a person should know.
    pub message: String,
    /// User CPU time.
    pub user_us: u64,
    /// System CPU time.
    pub system_us: u64,
    /// Peak memory.
    pub memory_peak_kb: u64,
    /// From start to end.
    pub wall_us: u64,
    /// Bytes written to stdout, kept or not.
    pub stdout_bytes: u64,
    /// Bytes written to stderr, kept or not.
    pub stderr_bytes: u64,
    /// When it started.
    pub started_at_ms: u64,
    /// When its last process was gone.
    pub ended_at_ms: u64,
    /// What it left as its result; asked for by itself, never in a list.
    #[serde(skip)]
    pub result: Option<Vec<u8>>,
}

/// An amount in each dimension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ResourcesView {
    /// Thousandths of a core.
    pub cpu_millicores: u32,
    /// MB.
    pub memory_mb: u32,
    /// Count.
    pub gpu: u32,
    /// GB.
    pub storage_gb: u32,
}

/// An agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AgentView {
    /// Its name.
    pub name: String,
    /// Whether it has a session now.
    pub connected: bool,
    /// What it registered.
    pub capacity: ResourcesView,
    /// What of it is free.
    pub free: ResourcesView,
    /// What else it registered, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub custom: BTreeMap<String, CustomView>,
    /// What is in use, as its operating system counts.
    pub usage: ResourcesView,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The kinds of work it takes.
    pub kinds: Vec<&'static str>,
    /// Attempts that it runs.
    pub running: u32,
    /// When it was last heard.
    pub last_heard_ms: u64,
    /// The machine it says it runs on.
    pub host: String,
    /// Its software and version.
    pub software: String,
    /// What it holds, when one agent was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<AttemptView>,
    /// Why it gets no work, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What an operator wants of it, if not that it works: `cordoned` or `drained`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cordon: Option<&'static str>,
}

/// How much of a custom resource an agent has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CustomView {
    /// In all.
    pub capacity: u32,
    /// What of it is free.
    pub free: u32,
}

/// An attempt that an agent holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AttemptView {
    /// `JOB.ENTRY.INDEX`.
    pub task: String,
    /// Which try.
    pub attempt: u32,
    /// Its status.
    pub status: &'static str,
    /// What it takes.
    pub resources: ResourcesView,
}

/// Why a task waits, or what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExplanationView {
    /// `JOB.ENTRY.INDEX`.
    pub task: String,
    /// Its status.
    pub status: &'static str,
    /// In one sentence.
    pub summary: String,
    /// What stands in its way, with the number of agents for which that holds.
    pub obstacles: Vec<ObstacleView>,
    /// When it could start; of what is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub earliest: Option<EarliestView>,
}

/// One reason, and the agents for which it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ObstacleView {
    /// In words.
    pub reason: String,
    /// How many agents.
    pub agents: u32,
    /// One of them.
    pub example: String,
}

/// The cluster at a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClusterView {
    /// Its name.
    pub cluster: String,
    /// How often its scheduler has started.
    pub incarnation: u64,
    /// Facts in its journal.
    pub position: u64,
    /// Agents that it knows.
    pub agents: u32,
    /// Those that have a session now.
    pub agents_connected: u32,
    /// Jobs that it remembers.
    pub jobs: u32,
    /// The scheduler's software and version.
    pub software: String,
}

/// The policy, and what each queue has.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PolicyView {
    /// Who set it; `null` = nobody has.
    pub set_by: Option<String>,
    /// When.
    pub set_at_ms: Option<u64>,
    /// A priority rises by one for each such time waited; `null` = it does not.
    pub ageing_every_ms: Option<u64>,
    /// By so much at most.
    pub ageing_most: Option<u8>,
    /// How agents are filled; `null` here and in the next two = as the scheduler has it by itself.
    pub placing: Option<PlacingView>,
    /// What is kept free for whoever has waited for long.
    pub reserve: Option<ReserveView>,
    /// Who makes way.
    pub preempt: Option<PreemptView>,
    /// The queues, by name.
    pub queues: Vec<QueueView>,
}

/// How agents are filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PlacingView {
    /// What an agent has left weighs so much: fullest first.
    pub pack: u16,
    /// The share of it that is in use weighs so much: emptiest first.
    pub spread: u16,
}

/// What is kept free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReserveView {
    /// After so long of waiting.
    pub after_ms: u64,
    /// Agents at a time.
    pub agents: u16,
}

/// Who makes way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PreemptView {
    /// For what is so much more urgent; 0 = never.
    pub gap: u8,
    /// After so long of its waiting.
    pub after_ms: u64,
    /// In a minute at most, in the whole cluster.
    pub per_minute: u32,
    /// Of one task at most.
    pub per_task: u32,
}

/// One queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct QueueView {
    /// Its name.
    pub queue: String,
    /// Its share of the cluster, beside the other queues' weights.
    pub weight: u32,
    /// What its attempts may hold together.
    pub quota: QuotaView,
    /// The highest priority that its jobs may ask for.
    pub priority_max: i8,
    /// What its attempts hold.
    pub held: ResourcesView,
    /// So many they are.
    pub attempts: u32,
    /// The part of the cluster that it has, of what it has most of: 0.0 to 1.0.
    pub share: f32,
    /// Tasks that wait for an agent.
    pub waiting: u64,
    /// Jobs that have not ended.
    pub jobs: u32,
}

/// Limits; `null` = none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QuotaView {
    /// Of cores.
    pub cpu_millicores: Option<u32>,
    /// Of memory.
    pub memory_mb: Option<u32>,
    /// Of gpus.
    pub gpu: Option<u32>,
    /// Of storage.
    pub storage_gb: Option<u32>,
}

/// A piece of a task's output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogView {
    /// Which try.
    pub attempt: u32,
    /// Of the first byte of `data`.
    pub offset: u64,
    /// The bytes.
    pub data: Vec<u8>,
    /// Nothing follows what was kept so far.
    pub ended: bool,
    /// Bytes beyond the bound that were not kept.
    pub dropped: u64,
    /// Bytes kept so far.
    pub size: u64,
}

/// One bounded page of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// Its rows.
    pub rows: Vec<T>,
    /// Where the next page begins; 0 = this was the last.
    pub cursor: u64,
}

impl Counts {
    /// All tasks.
    pub fn total(&self) -> u32 {
        self.pending + self.assigned + self.running + self.ended()
    }

    /// Those that will not change any more.
    pub fn ended(&self) -> u32 {
        self.completed + self.failed + self.cancelled + self.skipped
    }
}

impl JobView {
    /// Whether all its tasks ended.
    pub fn has_ended(&self) -> bool {
        self.ended_at_ms.is_some()
    }
}

impl EndView {
    /// The exit status that a shell would show: the task's own, 128 + the signal that ended it, or
    /// what `timeout`, `env` and an interrupted shell use.
    pub fn exit_status(&self) -> u8 {
        match self.reason {
            "exited" => self.exit_code.map_or(1, |code| u8::try_from(code & 0xff).unwrap_or(1)),
            "signalled" => self.signal.map_or(1, |signal| 128_u8.saturating_add(signal)),
            "run_timeout" | "queue_timeout" | "deadline_passed" => 124,
            "cancelled" => 130,
            "spawn_failed" => 127,
            _ => 1,
        }
    }
}

/// A status's name.
pub fn status_name(status: fb::TaskStatus) -> &'static str {
    match status {
        fb::TaskStatus::Pending => "pending",
        fb::TaskStatus::Assigned => "assigned",
        fb::TaskStatus::Running => "running",
        fb::TaskStatus::Completed => "completed",
        fb::TaskStatus::Failed => "failed",
        fb::TaskStatus::Cancelled => "cancelled",
        fb::TaskStatus::TimedOut => "timed_out",
        fb::TaskStatus::Lost => "lost",
        fb::TaskStatus::Skipped => "skipped",
        _ => "unknown",
    }
}

/// A reason's name.
pub fn reason_name(reason: fb::EndReason) -> &'static str {
    match reason {
        fb::EndReason::Exited => "exited",
        fb::EndReason::Signalled => "signalled",
        fb::EndReason::RunTimeout => "run_timeout",
        fb::EndReason::QueueTimeout => "queue_timeout",
        fb::EndReason::Cancelled => "cancelled",
        fb::EndReason::SpawnFailed => "spawn_failed",
        fb::EndReason::Rejected => "rejected",
        fb::EndReason::AgentLost => "agent_lost",
        fb::EndReason::Rival => "rival",
        fb::EndReason::AgentForgotten => "agent_forgotten",
        fb::EndReason::DeadlinePassed => "deadline_passed",
        fb::EndReason::SupervisorLost => "supervisor_lost",
        fb::EndReason::Released => "released",
        fb::EndReason::Disconnected => "disconnected",
        fb::EndReason::FilesLost => "files_lost",
        fb::EndReason::DependencyUnmet => "dependency_unmet",
        fb::EndReason::Drained => "drained",
        fb::EndReason::FailureBudget => "failure_budget",
        fb::EndReason::InputsTooLarge => "inputs_too_large",
        fb::EndReason::Preempted => "preempted",
        fb::EndReason::GangLost => "gang_lost",
        _ => "unknown",
    }
}

fn job_status(counts: &Counts, ended: bool) -> &'static str {
    if !ended {
        return if counts.assigned + counts.running + counts.ended() == 0 { "pending" } else { "running" };
    }
    match (counts.failed, counts.cancelled) {
        (0, 0) => "completed",
        (0, _) => "cancelled",
        _ => "failed",
    }
}

fn texts(wire: Option<Vec<fb::KeyValueT>>) -> BTreeMap<String, String> {
    let text = |text: Option<String>| text.unwrap_or_default();
    wire.unwrap_or_default().into_iter().map(|pair| (text(pair.key), text(pair.value))).collect()
}

fn moment(ms: u64) -> Option<u64> {
    (ms != 0).then_some(ms)
}

impl From<fb::JobSummaryT> for JobView {
    fn from(wire: fb::JobSummaryT) -> JobView {
        let counts = wire.counts.map(|counts| Counts {
            pending: counts.pending,
            assigned: counts.assigned,
            running: counts.running,
            completed: counts.completed,
            failed: counts.failed,
            cancelled: counts.cancelled,
            skipped: counts.skipped,
        });
        let counts = counts.unwrap_or_default();
        let entry = |entry: fb::TaskSpecSummaryT| EntryView {
            name: entry.name.unwrap_or_default(),
            count: entry.count,
            array: entry.array,
        };
        JobView {
            job: wire.job,
            name: wire.name.unwrap_or_default(),
            owner: wire.owner.unwrap_or_default(),
            status: job_status(&counts, wire.ended_at != 0),
            counts,
            progress: wire.progress,
            submitted_at_ms: wire.submitted_at,
            ended_at_ms: moment(wire.ended_at),
            version: wire.version,
            note: wire.note,
            labels: texts(wire.labels),
            queue: wire.queue.unwrap_or_else(|| Name::default_queue().to_string()),
            annotations: texts(wire.annotations),
            entries: wire.tasks.unwrap_or_default().into_iter().map(entry).collect(),
        }
    }
}

impl From<fb::TaskSummaryT> for TaskView {
    fn from(wire: fb::TaskSummaryT) -> TaskView {
        let metrics = wire.metrics.unwrap_or_default();
        TaskView {
            task: wire.task_id.unwrap_or_default(),
            name: wire.name.unwrap_or_default(),
            status: status_name(wire.status),
            attempt: wire.attempt,
            agent: wire.agent,
            progress: wire.progress,
            note: wire.note.unwrap_or_default(),
            metrics: metrics.into_iter().map(|metric| (metric.name.unwrap_or_default(), metric.value)).collect(),
            failures: wire.failures,
            losses: wire.losses,
            retry_at_ms: moment(wire.retry_at),
            suspect: wire.suspect,
            end: wire.end.map(|end| EndView::from(*end)),
        }
    }
}

impl From<fb::AttemptEndT> for EndView {
    fn from(wire: fb::AttemptEndT) -> EndView {
        let usage = wire.usage.map(|usage| *usage).unwrap_or_default();
        EndView {
            reason: reason_name(wire.reason),
            exit_code: (wire.reason == fb::EndReason::Exited).then_some(wire.exit_code),
            signal: (wire.reason == fb::EndReason::Signalled).then_some(wire.signal),
            message: wire.message.unwrap_or_default(),
            user_us: usage.user_us,
            system_us: usage.system_us,
            memory_peak_kb: usage.memory_peak_kb,
            wall_us: usage.wall_us,
            stdout_bytes: wire.stdout_bytes,
            stderr_bytes: wire.stderr_bytes,
            started_at_ms: wire.started_at,
            ended_at_ms: wire.ended_at,
            result: wire.result,
        }
    }
}

impl From<fb::ResourceSpecT> for ResourcesView {
    fn from(wire: fb::ResourceSpecT) -> ResourcesView {
        ResourcesView { cpu_millicores: wire.cpu, memory_mb: wire.memory, gpu: wire.gpu, storage_gb: wire.storage }
    }
}

fn resources(wire: Option<Box<fb::ResourceSpecT>>) -> ResourcesView {
    wire.map(|spec| ResourcesView::from(*spec)).unwrap_or_default()
}

fn custom(capacity: Option<&fb::ResourceSpecT>, free: Option<&fb::ResourceSpecT>) -> BTreeMap<String, CustomView> {
    let listed = |spec: Option<&fb::ResourceSpecT>| spec.and_then(|spec| spec.custom.clone()).unwrap_or_default();
    let named = |one: fb::CustomResourceT| (one.name.unwrap_or_default(), one.amount);
    let free: BTreeMap<String, u32> = listed(free).into_iter().map(named).collect();
    let seen = |(name, capacity): (String, u32)| {
        let free = free.get(&name).copied().unwrap_or_default();
        (name, CustomView { capacity, free })
    };
    listed(capacity).into_iter().map(named).map(seen).collect()
}

impl From<fb::AgentSummaryT> for AgentView {
    fn from(wire: fb::AgentSummaryT) -> AgentView {
        let label = |pair: fb::KeyValueT| (pair.key.unwrap_or_default(), pair.value.unwrap_or_default());
        let attempt = |report: fb::AttemptReportT| AttemptView {
            task: report.task_id.unwrap_or_default(),
            attempt: report.attempt,
            status: status_name(report.status),
            resources: resources(report.resources),
        };
        AgentView {
            name: wire.name.unwrap_or_default(),
            connected: wire.connected,
            custom: custom(wire.capacity.as_deref(), wire.free.as_deref()),
            capacity: resources(wire.capacity),
            free: resources(wire.free),
            usage: resources(wire.usage),
            labels: wire.labels.unwrap_or_default().into_iter().map(label).collect(),
            kinds: wire.agent_types.unwrap_or_default().into_iter().map(|kind| kind_name(Some(kind))).collect(),
            running: wire.running,
            last_heard_ms: wire.last_heard,
            host: wire.host.unwrap_or_default(),
            software: wire.software.unwrap_or_default(),
            attempts: wire.attempts.unwrap_or_default().into_iter().map(attempt).collect(),
            note: wire.note,
            cordon: match wire.action {
                fb::AgentAction::Cordon => Some("cordoned"),
                fb::AgentAction::Drain => Some("drained"),
                _ => None,
            },
        }
    }
}

impl From<fb::ExplanationT> for ExplanationView {
    fn from(wire: fb::ExplanationT) -> ExplanationView {
        ExplanationView {
            task: wire.task_id.unwrap_or_default(),
            status: status_name(wire.status),
            summary: wire.summary.unwrap_or_default(),
            obstacles: wire.obstacles.unwrap_or_default().into_iter().map(ObstacleView::from).collect(),
            earliest: wire.earliest.map(|earliest| EarliestView::from(*earliest)),
        }
    }
}

impl From<fb::ObstacleT> for ObstacleView {
    fn from(wire: fb::ObstacleT) -> ObstacleView {
        ObstacleView {
            reason: wire.reason.unwrap_or_default(),
            agents: wire.agents,
            example: wire.example.unwrap_or_default(),
        }
    }
}

impl From<fb::ClusterSummaryT> for ClusterView {
    fn from(wire: fb::ClusterSummaryT) -> ClusterView {
        ClusterView {
            cluster: wire.cluster.unwrap_or_default(),
            incarnation: wire.incarnation,
            position: wire.position,
            agents: wire.agents,
            agents_connected: wire.agents_connected,
            jobs: wire.jobs,
            software: wire.software.unwrap_or_default(),
        }
    }
}

impl From<fb::PolicySummaryT> for PolicyView {
    fn from(wire: fb::PolicySummaryT) -> PolicyView {
        let policy = wire.policy.map(|policy| *policy).unwrap_or_default();
        let every = moment(policy.ageing_every_ms);
        PolicyView {
            set_by: wire.set_by,
            set_at_ms: moment(wire.set_at),
            ageing_every_ms: every,
            ageing_most: every.map(|_| policy.ageing_most),
            placing: policy.placing.map(|rule| PlacingView { pack: rule.packing, spread: rule.spreading }),
            reserve: policy.reserve.map(|rule| ReserveView { after_ms: rule.after_ms, agents: rule.agents }),
            preempt: policy.preempt.map(|rule| PreemptView {
                gap: rule.gap,
                after_ms: rule.after_ms,
                per_minute: rule.per_minute,
                per_task: rule.per_task,
            }),
            queues: wire.queues.unwrap_or_default().into_iter().map(QueueView::from).collect(),
        }
    }
}

impl From<fb::QueueSummaryT> for QueueView {
    fn from(wire: fb::QueueSummaryT) -> QueueView {
        let rule = wire.rule.map(|rule| *rule).unwrap_or_default();
        let limit = |limit: u32| (limit != u32::MAX).then_some(limit);
        let quota = rule.quota.map(|quota| *quota).unwrap_or_default();
        QueueView {
            queue: rule.name.unwrap_or_default(),
            weight: rule.weight,
            quota: QuotaView {
                cpu_millicores: limit(quota.cpu),
                memory_mb: limit(quota.memory),
                gpu: limit(quota.gpu),
                storage_gb: limit(quota.storage),
            },
            priority_max: rule.priority_max,
            held: resources(wire.held),
            attempts: wire.attempts,
            share: wire.share,
            waiting: wire.waiting,
            jobs: wire.jobs,
        }
    }
}

impl From<fb::LogChunkT> for LogView {
    fn from(wire: fb::LogChunkT) -> LogView {
        LogView {
            attempt: wire.attempt,
            offset: wire.offset,
            data: wire.data.unwrap_or_default(),
            ended: wire.ended,
            dropped: wire.dropped,
            size: wire.size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_statuses_are_those_of_a_shell() {
        let end = |reason, exit_code, signal| EndView { reason, exit_code, signal, ..EndView::default() };
        assert_eq!(end("exited", Some(3), None).exit_status(), 3);
        assert_eq!(end("signalled", None, Some(9)).exit_status(), 137);
        assert_eq!(end("run_timeout", None, None).exit_status(), 124);
        assert_eq!(end("cancelled", None, None).exit_status(), 130);
        assert_eq!(end("spawn_failed", None, None).exit_status(), 127);
        assert_eq!(end("agent_lost", None, None).exit_status(), 1);
    }

    #[test]
    fn a_job_is_called_what_its_tasks_are() {
        let job = |counts: fb::TaskCountsT, ended_at| {
            JobView::from(fb::JobSummaryT { counts: Some(Box::new(counts)), ended_at, ..Default::default() }).status
        };
        assert_eq!(job(fb::TaskCountsT { pending: 2, ..Default::default() }, 0), "pending");
        assert_eq!(job(fb::TaskCountsT { pending: 1, completed: 1, ..Default::default() }, 0), "running");
        assert_eq!(job(fb::TaskCountsT { completed: 2, ..Default::default() }, 1), "completed");
        assert_eq!(job(fb::TaskCountsT { completed: 1, failed: 1, cancelled: 1, ..Default::default() }, 1), "failed");
        assert_eq!(job(fb::TaskCountsT { completed: 1, cancelled: 1, ..Default::default() }, 1), "cancelled");
        assert_eq!(job(fb::TaskCountsT { completed: 1, skipped: 1, ..Default::default() }, 1), "completed");
    }
}
