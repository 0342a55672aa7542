//! Snapshots: what they stand for may go, what is left makes the same again; a damaged one is passed over
//! while its elder is there, and refused when it is not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use fleetwire_common::ids::Position;
use fleetwire_journal::{
    Damage, Disk, Identity, JournalConfig, OpenError, RetireError, SnapshotError, Stopped, copy_file, retire,
    segment_name, sim_disk::SimDisk, snapshot_name, take_snapshot,
};
use proptest::prelude::*;
use support::{All, Opened, batch, config, expand, open, open_with, segments, snapshot};

fn fact(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(25)
}

/// A journal with two snapshots, at 30 and 60, and 90 facts in all.
fn story() -> SimDisk {
    let disk = SimDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    for number in 0..90 {
        journal.append(&batch(&[&fact(number)])).unwrap();
        if number % 30 == 29 && number < 80 {
            assert!(journal.roll().unwrap() && !journal.roll().unwrap());
            let taken = snapshot(&disk).unwrap();
            assert_eq!((taken.position, taken.facts), (Position(number + 1), 1));
        }
    }
    journal.stop().unwrap();
    disk
}

fn facts_of(opened: Opened) -> Vec<Vec<u8>> {
    opened.unwrap().2.iter().flat_map(|fact| expand(fact)).collect()
}

fn all() -> Vec<Vec<u8>> {
    (0..90).map(fact).collect()
}

fn names(disk: &SimDisk) -> Vec<String> {
    let mut names = disk.names().unwrap();
    names.sort();
    names
}

#[test]
fn reading_begins_with_the_newest_and_what_two_stand_for_goes() {
    let disk = story();
    let snapshots = [snapshot_name(Position(30)), snapshot_name(Position(60))];
    assert_eq!(names(&disk)[..2], snapshots);
    assert_eq!(segments(&disk)[0], segment_name(4), "three held the first thirty facts");
    let (_, recovery, facts) = open(&disk).unwrap();
    assert_eq!(recovery.snapshot.map(|snapshot| snapshot.position), Some(Position(60)));
    assert_eq!((recovery.facts, recovery.position, facts.len()), (30, Position(90), 31));
    assert_eq!(facts_of(open(&disk)), all());
    assert!(snapshot(&disk).is_some(), "every start seals a segment");
    assert_eq!(snapshot(&disk), None, "nothing new");
    assert_eq!(facts_of(open(&disk)), all());
}

#[test]
fn a_snapshot_that_is_damaged_anywhere_is_passed_over_and_nothing_is_lost() {
    let disk = story();
    let name = snapshot_name(Position(60));
    let bytes = disk.bytes(&name).unwrap();
    let damage = |bytes: Vec<u8>| {
        let disk = disk.copy();
        disk.plant(&name, bytes);
        let (_, recovery, facts) = open(&disk).unwrap();
        assert_eq!(recovery.snapshot.map(|snapshot| snapshot.position), Some(Position(30)));
        assert_eq!((recovery.damaged.len(), recovery.damaged[0].position), (1, Position(60)));
        assert_eq!(facts.iter().flat_map(|fact| expand(fact)).collect::<Vec<_>>(), all());
        recovery.damaged[0].damage
    };
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        damage(flipped);
    }
    for length in (0..bytes.len()).step_by(7) {
        assert!(matches!(damage(bytes[..length].to_vec()), Damage::Header | Damage::Length));
    }
    assert_eq!(damage([&bytes[..], &[0; 8]].concat()), Damage::Length);
    assert_eq!(damage(disk.bytes(&snapshot_name(Position(30))).unwrap()), Damage::Order);
}

#[test]
fn without_an_elder_a_damaged_snapshot_is_refused_and_nothing_changes() {
    let disk = story();
    let (newer, older) = (snapshot_name(Position(60)), snapshot_name(Position(30)));
    let mut bytes = disk.bytes(&newer).unwrap();
    bytes[600] ^= 4;
    disk.plant(&newer, bytes);
    disk.remove(&older).unwrap();
    let before = disk.counts();
    let refused = open(&disk).unwrap_err();
    assert!(matches!(&refused, OpenError::Snapshot { damaged } if damaged.position == Position(60)), "{refused}");
    assert!(refused.to_string().starts_with("00000000000000000060.snapshot is damaged at byte 512 ("), "{refused}");
    assert_eq!(disk.counts(), before);

    // With all segments there, no snapshot is needed.
    let whole = SimDisk::new();
    let (mut journal, ..) = open(&whole).unwrap();
    journal.append(&batch(&[&fact(0)])).unwrap();
    journal.roll().unwrap();
    assert!(snapshot(&whole).is_some());
    journal.stop().unwrap();
    let name = snapshot_name(Position(1));
    let mut bytes = whole.bytes(&name).unwrap();
    bytes[40] ^= 1;
    whole.plant(&name, bytes);
    let (_, recovery, facts) = open(&whole).unwrap();
    assert_eq!((facts, recovery.damaged.len(), recovery.snapshot), (vec![fact(0)], 1, None));
}

#[test]
fn a_snapshot_without_its_segments_is_refused() {
    let disk = story();
    let behind: Vec<String> = {
        let copy = disk.copy();
        open(&copy).unwrap();
        segments(&disk)
    };
    let first = behind.iter().position(|name| {
        let copy = disk.copy();
        copy.remove(name).unwrap();
        open(&copy).is_err()
    });
    let first = first.expect("some segment is needed");
    for name in &behind[..first] {
        disk.remove(name).unwrap();
    }
    assert_eq!(facts_of(open(&disk.copy())), all(), "those before the newest snapshot are not");
    for name in &behind[first..behind.len() - 1] {
        let copy = disk.copy();
        copy.remove(name).unwrap();
        let refused = open(&copy).unwrap_err();
        assert!(matches!(refused, OpenError::Missing { .. }), "{name}: {refused}");
    }
    for name in &behind[first..] {
        disk.remove(name).unwrap();
    }
    assert!(matches!(open(&disk), Err(OpenError::Missing { .. })));
}

#[test]
fn a_snapshot_of_another_journal_or_another_history_is_refused() {
    let disk = story();
    let name = snapshot_name(Position(60));
    // The same journal, but other facts: a copy that went its own way.
    let other = SimDisk::new();
    let (mut journal, ..) = open(&other).unwrap();
    for number in 0..60 {
        journal.append(&batch(&[&fact(number + 1000)])).unwrap();
        if number == 29 {
            journal.roll().unwrap();
        }
    }
    journal.roll().unwrap();
    snapshot(&other).unwrap();
    let mixed = disk.copy();
    mixed.plant(&name, other.bytes(&name).unwrap());
    let refused = open(&mixed).unwrap_err();
    assert!(matches!(refused, OpenError::Corrupt { offset: 0, damage: Damage::Order, .. }), "{refused}");

    let foreign = SimDisk::new();
    let foreign_config = JournalConfig { identity: Identity::Exactly([9; 16]), ..config() };
    let (mut journal, ..) = open_with(&foreign, &foreign_config).unwrap();
    for number in 0..60 {
        journal.append(&batch(&[&fact(number)])).unwrap();
    }
    journal.roll().unwrap();
    take_snapshot(&foreign, &foreign_config, All::default(), |_| Ok(())).unwrap().unwrap();
    disk.plant(&name, foreign.bytes(&name).unwrap());
    assert!(matches!(open(&disk), Err(OpenError::AnotherJournal { found: [9, ..], .. })));
}

#[test]
fn a_stopped_or_failed_snapshot_leaves_nothing_behind_and_the_journal_goes_on() {
    let disk = SimDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    journal.append(&batch(&[&fact(0)])).unwrap();
    journal.roll().unwrap();
    let before = names(&disk);
    let stopped = take_snapshot(&disk, &config(), All::default(), |_| Err(Stopped));
    assert!(matches!(stopped, Err(SnapshotError::Stopped)));
    assert_eq!(names(&disk), before);
    disk.fail_syncs(1);
    assert!(matches!(take_snapshot(&disk, &config(), All::default(), |_| Ok(())), Err(SnapshotError::Disk(_))));
    assert_eq!(names(&disk), before);
    disk.set_capacity(Some(0));
    assert!(matches!(
        take_snapshot(&disk, &config(), All::default(), |_| Ok(())),
        Err(SnapshotError::Disk(_)) | Ok(Some(_))
    ));
    journal.append(&batch(&[&fact(1)])).unwrap();
    journal.sync().unwrap();
}

#[test]
fn superfluous_segments_are_archived_and_become_prepared_ones() {
    let disk = story();
    let archive = SimDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    journal.append(&batch(&[&fact(90)])).unwrap();
    journal.roll().unwrap();
    take_snapshot(&disk, &config(), All::default(), |_| Ok(())).unwrap().unwrap();
    let before = segments(&disk);
    let contents: Vec<_> = before.iter().map(|name| disk.bytes(name)).collect();

    // An archive that fails costs nothing.
    let failing = retire(&disk, &config(), 2, |_| Err(RetireError::Stopped), |_| Ok(()));
    assert!(matches!(failing, Err(RetireError::Stopped)));
    assert_eq!(segments(&disk), before);

    let keep = |name: &str| copy_file(&disk, &archive, name, |_| Ok(()));
    let retired = retire(&disk, &config(), 2, keep, |_| Ok(())).unwrap();
    assert!(retired.segments > 2 && retired.reusable.len() == 2 && retired.snapshots == 1);
    let archived = names(&archive);
    assert_eq!(archived, before[..retired.segments]);
    assert!(archived.iter().zip(contents).all(|(name, content)| archive.bytes(name) == content));

    let made = disk.counts().creations;
    retired.reusable.into_iter().for_each(|segment| journal.provide(segment));
    for number in 91..101 {
        journal.append(&batch(&[&fact(number)])).unwrap();
        journal.roll().unwrap();
        if number == 92 {
            assert_eq!((disk.counts().creations, journal.prepared()), (made, 0));
        }
    }
    journal.stop().unwrap();
    assert_eq!(facts_of(open(&disk)), (0..101).map(fact).collect::<Vec<_>>());
    assert!(names(&disk).iter().all(|name| !name.starts_with("prepared")), "a start removes what was prepared");
}

#[test]
fn a_crash_at_every_step_of_a_snapshot_and_of_what_follows_loses_nothing() {
    for seed in 0..6 {
        for step in 0..200 {
            let disk = story();
            let (mut journal, ..) = open(&disk).unwrap();
            journal.append(&batch(&[&fact(90)])).unwrap();
            journal.roll().unwrap();
            disk.fail_after(step);
            let _ = take_snapshot(&disk, &config(), All::default(), |_| Ok(()));
            let _ = retire(&disk, &config(), 2, |_| Ok(()), |_| Ok(()));
            let done = !disk.has_failed();
            disk.crash(seed * 1000 + step);
            let (_, recovery, facts) = open(&disk).unwrap();
            assert_eq!(recovery.damaged, [], "seed {seed}, step {step}");
            let facts: Vec<_> = facts.iter().flat_map(|fact| expand(fact)).collect();
            assert_eq!(facts.len(), 91, "seed {seed}, step {step}");
            if done {
                break;
            }
            assert!(step < 199, "it takes fewer steps");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn no_bytes_of_a_snapshot_make_it_panic_or_invent_facts(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        length in any::<prop::sample::Index>(),
        random in prop::collection::vec(any::<u8>(), 0..1000),
        older in any::<bool>(),
    ) {
        let disk = story();
        let name = snapshot_name(Position(if older { 30 } else { 60 }));
        let mut bytes = disk.bytes(&name).unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(length.index(bytes.len() + 1));
        for bytes in [bytes, random] {
            disk.plant(&name, bytes);
            prop_assert_eq!(facts_of(open(&disk.copy())), all());
        }
    }
}
