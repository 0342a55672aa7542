//! The journal as the shells drive it: facts gather while a sync runs, and then go down as one batch with
//! one sync (group commit).

use crate::trace::{Violation, broken};
use fleetwire_common::{facts::FactBatch, ids::Position};
use fleetwire_journal::{Journal, JournalConfig, sim_disk::SimDisk};

/// A journal with what waits for it.
#[derive(Debug)]
pub struct Writer {
    journal: Journal<SimDisk>,
    pending: FactBatch,
    busy: bool,
}

impl Writer {
    /// Opens the journal and hands every fact in it to `on_fact`.
    ///
    /// # Errors
    /// Promise P1 is broken: what a crash leaves can always be opened and replayed.
    pub fn open(
        disk: SimDisk,
        config: &JournalConfig,
        mut on_fact: impl FnMut(&[u8]) -> Result<(), Violation>,
    ) -> Result<Writer, Violation> {
        match Journal::open(disk, config, |_, fact| on_fact(fact)) {
            Ok((journal, _)) => Ok(Writer { journal, pending: FactBatch::default(), busy: false }),
            Err(fleetwire_journal::OpenError::Fact { cause, .. }) => Err(cause),
            Err(error) => broken("P1", format!("the journal cannot be opened after a crash: {error}")),
        }
    }

    /// Takes facts that were decided.
    pub fn take(&mut self, facts: &mut FactBatch) {
        self.pending.append(facts);
    }

    /// Writes what waits, unless a sync is running or nothing waits. Returns whether a sync now runs.
    ///
    /// # Errors
    /// None that the simulation knows of: its disk does not fail.
    pub fn begin(&mut self) -> Result<bool, Violation> {
        if self.busy || self.pending.is_empty() {
            return Ok(false);
        }
        if let Err(error) = self.journal.append(&self.pending) {
            return broken("P1", format!("the journal takes no more: {error}"));
        }
        self.pending.clear();
        self.busy = true;
        Ok(true)
    }

    /// The sync has ended. Returns what is durable.
    ///
    /// # Errors
    /// None that the simulation knows of: its disk does not fail.
    pub fn end(&mut self) -> Result<Position, Violation> {
        self.busy = false;
        self.journal.sync().or_else(|error| broken("P1", format!("the journal does not sync: {error}")))
    }

    /// An idle journal writes down what is durable.
    pub fn mark(&mut self) {
        let marked = self.journal.mark();
        debug_assert!(marked.is_ok(), "the simulated disk does not fail");
    }

    /// Whether nothing waits and no sync runs.
    pub fn is_idle(&self) -> bool {
        !self.busy && self.pending.is_empty()
    }

    /// What is durable.
    pub fn durable(&self) -> Position {
        self.journal.durable()
    }
}
