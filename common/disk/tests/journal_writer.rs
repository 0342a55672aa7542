//! The writer thread: what it announces is on disk, what it fails at is said once, and an idle or
//! stopped journal is marked. Snapshots are made beside it; a full disk is said before it is the end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fleetwire_common::{blob::BlobRef, facts::FactBatch, ids::Position};
use fleetwire_disk::{
    FsDisk, JournalWriter, SnapshotConfig, Snapshotter, TryAppendError, WriterConfig, WriterFailed, WriterStopped,
};
use fleetwire_journal::{
    AppendError, Disk, DiskErrorKind, Identity, Journal, JournalConfig, Recovery, Summary, SyncError, sim_disk::SimDisk,
};
use std::{
    convert::Infallible,
    path::Path,
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

fn config() -> JournalConfig {
    JournalConfig { segment_bytes: 64 << 10, ..JournalConfig::new(Identity::IfNew([7; 16])) }
}

fn open<D: Disk>(disk: D) -> (Journal<D>, Recovery, Vec<Vec<u8>>) {
    let mut facts = Vec::new();
    let keep = |_, fact: &[u8]| {
        facts.push(fact.to_vec());
        Ok::<(), Infallible>(())
    };
    let (journal, recovery) = Journal::open(disk, &config(), keep).unwrap();
    (journal, recovery, facts)
}

type Announced = Receiver<Result<Position, WriterFailed>>;

fn start<D>(disk: D) -> (JournalWriter, Announced)
where
    D: Disk + Clone + Send + 'static,
    D::File: Send,
{
    let (tell, announced) = channel();
    let on_durable = move |durable| tell.send(durable).unwrap();
    (JournalWriter::start(open(disk).0, WriterConfig::default(), on_durable).unwrap(), announced)
}

fn fill(mut batch: FactBatch, facts: std::ops::Range<u64>) -> FactBatch {
    assert!(batch.is_empty());
    facts.for_each(|fact| batch.push(&fact.to_le_bytes().repeat(25)));
    batch
}

fn journal_in(place: &Path) -> FsDisk {
    FsDisk::open(&place.join("journal")).unwrap()
}

#[test]
fn everything_given_is_durable_in_order_after_a_stop() {
    let place = tempfile::tempdir().unwrap();
    let (writer, announced) = start(journal_in(place.path()));
    for batch in 0..500_u64 {
        writer.append(fill(writer.spare(), batch * 5..batch * 5 + 5)).unwrap();
    }
    assert_eq!(writer.stop(), Ok(Position(2500)));
    let positions: Vec<Position> = announced.try_iter().map(Result::unwrap).collect();
    assert!(positions.is_sorted());
    assert_eq!(positions.last(), Some(&Position(2500)));
    let (_, recovery, facts) = open(journal_in(place.path()));
    assert_eq!((recovery.rewritten, recovery.cut), (0, None), "it was marked");
    let numbers = facts.iter().map(|fact| u64::from_le_bytes(fact[..8].try_into().unwrap()));
    assert!(numbers.eq(0..2500));
}

#[test]
fn what_was_announced_is_there_without_a_stop_and_an_idle_journal_is_marked() {
    let place = tempfile::tempdir().unwrap();
    let (writer, announced) = start(journal_in(place.path()));
    writer.append(fill(writer.spare(), 0..3)).unwrap();
    assert_eq!(announced.recv().unwrap(), Ok(Position(3)));
    // Another opening sees what a crash would have left at this moment.
    let deadline = Instant::now() + Duration::from_secs(30);
    let read = |_, _: &[u8]| Ok::<(), Infallible>(());
    let recovery = loop {
        let recovery = fleetwire_journal::check(&journal_in(place.path()), &config(), read).unwrap();
        if recovery.rewritten == 0 || Instant::now() > deadline {
            break recovery;
        }
        std::thread::yield_now();
    };
    assert_eq!((recovery.facts, recovery.rewritten), (3, 0), "marked while idle");
    writer.stop().unwrap();
}

#[test]
fn a_failed_sync_is_announced_once_and_ends_the_writer() {
    let disk = SimDisk::new();
    let (writer, announced) = start(disk.clone());
    writer.append(fill(writer.spare(), 0..1)).unwrap();
    assert_eq!(announced.recv().unwrap(), Ok(Position(1)));
    // All of them: the thread that prepares segments syncs, too.
    disk.fail_syncs(u32::MAX);
    writer.append(fill(writer.spare(), 1..2)).unwrap();
    assert!(matches!(announced.recv().unwrap(), Err(WriterFailed::Sync(SyncError::Disk(_)))));
    assert!(announced.recv().is_err(), "nothing more is said");
    assert_eq!(writer.append(fill(FactBatch::default(), 2..3)), Err(WriterStopped));
    assert!(matches!(writer.try_append(FactBatch::default()), Err(TryAppendError::Stopped(_))));
    assert!(writer.stop().is_err());
    disk.fail_syncs(0);
    let (.., facts) = open(disk);
    assert!(!facts.is_empty());
}

#[test]
fn batches_wait_in_a_bounded_queue() {
    let disk = SimDisk::new();
    let (hold, held) = channel::<()>();
    let (tell, announced) = channel();
    let on_durable = move |durable: Result<Position, WriterFailed>| {
        tell.send(durable.unwrap()).unwrap();
        let _ = held.recv();
    };
    let config = WriterConfig { queue_batches: 2, ..WriterConfig::default() };
    let writer = JournalWriter::start(open(disk).0, config, on_durable).unwrap();
    writer.append(fill(FactBatch::default(), 0..1)).unwrap();
    assert_eq!(announced.recv().unwrap(), Position(1));
    writer.try_append(fill(writer.spare(), 1..2)).unwrap();
    writer.try_append(fill(writer.spare(), 2..3)).unwrap();
    match writer.try_append(fill(writer.spare(), 3..4)) {
        Err(TryAppendError::Full(batch)) => assert_eq!(batch.count(), 1),
        other => panic!("{other:?}"),
    }
    drop(hold);
    assert_eq!(announced.recv().unwrap(), Position(3), "one sync for both");
    assert_eq!(writer.stop(), Ok(Position(3)));
}

/// Every fact of the test's journals, as their number.
#[derive(Default)]
struct Numbers(Vec<u64>);

impl Summary for Numbers {
    type Error = Infallible;

    fn apply(&mut self, _: Position, fact: &[u8]) -> Result<(), Infallible> {
        // A fact repeats its number; a snapshot's has each once.
        let numbers = fact.chunks_exact(8).map(|number| u64::from_le_bytes(number.try_into().unwrap()));
        match fact.len() {
            200 => self.0.extend(numbers.take(1)),
            _ => self.0.extend(numbers.skip(1)),
        }
        Ok(())
    }

    fn write<X>(&self, emit: &mut dyn FnMut(&[u8]) -> Result<(), X>) -> Result<(), X> {
        let numbers = self.0.iter().flat_map(|number| number.to_le_bytes());
        emit(&[0; 8].into_iter().chain(numbers).collect::<Vec<u8>>())
    }
}

#[test]
fn snapshots_are_made_while_facts_are_written_and_what_they_replace_goes() {
    let (disk, archive) = (SimDisk::new(), SimDisk::new());
    let (tell, announced) = channel();
    let (say, said) = channel();
    let snapshots = SnapshotConfig {
        facts: 1000,
        bytes_per_s: u64::MAX,
        archive: Some(archive.clone()),
        ..SnapshotConfig::default()
    };
    let snapshotter =
        Snapshotter::start(disk.clone(), config(), snapshots, Numbers::default, move |taken| say.send(taken).unwrap());
    let writer = JournalWriter::start_with_snapshots(
        open(disk.clone()).0,
        WriterConfig::default(),
        (snapshotter.unwrap(), (0, 0)),
        move |durable| tell.send(durable).unwrap(),
    )
    .unwrap();
    let mut written = 0;
    let mut made = Vec::new();
    while made.len() < 5 {
        for _ in 0..20 {
            writer.append(fill(writer.spare(), written..written + 10)).unwrap();
            written += 10;
        }
        while announced.recv().unwrap().unwrap().0 < written {}
        made.extend(said.try_iter().map(Result::unwrap));
    }
    assert!(made.is_sorted_by_key(|taken| taken.position) && made[0].position >= Position(1000), "{made:?}");
    writer.stop().unwrap();

    let mut numbers = Numbers::default();
    let (_, recovery) = Journal::open(disk.clone(), &config(), |at, fact: &[u8]| numbers.apply(at, fact)).unwrap();
    assert!(numbers.0.into_iter().eq(0..written));
    assert!(recovery.snapshot.is_some_and(|snapshot| snapshot.position >= made[4].position));
    assert!(recovery.facts < written - 4000 && recovery.bytes > 0);
    let count =
        |disk: &SimDisk, ending: &str| disk.names().unwrap().iter().filter(|name| name.ends_with(ending)).count();
    assert!((2..=3).contains(&count(&disk, ".snapshot")), "what the last one replaces may not have gone yet");
    // Where all segments lie together again, the first snapshot is not needed.
    let archived = count(&archive, ".segment");
    assert!(archived > 3);
    for name in disk.names().unwrap().iter().filter(|name| name.ends_with(".segment")) {
        archive.plant(name, disk.bytes(name).unwrap());
    }
    let mut replayed = Numbers::default();
    Journal::open(archive, &config(), |at, fact: &[u8]| replayed.apply(at, fact)).unwrap();
    assert!(replayed.0.into_iter().eq(0..written), "the archive and the rest are the whole journal");
}

/// Waits until the writer says so.
fn wait_low(writer: &JournalWriter, low: bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while writer.is_low() != low {
        assert!(Instant::now() < deadline, "waited for low = {low}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn on_a_full_disk_the_reserve_is_said_to_be_all_and_carries_on_until_it_is_used_up() {
    let disk = SimDisk::new();
    // The first segment, one more and a reserve of two; no other.
    disk.set_capacity(Some(4 * (64 << 10)));
    let (writer, announced) = start(disk.clone());
    let mut written = 0;
    let mut low_at = None;
    let failed = loop {
        if writer.append(fill(FactBatch::default(), written..written + 10)).is_err() {
            break announced.try_iter().find_map(Result::err).unwrap();
        }
        match announced.recv().unwrap() {
            Ok(durable) => written = durable.0,
            Err(failed) => break failed,
        }
        // A segment is 310 facts of 204 bytes.
        if written == 330 {
            wait_low(&writer, true);
            low_at = Some(written);
        }
        assert!(written > 290 || !writer.is_low(), "at {written}");
    };
    assert!(written - low_at.unwrap() > 850, "most of a segment and two more: {written}");
    let full = matches!(&failed, WriterFailed::Append(AppendError::Disk(error)) if error.kind == DiskErrorKind::Full);
    assert!(full, "{failed}");
    assert_eq!(failed.to_string().matches("no space is left").count(), 1, "{failed}");
    assert!(writer.stop().is_err());

    // With more room it starts again; nothing that was announced is missing.
    disk.set_capacity(None);
    let (writer, _announced) = start(disk.clone());
    wait_low(&writer, false);
    writer.stop().unwrap();
    let numbers = open(disk).2.into_iter().map(|fact| u64::from_le_bytes(fact[..8].try_into().unwrap()));
    assert!(numbers.take(written as usize).eq(0..written));
}

#[test]
fn bodies_take_none_of_the_reserve() {
    let disk = SimDisk::new();
    // The first segment of facts, one of bodies, and a reserve of two.
    disk.set_capacity(Some(4 * (64 << 10)));
    let (writer, announced) = start(disk.clone());
    let mut batch = fill(FactBatch::default(), 0..10);
    batch.push_blob(BlobRef::of(0, 0, &[1; 5_000]), &[1; 5_000]);
    writer.append(batch).unwrap();
    assert_eq!(announced.recv().unwrap(), Ok(Position(10)));
    wait_low(&writer, true);
    assert_eq!(writer.blob_segments_max(), 1, "there is no room for another");
    let prepared = || disk.names().unwrap().iter().filter(|name| name.starts_with("prepared-")).count();
    assert_eq!(prepared(), 2);
    disk.set_capacity(None);
    wait_low(&writer, false);
    assert_eq!((writer.blob_segments_max(), prepared()), (2, 3));
    writer.stop().unwrap();
}

#[test]
fn a_reserve_is_filled_again_when_the_disk_has_room_again() {
    let disk = SimDisk::new();
    disk.set_capacity(Some(2 * (64 << 10)));
    let (writer, _announced) = start(disk.clone());
    wait_low(&writer, true);
    disk.set_capacity(None);
    wait_low(&writer, false);
    writer.stop().unwrap();
}
