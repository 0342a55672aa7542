//! The story of a restart, whether of the process or of the device, with a network or without: what runs is
//! adopted, what has ended is taken, what never started starts, and what is gone is lost.
//!
//! Invariants: nothing starts before it is known what runs; what may have run and left no trace never runs
//! again under the same number; what had waited goes on in its old order, without a word of the scheduler.

use crate::{Agent, Effect, Effects, Fact, Recovered, live::Run};
use fleetwire_common::{
    fb,
    ids::AttemptId,
    message::{End, is_final},
    time::Time,
};
use std::time::Duration;

impl Agent {
    /// What was handed to the executor holds what it needs until it is known what became of it.
    pub(crate) fn hold_unresolved(&mut self) {
        for (id, held) in self.state.attempts().iter().filter(|(_, held)| held.result.is_none()) {
            if held.handed_over {
                self.live.backlog.on_start(held.resources, &held.custom);
            }
            self.live.runs.insert(*id, Run::default());
            self.live.unsurveyed.insert(*id);
        }
        self.live.surveyed = self.live.unsurveyed.is_empty();
    }

    pub(crate) fn on_recovered(&mut self, now: Time, id: AttemptId, state: Recovered, effects: &mut Effects) {
        if !self.live.runs.contains_key(&id) {
            // Its result is known, or it was settled: what still runs of it is nobody's.
            if let Recovered::Running = state {
                effects.push(Effect::Cancel { attempt: id, grace: Duration::ZERO });
            }
            return;
        }
        if !self.live.unsurveyed.remove(&id) {
            return;
        }
        if let Some(held) = self.state.attempt(id).filter(|held| !held.handed_over) {
            // It was staged, and has taken the room of another.
            self.live.backlog.on_start(held.resources, &held.custom);
        }
        match state {
            Recovered::Running => {
                self.note_started(now, id, effects);
                self.on_started(now, id, 0, effects);
            }
            Recovered::Ended { status, end } if is_final(status) => self.on_ended(now, id, status, end, effects),
            Recovered::Ended { .. } => self.lose(now, id, effects),
        }
    }

    /// What was not found never started, unless it may have and its traces went with the power. What never
    /// started waits again, in its old order.
    pub(crate) fn on_surveyed(&mut self, now: Time, rebooted: bool, effects: &mut Effects) {
        let order = |id: &AttemptId| self.state.attempt(*id).map(|held| held.order);
        let mut missing: Vec<AttemptId> = std::mem::take(&mut self.live.unsurveyed).into_iter().collect();
        missing.sort_by_key(order);
        for id in missing {
            let Some(held) = self.state.attempt(id) else { continue };
            let (resources, custom) = (held.resources, held.custom.clone());
            let (deadline_ms, spec) = (held.deadline_ms, held.spec.clone());
            // How long ago the scheduler was heard is not known any more.
            let may_start_unheard = held.stop_on_disconnect_after_ms == 0;
            let startable = may_start_unheard && (spec.is_some() || held.executor == fb::Executor::Noop);
            let may_have_run = held.handed_over && rebooted;
            if !held.handed_over {
                self.live.backlog.on_start(resources, &custom);
            }
            if may_have_run || !startable {
                self.lose(now, id, effects);
            } else {
                self.live.backlog.on_end(resources, &custom);
                self.enter_backlog(id, spec, (resources, custom), deadline_ms);
            }
        }
        self.live.surveyed = true;
        self.start_waiting(now, effects);
    }

    /// Writes down that an attempt may have processes, unless that is known.
    pub(crate) fn note_started(&mut self, now: Time, id: AttemptId, effects: &mut Effects) {
        if self.state.attempt(id).is_some_and(|held| !held.handed_over) {
            self.decide(now, &Fact::AttemptStarted(id), effects);
        }
    }

    fn lose(&mut self, now: Time, id: AttemptId, effects: &mut Effects) {
        let end = End {
            reason: fb::EndReason::SupervisorLost,
            message: "the agent restarted, and nothing was left of the attempt".to_owned(),
            ..End::default()
        };
        self.on_ended(now, id, fb::TaskStatus::Lost, end, effects);
    }
}
