//! Compressed bodies: LZ4 blocks, kept only where they pay, and undone under a cap
//! (docs/protocol.md#compression).

use super::OpenError;
use crate::{fb, limits::*};
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};

/// Compresses bodies with tables and a buffer that are used again.
#[derive(Default)]
pub(super) struct Packer {
    /// For bodies below 64 KiB; half the size, so faster to clear.
    small: Option<CompressTable>,
    large: Option<CompressTable>,
    buffer: Vec<u8>,
    /// How many bytes of the buffer the last body takes; 0 if it was not compressed.
    length: usize,
}

impl Packer {
    // §lz4-1
    /// The compressed form, unless the body is too small to try or does not shrink to 7/8. Random bytes
    /// cost 49 µs per MB to find out, so nothing is sampled beforehand.
    pub(super) fn pack(&mut self, raw: &[u8]) -> Option<&[u8]> {
        self.length = 0;
        if raw.len() < COMPRESS_BYTES_MIN {
            return None;
        }
        let room = get_maximum_output_size(raw.len());
        if self.buffer.len() < room {
            self.buffer.resize(room, 0);
        }
        let table = if raw.len() < usize::from(u16::MAX) {
            self.small.get_or_insert_with(CompressTable::small)
        } else {
            self.large.get_or_insert_with(CompressTable::large)
        };
        let length = compress_into_with_table(raw, &mut self.buffer, table).ok()?;
        if length <= raw.len() / 8 * 7 {
            self.length = length;
        }
        self.packed()
    }

    /// The last body's compressed form, if it was compressed.
    pub(super) fn packed(&self) -> Option<&[u8]> {
        self.buffer.get(..self.length).filter(|packed| !packed.is_empty())
    }

    /// Gives back a buffer beyond `keep` bytes.
    pub(super) fn tidy(&mut self, keep: usize) {
        if self.buffer.len() > get_maximum_output_size(keep) {
            self.buffer = Vec::new();
        }
    }
}

// §lz4-2
/// Refuses a compressed body by its words alone: the cap, and that an LZ4 block expands 255-fold at
/// most. `packed` is how many bytes there are, or will be.
pub(super) fn check_packed(compression: fb::Compression, packed: usize, raw: u32) -> Result<(), OpenError> {
    if compression != fb::Compression::Lz4Block {
        return Err(OpenError::Packed("a compression that this build does not know"));
    }
    let raw = raw as usize;
    if raw > BODY_BYTES_MAX || raw > packed.saturating_mul(255).saturating_add(64) {
        return Err(OpenError::Packed("its raw length is beyond the bound"));
    }
    Ok(())
}

/// Decompresses into exactly as many bytes as were promised. `scratch` only grows: an LZ4 block writes
/// every byte of its output before it copies from there, so what lay there before is never read.
pub(super) fn unpack<'s>(data: &[u8], raw: u32, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], OpenError> {
    let raw = raw as usize;
    if scratch.len() < raw {
        scratch.resize(raw, 0);
    }
    let room = scratch.get_mut(..raw).unwrap_or_default();
    // §lz4-3
    match decompress_into(data, room) {
        Ok(length) if length == raw => Ok(room),
        Ok(_) => Err(OpenError::Packed("its raw length is not what it decompressed to")),
        Err(_) => Err(OpenError::Packed("not an LZ4 block")),
    }
}
