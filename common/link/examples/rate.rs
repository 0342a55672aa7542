//! How many messages one link carries, in one process over loopback QUIC, and what batches and coalesced
//! writes gain: `cargo run --release -p fleetwire-link --example rate`.
//!
//! Every message is a status update with two metrics, sealed, sent, opened, verified and read. Sender and
//! receiver share the machine, so the figures are of both sides together.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use fleetwire_common::{
    envelope::{
        Features,
        handshake::{HelloInfo, WelcomeInfo},
        keys::{Epoch, RootKeys, Secret},
    },
    fb,
    ids::{AttemptId, JobId, Name, Principal, TaskId},
    message::{Ack, Message, MessageRef, Status},
    time::Time,
};
use fleetwire_link::{Accepted, Authority, ClusterClock, DeviceKey, Link, LinkConfig, Listener, connect};
use std::{sync::Arc, time::Instant};

const NOW: Time = Time(1_800_000_000_000_000);
const ALL: Features = Features::ALL;
const NO_BATCH: Features = Features(Features::ALL.0 & !Features::BATCH.0);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let seconds: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(3);
    println!("{:<44} {:>12} {:>12} {:>10}", "", "messages/s", "CPU µs each", "per frame");
    saturate("batches, whatever is queued a write", ALL, 64, seconds).await;
    saturate("one message a frame, many a write", NO_BATCH, 64, seconds).await;
    round_trips("one message at a time, answered", seconds).await;
}

/// Keeps the queue filled, `at_once` messages at a time.
async fn saturate(what: &str, features: Features, at_once: u32, seconds: u64) {
    let (agent, mut scheduler, _listener) = session(features).await;
    let sender = agent.sender.clone();
    let sending = tokio::spawn(async move {
        let begun = Instant::now();
        let mut index = 0;
        while begun.elapsed().as_secs() < seconds {
            if sender.messages_waiting() > 4_096 {
                tokio::task::yield_now().await;
                continue;
            }
            sender.send_many((index..index + at_once).map(status)).unwrap();
            index += at_once;
        }
        index
    });
    let (begun, cpu) = (Instant::now(), cpu_us());
    let (mut frames, mut came, mut count, mut bytes) = (Vec::new(), 0u32, 0u32, 0usize);
    let mut expected = u32::MAX;
    let mut sending = Some(sending);
    while came < expected {
        if sending.as_ref().is_some_and(|task| task.is_finished()) {
            expected = sending.take().unwrap().await.unwrap();
            continue;
        }
        let more = scheduler.receiver.recv_many(&mut frames);
        let _ = tokio::time::timeout(std::time::Duration::from_millis(100), more).await;
        for frame in frames.drain(..) {
            count += 1;
            bytes += frame.bytes.len();
            let opened = scheduler.opener.open(&frame.bytes, frame.stream, frame.arrived_ms, frame.tolerance_ms());
            for (_, message) in opened.unwrap().messages() {
                let MessageRef::StatusUpdate(status) = message else { panic!("something else came") };
                assert_eq!(status.metrics().count(), 2);
                came += 1;
            }
        }
    }
    let (took, cpu) = (begun.elapsed().as_secs_f64(), cpu_us() - cpu);
    let (rate, each) = (f64::from(came) / took, cpu as f64 / f64::from(came));
    println!("{what:<44} {rate:>12.0} {each:>12.2} {:>10.1}   {} bytes each", came / count, bytes / came as usize);
}

/// One message there, one back, and again.
async fn round_trips(what: &str, seconds: u64) {
    let (mut agent, mut scheduler, _listener) = session(ALL).await;
    let answering = tokio::spawn(async move {
        let mut frames = Vec::new();
        while scheduler.receiver.recv_many(&mut frames).await.is_ok() {
            for frame in frames.drain(..) {
                let tolerance = frame.tolerance_ms();
                scheduler.opener.open(&frame.bytes, frame.stream, frame.arrived_ms, tolerance).unwrap();
                scheduler.sender.send(Message::Ack(Ack::Heartbeat(1))).unwrap();
            }
        }
    });
    let (begun, cpu) = (Instant::now(), cpu_us());
    let (mut times, mut frames) = (Vec::new(), Vec::new());
    while begun.elapsed().as_secs() < seconds {
        let sent = Instant::now();
        agent.sender.send(status(1)).unwrap();
        agent.receiver.recv_many(&mut frames).await.unwrap();
        for frame in frames.drain(..) {
            agent.opener.open(&frame.bytes, frame.stream, frame.arrived_ms, frame.tolerance_ms()).unwrap();
        }
        times.push(sent.elapsed().as_micros());
    }
    let (took, cpu) = (begun.elapsed().as_secs_f64(), cpu_us() - cpu);
    times.sort_unstable();
    let place = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    let (rate, each) = (times.len() as f64 / took, cpu as f64 / (2 * times.len()) as f64);
    println!("{what:<44} {rate:>12.0} {each:>12.2} {:>10}   round trip p50 {} p99 {} µs", 1, place(50), place(99));
    answering.abort();
}

async fn session(features: Features) -> (Link, Link, Listener) {
    let authority = Authority::create("rate", NOW).unwrap();
    let server = authority.certify_server(NOW).unwrap();
    let root = RootKeys::new(Secret::new([1; 32]));
    let clock = ClusterClock::starting_at(NOW);
    let any = "127.0.0.1:0".parse().unwrap();
    let mut listener =
        Listener::bind(any, &server, Arc::new(root.clone()), clock.clone(), LinkConfig::default()).unwrap();
    let principal = Principal { role: fb::Role::Agent, name: Name::new("a").unwrap() };
    let key = DeviceKey::generate().unwrap();
    let addresses = vec![listener.local_addr().unwrap().to_string()];
    let enrolment = root.enrolment_key(&principal);
    let identity = authority.issue(&principal, key, enrolment, addresses.clone(), NOW).unwrap();
    let software = "rate".to_owned();
    let hello = HelloInfo { features, boot_id: [0; 16], process_start_id: [0; 16], receipt: None, software };
    let accepting = async {
        let Some(Accepted::Session(pending)) = listener.accept().await else { panic!("no session") };
        let epoch = Epoch { number: 1, secret: Secret::new([2; 32]) };
        let (cluster, software) = ("rate".to_owned(), "rate".to_owned());
        let cluster_time = clock.now();
        let info = WelcomeInfo { features: ALL, cluster_time, incarnation: 1, receipt: None, cluster, software };
        pending.welcome(&epoch, &info).unwrap()
    };
    let (agent_clock, config) = (ClusterClock::from_wall(), LinkConfig::default());
    let connecting = connect(&addresses, &identity, &hello, &agent_clock, &config);
    let (agent, scheduler) = tokio::join!(connecting, accepting);
    (agent.unwrap().link, scheduler, listener)
}

fn status(index: u32) -> Message {
    let attempt = AttemptId { task: TaskId { job: JobId(7), entry: 0, index }, attempt: 1 };
    let metrics = vec![("loss".into(), 0.25), ("accuracy".into(), f64::from(index))];
    let note = "epoch 3 of 10, batch 128".to_owned();
    Message::Status(Status {
        attempt,
        status: fb::TaskStatus::Running,
        progress: 0.5,
        note,
        metrics,
        end: None,
        job_key: Default::default(),
    })
}

/// CPU time of this process so far, µs.
#[cfg(target_os = "linux")]
fn cpu_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1_000
}

#[cfg(not(target_os = "linux"))]
fn cpu_us() -> u64 {
    0
}
