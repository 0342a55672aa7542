//! Reading the output of attempts, running and ended.

use super::limits::LOG_PIECE_BYTES_MAX;
use super::record::OutputCount;
use super::slots::{Phase, Slots};

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPiece {
    /// Where `data` begins.
    pub offset: u64,
    /// The bytes; empty when nothing is there yet.
    pub data: Vec<u8>,
    /// Bytes kept so far.
    pub size: u64,
    /// Bytes beyond the bound, not kept.
    pub dropped: u64,
    /// The attempt has ended: nothing will follow `size`.
    pub ended: bool,
}

/// Why no output can be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Never here, or the slot was used again.
    #[error("the output of attempt {attempt} of task {task_id} is not here, or no longer")]
    Gone {
        /// The task.
        task_id: String,
        /// The attempt.
        attempt: u32,
    },
    /// Nothing was ever written there.
    #[error("offset {offset} is beyond the {size} bytes that are kept")]
    BeyondEnd {
        /// What was asked for.
        offset: u64,
        /// What is there.
        size: u64,
    },
    /// The disk refused.
    #[error("the output cannot be read")]
    Disk {
        /// What the operating system said.
        source: std::io::Error,
    },
}

pub(super) fn read(
    slots: &Slots,
    (task_id, attempt, job_key): (&str, u32, u64),
    stream: OutputStream,
    offset: u64,
    limit: usize,
) -> Result<LogPiece, LogError> {
    let gone = || LogError::Gone { task_id: task_id.to_owned(), attempt };
    let slot = slots.find(task_id, attempt).filter(|slot| !slots.is_foreign(*slot, job_key)).ok_or_else(gone)?;
    let entry = slots.slot(slot).ok_or_else(gone)?;
    let pick = |stdout: OutputCount, stderr: OutputCount| match stream {
        OutputStream::Stdout => stdout,
        OutputStream::Stderr => stderr,
    };
    let (count, ended) = match entry.phase {
        Phase::Free => return Err(gone()),
        Phase::Ended(outputs) => (pick(outputs.stdout, outputs.stderr), true),
        Phase::Running(_) => {
            let mark = entry.assignment.as_ref().map(|assignment| assignment.mark);
            let record = slots.open_file(slot, super::record::ATTEMPT_FILE).map_err(disk)?;
            let live = Slots::read_live(record).filter(|live| Some(live.mark) == mark).unwrap_or_default();
            (pick(live.stdout, live.stderr), false)
        }
    };
    let size = count.kept;
    let Some(left) = size.checked_sub(offset) else {
        return Err(LogError::BeyondEnd { offset, size });
    };
    let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(limit).min(LOG_PIECE_BYTES_MAX);
    let mut data = vec![0; wanted];
    let mut done = 0;
    if wanted > 0 {
        let name = match stream {
            OutputStream::Stdout => "stdout",
            OutputStream::Stderr => "stderr",
        };
        let file = slots.open_file(slot, name).map_err(disk)?;
        while let Some(rest) = data.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pread(&file, rest, offset + done as u64).map_err(disk)? {
                0 => break,
                count => done += count,
            }
        }
    }
    data.truncate(done);
    Ok(LogPiece { offset, data, size, dropped: count.dropped, ended })
}

fn disk(errno: rustix::io::Errno) -> LogError {
    LogError::Disk { source: errno.into() }
}
