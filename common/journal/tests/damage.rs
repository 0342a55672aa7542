//! Damage, exhaustively on small journals: every length, every torn end, every flipped bit. Each is
//! either refused, or recovered with all that was known durable; nothing is lost in silence.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use fleetwire_common::ids::Position;
use fleetwire_journal::{Damage, OpenError, Recovery, TornTail, check, segment_name, sim_disk::SimDisk};
use proptest::prelude::*;
use std::convert::Infallible;
use support::{batch, config, newest, open, segments, used};

/// What there is to be found again: three segments; the newest has marked batches, then others.
struct Story {
    disk: SimDisk,
    facts: Vec<Vec<u8>>,
    /// Ends of batches in the newest segment, with the number of facts before each.
    ends: Vec<(usize, u64)>,
    /// How many facts a mark in the newest segment covers, and where that is.
    marked: (usize, u64),
    /// How many were synced last.
    durable: u64,
}

fn story() -> Story {
    let disk = SimDisk::new();
    let mut facts = Vec::new();
    let mut next = |bytes: usize| {
        facts.push(vec![facts.len() as u8 + 1; bytes]);
        batch(&[facts.last().unwrap()])
    };
    let (mut journal, ..) = open(&disk).unwrap();
    for _ in 0..7 {
        journal.append(&next(600)).unwrap();
    }
    journal.sync().unwrap();
    journal.append(&next(30)).unwrap();
    drop(journal);
    let (mut journal, recovery, _) = open(&disk).unwrap();
    assert_eq!(recovery.rewritten, 1);
    let mut ends = Vec::new();
    let mut marked = (0, 0);
    let mut durable = 0;
    for (bytes, sync) in [(20, true), (33, false), (10, true), (5, false), (900, false), (7, false)] {
        let position = journal.append(&next(bytes)).unwrap();
        // The batch just written carries what was durable before it.
        if durable > 0 {
            marked = (ends.iter().find(|(_, facts)| *facts == durable).map_or(0, |(end, _)| *end), durable);
        }
        ends.push((used(&disk, &newest(&disk)).next_multiple_of(8), position.0));
        if sync {
            durable = journal.sync().unwrap().0;
        }
    }
    assert!(segments(&disk).len() == 3 && marked.1 == durable);
    Story { disk, facts, ends, marked, durable }
}

type Checked = Result<(Recovery, Vec<Vec<u8>>), OpenError<Infallible>>;

/// What an opening of the journal would find, with one segment's bytes changed.
fn found(story: &Story, name: &str, bytes: Vec<u8>) -> Checked {
    let disk = &story.disk;
    let before = disk.bytes(name).unwrap();
    disk.plant(name, bytes);
    let mut facts = Vec::new();
    let keep = |position: Position, fact: &[u8]| {
        facts.push(fact.to_vec());
        assert_eq!(position.0, facts.len() as u64);
        Ok(())
    };
    let checked = check(disk, &config(), keep);
    disk.plant(name, before);
    let recovery = checked?;
    assert!(story.facts.starts_with(&facts), "no fact is invented or out of order");
    assert_eq!(recovery.facts, facts.len() as u64);
    Ok((recovery, facts))
}

#[test]
fn undamaged_it_is_found_whole() {
    let story = story();
    let name = newest(&story.disk);
    let (recovery, facts) = found(&story, &name, story.disk.bytes(&name).unwrap()).unwrap();
    assert_eq!((facts.len(), recovery.cut), (story.facts.len(), None));
    assert_eq!(recovery.rewritten, story.facts.len() as u64 - story.durable);
}

#[test]
fn a_file_of_any_other_length_is_refused() {
    let story = story();
    for name in segments(&story.disk) {
        let bytes = story.disk.bytes(&name).unwrap();
        for length in 0..bytes.len() {
            let refused = found(&story, &name, bytes[..length].to_vec()).unwrap_err();
            assert!(matches!(refused, OpenError::Corrupt { damage: Damage::Header | Damage::Length, .. }), "{refused}");
        }
        let longer = [bytes, vec![0]].concat();
        assert!(matches!(found(&story, &name, longer), Err(OpenError::Corrupt { damage: Damage::Length, .. })));
    }
}

#[test]
fn an_end_that_is_torn_at_any_byte_keeps_all_that_was_durable() {
    let story = story();
    let name = newest(&story.disk);
    let whole = story.disk.bytes(&name).unwrap();
    let last = story.ends.last().unwrap().0;
    for from in story.marked.0..=last {
        for filler in [0, 0xff] {
            let mut bytes = whole.clone();
            bytes[from..last].fill(filler);
            let (recovery, facts) = found(&story, &name, bytes.clone()).unwrap();
            let intact = story.ends.iter().take_while(|(end, _)| *end <= from).last().unwrap();
            assert!(facts.len() as u64 >= intact.1 && intact.1 >= story.durable, "torn at {from} with {filler}");
            let (end, _) = story.ends.iter().find(|(_, count)| *count == facts.len() as u64).unwrap();
            let bytes = bytes[*end..].iter().rposition(|byte| *byte != 0).map(|last| last as u64 + 1);
            let cut = bytes.map(|bytes| TornTail { segment: 3, offset: *end as u64, bytes });
            assert_eq!(recovery.cut, cut, "torn at {from} with {filler}");
        }
    }
}

#[test]
fn a_segment_zeroed_from_any_byte_on_is_refused_or_recovered_up_to_there() {
    let story = story();
    for name in segments(&story.disk) {
        let whole = story.disk.bytes(&name).unwrap();
        for from in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[from..].fill(0);
            // Facts missing without a refusal: only if all that spoke of them is gone as well.
            if let Ok((_, facts)) = found(&story, &name, bytes) {
                let dead = facts.len() == story.facts.len();
                assert!(dead || (name == newest(&story.disk) && from >= 512), "{name} from {from}");
            }
        }
    }
}

#[test]
fn a_flipped_bit_is_refused_where_facts_are_known_durable_and_cut_elsewhere() {
    let story = story();
    let newest = newest(&story.disk);
    // The ends that the successors name: five batches of 600, then two; the third there was unmarked.
    let ends = [Some(512 + 5 * 664), Some(512 + 2 * 664), None];
    for (index, name) in segments(&story.disk).iter().enumerate() {
        let mut bytes = story.disk.bytes(name).unwrap();
        for bit in 0..bytes.len() * 8 {
            let at = bit / 8;
            // Every bit where something stands in the newest segment, elsewhere one of each byte.
            if bit % 8 != at % 8 && !(*name == newest && at < 2048) {
                continue;
            }
            bytes[at] ^= 1 << (bit % 8);
            let outcome = found(&story, name, bytes.clone());
            bytes[at] ^= 1 << (bit % 8);
            match (outcome, ends[index]) {
                (Err(OpenError::Corrupt { segment, .. }), Some(end)) => {
                    assert!(segment == index as u64 + 1 && at < end, "{name} bit {bit}");
                }
                (Ok((recovery, facts)), Some(end)) => {
                    assert!(at >= end && recovery.cut.is_none(), "{name} bit {bit}");
                    assert_eq!(facts.len(), story.facts.len(), "{name} bit {bit}");
                }
                (Err(OpenError::Corrupt { segment: 3, offset, .. }), None) => {
                    assert!(at < story.marked.0 && offset <= at as u64, "{name} bit {bit}");
                }
                (Ok((recovery, facts)), None) => {
                    assert!(at >= story.marked.0 && *name == newest, "{name} bit {bit}");
                    let intact = story.ends.iter().take_while(|(end, _)| *end <= at).last().unwrap().1;
                    assert_eq!((facts.len() as u64, recovery.cut.is_some()), (intact, true), "{name} bit {bit}");
                }
                (Err(other), _) => panic!("{name} bit {bit}: {other}"),
            }
        }
    }
}

#[test]
fn a_refusal_says_where_and_what_to_do() {
    let story = story();
    let name = newest(&story.disk);
    let mut bytes = story.disk.bytes(&name).unwrap();
    bytes[600] ^= 1;
    let text = found(&story, &name, bytes).unwrap_err().to_string();
    assert!(text.starts_with("0000000003.segment is damaged at byte 512 ("), "{text}");
    assert!(text.ends_with("restore the data folder from a backup"), "{text}");
}

#[test]
fn a_batch_cannot_pass_for_one_of_another_segment() {
    let story = story();
    let (second, third) = (segment_name(2), segment_name(3));
    let other = story.disk.bytes(&second).unwrap();
    let mut bytes = story.disk.bytes(&third).unwrap();
    bytes[512..].copy_from_slice(&other[512..]);
    assert!(matches!(found(&story, &third, bytes), Err(OpenError::Corrupt { segment: 3, offset: 512, .. })));
}

#[test]
fn a_batch_in_another_batch_s_place_is_not_taken_for_it() {
    let disk = SimDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    journal.append(&batch(&[b"fact"])).unwrap();
    journal.sync().unwrap();
    journal.mark().unwrap();
    journal.append(&batch(&[b"next"])).unwrap();
    let mut bytes = disk.bytes(&segment_name(1)).unwrap();
    let (mark, next) = (512 + 64, 512 + 64 + 56);
    bytes.copy_within(next..next + 64, mark);
    disk.plant(&segment_name(1), bytes);
    let (_, recovery, facts) = open(&disk).unwrap();
    assert_eq!((facts.len(), recovery.cut.map(|cut| cut.offset)), (1, Some(mark as u64)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn no_bytes_make_it_panic_or_invent_facts(
        segment in 1_u64..=3,
        changes in prop::collection::vec((0_usize..4096, any::<u8>()), 1..20),
        from_another in any::<Option<(u8, u16, u16)>>(),
    ) {
        let story = story();
        let mut bytes = story.disk.bytes(&segment_name(segment)).unwrap();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        if let Some((other, at, length)) = from_another {
            let other = story.disk.bytes(&segment_name(1 + u64::from(other) % 3)).unwrap();
            let at = usize::from(at) % 4096;
            let end = (at + usize::from(length)).min(4096);
            bytes[at..end].copy_from_slice(&other[at..end]);
        }
        let _ = found(&story, &segment_name(segment), bytes);
    }

    #[test]
    fn a_segment_of_random_bytes_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let disk = SimDisk::new();
        disk.plant(&segment_name(1), bytes);
        let refused = matches!(open(&disk), Err(OpenError::Corrupt { segment: 1, offset: 0, damage: Damage::Header }));
        prop_assert!(refused);
    }
}
