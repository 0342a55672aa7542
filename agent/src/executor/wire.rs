//! The executor's private records: between agent, spawner and supervisor, and in a slot's file.
//!
//! They never leave the device. Numbers are little-endian, texts carry their length and, where the
//! kernel wants it, a closing NUL, so that a supervisor can point into the buffer. Reading is total:
//! any bytes give a value or [`Malformed`].

use std::ffi::CStr;

/// The bytes are not a record of ours: torn, foreign, or of another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record is torn or not ours")]
pub struct Malformed;

/// Appends fields to a buffer.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Goes on in `bytes`, which is emptied: a buffer can be used again.
    pub fn reuse(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        Self { bytes }
    }

    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub fn i32(&mut self, value: i32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub fn f32(&mut self, value: f32) {
        self.u32(value.to_bits());
    }

    pub fn f64(&mut self, value: f64) {
        self.u64(value.to_bits());
    }

    /// A length and that many bytes. Callers hold their data against the limits first.
    pub fn bytes(&mut self, value: &[u8]) {
        self.u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.bytes.extend_from_slice(value);
    }

    /// A text of several parts with a closing NUL; the caller has refused NULs inside.
    pub fn c_text(&mut self, parts: &[&[u8]]) {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        self.u32(u32::try_from(total).unwrap_or(u32::MAX));
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.bytes.push(0);
    }

    /// Sets a number that was written as a placeholder at `position`.
    pub fn set_u32(&mut self, position: usize, value: u32) {
        if let Some(place) = self.bytes.get_mut(position..position.saturating_add(4)) {
            place.copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// Takes fields from a buffer, in the order in which they were written.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(Malformed)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn f32(&mut self) -> Result<f32, Malformed> {
        self.u32().map(f32::from_bits)
    }

    pub fn f64(&mut self) -> Result<f64, Malformed> {
        self.u64().map(f64::from_bits)
    }

    /// A count of things that take at least one byte each, so that a lie cannot cost memory.
    pub fn count(&mut self) -> Result<usize, Malformed> {
        let count = self.u32()? as usize;
        if count > self.rest.len() { Err(Malformed) } else { Ok(count) }
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let count = self.u32()? as usize;
        self.take(count)
    }

    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    pub fn c_text(&mut self) -> Result<&'a CStr, Malformed> {
        let count = self.u32()? as usize;
        let bytes = self.take(count.checked_add(1).ok_or(Malformed)?)?;
        CStr::from_bytes_with_nul(bytes).map_err(|_| Malformed)
    }
}

/// Wraps a record for the disk: magic and version, length, checksum. [`open`] tells a torn one.
pub fn seal(magic: u32, payload: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(payload.len() + SEAL_BYTES);
    sealed.extend_from_slice(&magic.to_le_bytes());
    sealed.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    sealed.extend_from_slice(&checksum(payload).to_le_bytes());
    sealed.extend_from_slice(payload);
    sealed
}

/// The payload of a sealed record at the start of `bytes`; whatever follows it is ignored.
pub fn open(magic: u32, bytes: &[u8]) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(bytes);
    if reader.u32()? != magic {
        return Err(Malformed);
    }
    let length = reader.u32()? as usize;
    let expected = reader.u32()?;
    let payload = reader.take(length)?;
    if checksum(payload) == expected { Ok(payload) } else { Err(Malformed) }
}

fn checksum(bytes: &[u8]) -> u32 {
    // The journal's CRC-64/NVME, of which 32 bits are plenty for a record: one algorithm and its tables
    // in the executable instead of two.
    let mut digest = crc64fast_nvme::Digest::new();
    digest.write(bytes);
    (digest.sum64() & u64::from(u32::MAX)) as u32
}

/// Makes the checksum find out what the processor offers, which is slow in a virtual machine and
/// is remembered by the process and its forks.
pub fn warm_up() {
    std::hint::black_box(checksum(&[0; 1024]));
}

/// What [`seal`] adds, bytes.
pub const SEAL_BYTES: usize = 12;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_record_opens_and_any_flipped_bit_or_cut_is_told() {
        let sealed = seal(7, b"some payload");
        assert_eq!(open(7, &sealed), Ok(&b"some payload"[..]));
        assert_eq!(open(8, &sealed), Err(Malformed));
        let mut longer = sealed.clone();
        longer.extend_from_slice(b"the tail of an older record");
        assert_eq!(open(7, &longer), Ok(&b"some payload"[..]));
        for cut in 0..sealed.len() {
            assert_eq!(open(7, &sealed[..cut]), Err(Malformed));
        }
        for bit in 0..sealed.len() * 8 {
            let mut bytes = sealed.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(7, &bytes), Err(Malformed), "bit {bit}");
        }
    }

    #[test]
    fn a_lying_length_costs_nothing() {
        let mut reader = Reader::new(&[0xff; 12]);
        assert_eq!(reader.bytes(), Err(Malformed));
        assert_eq!(Reader::new(&[0xff; 12]).count(), Err(Malformed));
        assert_eq!(Reader::new(&[0xff; 12]).c_text(), Err(Malformed));
    }
}
