//! The story of a question: one bounded page for each, at once or when there is news.
//!
//! Invariants: a page has at most [`PAGE_ROWS_MAX`] rows and about [`Policy::page_bytes`](crate::policy::Policy)
//! bytes; a held query is answered exactly once, unless its session ends.

use crate::{
    attempts::{EndedTask, Entry, Job},
    bodies::Lacks,
    core::{About, Core},
    deadlines::Deadline,
    event::{Effect, Effects, Origin, Rejected},
    jobs::read_task,
    limits::{EXPLAIN_COST, RESULT_BYTES_PER_COST, ROWS_PER_COST},
    live::{Phase, Watch},
};
use fleetwire_common::{
    fb,
    ids::{AgentId, AttemptId, JobId, Name, SessionId, TaskId},
    job::pairs,
    labels::{Texts, to_wire},
    limits::{PAGE_ROWS_MAX, QUERY_WAIT_MS_MAX},
    message::Message,
    time::Time,
};
use std::time::Duration;

impl Core {
    /// What a query counts as among the messages that its session may send: by what its answer can weigh.
    pub fn query_cost(&self, message: fb::Query<'_>) -> u32 {
        let rows = match message.kind() {
            fb::QueryKind::Jobs | fb::QueryKind::Tasks | fb::QueryKind::Agents => {
                message.limit().clamp(1, PAGE_ROWS_MAX) as usize
            }
            fb::QueryKind::Job => self.state.jobs.get(&JobId(message.job())).map_or(0, |job| job.entries.len()),
            fb::QueryKind::Agent => self.attempts_of(message.agent().unwrap_or_default()),
            fb::QueryKind::Result => {
                let task = read_task(message.task_id().unwrap_or_default()).ok();
                let end = task.and_then(|task| self.state.last_end(task));
                return 1 + (end.map_or(0, EndedTask::result_bytes) / RESULT_BYTES_PER_COST) as u32;
            }
            fb::QueryKind::Explain | fb::QueryKind::Policy | fb::QueryKind::Schedules => return EXPLAIN_COST,
            _ => 0,
        };
        1 + (rows / ROWS_PER_COST) as u32
    }

    /// How many attempts the answer about an agent lists.
    fn attempts_of(&self, agent: &str) -> usize {
        let known = Name::new(agent).ok().and_then(|name| self.state.agents.named(&name));
        let live = known.and_then(|agent| self.live.agent(agent));
        live.map_or(0, |live| live.held.len().min(PAGE_ROWS_MAX as usize))
    }

    /// A client asks.
    pub fn on_query(
        &mut self,
        session: SessionId,
        message: fb::Query<'_>,
        effects: &mut Effects,
    ) -> Result<(), Rejected> {
        let limit = message.limit().clamp(1, PAGE_ROWS_MAX) as usize;
        let mut page = fb::PageT { request: message.request(), ..fb::PageT::default() };
        let task = || read_task(message.task_id().unwrap_or_default());
        match message.kind() {
            fb::QueryKind::Jobs => {
                let wanted: Texts = pairs(message.labels()).into_iter().collect();
                self.page_of_jobs(message.cursor(), limit, (&wanted, message.queue()), &mut page);
            }
            fb::QueryKind::Job => {
                let job = JobId(message.job());
                let found = self.state.jobs.get(&job).ok_or(Rejected::UnknownJob { job })?;
                let known = message.version() != 0 && message.wait_ms() > 0;
                if known && found.ended_at.is_none() {
                    return self.hold_query(session, message, job);
                }
                page.jobs = Some(vec![self.job_summary(job, found, true)]);
            }
            fb::QueryKind::Tasks => self.page_of_tasks(message, limit, &mut page)?,
            fb::QueryKind::Task => page.tasks = Some(vec![self.task_summary(task()?, false)?]),
            fb::QueryKind::Result => {
                let task = task()?;
                let summary = self.task_summary(task, true)?;
                let blob = self.state.last_end(task).and_then(EndedTask::result_blob);
                if blob.is_none() && summary.end.as_ref().is_none_or(|end| end.result.is_none()) {
                    return Err(Rejected::NoResult { task });
                }
                page.tasks = Some(vec![summary]);
                if let Some(blob) = blob {
                    let message = Message::Rare(fb::SchedulerMessageT::Page(Box::new(page)));
                    effects.push(Effect::Complete { session, message, lacks: Lacks::Result(blob) });
                    return Ok(());
                }
            }
            fb::QueryKind::Agents => self.page_of_agents(message.cursor(), limit, &mut page),
            fb::QueryKind::Agent => {
                let text = message.agent().unwrap_or_default();
                let agent = self.known_agent(text)?;
                page.agents = Some(self.agent_summary(agent, true).into_iter().collect());
            }
            fb::QueryKind::Explain => page.explanation = Some(Box::new(self.explain(task()?)?)),
            fb::QueryKind::Policy => page.policy = Some(Box::new(self.policy_summary())),
            fb::QueryKind::Schedules => self.page_of_schedules(message.cursor(), limit, &mut page),
            fb::QueryKind::Cluster => page.cluster = Some(Box::new(self.cluster_summary())),
            fb::QueryKind::Metrics => {
                let message = Message::Rare(fb::SchedulerMessageT::Page(Box::new(page)));
                effects.push(Effect::Complete { session, message, lacks: Lacks::Metrics });
                return Ok(());
            }
            other => {
                let expected = "a kind of query that this version knows";
                return Err(Rejected::Invalid { what: "kind", found: other.0.to_string(), expected });
            }
        }
        effects.send(session, Message::Rare(fb::SchedulerMessageT::Page(Box::new(page))));
        Ok(())
    }

    /// Newest first, those of the queue that bear the labels; the cursor is the last job that was looked at for the page before. So many
    /// are, found or not.
    fn page_of_jobs(&self, cursor: u64, limit: usize, (wanted, queue): (&Texts, Option<&str>), page: &mut fb::PageT) {
        let below = if cursor == 0 { JobId(u64::MAX) } else { JobId(cursor) };
        let mut rows = self.state.jobs.range(..below).rev();
        let (mut jobs, mut bytes, mut last) = (Vec::new(), 0, 0);
        for _ in 0..PAGE_ROWS_MAX {
            if jobs.len() >= limit || bytes >= self.config.policy.page_bytes {
                break;
            }
            let Some((id, job)) = rows.next() else { break };
            last = id.0;
            if queue.is_some_and(|queue| queue != job.spec.queue.as_str()) {
                continue;
            }
            if job.spec.labels.bear(wanted) {
                let row = self.job_summary(*id, job, false);
                bytes += 160 + job.spec.name.as_str().len() + job.owner.len();
                bytes += row.labels.iter().flatten().map(label_bytes).sum::<usize>();
                jobs.push(row);
            }
        }
        page.cursor = if rows.next().is_some() { last } else { 0 };
        page.jobs = Some(jobs);
    }

    /// In order; the cursor is 1 + the place of the next: entry and index.
    fn page_of_tasks(&self, message: fb::Query<'_>, limit: usize, page: &mut fb::PageT) -> Result<(), Rejected> {
        let id = JobId(message.job());
        let job = self.state.jobs.get(&id).ok_or(Rejected::UnknownJob { job: id })?;
        let from = message.cursor().saturating_sub(1);
        let first = (u16::try_from(from >> 32).unwrap_or(u16::MAX), from as u32);
        let ordinals = job.ordinals().zip(&job.entries).skip_while(|(ordinal, _)| *ordinal < first.0);
        let mut places = ordinals.flat_map(|(entry, found)| {
            let from = if entry == first.0 { first.1 } else { 0 };
            (from..found.spec.count).map(move |index| TaskId { job: id, entry, index })
        });
        let (mut tasks, mut bytes) = (Vec::new(), 0);
        while tasks.len() < limit && bytes < self.config.policy.page_bytes {
            let Some(task) = places.next() else { break };
            let row = self.task_summary(task, false)?;
            bytes += row_bytes(&row);
            tasks.push(row);
        }
        page.cursor = places.next().map_or(0, |next| (u64::from(next.entry) << 32 | u64::from(next.index)) + 1);
        page.tasks = Some(tasks);
        Ok(())
    }

    /// In the order of their numbers; the cursor is 1 + the next number.
    fn page_of_agents(&self, cursor: u64, limit: usize, page: &mut fb::PageT) {
        let from = usize::try_from(cursor.saturating_sub(1)).unwrap_or(usize::MAX);
        let is_known = |agent: &AgentId| self.state.agents.find(*agent).is_some_and(|record| !record.forgotten);
        let numbers = (from..self.state.agents.count()).map(|number| AgentId(number as u32));
        let mut numbers = numbers.filter(is_known);
        let (mut agents, mut bytes) = (Vec::new(), 0);
        while agents.len() < limit && bytes < self.config.policy.page_bytes {
            let Some(row) = numbers.next().and_then(|agent| self.agent_summary(agent, false)) else { break };
            bytes += 200 + row.labels.iter().flatten().map(label_bytes).sum::<usize>();
            agents.push(row);
        }
        page.cursor = numbers.next().map_or(0, |next| u64::from(next.0) + 1);
        page.agents = Some(agents);
    }

    fn job_summary(&self, id: JobId, job: &Job, in_full: bool) -> fb::JobSummaryT {
        let live = self.live.jobs.get(&id);
        let counts = job.counts;
        let cut = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let running = live.map_or(0, |live| live.running).min(counts.active);
        let entry = |entry: &Entry| fb::TaskSpecSummaryT {
            name: Some(entry.spec.name.to_string()),
            count: entry.spec.count,
            array: entry.spec.array,
        };
        fb::JobSummaryT {
            job: id.0,
            name: Some(job.spec.name.to_string()),
            counts: Some(Box::new(fb::TaskCountsT {
                pending: cut(counts.pending()),
                assigned: cut(counts.active - running),
                running: cut(running),
                completed: cut(counts.completed),
                failed: cut(counts.failed),
                cancelled: cut(counts.cancelled),
                skipped: cut(counts.skipped),
            })),
            submitted_at: job.submitted_at.as_ms(),
            ended_at: job.ended_at.map_or(0, Time::as_ms),
            owner: Some(job.owner.to_string()),
            version: live.map_or(VERSION_ENDED, |live| live.version),
            tasks: in_full.then(|| job.entries.iter().map(entry).collect()),
            progress: live.map_or(1.0, |live| live.progress(counts)),
            note: self.job_note(id),
            labels: to_wire(&job.spec.labels.labels),
            annotations: to_wire(&job.spec.labels.annotations).filter(|_| in_full),
            queue: Some(job.spec.queue.to_string()),
        }
    }

    fn task_summary(&self, task: TaskId, with_result: bool) -> Result<fb::TaskSummaryT, Rejected> {
        let status = self.state.task_status(task).ok_or(Rejected::UnknownTask { task })?;
        let name = self.state.task_spec(task).map(|spec| spec.name.to_string());
        let mut summary = fb::TaskSummaryT { task_id: Some(task.to_string()), name, status, ..Default::default() };
        if let Some(ended) = self.state.last_end(task) {
            summary.attempt = ended.attempt;
            summary.agent = Some(self.agent_name(ended.agent));
            (summary.failures, summary.losses) = (ended.failures, ended.losses);
            summary.metrics = metrics(ended.metrics());
            summary.end = Some(Box::new(ended.to_wire(with_result)));
            summary.progress = if ended.task_status == fb::TaskStatus::Completed { 1.0 } else { 0.0 };
        }
        if status == fb::TaskStatus::Skipped {
            let reason = fb::EndReason::DependencyUnmet;
            summary.end = Some(Box::new(fb::AttemptEndT { reason, ..Default::default() }));
        }
        let Some(record) = self.state.tasks.get(&task) else { return Ok(summary) };
        (summary.failures, summary.losses) = (record.failures, record.losses);
        let Some(open) = record.open.latest() else {
            let waits = record.pending_since > self.now;
            summary.retry_at = if waits { record.pending_since.as_ms() } else { 0 };
            return Ok(summary);
        };
        summary.attempt = open.attempt;
        summary.agent = Some(self.agent_name(open.agent));
        summary.metrics = None;
        let held = self.live.held(open.agent, AttemptId { task, attempt: open.attempt });
        if let Some(held) = held {
            summary.suspect = held.suspect;
            summary.progress = held.progress_ppm as f32 / 1e6;
            if held.phase == Phase::Running {
                summary.status = fb::TaskStatus::Running;
            }
            if let Some(report) = &held.report {
                summary.note = Some(report.note.clone()).filter(|note| !note.is_empty());
                summary.metrics = metrics(&report.metrics);
            }
        }
        Ok(summary)
    }

    fn agent_summary(&self, agent: AgentId, in_full: bool) -> Option<fb::AgentSummaryT> {
        let record = self.state.agents.find(agent)?;
        let live = self.live.agent(agent);
        let session = live.and_then(|live| live.session);
        let heard = session.and_then(|session| self.live.sessions.get(&session)).map(|session| session.heard_at);
        let heard_at = heard.or(live.map(|live| live.heard_at)).unwrap_or_default();
        let attempts = in_full.then(|| {
            let held = live.into_iter().flat_map(|live| &live.held).take(PAGE_ROWS_MAX as usize);
            held.map(|(attempt, held)| fb::AttemptReportT {
                progress: held.progress_ppm as f32 / 1e6,
                task_id: Some(attempt.task.to_string()),
                attempt: attempt.attempt,
                status: match held.phase {
                    Phase::Assigned | Phase::Accepted => fb::TaskStatus::Assigned,
                    Phase::Running => fb::TaskStatus::Running,
                },
                resources: Some(Box::new(held.resources.to_wire_with(&held.custom))),
                waits: held.waits,
                job_key: 0,
            })
            .collect()
        });
        let labels = record.profile.labels.iter();
        let label =
            |(key, value): (&String, &String)| fb::KeyValueT { key: Some(key.clone()), value: Some(value.clone()) };
        let (free, custom_free) = live.map(|live| (live.free(), live.custom_free())).unwrap_or_default();
        Some(fb::AgentSummaryT {
            name: Some(record.name.to_string()),
            connected: session.is_some(),
            capacity: Some(Box::new(record.profile.capacity.to_wire_with(&record.profile.custom))),
            free: Some(Box::new(free.to_wire_with(&custom_free))),
            labels: Some(labels.map(label).collect()),
            agent_types: Some(record.profile.agent_types.clone()),
            running: live.map_or(0, |live| live.held.len() as u32),
            last_heard: heard_at.as_ms(),
            host: Some(record.profile.host.clone()),
            software: Some(record.profile.software.clone()),
            usage: Some(Box::new(live.map(|live| live.usage).unwrap_or_default().to_wire())),
            attempts,
            note: self.agent_note(agent),
            action: match record.cordon.as_deref() {
                None => fb::AgentAction::Uncordon,
                Some(cordon) if cordon.drains => fb::AgentAction::Drain,
                Some(_) => fb::AgentAction::Cordon,
            },
        })
    }

    fn cluster_summary(&self) -> fb::ClusterSummaryT {
        let connected = self.live.agents().filter(|(_, agent)| agent.session.is_some()).count();
        fb::ClusterSummaryT {
            cluster: Some(self.config.cluster.clone()),
            incarnation: self.state.incarnation,
            position: self.position.0,
            agents: self.state.agents.known().count() as u32,
            agents_connected: connected as u32,
            jobs: self.state.jobs.len() as u32,
            software: Some(self.config.software.clone()),
        }
    }

    /// Holds a question about a job until there is news, or its time is over.
    fn hold_query(&mut self, session: SessionId, message: fb::Query<'_>, job: JobId) -> Result<(), Rejected> {
        let policy = &self.config.policy;
        let (all, each) = policy.watches_max;
        let Some(live) = self.live.jobs.get(&job) else { return Ok(()) };
        let has_news = live.version != message.version();
        let number = self.live.last_number + 1;
        let full = self.live.watches.len() >= all;
        let Some(asker) = self.live.sessions.get_mut(&session) else { return Ok(()) };
        if full || asker.watches >= each {
            return Err(Rejected::Busy { what: "held queries", max: u64::from(each) });
        }
        asker.watches += 1;
        self.live.last_number = number;
        // Even where there is news already: so a client that asks again at once costs little.
        let not_before = self.now + policy.watch_min;
        let wait = Duration::from_millis(u64::from(message.wait_ms().min(QUERY_WAIT_MS_MAX)));
        let due_at = if has_news { not_before } else { self.now + wait };
        let watch = Watch { session, request: message.request(), job, not_before, due_at };
        self.live.watches.insert(number, watch);
        self.live.deadlines.arm(due_at, Deadline::Watch(number));
        if let Some(live) = self.live.jobs.get_mut(&job) {
            live.watches.insert(number);
        }
        Ok(())
    }

    /// Something about a job has changed that a query could show.
    pub fn touch(&mut self, job: JobId, effects: &mut Effects) {
        let live = &mut self.live;
        live.version += 1;
        let version = live.version;
        let Some(found) = live.jobs.get_mut(&job) else { return };
        found.version = version;
        if found.watches.is_empty() {
            return;
        }
        let ended = self.state.jobs.get(&job).is_some_and(|job| job.ended_at.is_some());
        let watches: Vec<u64> = found.watches.iter().copied().collect();
        for number in watches {
            let Some(watch) = self.live.watches.get_mut(&number) else { continue };
            let tell_at = if ended { self.now } else { watch.not_before };
            if tell_at <= self.now {
                self.on_watch_due(number, effects);
            } else if tell_at < watch.due_at {
                let before = std::mem::replace(&mut watch.due_at, tell_at);
                self.live.deadlines.disarm(before, Deadline::Watch(number));
                self.live.deadlines.arm(tell_at, Deadline::Watch(number));
            }
        }
    }

    /// A held query is answered.
    pub fn on_watch_due(&mut self, number: u64, effects: &mut Effects) {
        let Some(watch) = self.take_watch(number) else { return };
        if let Some(session) = self.live.sessions.get_mut(&watch.session) {
            session.watches -= 1;
        }
        let Watch { session, request, job, .. } = watch;
        let Some(found) = self.state.jobs.get(&job) else {
            let about = About { request, attempt: None };
            self.refuse(session, Origin::default(), about, &Rejected::UnknownJob { job }, effects);
            return;
        };
        let jobs = Some(vec![self.job_summary(job, found, true)]);
        let page = fb::PageT { request, jobs, ..fb::PageT::default() };
        effects.send(session, Message::Rare(fb::SchedulerMessageT::Page(Box::new(page))));
    }

    /// A session with held queries is gone.
    pub fn forget_watches(&mut self, session: SessionId, count: u32) {
        if count == 0 {
            return;
        }
        let held = self.live.watches.iter().filter(|(_, watch)| watch.session == session);
        let numbers: Vec<u64> = held.map(|(number, _)| *number).collect();
        for number in numbers {
            self.take_watch(number);
        }
    }

    fn take_watch(&mut self, number: u64) -> Option<Watch> {
        let watch = self.live.watches.remove(&number)?;
        self.live.deadlines.disarm(watch.due_at, Deadline::Watch(number));
        if let Some(job) = self.live.jobs.get_mut(&watch.job) {
            job.watches.remove(&number);
        }
        Some(watch)
    }
}

fn metrics(metrics: &[(std::sync::Arc<str>, f64)]) -> Option<Vec<fb::MetricT>> {
    let metric =
        |(name, value): &(std::sync::Arc<str>, f64)| fb::MetricT { name: Some(name.to_string()), value: *value };
    (!metrics.is_empty()).then(|| metrics.iter().map(metric).collect())
}

fn label_bytes(label: &fb::KeyValueT) -> usize {
    [&label.key, &label.value].into_iter().flatten().map(|text| text.len() + 16).sum()
}

/// About how large a row is on the wire.
fn row_bytes(row: &fb::TaskSummaryT) -> usize {
    let metrics = row.metrics.iter().flatten().map(|metric| 32 + metric.name.as_ref().map_or(0, String::len));
    let message = row.end.as_ref().and_then(|end| end.message.as_ref()).map_or(0, String::len);
    240 + metrics.sum::<usize>() + message + row.note.as_ref().map_or(0, String::len)
}

/// The version of a job that has ended: nothing of it changes any more. Those of others are times.
const VERSION_ENDED: u64 = 1;
