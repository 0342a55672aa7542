//! What lies in a journal's folder: the newest valid snapshot, and the segments behind it.
//!
//! Invariants: nothing is written here; segments are of one journal and follow each other without a gap.

use crate::{
    disk::Disk,
    journal::JournalConfig,
    reader::Reader,
    recovery::Walk,
    refusal::{Damage, OpenError},
    segment::{
        FORMAT, HEADER_BYTES, HeaderRefused, Identity, JournalId, Place, SegmentHeader, segment_name, segment_number,
    },
    snapshot::{self, DamagedSnapshot, SnapshotHeader, snapshot_name},
};
use fleetwire_common::ids::Position;

/// What lies on the disk, as far as headers say; of snapshots, all.
pub(crate) struct Found {
    pub journal: JournalId,
    /// The newest valid snapshot.
    pub snapshot: Option<SnapshotHeader>,
    /// Newer ones.
    pub damaged: Vec<DamagedSnapshot>,
    /// The segments behind it, oldest first.
    pub segments: Vec<SegmentHeader>,
}

/// Looks for the newest valid snapshot, reading all of it, and for the segments behind it.
pub(crate) fn find<D: Disk, E>(disk: &D, config: &JournalConfig) -> Result<Found, OpenError<E>> {
    let (found, broken) = find_up_to_damage(disk, config)?;
    broken.map_or(Ok(found), Err)
}

/// The same, up to the first segment that is damaged or missing, if one is.
pub(crate) fn find_up_to_damage<D: Disk, E>(
    disk: &D,
    config: &JournalConfig,
) -> Result<(Found, Option<OpenError<E>>), OpenError<E>> {
    let names = disk.names()?;
    let mut damaged = Vec::new();
    let mut snapshot = None;
    for position in snapshot::positions(&names).into_iter().skip(config.skip_snapshots) {
        let header = match snapshot::header_of(disk, position)? {
            Ok(header) => header,
            Err(found) => {
                damaged.push(found);
                continue;
            }
        };
        if let Identity::Exactly(expected) = config.identity
            && header.journal != expected
        {
            let (file, found) = (snapshot_name(position), header.journal);
            return Err(OpenError::AnotherJournal { file, expected, found });
        }
        match snapshot::walk(disk, &header, |_| Ok(()))? {
            Ok(()) => {
                snapshot = Some(header);
                break;
            }
            Err(found) => damaged.push(found),
        }
    }
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    let mut segments = Vec::with_capacity(numbers.len());
    let broken = match list(disk, config, snapshot.as_ref(), &numbers, &mut segments) {
        Ok(()) => None,
        // What is missing went when the snapshot was made that is damaged now.
        Err(OpenError::Missing { .. }) if !damaged.is_empty() => {
            return Err(OpenError::Snapshot { damaged: damaged.remove(0) });
        }
        Err(error @ (OpenError::Missing { .. } | OpenError::Corrupt { .. })) => Some(error),
        Err(error) => return Err(error),
    };
    let (Identity::Exactly(given) | Identity::IfNew(given)) = config.identity;
    let journal = segments.first().map_or(given, |first| first.journal);
    Ok((Found { journal, snapshot, damaged, segments }, broken))
}

impl Found {
    /// The newest segment that has a successor, and where it ends.
    pub(crate) fn sealed_end(&self) -> Option<(u64, Place)> {
        self.segments.last().map(|newest| (newest.predecessor, newest.end)).filter(|(segment, _)| *segment > 0)
    }

    /// Hands out the facts of the snapshot and of all segments that have a successor.
    pub(crate) fn walk_sealed<D: Disk, E, C>(&self, disk: &D, walk: &mut Walk<C>) -> Result<(), OpenError<E>>
    where
        C: FnMut(Position, &[u8]) -> Result<(), E>,
    {
        if let Some(header) = &self.snapshot {
            walk.snapshot(disk, header)?;
        }
        let mut buffer = Vec::new();
        for (header, next) in self.segments.iter().zip(self.segments.iter().skip(1)) {
            let file = disk.open(&segment_name(header.number))?;
            let mut reader = Reader::over(disk, file, header.bytes, buffer);
            walk.sealed(&mut reader, header, next.end)?;
            (_, buffer) = reader.into_parts();
        }
        Ok(())
    }
}

/// Reads the headers of all segments behind the snapshot, and checks that they are of one journal and follow
/// each other. What lies before it is not looked at: it may be on its way out.
fn list<D: Disk, E>(
    disk: &D,
    config: &JournalConfig,
    snapshot: Option<&SnapshotHeader>,
    numbers: &[u64],
    segments: &mut Vec<SegmentHeader>,
) -> Result<(), OpenError<E>> {
    let before = snapshot.map_or(0, |snapshot| snapshot.segment);
    for segment in numbers.iter().copied().filter(|number| *number > before) {
        let header = header_of(disk, segment)?;
        let expected = match (snapshot, segments.first(), config.identity) {
            (Some(SnapshotHeader { journal, .. }), ..) | (None, Some(SegmentHeader { journal, .. }), _) => *journal,
            (None, None, Identity::IfNew(_)) => header.journal,
            (None, None, Identity::Exactly(expected)) => expected,
        };
        if header.journal != expected {
            return Err(OpenError::AnotherJournal { file: segment_name(segment), expected, found: header.journal });
        }
        let (last, bytes) = segments.last().map_or((before, None), |last| (last.number, Some(last.bytes)));
        if last + 1 < segment {
            return Err(OpenError::Missing { segment: last + 1 });
        }
        let follows = match (bytes, snapshot) {
            (Some(bytes), _) => header.end.offset <= bytes,
            (None, Some(snapshot)) => header.end == snapshot.stands,
            (None, None) => header.end.position == Position(0),
        };
        if !follows {
            return Err(OpenError::Corrupt { segment, offset: 0, damage: Damage::Order });
        }
        segments.push(header);
    }
    match snapshot {
        // A segment was there before the snapshot was made, to name the end at which it stands.
        Some(snapshot) if segments.is_empty() => Err(OpenError::Missing { segment: snapshot.segment + 1 }),
        _ => Ok(()),
    }
}

/// Reads and checks one segment's header.
pub(crate) fn header_of<D: Disk, E>(disk: &D, segment: u64) -> Result<SegmentHeader, OpenError<E>> {
    let file = disk.open(&segment_name(segment))?;
    let mut bytes = [0; HEADER_BYTES];
    let mut filled = 0;
    while let Some(free) = bytes.get_mut(filled..).filter(|free| !free.is_empty()) {
        match disk.read_at(&file, filled as u64, free)? {
            0 => break,
            came => filled += came,
        }
    }
    let header = match SegmentHeader::open(&bytes) {
        Ok(header) => header,
        Err(HeaderRefused::Newer { found }) => {
            return Err(OpenError::NewerFormat { file: segment_name(segment), found, supported: FORMAT });
        }
        Err(HeaderRefused::Damaged(damage)) => return Err(OpenError::Corrupt { segment, offset: 0, damage }),
    };
    let bytes = disk.len(&file)?;
    if bytes != header.bytes {
        return Err(OpenError::Corrupt { segment, offset: bytes.min(header.bytes), damage: Damage::Length });
    }
    if header.number != segment {
        return Err(OpenError::Corrupt { segment, offset: 0, damage: Damage::Order });
    }
    Ok(header)
}
