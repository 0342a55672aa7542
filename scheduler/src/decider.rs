//! The core with what it decided: facts go to the journal, effects wait in the outbox until these are durable.
//!
//! Invariants: no batch of facts comes near the most that the journal takes, however much one turn
//! decides; an effect leaves only once the facts before it are durable; how much waits is known in bytes.

use crate::limits::{FACT_BYTES_AT_ONCE, FACT_BYTES_WAITING_MAX, OUTBOX_BYTES_MAX, OUTBOX_MAX};
use fleetwire_common::{facts::FactBatch, ids::Position, time::Time};
use fleetwire_disk::{JournalWriter, WriterFailed};
use fleetwire_journal::Outbox;
use fleetwire_link::weight;
use fleetwire_scheduler_core::{Effect, Effects, Event, Scheduler};
use std::collections::VecDeque;

/// Decides, and keeps what was decided until it is durable.
pub(crate) struct Decider {
    core: Scheduler,
    effects: Effects,
    outbox: Outbox<(usize, Effect)>,
    /// About how many bytes the outbox holds.
    outbox_bytes: usize,
    journal: JournalWriter,
    /// The batches that are not known to be durable: the last position and the bytes of each.
    written: VecDeque<(Position, usize)>,
    written_bytes: usize,
    durable: Position,
}

impl Decider {
    pub fn new(core: Scheduler, journal: JournalWriter, durable: Position) -> Decider {
        Decider {
            core,
            effects: Effects::new(),
            outbox: Outbox::default(),
            outbox_bytes: 0,
            journal,
            written: VecDeque::new(),
            written_bytes: 0,
            durable,
        }
    }

    pub fn core(&self) -> &Scheduler {
        &self.core
    }

    /// Decides that this incarnation has started.
    pub fn start(&mut self, now: Time) {
        self.core.start(now, &mut self.effects);
        self.after_step();
    }

    /// Lets the core handle an event.
    pub fn handle(&mut self, now: Time, event: Event<'_>) {
        self.core.handle(now, event, &mut self.effects);
        self.after_step();
    }

    /// Whether so much waits for the disk that nothing more should be taken in.
    pub fn is_full(&self) -> bool {
        self.outbox.is_full(OUTBOX_MAX)
            || self.outbox_bytes >= OUTBOX_BYTES_MAX
            || self.written_bytes >= FACT_BYTES_WAITING_MAX
    }

    /// Hands the facts that were decided to the journal.
    pub fn commit(&mut self) {
        if self.effects.facts.is_empty() {
            return;
        }
        let facts: FactBatch = std::mem::replace(&mut self.effects.facts, self.journal.spare());
        self.written.push_back((self.core.position(), facts.bytes().len()));
        self.written_bytes += facts.bytes().len();
        // Why the writer stopped comes on the other channel; nothing is released meanwhile.
        let _ = self.journal.append(facts);
    }

    /// What was decided up to there is durable.
    pub fn on_durable(&mut self, durable: Position) {
        self.durable = self.durable.max(durable);
        while let Some((_, bytes)) = self.written.pop_front_if(|(position, _)| *position <= self.durable) {
            self.written_bytes -= bytes;
        }
    }

    /// Whether all that was decided is durable.
    pub fn is_settled(&self) -> bool {
        self.durable >= self.core.position()
    }

    /// Takes out, in order, the effects of what is durable.
    pub fn release(&mut self) -> impl Iterator<Item = Effect> + '_ {
        let waiting = &mut self.outbox_bytes;
        self.outbox.release(self.durable).map(|(bytes, effect)| {
            *waiting -= bytes;
            effect
        })
    }

    /// Commits, and ends the journal's thread once all of it is written.
    pub fn stop(mut self) -> Result<Position, WriterFailed> {
        self.commit();
        self.journal.stop()
    }

    fn after_step(&mut self) {
        for (position, effect) in self.effects.drain() {
            let bytes = effect_bytes(&effect);
            self.outbox_bytes += bytes;
            self.outbox.push(position, (bytes, effect));
        }
        if self.effects.facts.bytes().len() >= FACT_BYTES_AT_ONCE {
            self.commit();
        }
    }
}

/// About how many bytes an effect holds while it waits.
fn effect_bytes(effect: &Effect) -> usize {
    match effect {
        Effect::Send { message, .. } => weight(message),
        Effect::Close { reason: text, .. } | Effect::RefuseEnrolment { message: text, .. } => {
            size_of::<Effect>() + text.len()
        }
        Effect::Certify { .. } | Effect::Token { .. } => size_of::<Effect>(),
    }
}
