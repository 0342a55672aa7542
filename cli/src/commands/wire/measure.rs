//! `wire ping` and `wire bench`: how fast a scheduler answers, and how fast the codec is here.

use super::{
    super::{print, print_json},
    args::{Bench, Ping},
};
use crate::{credentials, error::CliError};
use fleetwire_client::Client;
use fleetwire_common::{
    envelope::{
        CONTROL_STREAM, Features, Opener, Sealer,
        keys::{MacKey, Secret},
    },
    fb,
    message::Message,
};
use serde_json::json;
use std::{
    fmt::Write as _,
    hint::black_box,
    path::Path,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// `wire ping`.
pub async fn ping(command: &Ping, data: Option<&Path>, as_json: bool) -> Result<u8, CliError> {
    let (client, address, opened) = connect(command.scheduler.as_deref(), data).await?;
    let started = Instant::now();
    let cluster = client.cluster().await?;
    let mut times = Times(Vec::new());
    if !as_json {
        print(&format!(
            "{address}: cluster {}, {}; session opened in {}\n",
            cluster.cluster,
            cluster.software,
            ms(opened + started.elapsed())
        ))?;
    }
    for number in 1..=command.count {
        let asked = Instant::now();
        client.cluster().await?;
        let took = asked.elapsed();
        times.0.push(took);
        if !as_json {
            print(&format!("answer {number}: {}\n", ms(took)))?;
        }
        if number < command.count {
            tokio::time::sleep(command.interval).await;
        }
    }
    let summary = times.sorted();
    if as_json {
        print_json(
            &json!({ "scheduler": address, "cluster": cluster.cluster, "session_us": us(opened), "round_trip_us": summary }),
        )?;
    } else {
        print(&format!("{} requests, all answered; round trip {}\n", command.count, summary.text()))?;
    }
    Ok(0)
}

/// `wire bench`.
pub async fn bench(command: &Bench, data: Option<&Path>, as_json: bool) -> Result<u8, CliError> {
    match &command.peer {
        Some(address) => {
            let address = Some(address.as_str()).filter(|address| !address.is_empty());
            bench_peer(command, address, data, as_json).await
        }
        None => bench_codec(command.time, as_json),
    }
}

async fn bench_peer(
    command: &Bench,
    address: Option<&str>,
    data: Option<&Path>,
    as_json: bool,
) -> Result<u8, CliError> {
    let (client, address, _) = connect(address, data).await?;
    let started = Instant::now();
    let mut asking = JoinSet::new();
    for _ in 0..command.at_once {
        let (client, time) = (client.clone(), command.time);
        asking.spawn(async move {
            let mut times = Vec::new();
            while started.elapsed() < time {
                let asked = Instant::now();
                client.cluster().await?;
                times.push(asked.elapsed());
            }
            Ok::<_, CliError>(times)
        });
    }
    let mut times = Times(Vec::new());
    while let Some(done) = asking.join_next().await {
        times.0.extend(done.map_err(|error| CliError::Output(std::io::Error::other(error)))??);
    }
    let elapsed = started.elapsed();
    let rate = times.0.len() as f64 / elapsed.as_secs_f64();
    let summary = times.sorted();
    if as_json {
        let at_once = command.at_once;
        print_json(
            &json!({ "scheduler": address, "at_once": at_once, "requests_per_s": rate, "round_trip_us": summary }),
        )?;
    } else {
        print(&format!(
            "{address}: {} signed requests, {} at a time, {rate:.0}/s; round trip {}\n",
            summary.count,
            command.at_once,
            summary.text()
        ))?;
    }
    Ok(0)
}

/// A session with the scheduler at `address`, or where the credentials say; how long it took.
async fn connect(address: Option<&str>, data: Option<&Path>) -> Result<(Client, String, Duration), CliError> {
    let mut identity = credentials::find(data)?;
    if let Some(address) = address {
        identity.addresses = vec![address.to_owned()];
    }
    let address = identity.addresses.join(", ");
    let started = Instant::now();
    let client = Client::connect(identity).await?;
    Ok((client, address, started.elapsed()))
}

/// The codec beside HMAC-SHA256 of the same bytes, which is most of its floor.
fn bench_codec(time: Duration, as_json: bool) -> Result<u8, CliError> {
    let mut rows = Vec::new();
    let mut text = format!("{:>9}  {:>9}  {:>9}  {:>9}  {:>9}\n", "payload", "frame", "HMAC", "seal", "open");
    for payload in [64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 128 << 10] {
        let row = codec_row(payload, time / 7);
        let [hmac, seal, open] = row.us;
        writeln!(text, "{payload:>7} B  {:>7} B  {hmac:>6.2} µs  {seal:>6.2} µs  {open:>6.2} µs", row.frame_bytes)?;
        rows.push(json!({ "payload_bytes": payload, "frame_bytes": row.frame_bytes, "hmac_us": hmac, "seal_us": seal, "open_us": open }));
    }
    if as_json {
        print_json(&rows)?
    } else {
        print(&text)?
    }
    Ok(0)
}

struct Row {
    frame_bytes: usize,
    us: [f64; 3],
}

/// In rounds of some frames, so that the three are measured side by side.
fn codec_row(payload: usize, time: Duration) -> Row {
    let chunk = fb::LogChunkT { data: Some(vec![0x5a; payload]), ..Default::default() };
    let message = [Message::Rare(fb::SchedulerMessageT::LogChunk(Box::new(chunk)))];
    let key = MacKey::new(&Secret::new([7; 32]));
    let features = Features(Features::ALL.0 & !Features::PACKED.0);
    let (mut sealer, mut opener) = (Sealer::new(key.clone(), 1, features), Opener::new(key.clone(), 1));
    let mut frames: [Vec<u8>; 16] = Default::default();
    let (mut spent, mut rounds) = ([Duration::ZERO; 3], 0u32);
    let started = Instant::now();
    while rounds == 0 || started.elapsed() < time {
        let sealing = Instant::now();
        for frame in &mut frames {
            frame.clear();
            sealer.seal(1, black_box(&message), frame);
        }
        let opening = Instant::now();
        for frame in &frames {
            let _ = black_box(opener.open(frame, CONTROL_STREAM, 1, u64::MAX));
        }
        let hashing = Instant::now();
        for frame in &frames {
            black_box(key.tag(frame));
        }
        let took = [hashing.elapsed(), opening - sealing, hashing - opening];
        spent.iter_mut().zip(took).for_each(|(sum, took)| *sum += took);
        rounds += 1;
    }
    let count = f64::from(rounds) * frames.len() as f64;
    Row { frame_bytes: frames.first().map_or(0, Vec::len), us: spent.map(|spent| spent.as_secs_f64() * 1e6 / count) }
}

/// How long each answer took.
struct Times(Vec<Duration>);

/// Their distribution, µs.
#[derive(serde::Serialize)]
struct Summary {
    count: usize,
    min: f64,
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Times {
    fn sorted(mut self) -> Summary {
        self.0.sort_unstable();
        let count = self.0.len();
        let at = |share: f64| {
            let place = ((count as f64 * share).ceil() as usize).clamp(1, count.max(1)) - 1;
            self.0.get(place).copied().map_or(0.0, us)
        };
        Summary { count, min: at(0.0), p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}

impl Summary {
    fn text(&self) -> String {
        let [min, p50, p99, p999, max] = [self.min, self.p50, self.p99, self.p999, self.max].map(|us| us / 1e3);
        format!("min {min:.2}, median {p50:.2}, 99 % {p99:.2}, 99.9 % {p999:.2}, max {max:.2} ms")
    }
}

fn us(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}
