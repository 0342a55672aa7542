//! What a message costs with other transports, at the guarantees of ours where they have them: each carries
//! an HMAC-SHA256 tag that the receiver checks. 256 bytes, tag included. `benches/peers/run` runs it.
//!
//! What is compared is the CPU time of all that stands between a client and the scheduler, the scheduler
//! included: with a broker, the broker and its subscriber.

#[allow(dead_code)]
#[path = "../../benches/transport/load.rs"]
mod load;
#[path = "../../benches/transport/process.rs"]
mod process;
#[allow(dead_code)]
#[path = "../../benches/transport/report.rs"]
mod report;

mod grpc;
mod mqtt;
mod nats;
mod tag;
mod zenohs;

use load::{Client, Load, Pair, Pattern};
use process::{Control, Server};
use report::{middle, part, rate, short};
use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{runtime::Runtime, task::JoinSet};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("server") => serve(&arguments[1], Path::new(&arguments[2])),
        _ => bench(arguments.first().map(String::as_str).unwrap_or("1,100")),
    }
}

fn one_thread() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Zenoh refuses to run on anything else.
fn threads() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn serve(kind: &str, folder: &Path) {
    let control = Arc::new(Control::new());
    let answering = Arc::clone(&control);
    let runtime = if kind == "zenoh" { threads() } else { one_thread() };
    runtime.block_on(async {
        let address = match kind {
            "grpc" => grpc::serve(folder, control).await,
            "nats" => nats::serve(folder, control).await,
            "mqtt" => mqtt::serve(folder, control).await,
            "zenoh" => zenohs::serve(folder, control).await,
            other => panic!("no server {other}"),
        };
        std::thread::spawn(move || answering.answer(&address));
        std::future::pending::<()>().await;
    });
}

fn bench(counts: &str) {
    println!("\n| transport | pattern | connections | server CPU µs | messages/s | round trip p50 / p99 µs |");
    println!("|---|---|---|---|---|---|");
    let folder = tempfile::tempdir().unwrap();
    certify(folder.path());
    let here = folder.path().to_str().unwrap();
    for count in counts.split(',').map(|count| count.parse::<usize>().unwrap()) {
        rows("gRPC (tonic) client stream, TLS", one_thread(), count, Server::start(&["grpc", here]), grpc::connect);
        if let Some(child) = nats::broker(folder.path()) {
            let mut server = Server::start(&["nats", here]);
            server.broker = Some(child.0.id());
            rows("NATS, TLS: broker and subscriber", one_thread(), count, server, nats::connect);
        } else {
            println!("| NATS | nats-server is not installed | | | | |");
        }
        if let Some(child) = mqtt::broker(folder.path()) {
            let mut server = Server::start(&["mqtt", here]);
            server.broker = Some(child.0.id());
            rows("MQTT QoS 0, no TLS: mosquitto and subscriber", one_thread(), count, server, mqtt::connect);
        } else {
            println!("| MQTT | mosquitto is not installed | | | | |");
        }
        rows("zenoh, TLS, peer to peer", threads(), count.min(20), Server::start(&["zenoh", here]), zenohs::connect);
    }
}

fn rows<C: Client, F>(name: &str, runtime: Runtime, count: usize, server: Server, connect: fn(String, usize) -> F)
where
    F: Future<Output = C> + Send + 'static,
{
    let clients = runtime.block_on(async {
        // The first is the one that is answered.
        let (mut dials, mut clients) = (JoinSet::new(), vec![Arc::new(connect(server.address.clone(), 0).await)]);
        for number in 1..count {
            dials.spawn(connect(server.address.clone(), number));
            if dials.len() >= 8 {
                clients.push(Arc::new(dials.join_next().await.unwrap().unwrap()));
            }
        }
        while let Some(client) = dials.join_next().await {
            clients.push(Arc::new(client.unwrap()));
        }
        clients
    });
    let mut pair = Pair { server, clients };
    let saturating = |burst| Pattern::Saturating(Load::new(256, burst, 1));
    for (pattern, load) in [
        ("one at a time, 30,000/s", Pattern::Sparse(Load::new(256, 1, 1), 30_000)),
        ("one at a time", saturating(1)),
        ("16 at once", saturating(16)),
        ("64 at once", saturating(64)),
    ] {
        let slices: Vec<_> = (0..3).map(|_| pair.run(&runtime, load, Duration::from_millis(500))).collect();
        let figure = middle(&slices);
        let mut trips = Vec::new();
        if load == saturating(1) {
            pair.round_trips(&runtime, Duration::from_millis(800), &mut trips);
            trips.sort_by(f64::total_cmp);
        }
        let trips = format!("{} / {}", short(part(&trips, 0.5)), short(part(&trips, 0.99)));
        println!("| {name} | {pattern} | {count} | {} | {} | {trips} |", short(figure.cpu_us), rate(figure.per_second));
    }
    // Clients leave before their server does.
    let inside = runtime.enter();
    drop(pair.clients);
    drop(inside);
    runtime.shutdown_timeout(Duration::from_millis(200));
}

/// A certificate for this machine, which is its own authority.
fn certify(folder: &Path) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
}

/// A broker, stopped when dropped.
pub struct Broker(Child);

impl Broker {
    /// Starts a program that somebody installed; `None` if nobody did.
    pub fn start(programs: &[&str], arguments: &[&str]) -> Option<Broker> {
        let child = programs.iter().find_map(|program| {
            let mut command = Command::new(program);
            command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().ok()
        })?;
        Some(Broker(child))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that nobody has at the moment.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until somebody listens there.
pub async fn listens(port: u16) {
    for _ in 0..500 {
        if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nobody listens on {port}");
}
