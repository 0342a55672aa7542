//! Tables for people: what a list of jobs, tasks or agents looks like. Pure: views in, text out.

use crate::plans;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use fleetwire_client::{
    schedules::ScheduleView,
    views::{AgentView, ExplanationView, JobView, QueueView, ResourcesView, TaskView},
};
use std::time::Duration;

/// An empty table with these columns.
pub fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(columns.iter().map(|column| Cell::new(column.to_uppercase())));
    table
}

/// A right-aligned cell.
pub fn number(value: impl ToString) -> Cell {
    Cell::new(value).set_alignment(CellAlignment::Right)
}

/// The table's text, without blanks at the ends of lines.
pub fn text(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Jobs, `now_ms` being the present in Unix milliseconds.
pub fn jobs(jobs: &[JobView], now_ms: u64) -> Table {
    let mut table = table(&["job", "name", "status", "tasks", "progress", "owner", "submitted", "took"]);
    for job in jobs {
        table.add_row([
            number(job.job),
            Cell::new(&job.name),
            Cell::new(job.status),
            number(format!("{}/{}", job.counts.ended(), job.counts.total())),
            number(percent(job.progress)),
            Cell::new(&job.owner),
            Cell::new(ago(job.submitted_at_ms, now_ms)),
            number(took(job.submitted_at_ms, job.ended_at_ms.unwrap_or(now_ms))),
        ]);
    }
    table
}

/// Tasks.
pub fn tasks(tasks: &[TaskView]) -> Table {
    let mut table = table(&["task", "name", "status", "try", "agent", "progress", "took", "metrics", "note"]);
    for task in tasks {
        let status = match (task.suspect, task.retry_at_ms) {
            (true, _) => format!("{}, suspect", task.status),
            (_, Some(_)) => format!("{}, retry due", task.status),
            _ => task.status.to_owned(),
        };
        let metrics: Vec<String> =
            task.metrics.iter().map(|(name, value)| format!("{name}={}", short(*value))).collect();
        table.add_row([
            Cell::new(&task.task),
            Cell::new(&task.name),
            Cell::new(status),
            number(task.attempt),
            Cell::new(task.agent.as_deref().unwrap_or("-")),
            number(percent(task.progress)),
            number(task.end.as_ref().map_or_else(String::new, |end| span(Duration::from_micros(end.wall_us)))),
            Cell::new(metrics.join(" ")),
            Cell::new(said(task)),
        ]);
    }
    table
}

/// Agents, `now_ms` being the present in Unix milliseconds.
pub fn agents(agents: &[AgentView], now_ms: u64) -> Table {
    let columns = ["agent", "state", "kinds", "running", "cpu free", "memory free", "gpu free", "labels", "heard"];
    let mut table = table(&columns);
    for agent in agents {
        let labels: Vec<String> = agent.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let (free, capacity) = (agent.free, agent.capacity);
        table.add_row([
            Cell::new(&agent.name),
            Cell::new(state(agent)),
            Cell::new(kinds(agent)),
            number(agent.running),
            number(format!("{}/{}", cores(free.cpu_millicores), cores(capacity.cpu_millicores))),
            number(format!("{}/{} MB", free.memory_mb, capacity.memory_mb)),
            number(format!("{}/{}", free.gpu, capacity.gpu)),
            Cell::new(labels.join(" ")),
            Cell::new(ago(agent.last_heard_ms, now_ms)),
        ]);
    }
    table
}

/// Schedules: when they are due, and what became of them.
pub fn schedules(schedules: &[ScheduleView], now_ms: u64) -> Table {
    let columns = ["schedule", "cron", "zone", "next", "last", "last job", "runs", "left out", "note"];
    let mut table = table(&columns);
    for schedule in schedules {
        let paused = || Cell::new(if schedule.paused { "paused" } else { "never" });
        table.add_row([
            Cell::new(&schedule.name),
            Cell::new(&schedule.cron),
            Cell::new(&schedule.time_zone),
            schedule.next_at_ms.map_or_else(paused, |next| Cell::new(until(next, now_ms))),
            Cell::new(schedule.last_at_ms.map_or_else(|| String::from("never"), |last| ago(last, now_ms))),
            number(schedule.last_job.map(|job| job.to_string()).unwrap_or_default()),
            number(schedule.runs),
            number(schedule.left_out),
            Cell::new(schedule.note.as_deref().unwrap_or_default()),
        ]);
    }
    table
}

/// Queues: what they have, and what they may.
pub fn queues(queues: &[QueueView]) -> Table {
    let columns =
        ["queue", "weight", "share", "attempts", "waiting", "jobs", "cpu", "memory", "gpu", "storage", "priority"];
    let mut table = table(&columns);
    for queue in queues {
        let (held, quota) = (queue.held, queue.quota);
        let of =
            |held: String, limit: Option<String>| number(limit.map_or(held.clone(), |limit| format!("{held}/{limit}")));
        let most = if queue.priority_max < i8::MAX { format!("up to {}", queue.priority_max) } else { String::new() };
        table.add_row([
            Cell::new(&queue.queue),
            number(queue.weight),
            number(percent(queue.share)),
            number(queue.attempts),
            number(queue.waiting),
            number(queue.jobs),
            of(cores(held.cpu_millicores), quota.cpu_millicores.map(cores)),
            of(format!("{} MB", held.memory_mb), quota.memory_mb.map(|memory| format!("{memory} MB"))),
            of(held.gpu.to_string(), quota.gpu.map(|gpu| gpu.to_string())),
            of(format!("{} GB", held.storage_gb), quota.storage_gb.map(|storage| format!("{storage} GB"))),
            Cell::new(most),
        ]);
    }
    table
}

/// Why agents get no work: each reason once.
pub fn notes(agents: &[AgentView]) -> String {
    let held_back = agents.iter().filter(|agent| agent.cordon.is_none());
    let notes: std::collections::BTreeSet<_> = held_back.filter_map(|agent| agent.note.as_deref()).collect();
    notes.into_iter().map(|note| format!("{note}\n")).collect()
}

fn state(agent: &AgentView) -> &'static str {
    match (agent.cordon, agent.connected, &agent.note) {
        (Some("drained"), true, _) if agent.running > 0 => "draining",
        (Some(cordon), true, _) => cordon,
        (Some(_), false, _) => "away, cordoned",
        (None, true, Some(_)) => "held back",
        (None, true, None) => "connected",
        (None, false, _) => "away",
    }
}

/// Names and values, one a line.
pub fn facts(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    rows.iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name:width$}  {value}\n"))
        .collect()
}

/// One job.
pub fn job(job: &JobView, now_ms: u64) -> String {
    let counts = job.counts;
    let states = [
        (counts.pending, "pending"),
        (counts.assigned, "assigned"),
        (counts.running, "running"),
        (counts.completed, "completed"),
        (counts.failed, "failed"),
        (counts.cancelled, "cancelled"),
        (counts.skipped, "skipped"),
    ];
    let some: Vec<String> =
        states.iter().filter(|(count, _)| *count > 0).map(|(count, state)| format!("{count} {state}")).collect();
    let entries: Vec<String> = job
        .entries
        .iter()
        .map(|entry| if entry.array { format!("{}[{}]", entry.name, entry.count) } else { entry.name.clone() })
        .collect();
    facts(&[
        ("job", format!("{} ({})", job.job, job.name)),
        ("status", job.status.to_owned()),
        ("note", job.note.clone().unwrap_or_default()),
        ("tasks", format!("{}: {}", counts.total(), some.join(", "))),
        ("progress", percent(job.progress)),
        ("entries", entries.join(", ")),
        ("owner", job.owner.clone()),
        ("queue", job.queue.clone()),
        ("labels", pairs(&job.labels)),
        ("annotations", pairs(&job.annotations)),
        ("submitted", ago(job.submitted_at_ms, now_ms)),
        ("took", took(job.submitted_at_ms, job.ended_at_ms.unwrap_or(now_ms))),
    ])
}

fn pairs(texts: &std::collections::BTreeMap<String, String>) -> String {
    texts.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// One agent, with what it holds.
pub fn agent(agent: &AgentView, now_ms: u64) -> String {
    let labels: Vec<String> = agent.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut shown = facts(&[
        ("agent", agent.name.clone()),
        ("state", state(agent).into()),
        ("note", agent.note.clone().unwrap_or_default()),
        ("kinds", kinds(agent)),
        ("labels", labels.join(" ")),
        ("capacity", amounts(agent.capacity)),
        ("free", amounts(agent.free)),
        ("resources", custom(agent)),
        ("in use", amounts(agent.usage)),
        ("host", agent.host.clone()),
        ("software", agent.software.clone()),
        ("heard", ago(agent.last_heard_ms, now_ms)),
    ]);
    if !agent.attempts.is_empty() {
        let mut table = table(&["task", "try", "status", "takes"]);
        for attempt in &agent.attempts {
            table.add_row([
                Cell::new(&attempt.task),
                number(attempt.attempt),
                Cell::new(attempt.status),
                Cell::new(amounts(attempt.resources)),
            ]);
        }
        shown.push('\n');
        shown.push_str(&text(&table));
    }
    shown
}

/// Why a task waits.
pub fn explanation(explanation: &ExplanationView) -> String {
    let mut shown = format!("{} is {}: {}\n", explanation.task, explanation.status, explanation.summary);
    if let Some(earliest) = &explanation.earliest {
        shown.push_str(&format!("it {}\n", plans::earliest(earliest)));
    }
    if !explanation.obstacles.is_empty() {
        let mut table = table(&["agents", "why not", "for instance"]);
        for obstacle in &explanation.obstacles {
            table.add_row([number(obstacle.agents), Cell::new(&obstacle.reason), Cell::new(&obstacle.example)]);
        }
        shown.push('\n');
        shown.push_str(&text(&table));
    }
    shown
}

/// What a task says of itself, or what its end says of it.
pub fn said(task: &TaskView) -> String {
    let Some(end) = task.end.as_ref().filter(|_| task.status != "running") else { return task.note.clone() };
    let how = match (end.reason, end.exit_code, end.signal) {
        ("exited", Some(0), _) => return task.note.clone(),
        ("exited", Some(code), _) => format!("exit status {code}"),
        ("signalled", _, Some(signal)) => format!("signal {signal}"),
        (reason, ..) => reason.replace('_', " "),
    };
    if end.message.is_empty() { how } else { format!("{how}: {}", end.message) }
}

/// How far ahead a moment is.
pub fn until(then_ms: u64, now_ms: u64) -> String {
    match Duration::from_millis(then_ms.saturating_sub(now_ms)).as_secs() {
        0 => String::from("now"),
        seconds => format!("in {}", span(Duration::from_secs(seconds))),
    }
}

/// A moment, as the time since then.
pub fn ago(then_ms: u64, now_ms: u64) -> String {
    match then_ms {
        0 => String::from("never"),
        _ => format!("{} ago", span(Duration::from_millis(now_ms.saturating_sub(then_ms) / 1_000 * 1_000))),
    }
}

/// A length of time in its two largest units.
pub fn span(time: Duration) -> String {
    let (seconds, millis) = (time.as_secs(), time.subsec_millis());
    match seconds {
        0 if millis > 0 => format!("{millis} ms"),
        0 if time.subsec_micros() > 0 => format!("{} µs", time.subsec_micros()),
        1..10 if millis >= 100 => format!("{seconds}.{} s", millis / 100),
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        86_400.. => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// A fraction as whole percents, never 100 before the end.
pub fn percent(fraction: f32) -> String {
    format!("{}%", (f64::from(fraction.clamp(0.0, 1.0)) * 100.0 + 1e-4).floor())
}

/// A number in at most six significant digits.
pub fn short(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return format!("{value}");
    }
    if value.abs() >= 1e6 || value.abs() < 1e-4 {
        return format!("{value:.3e}");
    }
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn took(from_ms: u64, to_ms: u64) -> String {
    span(Duration::from_millis(to_ms.saturating_sub(from_ms)))
}

fn cores(millicores: u32) -> String {
    short(f64::from(millicores) / 1_000.0)
}

fn amounts(it: ResourcesView) -> String {
    format!("{} cores, {} MB, {} GPUs, {} GB", cores(it.cpu_millicores), it.memory_mb, it.gpu, it.storage_gb)
}

fn custom(agent: &AgentView) -> String {
    let words = agent.custom.iter().map(|(name, of)| format!("{name} {} of {} free", of.free, of.capacity));
    words.collect::<Vec<_>>().join(", ")
}

fn kinds(agent: &AgentView) -> String {
    // An agent that takes all kinds of work says so in one word.
    if agent.kinds.len() >= 5 { String::from("any") } else { agent.kinds.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetwire_client::views::{Counts, EndView};

    #[test]
    fn a_list_of_jobs() {
        let job = JobView {
            job: 7,
            name: "first".into(),
            owner: "operator/local".into(),
            status: "running",
            counts: Counts { running: 2, completed: 4, ..Counts::default() },
            progress: 0.999,
            submitted_at_ms: 1_000,
            ..JobView::default()
        };
        let expected = " JOB  NAME   STATUS   TASKS  PROGRESS  OWNER           SUBMITTED  TOOK\n   \
                        7  first  running    4/6       99%  operator/local  1 min 3 s ago  1 min 3 s\n";
        let shown = text(&jobs(&[job], 64_500));
        assert_eq!(shown.split_whitespace().collect::<Vec<_>>(), expected.split_whitespace().collect::<Vec<_>>());
        assert!(shown.lines().all(|line| line.trim_end() == line));
    }

    #[test]
    fn what_is_said_of_a_task_is_how_it_ended() {
        let task =
            |end: EndView| TaskView { status: "failed", note: "half".into(), end: Some(end), ..TaskView::default() };
        let exited = |code| EndView { reason: "exited", exit_code: Some(code), ..EndView::default() };
        assert_eq!(said(&task(exited(0))), "half");
        assert_eq!(said(&task(exited(3))), "exit status 3");
        let spawn = EndView { reason: "spawn_failed", message: "no such program".into(), ..EndView::default() };
        assert_eq!(said(&task(spawn)), "spawn failed: no such program");
    }

    #[test]
    fn times_and_numbers_are_short() {
        assert_eq!(span(Duration::from_millis(1_250)), "1.2 s");
        assert_eq!(span(Duration::from_millis(37)), "37 ms");
        assert_eq!(span(Duration::from_secs(93_600)), "1 d 2 h");
        assert_eq!(ago(0, 5), "never");
        assert_eq!(percent(0.999_9), "99%");
        assert_eq!(percent(1.0), "100%");
        assert_eq!(
            (short(0.25), short(1e9), short(1.234_567_891e7)),
            ("0.25".into(), "1000000000".into(), "1.235e7".into())
        );
    }
}
