//! Gangs, held against the journal's facts: what of a gang starts is assigned together.

use crate::{
    history::History,
    trace::{Violation, broken},
};
use fleetwire_common::{fb, ids::TaskId};

/// When a gang starts, first or anew, all of its members that have not ended are assigned in one event; only one that is
/// replaced comes alone.
pub fn invariant_gangs_start_together(history: &History, assigned: &[TaskId]) -> Result<(), Violation> {
    for task in assigned {
        let Some(spec) = history.spec_of(*task).filter(|spec| spec.gang > 0) else { continue };
        let attempts = history.task(*task).map_or(0, |task| task.attempts.len());
        if spec.gang_lost == fb::OnLost::Replace && attempts > 1 {
            continue;
        }
        let first = task.index / spec.gang * spec.gang;
        for index in first..first + spec.gang {
            let other = TaskId { index, ..*task };
            let has_ended = history.task(other).is_some_and(|known| known.ended.is_some());
            if !has_ended && !assigned.contains(&other) {
                return broken("gang", format!("{task} was assigned without {other}"));
            }
        }
    }
    Ok(())
}
