//! The story of a schedule: set by a client, heeded at each of its moments, paused, resumed and removed.
//!
//! Invariants: a moment is heeded once, in one step with the submit that it is for, whatever crashes; a job that was submitted
//! by a schedule is like any other. What a submit would be refused for is tried again for as long as the moment may be made up
//! for.

use crate::{
    core::Core,
    cron::Cron,
    deadlines::Deadline,
    event::{Effects, Rejected},
    fact::Fact,
    limits::{
        CATCH_UP_LEAST, CRON_AHEAD_MAX, SCHEDULE_RETRY, SCHEDULE_TEXT_BYTES_MAX, SCHEDULES_BYTES_MAX, SCHEDULES_MAX,
    },
    schedules::{Schedule, ScheduleError, ScheduleRecord, millis},
};
use fleetwire_common::{
    envelope::keys::sha256,
    fb,
    ids::{JobId, Name, SessionId, SubmitId},
    message::{Ack, Message},
    time::Time,
};
use std::{borrow::Cow, sync::Arc};

impl Core {
    /// A client sets a schedule, or another one in place of that of its name. Refused with what its job would be refused with.
    pub fn on_set_schedule(
        &mut self,
        session: SessionId,
        by: &str,
        message: fb::SetSchedule<'_>,
        effects: &mut Effects,
    ) -> Result<(), Rejected> {
        let absent = Rejected::Invalid { what: "schedule", found: String::from("absent"), expected: "a schedule" };
        let schedule = Schedule::from_wire(message.schedule().ok_or(absent)?)?;
        let cron = Cron::new(&schedule.cron, &schedule.time_zone, self.now)?;
        if cron.after(self.now).is_none() {
            let years = CRON_AHEAD_MAX.as_secs() / (365 * 86_400);
            return Err(ScheduleError::Never { found: schedule.cron, years }.into());
        }
        if self.admit(&schedule.job)?.terms.start_at_ms > 0 {
            return Err(ScheduleError::StartsAt.into());
        }
        self.check_schedules(&schedule)?;
        let name = schedule.name.clone();
        self.decide(&Fact::ScheduleSet { schedule: Arc::new(schedule), by: Cow::Borrowed(by) }, effects);
        self.await_moment(&name);
        effects.send(session, Message::Ack(Ack::Request(message.request())));
        Ok(())
    }

    fn check_schedules(&self, new: &Schedule) -> Result<(), Rejected> {
        let others = || self.state.schedules.iter().filter(|(name, _)| **name != new.name);
        let bytes = others().map(|(_, record)| record.schedule.bytes()).sum::<usize>() + new.bytes();
        let bounds =
            [("schedules", others().count() + 1, SCHEDULES_MAX), ("bytes of schedules", bytes, SCHEDULES_BYTES_MAX)];
        match bounds.into_iter().find(|(_, found, max)| found > max) {
            Some((what, _, max)) => Err(Rejected::Busy { what, max: max as u64 }),
            None => Ok(()),
        }
    }

    /// A client wants a schedule to rest, to go on, or to be no more. Its jobs go on in any case.
    pub fn on_change_schedule(
        &mut self,
        session: SessionId,
        message: fb::ChangeSchedule<'_>,
        effects: &mut Effects,
    ) -> Result<(), Rejected> {
        let (found, action) = (message.name().unwrap_or_default(), message.action());
        let known = Name::new(found).ok().and_then(|name| Some((name.clone(), self.state.schedules.get(&name)?)));
        let (name, record) = known.ok_or_else(|| Rejected::Invalid {
            what: "schedule",
            found: fleetwire_common::message::cut(found).to_owned(),
            expected: "the name of a schedule that there is",
        })?;
        let is_done = match action {
            fb::ScheduleAction::Pause => record.progress.paused,
            fb::ScheduleAction::Resume => !record.progress.paused,
            fb::ScheduleAction::Remove => false,
            other => {
                let expected = "an action that this version knows";
                return Err(Rejected::Invalid { what: "action", found: other.0.to_string(), expected });
            }
        };
        if !is_done {
            self.decide(&Fact::ScheduleChanged { name: name.clone(), action }, effects);
            self.await_moment(&name);
        }
        effects.send(session, Message::Ack(Ack::Request(message.request())));
        Ok(())
    }

    /// All schedules await their next moments: at start. One that passed meanwhile is due at once.
    pub fn await_moments(&mut self) {
        for name in self.state.schedules.keys().cloned().collect::<Vec<_>>() {
            self.await_moment(&name);
        }
    }

    /// A schedule awaits its next moment, if it has one.
    fn await_moment(&mut self, name: &Name) {
        let record = self.state.schedules.get(name).filter(|record| !record.progress.paused);
        let at = record.and_then(|ScheduleRecord { schedule, progress, .. }| {
            Cron::new(&schedule.cron, &schedule.time_zone, progress.since).ok()?.after(progress.since)
        });
        self.live.agenda.set(name, at, None);
        self.arm_agenda();
    }

    fn arm_agenda(&mut self) {
        let first = self.live.agenda.first();
        if let Some(before) = std::mem::replace(&mut self.live.agenda.armed, first) {
            self.live.deadlines.disarm(before, Deadline::Agenda);
        }
        if let Some(first) = first {
            self.live.deadlines.arm(first, Deadline::Agenda);
        }
    }

    /// Some schedule's moment has come.
    pub fn on_agenda(&mut self, effects: &mut Effects) {
        self.live.agenda.armed = None;
        if let Some(name) = self.live.agenda.take_due(self.now) {
            self.heed_schedule(&name, effects);
        }
        self.arm_agenda();
    }

    /// Of several moments that have come, the last counts; those that are too long ago are past making up for.
    fn heed_schedule(&mut self, name: &Name, effects: &mut Effects) {
        let Some(ScheduleRecord { schedule, by, progress, .. }) = self.state.schedules.get(name).cloned() else {
            return;
        };
        let Ok(cron) = Cron::new(&schedule.cron, &schedule.time_zone, self.now) else { return };
        let catch_up = schedule.catch_up.max(CATCH_UP_LEAST);
        // What is looked for lies after this: a moment that is just as long ago is still made up for.
        let too_late = Time::from_ms(self.now.as_ms().saturating_sub(1_000 + millis(catch_up)));
        let latest = cron.latest(progress.since.max(too_late), self.now);
        let Some(moment) = latest else {
            let first = Cron::new(&schedule.cron, &schedule.time_zone, progress.since).ok();
            let first = first.and_then(|cron| cron.after(progress.since));
            if let Some(missed) = first.filter(|moment| *moment <= self.now) {
                let why = format!("the scheduler was away for longer than {} s, its catch_up", catch_up.as_secs());
                self.leave_out(name, missed, &why, effects);
            }
            return self.await_moment(name);
        };
        let before = progress.last_job;
        let runs = self.state.jobs.get(&before).is_some_and(|job| job.ended_at.is_none());
        if runs && schedule.overlap == fb::Overlap::Skip {
            self.leave_out(name, moment, &format!("job {before} had not ended"), effects);
            return self.await_moment(name);
        }
        match self.admit(&schedule.job) {
            Ok(spec) => {
                if runs && schedule.overlap == fb::Overlap::Replace {
                    self.stop_job(before, fb::EndReason::Cancelled, effects);
                    self.touch(before, effects);
                    self.close_if_ended(before);
                }
                let id = self.unused_submit_id(name, moment);
                let digest = sha256(&schedule.job);
                let job = self.accept_job((id, digest), &by, (&schedule.job, spec), effects);
                let why = Cow::Borrowed("");
                self.decide(&Fact::ScheduleHeeded { name: name.clone(), moment, job, why }, effects);
            }
            Err(refused) if self.now + SCHEDULE_RETRY <= moment + catch_up => {
                let (again, why) = (self.now + SCHEDULE_RETRY, refused.to_string());
                return self.live.agenda.set(name, Some(again), Some(why));
            }
            Err(refused) => self.leave_out(name, moment, &refused.to_string(), effects),
        }
        self.await_moment(name);
    }

    fn leave_out(&mut self, name: &Name, moment: Time, why: &str, effects: &mut Effects) {
        let (name, why) = (name.clone(), Cow::Borrowed(fleetwire_common::message::cut(why)));
        self.decide(&Fact::ScheduleHeeded { name, moment, job: JobId(0), why }, effects);
    }

    /// A submit id for a schedule's moment. Clients choose theirs: any may be taken.
    fn unused_submit_id(&self, name: &Name, moment: Time) -> SubmitId {
        let mut salt = 0_u64;
        loop {
            let digest = sha256(format!("{} {salt} {name}", moment.0).as_bytes());
            let mut own = [0; 10];
            own.iter_mut().zip(digest).for_each(|(own, byte)| *own = byte);
            let id = SubmitId::new(moment.as_ms(), own);
            if !self.state.submits.contains_key(&id) {
                return id;
            }
            salt += 1;
        }
    }

    /// Schedules, for people, in the order of their names; the cursor is how many come before the page.
    pub fn page_of_schedules(&self, cursor: u64, limit: usize, page: &mut fb::PageT) {
        let before = usize::try_from(cursor).unwrap_or(usize::MAX);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for (name, record) in self.state.schedules.iter().skip(before) {
            if rows.len() >= limit || bytes >= self.config.policy.page_bytes {
                page.cursor = (before + rows.len()) as u64;
                break;
            }
            let row = self.schedule_summary(name, record);
            bytes += SCHEDULE_TEXT_BYTES_MAX + row.note.as_ref().map_or(0, String::len);
            rows.push(row);
        }
        page.schedules = Some(rows);
    }

    fn schedule_summary(&self, name: &Name, record: &ScheduleRecord) -> fb::ScheduleSummaryT {
        let ScheduleRecord { schedule, by, set_at, progress } = record;
        let agenda = &self.live.agenda;
        let is_fine = progress.paused || agenda.at(name).is_some();
        let unreadable = || if is_fine { None } else { Cron::new(&schedule.cron, &schedule.time_zone, self.now).err() };
        let waits = agenda.waits(name).map(str::to_owned);
        let left_out = || Some(progress.why.to_string()).filter(|why| !why.is_empty());
        fb::ScheduleSummaryT {
            name: Some(name.to_string()),
            cron: Some(schedule.cron.clone()),
            time_zone: Some(schedule.time_zone.clone()).filter(|zone| !zone.is_empty()),
            overlap: schedule.overlap,
            catch_up_ms: millis(schedule.catch_up),
            set_by: Some(by.to_string()),
            set_at: set_at.as_ms(),
            next_at: agenda.at(name).map_or(0, Time::as_ms),
            last_at: progress.last_at.as_ms(),
            last_job: progress.last_job.0,
            note: waits.or_else(|| unreadable().map(|error| error.to_string())).or_else(left_out),
            runs: progress.runs,
            left_out: progress.left_out,
            paused: progress.paused,
        }
    }
}
