//! What the other formats need around a message to give what an envelope gives: a length, compression where it pays, a key
//! id and an HMAC-SHA256 tag that is checked before anything is parsed; and version, order and freshness, checked after.
//!
//! `[length: u32][compression: u8][message, or its raw length: u32 and its compressed form][key id: u32][tag: 32 bytes]`

use crate::Refused;
use flate2::{
    Compression as Level,
    bufread::{GzDecoder, GzEncoder},
};
use fleetwire_common::{
    envelope::keys::{MacKey, Secret, TAG_BYTES},
    limits::{BODY_BYTES_MAX, COMPRESS_BYTES_MIN, FRAME_BYTES_MAX, STALE_AFTER_MS},
};
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use std::io::Read;

/// Cluster time of all frames, Unix ms.
pub const NOW_MS: u64 = 1_700_000_000_000;
/// The epoch of the key.
pub const KEY_ID: u32 = 7;
const LENGTH_BYTES: usize = 4;
const HEAD_BYTES: usize = LENGTH_BYTES + 1;
const TAIL_BYTES: usize = 4 + TAG_BYTES;

/// The key of all frames.
pub fn key() -> MacKey {
    MacKey::new(&Secret::new([0x42; 32]))
}

/// What every format carries beside the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// 1.
    pub version: u16,
    /// Cluster time, Unix ms.
    pub timestamp: u64,
    /// 0.
    pub stream: u32,
    /// Contiguous.
    pub sequence: u64,
}

/// Gives headers out, and checks those that come.
#[derive(Default)]
pub struct Order {
    sent: u64,
    taken: u64,
}

impl Order {
    /// The next frame's.
    pub fn next(&mut self) -> Header {
        self.sent += 1;
        Header { version: 1, timestamp: NOW_MS, stream: 0, sequence: self.sent - 1 }
    }

    /// Takes a header, if it is the one that must come next.
    pub fn check(&mut self, header: Header) -> Result<(), Refused> {
        let fresh = header.timestamp.abs_diff(NOW_MS) <= STALE_AFTER_MS;
        if header.version != 1 || header.stream != 0 || header.sequence != self.taken || !fresh {
            return Err(Refused::Order);
        }
        self.taken += 1;
        Ok(())
    }
}

/// From this size on, those who gzip do.
pub const GZIP_BYTES_MIN: usize = 256;

/// How a message is made smaller; kept only if it shrinks to 7/8, as in an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all, or by the format itself.
    Without,
    /// An LZ4 block from [`COMPRESS_BYTES_MIN`] on, with a table and buffers that are used again.
    Lz4,
    /// gzip at its fastest level from [`GZIP_BYTES_MIN`] on, which is what one picks for messages.
    Gzip,
}

/// Makes frames, and opens them as far as they are the same for all formats.
pub struct Framing {
    key: MacKey,
    compression: Compression,
    small: CompressTable,
    large: CompressTable,
    packed: Vec<u8>,
    raw: Vec<u8>,
}

impl Framing {
    /// For one session.
    pub fn new(compression: Compression) -> Framing {
        let (small, large) = (CompressTable::small(), CompressTable::large());
        Framing { key: key(), compression, small, large, packed: Vec::new(), raw: Vec::new() }
    }

    /// Appends a frame whose message `serialise` appends: where nothing is compressed, nothing is copied either.
    pub fn seal(&mut self, out: &mut Vec<u8>, serialise: impl FnOnce(&mut Vec<u8>)) {
        let begin = out.len();
        out.extend_from_slice(&[0; HEAD_BYTES]);
        serialise(out);
        self.compress(out, begin + HEAD_BYTES);
        out.extend_from_slice(&KEY_ID.to_le_bytes());
        let length = (out.len() - begin + TAG_BYTES - LENGTH_BYTES) as u32;
        out[begin..begin + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        let tag = self.key.tag(&out[begin..]);
        out.extend_from_slice(&tag);
    }

    /// The message's bytes, authenticated and decompressed.
    pub fn open<'a>(&'a mut self, frame: &'a [u8]) -> Result<&'a [u8], Refused> {
        if frame.len() > FRAME_BYTES_MAX || frame.len() < HEAD_BYTES + TAIL_BYTES {
            return Err(Refused::Authentic);
        }
        let (signed, tag) = frame.split_at(frame.len() - TAG_BYTES);
        let (body, key_id) = signed.split_at(signed.len() - 4);
        let length = (frame.len() - LENGTH_BYTES) as u32;
        if body[..LENGTH_BYTES] != length.to_le_bytes()
            || key_id != KEY_ID.to_le_bytes()
            || !self.key.verify(signed, tag)
        {
            return Err(Refused::Authentic);
        }
        let data = &body[HEAD_BYTES..];
        let expected = match self.compression {
            Compression::Lz4 => 1,
            Compression::Gzip => 2,
            Compression::Without => 0,
        };
        match body[LENGTH_BYTES] {
            0 => Ok(data),
            found if found == expected => self.decompress(data),
            _ => Err(Refused::malformed("another compression")),
        }
    }

    /// Replaces the message, which begins at `begin`, by its compressed form if that pays.
    fn compress(&mut self, out: &mut Vec<u8>, begin: usize) {
        let raw = &out[begin..];
        let bytes_min = match self.compression {
            Compression::Without => return,
            Compression::Lz4 => COMPRESS_BYTES_MIN,
            Compression::Gzip => GZIP_BYTES_MIN,
        };
        if raw.len() < bytes_min {
            return;
        }
        let length = match self.compression {
            Compression::Gzip => {
                self.packed.clear();
                GzEncoder::new(raw, Level::fast()).read_to_end(&mut self.packed).unwrap()
            }
            _ => {
                let room = get_maximum_output_size(raw.len());
                self.packed.resize(room.max(self.packed.len()), 0);
                let table = if raw.len() < usize::from(u16::MAX) { &mut self.small } else { &mut self.large };
                compress_into_with_table(raw, &mut self.packed, table).unwrap()
            }
        };
        let raw_len = raw.len();
        if length > raw_len / 8 * 7 {
            return;
        }
        out[begin - 1] = if self.compression == Compression::Lz4 { 1 } else { 2 };
        out.truncate(begin);
        out.extend_from_slice(&(raw_len as u32).to_le_bytes());
        out.extend_from_slice(&self.packed[..length]);
    }

    fn decompress(&mut self, data: &[u8]) -> Result<&[u8], Refused> {
        let (raw_len, data) = data.split_first_chunk::<4>().ok_or(Refused::Authentic)?;
        let raw_len = u32::from_le_bytes(*raw_len) as usize;
        if raw_len > BODY_BYTES_MAX {
            return Err(Refused::malformed("too large"));
        }
        if self.raw.len() < raw_len {
            self.raw.resize(raw_len, 0);
        }
        let room = &mut self.raw[..raw_len];
        let whole = match self.compression {
            Compression::Gzip => {
                let mut decoder = GzDecoder::new(data);
                decoder.read_exact(room).is_ok() && matches!(decoder.read(&mut [0]), Ok(0))
            }
            _ => decompress_into(data, room).is_ok_and(|length| length == raw_len),
        };
        if whole { Ok(room) } else { Err(Refused::malformed("not what it says it decompresses to")) }
    }
}
