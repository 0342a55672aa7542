//! Attempts as processes: between the core's words and the process executor's.
//!
//! Invariant: every attempt that the core asked to spawn ends in exactly one `Ended`, also one that could
//! not be started. Attempts for which there is no slot wait here, bounded by what the core holds.

use crate::executor::{
    AttemptKey, ExecutorConfig, ExecutorEvent, InlineFile, LogError, Moment, OutputStream, ProcessExecutor, Report,
    SlotCondition, SpawnError, SpawnRequest, StartError, Verdict,
};
use fleetwire_agent_core::Recovered;
use fleetwire_common::{
    fb,
    ids::{AttemptId, JobKey},
    job::TaskSpec,
    message::{End, Message},
    time::Time,
};
use fleetwire_link::ClusterClock;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Runs attempts.
#[derive(Debug)]
pub(crate) struct Runner {
    executor: ProcessExecutor,
    clock: ClusterClock,
    /// Attempts that no slot was free for, oldest first.
    waiting: VecDeque<Waiting>,
    /// Staged attempts that no slot was free for, oldest first.
    unstaged: VecDeque<Waiting>,
    /// What was asked of the executor and is not known to have begun: asked for once more where the request is lost.
    asked: BTreeMap<AttemptId, Waiting>,
    /// What was found running under a number that is another job's here: its end is nobody's.
    disowned: BTreeSet<AttemptId>,
    news: VecDeque<News>,
}

#[derive(Debug)]
struct Waiting {
    attempt: AttemptId,
    job_key: JobKey,
    spec: Arc<TaskSpec>,
    deadline_ms: u64,
    stop_unheard_after: Option<Duration>,
    /// It was asked for before, in vain.
    again: bool,
}

/// What happened to an attempt.
#[derive(Debug)]
pub(crate) enum News {
    /// Its program runs.
    Started {
        attempt: AttemptId,
        /// Cluster time, ms.
        at_ms: u64,
    },
    /// Its task said something.
    Report { attempt: AttemptId, report: Report },
    /// A staged attempt was started on [`Runner::start_staged`].
    StagedStarted { attempt: AttemptId },
    /// Its last process is gone, or none could be started; and the staged attempt that was started in its room.
    Ended { attempt: AttemptId, status: fb::TaskStatus, end: End, next: Option<AttemptId> },
}

impl Runner {
    /// Starts the executor in its folder.
    pub fn start(config: ExecutorConfig, clock: ClusterClock) -> Result<Runner, StartError> {
        let executor = ProcessExecutor::start(config)?;
        let (waiting, unstaged, news) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        let (asked, disowned) = (BTreeMap::new(), BTreeSet::new());
        Ok(Runner { executor, clock, waiting, unstaged, asked, disowned, news })
    }

    /// What became of the attempts that have no result and were seen to start here, and what else still runs.
    pub fn recover(&mut self, unresolved: &BTreeMap<AttemptId, JobKey>) -> Vec<(AttemptId, Recovered)> {
        let mut found = Vec::new();
        let survey = self.executor.survey();
        for slot in survey {
            let Some(attempt) = attempt_of(&slot.key.task_id, slot.key.attempt) else { continue };
            let foreign = unresolved.get(&attempt).is_some_and(|own| own.differs(JobKey(slot.job_key)));
            match slot.condition {
                SlotCondition::Supervised { .. } if foreign => {
                    self.disowned.insert(attempt);
                    self.cancel(attempt, Duration::ZERO);
                }
                SlotCondition::Ended { .. } if foreign => self.executor.forget(slot.slot),
                SlotCondition::Supervised { .. } => found.push((attempt, Recovered::Running)),
                SlotCondition::Ended { .. } if unresolved.contains_key(&attempt) => {
                    if let Ok(Some(verdict)) = self.executor.verdict(&slot.key.task_id, slot.key.attempt) {
                        let (status, end) = self.end(verdict);
                        found.push((attempt, Recovered::Ended { status, end }));
                    }
                }
                SlotCondition::Ended { .. } => self.executor.release(&slot.key.task_id, slot.key.attempt),
            }
        }
        found
    }

    /// How the attempt ended is durable elsewhere: its slot may be recycled.
    pub fn keep(&mut self, attempt: AttemptId) {
        self.executor.recycle(&attempt.task.to_string(), attempt.attempt);
        self.start_queued();
    }

    /// Starts an attempt, or queues it until a slot is free.
    pub fn spawn(
        &mut self,
        (attempt, job_key): (AttemptId, JobKey),
        spec: Arc<TaskSpec>,
        deadline_ms: u64,
        stop_unheard_after: Option<Duration>,
    ) {
        let new = Waiting { attempt, job_key, spec, deadline_ms, stop_unheard_after, again: false };
        if self.waiting.is_empty() {
            self.spawn_now(new);
        } else {
            self.waiting.push_back(new);
        }
    }

    /// The scheduler has answered what was sent at that time of the device's clock. With `tell`, something may run
    /// that ends when that is too long ago.
    pub fn on_heard(&mut self, heard: Time, tell: bool) {
        self.executor.on_heard(heard.0, tell);
    }

    /// Has an attempt started as soon as another ends.
    pub fn stage(
        &mut self,
        (attempt, job_key): (AttemptId, JobKey),
        spec: Arc<TaskSpec>,
        stop_unheard_after: Option<Duration>,
    ) {
        self.unstaged.push_back(Waiting { attempt, job_key, spec, deadline_ms: 0, stop_unheard_after, again: false });
        self.hand_over();
    }

    /// Starts the first staged attempt, unless all have started.
    pub fn start_staged(&mut self) {
        if let Some(attempt) = self.next_staged() {
            self.news.push_back(News::StagedStarted { attempt });
        }
    }

    /// Takes a staged attempt back, unless it has started.
    pub fn unstage(&mut self, attempt: AttemptId, reason: fb::EndReason) -> bool {
        let place = self.unstaged.iter().position(|waiting| waiting.attempt == attempt);
        let found = match place {
            Some(place) => self.unstaged.remove(place).is_some(),
            None => self.executor.unstage(&attempt.task.to_string(), attempt.attempt),
        };
        if found {
            self.asked.remove(&attempt);
            let end = End { reason, ..End::default() };
            self.news.push_back(News::Ended { attempt, status: fb::TaskStatus::Cancelled, end, next: None });
        }
        found
    }

    /// Stages what waits for a slot, as far as there are slots.
    fn hand_over(&mut self) {
        while let Some(next) = self.unstaged.front() {
            let attempt = &next.attempt;
            let task_id = attempt.task.to_string();
            let staged = self.executor.stage(&request(&task_id, next));
            if let Err(SpawnError::NoFreeSlot { .. }) = staged {
                return;
            }
            let Some(next) = self.unstaged.pop_front() else { return };
            match staged {
                Ok(_) => _ = self.asked.insert(next.attempt, next),
                Err(SpawnError::AlreadyHere { .. }) => self.tell_again(next.attempt),
                Err(error) => {
                    let (attempt, end) = (next.attempt, self.failed(&error));
                    self.news.push_back(News::Ended { attempt, status: fb::TaskStatus::Failed, end, next: None });
                }
            }
        }
    }

    /// Starts the first staged attempt that nobody has started.
    fn next_staged(&mut self) -> Option<AttemptId> {
        if let Some(key) = self.executor.start_staged() {
            return attempt_of(&key.task_id, key.attempt);
        }
        while let Some(waiting) = self.unstaged.pop_front() {
            let attempt = waiting.attempt;
            if self.spawn_now(waiting) {
                return Some(attempt);
            }
        }
        None
    }

    /// Asks an attempt to end. One that has no process yet ends at once.
    pub fn cancel(&mut self, attempt: AttemptId, grace: Duration) {
        if self.unstage(attempt, fb::EndReason::Cancelled) {
            return;
        }
        if let Some(place) = self.waiting.iter().position(|waiting| waiting.attempt == attempt) {
            self.waiting.remove(place);
            let end = End { reason: fb::EndReason::Cancelled, ..End::default() };
            self.news.push_back(News::Ended { attempt, status: fb::TaskStatus::Cancelled, end, next: None });
        } else if let Err(unknown) = self.executor.cancel(&attempt.task.to_string(), attempt.attempt, grace) {
            // It ended and its slot was used again, or its end is on the way as an event.
            tracing::debug!(%unknown, "nothing to cancel");
        }
    }

    /// Its result is known to the scheduler: its slot may be used again.
    pub fn release(&mut self, attempt: AttemptId) {
        self.executor.release(&attempt.task.to_string(), attempt.attempt);
    }

    /// Attempts that have not ended.
    pub fn running(&self) -> usize {
        self.executor.running() + self.waiting.len()
    }

    /// What happens next. May be dropped and called again.
    pub async fn next(&mut self) -> News {
        loop {
            if let Some(news) = self.news.pop_front() {
                return news;
            }
            match self.executor.next_event().await {
                ExecutorEvent::Started { key, at, .. } => {
                    if let Some(attempt) = attempt_of(&key.task_id, key.attempt) {
                        self.asked.remove(&attempt);
                        return News::Started { attempt, at_ms: self.cluster_ms(at) };
                    }
                }
                ExecutorEvent::Report { key, report } => {
                    let attempt = attempt_of(&key.task_id, key.attempt);
                    if let Some(attempt) = attempt.filter(|attempt| !self.disowned.contains(attempt)) {
                        return News::Report { attempt, report };
                    }
                }
                ExecutorEvent::Ended(verdict, next) => self.on_ended(verdict, next),
                ExecutorEvent::NotTaken { key, cancelled } => {
                    if let Some(attempt) = attempt_of(&key.task_id, key.attempt) {
                        self.on_not_taken(attempt, cancelled);
                    }
                }
                ExecutorEvent::SpawnerDied { restart_failed: None } => {
                    tracing::warn!("the spawner died and was started again; running tasks were not touched");
                }
                ExecutorEvent::SpawnerDied { restart_failed: Some(error) } => {
                    tracing::error!(error, "the spawner died and cannot be started; tried again every second");
                }
            }
        }
    }

    /// What has happened already.
    pub fn try_next(&mut self) -> Option<News> {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(self.next()).poll(&mut context) {
            Poll::Ready(news) => Some(news),
            Poll::Pending => None,
        }
    }

    /// The answer to a request for a piece of output.
    pub fn read_log(
        &self,
        request: u64,
        (attempt, job_key): (AttemptId, JobKey),
        stream: fb::LogStream,
        offset: u64,
        limit: u32,
    ) -> Message {
        let which = if stream == fb::LogStream::Stderr { OutputStream::Stderr } else { OutputStream::Stdout };
        let task_id = attempt.task.to_string();
        let read = self.executor.read_log((&task_id, attempt.attempt, job_key.0), which, offset, limit as usize);
        let waits = self.waiting.iter().any(|waiting| waiting.attempt == attempt);
        let nothing_yet = crate::executor::LogPiece { offset, data: Vec::new(), size: 0, dropped: 0, ended: false };
        let piece = match read {
            Ok(piece) => piece,
            Err(LogError::Gone { .. }) if waits => nothing_yet,
            Err(error) => {
                let code = match error {
                    LogError::Gone { .. } => fb::ErrorCode::LogsGone,
                    LogError::BeyondEnd { .. } => fb::ErrorCode::Validation,
                    LogError::Disk { .. } => fb::ErrorCode::Internal,
                };
                let nack = fb::NackT {
                    code,
                    message: Some(error.to_string()),
                    request,
                    task_id: Some(task_id),
                    attempt: attempt.attempt,
                    ..Default::default()
                };
                return Message::Rare(fb::SchedulerMessageT::Nack(Box::new(nack)));
            }
        };
        let chunk = fb::LogChunkT {
            request,
            task_id: Some(task_id),
            attempt: attempt.attempt,
            stream,
            offset: piece.offset,
            data: Some(piece.data),
            ended: piece.ended,
            dropped: piece.dropped,
            size: piece.size,
        };
        Message::Rare(fb::SchedulerMessageT::LogChunk(Box::new(chunk)))
    }

    fn on_ended(&mut self, verdict: Verdict, next: Option<AttemptKey>) {
        self.tell_ended(verdict, next);
        self.start_queued();
    }

    fn tell_ended(&mut self, verdict: Verdict, next: Option<AttemptKey>) {
        let Some(attempt) = attempt_of(&verdict.key.task_id, verdict.key.attempt) else { return };
        if self.disowned.remove(&attempt) {
            self.executor.recycle(&verdict.key.task_id, verdict.key.attempt);
            return;
        }
        self.asked.remove(&attempt);
        let report = verdict.report.clone();
        if report.progress.is_some() || !report.note.is_empty() || !report.metrics.is_empty() {
            self.news.push_back(News::Report { attempt, report });
        }
        let (status, end) = self.end(verdict);
        let next = next.and_then(|key| attempt_of(&key.task_id, key.attempt));
        self.news.push_back(News::Ended { attempt, status, end, next });
    }

    /// It was started before. While it runs its end will come; where it has ended, and was settled with a scheduler whose
    /// journal is gone (a restored backup sends it again), its slot still says how.
    fn tell_again(&mut self, attempt: AttemptId) {
        if let Ok(Some(verdict)) = self.executor.verdict(&attempt.task.to_string(), attempt.attempt) {
            self.tell_ended(verdict, None);
        }
    }

    /// The request is lost, and certainly nothing of it ran: it is asked for once more. Twice in vain is no accident.
    fn on_not_taken(&mut self, attempt: AttemptId, cancelled: bool) {
        let now_ms = self.clock.now().as_ms();
        let (status, reason) = match self.asked.remove(&attempt) {
            Some(asked) if !asked.again && !cancelled => {
                tracing::warn!(%attempt, "its request died with the spawner; it is asked for again");
                self.waiting.push_front(Waiting { again: true, ..asked });
                return self.start_queued();
            }
            _ if cancelled => (fb::TaskStatus::Cancelled, fb::EndReason::Cancelled),
            _ => (fb::TaskStatus::Lost, fb::EndReason::SupervisorLost),
        };
        let message = "its supervisor was gone before the attempt had begun".to_owned();
        let end = End { reason, message, ended_at_ms: now_ms, ..End::default() };
        self.news.push_back(News::Ended { attempt, status, end, next: None });
        self.start_queued();
    }

    /// A slot has become free: what waits for one gets it.
    fn start_queued(&mut self) {
        self.hand_over();
        // An attempt that cannot be started leaves the slot that became free to the next.
        while let Some(next) = self.waiting.pop_front() {
            if self.spawn_now(next) {
                break;
            }
        }
    }

    /// Starts it, or puts it first in line if there is no slot. `false`: it ended instead.
    fn spawn_now(&mut self, next: Waiting) -> bool {
        let Waiting { attempt, deadline_ms, .. } = &next;
        let now_ms = self.clock.now().as_ms();
        if *deadline_ms != 0 && *deadline_ms < now_ms {
            let message = "no slot became free before its deadline".to_owned();
            let end = End { reason: fb::EndReason::DeadlinePassed, message, ended_at_ms: now_ms, ..End::default() };
            self.news.push_back(News::Ended { attempt: *attempt, status: fb::TaskStatus::TimedOut, end, next: None });
            return false;
        }
        let task_id = attempt.task.to_string();
        match self.executor.spawn(&request(&task_id, &next)) {
            Ok(_) => {
                self.asked.insert(next.attempt, next);
                true
            }
            Err(SpawnError::AlreadyHere { .. }) => {
                self.tell_again(next.attempt);
                false
            }
            Err(SpawnError::NoFreeSlot { .. }) if self.executor.running() > 0 => {
                self.waiting.push_front(next);
                true
            }
            Err(error) => {
                let (attempt, end) = (*attempt, self.failed(&error));
                self.news.push_back(News::Ended { attempt, status: fb::TaskStatus::Failed, end, next: None });
                false
            }
        }
    }

    fn failed(&self, error: &SpawnError) -> End {
        let (message, ended_at_ms) = (error_chain(error), self.clock.now().as_ms());
        End { reason: fb::EndReason::SpawnFailed, message, ended_at_ms, ..End::default() }
    }

    fn end(&self, verdict: Verdict) -> (fb::TaskStatus, End) {
        let status = match verdict.reason {
            fb::EndReason::Exited if verdict.exit_code == 0 => fb::TaskStatus::Completed,
            fb::EndReason::RunTimeout => fb::TaskStatus::TimedOut,
            fb::EndReason::Cancelled | fb::EndReason::Released => fb::TaskStatus::Cancelled,
            fb::EndReason::SupervisorLost | fb::EndReason::Disconnected => fb::TaskStatus::Lost,
            _ => fb::TaskStatus::Failed,
        };
        let end = End {
            reason: verdict.reason,
            exit_code: verdict.exit_code,
            signal: verdict.signal,
            message: verdict.message,
            result: verdict.result,
            user_us: verdict.usage.user_us,
            system_us: verdict.usage.system_us,
            memory_peak_kb: verdict.usage.memory_peak_kb,
            wall_us: verdict.usage.wall_us,
            stdout_bytes: verdict.stdout.kept.saturating_add(verdict.stdout.dropped),
            stderr_bytes: verdict.stderr.kept.saturating_add(verdict.stderr.dropped),
            started_at_ms: self.cluster_ms(verdict.started),
            ended_at_ms: self.cluster_ms(verdict.ended),
        };
        (status, end)
    }

    /// Cluster time of a moment: by the boot-time clock if it was of this boot, else by the wall clock.
    fn cluster_ms(&self, moment: Moment) -> u64 {
        if moment.unix_ms == 0 {
            return 0;
        }
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        let by_boot_ms = ClusterClock::local().0.checked_sub(moment.boot_us).map(|ago| ago / 1_000);
        let by_wall_ms = wall_ms.saturating_sub(moment.unix_ms);
        match by_boot_ms {
            Some(ago) if ago.abs_diff(by_wall_ms) < SAME_BOOT_WITHIN_MS => {
                Time(moment.boot_us.saturating_add_signed(self.clock.offset_us())).as_ms()
            }
            _ => moment.unix_ms,
        }
    }
}

/// Both clocks agree this well about the age of a moment of this boot, unless somebody set one.
const SAME_BOOT_WITHIN_MS: u64 = 60_000;

fn attempt_of(task_id: &str, attempt: u32) -> Option<AttemptId> {
    Some(AttemptId { task: task_id.parse().ok()?, attempt })
}

fn request<'a>(task_id: &'a str, next: &'a Waiting) -> SpawnRequest<'a> {
    let (attempt, spec) = (next.attempt, &*next.spec);
    let file = |file: &'a fleetwire_common::job::FileSpec| InlineFile {
        path: &file.path,
        data: &file.data,
        executable: file.executable,
    };
    SpawnRequest {
        task_id,
        attempt: attempt.attempt,
        job_key: next.job_key.0,
        index: attempt.task.index,
        command: &spec.command,
        arguments: spec.arguments.iter().map(String::as_str).collect(),
        environment: spec.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
        parameters: &spec.parameters,
        files: spec.files.iter().map(file).collect(),
        timeout: (spec.timeout_s > 0).then(|| Duration::from_secs(spec.timeout_s)),
        grace: Duration::from_millis(u64::from(spec.kill_grace_ms)),
        stop_unheard_after: next.stop_unheard_after,
        result_path: (!spec.result_path.is_empty()).then_some(&spec.result_path),
    }
}

/// An error and what it comes from, in one line.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
