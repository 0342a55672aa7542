//! Audiences: the agents that suit a request, its resources aside. Classes that ask for the same of agents share one.
//!
//! Invariant: an agent has an audience's bit if it is of that audience, or of another with the same bit; whoever's bits
//! have changed is in `remarked` until that was taken note of.

use crate::{queue::Request, shares::QueueId};
use fixedbitset::FixedBitSet;
use fleetwire_common::{ids::AgentId, resources::Resources};
use slab::Slab;
use std::collections::BTreeMap;

/// An audience's number while it is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudienceId(u32);

impl AudienceId {
    /// The bit by which its agents are known; audiences beyond the 63rd share them.
    pub fn bit(self) -> u64 {
        1 << (self.0 % EMPTY.trailing_zeros())
    }
}

/// The bit of agents that hold nothing; no audience has it.
pub const EMPTY: u64 = 1 << 63;

/// The agents whose kind, executors and labels suit some classes.
#[derive(Clone, Debug)]
pub struct Audience {
    request: Request,
    agents: FixedBitSet,
    count: usize,
    classes: u32,
}

impl Audience {
    /// Whether the agent is of it.
    pub fn contains(&self, agent: AgentId) -> bool {
        self.agents.contains(agent.0 as usize)
    }

    /// How many agents are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// They, in order.
    pub fn agents(&self) -> impl Iterator<Item = usize> + '_ {
        self.agents.ones()
    }
}

/// All audiences.
#[derive(Clone, Debug, Default)]
pub struct Audiences {
    all: Slab<Audience>,
    by_request: BTreeMap<Request, AudienceId>,
    /// Of each agent.
    bits: Vec<u64>,
    remarked: FixedBitSet,
}

impl Audiences {
    /// The audience of one more class. `eligible` is asked for a new one only.
    pub fn enter(&mut self, request: &Request, eligible: impl FnOnce(&Request) -> FixedBitSet) -> AudienceId {
        let request = Request {
            priority: 0,
            queue: QueueId::default(),
            resources: Resources::ZERO,
            ends_within: None,
            whole_agent: false,
            distinct: None,
            semaphores: Vec::new(),
            gang: 0,
            ..request.clone()
        };
        if let Some(known) = self.by_request.get(&request).copied()
            && let Some(audience) = self.all.get_mut(known.0 as usize)
        {
            audience.classes += 1;
            return known;
        }
        let agents = eligible(&request);
        let audience = Audience { request: request.clone(), count: agents.count_ones(..), agents, classes: 1 };
        let id = AudienceId(self.all.insert(audience) as u32);
        self.by_request.insert(request, id);
        self.mark(id);
        id
    }

    /// One class less.
    pub fn leave(&mut self, audience: AudienceId) {
        let Some(found) = self.all.get_mut(audience.0 as usize) else { return };
        found.classes -= 1;
        if found.classes == 0 {
            self.by_request.remove(&found.request);
            self.all.remove(audience.0 as usize);
        }
    }

    /// The audience of that number.
    pub fn find(&self, audience: AudienceId) -> Option<&Audience> {
        self.all.get(audience.0 as usize)
    }

    /// What an agent is has changed: `suits` says of which audiences it is now.
    pub fn requalify(&mut self, agent: AgentId, suits: impl Fn(&Request) -> bool) {
        let place = agent.0 as usize;
        let mut bits = 0;
        for (number, audience) in &mut self.all {
            let suitable = suits(&audience.request);
            audience.agents.grow(place + 1);
            audience.count -= usize::from(audience.agents.contains(place));
            audience.count += usize::from(suitable);
            audience.agents.set(place, suitable);
            bits |= if suitable { AudienceId(number as u32).bit() } else { 0 };
        }
        self.set_bits(agent, bits);
    }

    /// The bits of all audiences of which the agent is.
    pub fn bits_of(&self, agent: AgentId) -> u64 {
        self.bits.get(agent.0 as usize).copied().unwrap_or_default()
    }

    /// The agents whose bits have changed since the last time.
    pub fn take_remarked(&mut self) -> impl Iterator<Item = AgentId> + use<> {
        std::mem::take(&mut self.remarked).into_ones().map(|agent| AgentId(agent as u32))
    }

    /// Gives an audience's bit to its agents, and takes it from those that have it of one that is gone.
    fn mark(&mut self, id: AudienceId) {
        let mut marked = FixedBitSet::new();
        for (number, audience) in &self.all {
            if AudienceId(number as u32).bit() == id.bit() {
                marked.union_with(&audience.agents);
            }
        }
        for place in 0..self.bits.len().max(marked.len()) {
            let agent = AgentId(place as u32);
            let others = self.bits_of(agent) & !id.bit();
            self.set_bits(agent, if marked.contains(place) { others | id.bit() } else { others });
        }
    }

    fn set_bits(&mut self, agent: AgentId, bits: u64) {
        let place = agent.0 as usize;
        if self.bits.len() <= place {
            self.bits.resize(place + 1, 0);
        }
        let Some(known) = self.bits.get_mut(place) else { return };
        if *known != bits {
            *known = bits;
            self.remarked.grow(place + 1);
            self.remarked.insert(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetwire_common::job::{Constraint, TaskSpec};
    use fleetwire_common::{fb, ids::Name};

    /// For the agents of which the number is `rest` when divided by `whole`.
    fn request(whole: usize, rest: usize) -> Request {
        let label = Name::new("rest").unwrap_or_else(|_| unreachable!("a name"));
        let constraint = Constraint::new(label, fb::ConstraintOp::Equal, &format!("{rest} of {whole}"));
        Request::of(&TaskSpec { constraints: vec![constraint], ..TaskSpec::default() })
    }

    fn every(whole: usize, rest: usize) -> FixedBitSet {
        (0..300).filter(|agent| agent % whole == rest).collect()
    }

    #[test]
    fn an_agent_has_the_bits_of_its_audiences_and_of_none_that_is_gone() {
        let mut audiences = Audiences::default();
        let mut entered: Vec<_> =
            (0..100).map(|rest| (100, rest, audiences.enter(&request(100, rest), |_| every(100, rest)))).collect();
        assert!(audiences.take_remarked().eq((0..300).map(AgentId)) && audiences.take_remarked().next().is_none());
        // Half of them go, and others come in their places.
        for (_, _, gone) in entered.drain(50..) {
            audiences.leave(gone);
        }
        for rest in 0..50 {
            entered.push((60, rest, audiences.enter(&request(60, rest), |_| every(60, rest))));
        }
        for agent in (0..300).map(AgentId) {
            let of = entered.iter().filter(|(whole, rest, _)| agent.0 as usize % whole == *rest);
            let bits = of.fold(0, |bits, (.., audience)| bits | audience.bit());
            assert_eq!(audiences.bits_of(agent), bits, "{agent:?}");
        }
        audiences.requalify(AgentId(7), |_| false);
        assert_eq!(audiences.bits_of(AgentId(7)), 0);
        assert!(
            entered.iter().all(|(.., audience)| audiences.find(*audience).is_some_and(|it| !it.contains(AgentId(7))))
        );
        let counts = entered.iter().filter_map(|(.., id)| audiences.find(*id));
        assert!(counts.into_iter().all(|audience| audience.count() == audience.agents().count()));
    }
}
