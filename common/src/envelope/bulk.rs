//! Bodies that arrive in pieces, each on a bulk stream of its own (docs/protocol.md#streams).
//!
//! Every piece continues its body exactly, all say the same of it, and a stream's number is used once:
//! a stream that has ended cannot be played again.

use super::{OpenError, pack::check_packed};
use crate::{fb, limits::*};
use std::collections::BTreeMap;

/// The bulk streams of one session.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    open: BTreeMap<u32, Assembly>,
    used: Used,
}

/// A body that is being assembled.
#[derive(Debug, Default)]
struct Assembly {
    sequence: u64,
    total: usize,
    compression: fb::Compression,
    raw_len: u32,
    bytes: Vec<u8>,
}

/// A body whose last piece has come, as it was sent.
pub(super) struct Whole {
    pub(super) bytes: Vec<u8>,
    pub(super) compression: fb::Compression,
    pub(super) raw_len: u32,
}

impl Bulk {
    /// Counts a frame that came on `stream`: it must be the stream's next.
    pub(super) fn on_frame(&mut self, stream: u32, found: u64) -> Result<(), OpenError> {
        if !self.open.contains_key(&stream) {
            // §stream-2
            if self.used.has(stream) {
                return Err(OpenError::StreamEnded { stream });
            }
            // §stream-1
            if self.open.len() >= BULK_STREAMS_MAX {
                return Err(OpenError::BulkStreams);
            }
        }
        let expected = self.open.get(&stream).map_or(0, |assembly| assembly.sequence);
        if found != expected {
            return Err(OpenError::Sequence { stream, found, expected });
        }
        self.used.insert(stream);
        self.open.entry(stream).or_default().sequence += 1;
        Ok(())
    }

    /// Adds a piece; gives the body once it is whole.
    pub(super) fn on_chunk(&mut self, stream: u32, chunk: fb::Chunk<'_>) -> Result<Option<Whole>, OpenError> {
        let Some(assembly) = self.open.get_mut(&stream) else { return Err(OpenError::BulkStreams) };
        let data = chunk.data().map(|data| data.bytes()).unwrap_or_default();
        // §stream-5
        let total = usize::try_from(chunk.total()).ok().filter(|total| *total <= BODY_BYTES_MAX);
        let total = total.ok_or(OpenError::TooLong { found: chunk.total() as usize, max: BODY_BYTES_MAX })?;
        if assembly.bytes.is_empty() {
            if chunk.compression() != fb::Compression::None {
                check_packed(chunk.compression(), total, chunk.raw_len())?;
            }
            assembly.total = total;
            assembly.compression = chunk.compression();
            assembly.raw_len = chunk.raw_len();
        }
        let at = assembly.bytes.len();
        // §stream-6
        let same = total == assembly.total
            && chunk.compression() == assembly.compression
            && chunk.raw_len() == assembly.raw_len;
        // §stream-4
        if !same || chunk.offset() != at as u64 || data.is_empty() || data.len() > total - at {
            return Err(OpenError::Chunk { found: chunk.offset(), total: chunk.total(), expected: at as u64 });
        }
        assembly.bytes.extend_from_slice(data);
        if assembly.bytes.len() < total {
            return Ok(None);
        }
        let whole = self.open.remove(&stream);
        Ok(whole.map(|a| Whole { bytes: a.bytes, compression: a.compression, raw_len: a.raw_len }))
    }

    /// Forgets a stream that ended, finished or not.
    pub(super) fn close(&mut self, stream: u32) {
        self.open.remove(&stream);
    }
}

/// Which stream numbers were used: the highest, and a window of bits below it (as RFC 6479 does for
/// packets). What lies below the window counts as used: streams open in order, a few at a time.
#[derive(Debug, Default)]
struct Used {
    highest: u32,
    /// Bit `n`: the number `highest - n` was used.
    window: u64,
}

impl Used {
    fn has(&self, stream: u32) -> bool {
        match self.highest.checked_sub(stream) {
            None => false,
            Some(below) => 1u64.checked_shl(below).is_none_or(|bit| self.window & bit != 0),
        }
    }

    fn insert(&mut self, stream: u32) {
        match self.highest.checked_sub(stream) {
            Some(below) => self.window |= 1u64.checked_shl(below).unwrap_or(0),
            None => {
                self.window = self.window.checked_shl(stream - self.highest).unwrap_or(0) | 1;
                self.highest = stream;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_number_is_used_once_whatever_the_order() {
        let mut used = Used::default();
        for stream in [1, 3, 2, 66, 4, 1000, 999] {
            assert!(!used.has(stream), "{stream}");
            used.insert(stream);
            assert!(used.has(stream), "{stream}");
        }
        // Below the window everything counts as used; inside it only what was.
        assert!(used.has(5) && used.has(936) && !used.has(937) && !used.has(1001));
    }
}
