//! What may be tuned, every bound of the core, and the pure rules: what becomes of a task when an
//! attempt ends, and how long a retry waits.

use fleetwire_common::{
    fb,
    ids::{AttemptId, TaskId},
    job::TaskSpec,
    policy::{Preempt, Reserve},
};
use std::time::Duration;

/// Settings and bounds. The defaults suit a cluster of some thousand agents.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Every how many heartbeats an agent asks for an answer.
    pub answer_every: u16,
    /// Heartbeat intervals without a message after which a session of an agent is closed.
    pub silent_intervals: u32,
    /// Within this an agent that connected registers.
    pub register_within: Duration,
    /// How long an agent is away before that becomes a fact.
    pub unreachable_after: Duration,
    /// The shortest time between two such facts of one agent.
    pub unreachable_every: Duration,
    /// Failures in a row, of different tasks, after which an agent gets nothing for a while,
    pub breaker_failures: u32,
    /// for so long; doubles each time that the task to try with fails too,
    pub breaker_cooling: Duration,
    /// up to this.
    pub breaker_cooling_max: Duration,
    /// Lost connections, each within
    pub flapping_losses: u32,
    /// so long after the one before, after which an agent that comes back must stay
    pub flapping_within: Duration,
    /// for so long until it is given anything; doubles with each further loss,
    pub quarantine: Duration,
    /// up to this.
    pub quarantine_max: Duration,
    /// How long an agent may be away until it is not expected back, by what was noted of it; after a start it
    /// has at least an hour.
    pub forget_after: Duration,
    /// The longest wait before a retry.
    pub backoff_max: Duration,
    /// After a rejection: how long the agent is not offered the same class; doubles with each.
    pub readmit_after: Duration,
    /// The longest such time.
    pub readmit_max: Duration,
    /// After an attempt's run timeout and kill grace: how long its agent may take to report.
    pub backstop_after: Duration,
    /// A held query is answered at a change, but not before this.
    pub watch_min: Duration,
    /// How long an agent may take to answer a log request.
    pub log_within: Duration,
    /// Messages a second that one session may send for long; those that move an attempt on are free.
    pub messages_per_s: u32,
    /// Messages that one session may send at once beyond that.
    pub messages_burst: u32,
    /// Submit ids kept at a time.
    pub submits_max: usize,
    /// Jobs kept at a time.
    pub jobs_max: usize,
    /// Tasks of all kept jobs together.
    pub tasks_max: u64,
    /// Bytes of all kept jobs' specs and results together; beyond it, new jobs and results are not taken,
    /// and the agents offer their results again until there is room.
    pub kept_bytes_max: u64,
    /// Bytes of blobs in one segment of them: no more than fit into a segment of the journal, behind a header.
    pub blob_segment_bytes: u64,
    /// Segments of blobs at a time; beyond it, bodies stay in memory, as far as `kept_bytes_max` allows.
    pub blob_segments_max: usize,
    /// Ended jobs are forgotten after this time, the oldest first,
    pub ended_kept: Duration,
    /// or when there are more than this,
    pub ended_jobs_max: usize,
    /// or when they have more tasks than this,
    pub ended_tasks_max: u64,
    /// or more bytes of specs and results.
    pub ended_bytes_max: u64,
    /// Agents known at a time.
    pub agents_max: usize,
    /// Principals enrolled.
    pub principals_max: usize,
    /// Tokens kept at a time.
    pub tokens_max: usize,
    /// Uses of one token.
    pub token_uses_max: u32,
    /// Sessions at a time.
    pub sessions_max: usize,
    /// Attempts that an agent may hold at a time.
    pub attempts_per_agent: u32,
    /// Placements in one step; what is left goes on in the next.
    pub placements_per_step: usize,
    /// What is reserved for classes that have waited for long, unless operators have said otherwise.
    pub reserve: Reserve,
    /// Who makes way for what is more urgent, unless operators have said otherwise.
    pub preempt: Preempt,
    /// Deadlines handled in one step; what is left goes on in the next.
    pub deadlines_per_step: usize,
    /// Held queries: in all, and of one session.
    pub watches_max: (usize, u32),
    /// Log requests under way: in all, and of one session.
    pub logs_max: (usize, u32),
    /// Bytes of one page of an answer, about.
    pub page_bytes: usize,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            answer_every: 4,
            silent_intervals: 4,
            register_within: Duration::from_secs(30),
            unreachable_after: Duration::from_secs(5),
            unreachable_every: Duration::from_secs(60),
            breaker_failures: 8,
            breaker_cooling: Duration::from_secs(60),
            breaker_cooling_max: Duration::from_secs(15 * 60),
            flapping_losses: 5,
            flapping_within: Duration::from_secs(5 * 60),
            quarantine: Duration::from_secs(30),
            quarantine_max: Duration::from_secs(4 * 60),
            forget_after: Duration::from_secs(30 * 24 * 3600),
            backoff_max: Duration::from_secs(300),
            readmit_after: Duration::from_secs(1),
            readmit_max: Duration::from_secs(60),
            backstop_after: Duration::from_secs(60),
            watch_min: Duration::from_millis(50),
            log_within: Duration::from_secs(15),
            messages_per_s: 5_000,
            messages_burst: 50_000,
            submits_max: 200_000,
            jobs_max: 100_000,
            tasks_max: 4_000_000,
            kept_bytes_max: 1 << 30,
            blob_segment_bytes: (16 << 20) - 512,
            blob_segments_max: 256,
            ended_kept: Duration::from_secs(7 * 24 * 3600),
            ended_jobs_max: 10_000,
            ended_tasks_max: 1_000_000,
            ended_bytes_max: 256 << 20,
            agents_max: 100_000,
            principals_max: 200_000,
            tokens_max: 10_000,
            token_uses_max: 100_000,
            sessions_max: 200_000,
            attempts_per_agent: 8_192,
            placements_per_step: 1_024,
            reserve: Reserve::default(),
            preempt: Preempt::default(),
            deadlines_per_step: 1_024,
            watches_max: (4_096, 64),
            logs_max: (1_024, 16),
            page_bytes: 128 << 10,
        }
    }
}

/// What becomes of a task when one of its attempts ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The task's status from now on: `Pending` (it is tried again), `Assigned` (its other attempt goes
    /// on), or how it ended.
    pub task_status: fb::TaskStatus,
    /// Counts towards `max_attempts`.
    pub failure: bool,
    /// Counts towards `max_losses`.
    pub loss: bool,
    /// The task's other attempt ends with it.
    pub ends_rival: bool,
}

/// How a task stands when one of its attempts ends.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Failures before this end.
    pub failures: u32,
    /// Losses before this end.
    pub losses: u32,
    /// Whether it has another attempt that has not ended.
    pub rival: bool,
    /// How it ends, because it, or its whole job, was asked to stop.
    pub stopped: Option<fb::TaskStatus>,
    /// Whether it was asked to make way, for a drain or for what is more urgent.
    pub makes_way: bool,
    /// Whether it may still make way for what is more urgent: then its agent is believed that it did, although a start has
    /// forgotten that it was asked.
    pub may_make_way: bool,
    /// Whether its job wants lost tasks to be tried elsewhere.
    pub retry_lost: bool,
    /// Whether its gang starts anew, because another of its members was lost: what becomes of this one counts no more.
    pub starts_anew: bool,
}

/// Decides what becomes of a task when an attempt ends with `status` for `reason`.
pub fn outcome(spec: &TaskSpec, stands: Standing, status: fb::TaskStatus, reason: fb::EndReason) -> Outcome {
    // Neither was started: nothing was tried.
    let rejected = matches!(reason, fb::EndReason::Rejected | fb::EndReason::Released);
    // It made way; whoever says so unasked is not believed, or not for ever.
    let makes_way = match reason {
        fb::EndReason::Drained => stands.makes_way,
        fb::EndReason::Preempted => stands.makes_way || stands.may_make_way,
        _ => false,
    };
    // What is lost counts even so, if it is not to be tried again.
    let starts_anew = stands.starts_anew && (stands.retry_lost || reason == fb::EndReason::GangLost);
    let rejected = rejected || makes_way || starts_anew;
    // It made way for the task's other attempt; whoever says so without one is not believed.
    let rejected = rejected || (reason == fb::EndReason::Rival && stands.rival);
    let failure = matches!(status, fb::TaskStatus::Failed | fb::TaskStatus::TimedOut) && !stands.starts_anew;
    // What no other attempt can have either; one that runs has it already.
    let is_hopeless = matches!(reason, fb::EndReason::FilesLost | fb::EndReason::InputsTooLarge) && !stands.rival;
    let completed = status == fb::TaskStatus::Completed;
    // An agent that stops an attempt nobody asked it to stop has lost it, as far as the task goes.
    let loss = !failure && !completed && !rejected && stands.stopped.is_none();
    let ends = |task_status| Outcome { task_status, failure, loss, ends_rival: stands.rival };
    if completed {
        ends(fb::TaskStatus::Completed)
    } else if let Some(status) = stands.stopped {
        ends(status)
    } else if failure && (is_hopeless || stands.failures + 1 >= spec.max_attempts) {
        ends(status)
    } else if loss && (!stands.retry_lost || stands.losses + 1 >= spec.max_losses) {
        ends(fb::TaskStatus::Lost)
    } else if spec.gang_lost == fb::OnLost::Fail {
        ends(if failure { status } else { fb::TaskStatus::Failed })
    } else {
        let task_status = if stands.rival { fb::TaskStatus::Assigned } else { fb::TaskStatus::Pending };
        Outcome { task_status, failure, loss, ends_rival: false }
    }
}

/// How long a task waits after its `failures`-th failure: doubling from the spec's base, capped, ±25 %
/// of jitter that depends on nothing but the seed and the attempt.
pub fn backoff(policy: &Policy, seed: u64, spec: &TaskSpec, failures: u32, attempt: AttemptId) -> Duration {
    let doubled = u64::from(spec.backoff_ms).saturating_mul(1 << failures.saturating_sub(1).min(30));
    let base_us = doubled.saturating_mul(1_000).min(policy.backoff_max.as_micros() as u64);
    let TaskId { job, entry, index } = attempt.task;
    let mut random = seed;
    for part in [job.0, u64::from(entry), u64::from(index), u64::from(attempt.attempt)] {
        random = mix(random ^ part);
    }
    // 75 % to 125 %, in steps of a 65,536th of half the base.
    let jittered = base_us / 4 * 3 + base_us / 2 * (random >> 48) / 65_536;
    Duration::from_micros(jittered)
}

/// SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014): every bit of the input moves every bit
/// of the output.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fb::{EndReason as R, TaskStatus as S};

    const FRESH: Standing = Standing {
        failures: 0,
        losses: 0,
        rival: false,
        stopped: None,
        makes_way: false,
        may_make_way: false,
        retry_lost: true,
        starts_anew: false,
    };

    fn spec() -> TaskSpec {
        TaskSpec { max_attempts: 2, max_losses: 2, ..TaskSpec::default() }
    }

    #[test]
    fn failures_and_losses_are_counted_apart() {
        let after = |stands, status, reason| outcome(&spec(), stands, status, reason).task_status;
        assert_eq!(after(FRESH, S::Failed, R::Exited), S::Pending);
        assert_eq!(after(Standing { failures: 1, ..FRESH }, S::Failed, R::Exited), S::Failed);
        assert_eq!(after(Standing { losses: 1, ..FRESH }, S::Failed, R::Exited), S::Pending);
        assert_eq!(after(Standing { losses: 1, ..FRESH }, S::Lost, R::AgentLost), S::Lost);
        assert_eq!(after(Standing { losses: 1, failures: 1, ..FRESH }, S::Cancelled, R::Rejected), S::Pending);
        assert_eq!(after(Standing { retry_lost: false, ..FRESH }, S::Lost, R::AgentLost), S::Lost);
        assert_eq!(after(Standing { retry_lost: false, ..FRESH }, S::Failed, R::Exited), S::Pending);
        assert_eq!(after(Standing { rival: true, losses: 1, ..FRESH }, S::Cancelled, R::Rival), S::Assigned);
        assert_eq!(after(Standing { losses: 1, ..FRESH }, S::Cancelled, R::Rival), S::Lost);
        let stopped = |status| Standing { stopped: Some(status), ..FRESH };
        assert_eq!(after(stopped(S::Cancelled), S::Failed, R::Exited), S::Cancelled);
        assert_eq!(after(stopped(S::TimedOut), S::Cancelled, R::DeadlinePassed), S::TimedOut);
        assert_eq!(after(stopped(S::TimedOut), S::Completed, R::Exited), S::Completed);
        assert_eq!(after(Standing { rival: true, ..FRESH }, S::Failed, R::Exited), S::Assigned);
        assert_eq!(
            after(Standing { rival: true, ..FRESH }, S::Failed, R::FilesLost),
            S::Assigned,
            "the other has them"
        );
        let last = outcome(&spec(), Standing { rival: true, failures: 1, ..FRESH }, S::TimedOut, R::RunTimeout);
        assert_eq!(last, Outcome { task_status: S::TimedOut, failure: true, loss: false, ends_rival: true });
    }

    #[test]
    fn every_end_is_a_result_a_failure_a_loss_or_no_try_at_all() {
        let ends = S::ENUM_VALUES.iter().filter(|status| crate::attempts::is_end(**status));
        for (status, reason) in ends.flat_map(|status| R::ENUM_VALUES.iter().map(move |reason| (*status, *reason))) {
            let (task_status, failure, loss) = match (status, reason) {
                (S::Completed, _) => (S::Completed, false, false),
                (S::Failed | S::TimedOut, R::FilesLost | R::InputsTooLarge) => (status, true, false),
                (S::Failed | S::TimedOut, _) => (S::Pending, true, false),
                (_, R::Rejected | R::Released) => (S::Pending, false, false),
                (_, _) => (S::Pending, false, true),
            };
            let first = outcome(&spec(), FRESH, status, reason);
            assert_eq!(first, Outcome { task_status, failure, loss, ends_rival: false }, "{status:?} {reason:?}");
            // A task that has had as many of its kind as it may is not tried again.
            let spent = Standing { failures: 1, losses: 1, ..FRESH };
            let last = outcome(&spec(), spent, status, reason).task_status;
            let over = if failure {
                status
            } else if loss {
                S::Lost
            } else {
                task_status
            };
            assert_eq!(last, over, "{status:?} {reason:?}");
        }
    }

    #[test]
    fn backoff_doubles_within_its_jitter_and_its_cap() {
        let (policy, task) = (Policy::default(), TaskId::default());
        for failures in 1..40u32 {
            let wait = backoff(&policy, 7, &spec(), failures, AttemptId { task, attempt: failures });
            let base = Duration::from_secs(1 << (failures - 1).min(20)).min(policy.backoff_max);
            assert!(wait >= base * 3 / 4 && wait <= base * 5 / 4, "{failures}: {wait:?}");
        }
        let one = |seed| backoff(&policy, seed, &spec(), 1, AttemptId { task, attempt: 1 });
        assert_ne!(one(1), one(2));
        assert_eq!(one(1), one(1));
    }
}
