//! Schedules: jobs that are submitted again and again, at the moments of a cron, and how far each has come.
//!
//! Invariants: moments up to `since` have been heeded, each once: its job was submitted, or left out with the reason why. What
//! a cron means is not kept, only its text, so that a time zone that is changed by law costs no journal its meaning.

use crate::{
    limits::{CATCH_UP_MAX, SCHEDULE_TEXT_BYTES_MAX},
    state::{ApplyError, State},
};
use fleetwire_common::{
    fb,
    ids::{JobId, Name, NameError},
    message::cut,
    time::Time,
};
use std::{sync::Arc, time::Duration};

/// A job that is submitted by a cron, as somebody set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Its name.
    pub name: Name,
    /// The cron's text.
    pub cron: String,
    /// Its time zone's name; empty = UTC.
    pub time_zone: String,
    /// What becomes of a moment at which the run before has not ended.
    pub overlap: fb::Overlap,
    /// A moment that was missed is made up for, if it is no longer ago than this.
    pub catch_up: Duration,
    /// The job, as in a submit.
    pub job: Box<[u8]>,
}

/// Why a schedule is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ScheduleError {
    #[error("the schedule's name: {0}")]
    Name(#[from] NameError),
    #[error(
        "the cron is `{found}`: {why}; expected five fields, minute, hour, day of the month, month and day of the week, such as \
         `30 3 * * 1-5`, or @hourly, @daily, @weekly, @monthly, @yearly"
    )]
    Cron { found: String, why: String },
    #[error("the cron is `{found}`: there is no such moment in the next {years} years")]
    Never { found: String, years: u64 },
    #[error("the time zone is `{found}`: expected a name of the IANA database, such as Europe/Amsterdam, or UTC")]
    Zone { found: String },
    #[error("overlap is {found}: expected skip, allow or replace")]
    Overlap { found: u8 },
    #[error("catch_up is {found_ms} ms: expected at most {max_ms} ms, a day")]
    CatchUp { found_ms: u64, max_ms: u64 },
    #[error("the job has start_at, and a schedule starts it at its own moments: take it out")]
    StartsAt,
}

impl Schedule {
    /// Reads and checks everything but what the cron means and the job.
    pub fn from_wire(wire: fb::Schedule<'_>) -> Result<Schedule, ScheduleError> {
        let text = |field: Option<&str>| cut(field.unwrap_or_default()).to_owned();
        let (overlap, catch_up_ms) = (wire.overlap(), wire.catch_up_ms());
        overlap.variant_name().ok_or(ScheduleError::Overlap { found: overlap.0 })?;
        let max_ms = CATCH_UP_MAX.as_secs() * 1_000;
        if catch_up_ms > max_ms {
            return Err(ScheduleError::CatchUp { found_ms: catch_up_ms, max_ms });
        }
        Ok(Schedule {
            name: Name::new(wire.name().unwrap_or_default())?,
            cron: text(wire.cron()),
            time_zone: text(wire.time_zone()),
            overlap,
            catch_up: Duration::from_millis(catch_up_ms),
            job: wire.job().map(|job| job.bytes().into()).unwrap_or_default(),
        })
    }

    /// As a message or a fact carries it.
    pub fn to_wire(&self) -> fb::ScheduleT {
        let Schedule { name, cron, time_zone, overlap, catch_up, job } = self;
        fb::ScheduleT {
            name: Some(name.to_string()),
            cron: Some(cron.clone()),
            time_zone: (!time_zone.is_empty()).then(|| time_zone.clone()),
            overlap: *overlap,
            catch_up_ms: millis(*catch_up),
            job: Some(job.to_vec()),
        }
    }

    /// How much of what is kept it takes.
    pub fn bytes(&self) -> usize {
        SCHEDULE_TEXT_BYTES_MAX + self.job.len()
    }
}

/// A schedule, whose it is, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleRecord {
    /// What was set.
    pub schedule: Arc<Schedule>,
    /// By whom: its jobs are theirs.
    pub by: Arc<str>,
    /// When.
    pub set_at: Time,
    /// How far it has come.
    pub progress: Progress,
}

/// How far a schedule has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// It rests until somebody resumes it.
    pub paused: bool,
    /// Moments up to this have been heeded, or are none of its own.
    pub since: Time,
    /// The latest moment that was heeded; zero = none yet.
    pub last_at: Time,
    /// The latest job that was submitted; 0 = none yet.
    pub last_job: JobId,
    /// Why the latest moment was left out; empty = it was not.
    pub why: Arc<str>,
    /// Moments at which the job was submitted.
    pub runs: u64,
    /// Moments at which it was not.
    pub left_out: u64,
}

impl State {
    /// Moments count from now on; how the runs before went stays known.
    pub(crate) fn set_schedule(&mut self, at: Time, schedule: &Arc<Schedule>, by: &str) {
        let before = self.schedules.remove(&schedule.name).map(|record| record.progress);
        let progress = Progress { paused: false, since: at, ..before.unwrap_or_default() };
        let record = ScheduleRecord { schedule: Arc::clone(schedule), by: by.into(), set_at: at, progress };
        self.schedules.insert(schedule.name.clone(), record);
    }

    pub(crate) fn change_schedule(
        &mut self,
        at: Time,
        name: &Name,
        action: fb::ScheduleAction,
    ) -> Result<(), ApplyError> {
        if action == fb::ScheduleAction::Remove {
            return self.schedules.remove(name).map(drop).ok_or_else(|| unknown(name));
        }
        let progress = self.progress(name)?;
        progress.paused = action == fb::ScheduleAction::Pause;
        progress.since = at;
        Ok(())
    }

    pub(crate) fn heed_moment(
        &mut self,
        at: Time,
        name: &Name,
        (moment, job): (Time, JobId),
        why: &str,
    ) -> Result<(), ApplyError> {
        let progress = self.progress(name)?;
        (progress.since, progress.last_at, progress.why) = (at, moment, why.into());
        if job == JobId(0) {
            progress.left_out += 1;
        } else {
            (progress.last_job, progress.runs) = (job, progress.runs + 1);
        }
        Ok(())
    }

    pub(crate) fn progress(&mut self, name: &Name) -> Result<&mut Progress, ApplyError> {
        self.schedules.get_mut(name).map(|record| &mut record.progress).ok_or_else(|| unknown(name))
    }
}

/// As the wire counts it.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn unknown(name: &Name) -> ApplyError {
    ApplyError::Schedule { name: name.clone() }
}
