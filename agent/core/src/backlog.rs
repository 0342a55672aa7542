//! The backlog: attempts that were taken on although there is no room for them yet, so that short tasks
//! follow each other without a round trip.
//!
//! What waits holds no resources. It starts in the order in which it came, as soon as it fits. While all
//! that runs asks for the same, the next few are *staged*: handed to the executor, which starts one of
//! them in the moment in which another ends.
//!
//! Invariants: what runs together never takes more than the capacity; a staged attempt asks for exactly
//! what each running one holds, and for nothing that is counted by name; nothing overtakes what waits.

use crate::{
    Agent, Effect, Effects,
    limits::{STAGED_MAX, STAGED_PER_RUN},
};
use fleetwire_common::{
    custom::{Custom, CustomSum},
    fb,
    ids::AttemptId,
    job::TaskSpec,
    message::End,
    resources::Resources,
    time::Time,
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// What has started, and what waits.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// What runs, by what each of them holds.
    shapes: BTreeMap<Resources, u32>,
    /// The sum of it.
    used: Resources,
    /// What it holds besides.
    custom: CustomSum,
    running: u32,
    /// Oldest first.
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// Handed to the executor, to start when another ends; oldest first.
    staged: VecDeque<AttemptId>,
}

/// An attempt that waits for room.
#[derive(Debug)]
struct Waiting {
    attempt: AttemptId,
    /// What to start; `None` for what the core ends itself.
    spec: Option<Arc<TaskSpec>>,
    resources: Resources,
    custom: Custom,
    deadline_ms: u64,
    bytes: usize,
}

impl Backlog {
    /// What runs takes together.
    pub fn used(&self) -> Resources {
        self.used
    }

    /// Whether so much of custom resources is left of a capacity.
    pub fn has_custom(&self, asked: &Custom, capacity: &Custom) -> bool {
        asked.is_empty() || asked.fits(&self.custom.left_of(capacity).0)
    }

    /// Attempts that run.
    pub fn running(&self) -> u32 {
        self.running
    }

    /// Attempts that have not started.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.staged.len()
    }

    /// Bytes of what waits, as [`TaskSpec::bytes`] counts them.
    pub fn bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Whether an attempt has not started.
    pub fn holds(&self, attempt: AttemptId) -> bool {
        self.is_staged(attempt) || self.waiting.iter().any(|waiting| waiting.attempt == attempt)
    }

    fn is_staged(&self, attempt: AttemptId) -> bool {
        self.staged.contains(&attempt)
    }

    /// An attempt runs from here on.
    pub fn on_start(&mut self, resources: Resources, custom: &Custom) {
        self.custom.add(custom);
        *self.shapes.entry(resources).or_default() += 1;
        self.used = self.used.plus(resources);
        self.running += 1;
    }

    /// An attempt that ran has ended.
    pub fn on_end(&mut self, resources: Resources, custom: &Custom) {
        let Some(count) = self.shapes.get_mut(&resources) else { return };
        self.custom.subtract(custom);
        *count -= 1;
        if *count == 0 {
            self.shapes.remove(&resources);
        }
        self.running -= 1;
        // Not a difference: a sum that was cut once would stay wrong.
        self.used = self.shapes.iter().fold(Resources::ZERO, |sum, (shape, count)| sum.plus(shape.times(*count)));
    }

    // §session-7
    /// Whether the executor may start `resources` whenever anything that runs ends. Not while more is counted than there
    /// is room for: of what was staged before a restart nobody knows whether it has started, and its end may leave no room.
    fn may_stage(&self, resources: Resources, capacity: Resources) -> bool {
        let alike = self.shapes.len() == 1 && self.shapes.contains_key(&resources);
        alike && self.used.fits(capacity) && self.staged.len() < STAGED_MAX.min(STAGED_PER_RUN * self.running as usize)
    }

    fn forget_waiting(&mut self, attempt: AttemptId) -> bool {
        let Some(place) = self.waiting.iter().position(|waiting| waiting.attempt == attempt) else { return false };
        if let Some(waiting) = self.waiting.remove(place) {
            self.waiting_bytes -= waiting.bytes;
        }
        true
    }

    fn forget_staged(&mut self, attempt: AttemptId) -> bool {
        let place = self.staged.iter().position(|staged| *staged == attempt);
        place.and_then(|place| self.staged.remove(place)).is_some()
    }
}

impl Agent {
    /// An attempt that was taken on waits for its turn.
    pub(crate) fn enter_backlog(
        &mut self,
        attempt: AttemptId,
        spec: Option<Arc<TaskSpec>>,
        (resources, custom): (Resources, Custom),
        deadline_ms: u64,
    ) {
        let bytes = spec.as_deref().map_or(0, TaskSpec::bytes);
        let backlog = &mut self.live.backlog;
        backlog.waiting_bytes += bytes;
        backlog.waiting.push_back(Waiting { attempt, spec, resources, custom, deadline_ms, bytes });
    }

    /// Starts what fits by now, and stages what may start next.
    pub(crate) fn start_waiting(&mut self, now: Time, effects: &mut Effects) {
        if !self.live.surveyed {
            return; // What runs is not known yet.
        }
        while let Some(next) = self.live.backlog.waiting.front() {
            let backlog = &self.live.backlog;
            let free = self.config.capacity.minus(backlog.used);
            // What is staged comes first; it needs the room that the next end leaves.
            let starts = backlog.staged.is_empty() && next.resources.fits(free);
            let starts = starts && backlog.has_custom(&next.custom, &self.config.custom);
            let staged = !starts
                && next.deadline_ms == 0
                && next.spec.is_some()
                && next.custom.is_empty()
                && backlog.may_stage(next.resources, self.config.capacity);
            if !starts && !staged {
                return;
            }
            let backlog = &mut self.live.backlog;
            let Some(next) = backlog.waiting.pop_front() else { return };
            backlog.waiting_bytes -= next.bytes;
            if starts {
                backlog.on_start(next.resources, &next.custom);
            } else {
                backlog.staged.push_back(next.attempt);
            }
            let (attempt, deadline_ms) = (next.attempt, next.deadline_ms);
            if starts && next.spec.is_some() {
                self.note_started(now, attempt, effects);
            }
            match next.spec {
                Some(assignment) if starts => effects.push(Effect::Spawn { attempt, assignment, deadline_ms }),
                Some(assignment) => effects.push(Effect::Stage { attempt, assignment }),
                None => self.end_noop(now, attempt, effects),
            }
        }
    }

    /// An attempt ended, and the executor started none in its room although some are staged: it was told of them
    /// too late.
    pub(crate) fn start_staged(&mut self, effects: &mut Effects) {
        if !self.live.backlog.staged.is_empty() {
            effects.push(Effect::StartStaged);
        }
    }

    /// The executor has started a staged attempt in the room that another left.
    pub(crate) fn on_staged_started(&mut self, now: Time, attempt: AttemptId, effects: &mut Effects) {
        let Some(held) = self.state.attempt(attempt) else { return };
        if self.live.backlog.forget_staged(attempt) {
            self.live.backlog.on_start(held.resources, &held.custom);
            self.note_started(now, attempt, effects);
        }
    }

    /// An attempt has ended, or will never start: what it held is free.
    pub(crate) fn leave_backlog(&mut self, attempt: AttemptId, resources: Resources, custom: &Custom) {
        let backlog = &mut self.live.backlog;
        if !backlog.forget_staged(attempt) && !backlog.forget_waiting(attempt) {
            backlog.on_end(resources, custom);
        }
    }

    /// Ends an attempt that waits here for room; `false` if it does not.
    pub(crate) fn end_waiting(
        &mut self,
        now: Time,
        attempt: AttemptId,
        reason: fb::EndReason,
        effects: &mut Effects,
    ) -> bool {
        if !self.live.backlog.waiting.iter().any(|waiting| waiting.attempt == attempt) {
            return false;
        }
        let end = End { reason, ..End::default() };
        self.on_ended(now, attempt, fb::TaskStatus::Cancelled, end, effects);
        true
    }

    /// The scheduler wants an attempt back if it has not started. What runs goes on.
    pub(crate) fn on_recall(&mut self, now: Time, attempt: AttemptId, effects: &mut Effects) {
        if self.live.backlog.is_staged(attempt) {
            effects.push(Effect::Unstage { attempt });
        } else {
            // If it has started or ended, there is nothing to give back, and its status says so.
            self.end_waiting(now, attempt, fb::EndReason::Released, effects);
        }
    }
}
