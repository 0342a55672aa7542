//! Appending, syncing and marking allocate nothing in the steady state, and a replay allocates for
//! segments, not for facts: counted by the allocator itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use fleetwire_journal::{Disk, DiskError, Journal, JournalConfig, sim_disk::SimDisk};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    convert::Infallible,
};
use support::{batch, config};

struct Counting;

thread_local! {
    /// Allocations of this thread: tests run beside each other.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator is an unsafe trait")]
// SAFETY: every call goes to the system's allocator unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A simulated disk that does not keep what is written into its files once `deaf` is set: the journal's
/// own allocations are counted, not the disk's.
struct Deaf {
    disk: SimDisk,
    deaf: Cell<bool>,
}

impl Disk for Deaf {
    type File = <SimDisk as Disk>::File;

    fn names(&self) -> Result<Vec<String>, DiskError> {
        self.disk.names()
    }

    fn open(&self, name: &str) -> Result<Self::File, DiskError> {
        self.disk.open(name)
    }

    fn create(&self, name: &str, bytes: u64) -> Result<Self::File, DiskError> {
        self.disk.create(name, bytes)
    }

    fn len(&self, file: &Self::File) -> Result<u64, DiskError> {
        self.disk.len(file)
    }

    fn read_at(&self, file: &Self::File, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        self.disk.read_at(file, offset, into)
    }

    fn write_at(&self, file: &Self::File, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        if self.deaf.get() { Ok(()) } else { self.disk.write_at(file, offset, bytes) }
    }

    fn sync(&self, file: &Self::File) -> Result<(), DiskError> {
        self.disk.sync(file)
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        self.disk.sync_dir()
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.disk.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.disk.rename(from, to)
    }
}

#[test]
fn appending_allocates_nothing_and_replaying_nothing_for_a_fact() {
    let config = JournalConfig { segment_bytes: 1 << 20, ..config() };
    let disk = Deaf { disk: SimDisk::new(), deaf: Cell::new(false) };
    let handle = disk.disk.clone();
    let (mut journal, _) = Journal::open(disk, &config, |_, _| Ok::<(), Infallible>(())).unwrap();
    let facts = batch(&[&[1; 200], &[2; 60], &[3; 700]]);
    for _ in 0..300 {
        journal.append(&facts).unwrap();
    }
    journal.sync().unwrap();
    journal.mark().unwrap();

    journal.disk().deaf.set(true);
    let before = COUNT.get();
    for _ in 0..300 {
        journal.append(&facts).unwrap();
        journal.sync().unwrap();
        journal.mark().unwrap();
    }
    assert_eq!(COUNT.get() - before, 0);
    drop(journal);

    let before = COUNT.get();
    let mut bytes = 0;
    let count = |_, fact: &[u8]| {
        bytes += fact.len();
        Ok::<(), Infallible>(())
    };
    let recovery = fleetwire_journal::check(&handle, &config, count).unwrap();
    assert_eq!((recovery.facts, bytes), (900, 300 * 960));
    assert!(COUNT.get() - before < 40, "{} allocations for 900 facts", COUNT.get() - before);
}
