//! Tasks and their attempts, as facts say.
//!
//! Invariants: a task that has not ended is either in its entry's range of unstarted indices or has a
//! [`TaskRecord`]; at most two attempts of a task have not ended; an ended task is in exactly one of
//! its entry's bitmaps.

use crate::{bodies::FileKept, ranges::Ranges};
use fixedbitset::FixedBitSet;
use fleetwire_common::{
    blob::BlobRef,
    envelope::keys::sha256,
    fb,
    ids::{AgentId, JobId, JobKey, Name, SubmitId, TaskId},
    job::{JobSpec, TaskSpec},
    message::End,
    time::Time,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// A submit that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submit {
    /// SHA-256 of the job's bytes.
    pub digest: [u8; 32],
    /// What it became.
    pub job: JobId,
}

/// One job.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Tells it from a job of that number in another journal.
    pub key: JobKey,
    /// What was submitted; files that are blobs are empty.
    pub spec: Arc<JobSpec>,
    /// These files.
    pub files: Box<[FileKept]>,
    /// Bytes of the spec as it was submitted, and of what its tasks left behind: what bounds count.
    pub kept_bytes: u64,
    /// Who submitted it, as `role/name`.
    pub owner: Arc<str>,
    /// When.
    pub submitted_at: Time,
    /// When its last task ended.
    pub ended_at: Option<Time>,
    /// Why the whole job was asked to stop, if it was.
    pub stopped: Option<fb::EndReason>,
    /// Its entries, in the order of the spec.
    pub entries: Vec<Entry>,
    /// How its tasks fare.
    pub counts: Counts,
}

/// How many tasks of a job are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All.
    pub total: u64,
    /// With an attempt that has not ended.
    pub active: u64,
    /// Ended well.
    pub completed: u64,
    /// Ended by failures, losses or a timeout.
    pub failed: u64,
    /// Ended on request.
    pub cancelled: u64,
    /// Ended because what they were to come after came to something else.
    pub skipped: u64,
}

impl Counts {
    /// Tasks that have ended.
    pub fn ended(self) -> u64 {
        self.completed + self.failed + self.cancelled + self.skipped
    }

    /// Tasks that wait for an agent or for their retry.
    pub fn pending(self) -> u64 {
        self.total.saturating_sub(self.active + self.ended())
    }
}

/// One entry of a job: an array of tasks, often of one.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What its tasks are.
    pub spec: Arc<TaskSpec>,
    /// The indices that were never assigned and have not ended.
    pub unstarted: Ranges<()>,
    /// Ended well.
    pub(crate) completed: FixedBitSet,
    /// Ended by failures, losses or a timeout.
    pub(crate) failed: FixedBitSet,
    /// Ended on request.
    pub(crate) cancelled: FixedBitSet,
    /// Ended because what they were to come after came to something else.
    pub(crate) skipped: FixedBitSet,
    /// How many of its tasks are in each of these.
    pub fares: Fares,
    /// Whether any entry of the job comes after it.
    pub(crate) is_awaited: bool,
    /// If so: when the last of its tasks ended.
    pub ended_at: Option<Time>,
    /// How the tasks ended that had an attempt.
    pub ended: BTreeMap<u32, EndedTask>,
}

/// How many tasks of an entry ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fares {
    /// Ended well.
    pub completed: u32,
    /// Ended by failures, losses or a timeout.
    pub failed: u32,
    /// Ended on request.
    pub cancelled: u32,
    /// Ended because what they were to come after came to something else.
    pub skipped: u32,
}

impl Fares {
    /// All.
    pub fn ended(self) -> u32 {
        self.completed + self.failed + self.cancelled + self.skipped
    }
}

impl Entry {
    /// An entry whose tasks are all unstarted.
    fn new(spec: &Arc<TaskSpec>, is_awaited: bool) -> Entry {
        let mut unstarted = Ranges::default();
        unstarted.insert((), 0, spec.count);
        Entry {
            spec: Arc::clone(spec),
            unstarted,
            completed: FixedBitSet::new(),
            failed: FixedBitSet::new(),
            cancelled: FixedBitSet::new(),
            skipped: FixedBitSet::new(),
            fares: Fares::default(),
            is_awaited,
            ended_at: None,
            ended: BTreeMap::new(),
        }
    }

    /// Whether all its tasks have.
    pub fn has_ended(&self) -> bool {
        self.fares.ended() == self.spec.count
    }

    /// How a task ended; `None` if it has not.
    pub fn outcome(&self, index: u32) -> Option<fb::TaskStatus> {
        if let Some(ended) = self.ended.get(&index) {
            return Some(ended.task_status);
        }
        let bit = index as usize;
        if self.completed.contains(bit) {
            Some(fb::TaskStatus::Completed)
        } else if self.cancelled.contains(bit) {
            Some(fb::TaskStatus::Cancelled)
        } else if self.failed.contains(bit) {
            // Only time makes a task fail that never had an agent.
            Some(fb::TaskStatus::TimedOut)
        } else if self.skipped.contains(bit) {
            Some(fb::TaskStatus::Skipped)
        } else {
            None
        }
    }

    /// The first of its tasks that ended otherwise than well.
    pub fn first_not_completed(&self) -> Option<u32> {
        let sets = [&self.failed, &self.cancelled, &self.skipped];
        sets.into_iter().filter_map(|set| set.minimum()).min().map(|bit| bit as u32)
    }

    pub(crate) fn mark_ended(&mut self, at: Time, (from, to): (u32, u32), status: fb::TaskStatus) {
        let fares = &mut self.fares;
        let (bits, count) = match status {
            fb::TaskStatus::Completed => (&mut self.completed, &mut fares.completed),
            fb::TaskStatus::Cancelled => (&mut self.cancelled, &mut fares.cancelled),
            fb::TaskStatus::Skipped => (&mut self.skipped, &mut fares.skipped),
            _ => (&mut self.failed, &mut fares.failed),
        };
        *count += to - from;
        if bits.len() < to as usize {
            bits.grow(to as usize);
        }
        bits.insert_range(from as usize..to as usize);
        if self.is_awaited && self.has_ended() {
            self.ended_at = Some(at);
        }
    }
}

/// A task that was started and has not ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskRecord {
    /// The number of its latest attempt.
    pub attempts: u32,
    /// Its attempts that have not ended, the older first: at most two.
    pub open: Open,
    /// Attempts that failed.
    pub failures: u32,
    /// Attempts that were lost.
    pub losses: u32,
    /// Attempts that made way for what is more urgent.
    pub preemptions: u16,
    /// Whether it was asked to stop.
    pub cancelled: bool,
    /// While it is pending: since when it may be placed. May lie ahead: the retry's backoff.
    pub pending_since: Time,
    /// How its latest ended attempt ended.
    pub last: Option<Box<EndedTask>>,
}

/// An attempt that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// Its number.
    pub attempt: u32,
    /// Who was given it.
    pub agent: AgentId,
}

/// Up to two attempts, the older first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Open {
    older: Option<Assigned>,
    newer: Option<Assigned>,
}

impl Open {
    /// How many there are.
    pub fn count(self) -> usize {
        self.iter().count()
    }

    /// They, the older first.
    pub fn iter(self) -> impl Iterator<Item = Assigned> {
        self.older.into_iter().chain(self.newer)
    }

    /// The attempt of that number.
    pub fn find(self, attempt: u32) -> Option<Assigned> {
        self.iter().find(|open| open.attempt == attempt)
    }

    /// The newest.
    pub fn latest(self) -> Option<Assigned> {
        self.newer.or(self.older)
    }

    /// Adds a newer one; `false` if there are two already.
    pub(crate) fn push(&mut self, assigned: Assigned) -> bool {
        match (self.older, self.newer) {
            (None, _) => self.older = Some(assigned),
            (Some(_), None) => self.newer = Some(assigned),
            (Some(_), Some(_)) => return false,
        }
        true
    }

    /// Removes the attempt of that number.
    pub(crate) fn remove(&mut self, attempt: u32) -> Option<Assigned> {
        let found = self.find(attempt)?;
        let mut rest = self.iter().filter(|open| open.attempt != attempt);
        *self = Open { older: rest.next(), newer: rest.next() };
        Some(found)
    }
}

/// How a task, or one attempt of it, ended. Compact: a cluster keeps a million of them.
#[derive(Clone, Debug, PartialEq)]
pub struct EndedTask {
    /// The attempt that ended it.
    pub attempt: u32,
    /// The task's latest attempt; another than that one if the rival was younger.
    pub latest: u32,
    /// Who ran the attempt that ended it.
    pub agent: AgentId,
    /// Attempts that failed.
    pub failures: u32,
    /// Attempts that were lost.
    pub losses: u32,
    /// How the attempt ended.
    pub status: fb::TaskStatus,
    /// How the task stood after it.
    pub task_status: fb::TaskStatus,
    /// Why.
    pub reason: fb::EndReason,
    signal: u8,
    exit_code: i32,
    started_at_ms: u64,
    ended_at_ms: u64,
    wall_us: u64,
    user_us: u64,
    system_us: u64,
    memory_peak_kb: u64,
    stdout_bytes: u64,
    stderr_bytes: u64,
    extra: Option<Box<Extra>>,
}

/// What most ended tasks do not have.
#[derive(Clone, Debug, Default, PartialEq)]
struct Extra {
    message: Box<str>,
    result: Option<Left>,
    metrics: Box<[(Arc<str>, f64)]>,
}

/// A result.
#[derive(Clone, Debug, PartialEq)]
enum Left {
    Inline(Box<[u8]>),
    Blob(BlobRef),
}

impl EndedTask {
    /// Keeps what an attempt left behind; its result may be a blob.
    pub fn new(
        (attempt, agent): (u32, AgentId),
        status: fb::TaskStatus,
        (end, blob): (&End, Option<BlobRef>),
        metrics: Box<[(Arc<str>, f64)]>,
    ) -> EndedTask {
        let result = blob.map(Left::Blob).or_else(|| Some(Left::Inline(end.result.as_deref()?.into())));
        let bare = end.message.is_empty() && result.is_none() && metrics.is_empty();
        let extra = (!bare).then(|| Box::new(Extra { message: end.message.as_str().into(), result, metrics }));
        EndedTask {
            attempt,
            latest: attempt,
            agent,
            failures: 0,
            losses: 0,
            status,
            task_status: status,
            reason: end.reason,
            signal: end.signal,
            exit_code: end.exit_code,
            started_at_ms: end.started_at_ms,
            ended_at_ms: end.ended_at_ms,
            wall_us: end.wall_us,
            user_us: end.user_us,
            system_us: end.system_us,
            memory_peak_kb: end.memory_peak_kb,
            stdout_bytes: end.stdout_bytes,
            stderr_bytes: end.stderr_bytes,
            extra,
        }
    }

    /// Its result, if it left one that is kept here.
    pub fn result(&self) -> Option<&[u8]> {
        match self.extra.as_ref()?.result.as_ref()? {
            Left::Inline(bytes) => Some(bytes),
            Left::Blob(_) => None,
        }
    }

    /// Its result, if that is a blob.
    pub fn result_blob(&self) -> Option<BlobRef> {
        match self.extra.as_ref()?.result.as_ref()? {
            Left::Inline(_) => None,
            Left::Blob(blob) => Some(*blob),
        }
    }

    /// When, as its agent said, or as it was decided.
    pub fn ended_at(&self) -> Time {
        Time::from_ms(self.ended_at_ms)
    }

    /// Words about it.
    pub fn message(&self) -> &str {
        self.extra.as_ref().map_or("", |extra| &extra.message)
    }

    /// Whether it left a result.
    pub fn has_result(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.result.is_some())
    }

    /// How many bytes its result has, wherever it is.
    pub fn result_bytes(&self) -> usize {
        self.result().map_or(0, <[u8]>::len) + self.result_blob().map_or(0, |blob| blob.length as usize)
    }

    /// About how many bytes are kept beyond what every ended task takes.
    pub fn extra_bytes(&self) -> u64 {
        let bytes = |extra: &Extra| extra.message.len() + 24 * extra.metrics.len();
        (self.extra.as_deref().map_or(0, bytes) + self.result_bytes()) as u64
    }

    /// Its latest metrics.
    pub fn metrics(&self) -> &[(Arc<str>, f64)] {
        self.extra.as_ref().map_or(&[], |extra| &extra.metrics)
    }

    /// Exchanges its metrics for the same ones, whose names are shared with other tasks.
    pub(crate) fn share_metrics(&mut self, shared: impl FnMut(&(Arc<str>, f64)) -> (Arc<str>, f64)) {
        if let Some(extra) = &mut self.extra {
            extra.metrics = extra.metrics.iter().map(shared).collect();
        }
    }

    /// As the wire's owned table, with the result's bytes only if asked for.
    pub fn to_wire(&self, with_result: bool) -> fb::AttemptEndT {
        let message = self.extra.as_ref().map(|extra| extra.message.to_string()).filter(|text| !text.is_empty());
        fb::AttemptEndT {
            reason: self.reason,
            exit_code: self.exit_code,
            signal: self.signal,
            message,
            result: self.result().filter(|_| with_result).map(<[u8]>::to_vec),
            usage: Some(Box::new(fb::ResourceUsageT {
                user_us: self.user_us,
                system_us: self.system_us,
                memory_peak_kb: self.memory_peak_kb,
                wall_us: self.wall_us,
            })),
            stdout_bytes: self.stdout_bytes,
            stderr_bytes: self.stderr_bytes,
            started_at: self.started_at_ms,
            ended_at: self.ended_at_ms,
        }
    }
}

impl Job {
    /// A job whose tasks are all unstarted.
    pub fn new(
        key: JobKey,
        spec: &Arc<JobSpec>,
        (files, bytes): (&[FileKept], u64),
        owner: &str,
        submitted_at: Time,
    ) -> Job {
        let awaited: BTreeSet<&Name> =
            spec.tasks.iter().flat_map(|task| &task.after).map(|after| &after.task).collect();
        let entry = |spec: &Arc<TaskSpec>| Entry::new(spec, awaited.contains(&spec.name));
        Job {
            key,
            spec: Arc::clone(spec),
            files: files.into(),
            kept_bytes: bytes,
            owner: owner.into(),
            submitted_at,
            ended_at: None,
            stopped: None,
            entries: spec.tasks.iter().map(entry).collect(),
            counts: Counts { total: spec.task_count(), ..Counts::default() },
        }
    }

    /// The entry of that ordinal.
    pub fn entry(&self, entry: u16) -> Option<&Entry> {
        self.entries.get(usize::from(entry))
    }

    /// The spec of a task of this job; `None` if it has no such task.
    pub fn task_spec(&self, entry: u16, index: u32) -> Option<&Arc<TaskSpec>> {
        self.entry(entry).map(|entry| &entry.spec).filter(|spec| index < spec.count)
    }

    /// The files of that entry that are blobs.
    pub fn files_of(&self, entry: u16) -> &[FileKept] {
        let from = self.files.partition_point(|kept| kept.entry < entry);
        let to = self.files.partition_point(|kept| kept.entry <= entry);
        self.files.get(from..to).unwrap_or_default()
    }

    /// About how many bytes the spec of an entry's tasks takes with all its files.
    pub fn task_bytes(&self, entry: u16) -> Option<usize> {
        let blobs: usize = self.files_of(entry).iter().map(|kept| kept.blob.length as usize).sum();
        Some(self.entry(entry)?.spec.bytes() + blobs)
    }

    /// All blobs that it names: its files, and the results of its tasks that have ended.
    pub fn blobs(&self) -> impl Iterator<Item = BlobRef> + '_ {
        let results = self.entries.iter().flat_map(|entry| entry.ended.values()).filter_map(EndedTask::result_blob);
        self.files.iter().map(|kept| kept.blob).chain(results)
    }

    /// Before when nothing of it is assigned.
    pub fn starts_at(&self) -> Time {
        let terms = &self.spec.terms;
        let after = self.submitted_at + Duration::from_millis(terms.start_after_ms);
        after.max(Time::from_ms(terms.start_at_ms))
    }

    /// When whatever of it has not ended is stopped; [`Time::NEVER`] without a deadline.
    pub fn due_at(&self) -> Time {
        match self.spec.terms.deadline_ms {
            0 => Time::NEVER,
            ms => self.submitted_at + Duration::from_millis(ms),
        }
    }

    /// Why it is to be stopped at that time by its own terms, if it is.
    pub fn stops_for(&self, now: Time) -> Option<fb::EndReason> {
        let budget = u64::from(self.spec.terms.stop_after_failures);
        let spent = budget > 0 && self.counts.failed >= budget;
        let reason = if spent { fb::EndReason::FailureBudget } else { fb::EndReason::DeadlinePassed };
        let open = self.stopped.is_none() && self.ended_at.is_none();
        (open && (spent || self.due_at() <= now)).then_some(reason)
    }

    /// All its entries' ordinals.
    pub fn ordinals(&self) -> impl Iterator<Item = u16> + use<> {
        0..self.entries.len() as u16
    }
}

// §job-1
/// A job's key, of what was submitted and by whom: whoever submits the same again, to a backup of the journal that had
/// accepted it, means the same job. Never 0, which says that a key is not known.
pub fn job_key(submit_id: SubmitId, digest: &[u8; 32], owner: &str) -> JobKey {
    let text = [&submit_id.0[..], digest, owner.as_bytes()].concat();
    let [a, b, c, d, e, f, g, h, ..] = sha256(&text);
    JobKey(u64::from_le_bytes([a, b, c, d, e, f, g, h]).max(1))
}

/// All tasks of one job that have a record.
pub fn records_of(
    tasks: &BTreeMap<TaskId, TaskRecord>,
    job: JobId,
) -> impl Iterator<Item = (TaskId, &TaskRecord)> + '_ {
    let from = TaskId { job, entry: 0, index: 0 };
    let to = TaskId { job, entry: u16::MAX, index: u32::MAX };
    tasks.range(from..=to).map(|(task, record)| (*task, record))
}

/// How a task ends that is stopped for that reason.
pub fn end_of_stopped(reason: fb::EndReason) -> fb::TaskStatus {
    match reason {
        fb::EndReason::DeadlinePassed => fb::TaskStatus::TimedOut,
        _ => fb::TaskStatus::Cancelled,
    }
}

/// Whether a status is one in which a task has ended.
pub fn is_end(status: fb::TaskStatus) -> bool {
    match status {
        fb::TaskStatus::Pending | fb::TaskStatus::Assigned | fb::TaskStatus::Running => false,
        fb::TaskStatus::Completed
        | fb::TaskStatus::Failed
        | fb::TaskStatus::Cancelled
        | fb::TaskStatus::TimedOut
        | fb::TaskStatus::Lost
        | fb::TaskStatus::Skipped => true,
        // Not a status at all.
        _ => false,
    }
}
