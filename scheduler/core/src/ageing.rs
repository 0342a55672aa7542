//! How priorities rise with the time that a job has waited, so that nothing waits for ever behind what is more urgent.
//!
//! Invariants: without a rule nothing is kept in time; a class is moved at most once for each such time, and only when
//! somebody is about to place something.

use crate::lanes::ClassId;
use fleetwire_common::{ids::JobId, policy::Ageing as Rule, time::Time};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Since when jobs wait, and which classes rise when.
#[derive(Clone, Debug, Default)]
pub struct Ageing {
    rule: Option<Rule>,
    now: Time,
    since: BTreeMap<JobId, Time>,
    due: BTreeSet<(Time, ClassId)>,
}

impl Ageing {
    /// A job's tasks wait from then on.
    pub fn enter(&mut self, job: JobId, since: Time) {
        self.since.insert(job, since);
    }

    /// They have ended.
    pub fn leave(&mut self, job: JobId) {
        self.since.remove(&job);
    }

    /// Another rule, or none, or the same again. All classes are to be looked at: whoever then rises at another time is armed anew.
    pub fn set_rule(&mut self, rule: Option<Rule>) {
        self.rule = rule;
    }

    /// What time it is.
    pub fn set_now(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    /// A priority after so much waiting, and when it rises next.
    pub fn aged(&self, priority: i8, job: JobId) -> (i16, Option<Time>) {
        let priority = i16::from(priority);
        let Some((Rule { every, most }, since)) = self.rule.zip(self.since.get(&job).copied()) else {
            return (priority, None);
        };
        let every_us = (every.as_micros() as u64).max(1);
        let rises = (self.now.since(since).as_micros() as u64 / every_us).min(u64::from(most));
        let next =
            (rises < u64::from(most)).then(|| since + Duration::from_micros((rises + 1).saturating_mul(every_us)));
        (priority + rises as i16, next)
    }

    /// A class is to be looked at then.
    pub fn arm(&mut self, class: ClassId, at: Time) {
        self.due.insert((at, class));
    }

    /// It is not.
    pub fn disarm(&mut self, class: ClassId, at: Time) {
        self.due.remove(&(at, class));
    }

    /// The next class that is to be looked at now.
    pub fn take_due(&mut self) -> Option<ClassId> {
        let (at, class) = *self.due.first()?;
        (at <= self.now).then(|| self.due.pop_first())?;
        Some(class)
    }
}
