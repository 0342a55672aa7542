//! Bodies that lie beside the journal, read when a message that needs them is sent.
//!
//! Invariants: what is read is checked; what is kept of it is bounded in bytes. Reading does not hold the driver up
//! for longer than copying does: what was written lately is in the page cache, a body has at most
//! [`FILES_BYTES_MAX`], and of an array, whose tasks all carry the same files, they are read once.

use crate::limits::SPECS_BYTES_MAX;
use fleetwire_common::{
    job::TaskSpec,
    limits::FILES_BYTES_MAX,
    message::{Assignment, Message},
};
use fleetwire_disk::FsDisk;
use fleetwire_journal::{BlobError, read_blob};
use fleetwire_scheduler_core::bodies::{Lacks, complete};
use std::{collections::VecDeque, sync::Arc};

/// Reads bodies.
pub(crate) struct Bodies {
    disk: FsDisk,
    /// Specs that were completed lately, the latest last, by where their first file lies.
    recent: VecDeque<(u64, Arc<TaskSpec>)>,
    recent_bytes: usize,
}

impl Bodies {
    pub fn new(disk: FsDisk) -> Bodies {
        Bodies { disk, recent: VecDeque::new(), recent_bytes: 0 }
    }

    /// Puts into a message what it lacks.
    pub fn complete(&mut self, message: &mut Message, lacks: &Lacks) -> Result<(), BlobError> {
        let shared = lacks.shared();
        if let Message::Assignment(Assignment { spec, .. }) = message
            && let Some((_, known)) = self.recent.iter().find(|(known, _)| Some(*known) == shared)
        {
            *spec = Arc::clone(known);
            return Ok(());
        }
        complete(message, lacks, |blob| read_blob(&self.disk, blob))?;
        if let (Message::Assignment(Assignment { spec, .. }), Some(position)) = (message, shared) {
            self.recent_bytes += spec.bytes();
            self.recent.push_back((position, Arc::clone(spec)));
            while self.recent_bytes > SPECS_BYTES_MAX
                && let Some((_, oldest)) = self.recent.pop_front()
            {
                self.recent_bytes -= oldest.bytes();
            }
        }
        Ok(())
    }
}

// The largest is kept too.
const _: () = assert!(SPECS_BYTES_MAX >= 2 * FILES_BYTES_MAX);
