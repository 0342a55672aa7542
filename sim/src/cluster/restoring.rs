//! Backups of the scheduler's whole data: made, put back in its place, and accepted by the operator.
//!
//! The one that was put back goes on instead of the original, or the original is kept and comes back in its turn, so that
//! both have gone on from the same past: what one knows the other does not. Agents cannot tell that from two schedulers
//! that run side by side, since each of them has one session at a time.

use super::Cluster;
use crate::{
    coverage::Restoring,
    history::History,
    trace::Violation,
    world::{Happening, Node},
};
use fleetwire_common::{blob::BlobRef, ids::Position};
use fleetwire_journal::sim_disk::SimDisk;
use std::{collections::BTreeMap, time::Duration};

/// The scheduler's data at some moment.
#[derive(Debug)]
pub(super) struct Backup {
    disk: SimDisk,
    facts: Vec<Vec<u8>>,
    bodies: BTreeMap<BlobRef, Vec<u8>>,
    durable: Position,
    is_original: bool,
}

impl Cluster {
    /// Makes a backup or, where there is one, puts it back after the scheduler was killed.
    pub(crate) fn back_up_or_restore(&mut self, outage: Duration) -> Result<(), Violation> {
        let Some(backup) = self.backup.take() else {
            self.world.trace.say(self.world.now, || "scheduler: a backup is made".to_owned());
            self.world.trace.coverage.restoring(Restoring::Made);
            let disk = self.scheduler.disk.copy();
            // Full or read-only disks, and those about to fail, are not copied.
            disk.mend();
            disk.set_capacity(None);
            disk.set_read_only(false);
            crate::misfortune::lose_unsynced(&disk, &mut self.world);
            self.backup = Some(self.as_backup(disk, false));
            return Ok(());
        };
        self.put_back(backup, outage)
    }

    fn as_backup(&self, disk: SimDisk, is_original: bool) -> Backup {
        let (facts, bodies) = (self.history.facts().to_vec(), self.history.bodies.clone());
        Backup { disk, facts, bodies, durable: self.history.durable, is_original }
    }

    fn put_back(&mut self, backup: Backup, outage: Duration) -> Result<(), Violation> {
        let what = if backup.is_original { Restoring::Original } else { Restoring::PutBack };
        self.world.trace.say(self.world.now, || format!("scheduler: {what:?}"));
        self.world.trace.coverage.restoring(what);
        self.crash_scheduler()?;
        let disk = std::mem::replace(&mut self.scheduler.disk, backup.disk);
        if self.world.random.chance(500) {
            disk.mend();
            self.backup = Some(self.as_backup(disk, true));
        }
        self.history = History::of(backup.facts, backup.durable)?;
        self.history.bodies = backup.bodies;
        self.scheduler.accepts_restore = false;
        self.put_back = true;
        self.world.plan(outage, Happening::Start(Node::Scheduler, self.scheduler.life));
        Ok(())
    }

    /// The scheduler has started. If its data was put back it is known by now how much of it there is.
    pub(super) fn outlive(&mut self) {
        if !std::mem::take(&mut self.put_back) {
            return;
        }
        for client in &mut self.clients {
            client.forget_what_is_gone(&mut self.world, &self.history);
        }
        for agent in &mut self.agents {
            agent.outlive(self.world.now);
        }
    }

    /// Somebody sees that a backup was restored, and decides in a while.
    pub(super) fn see_restored(&mut self) {
        if self.history.is_restored() && !std::mem::replace(&mut self.restore_seen, true) {
            let after = self.world.between(Duration::from_secs(1), Duration::from_secs(60));
            self.world.plan(after, Happening::AcceptRestore);
        }
    }

    /// The operator goes on with the backup: a restart that says so.
    pub(super) fn on_accept_restore(&mut self) -> Result<(), Violation> {
        self.restore_seen = false;
        if !self.history.is_restored() {
            return Ok(());
        }
        let now = self.world.now;
        self.world.trace.say(now, || "the operator accepts the restored backup".to_owned());
        self.crash_scheduler()?;
        self.scheduler.accepts_restore = true;
        self.start_scheduler()
    }
}
