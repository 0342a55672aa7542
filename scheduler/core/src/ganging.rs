//! Placing a gang: all of its members that are to start, each on an agent of its own, or none.
//!
//! Invariants: nothing is occupied before an agent was found for each of them; in one step a class that found too few is
//! not tried again, because agents only get fuller. The work grows with the members, and with what the order of the agents
//! cannot leave out; where too few are found, it was no more than for those that were.

use crate::{
    placement::{Index, Placement},
    policy::Policy,
    queue::{ClassId, Queue},
};
use fleetwire_common::ids::AgentId;

/// What became of a gang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Together {
    /// All of it was placed.
    Placed,
    /// None of it: it waits.
    Waits,
    /// None of it: the step's bound would be passed.
    NextStep,
}

impl Index {
    /// Places the next gang of a class.
    pub fn place_gang(
        &mut self,
        class: ClassId,
        queue: &mut Queue,
        policy: &Policy,
        out: &mut Vec<Placement>,
    ) -> Together {
        if self.spent.contains(&class) {
            return Together::Waits;
        }
        let size = queue.find(class).map_or(0, |found| found.unit() as usize);
        // One that is larger than the bound has a step of its own.
        if !out.is_empty() && out.len() + size > policy.placements_per_step {
            return Together::NextStep;
        }
        let agents =
            if queue.has_enough(class) { self.agents_for_gang(class, size, queue, policy) } else { Vec::new() };
        if agents.len() < size || size == 0 {
            self.spent.insert(class);
            return Together::Waits;
        }
        for (agent, more) in agents.into_iter().zip((0..size as u32).rev()) {
            let Some(task) = queue.take_first(class) else { break };
            self.occupy(agent, class, queue);
            out.push(Placement { task, agent, more });
        }
        Together::Placed
    }

    /// So many agents for the next members of a class's gang, those that it likes best first, or all that there are.
    fn agents_for_gang(&mut self, class: ClassId, size: usize, queue: &mut Queue, policy: &Policy) -> Vec<AgentId> {
        self.catch_up(queue, policy, 0);
        let mut agents = Vec::with_capacity(size);
        let Some((found, gang)) = queue.find(class).and_then(|found| Some((found, found.first_gang()?))) else {
            return agents;
        };
        let all = [found.audience];
        let tiers = if found.tiers.is_empty() { &all[..] } else { &found.tiers };
        for tier in tiers {
            let mut last = None;
            while agents.len() < size {
                let others = |place: (_, AgentId)| last < Some(place) && !queue.seats.has(gang, place.1);
                let Some(place) = self.best_of(*tier, class, last, queue, others) else { break };
                last = Some(place);
                agents.push(place.1);
            }
        }
        agents
    }
}
