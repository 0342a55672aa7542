//! What the scheduler's journal reaches on this disk, each figure beside its floor or its counterpart:
//! durable facts a second with group commit, beside write + fdatasync of the same bytes; recovery of a million
//! live tasks, from facts and from a snapshot; how long acknowledgements take while a snapshot is made, and while
//! none is.
//!
//! `cargo run --release -p fleetwire-scheduler --example journal -- FOLDER`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fleetwire_common::{
    envelope::keys::{RootKeys, Secret, sha256},
    facts::FactBatch,
    fb,
    ids::{AgentId, AttemptId, JobId, Name, Position, SubmitId, TaskId},
    job::{JobSpec, TaskSpec},
    message::End,
    resources::Resources,
    time::Time,
};
use fleetwire_disk::{FsDisk, JournalWriter, SnapshotConfig, Snapshotter, WriterConfig};
use fleetwire_journal::{Disk, Identity, Journal, JournalConfig, take_snapshot};
use fleetwire_scheduler::Replica;
use fleetwire_scheduler_core::{
    Config, Effects, Policy, Scheduler,
    agents::AgentProfile,
    fact::{Ended, Fact},
};
use std::{
    borrow::Cow,
    collections::VecDeque,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::channel,
    },
    time::{Duration, Instant},
};

const TASKS: u32 = 1_000_000;
const AGENTS: u32 = 1_000;
const NOW: Time = Time(1_700_000_000_000_000);

fn main() {
    let folder = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let place = Path::new(&folder).join("journal-example");
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&place).unwrap();
    println!("durable facts/s (the facts of an attempt: assigned, ended), beside write + fdatasync of the same pieces");
    for _ in 0..3 {
        let (rate, pieces, bytes) = group_commit(&place);
        let floor = floor(&place, &pieces, bytes);
        println!(
            "  {rate:9.0}  {:9.0}  {:.2}, {} syncs of {} facts each",
            floor,
            rate / floor,
            pieces.len(),
            rate as usize * 3 / pieces.len()
        );
    }
    let journal = place.join("live");
    make_live(&journal);
    println!("recovery of {TASKS} live tasks on {AGENTS} agents, until the scheduler can go on");
    recover(&journal, "from facts");
    let start = Instant::now();
    let taken = take_snapshot(&disk(&journal), &config(), Replica::default(), |_| Ok(())).unwrap().unwrap();
    let seconds = start.elapsed().as_secs_f64();
    println!("  a snapshot at full speed: {seconds:.2} s, {} facts, {:.0} MB", taken.facts, taken.bytes as f64 / 1e6);
    recover(&journal, "from the snapshot");
    println!("acknowledgements, ms: 32 facts every ms for 20 s, a snapshot of all that is always being made, or none");
    for _ in 0..2 {
        latency(&journal, false);
        latency(&journal, true);
    }
    std::fs::remove_dir_all(&place).unwrap();
}

fn disk(path: &Path) -> FsDisk {
    FsDisk::open(path).unwrap()
}

fn config() -> JournalConfig {
    JournalConfig::new(Identity::IfNew([1; 16]))
}

fn task(index: u32) -> TaskId {
    TaskId { job: JobId(1), entry: 0, index }
}

fn assigned(index: u32, attempt: u32) -> Fact<'static> {
    Fact::AttemptAssigned { attempt: AttemptId { task: task(index), attempt }, agent: AgentId(index % AGENTS) }
}

/// An attempt that failed; its task waits again.
fn ended(index: u32, attempt: u32) -> Fact<'static> {
    let end = End { reason: fb::EndReason::Exited, exit_code: 1, wall_us: 1_000, user_us: 500, ..End::default() };
    Fact::AttemptEnded(Ended {
        result: None,
        attempt: AttemptId { task: task(index), attempt },
        status: fb::TaskStatus::Failed,
        task_status: fb::TaskStatus::Pending,
        retry_at: NOW,
        failure: true,
        loss: false,
        end: Cow::Owned(end),
        metrics: Cow::Borrowed(&[]),
        ends_rival: false,
    })
}

/// Attempts of all tasks in turn: each ends, and the next is assigned.
struct Attempts {
    builder: flatbuffers::FlatBufferBuilder<'static>,
    index: u32,
    latest: Vec<u32>,
    half: bool,
}

impl Attempts {
    fn new() -> Attempts {
        let latest = vec![1; TASKS as usize];
        Attempts { builder: flatbuffers::FlatBufferBuilder::new(), index: 0, latest, half: false }
    }

    fn push(&mut self, batch: &mut FactBatch) {
        let latest = &mut self.latest[self.index as usize];
        let fact = if self.half { assigned(self.index, *latest) } else { ended(self.index, *latest) };
        if self.half {
            self.index = (self.index + 1) % TASKS;
        } else {
            *latest += 1;
        }
        self.half = !self.half;
        batch.push(fact.encode(NOW, &mut self.builder));
    }
}

/// Batches of 32 as fast as they are taken, for 3 s: facts/s, the bytes of each sync, and of all.
fn group_commit(place: &Path) -> (f64, Vec<u64>, u64) {
    let path = place.join("stream");
    let journal = Journal::open(disk(&path), &config(), |_, _| Ok::<(), ()>(())).unwrap().0;
    let (tell, told) = channel();
    let on_durable = move |durable: Result<Position, _>| tell.send(durable.unwrap()).unwrap();
    let writer = JournalWriter::start(journal, WriterConfig::default(), on_durable).unwrap();
    let mut attempts = Attempts::new();
    let (mut facts, mut bytes) = (0_u64, 0_u64);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        let mut batch = writer.spare();
        (0..32).for_each(|_| attempts.push(&mut batch));
        facts += 32;
        bytes += batch.bytes().len() as u64 + 56;
        writer.append(batch).unwrap();
    }
    writer.stop().unwrap();
    let rate = facts as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_dir_all(&path).unwrap();
    let positions: Vec<u64> = std::iter::once(0).chain(told.try_iter().map(|position| position.0)).collect();
    let pieces = positions.windows(2).map(|pair| (pair[1] - pair[0]) * bytes / facts).collect();
    (rate, pieces, bytes)
}

/// The same bytes in the same pieces into files that were prepared in the same way: facts/s.
fn floor(place: &Path, pieces: &[u64], bytes: u64) -> f64 {
    let disk = disk(&place.join("floor"));
    let length = 256 << 20;
    let file = disk.create("floor", length).unwrap();
    disk.sync(&file).unwrap();
    let content = vec![7; *pieces.iter().max().unwrap() as usize];
    let mut offset = 0;
    let start = Instant::now();
    for piece in pieces {
        if offset + piece > length {
            offset = 0;
        }
        disk.write_at(&file, offset, &content[..*piece as usize]).unwrap();
        disk.sync(&file).unwrap();
        offset += piece;
    }
    let seconds = start.elapsed().as_secs_f64();
    disk.remove("floor").unwrap();
    let fact_bytes = {
        let mut batch = FactBatch::default();
        let mut attempts = Attempts::new();
        (0..32).for_each(|_| attempts.push(&mut batch));
        (batch.bytes().len() as f64 + 56.0) / 32.0
    };
    bytes as f64 / fact_bytes / seconds
}

/// A journal in which every task of a large job has an attempt that has not ended.
fn make_live(path: &Path) {
    let mut journal = Journal::open(disk(path), &config(), |_, _| Ok::<(), ()>(())).unwrap().0;
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let mut batch = FactBatch::default();
    let mut push = |batch: &mut FactBatch, fact: &Fact<'_>| batch.push(fact.encode(NOW, &mut builder));
    push(
        &mut batch,
        &Fact::IncarnationStarted { incarnation: 1, id: [1; 16], position: Position(0), software: "example".into() },
    );
    for agent in 0..AGENTS {
        let profile = AgentProfile {
            capacity: Resources { cpu: 64_000, memory: 1 << 20, gpu: 0, storage: 100 },
            custom: Default::default(),
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            agent_types: Vec::new(),
            executors: vec![fb::Executor::Process],
            data_id: [agent as u8; 16],
            software: "example".into(),
            host: "example".into(),
            address: String::new(),
        };
        let name = Name::new(&format!("edge-{agent}")).unwrap();
        push(&mut batch, &Fact::AgentRegistered { agent: AgentId(agent), name, profile: Arc::new(profile) });
    }
    let name = Name::new("many").unwrap();
    let tasks =
        TaskSpec { name: name.clone(), count: TASKS, array: true, command: "true".into(), ..TaskSpec::default() };
    let spec = JobSpec::new(name, vec![tasks], 300).unwrap();
    let bytes = spec.to_wire();
    push(
        &mut batch,
        &Fact::JobAccepted {
            files: Box::default(),
            job: JobId(1),
            submit_id: SubmitId::new(NOW.as_ms(), [1; 10]),
            digest: sha256(&bytes),
            owner: "operator/local".into(),
            bytes: Cow::Borrowed(&bytes),
            spec: Arc::new(spec),
        },
    );
    for index in 0..TASKS {
        push(&mut batch, &assigned(index, 1));
        if batch.bytes().len() > 1 << 20 {
            journal.append(&batch).unwrap();
            batch.clear();
        }
    }
    journal.append(&batch).unwrap();
    journal.roll().unwrap();
    journal.stop().unwrap();
}

fn recover(path: &Path, from: &str) {
    let start = Instant::now();
    let mut core = Scheduler::new(Config {
        cluster: "c".into(),
        keys: RootKeys::new(Secret::new([1; 32])),
        authority_sha256: [2; 32],
        addresses: Vec::new(),
        incarnation_id: [3; 16],
        seed: 4,
        heartbeat_interval: Duration::from_secs(30),
        software: "example".into(),
        policy: Policy::default(),
        accept_restore: false,
    });
    let replay = |position, fact: &[u8]| core.replay_at(position, fact);
    let (_, recovery) = Journal::open(disk(path), &config(), replay).unwrap();
    let read = start.elapsed().as_secs_f64();
    core.start(NOW, &mut Effects::new());
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(core.state().tasks.len(), TASKS as usize);
    println!("  {from}: {seconds:.2} s, of which reading {read:.2}; {} facts behind a snapshot", recovery.facts);
}

/// From when a batch was due to be sent until it was durable.
fn latency(path: &Path, with_snapshots: bool) {
    copy(path, &path.with_extension("copy"));
    let path = &path.with_extension("copy");
    let mut replica = Replica::default();
    let replay = |position, fact: &[u8]| fleetwire_journal::Summary::apply(&mut replica, position, fact);
    let (journal, recovery) = Journal::open(disk(path), &config(), replay).unwrap();
    drop(replica);
    let mut position = recovery.position;
    let (tell, told) = channel();
    let on_durable = move |durable: Result<Position, _>| tell.send((durable.unwrap(), Instant::now())).unwrap();
    let made = Arc::new(AtomicU64::new(0));
    let writer = if with_snapshots {
        let counted = Arc::clone(&made);
        let snapshots = SnapshotConfig { facts: 1, ..SnapshotConfig::default() };
        let count = move |taken: Result<_, _>| {
            assert!(taken.is_ok(), "{taken:?}");
            counted.fetch_add(1, Ordering::Relaxed);
        };
        let snapshotter = Snapshotter::start(disk(path), config(), snapshots, Replica::default, count).unwrap();
        JournalWriter::start_with_snapshots(journal, WriterConfig::default(), (snapshotter, (0, 0)), on_durable)
    } else {
        JournalWriter::start(journal, WriterConfig::default(), on_durable)
    };
    let writer = writer.unwrap();
    let mut attempts = Attempts::new();
    let mut sent = VecDeque::new();
    let start = Instant::now();
    for step in 0..20_000 {
        let due = start + Duration::from_millis(step);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut batch = writer.spare();
        (0..32).for_each(|_| attempts.push(&mut batch));
        position.0 += 32;
        sent.push_back((position, due));
        writer.append(batch).unwrap();
    }
    let seconds = start.elapsed().as_secs_f64();
    let snapshots = made.load(Ordering::Relaxed);
    writer.stop().unwrap();
    let mut waited = Vec::new();
    for (durable, at) in told {
        while let Some((_, due)) = sent.pop_front_if(|(position, _)| *position <= durable) {
            waited.push(at.saturating_duration_since(due).as_secs_f64() * 1e3);
        }
    }
    waited.sort_by(f64::total_cmp);
    let at = |share: f64| waited[(waited.len() as f64 * share) as usize];
    println!(
        "  {}: p50 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.2}; {snapshots} snapshots in {seconds:.0} s",
        if with_snapshots { "with snapshots   " } else { "without snapshots" },
        at(0.5),
        at(0.99),
        at(0.999),
        waited.last().unwrap()
    );
    std::fs::remove_dir_all(path).unwrap();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
