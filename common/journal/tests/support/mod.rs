//! What the stories share: a small journal on a simulated disk, and what one reads back from it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fleetwire_common::{
    facts::{FactBatch, FactIter},
    ids::Position,
};
use fleetwire_journal::{
    Identity, Journal, JournalConfig, LoadedSnapshot, OpenError, Recovery, Stopped, Summary, Taken, retire,
    sim_disk::SimDisk, take_snapshot,
};
use std::convert::Infallible;

pub const ID: [u8; 16] = *b"the test journal";

pub type Opened = Result<(Journal<SimDisk>, Recovery, Vec<Vec<u8>>), OpenError<Infallible>>;

pub fn config() -> JournalConfig {
    JournalConfig { segment_bytes: 4096, ..JournalConfig::new(Identity::Exactly(ID)) }
}

pub fn batch(facts: &[&[u8]]) -> FactBatch {
    let mut batch = FactBatch::default();
    facts.iter().for_each(|fact| batch.push(fact));
    batch
}

/// Opens the journal and returns the facts that it handed out.
pub fn open_with(disk: &SimDisk, config: &JournalConfig) -> Opened {
    let (mut facts, mut positions) = (Vec::new(), Vec::new());
    let (journal, recovery) = Journal::open(disk.clone(), config, |position: Position, fact: &[u8]| {
        facts.push(fact.to_vec());
        positions.push(position.0);
        Ok(())
    })?;
    let snapshot = recovery.snapshot.unwrap_or(LoadedSnapshot { position: Position(0), facts: 0 });
    let begins = std::iter::repeat_n(snapshot.position.0, snapshot.facts as usize);
    assert!(positions.into_iter().eq(begins.chain(snapshot.position.0 + 1..=recovery.position.0)));
    assert_eq!(recovery.facts + snapshot.facts, facts.len() as u64);
    assert_eq!(journal.position(), recovery.position);
    assert_eq!(journal.durable(), recovery.position);
    Ok((journal, recovery, facts))
}

pub fn open(disk: &SimDisk) -> Opened {
    open_with(disk, &config())
}

/// The names of all segments, oldest first.
pub fn segments(disk: &SimDisk) -> Vec<String> {
    use fleetwire_journal::Disk;
    let mut names: Vec<String> = disk.names().unwrap().into_iter().filter(|name| name.ends_with(".segment")).collect();
    names.sort();
    names
}

/// The segment that is being written.
pub fn newest(disk: &SimDisk) -> String {
    segments(disk).pop().unwrap()
}

/// Bytes of a segment up to the last that is not zero.
pub fn used(disk: &SimDisk, name: &str) -> usize {
    disk.bytes(name).unwrap().iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// The simplest summary: every fact, all in one.
#[derive(Default)]
pub struct All(pub Vec<Vec<u8>>);

/// The bytes with which a snapshot's only fact begins; no other does.
pub const WHOLE: [u8; 8] = [0xff; 8];

impl Summary for All {
    type Error = Infallible;

    fn apply(&mut self, _: Position, fact: &[u8]) -> Result<(), Infallible> {
        self.0.extend(expand(fact));
        Ok(())
    }

    fn write<X>(&self, emit: &mut dyn FnMut(&[u8]) -> Result<(), X>) -> Result<(), X> {
        let facts = self.0.iter().flat_map(|fact| [&(fact.len() as u32).to_le_bytes()[..], fact].concat());
        emit(&WHOLE.into_iter().chain(facts).collect::<Vec<u8>>())
    }
}

/// The facts that a fact stands for: itself, or those of a snapshot.
pub fn expand(fact: &[u8]) -> Vec<Vec<u8>> {
    match fact.strip_prefix(&WHOLE) {
        Some(all) => FactIter::over(all).map(<[u8]>::to_vec).collect(),
        None => vec![fact.to_vec()],
    }
}

/// Makes a snapshot of what is sealed, and removes what is superfluous then.
pub fn snapshot(disk: &SimDisk) -> Option<Taken> {
    let taken = take_snapshot(disk, &config(), All::default(), |_| Ok(())).unwrap();
    retire(disk, &config(), 0, |_| Ok(()), |_| Ok::<(), Stopped>(())).unwrap();
    taken
}
