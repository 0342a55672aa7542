//! What there will be on an agent once some of what it holds has ended.

use crate::{
    live::{AgentLive, Held},
    queue::Request,
};
use fleetwire_common::{
    custom::{Custom, CustomSum},
    ids::AttemptId,
    resources::{Resources, ResourcesSum},
    time::Time,
};

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
    /// The attempt whose end makes room, where there is none …
    pub last: Option<AttemptId>,
    /// … and how many are to end by then.
    pub ends: usize,
}

/// What is left on an agent while one attempt after the other is thought to be gone.
#[derive(Clone, Debug)]
pub struct Rest<'a> {
    agent: &'a AgentLive,
    in_use: ResourcesSum,
    custom: CustomSum,
    alone: u32,
    held: usize,
}

impl<'a> Rest<'a> {
    /// Of an agent, of which nothing is gone yet.
    pub fn of(agent: &'a AgentLive) -> Rest<'a> {
        let (in_use, custom) = (agent.in_use, agent.custom_in_use.clone());
        Rest { agent, in_use, custom, alone: agent.alone, held: agent.held.len() }
    }

    /// One is gone.
    pub fn take_out(&mut self, held: &Held) {
        if !held.waits {
            self.in_use.subtract(held.resources);
        }
        self.custom.subtract(&held.custom);
        self.alone -= u32::from(held.whole_agent);
        self.held -= 1;
    }

    /// It is not, after all.
    pub fn put_back(&mut self, held: &Held) {
        if !held.waits {
            self.in_use.add(held.resources);
        }
        self.custom.add(&held.custom);
        self.alone += u32::from(held.whole_agent);
        self.held += 1;
    }

    /// What is free.
    pub fn free(&self) -> Resources {
        self.in_use.left_of(self.agent.capacity).0
    }

    /// Whether a request finds room.
    pub fn has_room(&self, request: &Request) -> bool {
        let (free, overcommitted) = self.in_use.left_of(self.agent.capacity);
        let (custom, short) = self.custom.left_of(&self.agent.custom);
        let is_alone = self.alone == 0 && (self.held == 0 || !request.whole_agent);
        !overcommitted && !short && is_alone && request.resources.fits(free) && request.custom.fits(&custom)
    }
}

impl AgentLive {
    /// When a request could start here from then on, beside fewer than `most` others, if each attempt ends at its time and
    /// nothing more comes.
    pub fn outlook(
        &self,
        from: Time,
        request: &Request,
        most: u32,
        ends_at: impl Fn(AttemptId, &Held) -> Time,
    ) -> Outlook {
        let mut ends: Vec<(Time, AttemptId)> =
            self.held.iter().map(|(attempt, held)| (ends_at(*attempt, held), *attempt)).collect();
        ends.sort_unstable();
        let mut rest = Rest::of(self);
        let free = rest.free();
        let unknown = Outlook {
            starts_at: Time::NEVER,
            free,
            custom: self.custom_free(),
            missing_ppm: request.resources.minus(free).dominant_share_ppm(self.capacity),
            held: ends.len(),
            last: None,
            ends: 0,
        };
        let (mut starts_at, mut last, mut gone) = (from, None, 0);
        let mut ends = ends.into_iter().peekable();
        while !rest.has_room(request) || rest.held >= most as usize {
            let Some((at, _)) = ends.peek().copied().filter(|(at, _)| *at < Time::NEVER) else { return unknown };
            starts_at = starts_at.max(at);
            // Whatever ends by then.
            while let Some((_, attempt)) = ends.next_if(|(at, _)| *at <= starts_at) {
                self.held.get(&attempt).into_iter().for_each(|held| rest.take_out(held));
                (last, gone) = (Some(attempt), gone + 1);
            }
        }
        Outlook { starts_at, free: rest.free(), last, ends: gone, ..unknown }
    }
}
