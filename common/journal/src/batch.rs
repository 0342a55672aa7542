//! A batch: the facts of one append, written in one piece, read back whole or not at all.
//!
//! ```text
//!  0  u32  magic                        4  u32  bytes of the body
//!  8  u32  facts in the body           12  u32  0
//! 16  u64  position before the batch   24  u64  mark: position known durable when this was written
//! 32  u64  checksum of the previous batch, or of the segment's header
//! 40  u64  checksum of the body and its padding
//! 48  u64  checksum of the seed and bytes 0..48: the batch's own, which the next one names
//! 56  the body: facts, each u32 length + bytes; then zeros up to a multiple of 8
//! ```
//! The seed is the segment header's checksum: a batch of another segment, or bytes inside a fact,
//! cannot pass for one of this segment. A header can be recognised alone, without its predecessor
//! and without its body, so that a mark still speaks when what lies before it is damaged.

use crate::journal::BATCH_BYTES_MAX;
use crate::layout::{aligned, checksum, u32_at, u64_at};
use fleetwire_common::ids::Position;

/// Bytes of a batch before its body.
pub(crate) const BATCH_HEADER_BYTES: usize = 56;
/// The first bytes of every batch: "FWB1".
pub(crate) const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"FWB1");

/// What a batch says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub body_bytes: u32,
    pub facts: u32,
    pub before: Position,
    pub mark: Position,
    pub previous: u64,
    pub body_checksum: u64,
    /// This batch's own checksum: the next link of the chain.
    pub checksum: u64,
}

/// Bytes that a batch with such a body takes in its segment.
pub(crate) fn batch_bytes(body_bytes: usize) -> usize {
    BATCH_HEADER_BYTES + aligned(body_bytes)
}

/// Where a batch belongs: everything in its header that its facts do not say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub seed: u64,
    pub previous: u64,
    pub before: Position,
    pub mark: Position,
}

/// Writes a whole batch into `buffer` (cleared first); returns its checksum. `body` is shorter than
/// 4 GiB, which [`crate::BATCH_BYTES_MAX`] sees to.
pub(crate) fn seal_batch(buffer: &mut Vec<u8>, link: Link, facts: u32, body: &[u8]) -> u64 {
    buffer.clear();
    buffer.resize(BATCH_HEADER_BYTES, 0);
    buffer.extend_from_slice(body);
    buffer.resize(batch_bytes(body.len()), 0);
    let body_checksum = checksum(buffer.get(BATCH_HEADER_BYTES..).unwrap_or_default());

    let mut header = [0_u8; BATCH_HEADER_BYTES];
    let numbers = [
        u64::from(BATCH_MAGIC) | (body.len() as u64) << 32,
        u64::from(facts),
        link.before.0,
        link.mark.0,
        link.previous,
        body_checksum,
    ];
    for (place, number) in header.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    let own = header_checksum(link.seed, &header);
    if let Some(place) = header.last_chunk_mut::<8>() {
        *place = own.to_le_bytes();
    }
    if let Some(place) = buffer.first_chunk_mut::<BATCH_HEADER_BYTES>() {
        *place = header;
    }
    own
}

impl BatchHeader {
    /// Recognises a header of the segment with that seed. `None` if it is anything else.
    pub(crate) fn open(bytes: &[u8], seed: u64) -> Option<BatchHeader> {
        let header = bytes.first_chunk::<BATCH_HEADER_BYTES>()?;
        let own = u64_at(header, 48)?;
        let body_bytes = u32_at(header, 4)?;
        let ours = u32_at(header, 0)? == BATCH_MAGIC && u32_at(header, 12)? == 0;
        if !ours || body_bytes as usize > BATCH_BYTES_MAX || own != header_checksum(seed, header) {
            return None;
        }
        Some(BatchHeader {
            body_bytes,
            facts: u32_at(header, 8)?,
            before: Position(u64_at(header, 16)?),
            mark: Position(u64_at(header, 24)?),
            previous: u64_at(header, 32)?,
            body_checksum: u64_at(header, 40)?,
            checksum: own,
        })
    }

    /// Bytes that the whole batch takes.
    pub(crate) fn bytes(&self) -> usize {
        batch_bytes(self.body_bytes as usize)
    }
}

/// The checksum of the seed and of all of the header but its last eight bytes.
fn header_checksum(seed: u64, header: &[u8; BATCH_HEADER_BYTES]) -> u64 {
    let mut bytes = [0_u8; BATCH_HEADER_BYTES];
    let (first, rest) = bytes.split_at_mut(8);
    first.copy_from_slice(&seed.to_le_bytes());
    for (to, from) in rest.iter_mut().zip(header) {
        *to = *from;
    }
    checksum(&bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_recognised_by_its_own_segment_only() {
        let link = Link { seed: 7, previous: 5, before: Position(40), mark: Position(30) };
        let mut buffer = Vec::new();
        let own = seal_batch(&mut buffer, link, 1, b"\x03\0\0\0abc");
        assert_eq!(buffer.len(), 64);
        let header = BatchHeader::open(&buffer, 7).unwrap();
        assert_eq!((header.checksum, header.before, header.mark), (own, Position(40), Position(30)));
        assert_eq!((header.previous, header.facts, header.body_bytes, header.bytes()), (5, 1, 7, 64));
        assert_eq!(BatchHeader::open(&buffer, 8), None);
        for bit in 0..BATCH_HEADER_BYTES * 8 {
            let mut damaged = buffer.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(BatchHeader::open(&damaged, 7), None, "bit {bit}");
        }
    }
}
