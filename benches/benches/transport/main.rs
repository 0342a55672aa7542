//! What a signed message costs the scheduler's process on its way from the socket to the core's event, and
//! what a message costs it on the way out; beside it bare quinn and TCP with TLS, in the same run.
//!
//! `cargo bench --bench transport` takes about five minutes; `-- quick` one. Server and clients are two
//! processes. `-- only=WORD` and `connections=1,100` choose rows, `rounds=30` how many slices each has. Servers run for all connections of one kind, and take turns, a slice of a third of a second
//! each, so that whatever else the machine does falls on all of them; a ratio is the median of slices
//! that ran beside each other. The figure to compare is the server's CPU time for a message.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod bare;
mod load;
mod ours;
mod place;
mod process;
mod report;
mod tls;

use bare::Bare;
use fleetwire_common::envelope::Features;
use load::{Client, Figure, Load, Pair, Pattern};
use ours::Ours;
use place::Place;
use process::{Control, Sending, Server};
use report::{middle, part, rate, ratio, short};
use std::{path::Path, sync::Arc, time::Duration};
use tls::Tls;
use tokio::{runtime::Runtime, task::JoinSet};

/// Connections that are made at a time.
const DIALS: usize = 16;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("server") => serve(&arguments[1], Path::new(&arguments[2])),
        Some("spin") => loop {
            std::hint::spin_loop();
        },
        _ => bench(&arguments),
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn serve(kind: &str, folder: &Path) {
    let control = Arc::new(Control::new());
    let (place, answering) = (Place::read(folder), Arc::clone(&control));
    runtime().block_on(async {
        let address = match kind {
            "ours" => ours::serve(&place, control).await,
            "quinn" => bare::serve(&place, control).await,
            "tls" => tls::serve(&place, control).await,
            other => panic!("no server {other}"),
        };
        std::thread::spawn(move || answering.answer(&address));
        std::future::pending::<()>().await;
    });
}

/// What runs, and how long.
struct Bench {
    folder: tempfile::TempDir,
    place: Arc<Place>,
    runtime: Runtime,
    slice: Duration,
    rounds: usize,
    /// Runs only rows whose name has this in it.
    only: Option<String>,
}

/// All that have as many connections.
struct Group {
    connections: usize,
    ours: Pair<Ours>,
    /// Peers that know no batches.
    single: Pair<Ours>,
    bare: Pair<Bare>,
    tls: Pair<Tls>,
}

/// One row's slices.
#[derive(Default)]
struct Row {
    ours: Vec<Figure>,
    bare: Vec<Figure>,
    tls: Vec<Figure>,
}

fn bench(arguments: &[String]) {
    let quick = arguments.iter().any(|word| word == "quick");
    let only = arguments.iter().find_map(|word| word.strip_prefix("only=")).map(str::to_owned);
    let counts = arguments.iter().find_map(|word| word.strip_prefix("connections="));
    let counts: Vec<usize> = counts.unwrap_or("1,100,1000").split(',').map(|count| count.parse().unwrap()).collect();
    let folder = tempfile::tempdir().unwrap();
    let place = Arc::new(Place::make(folder.path()));
    let (slice, rounds) = if quick { (Duration::from_millis(250), 1) } else { (Duration::from_millis(300), 3) };
    let rounds =
        arguments.iter().find_map(|word| word.strip_prefix("rounds=")).map_or(rounds, |count| count.parse().unwrap());
    let bench = Bench { folder, place, runtime: runtime(), slice, rounds, only };
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let files = rustix::process::Rlimit { current: files.maximum, ..files };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, files).unwrap();
    println!("Load of the machine before: {}", load_average());
    if bench.wants("round trip") {
        bench.round_trips();
    }
    println!("\nServer CPU µs for a message, messages a second, messages in a datagram.\n");
    println!(
        "| pattern | connections | bytes | ours | bare quinn | bare / ours | TCP + TLS | ours/s | bare/s | a datagram |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for connections in counts {
        let mut group = bench.group(connections);
        bench.receiving(&mut group);
        bench.sending(&mut group);
        bench.sizes(&mut group);
    }
    println!("\nLoad of the machine after: {}", load_average());
}

impl Bench {
    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }

    fn server(&self, kind: &str) -> Server {
        Server::start(&[kind, self.folder.path().to_str().unwrap()])
    }

    fn pair<C: Client, F>(&self, kind: &str, connections: usize, connect: fn(Arc<Place>, String, usize) -> F) -> Pair<C>
    where
        F: Future<Output = C> + Send + 'static,
    {
        let server = self.server(kind);
        let clients = self.runtime.block_on(async {
            let (mut dials, mut clients, mut number) = (JoinSet::new(), Vec::new(), 0);
            while clients.len() < connections {
                while number < connections && dials.len() < DIALS {
                    dials.spawn(connect(Arc::clone(&self.place), server.address.clone(), number));
                    number += 1;
                }
                clients.push(Arc::new(dials.join_next().await.unwrap().unwrap()));
            }
            clients
        });
        Pair { server, clients }
    }

    fn group(&self, connections: usize) -> Group {
        Group {
            connections,
            ours: self.pair("ours", connections, |place, address, number| async move {
                Ours::connect(&place, &address, number, Features::ALL).await
            }),
            single: self.pair("ours", connections, |place, address, number| async move {
                let features = Features(Features::ALL.0 & !Features::BATCH.0);
                Ours::connect(&place, &address, number, features).await
            }),
            bare: self.pair(
                "quinn",
                connections,
                |place, address, _| async move { Bare::connect(&place, &address).await },
            ),
            tls: self.pair("tls", connections, |place, address, _| async move { Tls::connect(&place, &address).await }),
        }
    }

    fn receiving(&self, group: &mut Group) {
        let alone = Load::new(256, 1, 1);
        let lone = self.row(group, "one a datagram, 30,000/s", Pattern::Sparse(alone, 30_000), false);
        self.row(group, "one at a time", Pattern::Saturating(alone), false);
        self.row(group, "as they come, coalesced", Pattern::Saturating(Load::new(256, 1, 64)), false);
        let sixteen = self.row(group, "16 a write", Pattern::Saturating(Load::new(256, 16, 1)), false);
        self.row(group, "64 a write", Pattern::Saturating(Load::new(256, 64, 1)), false);
        self.row(group, "16 a write, an envelope each", Pattern::Saturating(Load::new(256, 16, 1)), true);
        self.row(group, "64 a write, an envelope each", Pattern::Saturating(Load::new(256, 64, 1)), true);
        if let (Some(lone), Some(sixteen)) = (lone, sixteen) {
            let gain = ratio(&lone.bare, &sixteen.ours);
            println!(
                "| batch of 16 against bare quinn's one a datagram | {} | | | | {} | | | | |",
                group.connections,
                short(gain)
            );
        }
        if group.connections >= 1_000 {
            self.row(group, "sparse, 20,000/s", Pattern::Sparse(alone, 20_000), false);
            let beat = Load { heartbeat: true, ..Load::new(place::frame_bytes(&place::heartbeat()), 1, 1) };
            self.row(group, "heartbeats, 500/s", Pattern::Sparse(beat, 500), false);
        }
    }

    /// Last, because what is still on its way when a slice ends takes long to arrive.
    fn sizes(&self, group: &mut Group) {
        for (name, bytes, burst) in
            [("smallest", 64, 16), ("4 KB", 4 << 10, 4), ("64 KB", 64 << 10, 1), ("1 MB", 1 << 20, 1)]
        {
            self.row(group, name, Pattern::Saturating(Load::new(bytes, burst, 1)), false);
        }
    }

    fn sending(&self, group: &mut Group) {
        let connections = group.connections;
        for (name, connections, burst) in [
            ("sending, one a datagram", connections.min(40), 1),
            ("sending, 16 a write", connections.min(10), 16),
            ("sending, 64 a write", connections.min(4), 64),
        ] {
            self.row(group, name, Pattern::Served(Sending { connections, burst, bytes: 256 }), false);
        }
    }

    /// Runs the pattern with each in turn, and prints the row.
    fn row(&self, group: &mut Group, name: &str, pattern: Pattern, single: bool) -> Option<Row> {
        if !self.wants(name) {
            return None;
        }
        let Group { connections, ours, single: singles, bare, tls } = group;
        let (pattern, bytes) = real(pattern);
        let (mut row, serves) = (Row::default(), matches!(pattern, Pattern::Served(_)));
        // Where a whole message of each takes longer, a slice does, too.
        let seconds = (*connections * bytes) as f64 / 50e6;
        let slice = Duration::from_secs_f64(seconds.min(30.0)).max(self.slice);
        for _ in 0..if seconds > 1.0 { 1 } else { self.rounds } {
            let ours = if single { &mut *singles } else { &mut *ours };
            row.ours.push(ours.run(&self.runtime, pattern, slice));
            row.bare.push(bare.run(&self.runtime, pattern, slice));
            if !serves {
                row.tls.push(tls.run(&self.runtime, pattern, slice));
            }
        }
        let (ours, bare, tls) = (middle(&row.ours), middle(&row.bare), middle(&row.tls));
        let part = ratio(&row.bare, &row.ours);
        let datagram =
            if serves { "–".into() } else { format!("{} / {}", short(ours.in_datagram), short(bare.in_datagram)) };
        println!(
            "| {name} | {connections} | {bytes} | {} | {} | {} | {} | {} | {} | {datagram} |",
            short(ours.cpu_us),
            short(bare.cpu_us),
            short(part),
            short(tls.cpu_us),
            rate(ours.per_second),
            rate(bare.per_second),
        );
        Some(row)
    }

    /// One message there and one back, 256 bytes, one at a time.
    fn round_trips(&self) {
        let bare = |place: Arc<Place>, address: String, _| async move { Bare::connect(&place, &address).await };
        let ours = |place: Arc<Place>, address: String, number| async move {
            Ours::connect(&place, &address, number, Features::ALL).await
        };
        println!("\nRound trip of 256 bytes, one at a time, µs; ratios of medians to bare quinn of the same run.\n");
        println!("| CPUs when idle | what | p50 | p99 | p99.9 | p50, p99 against bare |");
        println!("|---|---|---|---|---|---|");
        for halt in [false, true] {
            let spinners: Vec<_> = if halt { Vec::new() } else { (0..2).filter_map(|_| Spinner::start()).collect() };
            let idle = if halt {
                "halt"
            } else if spinners.len() == 2 {
                "kept awake"
            } else {
                continue;
            };
            let mut bare = self.pair("quinn", 1, bare);
            let mut link = self.pair("ours", 1, ours);
            let mut tls = self.pair("tls", 1, |place, address, _| async move { Tls::connect(&place, &address).await });
            let mut times: [Vec<f64>; 3] = Default::default();
            for _ in 0..2 * self.rounds {
                bare.round_trips(&self.runtime, self.slice, &mut times[0]);
                link.round_trips(&self.runtime, self.slice, &mut times[1]);
                tls.round_trips(&self.runtime, self.slice, &mut times[2]);
            }
            for times in &mut times {
                times.sort_by(f64::total_cmp);
            }
            let names = ["bare quinn", "ours, up to the core", "envelopes over TCP + TLS"];
            for (name, of) in names.into_iter().zip(&times) {
                let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|at| part(of, at));
                let [r50, r99] = [0.5, 0.99].map(|at| short(part(of, at) / part(&times[0], at)));
                println!("| {idle} | {name} | {} | {} | {} | {r50}, {r99} |", short(p50), short(p99), short(p999));
            }
        }
    }
}

/// With the length that the message really has, so that bare transports carry the same bytes.
fn real(pattern: Pattern) -> (Pattern, usize) {
    let of = |bytes| ours::bytes_of(&place::message(bytes));
    match pattern {
        Pattern::Saturating(load) => {
            let bytes = of(load.bytes);
            (Pattern::Saturating(Load { bytes, ..load }), bytes)
        }
        Pattern::Sparse(load, _) => (pattern, load.bytes),
        Pattern::Served(sending) => (pattern, sending.bytes),
    }
}

/// Something idle that keeps a CPU from halting.
struct Spinner(std::process::Child);

impl Spinner {
    fn start() -> Option<Spinner> {
        let mut command = std::process::Command::new("chrt");
        command.args(["--idle", "0"]).arg(std::env::current_exe().unwrap()).arg("spin");
        command.spawn().ok().map(Spinner)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn load_average() -> String {
    std::fs::read_to_string("/proc/loadavg").map(|text| text.trim().to_owned()).unwrap_or_else(|_| "unknown".to_owned())
}
