//! The story of a job that no agent could ever run: refused when it is submitted, with what is the nearest to it.
//!
//! Invariants: what is refused suits no agent that is known, connected or not, if nothing else ran there; a cluster that knows
//! no agent yet refuses nothing, nor is a job refused that says that it waits for agents to come. The work is bounded.

use crate::{
    agents::AgentProfile,
    core::Core,
    event::Rejected,
    explain::{lack_in_words, short_amounts},
    limits::{NEAREST_MAX, SUITED_LOOKS_MAX},
    placement::suits,
    queue::Request,
};
use fleetwire_common::{
    custom::Custom,
    ids::AgentId,
    job::{JobSpec, TaskSpec},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

impl Core {
    /// Refuses a job of which some task could run on no agent that is known.
    pub fn check_fitting(&self, spec: &JobSpec) -> Result<(), Rejected> {
        if spec.terms.await_agents || self.state.agents.known_count() == 0 {
            return Ok(());
        }
        let (mut seen, mut looks) = (BTreeSet::new(), SUITED_LOOKS_MAX);
        // What suited the last one often suits the next.
        let mut latest = None;
        for task in &spec.tasks {
            let request = Request { priority: 0, ..Request::of(task) };
            if seen.contains(&request) {
                continue;
            }
            let could = |agent: &AgentId| self.profile(*agent).is_some_and(|profile| could_run(&request, profile));
            if task.gang > 0 {
                let known = self.state.agents.known().map(|(agent, _)| agent).take(looks);
                let found = known.inspect(|_| looks -= 1).filter(could).take(task.gang as usize).count() as u32;
                if found < task.gang && looks > 0 {
                    return Err(self.too_few(task, &request, found));
                }
            } else if latest.as_ref().is_none_or(|agent| !could(agent)) {
                let mut known = self.state.agents.known().map(|(agent, _)| agent).take(looks);
                let found = known.by_ref().inspect(|_| looks -= 1).find(could);
                if found.is_none() && looks == 0 {
                    // Whatever it is, it may wait.
                    return Ok(());
                }
                latest = Some(found.ok_or_else(|| self.nearest(task, &request))?);
            }
            seen.insert(request);
        }
        Ok(())
    }

    /// Why a gang could not start on the agents that are known.
    fn too_few(&self, task: &TaskSpec, request: &Request, found: u32) -> Rejected {
        if found == 0 {
            return self.nearest(task, request);
        }
        let why = format!("{found} could take a member of its gang, which needs {} at once", task.gang);
        Rejected::Unplaceable { task: task.name.to_string(), agents: self.state.agents.known_count() as u32, why }
    }

    fn profile(&self, agent: AgentId) -> Option<&AgentProfile> {
        self.state.agents.find(agent).map(|record| &*record.profile)
    }

    /// Why no agent could run it: the agent that comes nearest, if some suit it but for amounts; else what they lack.
    fn nearest(&self, task: &TaskSpec, request: &Request) -> Rejected {
        let besides_amounts = Request { custom: Custom::default(), ..request.clone() };
        let mut lacks: BTreeMap<String, u32> = BTreeMap::new();
        let mut nearest: Option<(u64, AgentId)> = None;
        let (mut known, mut suit) = (0u32, 0u32);
        for (agent, record) in self.state.agents.known() {
            known += 1;
            match suits(&besides_amounts, &record.profile) {
                Err(lack) => *lacks.entry(lack_in_words(&lack)).or_default() += 1,
                Ok(()) => {
                    suit += 1;
                    let short = shortage(request, &record.profile);
                    if nearest.is_none_or(|(least, _)| short < least) {
                        nearest = Some((short, agent));
                    }
                }
            }
        }
        let why = match nearest.and_then(|(_, agent)| Some((agent, self.profile(agent)?))) {
            Some((agent, profile)) => {
                let amounts = all_short(request, profile).into_iter();
                let words =
                    amounts.map(|(what, has, unit)| format!("{what} of {has}{unit} at most")).collect::<Vec<_>>();
                let (words, name) = (words.join(" and "), self.agent_name(agent));
                format!("the nearest of {suit} that suit it otherwise is `{name}`, for {words}")
            }
            None => {
                let mut rows: Vec<_> = lacks.into_iter().collect();
                rows.sort_by_key(|(_, agents)| Reverse(*agents));
                let words = rows.into_iter().take(NEAREST_MAX).map(|(why, agents)| format!("{agents} of them: {why}"));
                words.collect::<Vec<_>>().join("; ")
            }
        };
        Rejected::Unplaceable { task: task.name.to_string(), agents: known, why }
    }
}

fn could_run(request: &Request, profile: &AgentProfile) -> bool {
    request.resources.fits(profile.capacity) && suits(request, profile).is_ok()
}

/// Every amount of which an agent has less than is asked for: what, how much it has, and its unit.
fn all_short(request: &Request, profile: &AgentProfile) -> Vec<(String, u32, &'static str)> {
    let short = short_amounts(request.resources, profile.capacity);
    let custom = request.custom.iter().map(|(name, needs)| (name, needs, profile.custom.amount(name)));
    let custom = custom.filter(|(_, needs, has)| needs > has).map(|(name, _, has)| (name.to_owned(), has, ""));
    short.map(|(what, _, has, unit)| (what.to_owned(), has, unit)).chain(custom).collect()
}

/// How far an agent is from what is asked for: of each amount the part that is not there, in millionths, together.
fn shortage(request: &Request, profile: &AgentProfile) -> u64 {
    let (needs, has) = (request.resources, profile.capacity);
    let parts = [(needs.cpu, has.cpu), (needs.memory, has.memory), (needs.gpu, has.gpu), (needs.storage, has.storage)];
    let custom = request.custom.iter().map(|(name, needs)| (needs, profile.custom.amount(name)));
    let short = |(needs, has): (u32, u32)| u64::from(needs.saturating_sub(has)) * 1_000_000 / u64::from(needs.max(1));
    parts.into_iter().chain(custom).map(short).sum()
}
