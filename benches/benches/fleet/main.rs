//! Many agents at rest, and all of them coming back at once: what that costs the scheduler's process.
//!
//! `cargo bench --bench fleet` has 10,000; `-- agents=1000 seconds=30` chooses; with `seconds=0`
//! only the restart is measured. The real scheduler, its journal on, in a process of its
//! own; the agents are the real core and the real link, a task each in this process, with a connection and a socket of their own, and
//! nothing to run but what never ends. Each holds one attempt, so that a loss would be seen. First they heartbeat every 30 s,
//! for the given time; then the scheduler is stopped and started again, and all come back, as the real agent does. After that bare
//! quinn with as many connections carries the same heartbeats, unanswered.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod agents;
#[path = "../transport/bare.rs"]
#[allow(dead_code)]
mod bare;
#[path = "../transport/load.rs"]
#[allow(dead_code)]
mod load;
#[path = "../transport/place.rs"]
#[allow(dead_code)]
mod place;
#[path = "../transport/process.rs"]
#[allow(dead_code)]
mod process;
mod scheduler;

use agents::Fleet;
use bare::Bare;
use load::{Client as _, Load};
use place::Place;
use process::{Control, Server, cpu_ns_of};
use scheduler::Scheduler;
use std::{
    os::unix::process::CommandExt as _,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{runtime::Runtime, task::JoinSet};

/// Between two heartbeats of an agent.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// The C library's allocator maps what is at least so large.
const MAP_FROM: &str = "MALLOC_MMAP_THRESHOLD_";
/// Connections that are made at a time where that is not what is measured.
const DIALS: usize = 32;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|word| word == "server") {
        return serve(Path::new(&arguments[2]));
    }
    if std::env::var_os(MAP_FROM).is_none() {
        // An endpoint has room for 3 MB of datagrams and hardly touches it, unless it is what another left on the heap,
        // which has to be made zero: 10,000 times.
        let mut again = Command::new(std::env::current_exe().unwrap());
        panic!("{}", again.args(arguments).env(MAP_FROM, "1048576").exec());
    }
    let number = |name: &str, usual: usize| {
        let given = arguments.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        given.map_or(usual, |number| number.parse().unwrap())
    };
    let (agents, seconds) = (number("agents", 10_000), number("seconds", 90) as u64);
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let files = rustix::process::Rlimit { current: files.maximum, ..files };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, files).unwrap();
    println!("| {agents} agents, a heartbeat every {} s | the scheduler | bare quinn | |", HEARTBEAT.as_secs());
    println!("|---|---|---|---|");
    // Each heartbeats as often as any other.
    let time = HEARTBEAT * seconds.div_ceil(HEARTBEAT.as_secs()) as u32;
    let Some(ours) = ours(agents, time) else { return };
    let bare = bare(agents, time);
    row("CPU, % of a core", ours.core, bare.core);
    row("CPU µs for a heartbeat", ours.beat_us, bare.beat_us);
    row("memory for an agent, KB", ours.kilobytes, bare.kilobytes);
}

fn row(name: &str, ours: f64, bare: f64) {
    println!("| {name} | {ours:.1} | {bare:.1} | {:.2} × |", ours / bare);
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// What a server took while its clients did nothing but heartbeat.
struct Rest {
    core: f64,
    beat_us: f64,
    kilobytes: f64,
}

/// When one of so many has its turn within an interval.
fn turn(number: usize, count: usize) -> Duration {
    HEARTBEAT.mul_f64(number as f64 / count as f64)
}

/// Watches a process for so long, after everybody has had time to become quiet.
async fn watch(process: u32, clients: usize, empty_kilobytes: f64, time: Duration) -> Rest {
    tokio::time::sleep(HEARTBEAT + Duration::from_secs(5)).await;
    let (began, before) = (Instant::now(), cpu_ns_of(process));
    tokio::time::sleep(time).await;
    let (took, cpu) = (began.elapsed().as_secs_f64(), (cpu_ns_of(process) - before) as f64 / 1e9);
    let beats = clients as f64 * took / HEARTBEAT.as_secs_f64();
    Rest {
        core: 100.0 * cpu / took,
        beat_us: cpu * 1e6 / beats,
        kilobytes: (kilobytes_of(process) - empty_kilobytes) / clients as f64,
    }
}

/// Memory of a process: its resident set, KB.
fn kilobytes_of(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// At rest, unless for no time at all, and after a restart.
fn ours(count: usize, time: Duration) -> Option<Rest> {
    let runtime = runtime();
    let mut scheduler = Scheduler::start();
    let empty = kilobytes_of(scheduler.id());
    runtime.block_on(async {
        let began = Instant::now();
        let fleet = Fleet::enrol(&scheduler.token(count), count).await;
        println!("| joining, all of them | {:.1} s | | |", began.elapsed().as_secs_f64());
        let began = Instant::now();
        fleet.connect().await;
        println!("| their first sessions, spread | {:.1} s | | |", began.elapsed().as_secs_f64());
        let job = scheduler.occupy(count).await;
        fleet.all_run().await;
        let rest = if time.is_zero() { None } else { Some(watch(scheduler.id(), count, empty, time).await) };

        scheduler.restart();
        let (began, before) = (Instant::now(), cpu_ns_of(scheduler.id()));
        fleet.all_return().await;
        let (took, cpu) = (began.elapsed().as_secs_f64(), (cpu_ns_of(scheduler.id()) - before) as f64 / 1e9);
        println!("| all of them back after its restart | {took:.1} s, {:.0} µs each | | |", cpu * 1e6 / count as f64);
        let lost = scheduler.disturbed(job, count).await;
        println!("| of their attempts, not what they were | {lost} | | |");
        assert_eq!(fleet.started(), count as u64, "something was started anew");
        rest
    })
}

/// Bare connections, each with the same heartbeat.
fn bare(count: usize, time: Duration) -> Rest {
    let folder = tempfile::tempdir().unwrap();
    let place = Arc::new(Place::make(folder.path()));
    let mut server = Server::start(&["quinn", folder.path().to_str().unwrap()]);
    let empty = kilobytes_of(server.id());
    let bytes = place::frame_bytes(&place::heartbeat());
    server.ask(&format!("bytes {bytes}"));
    runtime().block_on(async {
        let (mut dials, mut beats, mut number) = (JoinSet::new(), JoinSet::new(), 0);
        while number < count || !dials.is_empty() {
            while number < count && dials.len() < DIALS {
                let (place, address) = (Arc::clone(&place), server.address.clone());
                dials.spawn(async move { Bare::connect(&place, &address).await });
                number += 1;
            }
            if let Some(client) = dials.join_next().await {
                let (client, turn) = (client.unwrap(), beats.len());
                beats.spawn(async move {
                    tokio::time::sleep(self::turn(turn, count)).await;
                    let mut tick = tokio::time::interval(HEARTBEAT);
                    loop {
                        tick.tick().await;
                        client.send(Load { heartbeat: true, ..Load::new(bytes, 1, 1) }).await;
                    }
                });
            }
        }
        watch(server.id(), count, empty, time).await
    })
}

fn serve(folder: &Path) {
    let control = Arc::new(Control::new());
    let (place, answering) = (Place::read(folder), Arc::clone(&control));
    runtime().block_on(async {
        let address = bare::serve(&place, control).await;
        std::thread::spawn(move || answering.answer(&address));
        std::future::pending::<()>().await;
    });
}
