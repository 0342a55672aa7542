//! Staged attempts on a simulated device: handed to the executor, which starts one of them in the moment in
//! which another ends, whether the agent's process lives or not.

use super::{AgentNode, Arrived, News};
use crate::{
    invariants::{invariant_p1_spawns_are_durable, invariant_p3_nothing_is_oversubscribed},
    trace::{Violation, broken},
    world::{Happening, World},
};
use fleetwire_agent_core::Effect;
use fleetwire_common::{fb, ids::AttemptId, job::TaskSpec, message::End};
use std::sync::Arc;

impl AgentNode {
    pub(super) fn on_staging(&mut self, world: &mut World, effect: Effect) -> Result<(), Violation> {
        match effect {
            Effect::Stage { attempt, assignment } => self.stage(world, attempt, assignment)?,
            Effect::StartStaged => {
                if let Some(attempt) = self.start_staged(world)? {
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
        self.staged.push_back((attempt, assignment));
        self.staged_in = self.life;
        Ok(())
    }

    /// Takes a staged attempt back, if it has not started.
    fn unstage(&mut self, world: &mut World, attempt: AttemptId, reason: fb::EndReason) {
        let Some(place) = self.staged.iter().position(|(staged, _)| *staged == attempt) else { return };
        self.staged.remove(place);
        world.trace.say(world.now, || format!("{} gives {attempt} back", self.name));
        let end = End { reason, ended_at_ms: world.now.as_ms(), ..End::default() };
        self.hear(world, Arrived::News(News::Ended(attempt, fb::TaskStatus::Cancelled, end), None));
    }

    /// What starts in the room of an attempt that has ended. A supervisor that was killed starts nothing; the
    /// agent does in its place, if it is the one that staged it. With the last supervisor the others are lost.
    pub(super) fn next_in_room(&mut self, world: &mut World, news: &News) -> Result<Option<AttemptId>, Violation> {
        let News::Ended(_, status, _) = news else { return Ok(None) };
        let left_alone = *status == fb::TaskStatus::Lost && (self.up.is_none() || self.staged_in != self.life);
        if !left_alone {
            return self.start_staged(world);
        }
        if self.device.running() == 0 {
            for (attempt, _) in std::mem::take(&mut self.staged) {
                let reason = fb::EndReason::SupervisorLost;
                let end = End { reason, ended_at_ms: world.now.as_ms(), ..End::default() };
                self.hear(world, Arrived::News(News::Ended(attempt, fb::TaskStatus::Lost, end), None));
            }
        }
        Ok(None)
    }

    /// The first staged attempt starts.
    fn start_staged(&mut self, world: &mut World) -> Result<Option<AttemptId>, Violation> {
        let Some((attempt, assignment)) = self.staged.pop_front() else { return Ok(None) };
        world.trace.say(world.now, || format!("{} starts {attempt}, which was staged", self.name));
        match self.device.spawn(attempt, &assignment, world.now, &mut world.random) {
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
