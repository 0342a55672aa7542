//! The story of why: for any task, what it waits for, and what each agent lacks.

use crate::{
    core::Core,
    event::Rejected,
    limits::OBSTACLES_MAX,
    placement::{Lack, suits},
    queue::{ClassId, Request},
};
use fleetwire_common::{
    fb,
    ids::{AgentId, TaskId},
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
        };
        if status != fb::TaskStatus::Pending {
            return Ok(explanation);
        }
        let Some(spec) = self.state.task_spec(task) else { return Ok(explanation) };
        let request = Request::of(spec);
        let class = self.live.class_of(task);
        let mut obstacles: BTreeMap<String, (u32, String)> = BTreeMap::new();
        let mut fitting = 0u32;
        for (agent, record) in self.state.agents.known() {
            match self.obstacle(agent, &request, class) {
                Some(reason) => {
                    let (count, _) = obstacles.entry(reason).or_insert_with(|| (0, record.name.to_string()));
                    *count += 1;
                }
                None => fitting += 1,
            }
        }
        if fitting > 0 {
            let reason = String::from("nothing: it fits, and is next once it is this task's turn");
            obstacles.insert(reason, (fitting, String::new()));
        }
        let mut rows: Vec<_> = obstacles.into_iter().collect();
        rows.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        rows.truncate(OBSTACLES_MAX);
        let row = |(reason, (agents, example))| fb::ObstacleT { reason: Some(reason), agents, example: Some(example) };
        explanation.obstacles = Some(rows.into_iter().map(row).collect());
        Ok(explanation)
    }

    fn summarise(&self, task: TaskId, status: fb::TaskStatus) -> String {
        match status {
            fb::TaskStatus::Pending => {
                if let Some(notice) = self.notice() {
                    return format!("waits: {notice}");
                }
                let settled_at = self.settled_at(task.job);
                if settled_at > self.now {
                    let wait = settled_at.since(self.now).as_secs_f64();
                    return format!(
                        "waits {wait:.1} s more: it is exclusive, and an attempt that the restored backup does not know may \
                         still run until its agent stops it"
                    );
                }
                if let Some(record) = self.state.tasks.get(&task).filter(|record| record.pending_since > self.now) {
                    let wait = record.pending_since.since(self.now);
                    let failures = record.failures;
                    return format!("waits {:.1} s more for its retry, after {failures} failures", wait.as_secs_f64());
                }
                if self.state.agents.known().next().is_none() {
                    return String::from("waits: no agent has registered");
                }
                let ahead = self.live.class_of(task).map_or(0, |class| self.live.queue.ahead_of(class, task));
                format!("waits for an agent; {ahead} tasks are served before it")
            }
            fb::TaskStatus::Assigned | fb::TaskStatus::Running => {
                let open = self.state.tasks.get(&task).and_then(|record| record.open.latest());
                let Some(open) = open else { return String::from("is assigned") };
                let name = self.agent_name(open.agent);
                let away = if self.session_of(open.agent).is_some() { "" } else { ", which is not connected" };
                let stops = if self.state.is_cancelled(task) { "; it was asked to stop" } else { "" };
                format!("attempt {} is on agent `{name}`{away}{stops}", open.attempt)
            }
            _ => {
                let reason = self.state.last_end(task).and_then(|ended| ended.reason.variant_name());
                let status = status.variant_name().unwrap_or("ended");
                format!("has ended: {status} ({})", reason.unwrap_or("it never had an agent"))
            }
        }
    }

    /// Why an agent cannot take a request now; in words that agents share.
    fn obstacle(&self, agent: AgentId, request: &Request, class: Option<ClassId>) -> Option<String> {
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
        if let Some(live) = self.live.agent(agent).filter(|live| !live.breaker.is_passable()) {
            return live.breaker.in_words(self.now);
        }
        let needs = request.resources;
        if !needs.fits(record.profile.capacity) {
            return Some(format!("it is too small: {}", shortage(needs, record.profile.capacity, "has")));
        }
        let room = self.live.index.room(agent);
        if !needs.fits(room.free) {
            return Some(format!("it is busy: {}", shortage(needs, room.free, "has free")));
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
        None
    }
}

fn shortage(needs: Resources, room: Resources, verb: &str) -> String {
    let parts = [
        ("cpu", needs.cpu, room.cpu, " millicores"),
        ("memory", needs.memory, room.memory, " MB"),
        ("gpu", needs.gpu, room.gpu, ""),
        ("storage", needs.storage, room.storage, " GB"),
    ];
    let short = parts.into_iter().filter(|(_, needs, room, _)| needs > room);
    let words =
        short.map(|(what, needs, room, unit)| format!("{what}: {verb} {room}{unit}, the task needs {needs}{unit}"));
    words.collect::<Vec<_>>().join("; ")
}

fn lack_in_words(lack: &Lack) -> String {
    match lack {
        Lack::AgentType(kind) => format!("it is not of kind {}", kind.variant_name().unwrap_or("?").to_lowercase()),
        Lack::Executor(executor) => {
            format!("it cannot run tasks of executor {}", executor.variant_name().unwrap_or("?").to_lowercase())
        }
        Lack::Label { label, op, value } => match *op {
            fb::ConstraintOp::Equal => format!("its label `{label}` is not `{value}`"),
            fb::ConstraintOp::NotEqual => format!("its label `{label}` is `{value}`"),
            fb::ConstraintOp::Exists => format!("it has no label `{label}`"),
            _ => format!("it has a label `{label}`"),
        },
    }
}
