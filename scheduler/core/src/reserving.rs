//! The story of what has waited for long: an agent is reserved for it, until it starts.
//!
//! Invariants: only the first waiting classes are looked at, when one of them may have waited for long enough, and of
//! agents so many for each search; what is reserved is given up as soon as its class waits no more, was served, or could
//! not be placed there. A start forgets all of it.

use crate::{
    core::Core,
    deadlines::Deadline,
    event::Effects,
    limits::{
        AGENTS_PER_RESERVATION, PREEMPTING_TURNS_MAX, RESERVED_ATTEMPTS_MAX, RESERVING_AGENTS_MAX,
        RESERVING_ATTEMPTS_MAX, RESERVING_TURNS_MAX, START_WITHIN,
    },
    live::{AgentLive, Held, Live, Phase},
    outlook::Outlook,
    queue::{Class, ClassId, ends_within},
    reserved::Reservation,
};
use fleetwire_common::{
    fb,
    ids::{AgentId, AttemptId},
    policy::Reserve,
    time::Time,
};
use std::time::Duration;

impl Core {
    /// Something waits: it is looked at when it may have waited for too long.
    pub fn arm_reserving(&mut self) {
        let Some(highest) = self.live.queue.highest() else { return };
        let after = if self.may_preempt(highest) { self.preempt_rule().after } else { self.reserve_rule().after };
        let at = self.now + after;
        if self.live.index.reserved.look_at.is_none_or(|known| known > at) {
            self.look_again_at(at);
        }
    }

    fn look_again_at(&mut self, at: Time) {
        let before = self.live.index.reserved.look_at.replace(at);
        if let Some(before) = before {
            self.live.deadlines.disarm(before, Deadline::Reserve);
        }
        self.live.deadlines.arm(at, Deadline::Reserve);
    }

    /// The first waiting classes are looked at: for those that have waited for long an agent is reserved.
    pub fn on_reserve_due(&mut self, effects: &mut Effects) {
        self.live.index.reserved.look_at = None;
        let (after, preempt_after) = (self.reserve_rule().after, self.preempt_rule().after);
        let hurried = std::mem::take(&mut self.live.index.reserved.hurried);
        let mut tries = PREEMPTING_TURNS_MAX;
        // What was known of them may be another now: who comes before whom, and what has ended in time.
        let agents: Vec<AgentId> = self.live.index.reserved.iter().map(|(agent, _)| agent).collect();
        for agent in agents {
            self.look_ahead(agent);
            self.live.index.offer_again(agent);
        }
        let classes: Vec<ClassId> = self.live.queue.turns().take(RESERVING_TURNS_MAX).map(|turn| turn.class).collect();
        let mut next = self.now + after;
        for class in classes {
            let Some(found) = self.live.queue.find(class) else { continue };
            let (due, priority) = (found.served_at + after, i16::from(found.request.priority));
            let early = if hurried.contains(&class) { self.now } else { found.served_at + preempt_after };
            let known = self.live.index.reserved.of_class(class);
            // What is more urgent may have taken the room.
            let room_is_made = known.is_some_and(|(agent, reservation)| reservation.preempts && self.has_going(agent));
            let gang = found.is_of_gangs();
            if !gang && !room_is_made && self.may_preempt(priority) && self.live.queue.has_quota(class) {
                if early > self.now {
                    next = next.min(early);
                } else if tries > 0 && (known.is_some() || self.may_reserve_more()) {
                    tries -= 1;
                    if self.preempt_for(class, effects) {
                        continue;
                    }
                    next = next.min(self.now + preempt_after);
                }
            }
            if due > self.now {
                next = next.min(due);
            } else if gang {
                self.reserve_for_gang(class, effects);
            } else if self.live.index.reserved.of_class(class).is_none() && self.live.queue.has_quota(class) {
                self.reserve_for(class, effects);
            }
        }
        if !self.live.queue.is_empty() {
            self.look_again_at(next);
        }
    }

    /// What is kept free for whoever has waited for long.
    pub fn reserve_rule(&self) -> Reserve {
        self.state.policy.policy.rules().reserve.unwrap_or(self.config.policy.reserve)
    }

    /// How many agents may be reserved now.
    fn reservations_max(&self) -> usize {
        let part = self.live.agent_sessions.len() / AGENTS_PER_RESERVATION;
        usize::from(self.reserve_rule().agents).min(part.max(1))
    }

    /// Reserves the agent for a class on which it could start first.
    fn reserve_for(&mut self, class: ClassId, effects: &mut Effects) {
        if self.may_reserve_more()
            && let Some((agent, _)) = self.first_to_have_room(class)
        {
            self.reserve(agent, class, false, effects);
        }
    }

    /// Whether something on an agent is about to end, because it was asked to.
    fn has_going(&self, agent: AgentId) -> bool {
        self.live.agent(agent).is_some_and(|live| live.held.values().any(Held::is_going))
    }

    /// Whether one more agent may be reserved.
    pub fn may_reserve_more(&self) -> bool {
        self.live.index.reserved.count() < self.reservations_max()
    }

    /// Reserves an agent for a class, for which others make way there or do not.
    pub fn reserve(&mut self, agent: AgentId, class: ClassId, preempts: bool, effects: &mut Effects) {
        let Some(found) = self.live.queue.find(class) else { return };
        let Some(outlook) = self.outlook(agent, found) else { return };
        let (waited_since, room) = (found.served_at, self.live.index.room(agent));
        let Outlook { starts_at, free, custom, .. } = outlook;
        let reservation = Reservation { class, waited_since, starts_at, free, custom, preempts, room };
        self.live.index.reserved.set(agent, reservation);
        // What waits there would start as soon as it finds room.
        self.recall(agent, 0, effects);
    }

    /// Of the agents that are looked at this time, the one on which a class could start first; where that is not known,
    /// the one on which the least is missing.
    fn first_to_have_room(&mut self, class: ClassId) -> Option<(AgentId, Outlook)> {
        let count = self.state.agents.count() as u32;
        let from = self.live.index.reserved.cursor;
        let found = self.live.queue.find(class)?;
        let (mut looked, mut attempts) = (0, 0);
        let mut best: Option<(AgentId, Outlook)> = None;
        while looked < RESERVING_AGENTS_MAX.min(count as usize) && attempts < RESERVING_ATTEMPTS_MAX {
            let agent = AgentId(from.wrapping_add(looked as u32) % count);
            looked += 1;
            let is_large_enough = found.request.resources.fits(self.live.index.room(agent).capacity);
            if !is_large_enough || self.live.index.reserved.holds(agent) || !self.may_be_reserved(agent, found) {
                continue;
            }
            let Some(outlook) = self.outlook(agent, found) else { continue };
            attempts += outlook.held;
            let rank = |agent: AgentId, it: &Outlook| (it.starts_at, it.missing_ppm, it.held, agent);
            if best.as_ref().is_none_or(|(other, known)| rank(agent, &outlook) < rank(*other, known)) {
                best = Some((agent, outlook));
            }
        }
        self.live.index.reserved.cursor = from.wrapping_add(looked as u32) % count.max(1);
        best
    }

    /// Whether an agent would take a class's tasks, whatever it holds.
    pub fn may_be_reserved(&self, agent: AgentId, class: &Class) -> bool {
        let works = |live: &AgentLive| {
            live.session.is_some()
                && !live.leaving
                && !live.cordoned
                && live.breaker.is_closed()
                && live.presence.is_settled()
        };
        self.live.agent(agent).is_some_and(works) && self.live.queue.suits(class, agent)
    }

    /// When and with what a class could start on an agent.
    pub fn outlook(&self, agent: AgentId, class: &Class) -> Option<Outlook> {
        let ends_at = |attempt, held: &Held| self.ends_at(attempt, held);
        let most = self.config.policy.attempts_per_agent;
        Some(self.live.agent(agent)?.outlook(self.now, &class.request, most, ends_at))
    }

    /// When an attempt has ended at the latest, as long as its agent is heard; [`Time::NEVER`]: nobody knows.
    pub fn ends_at(&self, attempt: AttemptId, held: &Held) -> Time {
        let Some(spec) = self.state.task_spec(attempt.task) else { return Time::NEVER };
        let grace = Duration::from_millis(u64::from(spec.kill_grace_ms));
        // What was asked back or to stop has no more than its grace.
        if held.is_going() {
            return self.now + START_WITHIN + grace;
        }
        match (held.backstop_at, ends_within(spec)) {
            (Some(at), _) => {
                let ends_at = Time(at.0.saturating_sub(self.config.policy.backstop_after.as_micros() as u64));
                // What is overdue may end at any time, or never.
                if ends_at > self.now { ends_at } else { Time::NEVER }
            }
            (None, Some(within)) if held.phase != Phase::Running => self.now + START_WITHIN + within,
            (None, _) => Time::NEVER,
        }
    }

    /// Gives up what was reserved in vain or has served its purpose, and takes note of what has changed on the others.
    /// Whether somebody may have room by that.
    pub fn heed_reservations(&mut self) -> bool {
        if self.live.index.reserved.is_empty() {
            return false;
        }
        let mut has_room = false;
        let reserved: Vec<(AgentId, Reservation)> =
            self.live.index.reserved.iter().map(|(agent, reservation)| (agent, reservation.clone())).collect();
        for (agent, reservation) in reserved {
            let class = self.live.queue.find(reservation.class);
            let waits = class.filter(|class| class.may_be_placed() && class.served_at == reservation.waited_since);
            let stands = self.live.queue.has_quota(reservation.class)
                && waits.is_some_and(|class| self.may_be_reserved(agent, class));
            if !stands {
                self.live.index.reserved.remove(agent);
                if reservation.preempts && class.is_some_and(|class| class.pending() > 0) {
                    self.live.index.reserved.hurried.insert(reservation.class);
                }
                self.live.index.offer_again(agent);
                has_room = true;
                // Others may have waited for that.
                self.look_again_at(self.now);
            } else if self.live.index.room(agent) != reservation.room && self.is_quick_to_look_at(agent) {
                has_room |= self.look_ahead(agent);
            }
        }
        has_room
    }

    /// Until it is looked at again, a reservation leaves others no more than it may.
    fn is_quick_to_look_at(&self, agent: AgentId) -> bool {
        self.live.agent(agent).is_some_and(|live| live.held.len() <= RESERVED_ATTEMPTS_MAX)
    }

    /// What an agent holds has changed, or time has passed: what its reservation leaves to others may be another. Whether it
    /// is more.
    fn look_ahead(&mut self, agent: AgentId) -> bool {
        let Some(before) = self.live.index.reserved.find(agent).cloned() else { return false };
        let Some(outlook) = self.live.queue.find(before.class).and_then(|class| self.outlook(agent, class)) else {
            return false;
        };
        // Later than was said only if that has passed, or what comes before it has taken the room.
        let is_later = outlook.starts_at > before.starts_at + START_WITHIN || before.starts_at <= self.now;
        let starts_at = if is_later { outlook.starts_at } else { outlook.starts_at.min(before.starts_at) };
        let Outlook { free, custom, .. } = outlook;
        let more = starts_at > before.starts_at || !free.fits(before.free) || custom != before.custom;
        let room = self.live.index.room(agent);
        let class = before.class;
        self.live.index.reserved.set(agent, Reservation { starts_at, free, custom, room, ..before });
        if self.live.index.reserved.gang() == Some(class) {
            self.live.index.reserved.note_gang(class);
        }
        if more {
            self.live.index.offer_again(agent);
        }
        more
    }

    /// Why an agent may not be given a class's next task: it is reserved for others.
    pub fn reserved_in_words(&self, agent: AgentId, class: ClassId) -> Option<String> {
        let Live { index, queue, .. } = &self.live;
        let reservation = index.reserved.find(agent).filter(|_| !index.reserved.admits(queue, class, agent))?;
        let first = queue.find(reservation.class)?.first()?;
        Some(format!("it is reserved for {first}, which {}", self.start_in_words(reservation)))
    }

    /// What an agent is reserved for.
    pub fn reservation_in_words(&self, agent: AgentId) -> Option<String> {
        let reservation = self.live.index.reserved.find(agent)?;
        let first = self.live.queue.find(reservation.class)?.first()?;
        Some(format!("is reserved for {first}, which {}", self.start_in_words(reservation)))
    }

    /// Where a place is reserved for a class.
    pub fn place_in_words(&self, class: ClassId) -> Option<String> {
        let (agent, reservation) = self.live.index.reserved.of_class(class)?;
        if self.live.index.reserved.gang() == Some(class) {
            let agents = self.live.index.reserved.all_of(class).len();
            let (first, start) = (self.live.queue.find(class)?.first()?, self.start_in_words(reservation));
            return Some(format!("{agents} agents are reserved for the gang of {first}, which {start}"));
        }
        let (name, first) = (self.agent_name(agent), self.live.queue.find(class)?.first()?);
        let makes_way = |held: &&Held| held.makes_way == Some(fb::EndReason::Preempted);
        let going = self.live.agent(agent).map_or(0, |live| live.held.values().filter(makes_way).count());
        let going = if going > 0 { format!(", where {going} attempts make way") } else { String::new() };
        Some(format!("agent `{name}` is reserved for {first}{going}, which {}", self.start_in_words(reservation)))
    }

    fn start_in_words(&self, reservation: &Reservation) -> String {
        match self.live.index.reserved.starts_at(reservation) {
            Time::NEVER => String::from("starts once enough of what runs there has ended"),
            at => format!("starts in {:.0} s at the latest", at.since(self.now).as_secs_f64()),
        }
    }
}
