//! The story of a result: durable, offered until the scheduler has it, then forgotten.
//!
//! Invariants: what is offered has a durable result (the effect's position sees to that); not more than
//! [`RESULTS_UNDER_WAY_BYTES_MAX`] are under way, but always at least one; after a reconnect everything
//! that is kept is offered again.

use crate::{Agent, Effect, Effects, Fact, limits::*, state::result_bytes};
use fleetwire_common::{fb, ids::AttemptId, message::Message, time::Time};

impl Agent {
    /// Offers one result: now if there is room on the way, else when there is.
    pub(crate) fn offer_result(&mut self, attempt: AttemptId, effects: &mut Effects) {
        if !self.live.is_ready() || self.state.attempt(attempt).is_none_or(|held| held.result.is_none()) {
            return; // Registering offers everything.
        }
        self.live.outgoing.forget(attempt);
        self.live.outgoing.waiting.insert(attempt);
        self.send_results(effects);
    }

    /// Puts everything that is kept in line.
    pub(crate) fn offer_all_results(&mut self) {
        let kept = self.state.attempts().iter().filter(|(_, attempt)| attempt.result.is_some());
        self.live.outgoing.waiting.extend(kept.map(|(id, _)| *id));
    }

    /// Sends as many as may be under way.
    pub(crate) fn send_results(&mut self, effects: &mut Effects) {
        let outgoing = &mut self.live.outgoing;
        while outgoing.bytes < RESULTS_UNDER_WAY_BYTES_MAX {
            let Some(attempt) = outgoing.waiting.pop_first() else { return };
            let Some(result) = self.state.attempt(attempt).and_then(|held| held.result.as_deref()) else { continue };
            let bytes = result_bytes(result);
            outgoing.sent.insert(attempt, bytes);
            outgoing.bytes += bytes;
            effects.push(Effect::Send(Message::Status(result.clone())));
        }
    }

    /// The scheduler has the result. Repeated answers change nothing.
    pub(crate) fn settle(&mut self, now: Time, attempt: AttemptId, effects: &mut Effects) {
        if self.state.attempt(attempt).is_none_or(|held| held.result.is_none()) {
            return;
        }
        self.decide(now, &Fact::AttemptSettled(attempt), effects);
        self.live.outgoing.forget(attempt);
        effects.push(Effect::Settled { attempt });
        self.send_results(effects);
    }

    /// The scheduler never wants it: a result is forgotten, and what still runs is stopped.
    pub(crate) fn on_unwanted(&mut self, now: Time, attempt: AttemptId, effects: &mut Effects) {
        match self.live.runs.contains_key(&attempt) {
            true => self.stop(now, attempt, fb::EndReason::Cancelled, effects),
            false => self.settle(now, attempt, effects),
        }
    }

    /// Refused for a reason that may pass: offered again later.
    pub(crate) fn on_result_refused(&mut self, now: Time, attempt: AttemptId) {
        if self.live.outgoing.sent.contains_key(&attempt) {
            self.live.outgoing.forget(attempt);
            self.live.due.insert((now + RESULT_RETRY, attempt));
        }
    }
}
