//! The agent's journal: opened and replayed, then written by a thread of its own.

use crate::AgentError;
use fleetwire_agent_core::{Agent, ReplayError, State};
use fleetwire_common::{facts::FactBatch, ids::Position};
use fleetwire_disk::{
    DataFolder, JournalWriter, SnapshotConfig, SnapshotFailed, Snapshotter, WriterConfig, WriterFailed,
};
use fleetwire_journal::{Identity, Journal, JournalConfig, OpenError, Summary, Taken};
use tokio::sync::watch;

/// The journal of a running agent.
#[derive(Debug)]
pub(crate) struct FactLog {
    writer: JournalWriter,
    durable: watch::Receiver<Result<Position, WriterFailed>>,
}

impl FactLog {
    /// Replays what is there into the agent and starts the writer. A new journal gets the id `new`.
    pub fn open(folder: &DataFolder, agent: &mut Agent, new: [u8; 16]) -> Result<FactLog, AgentError> {
        let disk =
            folder.disk(JOURNAL).map_err(|error| AgentError::Journal { source: Box::new(OpenError::Disk(error)) })?;
        let config = JournalConfig::small(Identity::IfNew(new));
        let replay = |position, fact: &[u8]| agent.replay(position, fact);
        let (journal, recovery) = Journal::open::<ReplayError>(disk.clone(), &config, replay)
            .map_err(|source| AgentError::Journal { source: Box::new(source) })?;
        let thread = |source| AgentError::Thread { source };
        let snapshots = SnapshotConfig { bytes: SNAPSHOT_BYTES, bytes_per_s: SNAPSHOT_PACE, ..Default::default() };
        let snapshotter = Snapshotter::start(disk, config, snapshots, Replica::default, tell).map_err(thread)?;
        if let Some(cut) = &recovery.cut {
            tracing::warn!(
                ?cut,
                "the journal's last write was cut off, as a power loss does; it was never acknowledged"
            );
        }
        let (sender, durable) = watch::channel(Ok(recovery.position));
        // Little memory and little disk: a segment is prepared when it is needed, and few batches wait.
        let config = WriterConfig { reserve: 0, queue_batches: 8, ..WriterConfig::default() };
        let pass_on = move |position| {
            let _ = sender.send_replace(position);
        };
        let snapshots = (snapshotter, (recovery.facts, recovery.bytes));
        let writer = JournalWriter::start_with_snapshots(journal, config, snapshots, pass_on).map_err(thread)?;
        Ok(FactLog { writer, durable })
    }

    /// Gives the facts to the writer; empties the batch.
    pub fn append(&self, facts: &mut FactBatch) -> Result<(), AgentError> {
        if facts.is_empty() {
            return Ok(());
        }
        let batch = std::mem::replace(facts, self.writer.spare());
        self.writer.append(batch).map_err(|_| self.failure())
    }

    /// Up to where facts are durable.
    pub fn durable(&mut self) -> Result<Position, AgentError> {
        self.durable.borrow_and_update().clone().map_err(|source| AgentError::Writer { source })
    }

    /// Waits until more is durable than [`FactLog::durable`] last said, or the writer has failed.
    pub async fn moved(&mut self) {
        // An error means that the writer is gone, which `durable` tells or the next append does.
        if self.durable.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Writes what waits, and ends the thread.
    pub fn stop(self) -> Result<(), AgentError> {
        self.writer.stop().map(|_| ()).map_err(|source| AgentError::Writer { source })
    }

    fn failure(&self) -> AgentError {
        let source = self.durable.borrow().clone().err().unwrap_or(WriterFailed::Panicked);
        AgentError::Writer { source }
    }
}

/// What facts add up to, made of the journal's bytes.
#[derive(Debug, Default)]
struct Replica(State);

impl Summary for Replica {
    type Error = ReplayError;

    fn apply(&mut self, position: Position, fact: &[u8]) -> Result<(), ReplayError> {
        self.0.apply_bytes(position, fact)
    }

    fn write<X>(&self, emit: &mut dyn FnMut(&[u8]) -> Result<(), X>) -> Result<(), X> {
        self.0.write_snapshot(emit)
    }
}

fn tell(taken: Result<Taken, SnapshotFailed<ReplayError>>) {
    match taken {
        Ok(Taken { facts, bytes, .. }) => tracing::debug!(facts, bytes, "the journal starts over"),
        Err(error) => tracing::warn!("{error}. The journal goes on, and grows meanwhile; it is tried again"),
    }
}

const JOURNAL: &str = "journal";
/// The journal starts over after so many bytes of facts. Two such parts are kept, and some segments to be used again:
/// it takes some 6 MiB at most beside what is still held.
const SNAPSHOT_BYTES: u64 = 1 << 20;
/// Bytes that its making writes in a second, at most.
const SNAPSHOT_PACE: u64 = 16 << 20;

#[cfg(test)]
mod tests;
