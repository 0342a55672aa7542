//! `fleetwire wire`: the commands that look at frames (`frames`), make them (`encode`), compare schemas
//! (`schemas`) and measure (`measure`).

pub mod args;
mod encode;
mod frames;
mod measure;
mod schemas;

use crate::error::CliError;
use args::Wire;
use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// Does what the command line says; the exit status.
pub async fn wire(command: &Wire, data: Option<&Path>, as_json: bool) -> Result<u8, CliError> {
    match command {
        Wire::Decode(command) => frames::decode(command, as_json),
        Wire::Validate(command) => frames::validate(command, as_json),
        Wire::Encode(command) => encode::encode(command),
        Wire::Ping(command) => measure::ping(command, data, as_json).await,
        Wire::Bench(command) => measure::bench(command, data, as_json).await,
        Wire::DiffSchema(command) => schemas::diff_schema(command, as_json),
    }
}

/// The bytes of a file, or of standard input for `-`, bounded.
fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let fault = |error| CliError::File { doing: "read", path: path.to_owned(), error };
    let mut bytes = Vec::new();
    let limit = INPUT_BYTES_MAX + 1;
    if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes).map_err(fault)?;
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(fault)?;
    }
    if bytes.len() as u64 >= limit {
        return Err(wrong(path, format!("more than {INPUT_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// Something in a file that cannot be used.
fn wrong(path: &Path, error: impl Into<String>) -> CliError {
    let path = if path == Path::new("-") { PathBuf::from("standard input") } else { path.to_owned() };
    CliError::Wire { path, error: error.into() }
}

/// Four of the largest frames that any transport takes.
const INPUT_BYTES_MAX: u64 = 64 << 20;
