//! A job's terms: when it runs, when it is stopped, and what becomes of its attempts when their agents are not heard
//! (docs/jobs.md).
//!
//! Invariant: terms that passed `Terms::check` keep what they promise: where two attempts at once must
//! never be, the agent has stopped the one before the scheduler may start the other.

use crate::{fb, job::TaskSpec};
use std::time::Duration;

/// A job's terms. Amounts of time about agents that are not heard are counted from the latest message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Seconds until its attempts are suspect.
    pub lost_after_s: u64,
    /// Milliseconds until the agent itself stops them, counted from the sending of the last heartbeat that was
    /// answered; 0 = never.
    pub stop_on_disconnect_after_ms: u64,
    /// Whether a task whose agent was lost is tried elsewhere. Without it the task has then failed.
    pub retry_lost: bool,
    /// Which of two attempts goes on once both of their agents are heard.
    pub keep: fb::Keep,
    /// Two attempts of a task at once must never be.
    pub exclusive: bool,
    /// Once so many tasks have failed, been lost or timed out for good, all the others are stopped; 0 = never.
    pub stop_after_failures: u32,
    /// Milliseconds from the submit: what has not ended then is stopped; 0 = never.
    pub deadline_ms: u64,
    /// Milliseconds from the submit: nothing is assigned before.
    pub start_after_ms: u64,
    /// The same as cluster time, Unix ms; 0 = none. One that has passed keeps nothing back.
    pub start_at_ms: u64,
    /// Attempts that may be assigned or running at once; 0 = any number.
    pub max_running: u32,
    /// It is taken although no agent that is known could ever run some of its tasks: others are to come.
    pub await_agents: bool,
}

/// Why terms are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum TermsError {
    #[error("keep is {found}: expected original, replacement or best_progress")]
    Keep { found: u8 },
    #[error(
        "exclusive work, what holds a semaphore, and a gang must be stopped by its agent before it may start elsewhere: set stop_on_disconnect_after, \
         to less than lost_after ({lost_after_s} s) less the kill_grace"
    )]
    NeverStopped { lost_after_s: u64 },
    #[error(
        "exclusive work must be stopped before it may start elsewhere: stop_on_disconnect_after ({stop_ms} ms) and \
         kill_grace ({kill_grace_ms} ms), a 64th of both for slow clocks and a second, come to more than lost_after ({lost_after_s} s) \
         allows; raise lost_after"
    )]
    StopsTooLate { stop_ms: u64, kill_grace_ms: u32, lost_after_s: u64 },
    #[error(
        "stop_on_disconnect_after is {stop_ms} ms: expected at least {min_ms} ms, three of the heartbeat intervals \
         of this cluster, or one lost packet would stop the work"
    )]
    StopsTooSoon { stop_ms: u64, min_ms: u64 },
    #[error(
        "the job could never run: it may start {start_ms} ms after it was submitted, and its deadline is {deadline_ms} ms \
         after that; raise deadline, or lower start_after"
    )]
    NeverStarts { start_ms: u64, deadline_ms: u64 },
    #[error("start_at and start_after exclude each other: say when the job starts once")]
    StartsTwice,
    #[error("start_at is {ahead_s} s ahead: expected at most {max_s} s, five years; is the year right?")]
    StartsTooLate { ahead_s: u64, max_s: u64 },
}

impl Terms {
    /// Terms that differ from the default in one way.
    pub fn lost_after(lost_after_s: u64) -> Terms {
        Terms { lost_after_s, ..Terms::default() }
    }

    /// When an agent's attempts of this job are suspect, counted from its latest message.
    pub fn suspect_after(&self) -> Duration {
        Duration::from_secs(self.lost_after_s.max(1))
    }

    /// When nothing of an attempt can be left on an agent that is not heard, by our clock; `None` if nobody stops it
    /// there. The device counts by its own, which may be slow, and killing takes a moment.
    pub fn gone_after(&self, kill_grace_ms: u32) -> Option<Duration> {
        let stops = self.stop_on_disconnect_after_ms > 0;
        stops.then(|| {
            let ms = self.stop_on_disconnect_after_ms.saturating_add(kill_grace_ms.into());
            Duration::from_millis(ms.saturating_add(ms / SLOW_CLOCK).saturating_add(KILL_TAKES_MS))
        })
    }

    /// Checks terms against the tasks of their job.
    pub(crate) fn check(&self, tasks: &[TaskSpec]) -> Result<(), TermsError> {
        let Terms { lost_after_s, stop_on_disconnect_after_ms: stop_ms, exclusive, .. } = *self;
        let (start_ms, deadline_ms) = (self.start_after_ms, self.deadline_ms);
        if deadline_ms > 0 && start_ms >= deadline_ms {
            return Err(TermsError::NeverStarts { start_ms, deadline_ms });
        }
        if start_ms > 0 && self.start_at_ms > 0 {
            return Err(TermsError::StartsTwice);
        }
        if !exclusive {
            return Ok(());
        }
        if stop_ms == 0 {
            return Err(TermsError::NeverStopped { lost_after_s });
        }
        let kill_grace_ms = tasks.iter().map(|task| task.kill_grace_ms).max().unwrap_or_default();
        if self.gone_after(kill_grace_ms).is_some_and(|gone| gone >= self.suspect_after()) {
            return Err(TermsError::StopsTooLate { stop_ms, kill_grace_ms, lost_after_s });
        }
        Ok(())
    }

    /// Checks terms against how often agents beat: a scheduler does, before it takes a job.
    pub fn check_heartbeat(&self, interval: Duration) -> Result<(), TermsError> {
        let stop_ms = self.stop_on_disconnect_after_ms;
        let min_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).saturating_mul(3);
        if stop_ms != 0 && stop_ms < min_ms {
            return Err(TermsError::StopsTooSoon { stop_ms, min_ms });
        }
        Ok(())
    }

    /// Checks terms against the time of the submit, cluster time: a scheduler does, before it takes a job.
    pub fn check_time(&self, now_ms: u64) -> Result<(), TermsError> {
        let (start_ms, deadline_ms) = (self.start_at_ms.saturating_sub(now_ms), self.deadline_ms);
        if start_ms > START_AHEAD_MAX_MS {
            return Err(TermsError::StartsTooLate { ahead_s: start_ms / 1_000, max_s: START_AHEAD_MAX_MS / 1_000 });
        }
        if deadline_ms > 0 && start_ms >= deadline_ms {
            return Err(TermsError::NeverStarts { start_ms, deadline_ms });
        }
        Ok(())
    }

    pub(crate) fn from_wire(wire: fb::JobSpec<'_>) -> Result<Terms, TermsError> {
        let keep = wire.keep();
        keep.variant_name().ok_or(TermsError::Keep { found: keep.0 })?;
        Ok(Terms {
            lost_after_s: wire.lost_after(),
            stop_on_disconnect_after_ms: wire.stop_on_disconnect_after_ms(),
            retry_lost: wire.retry_lost(),
            keep,
            exclusive: wire.exclusive(),
            stop_after_failures: wire.stop_after_failures(),
            deadline_ms: wire.deadline_ms(),
            start_after_ms: wire.start_after_ms(),
            start_at_ms: wire.start_at(),
            max_running: wire.max_running(),
            await_agents: wire.await_agents(),
        })
    }
}

/// A device's clock may be slow by one part of so many: a bad quartz is by one of thousands.
const SLOW_CLOCK: u64 = 64;
/// From the moment in which an attempt is to be killed until its last process is gone.
const KILL_TAKES_MS: u64 = 1_000;
/// How far ahead a job may say that it starts.
const START_AHEAD_MAX_MS: u64 = 5 * 366 * 86_400_000;

impl Default for Terms {
    /// Nothing is started anew because of a short outage, and nothing is stopped because of any.
    fn default() -> Terms {
        let wire = fb::JobSpecT::default();
        Terms {
            lost_after_s: wire.lost_after,
            stop_on_disconnect_after_ms: wire.stop_on_disconnect_after_ms,
            retry_lost: wire.retry_lost,
            keep: wire.keep,
            exclusive: wire.exclusive,
            stop_after_failures: wire.stop_after_failures,
            deadline_ms: wire.deadline_ms,
            start_after_ms: wire.start_after_ms,
            start_at_ms: wire.start_at,
            max_running: wire.max_running,
            await_agents: wire.await_agents,
        }
    }
}

impl From<u64> for Terms {
    fn from(lost_after_s: u64) -> Terms {
        Terms::lost_after(lost_after_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclusive_work_is_stopped_before_it_may_start_elsewhere() {
        let task = TaskSpec { kill_grace_ms: 5_000, ..TaskSpec::default() };
        let exclusive = |stop_ms, lost_after_s| Terms {
            exclusive: true,
            stop_on_disconnect_after_ms: stop_ms,
            ..Terms::lost_after(lost_after_s)
        };
        let check = |terms: Terms| terms.check(std::slice::from_ref(&task));
        assert_eq!(check(exclusive(0, 60)), Err(TermsError::NeverStopped { lost_after_s: 60 }));
        // With a clock that is slow, and the moment that killing takes.
        let late = TermsError::StopsTooLate { stop_ms: 53_093, kill_grace_ms: 5_000, lost_after_s: 60 };
        assert_eq!(check(exclusive(53_093, 60)), Err(late));
        assert_eq!(check(exclusive(53_092, 60)), Ok(()));
        assert!(check(exclusive(u64::MAX, 60)).is_err());
        assert_eq!(check(Terms { exclusive: false, ..exclusive(0, 60) }), Ok(()));
    }

    #[test]
    fn a_job_that_could_never_run_is_refused() {
        let check = |start_after_ms, deadline_ms| Terms { start_after_ms, deadline_ms, ..Terms::default() }.check(&[]);
        assert_eq!(check(5, 5), Err(TermsError::NeverStarts { start_ms: 5, deadline_ms: 5 }));
        assert_eq!((check(4, 5), check(u64::MAX, 0), check(0, u64::MAX)), (Ok(()), Ok(()), Ok(())));
        let at = |start_at_ms, deadline_ms| Terms { start_at_ms, deadline_ms, ..Terms::default() };
        assert_eq!(Terms { start_after_ms: 1, ..at(1, 0) }.check(&[]), Err(TermsError::StartsTwice));
        let now = 1_700_000_000_000;
        let never = TermsError::NeverStarts { start_ms: 5, deadline_ms: 5 };
        assert_eq!(at(now + 5, 5).check_time(now), Err(never));
        assert!(matches!(at(u64::MAX, 0).check_time(now), Err(TermsError::StartsTooLate { .. })));
        let max = START_AHEAD_MAX_MS;
        assert!(at(now + max + 1, 0).check_time(now).is_err() && at(now + max, 0).check_time(now).is_ok());
        assert_eq!((at(now + 4, 5).check_time(now), at(1, 5).check_time(now)), (Ok(()), Ok(())));
    }

    #[test]
    fn work_is_not_stopped_for_one_lost_heartbeat() {
        let stops = |stop_on_disconnect_after_ms| Terms { stop_on_disconnect_after_ms, ..Terms::default() };
        let interval = Duration::from_secs(30);
        let soon = TermsError::StopsTooSoon { stop_ms: 89_999, min_ms: 90_000 };
        assert_eq!(stops(89_999).check_heartbeat(interval), Err(soon));
        assert_eq!(stops(90_000).check_heartbeat(interval), Ok(()));
        assert_eq!(stops(0).check_heartbeat(interval), Ok(()));
    }

    #[test]
    fn the_defaults_stop_nothing_and_start_nothing_anew_soon() {
        let terms = Terms::default();
        assert!(terms.suspect_after() >= Duration::from_secs(300) && terms.retry_lost && !terms.exclusive);
        assert_eq!((terms.gone_after(5_000), terms.keep), (None, fb::Keep::Original));
    }
}
