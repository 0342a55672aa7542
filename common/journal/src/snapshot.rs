//! Snapshots: files that hold what all facts up to a position add up to, again as facts, so that what lies
//! before can go. Made beside the running journal, from what is on the disk: the newest snapshot and the
//! segments that have a successor.
//!
//! The header takes one 512-byte sector, in this and every later format:
//! ```text
//!   0  "FWSNAPSH"                        8  u16  format       10  6 bytes of 0
//!  16  [u8; 16]  the journal's id       32  u64  number of the segment at whose end it stands
//!  40  u64  offset of that end          48  u64  its position: facts that the snapshot stands for
//!  56  u64  checksum of the last batch before it
//!  64  u64  length of the file          72  u64  facts in it
//!  80  u64  checksum of its last batch
//!  88  0 …                             504  u64  checksum of bytes 0..504
//! ```
//! Behind it lie batches as in a segment, chained; their seed is the checksum of bytes 0..64, so that none
//! can pass for one of another snapshot. A file is written under another name, gets its header last, is
//! synced, and only then gets its name: one with a snapshot's name that is not valid is damaged.
//!
//! Invariants: a snapshot stands exactly where a segment ends, and names that end by its checksum. The two
//! newest are kept, with all segments behind the older: if the newest is damaged, nothing is lost.

use crate::{
    batch::{Link, seal_batch},
    disk::{Disk, DiskError},
    found,
    journal::JournalConfig,
    layout::{checksum, u16_at, u64_at},
    reader::Reader,
    recovery::{Walk, after, batch_at},
    refusal::{Damage, OpenError},
    segment::{FORMAT, HEADER_BYTES, HeaderRefused, JournalId, POSITION_MAX, Place},
};
use fleetwire_common::{
    facts::{FactBatch, FactIter},
    ids::Position,
};
use std::cell::Cell;
use thiserror::Error;

/// What a journal's facts add up to: made from them one by one, and written down as fewer.
pub trait Summary {
    /// Why a fact is not taken.
    type Error;

    /// Takes the next fact. Those of a snapshot come first, all with the snapshot's position.
    fn apply(&mut self, position: Position, fact: &[u8]) -> Result<(), Self::Error>;

    /// Writes everything down as facts that make the same when they are applied to nothing; the first error
    /// of `emit` ends it.
    fn write<X>(&self, emit: &mut dyn FnMut(&[u8]) -> Result<(), X>) -> Result<(), X>;

    /// Whether the segment of blobs that begins there holds, or will hold, anything that is named from here on.
    fn needs_blobs(&self, segment: u64) -> bool {
        let _ = segment;
        true
    }
}

impl<S: Summary> Summary for &mut S {
    type Error = S::Error;

    fn apply(&mut self, position: Position, fact: &[u8]) -> Result<(), Self::Error> {
        S::apply(self, position, fact)
    }

    fn write<X>(&self, emit: &mut dyn FnMut(&[u8]) -> Result<(), X>) -> Result<(), X> {
        S::write(self, emit)
    }

    fn needs_blobs(&self, segment: u64) -> bool {
        S::needs_blobs(self, segment)
    }
}

/// Why no snapshot was made. Nothing of it is left on the disk that counts.
#[derive(Debug, Error)]
pub enum SnapshotError<E> {
    /// What there is cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError<E>),
    /// It cannot be written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It was asked to stop.
    #[error("the snapshot was stopped before it was whole")]
    Stopped,
}

/// It was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// A snapshot that was made and is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The position that it stands for.
    pub position: Position,
    /// Facts in it.
    pub facts: u64,
    /// Bytes of its file.
    pub bytes: u64,
}

/// A snapshot that is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedSnapshot {
    /// The position that its name says.
    pub position: Position,
    /// Where in the file.
    pub offset: u64,
    /// What is wrong there.
    pub damage: Damage,
}

/// What a snapshot says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotHeader {
    pub journal: JournalId,
    /// The segment at whose end it stands.
    pub segment: u64,
    /// That end.
    pub stands: Place,
    /// The end of its own batches: the file's length, its facts, the last checksum.
    pub end: Place,
}

/// The name of the snapshot of that position.
pub fn snapshot_name(position: Position) -> String {
    format!("{:020}{SUFFIX}", position.0)
}

/// The position of the snapshot whose file has that name, if it is one.
pub(crate) fn snapshot_position(name: &str) -> Option<Position> {
    let position = Position(name.strip_suffix(SUFFIX)?.parse().ok()?);
    (snapshot_name(position) == name).then_some(position)
}

/// The positions of all snapshots, the newest first.
pub(crate) fn positions(names: &[String]) -> Vec<Position> {
    let mut positions: Vec<Position> = names.iter().filter_map(|name| snapshot_position(name)).collect();
    positions.sort_unstable_by(|a, b| b.cmp(a));
    positions
}

impl SnapshotHeader {
    fn seal(&self) -> [u8; HEADER_BYTES] {
        let mut header = self.identity();
        for number in [self.end.offset, self.end.position.0, self.end.checksum] {
            header.extend_from_slice(&number.to_le_bytes());
        }
        header.resize(HEADER_BYTES - 8, 0);
        let own = checksum(&header);
        header.extend_from_slice(&own.to_le_bytes());
        header.first_chunk().copied().unwrap_or([0; HEADER_BYTES])
    }

    /// The part that is known before the snapshot is written.
    fn identity(&self) -> Vec<u8> {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&u64::from(FORMAT).to_le_bytes());
        header.extend_from_slice(&self.journal);
        let stands = self.stands;
        for number in [self.segment, stands.offset, stands.position.0, stands.checksum] {
            header.extend_from_slice(&number.to_le_bytes());
        }
        header
    }

    fn open(bytes: &[u8]) -> Result<SnapshotHeader, HeaderRefused> {
        let damaged = HeaderRefused::Damaged(Damage::Header);
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or(damaged)?;
        let (content, _) = header.split_at(HEADER_BYTES - 8);
        let number = |at| u64_at(header, at).ok_or(damaged);
        if !header.starts_with(MAGIC) || number(HEADER_BYTES - 8)? != checksum(content) {
            return Err(damaged);
        }
        match u16_at(header, 8).ok_or(damaged)? {
            FORMAT => {}
            0 => return Err(damaged),
            found => return Err(HeaderRefused::Newer { found }),
        }
        let place = |at| -> Result<Place, HeaderRefused> {
            Ok(Place { offset: number(at)?, position: Position(number(at + 8)?), checksum: number(at + 16)? })
        };
        let journal = header.get(16..).and_then(|rest| rest.first_chunk()).ok_or(damaged)?;
        let opened = SnapshotHeader { journal: *journal, segment: number(32)?, stands: place(40)?, end: place(64)? };
        let possible = opened.segment > 0
            && opened.segment < u64::MAX
            && opened.stands.position.0 <= POSITION_MAX
            && opened.end.position.0 <= POSITION_MAX;
        if possible { Ok(opened) } else { Err(damaged) }
    }

    /// The first link of its chain, and the seed of its batches.
    fn seed(&self) -> u64 {
        checksum(&self.identity())
    }

    fn start(&self) -> Place {
        Place { offset: HEADER_BYTES as u64, position: Position(0), checksum: self.seed() }
    }
}

/// Reads and checks one snapshot's header.
pub(crate) fn header_of<D: Disk, E>(
    disk: &D,
    position: Position,
) -> Result<Result<SnapshotHeader, DamagedSnapshot>, OpenError<E>> {
    let name = snapshot_name(position);
    let file = disk.open(&name)?;
    let bytes = disk.len(&file)?;
    let mut reader = Reader::over(disk, file, HEADER_BYTES as u64, Vec::new());
    let damaged = |offset, damage| Ok(Err(DamagedSnapshot { position, offset, damage }));
    let header = match SnapshotHeader::open(reader.window(0, HEADER_BYTES)?) {
        Ok(header) => header,
        Err(HeaderRefused::Newer { found }) => {
            return Err(OpenError::NewerFormat { file: name, found, supported: FORMAT });
        }
        Err(HeaderRefused::Damaged(damage)) => return damaged(0, damage),
    };
    if header.stands.position != position {
        return damaged(0, Damage::Order);
    }
    if header.end.offset != bytes {
        return damaged(bytes.min(header.end.offset), Damage::Length);
    }
    Ok(Ok(header))
}

/// Walks over all facts of a snapshot, checking every byte.
pub(crate) fn walk<D: Disk, E>(
    disk: &D,
    header: &SnapshotHeader,
    mut on_fact: impl FnMut(&[u8]) -> Result<(), OpenError<E>>,
) -> Result<Result<(), DamagedSnapshot>, OpenError<E>> {
    let SnapshotHeader { stands, end, .. } = *header;
    let file = disk.open(&snapshot_name(stands.position))?;
    let mut reader = Reader::over(disk, file, end.offset, Vec::new());
    let damaged = |place: Place, damage| DamagedSnapshot { position: stands.position, offset: place.offset, damage };
    let mut place = header.start();
    while place.offset < end.offset {
        let (batch, body) = match batch_at(&mut reader, header.seed(), place, end.offset)? {
            Ok(found) => found,
            Err(damage) => return Ok(Err(damaged(place, damage))),
        };
        let mut facts = FactIter::over(body);
        let mut count = 0;
        for fact in facts.by_ref() {
            count += 1;
            on_fact(fact)?;
        }
        match after(place, &batch).filter(|_| facts.rest().is_empty() && count == batch.facts) {
            Some(next) => place = next,
            None => return Ok(Err(damaged(place, Damage::Facts))),
        }
    }
    if place != end {
        return Ok(Err(damaged(place, Damage::End)));
    }
    Ok(Ok(()))
}

/// Makes a snapshot of everything up to the end of the newest segment that has a successor; `None` if there is
/// one of that position already, or nothing yet. `summary` knows nothing so far. `pace` is called again and again, with
/// the bytes written since: it may wait, so that the journal beside it does not, and ends the work by an error.
///
/// # Errors
/// [`SnapshotError`]. The journal goes on without it.
pub fn take<D: Disk, S: Summary>(
    disk: &D,
    config: &JournalConfig,
    mut summary: S,
    mut pace: impl FnMut(u64) -> Result<(), Stopped>,
) -> Result<Option<Taken>, SnapshotError<S::Error>> {
    let found = found::find(disk, config)?;
    let Some((segment, stands)) = found.sealed_end() else { return Ok(None) };
    if found.snapshot.is_some_and(|snapshot| snapshot.stands == stands) {
        return Ok(None);
    }
    let mut facts = 0_u64;
    let stopped = Cell::new(false);
    let mut walk = Walk::new(|position: Position, fact: &[u8]| {
        facts += 1;
        if facts.is_multiple_of(FACTS_BETWEEN_PACES) && !stopped.get() {
            stopped.set(pace(0).is_err());
        }
        // What follows a stop is read to no purpose; reading is quick.
        if stopped.get() { Ok(()) } else { summary.apply(position, fact) }
    });
    found.walk_sealed(disk, &mut walk)?;
    if stopped.get() {
        return Err(SnapshotError::Stopped);
    }
    let header = SnapshotHeader { journal: found.journal, segment, stands, end: stands };
    let written = write(disk, header, &summary, pace);
    if written.is_err() {
        // What cannot be removed is removed by the next start.
        let _ = disk.remove(UNFINISHED);
    }
    written.map(Some)
}

fn write<D: Disk, S: Summary>(
    disk: &D,
    mut header: SnapshotHeader,
    summary: &S,
    pace: impl FnMut(u64) -> Result<(), Stopped>,
) -> Result<Taken, SnapshotError<S::Error>> {
    if disk.names()?.iter().any(|name| name == UNFINISHED) {
        disk.remove(UNFINISHED)?;
    }
    let file = disk.create(UNFINISHED, 0)?;
    let mut writing = Writing {
        disk,
        file,
        seed: header.seed(),
        place: header.start(),
        batch: FactBatch::default(),
        buffer: Vec::new(),
        unsynced: 0,
        pace,
    };
    summary.write(&mut |fact| writing.push(fact))?;
    writing.flush()?;
    header.end = writing.place;
    disk.write_at(&writing.file, 0, &header.seal())?;
    disk.sync(&writing.file)?;
    disk.rename(UNFINISHED, &snapshot_name(header.stands.position))?;
    disk.sync_dir()?;
    Ok(Taken { position: header.stands.position, facts: header.end.position.0, bytes: header.end.offset })
}

/// A snapshot on its way to the disk.
struct Writing<'d, D: Disk, P> {
    disk: &'d D,
    file: D::File,
    seed: u64,
    place: Place,
    batch: FactBatch,
    buffer: Vec<u8>,
    unsynced: u64,
    pace: P,
}

impl<D: Disk, P: FnMut(u64) -> Result<(), Stopped>> Writing<'_, D, P> {
    fn push<E>(&mut self, fact: &[u8]) -> Result<(), SnapshotError<E>> {
        self.batch.push(fact);
        if self.batch.bytes().len() >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush<E>(&mut self) -> Result<(), SnapshotError<E>> {
        let Place { offset, position, checksum } = self.place;
        let link = Link { seed: self.seed, previous: checksum, before: position, mark: Position(0) };
        let facts = self.batch.count();
        let checksum = seal_batch(&mut self.buffer, link, facts, self.batch.bytes());
        self.disk.write_at(&self.file, offset, &self.buffer)?;
        let bytes = self.buffer.len() as u64;
        self.place = Place { offset: offset + bytes, position: Position(position.0 + u64::from(facts)), checksum };
        self.batch.clear();
        // A little at a time: one large flush would stand before the journal's own in the disk's queue.
        self.unsynced += bytes;
        if self.unsynced >= SYNC_BYTES {
            self.disk.sync(&self.file)?;
            self.unsynced = 0;
        }
        (self.pace)(bytes).map_err(|Stopped| SnapshotError::Stopped)
    }
}

const MAGIC: &[u8; 8] = b"FWSNAPSH";
const SUFFIX: &str = ".snapshot";
/// Removed by every start, as prepared segments are.
const UNFINISHED: &str = "prepared-snapshot";
/// Facts are gathered up to so many bytes.
const BATCH_BYTES: usize = 64 << 10;
/// So many bytes are made durable at a time.
const SYNC_BYTES: u64 = 1 << 20;
/// How many facts are replayed between two calls of `pace`.
const FACTS_BETWEEN_PACES: u64 = 256;
