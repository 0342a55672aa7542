//! The shadow states: made of the journals' bytes alone, fact by fact. Promise P7 says that a live core's
//! state is never anything else.

use crate::trace::{Violation, broken};
use fleetwire_agent_core as agent;
use fleetwire_scheduler_core as scheduler;

/// Applies a fact of the scheduler to its shadow, from its bytes.
pub fn apply(shadow: &mut scheduler::State, bytes: &[u8]) -> Result<(), Violation> {
    match scheduler::fact::Fact::decode(bytes) {
        Ok((at, fact)) => {
            shadow.apply(at, &fact).or_else(|error| broken("P7", format!("a fact does not apply: {error}")))
        }
        Err(error) => broken("P7", format!("a fact cannot be read back: {error}")),
    }
}

/// A state made of a snapshot of this one.
pub fn restored(state: &scheduler::State) -> Result<scheduler::State, Violation> {
    let mut restored = scheduler::State::default();
    state.write_snapshot(&mut |bytes| apply(&mut restored, bytes))?;
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
