//! The story of an agent that gets no work because an operator said so: it is cordoned, or drained.
//!
//! Invariants: the operator's word is a fact and outlives every start and session; nothing is assigned to such an
//! agent, and what it was given ahead is wanted back; what a drain stops counts as neither failure nor loss, and its
//! room is free only once the agent has said that it is gone.

use crate::{
    agents::Cordon,
    core::Core,
    deadlines::Deadline,
    event::{Effects, Rejected},
    fact::Fact,
};
use fleetwire_common::{
    fb,
    ids::{AgentId, SessionId},
    limits::NOTE_BYTES_MAX,
    message::{Ack, Message, cut},
    time::Time,
};
use std::{borrow::Cow, time::Duration};

/// The longest time that a drain may give: a year.
const WITHIN_MAX: Duration = Duration::from_secs(365 * 86_400);

impl Cordon {
    /// The fact that makes it.
    pub(crate) fn to_fact(&self, agent: AgentId) -> Fact<'_> {
        let Cordon { drains, stop_at, reason, by } = self;
        Fact::AgentChanged {
            agent,
            action: if *drains { fb::AgentAction::Drain } else { fb::AgentAction::Cordon },
            stop_at: stop_at.unwrap_or(Time::ZERO),
            reason: Cow::Borrowed(reason),
            by: Cow::Borrowed(by),
        }
    }
}

impl Core {
    /// An operator says what becomes of an agent, connected or not. Saying it again changes the terms.
    pub fn on_change_agent(
        &mut self,
        session: SessionId,
        by: &str,
        message: fb::ChangeAgent<'_>,
        effects: &mut Effects,
    ) -> Result<(), Rejected> {
        let agent = self.known_agent(message.agent().unwrap_or_default())?;
        let action = message.action();
        let invalid = |what, found: String, expected| Rejected::Invalid { what, found, expected };
        if action.variant_name().is_none() {
            return Err(invalid("action", action.0.to_string(), "uncordon, cordon or drain"));
        }
        let within = Duration::from_millis(message.within_ms());
        if within > WITHIN_MAX || (!within.is_zero() && action != fb::AgentAction::Drain) {
            return Err(invalid("within_ms", message.within_ms().to_string(), "at most a year, and only to drain"));
        }
        let reason = message.reason().unwrap_or_default();
        if reason.len() > NOTE_BYTES_MAX {
            return Err(invalid("reason", cut(reason).to_owned(), "at most 512 bytes"));
        }
        let stop_at = if within.is_zero() { Time::ZERO } else { self.now + within };
        let (reason, by) = (Cow::Borrowed(reason), Cow::Borrowed(by));
        self.decide(&Fact::AgentChanged { agent, action, stop_at, reason, by }, effects);
        self.keep_cordon(agent, effects);
        effects.send(session, Message::Ack(Ack::Request(message.request())));
        Ok(())
    }

    /// Does what an agent's cordon asks for: now, and whenever it registers, which is all that a start needs.
    pub fn keep_cordon(&mut self, agent: AgentId, effects: &mut Effects) {
        let cordon = self.state.agents.find(agent).and_then(|record| record.cordon.as_deref());
        let (cordoned, stop_at) = (cordon.is_some(), cordon.and_then(|cordon| cordon.stop_at));
        let live = self.live.agent_mut(agent);
        let before = std::mem::replace(&mut live.drain_at, stop_at);
        live.cordoned = cordoned;
        if before != stop_at {
            if let Some(at) = before {
                self.live.deadlines.disarm(at, Deadline::Drain(agent));
            }
            if let Some(at) = stop_at {
                self.live.deadlines.arm(at, Deadline::Drain(agent));
            }
        }
        self.live.refresh_room(agent);
        if cordoned {
            self.recall(agent, 0, effects);
        }
        if stop_at.is_some_and(|at| at <= self.now) {
            self.on_drain_due(agent, effects);
        }
    }

    /// A drain's time is over: what still runs there makes way.
    pub fn on_drain_due(&mut self, agent: AgentId, effects: &mut Effects) {
        let assigned = self.state.agents.find(agent).map(|record| record.assigned.iter().copied().collect::<Vec<_>>());
        for attempt in assigned.unwrap_or_default() {
            if let Some(held) = self.live.held_mut(agent, attempt) {
                held.makes_way = Some(fb::EndReason::Drained);
            }
            self.send_cancellation(agent, attempt, fb::EndReason::Drained, effects);
        }
    }

    /// Whether an agent is to let go of what it has.
    pub fn drains(&self, agent: AgentId) -> bool {
        self.state.agents.find(agent).and_then(|record| record.cordon.as_deref()).is_some_and(|cordon| cordon.drains)
    }

    /// What an operator wants of an agent, in words; `None` if it shall work.
    pub fn cordon_in_words(&self, agent: AgentId) -> Option<String> {
        let record = self.state.agents.find(agent)?;
        let Cordon { drains, stop_at, reason, by } = record.cordon.as_deref()?;
        let held = self.live.agent(agent).map_or(0, |live| live.held.len());
        let state = match (*drains, held, stop_at) {
            (false, _, _) => String::from("cordoned"),
            (true, 0, _) => String::from("drained"),
            (true, held, None) => format!("drains: {held} attempts are left"),
            (true, held, Some(at)) => {
                format!("drains: {held} attempts are left, stopped in {:.0} s", at.since(self.now).as_secs_f64())
            }
        };
        let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        Some(format!("{state} by {by}{reason}"))
    }
}
