//! The shadow state: made of the journal's bytes alone, fact by fact. Promise P7 says that the live core's
//! state is never anything else.

use crate::{
    history::Consequence,
    trace::{Violation, broken},
};
use fleetwire_scheduler_core::{State, fact::Fact};

/// Applies a fact to the shadow, from its bytes.
pub fn apply(shadow: &mut State, bytes: &[u8]) -> Result<(), Violation> {
    match Fact::decode(bytes) {
        Ok((at, fact)) => {
            shadow.apply(at, &fact).or_else(|error| broken("P7", format!("a fact does not apply: {error}")))
        }
        Err(error) => broken("P7", format!("a fact cannot be read back: {error}")),
    }
}

/// Promise P7, cheaply: what a fact touched is the same in the live core and in the shadow.
pub fn compare_touched(live: &State, shadow: &State, consequence: &Consequence) -> Result<(), Violation> {
    let (what, agrees) = match consequence {
        Consequence::Task(task) => (task.to_string(), live.agrees_on_task(shadow, *task)),
        Consequence::Ended { attempt, .. } => (attempt.to_string(), live.agrees_on_task(shadow, attempt.task)),
        Consequence::Job(job) => (format!("job {job}"), live.agrees_on_job(shadow, *job)),
        Consequence::None => return Ok(()),
    };
    if agrees { Ok(()) } else { broken("P7", format!("the live state of {what} is not what its facts say")) }
}

/// Promise P7: the live state is what the journal's bytes say, in every part.
pub fn compare_all(live: &State, shadow: &State) -> Result<(), Violation> {
    if live == shadow {
        return Ok(());
    }
    broken("P7", "the live state is not what its facts say")
}
