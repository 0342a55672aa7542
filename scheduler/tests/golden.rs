//! Journals that released versions wrote: today's build reads each of them to the same state.
//!
//! `golden/VERSION/` is a real journal folder, its files without the zeros at their ends, and `state.txt`, what
//! it says. To add one for a new version, after a run that made snapshots and stopped in the middle of things:
//! `FLEETWIRE_GOLDEN_FROM=DIR cargo test -p fleetwire-scheduler --test golden`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fleetwire_common::ids::JobKey;
use fleetwire_disk::{DataFolder, FsDisk};
use fleetwire_journal::{Identity, Journal, JournalConfig, Recovery, Summary, list_files};
use fleetwire_scheduler::Replica;
use fleetwire_scheduler_core::State;
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The length that a journal's file had, as its header says.
fn length(bytes: &[u8]) -> usize {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    if bytes.starts_with(b"FWJOURNL") { number(40) } else { number(64) }
}

/// A golden folder's journal as it was, on a disk of its own.
fn unpacked(version: &Path) -> (TempDir, FsDisk) {
    let place = TempDir::new().unwrap();
    for entry in fs::read_dir(version).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap();
        if name != "state.txt" {
            let mut bytes = fs::read(&entry).unwrap();
            bytes.resize(length(&bytes), 0);
            fs::write(place.path().join(name), bytes).unwrap();
        }
    }
    let disk = FsDisk::open(place.path()).unwrap();
    (place, disk)
}

fn read(disk: FsDisk, skip_snapshots: usize) -> (State, Recovery) {
    let config = JournalConfig { skip_snapshots, ..JournalConfig::new(Identity::IfNew([0; 16])) };
    let mut replica = Replica::default();
    let (_, recovery) = Journal::open(disk, &config, |position, fact: &[u8]| replica.apply(position, fact)).unwrap();
    (replica.state, recovery)
}

/// What a state says, in words that do not change when it learns to say more.
fn told(state: &State) -> String {
    let mut text = format!("incarnation {}, last fact at {}\n", state.incarnation, state.last_fact_at.0);
    for (token, record) in &state.tokens {
        writeln!(text, "token {}: {:?}, {} of {} uses", token.0, record.role, record.redeemed.len(), record.uses)
            .unwrap();
    }
    for (principal, key) in &state.principals {
        writeln!(text, "principal {principal} {:02x}{:02x}", key[0], key[31]).unwrap();
    }
    for (agent, record) in state.agents.iter() {
        let profile = &record.profile;
        writeln!(text, "agent {} {} {:?} {:?}", agent.0, record.name, profile.labels, profile.executors).unwrap();
        writeln!(
            text,
            "  unreachable {}, left {}, holds {}",
            record.unreachable_since.is_some(),
            record.left_at.is_some(),
            record.assigned.len()
        )
        .unwrap();
    }
    for (id, submit) in &state.submits {
        writeln!(text, "submit {:02x}{:02x} of job {}, {:02x}", id.0[0], id.0[15], submit.job, submit.digest[0])
            .unwrap();
    }
    for (id, job) in &state.jobs {
        let counts = job.counts;
        writeln!(
            text,
            "job {id} {} of {}: {} active, {} pending, {} completed, {} failed, {} cancelled, ended {:?}, asked to stop {}",
            job.spec.name, job.owner, counts.active, counts.pending(), counts.completed, counts.failed, counts.cancelled,
            job.ended_at.map(|at| at.0), job.stopped.is_some()
        )
        .unwrap();
        for (ordinal, entry) in job.ordinals().zip(&job.entries) {
            for index in 0..entry.spec.count {
                let end = entry.ended.get(&index);
                let result = end.and_then(|end| end.result()).map(String::from_utf8_lossy);
                let end = end.map(|end| (end.attempt, end.failures, end.losses, end.reason));
                writeln!(text, "  {ordinal}.{index} {:?} {end:?} {result:?}", entry.outcome(index)).unwrap();
            }
        }
    }
    for (task, record) in &state.tasks {
        let open: Vec<u32> = record.open.iter().map(|open| open.attempt).collect();
        writeln!(text, "task {task}: {} attempts, open {open:?}, {} failures", record.attempts, record.failures)
            .unwrap();
    }
    text
}

/// Keeps the journal of that data folder as this version's.
fn keep(data: &Path) {
    let folder = golden().join(env!("CARGO_PKG_VERSION"));
    assert!(!folder.exists(), "{} is there already: what a released version wrote does not change", folder.display());
    fs::create_dir_all(&folder).unwrap();
    let source = DataFolder::open(data, 1).unwrap();
    for name in list_files(&source.disk("journal").unwrap()).unwrap().into_iter().map(|file| file.name) {
        if !name.starts_with("prepared") {
            let mut bytes = fs::read(data.join("journal").join(&name)).unwrap();
            bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
    let (_place, disk) = unpacked(&folder);
    fs::write(folder.join("state.txt"), told(&read(disk, 0).0)).unwrap();
}

/// A snapshot of a version that knew no keys of jobs gives none to its jobs, where the facts that it replaces do: nobody can
/// tell such a job from another by its key, and that is all they may differ in.
fn without_keys(mut state: State, beside: &State) -> State {
    for (id, job) in &mut state.jobs {
        let other = beside.jobs.get(id).map_or(JobKey::default(), |job| job.key);
        assert!(!job.key.differs(other), "job {id}");
        job.key = JobKey::default();
    }
    state
}

#[test]
fn every_released_format_is_read_to_the_same_state() {
    if let Some(data) = std::env::var_os("FLEETWIRE_GOLDEN_FROM") {
        keep(Path::new(&data));
    }
    let mut versions: Vec<PathBuf> = fs::read_dir(golden()).unwrap().map(|entry| entry.unwrap().path()).collect();
    versions.sort();
    assert!(!versions.is_empty());
    for version in versions {
        let expected = fs::read_to_string(version.join("state.txt")).unwrap();
        let (_place, disk) = unpacked(&version);
        let (state, recovery) = read(disk, 0);
        assert_eq!(told(&state), expected, "{}", version.display());
        assert!(recovery.snapshot.is_some() && recovery.facts > 0 && recovery.damaged.is_empty());
        // The snapshot before it, and what came since, say the same.
        let (_place, disk) = unpacked(&version);
        let (elder, further) = read(disk, 1);
        assert!(further.facts > recovery.facts);
        assert_eq!(without_keys(elder, &state), without_keys(state.clone(), &state), "{}", version.display());
    }
}
