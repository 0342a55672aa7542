//! The writer thread: what it announces is on disk, what it fails at is said once, and an idle or
//! stopped journal is marked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fleetwire_common::{facts::FactBatch, ids::Position};
use fleetwire_disk::{FsDisk, JournalWriter, TryAppendError, WriterConfig, WriterFailed, WriterStopped};
use fleetwire_journal::{Disk, Identity, Journal, JournalConfig, Recovery, SyncError, sim_disk::SimDisk};
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
    disk.fail_syncs(1);
    writer.append(fill(writer.spare(), 1..2)).unwrap();
    assert!(matches!(announced.recv().unwrap(), Err(WriterFailed::Sync(SyncError::Disk(_)))));
    assert!(announced.recv().is_err(), "nothing more is said");
    assert_eq!(writer.append(fill(FactBatch::default(), 2..3)), Err(WriterStopped));
    assert!(matches!(writer.try_append(FactBatch::default()), Err(TryAppendError::Stopped(_))));
    assert!(writer.stop().is_err());
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
