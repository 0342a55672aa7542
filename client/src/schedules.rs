//! What a client sees of the schedules; the fields are documented in docs/cli.md, like those of the other views.

use fleetwire_common::fb;
use serde::Serialize;

/// A job that is submitted by a cron.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ScheduleView {
    /// Its name: the job's.
    pub name: String,
    /// Minute, hour, day of the month, month, day of the week.
    pub cron: String,
    /// In which time zone.
    pub time_zone: String,
    /// What becomes of a moment at which the run before has not ended: `skip`, `allow` or `replace`.
    pub overlap: &'static str,
    /// A missed moment is made up for, if it is no longer ago.
    pub catch_up_ms: u64,
    /// Who set it.
    pub set_by: String,
    /// When.
    pub set_at_ms: u64,
    /// Whether it rests.
    pub paused: bool,
    /// When it is due next; `null` = never: it rests, or its cron has no meaning any more, as the note says.
    pub next_at_ms: Option<u64>,
    /// The latest moment that was heeded.
    pub last_at_ms: Option<u64>,
    /// The latest job that was submitted, at that moment or before.
    pub last_job: Option<u64>,
    /// Why the latest moment was left out, or still waits.
    pub note: Option<String>,
    /// Moments at which the job was submitted.
    pub runs: u64,
    /// Moments at which it was not; of several that passed at once, the last alone counts.
    pub left_out: u64,
}

impl From<fb::ScheduleSummaryT> for ScheduleView {
    fn from(wire: fb::ScheduleSummaryT) -> ScheduleView {
        let some = |number: u64| (number != 0).then_some(number);
        ScheduleView {
            name: wire.name.unwrap_or_default(),
            cron: wire.cron.unwrap_or_default(),
            time_zone: wire.time_zone.unwrap_or_else(|| String::from("UTC")),
            overlap: match wire.overlap {
                fb::Overlap::Allow => "allow",
                fb::Overlap::Replace => "replace",
                _ => "skip",
            },
            catch_up_ms: wire.catch_up_ms,
            set_by: wire.set_by.unwrap_or_default(),
            set_at_ms: wire.set_at,
            paused: wire.paused,
            next_at_ms: some(wire.next_at),
            last_at_ms: some(wire.last_at),
            last_job: some(wire.last_job),
            note: wire.note,
            runs: wire.runs,
            left_out: wire.left_out,
        }
    }
}
