//! A journal's ordinary life: what is appended and synced comes back, in order, over restarts,
//! segments and snapshots; what does not belong to it is refused with its cause.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use fleetwire_common::ids::Position;
use fleetwire_journal::{
    AppendError, Damage, Disk, DiskErrorKind, Identity, Journal, JournalConfig, OpenError, PreparedSegment, SyncError,
    check, segment_name, sim_disk::SimDisk,
};
use std::convert::Infallible;
use support::{ID, batch, config, open, open_with, segments};

#[test]
fn facts_come_back_in_order_over_restarts() {
    let disk = SimDisk::new();
    let (mut journal, recovery, facts) = open(&disk).unwrap();
    assert!(facts.is_empty() && recovery.cut.is_none());
    assert_eq!(journal.append(&batch(&[b"one", b""])).unwrap(), Position(2));
    assert_eq!(journal.durable(), Position(0));
    assert_eq!(journal.append(&batch(&[])).unwrap(), Position(2));
    assert_eq!(journal.sync().unwrap(), Position(2));
    assert_eq!(journal.append(&batch(&[b"three"])).unwrap(), Position(3));
    assert_eq!(journal.stop().unwrap(), Position(3));

    for restart in 0..3 {
        let (journal, recovery, facts) = open(&disk).unwrap();
        assert_eq!(facts, [&b"one"[..], b"", b"three"]);
        assert_eq!((recovery.rewritten, recovery.cut), (0, None), "restart {restart}");
        assert_eq!(journal.id(), ID);
    }
    assert_eq!(segments(&disk).len(), 4, "every start opens a segment");
}

#[test]
fn a_full_segment_is_followed_by_the_next_and_a_large_batch_gets_its_own() {
    let disk = SimDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    let mut expected = Vec::new();
    for number in 0..200_u32 {
        let fact = vec![number as u8; (number as usize * 37) % 900];
        journal.append(&batch(&[&fact])).unwrap();
        expected.push(fact);
        if number % 7 == 0 {
            journal.sync().unwrap();
            journal.mark().unwrap();
        }
        if number == 100 {
            let large = vec![9; 20_000];
            journal.append(&batch(&[&large, b"x"])).unwrap();
            expected.extend([large, b"x".to_vec()]);
        }
    }
    journal.sync().unwrap();
    assert!(segments(&disk).len() > 10);
    drop(journal);
    let (_, recovery, facts) = open(&disk).unwrap();
    assert_eq!(facts, expected);
    assert_eq!(recovery.cut, None);
}

#[test]
fn a_prepared_segment_is_used_and_one_left_behind_is_removed() {
    let disk = SimDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    let (serial, bytes) = journal.plan_segment();
    journal.provide(PreparedSegment::create(&disk, serial, bytes).unwrap());
    let made = disk.counts().creations;
    while journal.has_room(&batch(&[&[1; 500]])) {
        journal.append(&batch(&[&[1; 500]])).unwrap();
    }
    journal.append(&batch(&[&[1; 500]])).unwrap();
    assert_eq!((disk.counts().creations, journal.prepared()), (made, 0));
    let (serial, bytes) = journal.plan_segment();
    journal.provide(PreparedSegment::create(&disk, serial, bytes).unwrap());
    journal.stop().unwrap();
    open(&disk).unwrap();
    assert!(disk.names().unwrap().iter().all(|name| name.ends_with(".segment")));
}

#[test]
fn another_journal_a_newer_format_and_misplaced_segments_are_refused() {
    let disk = SimDisk::new();
    for _ in 0..3 {
        let (mut journal, ..) = open(&disk).unwrap();
        journal.append(&batch(&[b"fact"])).unwrap();
        journal.stop().unwrap();
    }
    let other = JournalConfig { identity: Identity::Exactly([1; 16]), ..config() };
    assert!(matches!(open_with(&disk, &other), Err(OpenError::AnotherJournal { found: ID, .. })));
    let any = JournalConfig { identity: Identity::IfNew([1; 16]), ..config() };
    assert_eq!(open_with(&disk.copy(), &any).unwrap().0.id(), ID);

    let (first, second) = (disk.bytes(&segment_name(1)).unwrap(), disk.bytes(&segment_name(2)).unwrap());
    let swapped = disk.copy();
    swapped.plant(&segment_name(1), second.clone());
    swapped.plant(&segment_name(2), first);
    assert!(matches!(open(&swapped), Err(OpenError::Corrupt { segment: 1, offset: 0, damage: Damage::Order })));

    let missing = disk.copy();
    missing.remove(&segment_name(2)).unwrap();
    assert!(matches!(open(&missing), Err(OpenError::Missing { segment: 2 })));
    let headless = disk.copy();
    headless.remove(&segment_name(1)).unwrap();
    assert!(matches!(open(&headless), Err(OpenError::Missing { segment: 1 })));

    let foreign = SimDisk::new();
    let (mut journal, ..) = open(&foreign).unwrap();
    journal.append(&batch(&[b"fake"])).unwrap();
    journal.stop().unwrap();
    let replaced = disk.copy();
    replaced.plant(&segment_name(1), foreign.bytes(&segment_name(1)).unwrap());
    let refused = open(&replaced).unwrap_err();
    let wrong_chain = matches!(refused, OpenError::Corrupt { segment: 1, damage: Damage::End, .. });
    assert!(wrong_chain, "right name, right length, another's facts: {refused}");

    let text = open(&missing).unwrap_err().to_string();
    assert_eq!(text, "0000000002.segment is missing: put it back, or restore the data folder from a backup");
}

#[test]
fn a_fact_that_its_reader_refuses_stops_the_opening_and_changes_nothing() {
    let disk = SimDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    journal.append(&batch(&[b"good", b"bad"])).unwrap();
    journal.stop().unwrap();
    let before = disk.counts();
    let refuse = |_, fact: &[u8]| if fact == b"bad" { Err("no fact") } else { Ok(()) };
    let refused = Journal::open(disk.clone(), &config(), refuse).unwrap_err();
    assert_eq!(refused.to_string(), "fact 2 in 0000000001.segment: no fact");
    assert_eq!(disk.counts(), before);
}

#[test]
fn checking_writes_nothing() {
    let disk = SimDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    journal.append(&batch(&[b"one", b"two"])).unwrap();
    journal.sync().unwrap();
    let before = disk.counts();
    let recovery = check(&disk, &config(), |_, _| Ok::<(), Infallible>(())).unwrap();
    assert_eq!((recovery.facts, recovery.rewritten), (2, 2));
    assert_eq!(disk.counts(), before);
}

#[test]
fn after_a_failed_sync_every_call_fails_and_nothing_is_retried() {
    let disk = SimDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    journal.append(&batch(&[b"one"])).unwrap();
    disk.fail_syncs(1);
    assert!(matches!(journal.sync(), Err(SyncError::Disk(_))));
    assert!(matches!(journal.sync(), Err(SyncError::Poisoned { .. })));
    assert!(matches!(journal.append(&batch(&[b"two"])), Err(AppendError::Poisoned { .. })));
    assert!(matches!(journal.mark(), Err(AppendError::Poisoned { .. })));
    assert_eq!(journal.durable(), Position(0));
}

#[test]
fn a_full_or_read_only_disk_is_named_as_such() {
    let disk = SimDisk::new();
    disk.set_capacity(Some(5000));
    let (mut journal, ..) = open(&disk).unwrap();
    let full = loop {
        if let Err(error) = journal.append(&batch(&[&[0; 500]])) {
            break error;
        }
    };
    assert!(matches!(&full, AppendError::Disk(error) if error.kind == DiskErrorKind::Full), "{full}");
    disk.set_read_only(true);
    let refused = open(&disk).unwrap_err();
    assert!(matches!(&refused, OpenError::Disk(error) if error.kind == DiskErrorKind::ReadOnly), "{refused}");
}

#[test]
fn a_mark_is_written_once_and_always_finds_room() {
    let disk = SimDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    assert!(!journal.mark().unwrap(), "nothing to say yet");
    for bytes in (3000..3600).step_by(4) {
        journal.append(&batch(&[&vec![1; bytes]])).unwrap();
        assert!(!journal.mark().unwrap(), "not durable yet");
        journal.sync().unwrap();
        let before = disk.counts().bytes_written;
        assert!(journal.mark().unwrap());
        assert!(!journal.mark().unwrap());
        assert_eq!(disk.counts().bytes_written - before, 56);
    }
    let lengths = segments(&disk).into_iter().map(|name| disk.bytes(&name).unwrap().len());
    assert!(lengths.into_iter().all(|bytes| bytes % 4096 == 0), "no write went beyond a file's end");
}
