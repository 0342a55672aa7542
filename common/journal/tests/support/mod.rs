//! What the stories share: a small journal on a simulated disk, and what one reads back from it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fleetwire_common::{facts::FactBatch, ids::Position};
use fleetwire_journal::{Identity, Journal, JournalConfig, OpenError, Recovery, sim_disk::SimDisk};
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
    let mut facts = Vec::new();
    let (journal, recovery) = Journal::open(disk.clone(), config, |position: Position, fact: &[u8]| {
        facts.push(fact.to_vec());
        assert_eq!(position.0, config.start.0 + facts.len() as u64);
        Ok(())
    })?;
    assert_eq!(recovery.facts, facts.len() as u64);
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
