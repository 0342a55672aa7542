//! Crashes: at any moment, also in a recovery, also again and again. What a sync returned is there
//! afterwards, in order; what was not is there as a prefix or not at all, and stays gone once it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use fleetwire_journal::{
    Journal, OpenError, PreparedSegment, Recovery, retire, segment_name, sim_disk::SimDisk, take_snapshot,
};
use proptest::prelude::*;
use support::{All, batch, config, expand, newest, open};

#[test]
fn a_stale_batch_never_comes_back() {
    let disk = SimDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    journal.append(&batch(&[b"durable"])).unwrap();
    journal.sync().unwrap();
    journal.append(&batch(&[b"stale, one"])).unwrap();
    journal.append(&batch(&[b"stale, two"])).unwrap();
    let stale = disk.bytes(&segment_name(1)).unwrap();
    let unsynced_from = 512 + 56 + 16;
    let lost = [&stale[..unsynced_from], &vec![0; stale.len() - unsynced_from][..]].concat();
    disk.plant(&segment_name(1), lost);

    let (mut journal, recovery, facts) = open(&disk).unwrap();
    assert_eq!((facts.as_slice(), recovery.rewritten), ([b"durable".to_vec()].as_slice(), 1));
    journal.append(&batch(&[b"new"])).unwrap();
    journal.sync().unwrap();
    disk.plant(&segment_name(1), stale.clone());
    let expected = [b"durable".to_vec(), b"new".to_vec()];
    assert_eq!(open(&disk).unwrap().2, expected, "the lost batches are on disk again, beyond the named end");

    // The same bytes where the newest segment's next batch would be.
    let name = newest(&disk);
    let mut bytes = disk.bytes(&name).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap().next_multiple_of(8);
    bytes[end..end + 80].copy_from_slice(&stale[unsynced_from..unsynced_from + 80]);
    disk.plant(&name, bytes);
    let (_, recovery, facts) = open(&disk).unwrap();
    assert_eq!(facts, expected);
    assert!(recovery.cut.is_some());
}

#[test]
fn a_mark_that_was_not_durable_is_no_part_of_what_a_successor_names() {
    let disk = SimDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    journal.append(&batch(&[b"durable"])).unwrap();
    journal.sync().unwrap();
    let without_mark = disk.bytes(&segment_name(1)).unwrap();
    journal.mark().unwrap();
    drop(journal);
    // The process starts again, the mark still in the page cache; then the power fails, and takes it.
    let (journal, recovery, _) = open(&disk).unwrap();
    assert_eq!(recovery.rewritten, 0);
    drop(journal);
    disk.plant(&segment_name(1), without_mark);
    assert_eq!(open(&disk).unwrap().2, [b"durable".to_vec()]);
}

#[test]
fn a_recovery_may_crash_at_every_step_again_and_again() {
    for seed in 0..200 {
        let disk = SimDisk::new();
        let (mut journal, ..) = open(&disk).unwrap();
        let facts: Vec<Vec<u8>> = (0..12).map(|fact| vec![fact + 1; 300 * (1 + usize::from(fact) % 3)]).collect();
        let mut durable = 0;
        for (index, fact) in facts.iter().enumerate() {
            journal.append(&batch(&[fact])).unwrap();
            if index == 7 {
                durable = journal.sync().unwrap().0 as usize;
            }
        }
        drop(journal);
        disk.crash(seed);
        for step in 0..40 {
            disk.fail_after(step);
            let opened = open(&disk);
            let done = opened.is_ok();
            match opened {
                Ok((.., found)) => assert!(found.len() >= durable && facts.starts_with(&found), "seed {seed}"),
                Err(OpenError::Disk(_)) => assert!(disk.has_failed()),
                Err(other) => panic!("seed {seed}, step {step}: {other}"),
            }
            disk.crash(seed * 1000 + step);
            if done {
                break;
            }
            assert!(step < 39, "a recovery takes fewer steps");
        }
        let (_, recovery, found) = open(&disk).unwrap();
        assert!(found.len() >= durable && facts.starts_with(&found), "seed {seed}");
        assert_eq!(recovery.rewritten, 0, "an opening leaves nothing unmarked");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append { facts: Vec<u16> },
    Sync,
    Mark,
    Prepare,
    FailSync,
    Stop,
    Roll,
    Snapshot { reuse: usize },
    Crash { seed: u64 },
    CrashWithin { operations: u64, seed: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec(0_u16..700, 0..4).prop_map(|facts| Step::Append { facts }),
        1 => (4000_u16..9000).prop_map(|large| Step::Append { facts: vec![large] }),
        4 => Just(Step::Sync),
        2 => Just(Step::Mark),
        1 => Just(Step::Prepare),
        1 => Just(Step::FailSync),
        1 => Just(Step::Stop),
        2 => Just(Step::Roll),
        3 => (0_usize..3).prop_map(|reuse| Step::Snapshot { reuse }),
        3 => any::<u64>().prop_map(|seed| Step::Crash { seed }),
        3 => (0_u64..20, any::<u64>()).prop_map(|(operations, seed)| Step::CrashWithin { operations, seed }),
    ];
    prop::collection::vec(step, 1..60)
}

/// What must hold, beside the journal itself.
struct Model {
    disk: SimDisk,
    journal: Option<Journal<SimDisk>>,
    /// Everything that may be found: appended, or found at the last opening.
    facts: Vec<Vec<u8>>,
    durable: usize,
    drawn: u64,
    snapshots: usize,
    retired: usize,
}

impl Model {
    fn run(&mut self, step: Step) {
        let Some(journal) = &mut self.journal else { return self.restart(step) };
        match step {
            Step::Append { facts } => {
                let mut batch = fleetwire_common::facts::FactBatch::default();
                for bytes in facts {
                    self.drawn += 1;
                    let fact = self.drawn.to_le_bytes().repeat(usize::from(bytes) / 8 + 1);
                    batch.push(&fact);
                    self.facts.push(fact);
                }
                match journal.append(&batch) {
                    Ok(position) => assert_eq!(position.0, self.facts.len() as u64),
                    Err(_) => self.die(self.drawn),
                }
            }
            Step::Sync => match journal.sync() {
                Ok(position) => {
                    assert_eq!(position.0, self.facts.len() as u64);
                    self.durable = self.facts.len();
                }
                Err(_) => self.die(self.drawn + 1),
            },
            Step::Mark => {
                if journal.mark().is_err() {
                    self.die(self.drawn);
                }
            }
            Step::Prepare => {
                let (serial, bytes) = journal.plan_segment();
                match PreparedSegment::create(&self.disk, serial, bytes) {
                    Ok(prepared) => journal.provide(prepared),
                    Err(_) => self.die(self.drawn),
                }
            }
            Step::FailSync => self.disk.fail_syncs(1),
            Step::Stop => {
                if let Some(journal) = self.journal.take()
                    && journal.stop().is_ok()
                {
                    self.durable = self.facts.len();
                }
            }
            Step::Roll => {
                if journal.roll().is_err() {
                    self.die(self.drawn);
                }
            }
            Step::Snapshot { reuse } => {
                // What fails here does not concern the journal, until it does.
                let taken = take_snapshot(&self.disk, &config(), All::default(), |_| Ok(()));
                if let Ok(Some(taken)) = taken {
                    assert!(taken.position.0 <= self.durable as u64 || taken.position <= journal.durable());
                    self.snapshots += 1;
                }
                if let Ok(retired) = retire(&self.disk, &config(), reuse, |_| Ok(()), |_| Ok(())) {
                    retired.reusable.into_iter().for_each(|segment| journal.provide(segment));
                    self.retired += retired.segments;
                }
            }
            Step::Crash { seed } => self.die(seed),
            Step::CrashWithin { operations, .. } => self.disk.fail_after(operations),
        }
    }

    /// The process ends, and by half of the seeds the machine with it. Otherwise the page cache stays,
    /// and in it what a failed sync has left unsynced for good.
    fn die(&mut self, seed: u64) {
        self.journal = None;
        if seed.is_multiple_of(2) {
            self.disk.crash(seed);
        }
    }

    /// Opens the journal; in the middle of it the power may fail once more.
    fn restart(&mut self, step: Step) {
        if let Step::CrashWithin { operations, seed } = step {
            self.disk.fail_after(operations);
            match open(&self.disk) {
                Ok((_, recovery, facts)) => self.check(&recovery, &facts),
                Err(OpenError::Disk(_)) => {}
                Err(other) => panic!("{other}"),
            }
            self.disk.crash(seed);
        }
        let opened = match open(&self.disk) {
            Err(OpenError::Disk(_)) => {
                self.disk.crash(self.drawn);
                open(&self.disk)
            }
            opened => opened,
        };
        let (journal, recovery, facts) = opened.unwrap();
        self.check(&recovery, &facts);
        self.journal = Some(journal);
    }

    fn check(&mut self, recovery: &Recovery, found: &[Vec<u8>]) {
        assert_eq!(recovery.damaged, [], "a snapshot that has its name is durable");
        let found: Vec<Vec<u8>> = found.iter().flat_map(|fact| expand(fact)).collect();
        assert_eq!(recovery.position.0, found.len() as u64);
        assert!(found.len() >= self.durable, "{} of {} durable facts", found.len(), self.durable);
        assert!(self.facts.starts_with(&found), "no fact invented, none out of order");
        // What is gone stays gone; what an opening handed out is durable.
        self.facts.truncate(found.len());
        self.durable = found.len();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn every_synced_fact_survives_whatever_happens(steps in steps()) {
        let disk = SimDisk::new();
        let mut model = Model { disk, journal: None, facts: Vec::new(), durable: 0, drawn: 0, snapshots: 0, retired: 0 };
        for step in steps {
            model.run(step);
        }
        model.die(8);
        model.restart(Step::Sync);
    }
}
