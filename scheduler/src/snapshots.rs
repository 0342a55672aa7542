//! Snapshots of the scheduler's journal: what is told of them, and the state that they are made of.

use crate::{
    config::{SNAPSHOT_FACTS_MAX, SchedulerConfig},
    error::StartError,
};
use fleetwire_common::ids::Position;
use fleetwire_disk::{FsDisk, FsFile, SnapshotConfig, SnapshotFailed, Snapshotter};
use fleetwire_journal::{JournalConfig, Summary, Taken};
use fleetwire_scheduler_core::{ReplayError, State};

/// What facts add up to, as a snapshot of a scheduler's journal holds it: made of the journal's bytes, never of
/// a running scheduler.
#[derive(Debug, Default)]
pub struct Replica {
    /// The state.
    pub state: State,
}

impl Summary for Replica {
    type Error = ReplayError;

    fn apply(&mut self, position: Position, fact: &[u8]) -> Result<(), ReplayError> {
        self.state.apply_bytes(fact).map_err(|cause| ReplayError { position, cause })
    }

    fn write<X>(&self, emit: &mut dyn FnMut(&[u8]) -> Result<(), X>) -> Result<(), X> {
        self.state.write_snapshot(emit)
    }

    fn needs_blobs(&self, segment: u64) -> bool {
        self.state.blobs.needs(segment)
    }
}

/// Starts the thread that makes them.
pub(crate) fn start(
    disk: FsDisk,
    journal: JournalConfig,
    config: &SchedulerConfig,
) -> Result<Snapshotter<FsFile>, StartError> {
    let archive = config.archive.as_deref().map(FsDisk::open).transpose()?;
    let snapshots = SnapshotConfig {
        facts: config.snapshot_facts.clamp(1, SNAPSHOT_FACTS_MAX),
        bytes: config.snapshot_bytes,
        archive,
        ..SnapshotConfig::default()
    };
    let started = Snapshotter::start(disk, journal, snapshots, Replica::default, tell);
    started.map_err(|error| StartError::Runtime { what: "snapshot thread", error })
}

fn tell(taken: Result<Taken, SnapshotFailed<ReplayError>>) {
    match taken {
        Ok(taken) => tracing::info!(
            "snapshot of the journal at fact {}: {} facts, {} bytes",
            taken.position.0,
            taken.facts,
            taken.bytes
        ),
        Err(error) => tracing::warn!("{error}. The journal goes on, and grows meanwhile; it is tried again"),
    }
}
