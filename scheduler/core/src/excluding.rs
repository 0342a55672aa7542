//! The story of an agent that will not run what it was given: its class goes elsewhere for a while.
//!
//! Invariant: whoever is excluded is offered the class again when its time is over, or when it has changed.

use crate::{
    core::Core,
    deadlines::Deadline,
    queue::{ClassId, Exclusion},
};
use fleetwire_common::ids::{AgentId, TaskId};

impl Core {
    /// The agent is not offered this task's class for a while, longer with each rejection.
    pub fn exclude(&mut self, agent: AgentId, task: TaskId) {
        let policy = &self.config.policy;
        let Some(id) = self.live.class_of(task) else { return };
        let Some(class) = self.live.queue.find_mut(id) else { return };
        let strikes = class.excluded.get(&agent).map_or(0, |exclusion| exclusion.strikes);
        let wait = policy.readmit_after.saturating_mul(1 << strikes.min(16)).min(policy.readmit_max);
        let until = self.now + wait;
        let before = class.excluded.insert(agent, Exclusion { until: Some(until), strikes: strikes + 1 });
        if let Some(before) = before.and_then(|exclusion| exclusion.until) {
            self.live.deadlines.disarm(before, Deadline::Readmit(id, agent));
        }
        self.live.deadlines.arm(until, Deadline::Readmit(id, agent));
        self.live.index.offer_again(agent);
    }

    /// The agent took a task of this class: its rejections are forgotten.
    pub fn forgive(&mut self, agent: AgentId, task: TaskId) {
        let Some(id) = self.live.class_of(task) else { return };
        let Some(class) = self.live.queue.find_mut(id).filter(|class| !class.excluded.is_empty()) else { return };
        if class.excluded.get(&agent).is_some_and(|exclusion| exclusion.until.is_none()) {
            class.excluded.remove(&agent);
        }
    }

    /// An agent that rejected a class is offered it again.
    pub fn on_readmit(&mut self, class: ClassId, agent: AgentId) {
        let Some(found) = self.live.queue.find_mut(class) else { return };
        let Some(exclusion) = found.excluded.get_mut(&agent) else { return };
        if exclusion.until.is_some_and(|until| until <= self.now) {
            exclusion.until = None;
            self.live.index.offer_again(agent);
        }
    }
}
