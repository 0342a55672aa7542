//! Disks: what the scheduler's and the agent's shells keep on one.
//!
//! - [`FsDisk`]: a folder of the file system as the journal's [`Disk`](fleetwire_journal::Disk).
//! - [`DataFolder`]: everything one process keeps: locked, versioned, readable by its owner only; small
//!   files are replaced as a whole or not at all.
//! - [`JournalWriter`]: the thread that writes the journal, with one fdatasync for everything that
//!   arrived while the last one ran, and keeps segments ready for when the disk is full.
//! - [`Snapshotter`]: the thread that makes snapshots beside it.

mod data_folder;
mod fs_disk;
mod journal_writer;
mod snapshotter;

pub use data_folder::{DataFolder, FolderError, ReadError};
pub use fs_disk::{FsDisk, FsFile};
pub use journal_writer::{JournalWriter, TryAppendError, WriterConfig, WriterFailed, WriterStopped};
pub use snapshotter::{SnapshotConfig, SnapshotFailed, Snapshotter};
