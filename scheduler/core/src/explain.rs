//! The story of why: for any task, what it waits for, and what each agent lacks.

use crate::{
    core::Core,
    event::Rejected,
    limits::OBSTACLES_MAX,
    placement::{Lack, suits},
    queue::{ClassId, Request},
    waits::{Verdict, stands},
};
use fleetwire_common::{
    fb,
    graph::{Graph, Need},
    ids::{AgentId, JobId, TaskId},
    resources::Resources,
};
use std::collections::BTreeMap;

impl Core {
    /// Says why a task waits, or how it fares.
    pub fn explain(&self, task: TaskId) -> Result<fb::ExplanationT, Rejected> {
        let status = self.state.task_status(task).ok_or(Rejected::UnknownTask { task })?;
        let mut explanation = fb::ExplanationT {
            task_id: Some(task.to_string()),
            status,
            summary: Some(self.summarise(task, status)),
            obstacles: None,
            earliest: None,
        };
        if status != fb::TaskStatus::Pending {
            return Ok(explanation);
        }
        // No agent can help a task that waits for another, or for a place under a cap; nor does anyone know when it can.
        let others =
            self.waiting_in_words(task).or_else(|| self.gang_in_words(task)).or_else(|| self.cap_in_words(task));
        let waits_for_others = others.is_some() || self.semaphore_in_words(task).is_some();
        let earliest = self.earliest_of(task, others.or_else(|| self.no_start_of_gang_in_words(task)));
        explanation.earliest = Some(Box::new(self.earliest_to_wire(&earliest)));
        if waits_for_others {
            return Ok(explanation);
        }
        let Some(spec) = self.state.task_spec(task) else { return Ok(explanation) };
        let request = Request::of(spec);
        let class = self.live.class_of(task);
        let mut obstacles: BTreeMap<String, (u32, String)> = BTreeMap::new();
        let mut fitting = 0u32;
        for (agent, record) in self.state.agents.known() {
            match self.obstacle(agent, &request, class).or_else(|| self.seat_in_words(agent, task)) {
                Some(reason) => {
                    let (count, _) = obstacles.entry(reason).or_insert_with(|| (0, record.name.to_string()));
                    *count += 1;
                }
                None => fitting += 1,
            }
        }
        if let Some(words) = self.room_for_gang_in_words(task, fitting) {
            explanation.summary = explanation.summary.map(|summary| format!("{summary}; {words}"));
        }
        if fitting > 0 {
            let reason = match spec.gang {
                0 => String::from("nothing: it fits, and is next once it is this task's turn"),
                _ => String::from(
                    "nothing: it would take a member of the gang, which starts on all of its agents at once",
                ),
            };
            obstacles.insert(reason, (fitting, String::new()));
        }
        explanation.obstacles = Some(obstacle_rows(obstacles, OBSTACLES_MAX));
        Ok(explanation)
    }

    fn summarise(&self, task: TaskId, status: fb::TaskStatus) -> String {
        match status {
            fb::TaskStatus::Pending => {
                if let Some(notice) = self.notice() {
                    return format!("waits: {notice}");
                }
                if let Some(words) = self.job_note(task.job) {
                    return format!("waits: its job {words}");
                }
                let settled_at = self.settled_at(task.job);
                if settled_at > self.now {
                    let wait = settled_at.since(self.now).as_secs_f64();
                    return format!(
                        "waits {wait:.1} s more: it is exclusive, or holds a semaphore, and an attempt that the restored backup does not know may \
                         still run until its agent stops it"
                    );
                }
                if let Some(record) = self.state.tasks.get(&task).filter(|record| record.pending_since > self.now) {
                    let wait = record.pending_since.since(self.now);
                    let failures = record.failures;
                    return format!("waits {:.1} s more for its retry, after {failures} failures", wait.as_secs_f64());
                }
                if let Some(words) = self.waiting_in_words(task) {
                    return words;
                }
                if let Some(words) = self.gang_in_words(task) {
                    return words;
                }
                if let Some(words) = self.cap_in_words(task).or_else(|| self.semaphore_in_words(task)) {
                    return words;
                }
                if self.state.agents.known().next().is_none() {
                    return String::from("waits: no agent has registered");
                }
                let class = self.live.class_of(task);
                let ahead = class.map_or(0, |class| self.live.queue.ahead_of(class, task));
                let place = class.and_then(|class| self.place_in_words(class));
                let place = place.map(|words| format!("; {words}")).unwrap_or_default();
                let last = self.state.last_end(task).filter(|last| last.reason == fb::EndReason::Preempted);
                let made_way =
                    last.map(|last| format!("; its attempt {} {}", last.attempt, last.message())).unwrap_or_default();
                let place = format!("{place}{made_way}");
                match self.queue_in_words(task) {
                    None => format!("waits for an agent; {ahead} tasks are served before it{place}"),
                    Some(words) => {
                        format!("waits for an agent; {ahead} tasks of its queue are served before it{place}; {words}")
                    }
                }
            }
            fb::TaskStatus::Assigned | fb::TaskStatus::Running => {
                let open = self.state.tasks.get(&task).and_then(|record| record.open.latest());
                let Some(open) = open else { return String::from("is assigned") };
                let name = self.agent_name(open.agent);
                let away = if self.session_of(open.agent).is_some() { "" } else { ", which is not connected" };
                let stops = match self.state.stopped(task) {
                    Some(_) => format!("; it was asked to stop{}", self.stop_in_words(task)),
                    None => String::new(),
                };
                format!("attempt {} is on agent `{name}`{away}{stops}", open.attempt)
            }
            fb::TaskStatus::Skipped => self.skipped_in_words(task),
            _ => {
                let reason = self.state.last_end(task).and_then(|ended| ended.reason.variant_name());
                let status = status.variant_name().unwrap_or("ended");
                let why = self.stop_in_words(task);
                format!("has ended: {status} ({}){why}", reason.unwrap_or("it never had an agent"))
            }
        }
    }

    /// Why a job has not begun, or was stopped by its own terms.
    pub fn job_note(&self, id: JobId) -> Option<String> {
        let job = self.state.jobs.get(&id)?;
        match job.stopped {
            Some(fb::EndReason::FailureBudget) => {
                Some(format!("was stopped: stop_after_failures is {}", job.spec.terms.stop_after_failures))
            }
            Some(fb::EndReason::DeadlinePassed) => Some(String::from("was stopped: its deadline has passed")),
            _ if job.starts_at() > self.now && job.ended_at.is_none() => {
                Some(format!("starts in {:.1} s", job.starts_at().since(self.now).as_secs_f64()))
            }
            _ => None,
        }
    }

    fn stop_in_words(&self, task: TaskId) -> String {
        let words = self.state.stopped(task).and_then(|_| self.job_note(task.job));
        words.map(|words| format!("; its job {words}")).unwrap_or_default()
    }

    /// What a task that was never started waits for, if that is other tasks.
    fn waiting_in_words(&self, task: TaskId) -> Option<String> {
        let job = self.state.jobs.get(&task.job)?;
        let waits = self.live.jobs.get(&task.job)?.waits.as_ref()?;
        job.entry(task.entry)?.unstarted.range_at((), task.index)?;
        let needs = waits.graph.needs_of(task.entry).iter();
        let open: Vec<&Need> = needs.filter(|need| stands(job, need, task.index) == Verdict::Waits).collect();
        let words = open.iter().take(OBSTACLES_MAX).filter_map(|need| {
            let (other, on) = (job.entry(need.entry)?, on_in_words(need.on));
            let name = &other.spec.name;
            Some(if need.each {
                format!("`{name}` {} to {on}", TaskId { entry: need.entry, ..task })
            } else {
                let count = other.spec.count;
                let left = count - other.fares.ended();
                format!("`{name}` to {on} ({left} of its {count} tasks have not ended)")
            })
        });
        let words: Vec<String> = words.collect();
        let more = open.len() - words.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!words.is_empty()).then(|| format!("waits for {}{more}", words.join(", for ")))
    }

    /// Which cap holds a task back, if one does.
    fn cap_in_words(&self, task: TaskId) -> Option<String> {
        let caps = self.live.jobs.get(&task.job)?.caps.as_ref()?;
        if !caps.holds_back(task.entry, task.index) {
            return None;
        }
        let (entry, job) = (caps.entry(task.entry), caps.job());
        let name = self.state.task_spec(task).map(|spec| spec.name.as_str()).unwrap_or_default();
        // Of an entry that has room, what is in the queue may yet have all of the job's.
        let words = if entry.max > 0 && caps.room(task.entry) == entry.max.saturating_sub(entry.open) {
            format!("max_running of `{name}` is {}, and {} attempts are assigned or run", entry.max, entry.open)
        } else {
            format!("max_running of its job is {}, and {} attempts are assigned or run", job.max, job.open)
        };
        Some(format!("waits for its turn: {words}"))
    }

    /// Why a task was skipped: which of those that it comes after came to something else, and why that did.
    fn skipped_in_words(&self, task: TaskId) -> String {
        let mut words = String::from("was skipped");
        let mut at = task;
        for _ in 0..OBSTACLES_MAX {
            let Some((need, culprit)) = self.unmet_need(at) else { break };
            let name = self.state.jobs.get(&at.job).and_then(|job| job.entry(need.entry)).map(|entry| &entry.spec.name);
            let name = name.map(|name| name.as_str()).unwrap_or_default();
            let status = culprit.and_then(|culprit| self.state.task_status(culprit));
            let came_to = match (culprit, status) {
                (Some(culprit), Some(fb::TaskStatus::Skipped)) => format!("{culprit} was skipped"),
                (Some(culprit), Some(status)) => format!("{culprit} ended as {}", status.variant_name().unwrap_or("?")),
                _ => String::from("nothing of it did"),
            };
            let link = if at == task { ": it is" } else { ", which is" };
            words.push_str(&format!("{link} after `{name}`, which was to {}, and {came_to}", on_in_words(need.on)));
            match culprit.filter(|_| status == Some(fb::TaskStatus::Skipped)) {
                Some(culprit) => at = culprit,
                None => break,
            }
        }
        words
    }

    /// The first need of a task that can never be met, and a task that shows it, if one does.
    fn unmet_need(&self, task: TaskId) -> Option<(Need, Option<TaskId>)> {
        let job = self.state.jobs.get(&task.job)?;
        // The job may have ended, and its live side with it.
        let graph = Graph::of(&job.spec.tasks).ok().flatten()?;
        let needs = graph.needs_of(task.entry);
        let need = *needs.iter().find(|need| stands(job, need, task.index) == Verdict::Never)?;
        let of = |index| TaskId { entry: need.entry, index, ..task };
        let culprit = if need.each { Some(task.index) } else { job.entry(need.entry)?.first_not_completed() };
        Some((need, culprit.filter(|_| need.each || need.on == fb::DependencyOn::Success).map(of)))
    }

    /// Why an agent cannot take a request now; in words that agents share.
    pub fn obstacle(&self, agent: AgentId, request: &Request, class: Option<ClassId>) -> Option<String> {
        let record = self.state.agents.find(agent)?;
        if let Err(lack) = suits(request, &record.profile) {
            return Some(lack_in_words(&lack));
        }
        if self.session_of(agent).is_none() {
            return Some(String::from(if record.left_at.is_some() {
                "it said goodbye"
            } else {
                "it is not connected"
            }));
        }
        if self.live.agent(agent).is_some_and(|live| live.cordoned) {
            return Some(String::from(if self.drains(agent) { "it is drained" } else { "it is cordoned" }));
        }
        if let Some(live) = self.live.agent(agent).filter(|live| !live.breaker.is_passable()) {
            return live.breaker.in_words(self.now);
        }
        if let Some(why) = self.live.agent(agent).and_then(|live| live.presence.in_words(self.now)) {
            return Some(why);
        }
        let (needs, custom) = (request.resources, &request.custom);
        if !needs.fits(record.profile.capacity) {
            return Some(format!("it is too small: {}", shortage(needs, record.profile.capacity, "has")));
        }
        let room = self.live.index.room(agent);
        if !needs.fits(room.free) {
            return Some(format!("it is busy: {}", shortage(needs, room.free, "has free")));
        }
        if let Some((name, needs, has)) = custom.lacks(self.live.index.custom(agent)) {
            return Some(format!("it is busy: {name}: has free {has}, the task needs {needs}"));
        }
        if self.live.is_whole(agent) {
            return Some(String::from("it is busy: what is there has it for itself"));
        }
        if request.whole_agent && room.held > 0 {
            return Some(format!("it is busy: it holds {} attempts, and the task wants it for itself", room.held));
        }
        if class.is_some_and(|class| self.live.queue.find(class).is_some_and(|class| class.taken.contains(&agent))) {
            return Some(String::from("it has a task of the same entry, and those are to be on distinct agents"));
        }
        if !room.placeable {
            return Some(String::from("it leaves, or holds more than it offers"));
        }
        if room.held >= self.config.policy.attempts_per_agent {
            return Some(format!("it holds {} attempts, as many as it may", room.held));
        }
        let exclusion = class.and_then(|class| self.live.queue.find(class)?.excluded.get(&agent));
        if exclusion.is_some_and(|exclusion| exclusion.until.is_some()) {
            return Some(String::from("it rejected such a task lately, and is not asked again at once"));
        }
        self.reserved_in_words(agent, class?)
    }
}

/// Reasons, with how many agents they hold for and one of these: those for the most agents first.
pub fn obstacle_rows(obstacles: BTreeMap<String, (u32, String)>, most: usize) -> Vec<fb::ObstacleT> {
    let mut rows: Vec<_> = obstacles.into_iter().collect();
    rows.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    rows.truncate(most);
    let row = |(reason, (agents, example))| fb::ObstacleT { reason: Some(reason), agents, example: Some(example) };
    rows.into_iter().map(row).collect()
}

fn on_in_words(on: fb::DependencyOn) -> &'static str {
    match on {
        fb::DependencyOn::Success => "succeed",
        fb::DependencyOn::Failure => "fail",
        _ => "end",
    }
}

/// Of what there is less than is needed, of what is counted for all: its name, how much is needed, how much there is, and
/// its unit.
pub fn short_amounts(
    needs: Resources,
    room: Resources,
) -> impl Iterator<Item = (&'static str, u32, u32, &'static str)> {
    let parts = [
        ("cpu", needs.cpu, room.cpu, " millicores"),
        ("memory", needs.memory, room.memory, " MB"),
        ("gpu", needs.gpu, room.gpu, ""),
        ("storage", needs.storage, room.storage, " GB"),
    ];
    parts.into_iter().filter(|(_, needs, room, _)| needs > room)
}

fn shortage(needs: Resources, room: Resources, verb: &str) -> String {
    let words = short_amounts(needs, room)
        .map(|(what, needs, room, unit)| format!("{what}: {verb} {room}{unit}, the task needs {needs}{unit}"));
    words.collect::<Vec<_>>().join("; ")
}

/// What an agent lacks, in words that agents share.
pub fn lack_in_words(lack: &Lack) -> String {
    match lack {
        Lack::AgentType(kind) => format!("it is not of kind {}", kind.variant_name().unwrap_or("?").to_lowercase()),
        Lack::Executor(executor) => {
            format!("it cannot run tasks of executor {}", executor.variant_name().unwrap_or("?").to_lowercase())
        }
        Lack::Custom { name, needs, has } => format!("it is too small: {name}: has {has}, the task needs {needs}"),
        Lack::Label(constraint) => {
            let (label, value) = (&constraint.label, &constraint.value);
            match constraint.op {
                fb::ConstraintOp::Equal => format!("its label `{label}` is not `{value}`"),
                fb::ConstraintOp::NotEqual => format!("its label `{label}` is `{value}`"),
                fb::ConstraintOp::Exists => format!("it has no label `{label}`"),
                fb::ConstraintOp::NotExists => format!("it has a label `{label}`"),
                _ => format!("its labels do not satisfy `{constraint}`"),
            }
        }
    }
}
