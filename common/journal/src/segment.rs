//! A segment: one file of fixed length that begins with a header and holds batches.
//!
//! The header takes one 512-byte sector, in this and every later format:
//! ```text
//!   0  "FWJOURNL"                        8  u16  format       10  6 bytes of 0
//!  16  [u8; 16]  the journal's id       32  u64  segment's number, from 1
//!  40  u64  length of the file          48  u64  first position: where its predecessor ends
//!  56  u64  position known durable once this segment has its name
//!  64  u64  predecessor's number, 0 = none
//!  72  u64  offset at which it ends     80  u64  checksum of its last batch (or header)
//!  88  0 …                             504  u64  checksum of bytes 0..504
//! ```
//! A file is prepared under another name, gets its header, is synced, and only then gets its name.

use crate::{
    batch::{BATCH_HEADER_BYTES, Link, batch_bytes, seal_batch},
    disk::{Disk, DiskError},
    layout::{checksum, u16_at, u64_at},
    refusal::Damage,
    retire::RetireError,
    snapshot::Stopped,
};
use fleetwire_common::ids::Position;

/// What names a journal: random bytes drawn when it was made, or its cluster's.
pub type JournalId = [u8; 16];

/// The format that this build writes, and the newest that it reads.
pub const FORMAT: u16 = 1;
/// Bytes of a segment's header.
pub(crate) const HEADER_BYTES: usize = 512;
/// The smallest segment.
pub const SEGMENT_BYTES_MIN: u64 = 4096;
/// The largest: a start looks through all of the newest one.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// No journal gets this far, at a million facts a second for a hundred thousand years; what says that
/// it did is damaged, and sums of positions cannot overflow.
pub(crate) const POSITION_MAX: u64 = 1 << 62;

const MAGIC: &[u8; 8] = b"FWJOURNL";
/// Zeros that are written at a time.
const ZEROS_BYTES: usize = 1 << 20;
const SUFFIX: &str = ".segment";
pub(crate) const PREPARED: &str = "prepared-";

/// Which journal is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// This one and no other; a new journal becomes it.
    Exactly(JournalId),
    /// Whatever is there; a new journal becomes this one.
    IfNew(JournalId),
}

/// A place between two batches: where the chain has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Byte offset in the segment.
    pub offset: u64,
    /// Facts before it since the journal's beginning.
    pub position: Position,
    /// Checksum of the batch (or segment header) that ends here.
    pub checksum: u64,
}

/// What a segment says about itself and about its predecessor's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub journal: JournalId,
    pub number: u64,
    pub bytes: u64,
    pub durable: Position,
    /// 0 = this is the first.
    pub predecessor: u64,
    /// Where the predecessor ends; its position is where this segment begins.
    pub end: Place,
    /// Its own checksum: the first link of its chain, and the seed of its batches.
    pub checksum: u64,
}

/// Why bytes are no header that this build reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderRefused {
    Damaged(Damage),
    Newer { found: u16 },
}

/// The name of a segment's file.
pub fn segment_name(number: u64) -> String {
    format!("{number:010}{SUFFIX}")
}

/// The number of the segment whose file has that name, if it is one.
pub(crate) fn segment_number(name: &str) -> Option<u64> {
    let number = name.strip_suffix(SUFFIX)?.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}

/// Whether it is the name of a prepared segment.
pub(crate) fn is_prepared(name: &str) -> bool {
    name.starts_with(PREPARED)
}

impl SegmentHeader {
    /// Writes it down, and fills in its checksum.
    pub(crate) fn seal(&mut self) -> [u8; HEADER_BYTES] {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&u64::from(FORMAT).to_le_bytes());
        header.extend_from_slice(&self.journal);
        let end = self.end;
        for number in
            [self.number, self.bytes, end.position.0, self.durable.0, self.predecessor, end.offset, end.checksum]
        {
            header.extend_from_slice(&number.to_le_bytes());
        }
        header.resize(HEADER_BYTES - 8, 0);
        self.checksum = checksum(&header);
        header.extend_from_slice(&self.checksum.to_le_bytes());
        header.first_chunk().copied().unwrap_or([0; HEADER_BYTES])
    }

    /// Reads one, checking all that it says by itself.
    pub(crate) fn open(bytes: &[u8]) -> Result<SegmentHeader, HeaderRefused> {
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
        let journal = header.get(16..).and_then(|rest| rest.first_chunk()).ok_or(damaged)?;
        let end = Place { offset: number(72)?, position: Position(number(48)?), checksum: number(80)? };
        let opened = SegmentHeader {
            journal: *journal,
            number: number(32)?,
            bytes: number(40)?,
            durable: Position(number(56)?),
            predecessor: number(64)?,
            end,
            checksum: number(HEADER_BYTES - 8)?,
        };
        let possible = opened.bytes <= SEGMENT_BYTES_MAX
            && (1..u64::MAX).contains(&opened.number)
            && opened.predecessor == opened.number - 1
            && end.position <= opened.durable
            && opened.durable.0 <= POSITION_MAX;
        if possible { Ok(opened) } else { Err(damaged) }
    }

    /// Where its chain begins.
    pub(crate) fn start(&self) -> Place {
        Place { offset: HEADER_BYTES as u64, position: self.end.position, checksum: self.checksum }
    }
}

/// A file of zeros that can become the next segment, made ahead so that an append need not wait for it.
#[derive(Debug)]
pub struct PreparedSegment<F> {
    name: String,
    file: F,
    bytes: u64,
}

impl<F> PreparedSegment<F> {
    /// Creates one of `bytes` ([`SEGMENT_BYTES_MIN`] to [`SEGMENT_BYTES_MAX`]) and makes its zeros durable. May run
    /// beside the journal, on another thread. `serial` differs from that of all others at hand.
    pub fn create<D: Disk<File = F>>(disk: &D, serial: u64, bytes: u64) -> Result<PreparedSegment<F>, DiskError> {
        let name = format!("{PREPARED}{serial}");
        let bytes = whole(bytes);
        let file = disk.create(&name, bytes)?;
        disk.sync(&file)?;
        Ok(PreparedSegment { name, file, bytes })
    }

    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes what was written into it durable, and then gives it another name.
    pub(crate) fn publish<D: Disk<File = F>>(self, disk: &D, header: &[u8], name: &str) -> Result<F, DiskError> {
        disk.write_at(&self.file, 0, header)?;
        disk.sync(&self.file)?;
        disk.rename(&self.name, name)?;
        disk.sync_dir()?;
        Ok(self.file)
    }

    /// Makes one of a segment that is superfluous, if it has the length that is wanted; else that one is
    /// removed. It may be written to, by [`PreparedSegment::zero`], once its new name is durable.
    pub(crate) fn take<D: Disk<File = F>>(
        disk: &D,
        segment: &str,
        bytes: u64,
    ) -> Result<Option<PreparedSegment<F>>, DiskError> {
        let file = disk.open(segment)?;
        if disk.len(&file)? != whole(bytes) {
            disk.remove(segment)?;
            return Ok(None);
        }
        let name = format!("{PREPARED}again-{segment}");
        disk.rename(segment, &name)?;
        Ok(Some(PreparedSegment { name, file, bytes: whole(bytes) }))
    }

    /// Fills it with zeros again, durably, a little at a time.
    pub(crate) fn zero<D: Disk<File = F>>(
        &self,
        disk: &D,
        pace: &mut impl FnMut(u64) -> Result<(), Stopped>,
    ) -> Result<(), RetireError> {
        let zeros = vec![0; ZEROS_BYTES];
        let mut offset = 0;
        while offset < self.bytes {
            let piece = zeros.get(..(self.bytes - offset).min(ZEROS_BYTES as u64) as usize).unwrap_or_default();
            disk.write_at(&self.file, offset, piece)?;
            offset += piece.len() as u64;
            disk.sync(&self.file)?;
            pace(piece.len() as u64)?;
        }
        Ok(())
    }
}

/// The length of a segment of which that much was asked for.
fn whole(bytes: u64) -> u64 {
    bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX).next_multiple_of(SEGMENT_BYTES_MIN)
}

/// The segment that is being written.
#[derive(Debug)]
pub(crate) struct SegmentWriter<F> {
    pub file: F,
    pub number: u64,
    prepared_name: String,
    pub bytes: u64,
    /// The position at which it begins.
    pub begins: Position,
    seed: u64,
    /// Where the next batch goes.
    pub place: Place,
}

impl<F> SegmentWriter<F> {
    /// Writes a header into a prepared segment. `header.bytes` and `.checksum` are filled in here.
    pub(crate) fn begin<D: Disk<File = F>>(
        disk: &D,
        prepared: PreparedSegment<F>,
        mut header: SegmentHeader,
    ) -> Result<SegmentWriter<F>, DiskError> {
        header.bytes = prepared.bytes;
        let sealed = header.seal();
        disk.write_at(&prepared.file, 0, &sealed)?;
        Ok(SegmentWriter {
            file: prepared.file,
            number: header.number,
            prepared_name: prepared.name,
            bytes: prepared.bytes,
            begins: header.end.position,
            seed: header.checksum,
            place: header.start(),
        })
    }

    /// Makes all that was written so far durable, and then gives the segment its name.
    pub(crate) fn publish<D: Disk<File = F>>(&self, disk: &D) -> Result<(), DiskError> {
        disk.sync(&self.file)?;
        disk.rename(&self.prepared_name, &segment_name(self.number))?;
        disk.sync_dir()
    }

    /// Whether a batch with such a body fits, and after it one empty batch for a mark.
    pub(crate) fn has_room(&self, body_bytes: usize) -> bool {
        self.place.offset + batch_bytes(body_bytes) as u64 + BATCH_HEADER_BYTES as u64 <= self.bytes
    }

    /// Writes a batch, not durable yet. The caller saw to it that it fits.
    pub(crate) fn append<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        buffer: &mut Vec<u8>,
        mark: Position,
        (facts, body): (u32, &[u8]),
    ) -> Result<(), DiskError> {
        let Place { offset, position, checksum } = self.place;
        let link = Link { seed: self.seed, previous: checksum, before: position, mark };
        let checksum = seal_batch(buffer, link, facts, body);
        disk.write_at(&self.file, offset, buffer)?;
        self.place =
            Place { offset: offset + buffer.len() as u64, position: Position(position.0 + u64::from(facts)), checksum };
        Ok(())
    }
}

/// Bytes of a segment that has room for one batch with such a body, and for a mark.
pub(crate) fn segment_bytes_for(batches_bytes: u64) -> u64 {
    HEADER_BYTES as u64 + batches_bytes + BATCH_HEADER_BYTES as u64
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form() {
        assert_eq!(segment_name(7), "0000000007.segment");
        assert_eq!(segment_number("0000000007.segment"), Some(7));
        assert_eq!(segment_number(&segment_name(u64::MAX)), Some(u64::MAX));
        for other in ["7.segment", "+000000007.segment", "0000000007", "prepared-7", "0000000007.segment~"] {
            assert_eq!(segment_number(other), None, "{other}");
        }
    }

    #[test]
    fn a_header_comes_back_and_no_flipped_bit_is_accepted() {
        let end = Place { offset: 640, position: Position(9), checksum: 3 };
        let mut header = SegmentHeader {
            journal: [5; 16],
            number: 2,
            bytes: 4096,
            durable: Position(11),
            predecessor: 1,
            end,
            checksum: 0,
        };
        let sealed = header.seal();
        assert_eq!(SegmentHeader::open(&sealed), Ok(header));
        for bit in 0..HEADER_BYTES * 8 {
            let mut damaged = sealed;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::open(&damaged), Err(HeaderRefused::Damaged(Damage::Header)), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let end = Place { offset: 0, position: Position(0), checksum: 0 };
        let mut header = SegmentHeader {
            journal: [5; 16],
            number: 1,
            bytes: 4096,
            durable: Position(0),
            predecessor: 0,
            end,
            checksum: 0,
        };
        let mut sealed = header.seal();
        sealed[8] = 9;
        let sum = checksum(&sealed[..HEADER_BYTES - 8]);
        sealed[HEADER_BYTES - 8..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(SegmentHeader::open(&sealed), Err(HeaderRefused::Newer { found: 9 }));
    }
}
