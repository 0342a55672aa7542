//! When the scheduler was heard last, where supervisors can read it: also of an agent that has died since, or
//! was stopped, and of the one that comes after.
//!
//! A small file in memory (`/dev/shm`), named after the executor's folder, so that nothing of it wears the
//! flash; where there is none, in the folder itself. Invariant: a reader believes only what was written in this
//! boot and is not in the future, so that whatever else is there can only stop work sooner, never later.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::request::Order;
use super::wire::{Reader, Writer};

/// The agent's side.
#[derive(Debug)]
pub(super) struct HeardCell {
    path: PathBuf,
    boot: [u8; 16],
    heard_us: u64,
}

impl HeardCell {
    /// The cell of an executor's folder.
    pub fn of(folder: &Path, boot: [u8; 16]) -> HeardCell {
        let in_memory = std::fs::metadata(folder).ok().map(|found| {
            Path::new(MEMORY).join(format!("fleetwire-agent-{}-{:x}-{:x}", found.uid(), found.dev(), found.ino()))
        });
        let path = in_memory.filter(|path| can_be_ours(path)).unwrap_or_else(|| folder.join(FILE));
        HeardCell { path, boot, heard_us: 0 }
    }

    /// Where supervisors find it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The boot of which it tells.
    pub fn boot(&self) -> [u8; 16] {
        self.boot
    }

    /// When the scheduler was heard last, boot-time clock, µs; 0 = never.
    pub fn heard_us(&self) -> u64 {
        self.heard_us
    }

    /// Removes what was written. After a death it stays, under the name that the folder's next agent uses.
    pub fn remove(&self) {
        let _ = std::fs::remove_file(&self.path);
    }

    /// The scheduler was heard. With `tell` supervisors are to know. What cannot be written stops work sooner.
    pub fn set(&mut self, heard_us: u64, tell: bool) {
        self.heard_us = self.heard_us.max(heard_us);
        if tell && let Some(file) = open(&self.path) {
            let mut writer = Writer::default();
            writer.bytes(&self.boot);
            writer.u64(self.heard_us);
            let _ = file.write_all_at(&writer.finish(), 0);
        }
    }
}

/// A supervisor's side: when the scheduler was heard, as far as it knows.
pub(super) struct Heard<'a> {
    pub order: &'a Order<'a>,
    pub at_us: u64,
}

impl Heard<'_> {
    /// When it is too long ago, by what is known here.
    pub fn until_us(&self) -> Option<u64> {
        let after_us = self.order.unheard_us;
        (after_us != 0).then(|| self.at_us.saturating_add(after_us))
    }

    /// Looks at the agent's word only when what is known here does not do.
    pub fn is_too_long_ago(&mut self, now_us: u64) -> bool {
        let passed = |heard: &Self| heard.until_us().is_some_and(|until_us| until_us <= now_us);
        if passed(self) {
            self.at_us = self.at_us.max(read(self.order.heard_path, self.order.boot, now_us));
        }
        passed(self)
    }

    pub fn message(&self) -> String {
        let seconds = self.order.unheard_us as f64 / 1e6;
        format!("the scheduler was not heard for {seconds} s, after which this job is to stop")
    }
}

/// What the cell says, boot-time clock, µs; 0 if nothing that counts.
fn read(path: &Path, boot: &[u8], now_us: u64) -> u64 {
    let mut bytes = [0; CELL_BYTES];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut bytes, 0));
    let mut reader = Reader::new(&bytes);
    match (read, reader.bytes(), reader.u64()) {
        (Ok(()), Ok(of), Ok(heard_us)) if of == boot && heard_us <= now_us => heard_us,
        _ => 0,
    }
}

/// Whether it can be made, or is ours already: anybody may make files there.
fn can_be_ours(path: &Path) -> bool {
    let writable = rustix::fs::access(MEMORY, rustix::fs::Access::WRITE_OK).is_ok();
    let me = rustix::process::geteuid().as_raw();
    writable && std::fs::symlink_metadata(path).map_or(true, |found| found.is_file() && found.uid() == me)
}

/// Opens it for writing; `None` if it is not ours.
fn open(path: &Path) -> Option<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    let file = options.open(path).ok()?;
    let ours = file.metadata().ok()?.uid() == rustix::process::geteuid().as_raw();
    ours.then_some(file)
}

const MEMORY: &str = "/dev/shm";
const FILE: &str = "heard";
/// A length, the boot's id, the time.
const CELL_BYTES: usize = 4 + 16 + 8;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_written_in_this_boot_and_is_past_counts() {
        let folder = tempfile::tempdir().unwrap();
        let mut cell = HeardCell::of(folder.path(), [1; 16]);
        let _remove = scopeguard(cell.path().to_owned());
        assert_eq!(read(cell.path(), &[1; 16], 100), 0);
        cell.set(50, false);
        assert_eq!(read(cell.path(), &[1; 16], 100), 0, "nobody needs to know");
        cell.set(50, true);
        cell.set(40, true);
        assert_eq!(read(cell.path(), &[1; 16], 100), 50);
        assert_eq!(read(cell.path(), &[1; 16], 49), 0, "in the future");
        assert_eq!(read(cell.path(), &[2; 16], 100), 0, "of another boot");
        assert_eq!(HeardCell::of(folder.path(), [1; 16]).path(), cell.path(), "the next agent's is the same");
        std::fs::write(cell.path(), [1; 9]).unwrap();
        assert_eq!(read(cell.path(), &[1; 16], 100), 0);
    }

    struct Remove(PathBuf);

    fn scopeguard(path: PathBuf) -> Remove {
        Remove(path)
    }

    impl Drop for Remove {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}
