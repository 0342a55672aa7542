//! The journal: the durable log of facts, over any [`Disk`].
//!
//! A fact is opaque bytes here; who wrote it verifies it when it comes back. Facts are appended in
//! batches, a batch is read back whole or not at all, and what [`Journal::sync`] returned survives
//! every crash. The rules that make it so:
//!
//! - Every batch names the batch before it, by checksum, and carries the *mark*: the position that
//!   was known durable when it was written. Invalid bytes below a mark are corruption and refused;
//!   invalid bytes above the last mark are a torn tail, which nobody was told about: cut and reported.
//! - Only the newest segment may hold anything that is not durable. A segment gets its final name
//!   once its header, which names where its predecessor ends, is durable; so a file of that name with
//!   an invalid header is corruption, never a crash.
//! - Every start opens a new segment: what was valid above the last mark is written again there, and
//!   what lies beyond the named end of a segment is dead, whatever a disk brings back later.
//! - A snapshot holds what all facts up to the end of a segment add up to, again as facts. It is made beside
//!   the running journal, from the disk alone; recovery begins with the newest valid one. Two are kept, with
//!   all segments behind the older, so that a damaged one costs nothing.
//! - A body that is too large to be carried about in memory is a *blob*: it lies in a segment of blobs, durable
//!   before the fact that names it is written.
//! - After a failed write or sync the journal is poisoned: nothing is retried as if it had not
//!   happened, since the kernel may call pages clean that never reached the disk.
//!
//! `disk` says what is needed of a disk; `segment` and `batch` are the format; `recovery` reads it,
//! `refusal` says why it cannot; `journal` writes it; `snapshot` makes and reads snapshots, `retire` removes
//! what they replace; `blobs` writes and reads blobs; `outbox` holds effects until their position is durable; `sim_disk` is a disk
//! that loses what was not synced.
#![forbid(unsafe_code)]

mod batch;
mod blobs;
mod disk;
mod found;
mod journal;
mod layout;
mod listing;
mod outbox;
mod reader;
mod recovery;
mod refusal;
mod repair;
mod retire;
mod segment;
pub mod sim_disk;
mod snapshot;

pub use blobs::{BlobError, blobs_name, examine_blobs, read_blob, retire_blobs};
pub use disk::{Disk, DiskError, DiskErrorKind, DiskOperation};
pub use journal::{AppendError, BATCH_BYTES_MAX, Journal, JournalConfig, SyncError};
pub use listing::{FileKind, FileListing, list_files};
pub use outbox::Outbox;
pub use recovery::{LoadedSnapshot, Recovery, TornTail, check};
pub use refusal::{Damage, OpenError};
pub use repair::{Cut, Examined, examine};
pub use retire::{RetireError, Retired, copy_file, retire};
pub use segment::{FORMAT, Identity, JournalId, PreparedSegment, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, segment_name};
pub use snapshot::{DamagedSnapshot, SnapshotError, Stopped, Summary, Taken, snapshot_name, take as take_snapshot};
