//! Facts on their way to the journal: encoded one after the other into one reused buffer, and beside them the
//! blobs that they name.

use crate::blob::BlobRef;

/// Encoded facts, each `u32` little-endian length + bytes. Cleared and used again, so that the steady
/// state allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct FactBatch {
    bytes: Vec<u8>,
    count: u32,
    /// The bytes of all blobs, one after the other.
    blobs: Vec<u8>,
    refs: Vec<BlobRef>,
}

impl FactBatch {
    /// Appends one encoded fact.
    ///
    /// # Panics
    /// If the fact has 4 GiB or more, which no bounded input can make it.
    pub fn push(&mut self, fact: &[u8]) {
        assert!(fact.len() < u32::MAX as usize, "a fact is bounded by the limits of what it holds");
        self.bytes.extend_from_slice(&(fact.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(fact);
        self.count += 1;
    }

    /// Appends a blob that a fact of this batch names: it is kept from when that is.
    pub fn push_blob(&mut self, blob: BlobRef, bytes: &[u8]) {
        debug_assert_eq!(blob.length as usize, bytes.len(), "the name of another blob");
        self.blobs.extend_from_slice(bytes);
        self.refs.push(blob);
    }

    /// Its blobs, in order.
    pub fn blobs(&self) -> impl Iterator<Item = (BlobRef, &[u8])> {
        let mut rest = self.blobs.as_slice();
        self.refs.iter().map_while(move |blob| {
            let (bytes, later) = rest.split_at_checked(blob.length as usize)?;
            rest = later;
            Some((*blob, bytes))
        })
    }

    /// Bytes of its facts and blobs.
    pub fn weight(&self) -> usize {
        self.bytes.len() + self.blobs.len()
    }

    /// The encoded facts with their length prefixes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many facts it holds.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Empties it, keeping the buffer.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
        self.blobs.clear();
        self.refs.clear();
    }

    /// Moves all facts of `other` to the end of this one.
    pub fn append(&mut self, other: &mut FactBatch) {
        self.bytes.append(&mut other.bytes);
        self.count += std::mem::take(&mut other.count);
        self.blobs.append(&mut other.blobs);
        self.refs.append(&mut other.refs);
    }

    /// The facts, in order.
    pub fn iter(&self) -> FactIter<'_> {
        FactIter { rest: &self.bytes }
    }
}

/// Walks over length-prefixed facts; ends at the first that is incomplete.
#[derive(Clone, Debug)]
pub struct FactIter<'a> {
    rest: &'a [u8],
}

impl<'a> FactIter<'a> {
    /// Walks over bytes as [`FactBatch::bytes`] gives them.
    pub fn over(bytes: &'a [u8]) -> FactIter<'a> {
        FactIter { rest: bytes }
    }

    /// What has not been walked over: empty after the last fact of a whole batch.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for FactIter<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.rest.split_first_chunk::<4>()?;
        let (fact, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        self.rest = rest;
        Some(fact)
    }
}
