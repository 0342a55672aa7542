//! Repair of a damaged journal: everything from the first invalid place on is given up, on request only.
//!
//! Invariants: [`examine`] changes nothing and says what would be lost; [`Cut::make`] changes nothing before every
//! file that it touches was copied elsewhere; what is left is a journal that opens. Only damage to segments is
//! repaired: without a snapshot or its beginning a journal means nothing, and facts that are whole but
//! contradict each other are no damage.

use crate::{
    disk::{Disk, DiskError},
    found::{self, Found},
    journal::JournalConfig,
    reader::Reader,
    recovery::{Recovery, Walk, mark_beyond},
    refusal::OpenError,
    retire::{RetireError, copy_file},
    segment::{
        JournalId, PREPARED, Place, PreparedSegment, SEGMENT_BYTES_MIN, SegmentHeader, SegmentWriter, segment_name,
        segment_number,
    },
};
use fleetwire_common::ids::Position;

/// What examining a journal found.
#[derive(Debug)]
pub enum Examined<E> {
    /// It opens; what an opening finds.
    Whole(Recovery),
    /// It does not, and this is what can be done.
    Damaged(Cut<E>),
}

/// How a damaged journal can be made to open again.
#[derive(Debug)]
pub struct Cut<E> {
    /// Why it does not open.
    pub cause: OpenError<E>,
    /// The last fact that is kept.
    pub position: Position,
    /// Facts after it that were known durable, and so may have been acknowledged: all up to here are lost.
    pub lost_up_to: Position,
    /// The files that are cut or removed.
    pub files: Vec<String>,
    journal: JournalId,
    segment: u64,
    place: Place,
}

/// Reads the whole journal and says how it stands.
///
/// # Errors
/// [`OpenError`], where nothing can be repaired.
pub fn examine<D: Disk, E>(
    disk: &D,
    config: &JournalConfig,
    on_fact: impl FnMut(Position, &[u8]) -> Result<(), E>,
) -> Result<Examined<E>, OpenError<E>> {
    let (found, broken) = found::find_up_to_damage(disk, config)?;
    let mut walk = Walk::new(on_fact);
    match (read(disk, &found, broken, &mut walk), walk.reached) {
        (Ok(()), _) => Ok(Examined::Whole(Recovery { damaged: found.damaged, ..walk.recovery })),
        (Err(cause @ (OpenError::Corrupt { .. } | OpenError::Missing { .. })), Some((segment, place))) => {
            let lost_up_to = known_durable(disk, &found, segment, place)?.max(place.position);
            let mut numbers: Vec<u64> = disk.names()?.iter().filter_map(|name| segment_number(name)).collect();
            numbers.sort_unstable();
            let files = numbers.into_iter().filter(|number| *number >= segment).map(segment_name).collect();
            let (journal, position) = (found.journal, place.position);
            Ok(Examined::Damaged(Cut { cause, position, lost_up_to, files, journal, segment, place }))
        }
        (Err(error), _) => Err(error),
    }
}

fn read<D: Disk, E, C>(
    disk: &D,
    found: &Found,
    broken: Option<OpenError<E>>,
    walk: &mut Walk<C>,
) -> Result<(), OpenError<E>>
where
    C: FnMut(Position, &[u8]) -> Result<(), E>,
{
    found.walk_sealed(disk, walk)?;
    if let Some(header) = found.segments.last() {
        let file = disk.open(&segment_name(header.number))?;
        let mut reader = Reader::over(disk, file, header.bytes, Vec::new());
        match broken {
            Some(_) => walk.prefix(&mut reader, header)?,
            None => drop(walk.newest(&mut reader, header)?),
        }
    }
    broken.map_or(Ok(()), Err)
}

/// The highest position that anything from that place on calls durable.
fn known_durable<D: Disk, E>(disk: &D, found: &Found, segment: u64, place: Place) -> Result<Position, OpenError<E>> {
    let mut known = Position(0);
    if let Some(header) = found.segments.iter().find(|header| header.number == segment) {
        known = mark_beyond(disk, header, place)?;
    }
    for number in disk.names()?.iter().filter_map(|name| segment_number(name)).filter(|number| *number > segment) {
        match found::header_of::<D, E>(disk, number) {
            Ok(header) => known = known.max(header.durable).max(mark_beyond(disk, &header, header.start())?),
            Err(OpenError::Disk(error)) => return Err(OpenError::Disk(error)),
            // Nothing can be learned from it.
            Err(_) => {}
        }
    }
    Ok(known)
}

impl<E> Cut<E> {
    /// Makes the cut, after copying every file that it touches to `copies`.
    ///
    /// # Errors
    /// The disk's; it can be tried again.
    pub fn make<D: Disk, A: Disk>(self, disk: &D, copies: &A) -> Result<(), RetireError> {
        for name in &self.files {
            copy_file(disk, copies, name, |_| Ok(()))?;
        }
        for name in disk.names()?.iter().filter(|name| name.starts_with(PREPARED)) {
            disk.remove(name)?;
        }
        // From the newest on: whatever stays, if this is interrupted, is as damaged as before.
        for name in self.files.iter().rev().filter(|name| segment_number(name) > Some(self.segment)) {
            disk.remove(name)?;
        }
        disk.sync_dir()?;
        Ok(self.begin_after(disk)?)
    }

    /// An empty segment that names the cut as its predecessor's end: what lies beyond is dead.
    fn begin_after<D: Disk>(&self, disk: &D) -> Result<(), DiskError> {
        let header = SegmentHeader {
            journal: self.journal,
            number: self.segment + 1,
            bytes: 0,
            durable: self.place.position,
            predecessor: self.segment,
            end: self.place,
            checksum: 0,
        };
        let prepared = PreparedSegment::create(disk, 0, SEGMENT_BYTES_MIN)?;
        SegmentWriter::begin(disk, prepared, header)?.publish(disk)
    }
}
