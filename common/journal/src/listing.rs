//! The files of a journal's folder, each looked at by itself: for people who want to know what is there.

use crate::{
    blobs,
    disk::{Disk, DiskError},
    found,
    refusal::{Damage, OpenError},
    segment::{PREPARED, segment_name, segment_number},
    snapshot,
};
use fleetwire_common::ids::Position;
use std::convert::Infallible;

/// A file, and what it says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileListing {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
}

/// What a file of a journal is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A segment whose header is valid.
    Segment {
        /// Facts before it.
        begins: Position,
        /// What was known durable when it got its name.
        durable: Position,
        /// Where it ends, as its successor says: facts, and bytes used. `None` = it is the newest.
        ends: Option<(Position, u64)>,
        /// Its length.
        bytes: u64,
    },
    /// A snapshot of which every byte is valid.
    Snapshot {
        /// The position that it stands for.
        position: Position,
        /// Facts in it.
        facts: u64,
        /// Its length.
        bytes: u64,
    },
    /// A segment of blobs whose header is valid.
    Blobs {
        /// Where in the stream of blobs it begins.
        begins: u64,
        /// Its length.
        bytes: u64,
    },
    /// A segment or snapshot that is not valid.
    Damaged {
        /// Where.
        offset: u64,
        /// What is wrong there.
        damage: Damage,
    },
    /// A segment or snapshot of a newer format.
    Newer {
        /// Its format.
        format: u16,
    },
    /// An empty segment that was prepared, or something unfinished: a start removes it.
    Prepared,
    /// None of ours.
    Other,
}

/// Lists all files, by name. Of segments only headers are read.
///
/// # Errors
/// The disk's.
pub fn list_files<D: Disk>(disk: &D) -> Result<Vec<FileListing>, DiskError> {
    let mut names = disk.names()?;
    names.sort_unstable();
    names.into_iter().map(|name| Ok(FileListing { kind: kind_of(disk, &name)?, name })).collect()
}

fn kind_of<D: Disk>(disk: &D, name: &str) -> Result<FileKind, DiskError> {
    if let Some(number) = segment_number(name) {
        let successor = number.checked_add(1).map(segment_name);
        let follows = disk.names()?.into_iter().any(|other| Some(other) == successor);
        let next = follows.then(|| found::header_of::<D, Infallible>(disk, number + 1)).and_then(Result::ok);
        return match found::header_of::<D, Infallible>(disk, number) {
            Ok(header) => Ok(FileKind::Segment {
                begins: header.end.position,
                durable: header.durable,
                ends: next.map(|next| (next.end.position, next.end.offset)),
                bytes: header.bytes,
            }),
            Err(error) => refused(error),
        };
    }
    if let Some(position) = snapshot::snapshot_position(name) {
        let header = match snapshot::header_of::<D, Infallible>(disk, position) {
            Ok(Ok(header)) => header,
            Ok(Err(damaged)) => return Ok(FileKind::Damaged { offset: damaged.offset, damage: damaged.damage }),
            Err(error) => return refused(error),
        };
        return match snapshot::walk::<D, Infallible>(disk, &header, |_| Ok(())) {
            Ok(Ok(())) => Ok(FileKind::Snapshot { position, facts: header.end.position.0, bytes: header.end.offset }),
            Ok(Err(damaged)) => Ok(FileKind::Damaged { offset: damaged.offset, damage: damaged.damage }),
            Err(error) => refused(error),
        };
    }
    if blobs::blobs_start(name).is_some() {
        return Ok(match blobs::header_of(disk, name)? {
            Some(begins) => FileKind::Blobs { begins, bytes: disk.len(&disk.open(name)?)? },
            None => FileKind::Damaged { offset: 0, damage: Damage::Header },
        });
    }
    Ok(if name.starts_with(PREPARED) { FileKind::Prepared } else { FileKind::Other })
}

fn refused(error: OpenError<Infallible>) -> Result<FileKind, DiskError> {
    match error {
        OpenError::Disk(error) => Err(error),
        OpenError::Corrupt { offset, damage, .. } => Ok(FileKind::Damaged { offset, damage }),
        OpenError::NewerFormat { found, .. } => Ok(FileKind::Newer { format: found }),
        OpenError::AnotherJournal { .. } | OpenError::Missing { .. } | OpenError::Snapshot { .. } => {
            Ok(FileKind::Other)
        }
        OpenError::Fact { cause, .. } => match cause {},
    }
}
