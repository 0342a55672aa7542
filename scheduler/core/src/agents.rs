//! The agents that a cluster knows, as facts say: what each can do, and which attempts it was assigned.
//!
//! Invariant: `assigned` holds exactly the attempts of this agent that have not ended.

use fleetwire_common::{
    custom::Custom,
    fb,
    ids::{AgentId, AttemptId, Name},
    resources::Resources,
    time::Time,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What an agent said of itself when it registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentProfile {
    /// What it offers in all.
    pub capacity: Resources,
    /// What else it offers.
    pub custom: Custom,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The kinds of agent that it is, sorted. Tasks that ask for no kind go to any agent.
    pub agent_types: Vec<fb::AgentType>,
    /// What it can run, sorted.
    pub executors: Vec<fb::Executor>,
    /// Its data folder's own id: another id means that what it kept is gone.
    pub data_id: [u8; 16],
    /// Its software and version.
    pub software: String,
    /// Its host's name.
    pub host: String,
    /// Where others reach what runs there: as it says itself, else the address from which it registered.
    pub address: String,
}

/// One agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRecord {
    /// Its name, as its certificate says.
    pub name: Name,
    /// What it said of itself.
    pub profile: Arc<AgentProfile>,
    /// Since when it has been away, once that was for long enough to be noted.
    pub unreachable_since: Option<Time>,
    /// When it said goodbye, if it did.
    pub left_at: Option<Time>,
    /// Whether it is not expected back.
    pub forgotten: bool,
    /// An operator's word that it gets no work.
    pub cordon: Option<Box<Cordon>>,
    /// Its attempts that have not ended.
    pub assigned: BTreeSet<AttemptId>,
}

/// An agent gets no work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cordon {
    /// Nor does it keep what it has.
    pub drains: bool,
    /// When what still runs there is stopped; `None`: it may run to its end.
    pub stop_at: Option<Time>,
    /// The operator's words.
    pub reason: String,
    /// Who said so.
    pub by: String,
}

/// All agents, numbered in the order in which they first registered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agents {
    records: Vec<AgentRecord>,
    by_name: BTreeMap<Name, AgentId>,
    forgotten: usize,
}

impl AgentRecord {
    /// Since when it has not been there, as far as facts say.
    pub fn away_since(&self) -> Option<Time> {
        self.left_at.or(self.unreachable_since)
    }
}

impl Agents {
    /// The agent of that number.
    pub fn find(&self, agent: AgentId) -> Option<&AgentRecord> {
        self.records.get(agent.0 as usize)
    }

    /// The same, to be changed by a fact.
    pub(crate) fn find_mut(&mut self, agent: AgentId) -> Option<&mut AgentRecord> {
        self.records.get_mut(agent.0 as usize)
    }

    /// The agent of that name.
    pub fn named(&self, name: &Name) -> Option<AgentId> {
        self.by_name.get(name).copied()
    }

    /// The number that the next new agent gets.
    pub fn next(&self) -> AgentId {
        AgentId(self.records.len() as u32)
    }

    /// How many there are, the forgotten ones too.
    pub fn count(&self) -> usize {
        self.records.len()
    }

    /// How many are not forgotten.
    pub fn known_count(&self) -> usize {
        self.records.len() - self.forgotten
    }

    /// Those that are not forgotten, in order.
    pub fn known(&self) -> impl DoubleEndedIterator<Item = (AgentId, &AgentRecord)> {
        self.iter().filter(|(_, record)| !record.forgotten)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (AgentId, &AgentRecord)> {
        self.records.iter().enumerate().map(|(number, record)| (AgentId(number as u32), record))
    }

    /// Takes a registration: of a new agent if the number is the next, else of the one that has it.
    /// `false` if number and name do not belong together.
    pub(crate) fn register(&mut self, agent: AgentId, name: &Name, profile: &Arc<AgentProfile>) -> bool {
        match self.by_name.get(name) {
            Some(known) if *known == agent => {
                let Some(record) = self.find_mut(agent) else { return false };
                record.profile = Arc::clone(profile);
                record.left_at = None;
                let returns = std::mem::take(&mut record.forgotten);
                self.forgotten -= usize::from(returns);
            }
            None if agent == self.next() => {
                self.by_name.insert(name.clone(), agent);
                self.records.push(AgentRecord {
                    name: name.clone(),
                    profile: Arc::clone(profile),
                    unreachable_since: None,
                    left_at: None,
                    forgotten: false,
                    cordon: None,
                    assigned: BTreeSet::new(),
                });
            }
            Some(_) | None => return false,
        }
        true
    }

    /// An agent is not expected back. `false` if there is none, or it was forgotten before, or it has attempts
    /// that have not ended.
    pub(crate) fn forget(&mut self, agent: AgentId) -> bool {
        let Some(record) = self.find_mut(agent).filter(|record| !record.forgotten && record.assigned.is_empty()) else {
            return false;
        };
        record.forgotten = true;
        record.cordon = None;
        self.forgotten += 1;
        true
    }
}
