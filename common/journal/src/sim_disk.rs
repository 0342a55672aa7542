//! A disk in memory that behaves as badly as real ones may, and the same way for the same seed.
//!
//! What was not synced is lost, kept or torn at a crash: each write by sectors, the changes of names
//! from some point on. A failed sync leaves its writes readable and never durable, as a kernel does
//! that calls dirty pages clean. Handles are shared: a journal dies, its disk stays.

use crate::disk::{Disk, DiskError, DiskErrorKind, DiskOperation};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Writes reach the disk or do not in units of this many bytes.
pub const SECTOR_BYTES: usize = 512;

/// A handle to a simulated disk; clones are handles to the same one.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// An open file. It is dead after the disk's next crash.
#[derive(Clone, Debug)]
pub struct SimFile {
    number: u64,
    crashes: u64,
    name: Arc<str>,
}

/// How much was done, for tests with a budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimCounts {
    /// Successful syncs of files and of the folder.
    pub syncs: u64,
    /// Bytes written, without the zeros of creation.
    pub bytes_written: u64,
    /// Files created.
    pub creations: u64,
}

#[derive(Clone, Debug, Default)]
struct State {
    files: BTreeMap<u64, Content>,
    next_file: u64,
    folder: BTreeMap<String, u64>,
    durable_folder: BTreeMap<String, u64>,
    changes: Vec<Change>,
    crashes: u64,
    counts: SimCounts,
    read_only: bool,
    capacity_bytes: Option<u64>,
    syncs_to_fail: u32,
    operations_left: Option<u64>,
    /// Whether any call failed by an injected fault since they were last taken away.
    failed: bool,
}

#[derive(Clone, Debug)]
struct Content {
    bytes: Vec<u8>,
    /// Whether a sync has made its length durable.
    length_durable: bool,
    /// In the order written.
    pending: Vec<Pending>,
}

/// A write that is not durable.
#[derive(Clone, Debug)]
struct Pending {
    offset: usize,
    /// What was there before. Undoing swaps it with what was written.
    bytes: Vec<u8>,
    /// A sync failed since: no later one makes it durable.
    abandoned: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Create(String, u64),
    Remove(String),
    Rename(String, String),
}

impl SimDisk {
    /// An empty disk without faults.
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    /// The machine loses power: what was not synced survives, vanishes or is torn, as the seed draws.
    /// Open files are dead and injected faults are over; full and read-only stay.
    pub fn crash(&self, seed: u64) {
        let mut state = self.state();
        let mut random = SplitMix64(seed);
        let State { files, folder, durable_folder, changes, .. } = &mut *state;
        let kept = random.below(changes.len() as u64 + 1) as usize;
        changes.drain(..).take(kept).for_each(|change| change.apply(durable_folder));
        folder.clone_from(durable_folder);
        for content in files.values_mut() {
            content.crash(&mut random);
        }
        state.drop_unnamed();
        state.crashes += 1;
        state.mend();
    }

    /// As [`SimDisk::crash`] without the loss of anything: a process was killed, the machine goes on.
    pub fn mend(&self) {
        self.state().mend();
    }

    /// Another disk with the same content and the same unsynced writes: a copy, as a backup makes it.
    pub fn copy(&self) -> SimDisk {
        SimDisk { state: Arc::new(Mutex::new(self.state().clone())) }
    }

    /// The next `count` syncs of files fail.
    pub fn fail_syncs(&self, count: u32) {
        self.state().syncs_to_fail = count;
    }

    /// Everything that changes the disk fails after `operations` more of them, until the next crash.
    pub fn fail_after(&self, operations: u64) {
        self.state().operations_left = Some(operations);
    }

    /// Whether a call has failed by an injected fault since the last crash or mending.
    pub fn has_failed(&self) -> bool {
        self.state().failed
    }

    /// How many bytes all files have.
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// Whether every change is refused from now on.
    pub fn set_read_only(&self, read_only: bool) {
        self.state().read_only = read_only;
    }

    /// How many bytes fit, files being as long as they were created; `None` = no end.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity_bytes = bytes;
    }

    /// What was done so far.
    pub fn counts(&self) -> SimCounts {
        self.state().counts
    }

    /// A file's bytes, as a reader sees them now.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        Some(state.files.get(state.folder.get(name)?)?.bytes.clone())
    }

    /// Puts a file there, durable, whatever was there before: damage, or a file from elsewhere.
    pub fn plant(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        let number = state.next_file;
        state.next_file += 1;
        state.files.insert(number, Content { bytes, length_durable: true, pending: Vec::new() });
        state.folder.insert(name.to_owned(), number);
        state.durable_folder.insert(name.to_owned(), number);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn names(&self) -> Result<Vec<String>, DiskError> {
        Ok(self.state().folder.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> Result<SimFile, DiskError> {
        let state = self.state();
        match state.folder.get(name) {
            Some(number) => Ok(SimFile { number: *number, crashes: state.crashes, name: name.into() }),
            None => Err(error(DiskOperation::Open, name, DiskErrorKind::NotFound)),
        }
    }

    fn create(&self, name: &str, bytes: u64) -> Result<SimFile, DiskError> {
        let mut state = self.state();
        state.change(DiskOperation::Create, name)?;
        if state.folder.contains_key(name) {
            return Err(error(DiskOperation::Create, name, DiskErrorKind::Exists));
        }
        let used = state.used_bytes();
        if state.capacity_bytes.is_some_and(|capacity| used + bytes > capacity) {
            state.failed = true;
            return Err(error(DiskOperation::Create, name, DiskErrorKind::Full));
        }
        let number = state.next_file;
        state.next_file += 1;
        let content = Content { bytes: vec![0; bytes as usize], length_durable: false, pending: Vec::new() };
        state.files.insert(number, content);
        state.rename(Change::Create(name.to_owned(), number));
        state.counts.creations += 1;
        Ok(SimFile { number, crashes: state.crashes, name: name.into() })
    }

    fn len(&self, file: &SimFile) -> Result<u64, DiskError> {
        Ok(self.state().content(DiskOperation::Measure, file)?.bytes.len() as u64)
    }

    fn read_at(&self, file: &SimFile, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        let mut state = self.state();
        let content = state.content(DiskOperation::Read, file)?;
        let from = content.bytes.get(offset as usize..).unwrap_or_default();
        let bytes = from.len().min(into.len());
        into.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        Ok(bytes)
    }

    fn write_at(&self, file: &SimFile, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut state = self.state();
        state.change(DiskOperation::Write, &file.name)?;
        let content = state.content(DiskOperation::Write, file)?;
        let mut write = Pending { offset: offset as usize, bytes: bytes.to_vec(), abandoned: false };
        let end = write.offset + bytes.len();
        if content.bytes.len() < end {
            content.bytes.resize(end, 0);
        }
        write.swap(&mut content.bytes);
        content.pending.push(write);
        state.counts.bytes_written += bytes.len() as u64;
        Ok(())
    }

    fn sync(&self, file: &SimFile) -> Result<(), DiskError> {
        let mut state = self.state();
        state.change(DiskOperation::Sync, &file.name)?;
        let fails = state.syncs_to_fail > 0;
        state.syncs_to_fail = state.syncs_to_fail.saturating_sub(1);
        if fails {
            state.failed = true;
            let content = state.content(DiskOperation::Sync, file)?;
            content.pending.iter_mut().for_each(|write| write.abandoned = true);
            return Err(error(DiskOperation::Sync, &file.name, DiskErrorKind::Other(EIO)));
        }
        let content = state.content(DiskOperation::Sync, file)?;
        content.sync();
        state.counts.syncs += 1;
        Ok(())
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        let mut state = self.state();
        state.change(DiskOperation::SyncDir, "the folder")?;
        state.changes.clear();
        let State { folder, durable_folder, .. } = &mut *state;
        durable_folder.clone_from(folder);
        state.drop_unnamed();
        state.counts.syncs += 1;
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        let mut state = self.state();
        state.change(DiskOperation::Remove, name)?;
        if !state.folder.contains_key(name) {
            return Err(error(DiskOperation::Remove, name, DiskErrorKind::NotFound));
        }
        state.rename(Change::Remove(name.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut state = self.state();
        state.change(DiskOperation::Rename, from)?;
        if !state.folder.contains_key(from) {
            return Err(error(DiskOperation::Rename, from, DiskErrorKind::NotFound));
        }
        state.rename(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }
}

impl State {
    /// Asks whether the disk takes one more change.
    fn change(&mut self, operation: DiskOperation, name: &str) -> Result<(), DiskError> {
        if self.read_only {
            self.failed = true;
            return Err(error(operation, name, DiskErrorKind::ReadOnly));
        }
        match &mut self.operations_left {
            Some(0) => {
                self.failed = true;
                return Err(error(operation, name, DiskErrorKind::Other(EIO)));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }

    fn mend(&mut self) {
        self.syncs_to_fail = 0;
        self.operations_left = None;
        self.failed = false;
    }

    fn used_bytes(&self) -> u64 {
        self.files.values().map(|content| content.bytes.len() as u64).sum()
    }

    fn content(&mut self, operation: DiskOperation, file: &SimFile) -> Result<&mut Content, DiskError> {
        let alive = file.crashes == self.crashes;
        let content = self.files.get_mut(&file.number).filter(|_| alive);
        content.ok_or_else(|| error(operation, &file.name, DiskErrorKind::Other(EIO)))
    }

    fn rename(&mut self, change: Change) {
        change.clone().apply(&mut self.folder);
        self.changes.push(change);
    }

    /// Forgets files that have no name any more, nor get one back by a crash.
    fn drop_unnamed(&mut self) {
        let State { files, folder, durable_folder, .. } = self;
        files.retain(|number, _| folder.values().chain(durable_folder.values()).any(|named| named == number));
    }
}

impl Change {
    fn apply(self, folder: &mut BTreeMap<String, u64>) {
        match self {
            Change::Create(name, number) => {
                folder.insert(name, number);
            }
            Change::Remove(name) => {
                folder.remove(&name);
            }
            Change::Rename(from, to) => {
                if let Some(number) = folder.remove(&from) {
                    folder.insert(to, number);
                }
            }
        }
    }
}

impl Content {
    /// What is not abandoned is durable from now on, also where it lies over what is.
    fn sync(&mut self) {
        self.length_durable = true;
        let Content { bytes, pending, .. } = self;
        if pending.iter().all(|write| !write.abandoned) {
            return pending.clear();
        }
        let durable: Vec<(usize, usize)> = pending
            .extract_if(.., |write| !write.abandoned)
            .map(|write| (write.offset, write.offset + write.bytes.len()))
            .collect();
        for abandoned in pending {
            let end = abandoned.offset + abandoned.bytes.len();
            for (from, to) in &durable {
                let (from, to) = ((*from).max(abandoned.offset), (*to).min(end));
                let before =
                    abandoned.bytes.get_mut(from.wrapping_sub(abandoned.offset)..to.wrapping_sub(abandoned.offset));
                if let (Some(before), Some(now)) = (before.filter(|_| from < to), bytes.get(from..to)) {
                    before.copy_from_slice(now);
                }
            }
        }
    }

    fn crash(&mut self, random: &mut SplitMix64) {
        for write in self.pending.iter_mut().rev() {
            write.swap(&mut self.bytes);
        }
        for write in self.pending.drain(..) {
            let fate = random.below(3);
            let mut offset = write.offset;
            let mut rest = write.bytes.as_slice();
            while !rest.is_empty() {
                let (sector, later) = rest.split_at(rest.len().min(SECTOR_BYTES - offset % SECTOR_BYTES));
                let survives = fate == 0 || (fate == 1 && random.below(2) == 0);
                if let Some(to) = self.bytes.get_mut(offset..offset + sector.len()).filter(|_| survives) {
                    to.copy_from_slice(sector);
                }
                offset += sector.len();
                rest = later;
            }
        }
        if !self.length_durable {
            let sectors = self.bytes.len().div_ceil(SECTOR_BYTES) as u64;
            self.bytes.truncate(random.below(sectors + 1) as usize * SECTOR_BYTES);
            self.length_durable = true;
        }
    }
}

impl Pending {
    /// Puts its bytes into the file, and keeps what was there.
    fn swap(&mut self, file: &mut [u8]) {
        if let Some(place) = file.get_mut(self.offset..self.offset + self.bytes.len()) {
            place.swap_with_slice(&mut self.bytes);
        }
    }
}

/// A small random sequence that a seed determines (Steele, Lea and Flood, "Fast splittable
/// pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct SplitMix64(pub u64);

impl SplitMix64 {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(end)) >> 64) as u64
    }
}

fn error(operation: DiskOperation, file: &str, kind: DiskErrorKind) -> DiskError {
    DiskError { operation, file: file.to_owned(), kind }
}

/// The error number of a failed device.
const EIO: i32 = 5;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn synced_bytes_survive_and_others_are_kept_lost_or_torn() {
        let mut outcomes = std::collections::BTreeSet::new();
        for seed in 0..64 {
            let disk = SimDisk::new();
            let file = disk.create("a", 4096).unwrap();
            disk.write_at(&file, 0, &[1; 1024]).unwrap();
            disk.sync(&file).unwrap();
            disk.sync_dir().unwrap();
            disk.write_at(&file, 512, &[2; 1024]).unwrap();
            disk.crash(seed);
            assert!(disk.sync(&file).is_err(), "a handle from before the crash is dead");
            let bytes = disk.bytes("a").unwrap();
            assert_eq!(bytes.get(..512).unwrap(), [1; 512]);
            assert_eq!(bytes.len(), 4096);
            outcomes.insert((bytes[512], bytes[1024]));
        }
        assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), [(1, 0), (1, 2), (2, 0), (2, 2)]);
    }

    #[test]
    fn a_failed_sync_leaves_writes_readable_and_never_durable() {
        let lost = (0..16).any(|seed| {
            let disk = SimDisk::new();
            let file = disk.create("a", 512).unwrap();
            disk.sync(&file).unwrap();
            disk.sync_dir().unwrap();
            disk.write_at(&file, 0, &[7]).unwrap();
            disk.fail_syncs(1);
            assert!(disk.sync(&file).is_err());
            assert!(disk.sync(&file).is_ok(), "the kernel has called the page clean");
            assert_eq!(disk.bytes("a").unwrap()[0], 7);
            disk.crash(seed);
            disk.bytes("a").unwrap()[0] == 0
        });
        assert!(lost);
    }

    #[test]
    fn what_is_written_and_synced_over_a_failed_write_is_durable() {
        for seed in 0..64 {
            let disk = SimDisk::new();
            let file = disk.create("a", 2048).unwrap();
            disk.sync(&file).unwrap();
            disk.sync_dir().unwrap();
            disk.write_at(&file, 512, &[7; 1024]).unwrap();
            disk.fail_syncs(1);
            assert!(disk.sync(&file).is_err());
            disk.write_at(&file, 0, &[8; 1024]).unwrap();
            disk.sync(&file).unwrap();
            disk.crash(seed);
            let bytes = disk.bytes("a").unwrap();
            assert_eq!(bytes[..1024], [8; 1024]);
            assert!(bytes[1024] == 7 || bytes[1024] == 0);
        }
    }

    #[test]
    fn names_change_in_order_and_only_a_sync_of_the_folder_keeps_them() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..64 {
            let disk = SimDisk::new();
            let file = disk.create("a", 0).unwrap();
            disk.sync(&file).unwrap();
            disk.sync_dir().unwrap();
            disk.rename("a", "b").unwrap();
            disk.remove("b").unwrap();
            disk.crash(seed);
            seen.insert(disk.names().unwrap());
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [vec![], vec!["a".to_owned()], vec!["b".to_owned()]]);
    }
}
