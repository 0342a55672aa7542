//! One function per promise, called after every event that could break it. Each holds what is seen
//! outside (messages, processes, what came back after a crash) against the journals' bytes and the
//! devices, never against the tables of the core that it checks.

use crate::{
    device::{Device, Slot},
    history::{AgentHistory, Consequence, History},
    trace::{Violation, broken},
};
use fleetwire_common::{
    envelope::OpenError,
    fb,
    ids::{AttemptId, JobId, JobKey, Position, TaskId},
    message::{Ack, End, Message, attempt_id, is_final},
    resources::Resources,
};

/// Promise P1: nothing that is not yet durable can be seen by anyone. Every message that leaves the
/// scheduler is checked for each fact that it gives away.
pub fn invariant_p1_scheduler_says_only_what_is_durable(history: &History, message: &Message) -> Result<(), Violation> {
    let durable = history.durable;
    let early = |what: String, position: Option<Position>| match position {
        Some(position) if position <= durable => Ok(()),
        Some(position) => broken("P1", format!("{what} was visible at {durable:?}, its fact is {position:?}")),
        None => broken("P1", format!("{what} was visible without any fact")),
    };
    match message {
        Message::Assignment(assignment) => {
            let id = assignment.attempt;
            early(format!("the assignment {id}"), history.attempt(id).map(|attempt| attempt.assigned))
        }
        Message::Ack(Ack::Final(id)) => {
            let ended = history.attempt(*id).and_then(|attempt| attempt.ended);
            early(format!("the end of {id}"), ended.map(|(position, _)| position))
        }
        Message::Rare(fb::SchedulerMessageT::JobSubmitted(submitted)) => {
            let job = JobId(submitted.job);
            early(format!("job {job}"), history.job(job).map(|job| job.accepted))
        }
        Message::Rare(fb::SchedulerMessageT::Nack(nack)) if nack.code == fb::ErrorCode::AttemptEnded => {
            let id = attempt_id(nack.task_id.as_deref(), nack.attempt).unwrap_or_default();
            // The fact says so for this attempt or, where a later one made it obsolete, for its task.
            let ended = history.attempt(id).and_then(|attempt| attempt.ended);
            early(format!("the refusal of {id}"), ended.map(|(position, _)| position))
        }
        Message::Rare(fb::SchedulerMessageT::Page(page)) => {
            for row in page.tasks.iter().flatten().filter(|row| is_final(row.status)) {
                let task: TaskId = row.task_id.as_deref().unwrap_or_default().parse().unwrap_or_default();
                let ended = history.task(task).and_then(|task| task.ended);
                early(format!("the end of {task}"), ended.map(|(position, _)| position))?;
            }
            for row in page.jobs.iter().flatten() {
                let job = history.job(JobId(row.job));
                early(format!("job {}", row.job), job.map(|job| job.accepted))?;
            }
            Ok(())
        }
        Message::Ack(Ack::Request(_) | Ack::Heartbeat(_))
        | Message::Status(_)
        | Message::Heartbeat(_)
        | Message::Acceptance(_)
        | Message::Cancellation(..)
        | Message::Recall(_)
        | Message::Rare(_) => Ok(()),
    }
}

/// Promise P1 at an agent: it accepts only what it has persisted, and reports only results that it has.
pub fn invariant_p1_agent_says_only_what_is_durable(
    history: &AgentHistory,
    message: &Message,
) -> Result<(), Violation> {
    match message {
        Message::Acceptance(id) if !history.has_kept(*id) => {
            broken("P1", format!("an agent accepted {id} before its assignment was durable"))
        }
        // What it does not hold, it may say so of at once: nothing of it ever ran here.
        Message::Status(status)
            if (!history.knows(status.attempt) || history.has_outlived(status.attempt))
                && status.status == fb::TaskStatus::Cancelled =>
        {
            Ok(())
        }
        Message::Status(status) if status.end.is_some() && history.result(status.attempt) != Some(status.status) => {
            broken("P1", format!("an agent reported the end of {} before it was durable", status.attempt))
        }
        Message::Status(status) if !history.has_kept(status.attempt) => {
            broken("P1", format!("an agent reported {} before its assignment was durable", status.attempt))
        }
        Message::Rare(fb::SchedulerMessageT::Register(register)) => {
            for report in register.attempts.iter().flatten() {
                let id = attempt_id(report.task_id.as_deref(), report.attempt).unwrap_or_default();
                if !history.has_kept(id) {
                    return broken("P1", format!("an agent listed {id} before its assignment was durable"));
                }
            }
            Ok(())
        }
        Message::Status(_)
        | Message::Acceptance(_)
        | Message::Assignment(_)
        | Message::Heartbeat(_)
        | Message::Cancellation(..)
        | Message::Recall(_)
        | Message::Ack(_)
        | Message::Rare(_) => Ok(()),
    }
}

/// Promise P2 beyond what the journal alone can say: a result counts only as the device of the assigned
/// agent left it, and only once that agent has it durably.
pub fn invariant_p2_commits_are_what_happened(
    device: &Device,
    agent: &AgentHistory,
    runs_processes: bool,
    (attempt, key, status, end): (AttemptId, JobKey, fb::TaskStatus, &End),
) -> Result<(), Violation> {
    let own = matches!(
        end.reason,
        fb::EndReason::Exited | fb::EndReason::Signalled | fb::EndReason::SpawnFailed | fb::EndReason::Disconnected
    );
    if !own {
        return Ok(());
    }
    let had = agent.ever(attempt, key);
    if had != Some(status) {
        return broken("P2", format!("{attempt} committed as {status:?}; {} had {had:?}", device.name));
    }
    // What a device remembers of a number that a journal and its backup both gave may be the other job's.
    if !runs_processes || agent.has_outlived(attempt) {
        return Ok(());
    }
    match device.truth(attempt) {
        Some(Some((left, how))) if *left == status && how.result == end.result => Ok(()),
        Some(Some((left, _))) => broken("P2", format!("{attempt} committed as {status:?}, it left {left:?}")),
        Some(None) => broken("P2", format!("{attempt} committed as {status:?}, it had not ended")),
        None => broken("P2", format!("{attempt} committed as {status:?}, it never ran on {}", device.name)),
    }
}

/// What is exclusive runs once at a time, on all devices together.
pub fn invariant_p2_exclusive_work_runs_once(
    task: TaskId,
    running: impl Iterator<Item = (String, AttemptId)>,
) -> Result<(), Violation> {
    let there: Vec<(String, AttemptId)> = running.filter(|(_, attempt)| attempt.task == task).collect();
    if there.len() <= 1 { Ok(()) } else { broken("P2", format!("{task} is exclusive and runs as {there:?}")) }
}

/// Promise P3: what all processes on a device were promised together never exceeds what it has.
pub fn invariant_p3_nothing_is_oversubscribed(device: &Device) -> Result<(), Violation> {
    let in_use = device.in_use();
    let custom = device.custom_in_use();
    if let Some((name, sum)) = custom.iter().find(|(name, sum)| **sum > u64::from(device.custom.amount(name))) {
        return broken("P3", format!("{} has {} of {name}, its processes take {sum}", device.name, device.custom));
    }
    if in_use.fits(device.capacity) {
        return Ok(());
    }
    let running: Vec<String> = device
        .slots()
        .filter(|(_, slot)| matches!(slot, Slot::Runs(_)))
        .map(|(attempt, _)| attempt.to_string())
        .collect();
    let (name, capacity) = (&device.name, device.capacity);
    broken("P3", format!("{name} has {capacity:?}, its processes {running:?} take {in_use:?}"))
}

/// Promise P3 where it is decided: when an agent is given one more attempt to start at once, there is room for it
/// beside all processes that the device has and all attempts that may yet start on it. The agent would make it
/// wait, so that nothing else shows it.
pub fn invariant_p3_what_is_placed_fits(
    device: &Device,
    agent: &AgentHistory,
    open: impl Iterator<Item = (AttemptId, Resources)>,
) -> Result<(), Violation> {
    let may_start = |id: AttemptId| !device.runs(id) && device.truth(id).is_none() && !agent.has_result(id);
    let open: Vec<(AttemptId, Resources)> = open.filter(|(id, _)| may_start(*id)).collect();
    let promised = open.iter().fold(device.in_use(), |sum, (_, needs)| sum.plus(*needs));
    if promised.fits(device.capacity) {
        return Ok(());
    }
    let running: Vec<AttemptId> = device.slots().map(|(id, _)| id).filter(|id| device.runs(*id)).collect();
    let (name, capacity) = (&device.name, device.capacity);
    broken("P3", format!("{name} has {capacity:?}, runs {running:?}, and is to run {open:?} beside: {promised:?}"))
}

/// Promise P3 in what an agent answers: the scheduler never gives it more than fits.
pub fn invariant_p3_nothing_has_to_be_refused(name: &str, message: &Message) -> Result<(), Violation> {
    match message {
        Message::Rare(fb::SchedulerMessageT::TaskRejection(rejection))
            if rejection.code == fb::ErrorCode::DoesNotFit =>
        {
            let (task, said) = (rejection.task_id.as_deref(), rejection.message.as_deref());
            broken("P3", format!("{name} was given more than it has: {task:?}: {said:?}"))
        }
        _ => Ok(()),
    }
}

/// Promise P3 in what an agent tells: an attempt has ended only once its last process is gone.
pub fn invariant_p3_ends_are_told_when_all_is_gone(device: &Device, message: &Message) -> Result<(), Violation> {
    match message {
        Message::Status(status) if status.end.is_some() && device.runs(status.attempt) => {
            broken("P3", format!("{} told the end of {}, whose processes run", device.name, status.attempt))
        }
        _ => Ok(()),
    }
}

/// A process starts only once its assignment is durable: after a crash nobody would know of it.
pub fn invariant_p1_spawns_are_durable(history: &AgentHistory, attempt: AttemptId) -> Result<(), Violation> {
    if history.has_kept(attempt) {
        return Ok(());
    }
    broken("P1", format!("{attempt} was started before its assignment was durable"))
}

/// Promise P4: what is due is done in a bounded number of steps.
pub fn invariant_p4_deadlines_are_done(whose: &str, steps: u32) -> Result<(), Violation> {
    if steps <= DEADLINES_MAX { Ok(()) } else { broken("P4", format!("the deadlines of {whose} are never done")) }
}

/// Promise P5: what was replayed or reflected is never opened, and what an honest peer sends is, unless it
/// was under way for too long.
pub fn invariant_p5_only_honest_frames_are_opened(
    forged: bool,
    opened: Result<(), &OpenError>,
) -> Result<(), Violation> {
    match opened {
        Ok(()) if forged => broken("P5", "a frame that was replayed or reflected was opened"),
        Err(error) if !forged && error.code() != fb::ErrorCode::Stale => {
            broken("P5", format!("an honest peer's frame was refused: {error}"))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Promise P6, once nothing is under way: every result that an agent ever had arrived, and its attempt has
/// ended by it or had ended before.
pub fn invariant_p6_every_result_arrived(name: &str, agent: &AgentHistory, history: &History) -> Result<(), Violation> {
    let ended = |id: &AttemptId| history.attempt(*id).is_some_and(|attempt| attempt.ended.is_some());
    // What was assigned before the scheduler went on with a backup is maybe nobody's any more.
    let is_due = |id: &AttemptId| !agent.has_outlived(*id) || history.attempt(*id).is_some();
    match agent.results().find(|id| is_due(id) && !ended(id)) {
        Some(id) => broken("P6", format!("the result of {id} on {name} never arrived")),
        None => Ok(()),
    }
}

/// Promise P7: the live state is what the journal's bytes say, in every part.
pub fn invariant_p7_state_is_what_facts_say<S: PartialEq>(whose: &str, live: &S, shadow: &S) -> Result<(), Violation> {
    if live == shadow { Ok(()) } else { broken("P7", format!("the live state of {whose} is not what its facts say")) }
}

/// The same, cheaply, for what a fact touched.
pub fn invariant_p7_touched_is_what_facts_say(
    live: &fleetwire_scheduler_core::State,
    shadow: &fleetwire_scheduler_core::State,
    consequence: &Consequence,
) -> Result<(), Violation> {
    let (what, agrees) = match consequence {
        Consequence::Task(task) => (task.to_string(), live.agrees_on_task(shadow, *task)),
        Consequence::Ended { attempt, .. } => (attempt.to_string(), live.agrees_on_task(shadow, attempt.task)),
        Consequence::Job(job) => (format!("job {job}"), live.agrees_on_job(shadow, *job)),
        Consequence::None => return Ok(()),
    };
    if agrees { Ok(()) } else { broken("P7", format!("the live state of {what} is not what its facts say")) }
}

/// Deadlines handled at one moment before we say that a core goes round in circles.
const DEADLINES_MAX: u32 = 10_000;
