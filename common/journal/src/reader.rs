//! Reads a segment from front to back through one reused buffer, so that a batch lies whole in memory
//! and its facts are read in place.

use crate::disk::{Disk, DiskError};

/// Bytes that are read ahead, unless the file has fewer.
const AHEAD_BYTES_MAX: u64 = 256 << 10;

/// One segment's file, and the part of it that lies in the buffer.
pub(crate) struct Reader<'d, D: Disk> {
    disk: &'d D,
    file: D::File,
    buffer: Vec<u8>,
    /// File offset of the buffer's first byte.
    start: u64,
    /// Bytes of the buffer that were read.
    filled: usize,
    /// Bytes to read ahead.
    ahead: usize,
}

impl<'d, D: Disk> Reader<'d, D> {
    /// Reads this file of `length` bytes, using a buffer that may have served another.
    pub(crate) fn over(disk: &'d D, file: D::File, length: u64, buffer: Vec<u8>) -> Reader<'d, D> {
        Reader { disk, file, buffer, start: 0, filled: 0, ahead: length.min(AHEAD_BYTES_MAX) as usize }
    }

    /// Gives the file and the buffer back.
    pub(crate) fn into_parts(self) -> (D::File, Vec<u8>) {
        (self.file, self.buffer)
    }

    /// The bytes at that offset: as many as asked for, fewer where the file ends.
    pub(crate) fn window(&mut self, offset: u64, bytes: usize) -> Result<&[u8], DiskError> {
        let within = offset.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        let within = within.filter(|from| *from <= self.filled);
        let from = match within {
            Some(from) if from + bytes <= self.filled => from,
            Some(from) => {
                self.buffer.copy_within(from..self.filled, 0);
                self.filled -= from;
                self.fill(offset, bytes)?;
                0
            }
            None => {
                self.filled = 0;
                self.fill(offset, bytes)?;
                0
            }
        };
        let to = (from + bytes).min(self.filled);
        Ok(self.buffer.get(from..to).unwrap_or_default())
    }

    /// Reads on until at least `bytes` from `offset` are there, or the file ends.
    fn fill(&mut self, offset: u64, bytes: usize) -> Result<(), DiskError> {
        self.start = offset;
        let wanted = bytes.max(self.ahead);
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        while self.filled < bytes {
            let free = self.buffer.get_mut(self.filled..).unwrap_or_default();
            match self.disk.read_at(&self.file, offset + self.filled as u64, free)? {
                0 => break,
                came => self.filled += came,
            }
        }
        Ok(())
    }
}
