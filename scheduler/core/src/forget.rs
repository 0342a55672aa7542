//! The story of an agent that is not expected back, by its absence or by the operator's word.
//!
//! Invariants: its attempts end by facts of their own before it is forgotten; nothing of it counts from then on,
//! neither its capacity nor its ledger; should it return, it registers as if it had never been there.

use crate::{
    core::Core,
    event::{Effects, Rejected},
    fact::Fact,
    tasks::Ending,
};
use fleetwire_common::{
    custom::Custom,
    fb,
    ids::{AgentId, Name, SessionId},
    message::{Ack, Message, cut},
    resources::Resources,
};

impl Core {
    /// The agent of that name, unless it is forgotten.
    pub fn known_agent(&self, name: &str) -> Result<AgentId, Rejected> {
        let agent = Name::new(name).ok().and_then(|name| self.state.agents.named(&name));
        let known = agent.filter(|agent| self.state.agents.find(*agent).is_some_and(|record| !record.forgotten));
        known.ok_or_else(|| Rejected::UnknownAgent { name: cut(name).to_owned() })
    }

    /// An operator knows that an agent will not come back.
    pub fn on_forget(
        &mut self,
        session: SessionId,
        role: fb::Role,
        message: fb::CancelWork<'_>,
        effects: &mut Effects,
    ) -> Result<(), Rejected> {
        if role != fb::Role::Operator {
            return Err(Rejected::NotAllowed { role, message: fb::SchedulerMessage::CancelWork });
        }
        let agent = self.known_agent(message.agent().unwrap_or_default())?;
        let name = self.agent_name(agent);
        let connected = Name::new(&name).is_ok_and(|name| self.live.agent_sessions.contains_key(&name));
        if connected {
            return Err(Rejected::AgentConnected { name });
        }
        self.forget_agent(agent, effects);
        effects.send(session, Message::Ack(Ack::Request(message.request())));
        Ok(())
    }

    /// An agent has been away for as long as any may.
    pub fn on_forget_due(&mut self, agent: AgentId, effects: &mut Effects) {
        self.live.agent_mut(agent).forget_at = None;
        if self.session_of(agent).is_none() {
            self.forget_agent(agent, effects);
        }
    }

    fn forget_agent(&mut self, agent: AgentId, effects: &mut Effects) {
        let Some(record) = self.state.agents.find(agent).filter(|record| !record.forgotten) else { return };
        for attempt in record.assigned.iter().copied().collect::<Vec<_>>() {
            // The end of another attempt may have ended it.
            if self.check_attempt(agent, attempt).is_ok() {
                let ending = Ending::decided(fb::TaskStatus::Lost, fb::EndReason::AgentForgotten, self.now);
                self.end_attempt(attempt, ending, effects);
            }
        }
        self.disarm_absence(agent);
        let held: Vec<_> = self.live.agent(agent).into_iter().flat_map(|live| live.held.keys().copied()).collect();
        for attempt in held {
            self.live.release(agent, attempt);
        }
        self.live.set_capacity(agent, Resources::ZERO, Custom::default());
        self.decide(&Fact::AgentForgotten { agent }, effects);
        self.keep_cordon(agent, effects);
    }
}
