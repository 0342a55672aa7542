//! The journal itself: opened once, appended to, synced.
//!
//! Invariants: `marked <= durable <= position`; all segments but the newest are durable; after the
//! first failed write or sync every call fails.

use crate::{
    batch::batch_bytes,
    blobs::{self, BlobWriter},
    disk::{Disk, DiskError},
    reader::Reader,
    recovery::{self, Recovery, Replayed, Tail},
    refusal::{Damage, OpenError},
    segment::{
        Identity, JournalId, Place, PreparedSegment, SegmentHeader, SegmentWriter, is_prepared, segment_bytes_for,
    },
};
use fleetwire_common::{facts::FactBatch, ids::Position};
use std::collections::VecDeque;
use thiserror::Error;

/// The largest body of a batch, in bytes. What fits no segment of the usual length gets one of its own.
pub const BATCH_BYTES_MAX: usize = 64 << 20;

/// How a journal is opened.
#[derive(Clone, Copy, Debug)]
pub struct JournalConfig {
    /// Which journal it must be, or becomes.
    pub identity: Identity,
    /// Length of a segment's file. Every start opens one, and its zeros are written ahead: a large one
    /// costs disk space and a longer start, a small one a few syncs more for each time it is full.
    pub segment_bytes: u64,
    /// So many of the newest snapshots are not looked at: to find out what a start could fall back to.
    pub skip_snapshots: usize,
}

impl JournalConfig {
    /// For a busy journal: segments of 16 MiB.
    pub fn new(identity: Identity) -> JournalConfig {
        JournalConfig { identity, segment_bytes: 16 << 20, skip_snapshots: 0 }
    }

    /// For a quiet one on flash: segments of 256 KiB, the price of each start.
    pub fn small(identity: Identity) -> JournalConfig {
        JournalConfig { segment_bytes: 256 << 10, ..JournalConfig::new(identity) }
    }
}

/// Why an append (or a mark) failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AppendError {
    /// The batch is larger than any may be. Nothing was written; the journal goes on.
    #[error("a batch of {bytes} bytes, the most is {max}")]
    TooLarge {
        /// Bytes of its body.
        bytes: usize,
        /// [`BATCH_BYTES_MAX`].
        max: usize,
    },
    /// The disk failed: the journal is poisoned from now on.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// An earlier call failed, and nothing can be written any more: start again.
    #[error("the journal stopped at an earlier failure: {cause}")]
    Poisoned {
        /// What failed then.
        cause: DiskError,
    },
}

/// Why a sync failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SyncError {
    /// The disk failed: the journal is poisoned from now on.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// An earlier call failed, and nothing can be written any more: start again.
    #[error("the journal stopped at an earlier failure: {cause}")]
    Poisoned {
        /// What failed then.
        cause: DiskError,
    },
}

/// The durable log of facts on one disk. See the crate's documentation for its rules.
#[derive(Debug)]
pub struct Journal<D: Disk> {
    disk: D,
    id: JournalId,
    segment_bytes: u64,
    newest: SegmentWriter<D::File>,
    prepared: VecDeque<PreparedSegment<D::File>>,
    serial: u64,
    durable: Position,
    marked: Position,
    unsynced: bool,
    buffer: Vec<u8>,
    blobs: BlobWriter<D::File>,
    blob_segments: u64,
    failure: Option<DiskError>,
}

impl<D: Disk> Journal<D> {
    /// Opens the journal in that folder, or makes a new one. Every fact is handed to `on_fact`, in
    /// order, as it lies in the read buffer, with its position: first those of the newest snapshot, all with the
    /// position for which it stands, then those behind it. A new segment is opened that names
    /// where the newest one ends, and what was not known durable is written again there and synced.
    ///
    /// # Errors
    /// [`OpenError`]; after `Corrupt`, `Missing`, `NewerFormat`, `AnotherJournal`, `Snapshot` and
    /// `Fact`, nothing on the disk was changed.
    pub fn open<E>(
        disk: D,
        config: &JournalConfig,
        on_fact: impl FnMut(Position, &[u8]) -> Result<(), E>,
    ) -> Result<(Journal<D>, Recovery), OpenError<E>> {
        let Replayed { journal: id, tail, recovery } = recovery::replay(&disk, config, on_fact)?;
        remove_prepared(&disk)?;

        let rewritten_bytes = tail.as_ref().map_or(0, |tail| tail.end.offset - tail.marked.offset);
        let bytes = config.segment_bytes.max(segment_bytes_for(rewritten_bytes));
        let prepared = PreparedSegment::create(&disk, 0, bytes)?;
        let nothing = Place { offset: 0, position: Position(0), checksum: 0 };
        let (predecessor, end) = tail.as_ref().map_or((0, nothing), |tail| (tail.header.number, tail.marked));
        let durable = recovery.position;
        let header =
            SegmentHeader { journal: id, number: predecessor + 1, bytes: 0, durable, predecessor, end, checksum: 0 };
        let mut newest = SegmentWriter::begin(&disk, prepared, header)?;
        let mut buffer = Vec::new();
        if let Some(tail) = tail {
            rewrite(&disk, tail, &mut newest, &mut buffer)?;
        }
        newest.publish(&disk)?;

        let journal = Journal {
            disk,
            id,
            segment_bytes: config.segment_bytes,
            newest,
            prepared: VecDeque::new(),
            serial: 0,
            durable,
            marked: durable,
            unsynced: false,
            buffer,
            blobs: BlobWriter::default(),
            blob_segments: 0,
            failure: None,
        };
        Ok((journal, recovery))
    }

    /// Writes a batch behind what is there; an empty one is nothing. Returns the position of its last
    /// fact. Not durable before [`Journal::sync`] has returned that position. Its blobs are durable before any of
    /// its facts is written, unless [`Journal::write_blobs`] had it before: so no fact ever names what is not there.
    pub fn append(&mut self, batch: &FactBatch) -> Result<Position, AppendError> {
        self.write_blobs(std::slice::from_ref(batch))?;
        self.append_facts(batch)
    }

    /// Writes the blobs of all these batches and makes them durable, with one sync where one segment has them all.
    /// Each batch is then given to [`Journal::append_facts`], in the same order.
    pub fn write_blobs(&mut self, batches: &[FactBatch]) -> Result<(), AppendError> {
        self.usable().map_err(|cause| AppendError::Poisoned { cause })?;
        let written = self.write_all_blobs(batches);
        Ok(self.noted(written)?)
    }

    /// Writes the facts of a batch whose blobs are durable, or that has none; else as [`Journal::append`].
    pub fn append_facts(&mut self, batch: &FactBatch) -> Result<Position, AppendError> {
        let body = batch.bytes();
        self.usable().map_err(|cause| AppendError::Poisoned { cause })?;
        if body.len() > BATCH_BYTES_MAX {
            return Err(AppendError::TooLarge { bytes: body.len(), max: BATCH_BYTES_MAX });
        }
        if !batch.is_empty() {
            let written = self.write(batch.count(), body);
            self.noted(written)?;
        }
        Ok(self.position())
    }

    /// Makes all that was appended durable. Returns the durable position.
    pub fn sync(&mut self) -> Result<Position, SyncError> {
        self.usable().map_err(|cause| SyncError::Poisoned { cause })?;
        if self.unsynced {
            let synced = self.disk.sync(&self.newest.file);
            self.noted(synced)?;
            self.durable = self.position();
            self.unsynced = false;
        }
        Ok(self.durable)
    }

    /// Writes down what is known durable, if that was not written yet, so that damage below it will
    /// be told from a torn tail. For a journal that idles or stops; the next sync makes it durable.
    /// Returns whether there was anything to write.
    pub fn mark(&mut self) -> Result<bool, AppendError> {
        self.usable().map_err(|cause| AppendError::Poisoned { cause })?;
        // `has_room` left space for one mark behind every batch.
        let news = self.marked < self.durable;
        if news {
            let written = self.newest.append(&self.disk, &mut self.buffer, self.durable, (0, &[]));
            self.noted(written)?;
            self.marked = self.durable;
            self.unsynced = true;
        }
        Ok(news)
    }

    /// Ends it in good order: everything durable, and marked as such.
    pub fn stop(mut self) -> Result<Position, SyncError> {
        let durable = self.sync()?;
        match self.mark() {
            Ok(_) => {}
            Err(AppendError::Disk(error)) => return Err(SyncError::Disk(error)),
            Err(AppendError::Poisoned { cause }) => return Err(SyncError::Poisoned { cause }),
            Err(AppendError::TooLarge { .. }) => {}
        }
        self.sync()?;
        Ok(durable)
    }

    /// The position of the last fact that was appended.
    pub fn position(&self) -> Position {
        self.newest.place.position
    }

    /// The position up to which everything is durable.
    pub fn durable(&self) -> Position {
        self.durable
    }

    /// The journal's id.
    pub fn id(&self) -> JournalId {
        self.id
    }

    /// The disk it lies on.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// Whether this batch goes into the segment that is being written, so that appending it waits for
    /// no other.
    pub fn has_room(&self, batch: &FactBatch) -> bool {
        self.newest.has_room(batch.bytes().len())
    }

    /// Whether half of the segment that is being written is used: time to prepare the next.
    pub fn is_half_full(&self) -> bool {
        self.newest.place.offset >= self.newest.bytes / 2
    }

    /// How many prepared segments are at hand.
    pub fn prepared(&self) -> usize {
        self.prepared.len()
    }

    /// How many segments of blobs have had their first blob since it was opened.
    pub fn blob_segments(&self) -> u64 {
        self.blob_segments
    }

    /// The serial and the length for the next [`PreparedSegment::create`], which may run elsewhere.
    pub fn plan_segment(&mut self) -> (u64, u64) {
        self.serial += 1;
        (self.serial, self.segment_bytes)
    }

    /// Takes a segment that was prepared for this journal.
    pub fn provide(&mut self, prepared: PreparedSegment<D::File>) {
        self.prepared.push_back(prepared);
    }

    /// Begins another segment, so that a snapshot can stand at the end of this one. Says whether there was
    /// anything in it.
    pub fn roll(&mut self) -> Result<bool, AppendError> {
        self.usable().map_err(|cause| AppendError::Poisoned { cause })?;
        let used = self.newest.place.position > self.newest.begins;
        if used {
            let begun = self.begin_next(0);
            self.noted(begun)?;
            self.marked = self.durable;
            self.unsynced = false;
        }
        Ok(used)
    }

    fn write_all_blobs(&mut self, batches: &[FactBatch]) -> Result<(), DiskError> {
        for (blob, bytes) in batches.iter().flat_map(FactBatch::blobs) {
            if !self.blobs.is_in(blob.segment) {
                self.blobs.sync(&self.disk)?;
                let file = match blobs::reopen(&self.disk, blob.segment)? {
                    Some(file) => file,
                    None => {
                        let prepared = self.take_prepared(blobs::segment_bytes_for(&blob))?;
                        blobs::begin(&self.disk, prepared, self.id, blob.segment)?
                    }
                };
                self.blobs.enter(blob.segment, file);
            }
            self.blob_segments += u64::from(blob.is_first());
            self.blobs.write(&self.disk, &blob, bytes)?;
        }
        self.blobs.sync(&self.disk)
    }

    /// A prepared segment of that length at least, made now if there is none.
    fn take_prepared(&mut self, needed: u64) -> Result<PreparedSegment<D::File>, DiskError> {
        match self.prepared.pop_front_if(|prepared| prepared.bytes() >= needed) {
            Some(prepared) => Ok(prepared),
            None => {
                let (serial, bytes) = self.plan_segment();
                PreparedSegment::create(&self.disk, serial, bytes.max(needed))
            }
        }
    }

    /// Writes a batch, into a new segment if this one is full.
    fn write(&mut self, facts: u32, body: &[u8]) -> Result<(), DiskError> {
        if !self.newest.has_room(body.len()) {
            self.begin_next(body.len())?;
        }
        self.newest.append(&self.disk, &mut self.buffer, self.durable, (facts, body))?;
        self.marked = self.durable;
        self.unsynced = true;
        Ok(())
    }

    /// Makes this segment durable, and only then begins the next, whose header names its end. So a
    /// batch that may be torn is always in the newest segment.
    fn begin_next(&mut self, body_bytes: usize) -> Result<(), DiskError> {
        self.disk.sync(&self.newest.file)?;
        let end = self.newest.place;
        self.durable = end.position;
        let prepared = self.take_prepared(segment_bytes_for(batch_bytes(body_bytes) as u64))?;
        let header = SegmentHeader {
            journal: self.id,
            number: self.newest.number + 1,
            bytes: 0,
            durable: end.position,
            predecessor: self.newest.number,
            end,
            checksum: 0,
        };
        let next = SegmentWriter::begin(&self.disk, prepared, header)?;
        next.publish(&self.disk)?;
        self.newest = next;
        Ok(())
    }

    fn usable(&self) -> Result<(), DiskError> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// Remembers a failure for good.
    fn noted(&mut self, outcome: Result<(), DiskError>) -> Result<(), DiskError> {
        if let Err(error) = &outcome {
            self.failure = Some(error.clone());
        }
        outcome
    }
}

/// Removes what an earlier start prepared: whether its zeros are zeros is not known.
fn remove_prepared<D: Disk>(disk: &D) -> Result<(), DiskError> {
    disk.names()?.iter().filter(|name| is_prepared(name)).try_for_each(|name| disk.remove(name))
}

/// Writes the batches above the last mark again. They are read and checked a second time: what the
/// page cache said before the crash may not be what the disk says now.
fn rewrite<D: Disk, E>(
    disk: &D,
    tail: Tail<D::File>,
    newest: &mut SegmentWriter<D::File>,
    buffer: &mut Vec<u8>,
) -> Result<(), OpenError<E>> {
    let Tail { file, header, marked, end } = tail;
    let mut reader = Reader::over(disk, file, end.offset, Vec::new());
    let mut place = marked;
    while place.offset < end.offset {
        let batch = recovery::batch_at(&mut reader, header.checksum, place, end.offset)?;
        let damaged = |damage: Damage| OpenError::Corrupt { segment: header.number, offset: place.offset, damage };
        let (batch, body) = batch.map_err(damaged)?;
        if batch.facts > 0 {
            newest.append(disk, buffer, marked.position, (batch.facts, body))?;
        }
        place = recovery::after(place, &batch).ok_or_else(|| damaged(Damage::Facts))?;
    }
    Ok(())
}
