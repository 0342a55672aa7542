//! Why a journal is not opened, in words that say where and what to do.

use crate::{
    disk::DiskError,
    segment::{JournalId, segment_name},
    snapshot::{DamagedSnapshot, snapshot_name},
};
use fleetwire_common::ids::Position;
use std::fmt;
use thiserror::Error;

/// What is wrong with bytes that must be valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The segment's header.
    Header,
    /// The file is not as long as its header says.
    Length,
    /// The file's name, or the segment before it, is another than its header says.
    Order,
    /// A batch's header.
    Batch,
    /// A batch does not follow the one before it.
    Chain,
    /// A batch's body.
    Body,
    /// A batch's facts are not as many as its header says.
    Facts,
    /// A mark that names no end of a batch before it.
    Mark,
    /// The valid batches end elsewhere than the next segment says.
    End,
}

/// Why a journal was not opened. `E` is what the reader of facts answered.
#[derive(Debug, Error)]
pub enum OpenError<E> {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A newer build wrote it.
    #[error("{file} has format {found}, this build reads up to {supported}: start a newer build")]
    NewerFormat {
        /// The file's name.
        file: String,
        /// Its format.
        found: u16,
        /// The newest format that this build reads.
        supported: u16,
    },
    /// It is the journal of another cluster or device.
    #[error(
        "{file} belongs to journal {}, expected was {}: the data folder is mixed up with another",
        Hex(found),
        Hex(expected)
    )]
    AnotherJournal {
        /// The file's name.
        file: String,
        /// Whose it should be.
        expected: JournalId,
        /// Whose it is.
        found: JournalId,
    },
    /// Bytes that were known durable are not what was written.
    #[error(
        "{} is damaged at byte {offset} ({damage}), where facts are or were known to be durable, so nothing can be \
         cut: nothing was changed; restore the data folder from a backup",
        segment_name(*segment)
    )]
    Corrupt {
        /// The segment's number.
        segment: u64,
        /// Where in the segment.
        offset: u64,
        /// What is wrong there.
        damage: Damage,
    },
    /// A segment that should be there is not.
    #[error("{} is missing: put it back, or restore the data folder from a backup", segment_name(*segment))]
    Missing {
        /// The segment's number.
        segment: u64,
    },
    /// A snapshot is damaged, and what it replaced is not there any more.
    #[error(
        "{} is damaged at byte {} ({}), and neither an older snapshot nor the first segments are there to begin \
         with: nothing was changed; restore the data folder from a backup",
        snapshot_name(damaged.position), damaged.offset, damaged.damage
    )]
    Snapshot {
        /// Which, and where.
        damaged: DamagedSnapshot,
    },
    /// A fact was refused by its reader.
    #[error("fact {} in {file}: {cause}", position.0)]
    Fact {
        /// Its position; in a snapshot, the snapshot's.
        position: Position,
        /// The file's name.
        file: String,
        /// What its reader answered.
        cause: E,
    },
}

/// Bytes as people read ids.
struct Hex<'a>(&'a JournalId);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Damage::Header => "the segment's header is not valid",
            Damage::Length => "the file is not as long as its header says",
            Damage::Order => "it is not the segment that belongs here",
            Damage::Batch => "no valid batch begins here",
            Damage::Chain => "the batch does not follow the one before it",
            Damage::Body => "the batch's bytes do not have their checksum",
            Damage::Facts => "the batch does not hold the facts that it names",
            Damage::Mark => "the mark names no end of a batch",
            Damage::End => "the segment does not end where its successor says",
        })
    }
}
