//! Recovery: reads all segments in order, once, as a stream, and decides where the journal ends.
//!
//! Invariants: nothing is written here. Every fact handed out lies in an unbroken chain from the first
//! segment's header. Bytes are cut only where no valid header says that they were known durable; all
//! other damage is refused.

use crate::{
    batch::{BATCH_HEADER_BYTES, BATCH_MAGIC, BatchHeader},
    disk::{Disk, DiskError},
    journal::JournalConfig,
    layout::{ALIGNMENT, checksum, is_zero, u32_at},
    reader::Reader,
    segment::{FORMAT, HEADER_BYTES, HeaderRefused, Identity, JournalId, Place, SegmentHeader},
    segment::{POSITION_MAX, segment_name, segment_number},
};
use fleetwire_common::{facts::FactIter, ids::Position};
use std::{collections::VecDeque, fmt};
use thiserror::Error;

/// What opening a journal found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Facts that were handed out.
    pub facts: u64,
    /// The position of the last of them: where the journal goes on.
    pub position: Position,
    /// Facts above the last mark, which were written again into the new segment.
    pub rewritten: u64,
    /// What was cut from the end, if anything.
    pub cut: Option<TornTail>,
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
    #[error("journal segment {segment} has format {found}, this build reads up to {supported}: start a newer build")]
    NewerFormat {
        /// The segment's number.
        segment: u64,
        /// Its format.
        found: u16,
        /// The newest format that this build reads.
        supported: u16,
    },
    /// It is the journal of another cluster or device.
    #[error(
        "journal segment {segment} belongs to journal {}, expected was {}: the data folder is mixed up with another",
        Hex(found),
        Hex(expected)
    )]
    AnotherJournal {
        /// The segment's number.
        segment: u64,
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
    /// The journal ends before the position from which it should be read.
    #[error("the journal ends at fact {}, but a snapshot of fact {} exists: segments are missing", found.0, start.0)]
    EndsEarly {
        /// From where it should be read.
        start: Position,
        /// Where it ends.
        found: Position,
    },
    /// A fact was refused by its reader.
    #[error("fact {} in {}: {cause}", position.0, segment_name(*segment))]
    Fact {
        /// Its position.
        position: Position,
        /// The segment's number.
        segment: u64,
        /// What its reader answered.
        cause: E,
    },
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
    pub segments: Vec<SegmentHeader>,
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

/// Hands out every fact above `config.start`.
pub(crate) fn replay<D: Disk, E>(
    disk: &D,
    config: &JournalConfig,
    on_fact: impl FnMut(Position, &[u8]) -> Result<(), E>,
) -> Result<Replayed<D::File>, OpenError<E>> {
    let segments = list(disk, config)?;
    let mut walk = Walk { start: config.start, recovery: Recovery::default(), on_fact };
    let mut buffer = Vec::new();
    let mut tail = None;
    for (index, header) in segments.iter().enumerate() {
        let next = segments.get(index + 1);
        if next.is_some_and(|next| next.end.position <= config.start) {
            continue;
        }
        let file = disk.open(&segment_name(header.number))?;
        let mut reader = Reader::over(disk, file, header.bytes, std::mem::take(&mut buffer));
        match next {
            Some(next) => walk.sealed(&mut reader, header, next.end)?,
            None => {
                let (marked, end) = walk.newest(&mut reader, header)?;
                let (file, _) = reader.into_parts();
                tail = Some(Tail { file, header: *header, marked, end });
                break;
            }
        }
        (_, buffer) = reader.into_parts();
    }
    let recovery = walk.recovery;
    if recovery.position < config.start {
        return Err(OpenError::EndsEarly { start: config.start, found: recovery.position });
    }
    let (Identity::Exactly(given) | Identity::IfNew(given)) = config.identity;
    let journal = segments.first().map_or(given, |first| first.journal);
    Ok(Replayed { journal, segments, tail, recovery })
}

/// Reads all headers, and checks that they are of one journal and follow each other.
fn list<D: Disk, E>(disk: &D, config: &JournalConfig) -> Result<Vec<SegmentHeader>, OpenError<E>> {
    let mut numbers: Vec<u64> = disk.names()?.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    let mut segments: Vec<SegmentHeader> = Vec::with_capacity(numbers.len());
    for segment in numbers {
        let header = header_of(disk, segment)?;
        let expected = match (segments.first(), config.identity) {
            (None, Identity::IfNew(_)) => header.journal,
            (None, Identity::Exactly(expected)) => expected,
            (Some(first), _) => first.journal,
        };
        if header.journal != expected {
            return Err(OpenError::AnotherJournal { segment, expected, found: header.journal });
        }
        match segments.last() {
            Some(last) if last.number + 1 < segment => return Err(OpenError::Missing { segment: last.number + 1 }),
            Some(last) if last.bytes < header.end.offset => {
                return Err(OpenError::Corrupt { segment, offset: 0, damage: Damage::Order });
            }
            None if config.start < header.end.position => {
                return Err(OpenError::Missing { segment: header.predecessor });
            }
            Some(_) | None => segments.push(header),
        }
    }
    Ok(segments)
}

/// Reads and checks one segment's header.
fn header_of<D: Disk, E>(disk: &D, segment: u64) -> Result<SegmentHeader, OpenError<E>> {
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
            return Err(OpenError::NewerFormat { segment, found, supported: FORMAT });
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
struct Walk<C> {
    start: Position,
    recovery: Recovery,
    on_fact: C,
}

impl<C> Walk<C> {
    /// A segment that has a successor: valid up to the end that the successor names, dead beyond it.
    fn sealed<D: Disk, E>(
        &mut self,
        reader: &mut Reader<'_, D>,
        header: &SegmentHeader,
        end: Place,
    ) -> Result<(), OpenError<E>>
    where
        C: FnMut(Position, &[u8]) -> Result<(), E>,
    {
        let mut chain = Chain::of(header);
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
    fn newest<D: Disk, E>(
        &mut self,
        reader: &mut Reader<'_, D>,
        header: &SegmentHeader,
    ) -> Result<(Place, Place), OpenError<E>>
    where
        C: FnMut(Position, &[u8]) -> Result<(), E>,
    {
        let mut chain = Chain::of(header);
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
            if position > self.start {
                (self.on_fact)(position, fact).map_err(|cause| OpenError::Fact {
                    position,
                    segment: header.number,
                    cause,
                })?;
                self.recovery.facts += 1;
            }
        }
        let whole = facts.rest().is_empty() && position.0 - batch.before.0 == u64::from(batch.facts);
        if !whole {
            return Err(corrupt(header, offset, Damage::Facts));
        }
        self.recovery.position = position;
        chain.advance(batch).map_err(|damage| corrupt(header, offset, damage))
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
