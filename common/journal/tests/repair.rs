//! Repair: whatever is damaged, what lies before it is kept, and what is given up is said and copied first.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use fleetwire_common::ids::Position;
use fleetwire_journal::{Cut, Disk, Examined, OpenError, examine, segment_name, sim_disk::SimDisk, snapshot_name};
use std::convert::Infallible;
use support::{batch, config, expand, open, segments, snapshot};

/// Three segments behind a snapshot of ten facts; thirty facts in all.
fn story() -> SimDisk {
    let disk = SimDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    for number in 0..30 {
        journal.append(&batch(&[&fact(number)])).unwrap();
        if number == 9 {
            journal.roll().unwrap();
            snapshot(&disk).unwrap();
        }
        if number == 19 {
            journal.roll().unwrap();
        }
    }
    journal.stop().unwrap();
    disk
}

fn fact(number: u8) -> Vec<u8> {
    vec![number; 20]
}

fn cut(disk: &SimDisk) -> Option<Cut<Infallible>> {
    match examine(disk, &config(), |_, _| Ok(())).unwrap() {
        Examined::Whole(_) => None,
        Examined::Damaged(cut) => Some(cut),
    }
}

fn facts(disk: &SimDisk) -> Vec<Vec<u8>> {
    open(disk).unwrap().2.iter().flat_map(|fact| expand(fact)).collect()
}

/// Damages a copy, cuts it, and returns how many facts are left and how many were said to be lost.
fn repaired(disk: &SimDisk, damage: impl Fn(&SimDisk)) -> Option<(u64, u64)> {
    let damaged = disk.copy();
    damage(&damaged);
    let cut = cut(&damaged)?;
    let copies = SimDisk::new();
    let (position, lost_up_to, files) = (cut.position, cut.lost_up_to, cut.files.clone());
    let before: Vec<_> = files.iter().map(|name| damaged.bytes(name)).collect();
    cut.make(&damaged, &copies).unwrap();
    assert!(files.iter().zip(before).all(|(name, bytes)| copies.bytes(name) == bytes));
    let left = facts(&damaged);
    assert_eq!(left.len() as u64, position.0);
    assert!(left.iter().enumerate().all(|(number, found)| *found == fact(number as u8)));
    // It goes on from there.
    let (mut journal, ..) = open(&damaged).unwrap();
    journal.append(&batch(&[b"next"])).unwrap();
    journal.stop().unwrap();
    assert_eq!(facts(&damaged).len() as u64, position.0 + 1);
    Some((position.0, lost_up_to.0))
}

#[test]
fn a_whole_journal_needs_no_repair_and_examining_changes_nothing() {
    let disk = story();
    let before = disk.counts();
    assert!(cut(&disk).is_none());
    assert_eq!(disk.counts(), before);
}

#[test]
fn damage_at_any_byte_is_cut_there_and_the_loss_is_said() {
    let disk = story();
    assert_eq!(segments(&disk).len(), 3, "the first is kept for the first snapshot");
    let mut cuts = 0;
    for (index, name) in segments(&disk).iter().enumerate() {
        let bytes = disk.bytes(name).unwrap();
        for at in 0..bytes.len() {
            let flip = |disk: &SimDisk| {
                let mut bytes = bytes.clone();
                bytes[at] ^= 0x10;
                disk.plant(name, bytes);
            };
            let Some((left, lost_up_to)) = repaired(&disk, flip) else {
                assert!(index == 0 || at >= 512 + 10 * 80, "{name} at {at} is whole");
                continue;
            };
            cuts += 1;
            assert!(index > 0 && left >= index as u64 * 10 && left <= index as u64 * 10 + 9, "{name} at {at}: {left}");
            // A header that cannot be read may be all that spoke of what follows.
            assert!(lost_up_to == 30 || (at < 512 && lost_up_to >= left), "{name} at {at}: {lost_up_to}");
        }
    }
    assert!(cuts > 2 * 1300, "{cuts}");
}

#[test]
fn a_missing_segment_costs_what_came_after_it() {
    let disk = story();
    let remove = |number: u64| move |disk: &SimDisk| disk.remove(&segment_name(number)).unwrap();
    assert_eq!(repaired(&disk, remove(2)), Some((10, 30)));
    assert_eq!(repaired(&disk, remove(1)), None, "a snapshot stands for it");
    // Nobody knows of a segment that nothing names.
    let newest_gone = repaired(&disk, remove(3));
    assert_eq!(newest_gone, None);
}

#[test]
fn what_cannot_be_repaired_is_said_and_left_alone() {
    let disk = story();
    let name = snapshot_name(Position(10));
    let mut bytes = disk.bytes(&name).unwrap();
    bytes[520] ^= 1;
    disk.plant(&name, bytes);
    disk.remove(&segment_name(1)).unwrap();
    let refused = examine(&disk, &config(), |_, _| Ok::<(), Infallible>(())).unwrap_err();
    assert!(matches!(refused, OpenError::Snapshot { .. }), "{refused}");
    let refused = examine(&story(), &config(), |_, _| Err("no fact")).unwrap_err();
    assert!(matches!(refused, OpenError::Fact { .. }), "{refused}");

    let alone = SimDisk::new();
    alone.plant(&segment_name(1), vec![7; 4096]);
    let refused = examine(&alone, &config(), |_, _| Ok::<(), Infallible>(())).unwrap_err();
    assert!(matches!(refused, OpenError::Corrupt { segment: 1, offset: 0, .. }), "{refused}");
}

#[test]
fn an_interrupted_repair_is_done_again() {
    for step in 0..60 {
        let disk = story();
        let name = segment_name(2);
        let mut bytes = disk.bytes(&name).unwrap();
        bytes[700] ^= 1;
        disk.plant(&name, bytes);
        disk.fail_after(step);
        let done = cut(&disk).unwrap().make(&disk, &SimDisk::new()).is_ok();
        disk.crash(step);
        if let Some(cut) = cut(&disk) {
            cut.make(&disk, &SimDisk::new()).unwrap();
        }
        assert_eq!(facts(&disk).len(), 12, "step {step}");
        if done {
            return;
        }
    }
    panic!("a repair takes fewer steps");
}
