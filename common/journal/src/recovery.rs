//! Recovery: reads the newest valid snapshot and all segments behind it in order, once, as a stream, and
//! decides where the journal ends.
//!
//! Invariants: nothing is written here. Every fact handed out lies in an unbroken chain from the first
//! segment's header or the end that a snapshot names. Bytes are cut only where no valid header says that they were known durable; all
//! other damage is refused.

use crate::{
    batch::{BATCH_HEADER_BYTES, BATCH_MAGIC, BatchHeader},
    disk::{Disk, DiskError},
    found::{Found, find},
    journal::JournalConfig,
    layout::{ALIGNMENT, checksum, is_zero, u32_at},
    reader::Reader,
    refusal::{Damage, OpenError},
    segment::{JournalId, POSITION_MAX, Place, SegmentHeader, segment_name},
    snapshot::{self, DamagedSnapshot, SnapshotHeader, snapshot_name},
};
use fleetwire_common::{facts::FactIter, ids::Position};
use std::collections::VecDeque;

/// What opening a journal found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The snapshot with which reading began.
    pub snapshot: Option<LoadedSnapshot>,
    /// Newer snapshots that are damaged and were passed over, because all that they stand for is still there.
    pub damaged: Vec<DamagedSnapshot>,
    /// Facts of segments that were handed out.
    pub facts: u64,
    /// Bytes that these take there.
    pub bytes: u64,
    /// The position of the last of them: where the journal goes on.
    pub position: Position,
    /// Facts above the last mark, which were written again into the new segment.
    pub rewritten: u64,
    /// What was cut from the end, if anything.
    pub cut: Option<TornTail>,
}

/// A snapshot that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadedSnapshot {
    /// The position that it stands for.
    pub position: Position,
    /// Facts in it.
    pub facts: u64,
}

/// Bytes at the end of the newest segment that were never known durable and are no valid batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment's number.
    pub segment: u64,
    /// Where the first invalid batch begins.
    pub offset: u64,
    /// Bytes from there to the last one that is not zero.
    pub bytes: u64,
}

/// Reads a journal without changing anything, as [`crate::Journal::open`] would before it writes.
///
/// # Errors
/// As [`crate::Journal::open`]; `rewritten` counts what an opening would write again.
pub fn check<D: Disk, E>(
    disk: &D,
    config: &JournalConfig,
    on_fact: impl FnMut(Position, &[u8]) -> Result<(), E>,
) -> Result<Recovery, OpenError<E>> {
    Ok(replay(disk, config, on_fact)?.recovery)
}

/// What there is of a journal.
pub(crate) struct Replayed<F> {
    pub journal: JournalId,
    pub tail: Option<Tail<F>>,
    pub recovery: Recovery,
}

/// The newest segment: valid up to `end`, known durable up to `marked`.
pub(crate) struct Tail<F> {
    pub file: F,
    pub header: SegmentHeader,
    pub marked: Place,
    pub end: Place,
}

/// Hands out every fact: those of the newest valid snapshot, then those of the segments behind it.
pub(crate) fn replay<D: Disk, E>(
    disk: &D,
    config: &JournalConfig,
    on_fact: impl FnMut(Position, &[u8]) -> Result<(), E>,
) -> Result<Replayed<D::File>, OpenError<E>> {
    let found = find(disk, config)?;
    let mut walk = Walk::new(on_fact);
    found.walk_sealed(disk, &mut walk)?;
    let tail = match found.segments.last() {
        Some(header) => {
            let file = disk.open(&segment_name(header.number))?;
            let mut reader = Reader::over(disk, file, header.bytes, Vec::new());
            let (marked, end) = walk.newest(&mut reader, header)?;
            Some(Tail { file: reader.into_parts().0, header: *header, marked, end })
        }
        None => None,
    };
    let Found { journal, damaged, .. } = found;
    Ok(Replayed { journal, tail, recovery: Recovery { damaged, ..walk.recovery } })
}

/// The chain within one segment, and how much of it is known durable.
struct Chain {
    seed: u64,
    place: Place,
    /// The highest position that a valid header called durable.
    mark: Position,
    /// Where the last fact at or below the mark ends.
    marked: Place,
    /// Ends of batches above the mark.
    unmarked: VecDeque<Place>,
}

impl Chain {
    fn of(header: &SegmentHeader) -> Chain {
        let place = header.start();
        Chain { seed: header.checksum, place, mark: header.durable, marked: place, unmarked: VecDeque::new() }
    }

    /// Goes past a valid batch.
    fn advance(&mut self, batch: &BatchHeader) -> Result<(), Damage> {
        self.place = after(self.place, batch).ok_or(Damage::Facts)?;
        self.unmarked.push_back(self.place);
        self.mark = self.mark.max(batch.mark);
        while let Some(place) = self.unmarked.pop_front_if(|place| place.position <= self.mark) {
            // The first end at a position: the batch that a mark is written with is not durable itself.
            if place.position > self.marked.position {
                self.marked = place;
            }
        }
        let inside = self.unmarked.front().is_some() && self.marked.position < self.mark;
        if inside { Err(Damage::Mark) } else { Ok(()) }
    }
}

/// The way through all segments.
pub(crate) struct Walk<C> {
    pub recovery: Recovery,
    /// The segment, and the place in it, up to which all was valid.
    pub reached: Option<(u64, Place)>,
    on_fact: C,
}

impl<C> Walk<C> {
    pub(crate) fn new(on_fact: C) -> Walk<C> {
        Walk { recovery: Recovery::default(), reached: None, on_fact }
    }

    /// The snapshot that everything begins with.
    pub(crate) fn snapshot<D: Disk, E>(&mut self, disk: &D, header: &SnapshotHeader) -> Result<(), OpenError<E>>
    where
        C: FnMut(Position, &[u8]) -> Result<(), E>,
    {
        let position = header.stands.position;
        let refused = |cause| OpenError::Fact { position, file: snapshot_name(position), cause };
        let walked = snapshot::walk(disk, header, |fact| (self.on_fact)(position, fact).map_err(refused))?;
        // It was whole a moment ago.
        walked.map_err(|damaged| OpenError::Snapshot { damaged })?;
        self.recovery.position = position;
        self.recovery.snapshot = Some(LoadedSnapshot { position, facts: header.end.position.0 });
        self.reached = Some((header.segment, header.stands));
        Ok(())
    }

    /// A segment of which nobody knows any more where it ends: as much of it as is valid.
    pub(crate) fn prefix<D: Disk, E>(
        &mut self,
        reader: &mut Reader<'_, D>,
        header: &SegmentHeader,
    ) -> Result<(), OpenError<E>>
    where
        C: FnMut(Position, &[u8]) -> Result<(), E>,
    {
        let mut chain = self.begin(header);
        while let Ok((batch, body)) = batch_at(reader, chain.seed, chain.place, header.bytes)? {
            self.deliver(header, &mut chain, &batch, body)?;
        }
        Ok(())
    }

    fn begin(&mut self, header: &SegmentHeader) -> Chain {
        self.reached = Some((header.number, header.start()));
        Chain::of(header)
    }

    /// A segment that has a successor: valid up to the end that the successor names, dead beyond it.
    pub(crate) fn sealed<D: Disk, E>(
        &mut self,
        reader: &mut Reader<'_, D>,
        header: &SegmentHeader,
        end: Place,
    ) -> Result<(), OpenError<E>>
    where
        C: FnMut(Position, &[u8]) -> Result<(), E>,
    {
        let mut chain = self.begin(header);
        while chain.place.offset < end.offset {
            let batch = batch_at(reader, chain.seed, chain.place, end.offset)?;
            let (batch, body) = batch.map_err(|damage| corrupt(header, chain.place.offset, damage))?;
            self.deliver(header, &mut chain, &batch, body)?;
        }
        if chain.place != end {
            return Err(corrupt(header, chain.place.offset, Damage::End));
        }
        Ok(())
    }

    /// The newest segment: valid up to the first batch that is not. Returns the last place known
    /// durable and the end.
    pub(crate) fn newest<D: Disk, E>(
        &mut self,
        reader: &mut Reader<'_, D>,
        header: &SegmentHeader,
    ) -> Result<(Place, Place), OpenError<E>>
    where
        C: FnMut(Position, &[u8]) -> Result<(), E>,
    {
        let mut chain = self.begin(header);
        let damage = loop {
            match batch_at(reader, chain.seed, chain.place, header.bytes)? {
                Ok((batch, body)) => self.deliver(header, &mut chain, &batch, body)?,
                Err(damage) => break damage,
            }
        };
        let (mark, bytes) = survey(reader, &chain, header.bytes)?;
        if mark > chain.place.position {
            return Err(corrupt(header, chain.place.offset, damage));
        }
        if bytes > 0 {
            self.recovery.cut = Some(TornTail { segment: header.number, offset: chain.place.offset, bytes });
        }
        self.recovery.position = chain.place.position;
        self.recovery.rewritten = chain.place.position.0 - chain.marked.position.0;
        Ok((chain.marked, chain.place))
    }

    /// Hands out the facts of a valid batch and goes past it.
    fn deliver<E>(
        &mut self,
        header: &SegmentHeader,
        chain: &mut Chain,
        batch: &BatchHeader,
        body: &[u8],
    ) -> Result<(), OpenError<E>>
    where
        C: FnMut(Position, &[u8]) -> Result<(), E>,
    {
        let offset = chain.place.offset;
        let mut position = batch.before;
        let mut facts = FactIter::over(body);
        for fact in facts.by_ref() {
            position = Position(position.0.saturating_add(1));
            let refused = |cause| OpenError::Fact { position, file: segment_name(header.number), cause };
            (self.on_fact)(position, fact).map_err(refused)?;
            self.recovery.facts += 1;
        }
        self.recovery.bytes += batch.bytes() as u64;
        let whole = facts.rest().is_empty() && position.0 - batch.before.0 == u64::from(batch.facts);
        if !whole {
            return Err(corrupt(header, offset, Damage::Facts));
        }
        self.recovery.position = position;
        chain.advance(batch).map_err(|damage| corrupt(header, offset, damage))?;
        self.reached = Some((header.number, chain.place));
        Ok(())
    }
}

/// Reads the batch at that place, if it is valid and ends at or before `limit`: its header and body.
pub(crate) fn batch_at<'r, D: Disk>(
    reader: &'r mut Reader<'_, D>,
    seed: u64,
    place: Place,
    limit: u64,
) -> Result<Result<(BatchHeader, &'r [u8]), Damage>, DiskError> {
    let Some(batch) = BatchHeader::open(reader.window(place.offset, BATCH_HEADER_BYTES)?, seed) else {
        return Ok(Err(Damage::Batch));
    };
    if batch.previous != place.checksum || batch.before != place.position {
        return Ok(Err(Damage::Chain));
    }
    if batch.mark > batch.before {
        return Ok(Err(Damage::Mark));
    }
    // The length comes before the bytes: nothing is read, or made room for, beyond the segment.
    if place.offset + batch.bytes() as u64 > limit {
        return Ok(Err(Damage::Batch));
    }
    let whole = reader.window(place.offset, batch.bytes())?;
    let padded = whole.get(BATCH_HEADER_BYTES..).unwrap_or_default();
    match padded.get(..batch.body_bytes as usize) {
        Some(body) if whole.len() == batch.bytes() && checksum(padded) == batch.body_checksum => Ok(Ok((batch, body))),
        Some(_) | None => Ok(Err(Damage::Body)),
    }
}

/// The place behind a batch that begins at `place`.
pub(crate) fn after(place: Place, batch: &BatchHeader) -> Option<Place> {
    let position = place.position.0.checked_add(u64::from(batch.facts)).filter(|position| *position <= POSITION_MAX)?;
    Some(Place { offset: place.offset + batch.bytes() as u64, position: Position(position), checksum: batch.checksum })
}

/// The highest position that any header of a segment from that place on called durable.
pub(crate) fn mark_beyond<D: Disk>(disk: &D, header: &SegmentHeader, place: Place) -> Result<Position, DiskError> {
    let file = disk.open(&segment_name(header.number))?;
    let mut reader = Reader::over(disk, file, header.bytes, Vec::new());
    let chain = Chain { place, ..Chain::of(header) };
    Ok(survey(&mut reader, &chain, header.bytes)?.0)
}

/// Looks through what lies beyond the last valid batch: the highest mark that any header of this
/// segment there carries, and how many bytes lie up to the last that is not zero.
fn survey<D: Disk>(reader: &mut Reader<'_, D>, chain: &Chain, limit: u64) -> Result<(Position, u64), DiskError> {
    let mut mark = chain.mark;
    let mut used = chain.place.offset;
    let mut offset = chain.place.offset;
    while offset < limit {
        let page = reader.window(offset, SURVEY_BYTES)?;
        if page.is_empty() {
            break;
        }
        let bytes = page.len() as u64;
        if let Some(last) = (!is_zero(page)).then(|| page.iter().rposition(|byte| *byte != 0)).flatten() {
            used = offset + last as u64 + 1;
            let words = page.chunks(ALIGNMENT).enumerate();
            let starts = words.filter(|(_, word)| u32_at(word, 0) == Some(BATCH_MAGIC));
            let starts: Vec<u64> = starts.map(|(index, _)| offset + (index * ALIGNMENT) as u64).collect();
            for start in starts {
                if let Some(batch) = BatchHeader::open(reader.window(start, BATCH_HEADER_BYTES)?, chain.seed) {
                    mark = mark.max(batch.mark);
                }
            }
        }
        offset += bytes;
    }
    Ok((mark, used - chain.place.offset))
}

fn corrupt<E>(header: &SegmentHeader, offset: u64, damage: Damage) -> OpenError<E> {
    OpenError::Corrupt { segment: header.number, offset, damage }
}

/// Bytes that [`survey`] looks at in one step: a multiple of the alignment of batches.
const SURVEY_BYTES: usize = 4096;
