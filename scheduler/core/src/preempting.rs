//! The story of what is more urgent than what runs: where it fits nowhere, others make way (docs/jobs.md#making-way).
//!
//! Invariants: only attempts of a priority that is lower by the policy's gap are asked, only where their going makes enough
//! room, and no more of them than that needs; the room is reserved for whom they made way. What they hold is free once
//! their agent has said that their last process is gone.

use crate::{
    core::Core,
    event::Effects,
    limits::{RESERVING_AGENTS_MAX, RESERVING_ATTEMPTS_MAX},
    live::{Allowance, Held},
    outlook::Rest,
    queue::{Class, ClassId},
};
use fleetwire_common::{
    fb,
    ids::{AgentId, AttemptId},
    policy::Preempt,
    resources::Resources,
    time::Time,
};

/// Who would make way on an agent, and the work that is lost by that.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Victims {
    lost: u128,
    attempts: Vec<AttemptId>,
}

impl Core {
    /// Who makes way.
    pub fn preempt_rule(&self) -> Preempt {
        self.state.policy.policy.rules().preempt.unwrap_or(self.config.policy.preempt)
    }

    /// Whether anything that runs is less urgent by enough than that priority.
    pub fn may_preempt(&self, priority: i16) -> bool {
        let gap = i16::from(self.preempt_rule().gap);
        let lowest = self.live.priorities.first_key_value().map(|(lowest, _)| i16::from(*lowest));
        gap > 0 && lowest.is_some_and(|lowest| lowest + gap <= priority)
    }

    /// Makes room for a class's next task on the agent where the least work is lost by that. `false`: there is none, or too
    /// many have made way lately.
    pub fn preempt_for(&mut self, class: ClassId, effects: &mut Effects) -> bool {
        let Some((agent, victims)) = self.first_to_be_emptied(class) else { return false };
        if !self.take_preemptions(victims.attempts.len()) {
            return false;
        }
        for attempt in &victims.attempts {
            if let Some(held) = self.live.held_mut(agent, *attempt) {
                held.makes_way = Some(fb::EndReason::Preempted);
            }
            self.send_cancellation(agent, *attempt, fb::EndReason::Preempted, effects);
            self.touch(attempt.task.job, effects);
        }
        if let Some((other, _)) = self.live.index.reserved.of_class(class) {
            self.live.index.reserved.remove(other);
            self.live.index.offer_again(other);
        }
        self.reserve(agent, class, true, effects);
        true
    }

    fn take_preemptions(&mut self, count: usize) -> bool {
        const MINUTE_S: u32 = 60;
        let (now, per_minute) = (self.now, self.preempt_rule().per_minute);
        let burst = per_minute.saturating_mul(MINUTE_S);
        let allowance = self.live.preemptions.get_or_insert_with(|| Allowance::new(burst, now));
        let cost = u32::try_from(count).unwrap_or(u32::MAX).saturating_mul(MINUTE_S);
        allowance.take(now, cost, (per_minute, burst))
    }

    /// Of the agents that are looked at this time, the one that loses the least.
    fn first_to_be_emptied(&mut self, class: ClassId) -> Option<(AgentId, Victims)> {
        let count = self.state.agents.count() as u32;
        let found = self.live.queue.find(class)?;
        let from = self.live.index.reserved.cursor;
        let (mut looked, mut attempts) = (0, 0);
        let mut best: Option<(u128, usize, AgentId, Victims)> = None;
        while looked < RESERVING_AGENTS_MAX.min(count as usize) && attempts < RESERVING_ATTEMPTS_MAX {
            let agent = AgentId(from.wrapping_add(looked as u32) % count);
            looked += 1;
            let is_for_others = self.live.index.reserved.find(agent).is_some_and(|known| known.class != class);
            let is_large_enough = found.request.resources.fits(self.live.index.room(agent).capacity);
            if is_for_others || !is_large_enough || !self.may_be_reserved(agent, found) {
                continue;
            }
            attempts += self.live.agent(agent).map_or(0, |live| live.held.len());
            let Some(victims) = self.victims(agent, found) else { continue };
            let rank = (victims.lost, victims.attempts.len(), agent);
            if best.as_ref().is_none_or(|(lost, count, other, _)| rank < (*lost, *count, *other)) {
                best = Some((rank.0, rank.1, rank.2, victims));
            }
        }
        self.live.index.reserved.cursor = from.wrapping_add(looked as u32) % count.max(1);
        best.map(|(_, _, agent, victims)| (agent, victims))
    }

    /// Who must go on an agent so that a class's next task finds room there; those whose work is the least, and of these no
    /// more than needed. `None`: even without all of them there is not enough.
    fn victims(&self, agent: AgentId, class: &Class) -> Option<Victims> {
        let live = self.live.agent(agent)?;
        let mut rest = Rest::of(live);
        live.held.values().filter(|held| held.is_going()).for_each(|held| rest.take_out(held));
        let may_go = |(attempt, held): &(&AttemptId, &Held)| self.may_make_way(**attempt, held, class.request.priority);
        let mut may: Vec<(u128, AttemptId, &Held)> = live
            .held
            .iter()
            .filter(may_go)
            .map(|(attempt, held)| (self.work_of(held, live.capacity), *attempt, held))
            .collect();
        may.sort_unstable_by_key(|(work, attempt, _)| (*work, *attempt));
        let mut asked = Vec::new();
        let mut next = may.into_iter();
        while !rest.has_room(&class.request) {
            let one = next.next()?;
            rest.take_out(one.2);
            asked.push(one);
        }
        // The largest first: what is there without it need not go.
        let mut victims = Victims { lost: 0, attempts: Vec::new() };
        for (work, attempt, held) in asked.into_iter().rev() {
            rest.put_back(held);
            if !rest.has_room(&class.request) {
                rest.take_out(held);
                victims.lost += work;
                victims.attempts.push(attempt);
            }
        }
        Some(victims)
    }

    fn may_make_way(&self, attempt: AttemptId, held: &Held, priority: i8) -> bool {
        let Preempt { gap, per_task, .. } = self.preempt_rule();
        let is_lower = i16::from(held.priority) + i16::from(gap) <= i16::from(priority);
        let made_way = self.state.tasks.get(&attempt.task).map(|record| u32::from(record.preemptions));
        // One of a gang would take the others with it, whose work nobody weighs here.
        let is_alone = self.state.task_spec(attempt.task).is_some_and(|spec| spec.gang == 0);
        is_lower && is_alone && !held.is_going() && made_way.is_some_and(|times| times < per_task)
    }

    /// How much is lost if an attempt ends now: what it holds, for as long as it has run.
    fn work_of(&self, held: &Held, capacity: Resources) -> u128 {
        let since = Time::from_ms(1_000 * u64::from(held.since_s));
        let runs = if held.since_s == 0 { 0 } else { self.now.since(since).as_millis() };
        let share = held.resources.dominant_share_ppm(capacity).clamp(1, 1_000_000);
        runs * u128::from(share)
    }

    /// For whom an attempt has made way, in words that are kept with its end.
    pub fn made_way_in_words(&self, agent: AgentId) -> Option<String> {
        let reservation = self.live.index.reserved.find(agent)?;
        Some(format!("made way for {}", self.live.queue.find(reservation.class)?.first()?))
    }
}
