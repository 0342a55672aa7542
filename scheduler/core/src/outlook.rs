//! What there will be on an agent once what it holds has ended, as far as that is known.

use crate::{
    live::{AgentLive, Held},
    queue::Request,
};
use fleetwire_common::{custom::Custom, ids::AttemptId, resources::Resources, time::Time};

/// When a request could start on an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// At the latest; [`Time::NEVER`]: that is not known.
    pub starts_at: Time,
    /// What is free then; where that is not known, what is free now.
    pub free: Resources,
    /// What is free now of custom resources.
    pub custom: Custom,
    /// What it waits for: what is missing now, as a share of the agent, in parts per million …
    pub missing_ppm: u64,
    /// … and so many attempts at most.
    pub held: usize,
}

impl AgentLive {
    /// When a request could start here, if each attempt ends at its time and nothing more comes.
    pub fn outlook(&self, now: Time, request: &Request, ends_at: impl Fn(AttemptId, &Held) -> Time) -> Outlook {
        let mut ends: Vec<(Time, AttemptId)> =
            self.held.iter().map(|(attempt, held)| (ends_at(*attempt, held), *attempt)).collect();
        ends.sort_unstable();
        let (mut in_use, mut custom, mut alone) = (self.in_use, self.custom_in_use.clone(), self.alone);
        let (mut left, mut starts_at) = (ends.len(), now);
        let free_now = in_use.left_of(self.capacity).0;
        let unknown = Outlook {
            starts_at: Time::NEVER,
            free: free_now,
            custom: custom.left_of(&self.custom).0,
            missing_ppm: request.resources.minus(free_now).dominant_share_ppm(self.capacity),
            held: left,
        };
        let mut ends = ends.into_iter().peekable();
        loop {
            let (free, overcommitted) = in_use.left_of(self.capacity);
            let (named, short) = custom.left_of(&self.custom);
            let is_alone = alone == 0 && (left == 0 || !request.whole_agent);
            if !overcommitted && !short && is_alone && request.resources.fits(free) && request.custom.fits(&named) {
                break;
            }
            let Some((at, _)) = ends.peek().copied().filter(|(at, _)| *at < Time::NEVER) else { return unknown };
            starts_at = starts_at.max(at);
            // Whatever ends by then.
            while let Some((_, attempt)) = ends.next_if(|(at, _)| *at <= starts_at) {
                let Some(held) = self.held.get(&attempt) else { continue };
                if !held.waits {
                    in_use.subtract(held.resources);
                }
                custom.subtract(&held.custom);
                alone -= u32::from(held.whole_agent);
                left -= 1;
            }
        }
        Outlook { starts_at, free: in_use.left_of(self.capacity).0, ..unknown }
    }
}
