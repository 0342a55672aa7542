//! The story of a gang that has waited for long: as many agents are reserved as it has members, until it starts.
//!
//! Invariants: one gang at a time has reserved agents, in the whole cluster, and it has all that it needs or none. That is
//! why gangs that wait at once cannot deadlock: nothing but attempts that run keeps the agents of that gang from it, these
//! end, and nothing comes in their place that makes it start later; then it starts, and another gang is next. What is not
//! reserved is held by nobody: a gang without agents of its own takes none before it can have all. One that comes before the
//! other whatever is served takes its place; of those that share, the one that has agents keeps them until it starts.

use crate::{
    core::Core,
    event::Effects,
    limits::{RESERVING_AGENTS_MAX, RESERVING_ATTEMPTS_MAX},
    queue::ClassId,
};
use fleetwire_common::{ids::AgentId, time::Time};
use std::collections::BTreeSet;

impl Core {
    /// Reserves agents for the next gang of a class, if it is the one whose turn that is.
    pub fn reserve_for_gang(&mut self, class: ClassId, effects: &mut Effects) {
        let before = self.live.index.reserved.gang();
        if before.is_some_and(|other| other != class && !self.live.queue.precedes(class, other))
            || (before.is_none() && !self.may_reserve_more())
        {
            return;
        }
        let chosen = self.agents_for_long(class);
        // Another's are given up only for one that can have all.
        if chosen.is_empty() && before != Some(class) {
            return;
        }
        for agent in before.map(|before| self.live.index.reserved.all_of(before)).unwrap_or_default() {
            if before != Some(class) || !chosen.contains(&agent) {
                self.live.index.reserved.remove(agent);
                self.live.index.offer_again(agent);
            }
        }
        for agent in chosen {
            self.reserve(agent, class, false, effects);
        }
        self.live.index.reserved.note_gang(class);
    }

    /// The agents on which the next gang of a class could start first; none, if there are not enough for all of it.
    fn agents_for_long(&mut self, class: ClassId) -> BTreeSet<AgentId> {
        let count = self.state.agents.count() as u32;
        let from = self.live.index.reserved.cursor;
        let Some((found, gang)) = self.live.queue.find(class).and_then(|found| Some((found, found.first_gang()?)))
        else {
            return BTreeSet::new();
        };
        let size = found.unit() as usize;
        if !self.live.queue.has_quota(class) {
            return BTreeSet::new();
        }
        let mut ranked: BTreeSet<(Time, u64, usize, AgentId)> = BTreeSet::new();
        let (mut looked, mut attempts) = (0, 0);
        while looked < RESERVING_AGENTS_MAX.min(count as usize) && attempts < RESERVING_ATTEMPTS_MAX {
            let agent = AgentId(from.wrapping_add(looked as u32) % count);
            looked += 1;
            let known = self.live.index.reserved.find(agent).map(|known| known.class);
            let is_for_others = known.is_some_and(|other| other != class && !self.live.queue.precedes(class, other));
            let is_large_enough = found.request.resources.fits(self.live.index.room(agent).capacity);
            let may = is_large_enough && !self.live.queue.seats.has(gang, agent) && self.may_be_reserved(agent, found);
            if is_for_others || !may {
                continue;
            }
            let Some(outlook) = self.outlook(agent, found) else { continue };
            attempts += outlook.held;
            ranked.insert((outlook.starts_at, outlook.missing_ppm, outlook.held, agent));
        }
        if count as usize > RESERVING_AGENTS_MAX {
            self.live.index.reserved.cursor = from.wrapping_add(looked as u32) % count.max(1);
        }
        let chosen: BTreeSet<AgentId> = ranked.into_iter().take(size).map(|(.., agent)| agent).collect();
        if chosen.len() < size { BTreeSet::new() } else { chosen }
    }
}
