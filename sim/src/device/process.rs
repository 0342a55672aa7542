//! The processes of one attempt: what they do, how long, and how they end when they are asked to.

use super::{News, Plans, Step, Unheard};
use crate::{behaviour::Behaviour, random::Random};
use fleetwire_common::{custom::Custom, fb, ids::AttemptId, resources::Resources, time::Time};
use std::time::Duration;

/// The processes of one attempt.
#[derive(Clone, Debug)]
pub struct Process {
    /// What they take.
    pub resources: Resources,
    pub(super) custom: Custom,
    pub(super) serial: u64,
    pub(super) behaviour: Behaviour,
    pub(super) timeout: Duration,
    pub(super) unheard: Option<Unheard>,
    /// When its supervisor looks next whether the scheduler was heard.
    pub(super) looks_at: Time,
    pub(super) grace: Duration,
    pub(super) spawned_at: Time,
    /// Its supervisor exists: until then nobody holds the slot.
    pub(super) forked: bool,
    /// Its supervisor was killed, and it is what that left behind.
    pub(super) orphaned: bool,
    pub(super) started: bool,
    pub(super) stopping: Option<fb::EndReason>,
}

impl Process {
    /// When the scheduler was not heard for too long, on the device's clock.
    pub(super) fn unheard_until(&self, told: Time) -> Option<Time> {
        self.unheard.map(|unheard| unheard.heard.max(told) + unheard.after)
    }

    pub(super) fn next_report(&self, attempt: AttemptId, now: Time) -> Plans {
        if self.behaviour.reports_every == Duration::ZERO {
            return Plans::new();
        }
        vec![(now + self.behaviour.reports_every, attempt, self.serial, Step::Report)]
    }

    pub(super) fn report(&self, attempt: AttemptId, now: Time, random: &mut Random) -> News {
        let share = now.since(self.spawned_at).as_secs_f32() / self.behaviour.runs_for.as_secs_f32().max(0.001);
        let wrong = random.chance(self.behaviour.nan_permille);
        let progress = if wrong { [f32::NAN, 2.0, -1.0].get(random.below(3)).copied() } else { Some(share.min(1.0)) };
        let value = if wrong { f64::INFINITY } else { random.between(0, 1_000) as f64 / 7.0 };
        let metrics = vec![(format!("m{}", random.below(5)), value), ("step".to_owned(), f64::from(share))];
        let note = if random.chance(200) { format!("at {:.0} %", share * 100.0) } else { String::new() };
        News::Report(attempt, progress, note, metrics)
    }

    pub(super) fn stop(
        &mut self,
        attempt: AttemptId,
        why: fb::EndReason,
        grace: Duration,
        now: Time,
        random: &mut Random,
    ) -> Plans {
        if self.stopping.is_some() {
            return Plans::new();
        }
        self.stopping = Some(why);
        let after = if self.behaviour.stubborn || !self.started {
            grace
        } else {
            grace.min(Duration::from_micros(random.between(500, 50_000)))
        };
        let gone = now + after + Duration::from_micros(random.between(100, 5_000));
        vec![(gone, attempt, self.serial, Step::Killed)]
    }
}
