//! The command line of `fleetwire wire`, as clap reads it.

use crate::wire::build::from_hex;
use clap::{Args, Subcommand};
use fleetwire_common::envelope::keys::{MacKey, Secret};
use std::{path::PathBuf, time::Duration};

/// Look at frames and schemas, and at a scheduler that answers.
#[derive(Debug, Subcommand)]
pub enum Wire {
    /// Show what frames hold: signature, sizes, messages.
    Decode(Frames),
    /// Name every rule of docs/protocol.md that frames break; exit with 1 if there is one.
    Validate(Validate),
    /// Make a signed frame of JSON, such as `wire decode --json` prints.
    Encode(Encode),
    /// Measure how long a scheduler takes to answer signed requests, one after another.
    Ping(Ping),
    /// Measure the codec on this machine beside its floor; with --peer, a scheduler under many requests at a time.
    Bench(Bench),
    /// Compare two schemas: may peers of both speak with each other? Exit with 1 if not.
    DiffSchema(DiffSchema),
}

/// Where frames come from, and what is known of their session.
#[derive(Debug, Args)]
pub struct Frames {
    /// A file of frames, one behind the other; `-` is standard input.
    #[arg(value_name = "FILE|-")]
    pub file: PathBuf,
    /// It is text: hexadecimal digits.
    #[arg(long)]
    pub hex: bool,
    /// The session's key in this direction: 64 hexadecimal digits, or @FILE with its 32 bytes or those digits.
    #[arg(long, value_name = "HEX|@FILE", value_parser = key)]
    pub key: Option<Key>,
    /// The key's id; otherwise whatever the frame says.
    #[arg(long, value_name = "N", requires = "key")]
    pub key_id: Option<u32>,
}

/// `wire validate`.
#[derive(Debug, Args)]
pub struct Validate {
    /// Which frames.
    #[command(flatten)]
    pub frames: Frames,
    /// The stream on which they came; otherwise the one that they say.
    #[arg(long, value_name = "N")]
    pub stream: Option<u32>,
    /// When they arrived, in Unix milliseconds, or `now`: checks freshness.
    #[arg(long, value_name = "MS|now", value_parser = instant)]
    pub arrived: Option<u64>,
    /// They are a session's from its beginning: sequences begin at 0, and every metric name is defined.
    #[arg(long)]
    pub whole: bool,
    /// Who sent them to a scheduler: checks the role table.
    #[arg(long, value_enum, value_name = "ROLE")]
    pub from: Option<crate::args::RoleName>,
}

/// `wire encode`.
#[derive(Debug, Args)]
pub struct Encode {
    /// The JSON; `-` is standard input.
    #[arg(value_name = "FILE|-")]
    pub file: PathBuf,
    /// The key to sign with: 64 hexadecimal digits, or @FILE with its 32 bytes or those digits.
    #[arg(long, value_name = "HEX|@FILE", value_parser = key)]
    pub key: Key,
    /// The key's id.
    #[arg(long, value_name = "N")]
    pub key_id: u32,
    /// Compress the message, or the batch, whether that pays or not.
    #[arg(long)]
    pub pack: bool,
    /// Where to write the frames; standard output otherwise.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write hexadecimal digits.
    #[arg(long)]
    pub hex: bool,
}

/// `wire ping`.
#[derive(Debug, Args)]
pub struct Ping {
    /// Its address, HOST:PORT; otherwise that in the credentials.
    #[arg(value_name = "SCHEDULER")]
    pub scheduler: Option<String>,
    /// How many requests.
    #[arg(long, short = 'n', default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "N")]
    pub count: u32,
    /// From one request to the next, such as 100ms, 1s; 0 for at once.
    #[arg(long, short, default_value = "200ms", value_parser = pause, value_name = "DURATION")]
    pub interval: Duration,
}

/// `wire bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// Ask a scheduler instead: HOST:PORT, or, without one, that in the credentials.
    #[arg(long, value_name = "SCHEDULER", num_args = 0..=1, default_missing_value = "")]
    pub peer: Option<String>,
    /// How long each measurement takes, such as 500ms, 2s.
    #[arg(long, default_value = "500ms", value_parser = pause, value_name = "DURATION")]
    pub time: Duration,
    /// Requests under way at a time, with --peer.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=64), value_name = "N")]
    pub at_once: u16,
}

/// `wire diff-schema`.
#[derive(Debug, Args)]
pub struct DiffSchema {
    /// The schema as it was: a .fbs file with what it includes, or a folder of them.
    pub old: PathBuf,
    /// The schema as it is.
    pub new: PathBuf,
}

/// A session key, ready to use. Never printed.
#[derive(Clone, Debug)]
pub struct Key(pub MacKey);

fn key(text: &str) -> Result<Key, String> {
    let bytes = match text.strip_prefix('@') {
        Some(path) => {
            let bytes = std::fs::read(path).map_err(|error| format!("cannot read `{path}`: {error}"))?;
            let digits = std::str::from_utf8(&bytes).ok().and_then(|text| from_hex(text.trim()));
            digits.filter(|key| key.len() == 32).unwrap_or(bytes)
        }
        None => from_hex(text).unwrap_or_default(),
    };
    let secret = Secret::from_slice(&bytes).ok_or("expected 64 hexadecimal digits, or @FILE with 32 bytes")?;
    Ok(Key(MacKey::new(&secret)))
}

fn instant(text: &str) -> Result<u64, String> {
    if text == "now" {
        return Ok(super::super::now_ms());
    }
    text.parse().map_err(|_| String::from("expected Unix milliseconds, or `now`"))
}

fn pause(text: &str) -> Result<Duration, String> {
    let least = if text == "0" { Some(Duration::ZERO) } else { fleetwire_client::jobfile::values::duration(text) };
    least
        .filter(|pause| *pause <= Duration::from_secs(3_600))
        .ok_or_else(|| String::from("expected a duration up to 1h, such as 200ms or 1s"))
}
