//! Blobs: whatever a fact names that came back is whole, wherever a crash struck; what is damaged says so when it is
//! read, and harms nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use fleetwire_common::{blob::BlobRef, facts::FactBatch};
use fleetwire_journal::{
    AppendError, BlobError, Disk, FileKind, Journal, OpenError, PreparedSegment, RetireError, blobs_name,
    examine_blobs, list_files, read_blob, retire_blobs,
    sim_disk::{SimDisk, SimFile},
};
use std::collections::BTreeSet;
use support::{ID, open};

/// Small, so that a few blobs fill it.
const SEGMENT_BYTES: u64 = 2_000;
const HEADER_BYTES: usize = 512;

/// Where the stream of blobs ends, as facts say.
#[derive(Clone, Copy, Default)]
struct Stream {
    segment: u64,
    end: u64,
}

impl Stream {
    /// Gives a blob its place, and a fact that names it, as whoever decides facts does.
    fn push(&mut self, batch: &mut FactBatch, bytes: &[u8]) -> BlobRef {
        if self.end - self.segment + bytes.len() as u64 > SEGMENT_BYTES {
            self.segment = self.end;
        }
        let blob = BlobRef::of(self.segment, self.end, bytes);
        batch.push_blob(blob, bytes);
        batch.push(&fact(&blob));
        self.end = blob.end();
        blob
    }

    fn after(facts: &[Vec<u8>]) -> Stream {
        let last = facts.last().map(|fact| named(fact)).unwrap_or_default();
        Stream { segment: last.segment, end: last.end() }
    }
}

fn fact(blob: &BlobRef) -> Vec<u8> {
    [blob.segment, blob.position, u64::from(blob.length), blob.checksum].map(u64::to_le_bytes).concat()
}

fn named(fact: &[u8]) -> BlobRef {
    let number = |at: usize| u64::from_le_bytes(fact[at * 8..][..8].try_into().unwrap());
    BlobRef { segment: number(0), position: number(1), length: number(2) as u32, checksum: number(3) }
}

/// Bytes that are nobody else's.
fn content(number: u64) -> Vec<u8> {
    number.to_le_bytes().into_iter().cycle().take(100 + (number as usize * 173) % 900).collect()
}

/// Appends a batch of some blobs; the number of the first is given.
fn append(journal: &mut Journal<SimDisk>, stream: &mut Stream, number: u64) -> Result<(), AppendError> {
    let mut batch = FactBatch::default();
    for number in number..number + 3 {
        stream.push(&mut batch, &content(number));
    }
    journal.append(&batch).map(drop)
}

#[test]
fn blobs_come_back_and_the_stream_goes_on_where_facts_end() {
    let disk = SimDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    let mut stream = Stream::default();
    (0..5).for_each(|batch| append(&mut journal, &mut stream, batch * 3).unwrap());
    journal.sync().unwrap();
    drop(journal);

    let (mut journal, _, facts) = open(&disk).unwrap();
    let blobs: Vec<BlobRef> = facts.iter().map(|fact| named(fact)).collect();
    let read: Vec<Vec<u8>> = blobs.iter().map(|blob| read_blob(&disk, blob).unwrap()).collect();
    assert_eq!(read, (0..15).map(content).collect::<Vec<_>>());
    let segments: BTreeSet<u64> = blobs.iter().map(|blob| blob.segment).collect();
    assert!(segments.len() > 2, "the stream is cut into segments");
    for file in list_files(&disk).unwrap().iter().filter(|file| file.name.ends_with(".blobs")) {
        assert!(matches!(file.kind, FileKind::Blobs { begins, .. } if segments.contains(&begins)), "{file:?}");
    }

    let mut stream = Stream::after(&facts);
    append(&mut journal, &mut stream, 15).unwrap();
    assert!(blobs.iter().all(|blob| read_blob(&disk, blob).is_ok()), "nothing was written over");
}

#[test]
fn blobs_of_many_batches_take_one_sync_more_and_none_take_none() {
    let disk = SimDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    let (mut batches, mut stream) = (Vec::new(), Stream::default());
    let mut batch = FactBatch::default();
    stream.push(&mut batch, b"the first enters the segment");
    journal.append(&batch).unwrap();
    for number in 0..5 {
        let mut batch = FactBatch::default();
        stream.push(&mut batch, &[number; 200]);
        batches.push(batch);
    }
    let before = disk.counts().syncs;
    journal.write_blobs(&batches).unwrap();
    for batch in &batches {
        journal.append_facts(batch).unwrap();
    }
    journal.sync().unwrap();
    assert_eq!(disk.counts().syncs - before, 2);
    journal.append(&support::batch(&[b"without"])).unwrap();
    journal.sync().unwrap();
    assert_eq!(disk.counts().syncs - before, 3);
}

#[test]
fn a_prepared_segment_is_used_for_blobs_and_a_large_blob_gets_one_of_its_own() {
    let disk = SimDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    let (serial, bytes) = journal.plan_segment();
    journal.provide(PreparedSegment::create(&disk, serial, bytes).unwrap());
    let (mut batch, mut stream) = (FactBatch::default(), Stream::default());
    let creations = disk.counts().creations;
    stream.push(&mut batch, b"small");
    journal.append(&batch).unwrap();
    assert_eq!((journal.prepared(), disk.counts().creations), (0, creations));
    batch.clear();
    let large = vec![7; 100_000];
    let blob = stream.push(&mut batch, &large);
    journal.append(&batch).unwrap();
    assert_eq!(read_blob(&disk, &blob).unwrap(), large);
}

/// Runs until the disk fails; what a sync returned is the second number, the first how many batches were begun.
fn run(disk: &SimDisk) -> (u64, u64) {
    let Ok((mut journal, _, facts)) = open(disk) else { return (0, 0) };
    let mut stream = Stream::after(&facts);
    let mut durable = facts.len() as u64;
    for batch in 0..4 {
        if append(&mut journal, &mut stream, facts.len() as u64 + batch * 3).is_err() {
            return (batch + 1, durable);
        }
        match journal.sync() {
            Ok(position) => durable = position.0,
            Err(_) => return (batch + 1, durable),
        }
    }
    (4, durable)
}

/// Opens what is there: every blob that a fact names must be what it was.
fn check(disk: &SimDisk, durable: u64, context: &str) {
    let facts = match open(disk) {
        Ok((_, _, facts)) => facts,
        Err(OpenError::Disk(_)) => return,
        Err(other) => panic!("{context}: {other}"),
    };
    assert!(facts.len() as u64 >= durable, "{context}: {} of {durable}", facts.len());
    for (number, fact) in facts.iter().enumerate() {
        let read = read_blob(disk, &named(fact));
        assert_eq!(read.as_deref(), Ok(content(number as u64).as_slice()), "{context}: blob {number}");
    }
}

#[test]
fn every_blob_that_a_fact_names_is_whole_wherever_a_crash_strikes() {
    let mut ends = 0;
    for operations in 0..90 {
        for seed in 0..6 {
            let disk = SimDisk::new();
            let context = format!("after {operations} operations, seed {seed}");
            disk.fail_after(operations);
            let (batches, durable) = run(&disk);
            ends += u64::from(batches == 4);
            // By half of the seeds only the process dies.
            match seed % 2 {
                0 => disk.crash(seed),
                _ => disk.mend(),
            }
            check(&disk, durable, &context);
            // It goes on over what is dead, and dies once more.
            disk.fail_after(operations / 3 + seed);
            let (_, again) = run(&disk);
            disk.crash(seed + 1);
            check(&disk, durable.max(again), &context);
        }
    }
    assert!(ends > 0, "the last cuts lie beyond the end of the work");
}

#[test]
fn a_segments_name_that_was_not_durable_is_by_the_next_start() {
    for seed in 0..20 {
        let disk = SimDisk::new();
        let (mut journal, ..) = open(&disk).unwrap();
        // Killed between the rename and the sync of the folder: the page cache has the name.
        disk.fail_after(5);
        assert!(append(&mut journal, &mut Stream::default(), 0).is_err());
        disk.mend();
        assert!(disk.bytes(&blobs_name(0)).is_some());
        assert_eq!(run(&disk).1, 12);
        disk.crash(seed);
        check(&disk, 12, "after the power failed");
    }
}

#[test]
fn a_sync_of_blobs_that_fails_leaves_no_fact_that_names_them() {
    for lost in [false, true] {
        let disk = SimDisk::new();
        let (mut journal, ..) = open(&disk).unwrap();
        let mut stream = Stream::default();
        append(&mut journal, &mut stream, 0).unwrap();
        journal.sync().unwrap();
        let (segment, durable) = (stream.segment, stream);
        disk.fail_syncs(1);
        assert!(matches!(append(&mut journal, &mut stream, 3), Err(AppendError::Disk(_))));
        assert!(matches!(append(&mut journal, &mut stream, 6), Err(AppendError::Poisoned { .. })));
        drop(journal);
        if lost {
            disk.crash(3)
        } else {
            disk.mend()
        }
        let (mut journal, _, facts) = open(&disk).unwrap();
        assert_eq!(facts.len(), 3);
        let mut stream = Stream::after(&facts);
        assert_eq!((stream.segment, stream.end), (segment, durable.end));
        append(&mut journal, &mut stream, 3).unwrap();
        journal.sync().unwrap();
        drop(journal);
        disk.crash(9);
        check(&disk, 6, "after the second power loss");
    }
}

#[test]
fn whatever_is_damaged_is_refused_when_it_is_read_and_harms_nothing_else() {
    let disk = SimDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    let (mut batch, mut stream) = (FactBatch::default(), Stream::default());
    let blobs: Vec<BlobRef> = (0..6).map(|number| stream.push(&mut batch, &[number as u8 + 1; 40])).collect();
    journal.append(&batch).unwrap();
    journal.stop().unwrap();
    let name = blobs_name(0);
    let whole = disk.bytes(&name).unwrap();
    let place = |blob: &BlobRef| HEADER_BYTES + blob.position as usize..HEADER_BYTES + blob.end() as usize;
    let used = place(&blobs[5]).end;
    let check = |bytes: Vec<u8>, is_hit: &dyn Fn(std::ops::Range<usize>) -> bool| {
        disk.plant(&name, bytes);
        for blob in &blobs {
            let (segment, offset, length) = (0, place(blob).start as u64, 40);
            match is_hit(place(blob)) {
                true => assert_eq!(read_blob(&disk, blob), Err(BlobError::Damaged { segment, offset, length })),
                false => assert!(read_blob(&disk, blob).is_ok()),
            }
        }
        assert_eq!(open(&disk.copy()).unwrap().2.len(), 6, "a journal opens whatever became of its blobs");
    };
    for at in 0..used {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        check(flipped, &|place| place.contains(&at));
        check(whole[..at].to_vec(), &|place| place.end > at);
    }
    check(whole, &|_| false);

    disk.remove(&name).unwrap();
    let error = read_blob(&disk, &blobs[0]).unwrap_err();
    assert!(matches!(&error, BlobError::Disk(_)) && error.to_string().contains(&name), "{error}");
    assert_eq!(examine_blobs(&disk, blobs.iter().copied()).len(), 6);
    for hostile in [
        BlobRef { length: u32::MAX, ..blobs[0] },
        BlobRef { position: u64::MAX, ..blobs[0] },
        BlobRef { segment: 1, position: 0, ..blobs[0] },
    ] {
        assert!(read_blob(&disk, &hostile).is_err(), "{hostile:?}");
    }
}

#[test]
fn a_damaged_header_is_seen_by_those_who_look() {
    let disk = SimDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    let (mut batch, mut stream) = (FactBatch::default(), Stream::default());
    stream.push(&mut batch, b"a blob");
    journal.append(&batch).unwrap();
    let whole = disk.bytes(&blobs_name(0)).unwrap();
    assert!(whole.windows(ID.len()).any(|bytes| bytes == ID));
    for at in 0..HEADER_BYTES {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        disk.plant(&blobs_name(0), flipped);
        let files = list_files(&disk).unwrap();
        let kind = files.into_iter().find(|file| file.name == blobs_name(0)).unwrap().kind;
        assert!(matches!(kind, FileKind::Damaged { .. }), "byte {at}: {kind:?}");
    }
}

#[test]
fn segments_go_that_nobody_needs_and_are_archived_before() {
    let disk = SimDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    let mut stream = Stream::default();
    (0..5).for_each(|batch| append(&mut journal, &mut stream, batch * 3).unwrap());
    journal.sync().unwrap();
    let facts = open(&disk).unwrap().2;
    let blobs: Vec<BlobRef> = facts.iter().map(|fact| named(fact)).collect();
    let needed = blobs[7].segment;
    let stopped = retire_blobs(&disk, |_| false, |_| Err(RetireError::Stopped));
    assert!(stopped.is_err() && blobs.iter().all(|blob| read_blob(&disk, blob).is_ok()));
    let mut archived: Vec<String> = Vec::new();
    let archive = |name: &str| -> Result<(), RetireError> {
        let _: SimFile = disk.open(name)?;
        archived.push(name.to_owned());
        Ok(())
    };
    let gone = retire_blobs(&disk, |segment| segment == needed, archive).unwrap();
    assert!(gone > 1 && gone == archived.len());
    disk.crash(1);
    for blob in &blobs {
        assert_eq!(read_blob(&disk, blob).is_ok(), blob.segment == needed);
    }
}
