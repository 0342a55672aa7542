//! Blobs: bodies that a journal keeps beside its facts, in an endless stream of bytes that is cut into segments.
//!
//! A fact names a blob by a [`BlobRef`]; who reads it back checks it against that.

/// Where a blob lies, and what it must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlobRef {
    /// Where in the stream its segment begins.
    pub segment: u64,
    /// Where in the stream it begins.
    pub position: u64,
    /// Its bytes.
    pub length: u32,
    /// Their [`checksum`].
    pub checksum: u64,
}

impl BlobRef {
    /// What a blob at that place is called. It is shorter than 4 GiB, which the limits of bodies see to.
    pub fn of(segment: u64, position: u64, bytes: &[u8]) -> BlobRef {
        BlobRef { segment, position, length: bytes.len() as u32, checksum: checksum(bytes) }
    }

    /// Whether its segment begins with it.
    pub fn is_first(&self) -> bool {
        self.position == self.segment
    }

    /// Where in the stream it ends.
    pub fn end(&self) -> u64 {
        self.position.saturating_add(u64::from(self.length))
    }

    /// As the wire's struct.
    pub fn to_wire(&self) -> crate::fb::Blob {
        crate::fb::Blob::new(self.segment, self.position, self.checksum, self.length)
    }

    /// Reads the wire's struct.
    pub fn from_wire(wire: &crate::fb::Blob) -> BlobRef {
        BlobRef { segment: wire.segment(), position: wire.position(), length: wire.length(), checksum: wire.checksum() }
    }
}

/// The checksum of some bytes: CRC-64/NVME. It costs what CRC-32C costs (both are folded with carry-less
/// multiplication, at several GB/s), and with 64 bits torn bytes of any length are taken for whole ones less than
/// once in 10^19 times, where 32 bits would leave once in 4 billion.
pub fn checksum(bytes: &[u8]) -> u64 {
    let mut digest = crc64fast_nvme::Digest::new();
    digest.write(bytes);
    digest.sum64()
}
