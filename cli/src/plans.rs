//! What has not happened yet, for people: when something could start, and what would become of a job. Pure: views in, text out.

use crate::table::{self, span};
use comfy_table::{Cell, Table};
use fleetwire_client::{
    plans::{EarliestView, PlanView, PlannedView, SemaphoreView, TotalView},
    views::QueueView,
};
use std::time::Duration;

/// When something could start, as the end of a sentence.
pub fn earliest(earliest: &EarliestView) -> String {
    let EarliestView { in_ms, agent, task, attempt, ends, why, looked_at, suitable, .. } = earliest;
    let Some(in_ms) = in_ms else { return format!("could start nobody knows when: {why}") };
    let when = match in_ms {
        0 => String::from("could start at once"),
        _ => format!("could start at the earliest in {}", span(Duration::from_millis(*in_ms))),
    };
    let place = agent.as_ref().map(|agent| format!(", on agent `{agent}`")).unwrap_or_default();
    let ending = match (task, attempt) {
        (Some(task), Some(attempt)) => format!(", if attempt {attempt} of {task} ends by its timeout"),
        _ if *in_ms == 0 => String::from(", if nothing else is served before it"),
        _ => String::new(),
    };
    let others = match ends.saturating_sub(1) {
        0 => String::new(),
        1 => String::from(" and one more there by its own"),
        others => format!(" and {others} more there by theirs"),
    };
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    let bounded = match looked_at < suitable {
        true => format!(" ({looked_at} of the {suitable} agents that may take it were looked at)"),
        false => String::new(),
    };
    format!("{when}{place}{ending}{others}{why}{bounded}")
}

/// What would become of a job.
pub fn plan(plan: &PlanView) -> String {
    let outcome = if plan.accepted { "would be accepted" } else { "would be refused" };
    let (tasks, entries) = (counted(plan.tasks, "task"), counted(plan.entries.len() as u64, "entry"));
    if plan.name.is_empty() {
        return format!("the job {outcome}\n");
    }
    let fleet = counted(u64::from(plan.agents), "agent");
    let mut rows = vec![
        ("job", format!("{} {outcome}: {tasks} in {entries}", plan.name)),
        ("asks for", format!("{} in all", amounts(plan.asked))),
        ("the fleet", format!("{} in {fleet}", amounts(plan.capacity))),
    ];
    rows.extend(plan.queue.as_ref().map(|queue| ("queue", queue_in_words(queue))));
    let semaphore = |one: &SemaphoreView| format!("{}: {} of {} taken", one.name, one.taken, one.max);
    let semaphores: Vec<String> = plan.semaphores.iter().map(semaphore).collect();
    rows.push(("semaphores", semaphores.join(", ")));
    let mut shown = table::facts(&rows);
    shown.push('\n');
    shown.push_str(&table::text(&entries_table(plan)));
    shown.push('\n');
    plan.entries.iter().for_each(|entry| shown.push_str(&sentence(entry)));
    let obstacles = obstacles(plan);
    if !obstacles.is_empty() {
        shown.push('\n');
        shown.push_str(&obstacles);
    }
    let fewest = plan.entries.iter().map(|entry| entry.looked_at).min().unwrap_or(plan.agents);
    if fewest < plan.agents {
        shown.push_str(&format!("\nof the {fleet} {fewest} were looked at for each entry: there are many of both\n"));
    }
    shown
}

fn entries_table(plan: &PlanView) -> Table {
    let mut table = table::table(&["entry", "tasks", "after", "agents", "at once", "where"]);
    for entry in &plan.entries {
        let mut places: Vec<String> = entry.places.iter().map(|(agent, tasks)| format!("{agent} {tasks}")).collect();
        let more = (entry.agents as usize).saturating_sub(places.len());
        if more > 0 {
            places.push(format!("{more} more"));
        }
        table.add_row([
            Cell::new(&entry.name),
            table::number(entry.count),
            Cell::new(entry.after.join(", ")),
            table::number(format!("{}/{}", entry.suitable, entry.looked_at)),
            table::number(entry.now),
            Cell::new(places.join(", ")),
        ]);
    }
    table
}

/// When an entry would start, and why not all of it at once.
fn sentence(entry: &PlannedView) -> String {
    let rest = entry.count - entry.now.min(entry.count);
    let start = match (entry.now, entry.step) {
        (0, 0) => earliest(&entry.earliest),
        (0, _) => format!("starts later: {}", entry.earliest.why),
        _ if rest == 0 => String::from("would start at once"),
        (now, _) => format!("would start at once with {}", counted(u64::from(now), "task")),
    };
    let why = match &entry.held_back {
        Some(why) if entry.now > 0 => format!("; the other {rest} wait, for {why}"),
        None if entry.now > 0 && rest > 0 => format!("; the other {rest} wait for agents"),
        _ => String::new(),
    };
    format!("{} {start}{why}\n", entry.name)
}

/// Why agents take nothing of an entry, entry by entry.
fn obstacles(plan: &PlanView) -> String {
    let mut table = table::table(&["entry", "agents", "why not", "for instance"]);
    let open = plan.entries.iter().filter(|entry| entry.now < entry.count && !entry.obstacles.is_empty());
    for (entry, obstacle) in open.flat_map(|entry| entry.obstacles.iter().map(move |obstacle| (entry, obstacle))) {
        let example = Cell::new(&obstacle.example);
        let agents = table::number(obstacle.agents);
        table.add_row([Cell::new(&entry.name), agents, Cell::new(&obstacle.reason), example]);
    }
    if table.is_empty() { String::new() } else { table::text(&table) }
}

fn queue_in_words(queue: &QueueView) -> String {
    let (held, quota) = (queue.held, queue.quota);
    let of = |held: String, limit: Option<String>| limit.map(|limit| format!("{held} of {limit}"));
    let cores = |millicores: u32| table::short(f64::from(millicores) / 1_000.0);
    let parts = [
        of(cores(held.cpu_millicores), quota.cpu_millicores.map(|cpu| format!("{} cores", cores(cpu)))),
        of(held.memory_mb.to_string(), quota.memory_mb.map(|memory| format!("{memory} MB"))),
        of(held.gpu.to_string(), quota.gpu.map(|gpu| format!("{gpu} GPUs"))),
        of(held.storage_gb.to_string(), quota.storage_gb.map(|storage| format!("{storage} GB"))),
    ];
    let limits: Vec<String> = parts.into_iter().flatten().collect();
    let limits = if limits.is_empty() { String::new() } else { format!(", and holds {}", limits.join(", ")) };
    format!("{}, which has {} of the cluster{limits}", queue.queue, table::percent(queue.share))
}

fn counted(count: u64, what: &str) -> String {
    match (count, what.strip_suffix('y')) {
        (1, _) => format!("1 {what}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        (_, None) => format!("{count} {what}s"),
    }
}

fn amounts(it: TotalView) -> String {
    let cores = table::short(it.cpu_millicores as f64 / 1_000.0);
    format!("{cores} cores, {} MB, {} GPUs, {} GB", it.memory_mb, it.gpu, it.storage_gb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_something_could_start_is_one_sentence() {
        let known = EarliestView {
            in_ms: Some(200_000),
            agent: Some("edge-7".into()),
            task: Some("7.0.0".into()),
            attempt: Some(1),
            ends: 3,
            looked_at: 512,
            suitable: 9_000,
            ..EarliestView::default()
        };
        assert_eq!(
            earliest(&known),
            "could start at the earliest in 3 min 20 s, on agent `edge-7`, if attempt 1 of 7.0.0 ends by its timeout and 2 \
             more there by theirs (512 of the 9000 agents that may take it were looked at)"
        );
        let there = EarliestView { task: None, attempt: None, ends: 0, looked_at: 1, suitable: 1, ..known };
        let later = EarliestView { why: "its job does not start before".into(), ..there.clone() };
        assert_eq!(
            earliest(&later),
            "could start at the earliest in 3 min 20 s, on agent `edge-7`: its job does not start before"
        );
        let now = EarliestView { in_ms: Some(0), ..there };
        assert_eq!(earliest(&now), "could start at once, on agent `edge-7`, if nothing else is served before it");
        let unknown = EarliestView { in_ms: None, why: "it waits".into(), ..now };
        assert_eq!(earliest(&unknown), "could start nobody knows when: it waits");
    }
}
