//! Blobs: bodies that facts name, in an endless stream of bytes that is cut into segments.
//!
//! Whoever decides the facts also decides where each blob lies, so that a replay agrees; here they are written,
//! read and removed. A segment's file is named by where in the stream it begins. Its header takes one 512-byte
//! sector, in this and every later format:
//! ```text
//!   0  "FWBLOBS\0"                       8  u16  format       10  6 bytes of 0
//!  16  [u8; 16]  the journal's id       32  u64  where in the stream it begins
//!  40  0 …                             504  u64  checksum of bytes 0..504
//! ```
//! Behind it the blobs lie end to end. Nothing is written there that facts do not say: what lies beyond the end of
//! the stream is dead, and is written over.
//!
//! Invariants: a blob is durable before the fact that names it is written; no byte that a durable fact names
//! is ever written again; every blob is checked whenever it is read, and one that is damaged or gone is an error for
//! whoever asks for it and for nobody else.

use crate::{
    disk::{Disk, DiskError, DiskErrorKind},
    layout::{checksum, u16_at, u64_at},
    retire::RetireError,
    segment::{FORMAT, HEADER_BYTES, JournalId, PreparedSegment},
};
use fleetwire_common::blob::BlobRef;
use thiserror::Error;

/// Why a blob cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BlobError {
    /// The disk, or there is no such segment.
    #[error("{0}: what it held is lost, unless it is in a backup of the data folder")]
    Disk(#[from] DiskError),
    /// It is not what was written.
    #[error(
        "{} is damaged in the {length} bytes from byte {offset} on: what they held is lost, unless it is in a backup \
         of the data folder",
        blobs_name(*segment)
    )]
    Damaged {
        /// Where in the stream its segment begins.
        segment: u64,
        /// Where in the file.
        offset: u64,
        /// How many bytes.
        length: u32,
    },
}

/// The name of the segment of blobs that begins there.
pub fn blobs_name(segment: u64) -> String {
    format!("{segment:020}{SUFFIX}")
}

/// Where the segment of blobs begins whose file has that name, if it is one.
pub(crate) fn blobs_start(name: &str) -> Option<u64> {
    let start = name.strip_suffix(SUFFIX)?.parse().ok()?;
    (blobs_name(start) == name).then_some(start)
}

/// Reads a blob and checks it.
///
/// # Errors
/// [`BlobError`].
pub fn read_blob<D: Disk>(disk: &D, blob: &BlobRef) -> Result<Vec<u8>, BlobError> {
    let BlobRef { segment, length, .. } = *blob;
    let offset = offset_of(blob);
    let damaged = BlobError::Damaged { segment, offset, length };
    let file = disk.open(&blobs_name(segment))?;
    // The length comes before the bytes: nothing is made room for that is not there.
    if blob.position < segment || disk.len(&file)? < offset.saturating_add(u64::from(length)) {
        return Err(damaged);
    }
    let mut bytes = vec![0; length as usize];
    let mut filled = 0;
    while let Some(free) = bytes.get_mut(filled..).filter(|free| !free.is_empty()) {
        match disk.read_at(&file, offset + filled as u64, free)? {
            0 => break,
            came => filled += came,
        }
    }
    let whole = filled == bytes.len() && checksum(&bytes) == blob.checksum;
    if whole { Ok(bytes) } else { Err(damaged) }
}

/// What is wrong with any of these blobs, or with the headers of their segments: for people who want to know.
pub fn examine_blobs<D: Disk>(disk: &D, blobs: impl IntoIterator<Item = BlobRef>) -> Vec<BlobError> {
    let blobs = blobs.into_iter();
    blobs.filter_map(|blob| read_blob(disk, &blob).err()).collect()
}

/// Removes the segments of blobs that are not needed; each is handed to `archive` before, by its name. Says how many.
///
/// # Errors
/// [`RetireError`]; what did not go yet is all still there.
pub fn retire_blobs<D: Disk>(
    disk: &D,
    is_needed: impl Fn(u64) -> bool,
    mut archive: impl FnMut(&str) -> Result<(), RetireError>,
) -> Result<usize, RetireError> {
    let mut starts: Vec<u64> = disk.names()?.iter().filter_map(|name| blobs_start(name)).collect();
    starts.sort_unstable();
    starts.retain(|start| !is_needed(*start));
    for start in &starts {
        archive(&blobs_name(*start))?;
        disk.remove(&blobs_name(*start))?;
    }
    if !starts.is_empty() {
        disk.sync_dir()?;
    }
    Ok(starts.len())
}

/// What a segment's header says: where it begins and whose it is. `None` = it is damaged, or of a newer format.
pub(crate) fn header_of<D: Disk>(disk: &D, name: &str) -> Result<Option<u64>, DiskError> {
    let file = disk.open(name)?;
    let mut header = [0; HEADER_BYTES];
    if disk.read_at(&file, 0, &mut header)? < HEADER_BYTES {
        return Ok(None);
    }
    let (content, _) = header.split_at(HEADER_BYTES - 8);
    let valid = header.starts_with(MAGIC)
        && u16_at(&header, 8) == Some(FORMAT)
        && u64_at(&header, HEADER_BYTES - 8) == Some(checksum(content));
    Ok(u64_at(&header, 32).filter(|start| valid && blobs_name(*start) == name))
}

/// The segment that is being written.
#[derive(Debug)]
pub(crate) struct BlobWriter<F> {
    current: Option<(u64, F)>,
    unsynced: bool,
}

impl<F> Default for BlobWriter<F> {
    fn default() -> BlobWriter<F> {
        BlobWriter { current: None, unsynced: false }
    }
}

impl<F> BlobWriter<F> {
    /// Whether this segment is being written.
    pub(crate) fn is_in(&self, segment: u64) -> bool {
        self.current.as_ref().is_some_and(|(current, _)| *current == segment)
    }

    /// Goes on in another. All of the last is durable.
    pub(crate) fn enter(&mut self, segment: u64, file: F) {
        self.current = Some((segment, file));
    }

    /// Writes a blob of the segment that was entered.
    pub(crate) fn write<D: Disk<File = F>>(&mut self, disk: &D, blob: &BlobRef, bytes: &[u8]) -> Result<(), DiskError> {
        if let Some((_, file)) = &self.current {
            disk.write_at(file, offset_of(blob), bytes)?;
            self.unsynced = true;
        }
        Ok(())
    }

    /// Makes all that was written durable.
    pub(crate) fn sync<D: Disk<File = F>>(&mut self, disk: &D) -> Result<(), DiskError> {
        if let Some((_, file)) = self.current.as_ref().filter(|_| self.unsynced) {
            disk.sync(file)?;
            self.unsynced = false;
        }
        Ok(())
    }
}

/// A segment that is there already, to go on in it; `None` if there is none. If whoever gave it its name was killed
/// before that was durable, the opening of the journal has made it so.
pub(crate) fn reopen<D: Disk>(disk: &D, segment: u64) -> Result<Option<D::File>, DiskError> {
    match disk.open(&blobs_name(segment)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind == DiskErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Begins a new segment in a prepared one.
pub(crate) fn begin<D: Disk>(
    disk: &D,
    prepared: PreparedSegment<D::File>,
    journal: JournalId,
    segment: u64,
) -> Result<D::File, DiskError> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&u64::from(FORMAT).to_le_bytes());
    header.extend_from_slice(&journal);
    header.extend_from_slice(&segment.to_le_bytes());
    header.resize(HEADER_BYTES - 8, 0);
    let own = checksum(&header);
    header.extend_from_slice(&own.to_le_bytes());
    prepared.publish(disk, &header, &blobs_name(segment))
}

/// Bytes of a file in which that blob fits.
pub(crate) fn segment_bytes_for(blob: &BlobRef) -> u64 {
    offset_of(blob).saturating_add(u64::from(blob.length))
}

/// Where a blob lies in its file.
fn offset_of(blob: &BlobRef) -> u64 {
    blob.position.saturating_sub(blob.segment).saturating_add(HEADER_BYTES as u64)
}

const MAGIC: &[u8; 8] = b"FWBLOBS\0";
const SUFFIX: &str = ".blobs";
