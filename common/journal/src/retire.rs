//! What goes once it is superfluous: segments that two snapshots stand for, and older snapshots.
//!
//! Invariants: the two newest snapshots stay, and every segment behind the older of them. A segment loses
//! its name durably before its bytes change, so that no segment with a name is ever anything but what was
//! written. What is left behind by a failure or a crash goes the next time.

use crate::{
    disk::{Disk, DiskError},
    journal::JournalConfig,
    refusal::OpenError,
    segment::{PreparedSegment, segment_name, segment_number},
    snapshot::{self, Stopped, snapshot_name},
};
use std::convert::Infallible;
use thiserror::Error;

/// What went.
#[derive(Debug)]
pub struct Retired<F> {
    /// How many segments.
    pub segments: usize,
    /// How many snapshots.
    pub snapshots: usize,
    /// Of these segments, those that are zeros again and can be written anew, for [`crate::Journal::provide`].
    pub reusable: Vec<PreparedSegment<F>>,
}

/// Why not everything went that could. The journal goes on.
#[derive(Debug, Error)]
pub enum RetireError {
    /// A snapshot cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError<Infallible>),
    /// The disk, or the archive's.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It was asked to stop.
    #[error("it was asked to stop")]
    Stopped,
}

impl From<Stopped> for RetireError {
    fn from(Stopped: Stopped) -> RetireError {
        RetireError::Stopped
    }
}

/// Removes what is superfluous, the oldest first. Each segment is handed to `archive` before, by its name. Up to
/// `reuse_max` of them become prepared segments. `pace` as for [`crate::take_snapshot`].
///
/// # Errors
/// [`RetireError`]; what did not go yet is all still there.
pub fn retire<D: Disk>(
    disk: &D,
    config: &JournalConfig,
    reuse_max: usize,
    mut archive: impl FnMut(&str) -> Result<(), RetireError>,
    mut pace: impl FnMut(u64) -> Result<(), Stopped>,
) -> Result<Retired<D::File>, RetireError> {
    let names = disk.names()?;
    let mut kept = Vec::new();
    let mut superfluous = Vec::new();
    for position in snapshot::positions(&names) {
        match snapshot::header_of::<D, Infallible>(disk, position)? {
            Ok(header) if kept.len() < SNAPSHOTS_KEPT => kept.push(header),
            Ok(_) | Err(_) => superfluous.push(position),
        }
    }
    let mut retired = Retired { segments: 0, snapshots: 0, reusable: Vec::new() };
    let Some(older) = kept.get(SNAPSHOTS_KEPT - 1) else { return Ok(retired) };
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    let mut renamed = Vec::new();
    for number in numbers.into_iter().filter(|number| *number <= older.segment) {
        let name = segment_name(number);
        archive(&name)?;
        match renamed.len() < reuse_max {
            true => renamed.extend(PreparedSegment::take(disk, &name, config.segment_bytes)?),
            false => disk.remove(&name)?,
        }
        retired.segments += 1;
    }
    for position in superfluous {
        disk.remove(&snapshot_name(position))?;
        retired.snapshots += 1;
    }
    disk.sync_dir()?;
    for segment in renamed {
        segment.zero(disk, &mut pace)?;
        retired.reusable.push(segment);
    }
    Ok(retired)
}

/// Copies a file to another folder, durably and under the same name: as a whole or not at all.
pub fn copy_file<D: Disk, A: Disk>(
    from: &D,
    to: &A,
    name: &str,
    mut pace: impl FnMut(u64) -> Result<(), Stopped>,
) -> Result<(), RetireError> {
    let source = from.open(name)?;
    let bytes = from.len(&source)?;
    let unfinished = format!("{name}.unfinished");
    if to.names()?.contains(&unfinished) {
        to.remove(&unfinished)?;
    }
    let target = to.create(&unfinished, bytes)?;
    let mut buffer = vec![0; COPIED_BYTES];
    let mut offset = 0;
    loop {
        let came = from.read_at(&source, offset, &mut buffer)?;
        let Some(piece) = buffer.get(..came).filter(|piece| !piece.is_empty()) else { break };
        to.write_at(&target, offset, piece)?;
        offset += came as u64;
        pace(came as u64)?;
    }
    to.sync(&target)?;
    to.rename(&unfinished, name)?;
    Ok(to.sync_dir()?)
}

/// The newest, and one to fall back to.
const SNAPSHOTS_KEPT: usize = 2;
/// Bytes that are copied at a time.
const COPIED_BYTES: usize = 256 << 10;
