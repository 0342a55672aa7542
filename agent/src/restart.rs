//! Whether the device was started anew since this agent last ran on it.
//!
//! What the slots say is not synced: it outlives every process, but not a loss of power. The file is written
//! only once what this start found is durable, so that a start which did not get so far is as if it had not
//! been.

use fleetwire_common::ids::Position;
use std::path::{Path, PathBuf};

/// The file that remembers the boot, and what it said.
#[derive(Debug)]
pub(crate) struct BootMark {
    /// It is not this boot's, or cannot be read.
    pub rebooted: bool,
    /// Where the journal ends with what was found at this start.
    pub position: Position,
    path: PathBuf,
    boot: String,
}

impl BootMark {
    /// Reads it, in boot `boot_id`.
    pub fn read(data: &Path, boot_id: [u8; 16]) -> BootMark {
        let (path, boot) = (data.join(FILE), format!("{:032x}\n", u128::from_be_bytes(boot_id)));
        let rebooted = std::fs::read_to_string(&path).map_or(true, |found| found != boot);
        BootMark { rebooted, position: Position(0), path, boot }
    }

    /// Remembers this boot. Where that fails, the next start takes itself for one after a reboot, which is safe.
    pub fn write(&self) {
        if let Err(error) = std::fs::write(&self.path, &self.boot) {
            tracing::warn!(%error, path = %self.path.display(), "this boot cannot be remembered");
        }
    }
}

const FILE: &str = "boot";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_known_again_once_it_was_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let mark = BootMark::read(folder.path(), [1; 16]);
        assert!(mark.rebooted, "nothing is known of before");
        assert!(BootMark::read(folder.path(), [1; 16]).rebooted, "not remembered yet");
        mark.write();
        assert!(!BootMark::read(folder.path(), [1; 16]).rebooted);
        assert!(BootMark::read(folder.path(), [2; 16]).rebooted);
        std::fs::write(folder.path().join(FILE), "0").unwrap();
        assert!(BootMark::read(folder.path(), [1; 16]).rebooted, "a torn file");
    }
}
