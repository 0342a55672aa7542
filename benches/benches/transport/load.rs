//! What clients do, and what is measured of it. Shared with the peers' bench.

use super::process::{Mark, Server};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{runtime::Runtime, task::JoinSet, task::yield_now};

/// One connection's client side.
pub trait Client: Send + Sync + 'static {
    /// Hands messages over, as one burst (or one by one), and returns when the transport has taken them.
    fn send(&self, load: Load) -> impl Future<Output = ()> + Send;
    /// One message there, and its answer back.
    fn echo(&self) -> impl Future<Output = ()> + Send;
    /// Takes what comes, without end.
    fn receive(&self) -> impl Future<Output = ()> + Send;
    /// Datagrams that this client sent, where it can tell.
    fn datagrams(&self) -> u64 {
        0
    }
}

/// What is handed over at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    pub bytes: usize,
    /// Messages in one hand-over.
    pub burst: usize,
    /// Hand-overs before the client waits until the transport has taken them.
    pub writes: usize,
    pub heartbeat: bool,
}

impl Load {
    pub const fn new(bytes: usize, burst: usize, writes: usize) -> Load {
        Load { bytes, burst, writes, heartbeat: false }
    }
}

/// How the connections take turns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pattern {
    /// All of them, all the time.
    Saturating(Load),
    /// So many messages a second over all of them, one at a time each.
    Sparse(Load, u32),
    /// The server sends, every millisecond.
    Served(super::process::Sending),
}

/// What a slice of a run gave.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figure {
    /// The server's CPU time for a message, µs.
    pub cpu_us: f64,
    pub per_second: f64,
    /// Messages in a datagram; infinite where nobody counts.
    pub in_datagram: f64,
}

/// A transport with its server and connected clients.
pub struct Pair<C> {
    pub server: Server,
    pub clients: Vec<Arc<C>>,
}

impl<C: Client> Pair<C> {
    /// Runs a pattern for about so long.
    pub fn run(&mut self, runtime: &Runtime, pattern: Pattern, time: Duration) -> Figure {
        runtime.block_on(async {
            let (mut tasks, mut receivers) = (JoinSet::new(), JoinSet::new());
            let stop = Arc::new(AtomicBool::new(false));
            match pattern {
                Pattern::Saturating(load) => {
                    self.server.ask(&format!("bytes {}", load.bytes));
                    for client in &self.clients {
                        let client = Arc::clone(client);
                        let stop = Arc::clone(&stop);
                        tasks.spawn(async move {
                            while !stop.load(Relaxed) {
                                client.send(load).await;
                            }
                        });
                    }
                }
                Pattern::Sparse(load, per_second) => {
                    self.server.ask(&format!("bytes {}", load.bytes));
                    tasks.spawn(sparse(self.clients.clone(), load, per_second, Arc::clone(&stop)));
                }
                Pattern::Served(sending) => {
                    for client in &self.clients {
                        let client = Arc::clone(client);
                        receivers.spawn(async move { client.receive().await });
                    }
                    self.server.ask(&format!("bytes {}", sending.bytes));
                    self.server.ask(&format!("send {} {} {}", sending.connections, sending.burst, sending.bytes));
                }
            }
            tokio::time::sleep(time / 8).await;
            let (before, sent) = (self.server.mark(), self.datagrams());
            tokio::time::sleep(time).await;
            let (after, sent) = (self.server.mark(), self.datagrams() - sent);
            if matches!(pattern, Pattern::Served(_)) {
                self.server.ask("send 0 0 0");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // Nobody is interrupted within a message.
            stop.store(true, Relaxed);
            while tasks.join_next().await.is_some() {}
            receivers.shutdown().await;
            // What is still on its way is not the next slice's.
            let mut last = self.server.mark().messages;
            loop {
                tokio::time::sleep((time / 16).max(Duration::from_millis(20))).await;
                let now = self.server.mark().messages;
                if now == last {
                    break;
                }
                last = now;
            }
            figure(before, after, sent)
        })
    }

    /// Round trips of the first client, one at a time, for so long.
    pub fn round_trips(&mut self, runtime: &Runtime, time: Duration, times_us: &mut Vec<f64>) {
        self.server.ask("echo true");
        let client = Arc::clone(&self.clients[0]);
        let task = runtime.spawn(async move {
            let (begun, mut times) = (Instant::now(), Vec::new());
            while begun.elapsed() < time {
                let sent = Instant::now();
                client.echo().await;
                times.push(sent.elapsed().as_secs_f64() * 1e6);
            }
            times
        });
        let times = runtime.block_on(task).unwrap();
        times_us.extend(&times[times.len() / 10..]);
        self.server.ask("echo false");
    }

    fn datagrams(&self) -> u64 {
        self.clients.iter().map(|client| client.datagrams()).sum()
    }
}

fn figure(before: Mark, after: Mark, sent: u64) -> Figure {
    let count = (after.messages - before.messages) as f64;
    Figure {
        cpu_us: (after.cpu_ns - before.cpu_ns) as f64 / 1e3 / count,
        per_second: count / (after.at - before.at).as_secs_f64(),
        in_datagram: count / sent as f64,
    }
}

/// Every millisecond as many clients as it takes send one message each.
async fn sparse<C: Client>(clients: Vec<Arc<C>>, load: Load, per_second: u32, stop: Arc<AtomicBool>) {
    let begun = Instant::now();
    let mut sent = 0;
    while !stop.load(Relaxed) {
        let due = (begun.elapsed().as_secs_f64() * f64::from(per_second)) as usize;
        while sent < due {
            clients[sent % clients.len()].send(load).await;
            sent += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        yield_now().await;
    }
}
