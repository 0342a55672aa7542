//! What a client sees of what has not happened yet: when something could start. Owned, plain, and what `--json` prints, as
//! all [views](crate::views) are.

use fleetwire_common::fb;
use serde::Serialize;

/// When something could start at the earliest, if whatever runs ends by its timeouts and nothing else is placed before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EarliestView {
    /// When; none if that is not known.
    pub at_ms: Option<u64>,
    /// The same, from the answer on.
    pub in_ms: Option<u64>,
    /// Where.
    pub agent: Option<String>,
    /// The task whose attempt has to end there, if there is no room …
    pub task: Option<String>,
    /// … and which attempt of it.
    pub attempt: Option<u32>,
    /// How many attempts are to end there by then, that one included.
    pub ends: u32,
    /// What else it waits for until then, or why it is not known.
    pub why: String,
    /// How many agents were looked at one by one …
    pub looked_at: u32,
    /// … of so many that may take it.
    pub suitable: u32,
}

impl From<fb::EarliestStartT> for EarliestView {
    fn from(wire: fb::EarliestStartT) -> EarliestView {
        let at_ms = Some(wire.at).filter(|at| *at > 0);
        EarliestView {
            at_ms,
            in_ms: at_ms.map(|_| wire.in_ms),
            agent: wire.agent,
            task: wire.task_id,
            attempt: Some(wire.attempt).filter(|attempt| *attempt > 0),
            ends: wire.ends,
            why: wire.why.unwrap_or_default(),
            looked_at: wire.looked_at,
            suitable: wire.suitable,
        }
    }
}
