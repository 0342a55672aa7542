//! Jobs that are submitted by a cron, held against the journal's bytes: each moment is heeded once, and in its time.
//!
//! Every schedule here is due each minute, so that nothing needs to be known of crons.

use crate::{
    history::JobHistory,
    random::Random,
    trace::{Violation, broken},
    workload::{self, Offer},
};
use fleetwire_common::{
    fb,
    ids::{JobId, Position},
};
use std::collections::BTreeMap;

/// A schedule that is due each minute, of a job as any other.
pub fn schedule(offers: &[Offer], random: &mut Random) -> fb::ScheduleT {
    let mut job = workload::job(0, offers, 3, random);
    (job.terms.start_at_ms, job.terms.await_agents) = (0, true);
    let overlap = [fb::Overlap::Skip, fb::Overlap::Allow, fb::Overlap::Replace];
    fb::ScheduleT {
        name: Some(job.name.to_string()),
        cron: Some(String::from("* * * * *")),
        overlap: random.pick(&overlap).copied().unwrap_or_default(),
        catch_up_ms: random.between(0, 300_000),
        job: Some(job.to_wire()),
        ..fb::ScheduleT::default()
    }
}

/// What the journal says of schedules.
#[derive(Debug, Default)]
pub struct Recurring {
    known: BTreeMap<String, Known>,
}

#[derive(Debug)]
struct Known {
    overlap: fb::Overlap,
    paused: bool,
    /// In µs.
    since: u64,
    last_job: JobId,
}

impl Recurring {
    /// Somebody set one.
    pub fn on_set(&mut self, at: u64, fact: fb::ScheduleSet<'_>) {
        let Some(schedule) = fact.schedule() else { return };
        let name = schedule.name().unwrap_or_default();
        let last_job = self.known.get(name).map_or(JobId(0), |known| known.last_job);
        let known = Known { overlap: schedule.overlap(), paused: false, since: at, last_job };
        self.known.insert(name.to_owned(), known);
    }

    /// Somebody changed one.
    ///
    /// # Errors
    /// A moment of it was lost.
    pub fn on_changed(&mut self, at: u64, fact: fb::ScheduleChanged<'_>) -> Result<(), Violation> {
        let name = fact.name().unwrap_or_default();
        if fact.action() == fb::ScheduleAction::Remove {
            // That is when all faults have stopped long ago.
            let removed = self.known.remove(name).filter(|known| !known.paused);
            if let Some(known) = removed.filter(|known| at - known.since > MINUTE + HEEDED_WITHIN) {
                return broken("cron", format!("schedule {name} was not heeded since {} µs: it is {at}", known.since));
            }
        } else if let Some(known) = self.known.get_mut(name) {
            (known.paused, known.since) = (fact.action() == fb::ScheduleAction::Pause, at);
        }
        Ok(())
    }

    /// A moment was heeded, by the fact at that position.
    ///
    /// # Errors
    /// It was none, or not its turn; or its job is not what was accepted with it.
    pub fn on_heeded(
        &mut self,
        (at, position): (u64, Position),
        fact: fb::ScheduleHeeded<'_>,
        jobs: &BTreeMap<JobId, JobHistory>,
    ) -> Result<(), Violation> {
        let (name, job, moment) = (fact.name().unwrap_or_default(), JobId(fact.job()), fact.moment() * 1_000);
        let wrong = |what: &str| broken("cron", format!("schedule {name}, job {job}, at {moment} µs: {what}"));
        let Some(known) = self.known.get_mut(name).filter(|known| !known.paused) else {
            return wrong("it rests, or is gone");
        };
        if moment <= known.since || moment > at || moment % MINUTE != 0 {
            return wrong("it was heeded before, is yet to come, or is none");
        }
        known.since = at;
        if job == JobId(0) {
            return Ok(());
        }
        if at - moment >= MINUTE {
            return wrong("a later moment had come");
        }
        let accepted = jobs.get(&job).filter(|accepted| accepted.accepted.0 + 1 == position.0);
        if accepted.is_none_or(|accepted| accepted.spec.name.as_str() != name) {
            return wrong("its job was not accepted with it");
        }
        let before = std::mem::replace(&mut known.last_job, job);
        match jobs.get(&before).filter(|before| before.open > 0) {
            Some(_) if known.overlap == fb::Overlap::Skip => wrong("the run before had not ended"),
            Some(before) if known.overlap == fb::Overlap::Replace && before.cancelled.is_none() => {
                wrong("the run before was not stopped")
            }
            _ => Ok(()),
        }
    }
}

/// In µs.
const MINUTE: u64 = 60_000_000;
/// Without faults.
const HEEDED_WITHIN: u64 = 10_000_000;
