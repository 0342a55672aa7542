#![no_main]
//! Hostile files: a journal is opened, checked and replayed into a state, whatever its files hold. With the
//! first byte odd, checksums are made right again first, so that what lies behind them is reached too.
//!
//! The input: how many bytes of segment 1, of a snapshot, and of segment 2 follow; then these.

use fleetwire_journal::{
    Identity, Journal, JournalConfig, Stopped, Summary, examine, list_files, retire, segment_name, sim_disk::SimDisk,
    snapshot_name, take_snapshot,
};
use fleetwire_scheduler_core::{ReplayCause, State};
use fleetwire_common::ids::Position;
use libfuzzer_sys::fuzz_target;

#[derive(Default)]
struct Replica(State);

impl Summary for Replica {
    type Error = ReplayCause;

    fn apply(&mut self, _: Position, fact: &[u8]) -> Result<(), ReplayCause> {
        self.0.apply_bytes(fact)
    }

    fn write<X>(&self, emit: &mut dyn FnMut(&[u8]) -> Result<(), X>) -> Result<(), X> {
        self.0.write_snapshot(emit)
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&[how, a, b, c, d], rest)) = input.split_first_chunk::<5>() else { return };
    let first = usize::from(u16::from_le_bytes([a, b])).min(rest.len());
    let (first, rest) = rest.split_at(first);
    let (snapshot, second) = rest.split_at(usize::from(u16::from_le_bytes([c, d])).min(rest.len()));
    let disk = SimDisk::new();
    for (at, bytes) in [first, snapshot, second].into_iter().enumerate() {
        if bytes.is_empty() {
            continue;
        }
        let is_snapshot = at == 1;
        let mut bytes = bytes.to_vec();
        if how % 2 == 1 {
            seal(&mut bytes, is_snapshot);
        }
        let name = match at {
            0 => segment_name(1),
            1 => snapshot_name(Position(number(&bytes, 48))),
            _ => segment_name(2),
        };
        disk.plant(&name, bytes);
    }
    let config = JournalConfig { segment_bytes: 4096, ..JournalConfig::new(Identity::IfNew([1; 16])) };
    list_files(&disk).expect("the disk does not fail");
    let mut replica = Replica::default();
    let examined = examine(&disk, &config, |position, fact| replica.apply(position, fact));
    let mut replica = Replica::default();
    let opened = Journal::open(disk.clone(), &config, |position, fact: &[u8]| replica.apply(position, fact));
    // What is called whole opens, and nothing else does.
    let whole = matches!(examined, Ok(fleetwire_journal::Examined::Whole(_)));
    assert_eq!(whole, opened.is_ok());
    if opened.is_ok() {
        let taken = take_snapshot(&disk, &config, Replica::default(), |_| Ok(()));
        assert!(taken.is_ok(), "what was replayed can be written down: {taken:?}");
        retire(&disk, &config, 1, |_| Ok(()), |_| Ok::<(), Stopped>(())).expect("the disk does not fail");
        let mut again = Replica::default();
        Journal::open(disk, &config, |position, fact: &[u8]| again.apply(position, fact)).expect("it was whole");
        assert_eq!(again.0, replica.0);
    }
});

fn number(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |number| u64::from_le_bytes(*number))
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    if let Some(place) = bytes.get_mut(at..at + 8) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut digest = crc64fast_nvme::Digest::new();
    digest.write(bytes);
    digest.sum64()
}

/// Makes a file's lengths and checksums right, and its batches follow each other.
fn seal(bytes: &mut Vec<u8>, is_snapshot: bool) {
    if bytes.len() < 512 {
        return;
    }
    let magic: &[u8; 8] = if is_snapshot { b"FWSNAPSH" } else { b"FWJOURNL" };
    bytes[..8].copy_from_slice(magic);
    put(bytes, 8, 1);
    let length = bytes.len() as u64;
    let header = |bytes: &mut Vec<u8>| {
        let sum = checksum(&bytes[..504]);
        put(bytes, 504, sum);
        sum
    };
    if !is_snapshot {
        put(bytes, 40, length);
    }
    let seed = if is_snapshot { checksum(&bytes[..64]) } else { header(bytes) };
    let (mut at, mut before, mut previous) = (512, if is_snapshot { 0 } else { number(bytes, 48) }, seed);
    while bytes.len() >= at + 56 {
        let body = (number(bytes, at) >> 32) as usize;
        let end = at + 56 + body.next_multiple_of(8);
        if body > 1 << 20 || end > bytes.len() || number(bytes, at) as u32 != u32::from_le_bytes(*b"FWB1") {
            break;
        }
        put(bytes, at + 16, before);
        put(bytes, at + 32, previous);
        let sum = checksum(&bytes[at + 56..end]);
        put(bytes, at + 40, sum);
        previous = checksum(&[&seed.to_le_bytes(), &bytes[at..at + 48]].concat());
        put(bytes, at + 48, previous);
        before = before.wrapping_add(number(bytes, at + 8) & 0xffff_ffff);
        at = end;
    }
    if is_snapshot {
        bytes.truncate(at);
        put(bytes, 64, at as u64);
        put(bytes, 72, before);
        put(bytes, 80, previous);
        header(bytes);
    }
}
