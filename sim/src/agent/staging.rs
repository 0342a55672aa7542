//! Staged attempts on a simulated device: handed to the executor, which starts one of them in the moment in
//! which another ends, whether the agent's process lives or not.

use super::{AgentNode, Arrived, News, Staged};
use crate::{
    invariants::{invariant_p1_spawns_are_durable, invariant_p3_nothing_is_oversubscribed},
    trace::{Violation, broken},
    world::{Happening, World},
};
use fleetwire_agent_core::Effect;
use fleetwire_common::{fb, ids::AttemptId, job::TaskSpec, message::End};
use std::{collections::VecDeque, sync::Arc};

impl AgentNode {
    pub(super) fn on_staging(&mut self, world: &mut World, effect: Effect) -> Result<(), Violation> {
        match effect {
            Effect::Stage { attempt, assignment } => self.stage(world, attempt, assignment)?,
            Effect::StartStaged => {
                if let Some(attempt) = self.start_staged(world, self.life)? {
                    self.hear(world, Arrived::StagedStarted(attempt));
                }
            }
            Effect::Unstage { attempt } => {
                self.unstage(world, attempt, fb::EndReason::Released);
            }
            Effect::Cancel { attempt, .. } => {
                self.unstage(world, attempt, fb::EndReason::Cancelled);
            }
            Effect::Send(_)
            | Effect::Spawn { .. }
            | Effect::ReadLog { .. }
            | Effect::Settled { .. }
            | Effect::Close { .. } => {}
        }
        Ok(())
    }

    fn stage(&mut self, world: &mut World, attempt: AttemptId, assignment: Arc<TaskSpec>) -> Result<(), Violation> {
        invariant_p1_spawns_are_durable(&self.history, attempt)?;
        world.trace.say(world.now, || format!("{} stages {attempt}", self.name));
        let unheard = self.up.as_ref().and_then(|up| up.unheard(attempt));
        self.staged.push_back(Staged { attempt, spec: assignment, unheard, life: self.life });
        Ok(())
    }

    /// Takes a staged attempt back, if it has not started.
    fn unstage(&mut self, world: &mut World, attempt: AttemptId, reason: fb::EndReason) {
        let Some(place) = self.staged.iter().position(|staged| staged.attempt == attempt) else { return };
        self.staged.remove(place);
        world.trace.say(world.now, || format!("{} gives {attempt} back", self.name));
        let end = End { reason, ended_at_ms: world.now.as_ms(), ..End::default() };
        self.hear(world, Arrived::News(News::Ended(attempt, fb::TaskStatus::Cancelled, end), None));
    }

    /// What starts when an attempt has ended. Its supervisor takes what was staged in the agent's life that it is
    /// from, unless it was killed. An agent that lives starts one of its own in the place of a supervisor that
    /// was killed or is from before; what is from before counts as running with it, and has its own room.
    pub(super) fn next_in_room(&mut self, world: &mut World, news: &News) -> Result<Option<AttemptId>, Violation> {
        let News::Ended(ended, status, _) = news else { return Ok(None) };
        let own = self.up.as_ref().map(|_| self.life);
        let from_before = self.started_in.remove(ended).filter(|life| Some(*life) != own);
        if let Some(life) = from_before.filter(|_| *status != fb::TaskStatus::Lost) {
            self.start_staged(world, life)?;
        }
        let next = own.map_or(Ok(None), |own| self.start_staged(world, own))?;
        self.lose_abandoned(world);
        Ok(next)
    }

    /// What was staged by an agent that is gone, whose last supervisor is gone too, went with their socket.
    fn lose_abandoned(&mut self, world: &mut World) {
        let (own, lives) = (self.up.as_ref().map(|_| self.life), &self.started_in);
        let is_lost = |life: u64| Some(life) != own && !lives.values().any(|other| *other == life);
        let (lost, kept) = std::mem::take(&mut self.staged).into_iter().partition(|staged| is_lost(staged.life));
        self.staged = kept;
        let lost: VecDeque<Staged> = lost;
        for Staged { attempt, .. } in lost {
            let reason = fb::EndReason::SupervisorLost;
            let end = End { reason, ended_at_ms: world.now.as_ms(), ..End::default() };
            self.hear(world, Arrived::News(News::Ended(attempt, fb::TaskStatus::Lost, end), None));
        }
    }

    /// The first attempt that was staged in a life starts.
    fn start_staged(&mut self, world: &mut World, life: u64) -> Result<Option<AttemptId>, Violation> {
        let Some(place) = self.staged.iter().position(|staged| staged.life == life) else { return Ok(None) };
        let Some(Staged { attempt, spec, unheard, .. }) = self.staged.remove(place) else { return Ok(None) };
        world.trace.say(world.now, || format!("{} starts {attempt}, which was staged", self.name));
        self.started_in.insert(attempt, life);
        match self.device.spawn(attempt, (&spec, unheard), world.now, &mut world.random) {
            Ok(plans) => {
                for (at, attempt, serial, step) in plans {
                    world.queue.plan(at, Happening::Process(self.number, attempt, serial, step));
                }
            }
            Err(error) => return broken("P2", error.to_string()),
        }
        invariant_p3_nothing_is_oversubscribed(&self.device)?;
        Ok(Some(attempt))
    }
}
