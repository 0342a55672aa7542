//! The shadow states: made of the journals' bytes alone, fact by fact. Promise P7 says that a live core's
//! state is never anything else.

use crate::{
    suiting,
    trace::{Violation, broken},
};
use fleetwire_agent_core as agent;
use fleetwire_common::ids::{AgentId, AttemptId, Position};
use fleetwire_journal::Summary;
use fleetwire_scheduler_core as scheduler;

/// Applies a fact of the scheduler to its shadow, from its bytes.
pub fn apply(shadow: &mut scheduler::State, bytes: &[u8]) -> Result<(), Violation> {
    match scheduler::fact::Fact::decode(bytes) {
        Ok((at, fact)) => {
            if let scheduler::fact::Fact::AttemptAssigned { attempt, agent } = &fact {
                invariant_cordoned_agents_get_nothing(shadow, *attempt, *agent)?;
                suiting::invariant_labels_suit(shadow, *attempt, *agent)?;
                suiting::invariant_alone_and_apart(shadow, *attempt, *agent)?;
            }
            if let scheduler::fact::Fact::JobAccepted { spec, .. } = &fact {
                suiting::invariant_what_is_taken_could_run(shadow, spec)?;
            }
            shadow.apply(at, &fact).or_else(|error| broken("P7", format!("a fact does not apply: {error}")))
        }
        Err(error) => broken("P7", format!("a fact cannot be read back: {error}")),
    }
}

/// Nothing is assigned to an agent that an operator has taken out of service.
fn invariant_cordoned_agents_get_nothing(
    shadow: &scheduler::State,
    attempt: AttemptId,
    agent: AgentId,
) -> Result<(), Violation> {
    if shadow.agents.find(agent).is_some_and(|record| record.cordon.is_some()) {
        return broken("cordon", format!("{attempt} was assigned to agent {}, which is cordoned", agent.0));
    }
    Ok(())
}

/// A state made of a snapshot of this one.
pub fn restored(state: &scheduler::State) -> Result<scheduler::State, Violation> {
    let mut restored = scheduler::State::default();
    state.write_snapshot(&mut |bytes| apply(&mut restored, bytes))?;
    Ok(restored)
}

/// What a snapshot of the scheduler's journal is made through, as its shell makes it.
#[derive(Debug, Default)]
pub struct Tally(scheduler::State);

impl Summary for Tally {
    type Error = scheduler::ReplayCause;

    fn apply(&mut self, _position: Position, fact: &[u8]) -> Result<(), Self::Error> {
        self.0.apply_bytes(fact)
    }

    fn write<X>(&self, emit: &mut dyn FnMut(&[u8]) -> Result<(), X>) -> Result<(), X> {
        self.0.write_snapshot(emit)
    }

    fn needs_blobs(&self, segment: u64) -> bool {
        self.0.blobs.needs(segment)
    }
}

/// What a snapshot of an agent's journal is made through, as its shell makes it.
#[derive(Debug, Default)]
pub struct TallyOfAgent(pub agent::State);

impl Summary for TallyOfAgent {
    type Error = agent::ReplayError;

    fn apply(&mut self, position: Position, fact: &[u8]) -> Result<(), Self::Error> {
        self.0.apply_bytes(position, fact)
    }

    fn write<X>(&self, emit: &mut dyn FnMut(&[u8]) -> Result<(), X>) -> Result<(), X> {
        self.0.write_snapshot(emit)
    }
}

/// An agent's state made of a snapshot of this one.
pub fn restored_of_agent(state: &agent::State) -> Result<agent::State, Violation> {
    let mut restored = agent::State::default();
    state.write_snapshot(&mut |bytes| apply_of_agent(&mut restored, bytes))?;
    Ok(restored)
}

/// Applies a fact of an agent to its shadow, from its bytes.
pub fn apply_of_agent(shadow: &mut agent::State, bytes: &[u8]) -> Result<(), Violation> {
    match agent::Fact::decode(bytes) {
        Ok((at, fact)) => {
            shadow.apply(at, &fact).or_else(|error| broken("P7", format!("an agent's fact does not apply: {error}")))
        }
        Err(error) => broken("P7", format!("an agent's fact cannot be read back: {error}")),
    }
}
