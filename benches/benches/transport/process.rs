//! One server process: started, asked, and measured by its parent. Shared with the peers' bench.
//!
//! The server is this executable again. It prints its address, then answers each line on its standard
//! input with one line; it ends with its standard input.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Instant,
};
use tokio::sync::watch;

/// What the server sends on its own accord, every millisecond.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sending {
    /// Connections that get something, in turn; 0 for none.
    pub connections: usize,
    /// Messages for each, handed over at once.
    pub burst: usize,
    /// Bytes of each.
    pub bytes: usize,
}

/// What the server's threads share with its standard input.
pub struct Control {
    /// Messages that came or left.
    pub messages: AtomicU64,
    /// Whether each message is answered by one of the same size.
    pub echo: AtomicBool,
    /// Bytes of a message, for servers that count bytes.
    pub bytes: AtomicU64,
    pub sending: watch::Sender<Sending>,
}

impl Control {
    pub fn new() -> Control {
        let (sending, _) = watch::channel(Sending::default());
        Control { messages: AtomicU64::new(0), echo: AtomicBool::new(false), bytes: AtomicU64::new(256), sending }
    }

    /// Says where the server listens, then answers until the parent is gone, which ends the process.
    pub fn answer(&self, address: &str) {
        println!("{address}");
        for line in std::io::stdin().lines() {
            let line = line.unwrap();
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words[at].parse::<usize>().unwrap();
            match words[0] {
                "mark" => println!("{} {}", cpu_ns(), self.messages.load(Relaxed)),
                "echo" => {
                    self.echo.store(words[1] == "true", Relaxed);
                    println!("done");
                }
                "bytes" => {
                    self.bytes.store(number(1) as u64, Relaxed);
                    println!("done");
                }
                "send" => {
                    let sending = Sending { connections: number(1), burst: number(2), bytes: number(3) };
                    self.sending.send_replace(sending);
                    println!("done");
                }
                other => panic!("{other}?"),
            }
        }
        std::process::exit(0);
    }
}

/// CPU time of this process so far, ns: what getrusage counts, finer.
pub fn cpu_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// CPU time of all threads of another process, ns.
pub fn cpu_ns_of(process: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let times = threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("schedstat")));
    times.map(|times| times.ok().and_then(|times| times.split(' ').next()?.parse::<u64>().ok()).unwrap_or(0)).sum()
}

/// A running server.
pub struct Server {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Where it listens.
    pub address: String,
    /// A process whose CPU time counts as well: a broker.
    pub broker: Option<u32>,
}

/// How far a server was.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    pub at: Instant,
    pub cpu_ns: u64,
    pub messages: u64,
}

impl Server {
    /// Starts this executable again as a server.
    pub fn start(arguments: &[&str]) -> Server {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("server")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut server = Server { child, input, output, address: String::new(), broker: None };
        server.address = server.line();
        server
    }

    /// Its process.
    #[allow(dead_code, reason = "only some benches look at it from outside")]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Says one line and returns the answer.
    pub fn ask(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").unwrap();
        self.line()
    }

    pub fn mark(&mut self) -> Mark {
        let answer = self.ask("mark");
        let (cpu, messages) = answer.split_once(' ').unwrap();
        let cpu_ns = cpu.parse::<u64>().unwrap() + self.broker.map_or(0, cpu_ns_of);
        Mark { at: Instant::now(), cpu_ns, messages: messages.parse().unwrap() }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the server has ended");
        line.trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
