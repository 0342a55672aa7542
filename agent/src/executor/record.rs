//! What a slot's `attempt` file and the event messages say.
//!
//! One file holds everything about the attempt in a slot, and its lock is the slot's lock:
//!
//! ```text
//! 0      assignment: which attempt is in this slot (sealed; written by the agent under the lock)
//! 1024   live: processes, start, and how much output is kept so far (by the supervisor)
//! 1152   verdict: how the attempt ended (sealed; by whoever holds the lock); until then, and only
//!        if no agent listens, the latest report (sealed; by the supervisor)
//! ```
//!
//! Nothing is ever truncated: live counters and a verdict that carry another attempt's mark are
//! left over from it and count as absent. A mark is unique among all attempts on a device.

use fleetwire_schemas::EndReason;

use super::limits::{MESSAGE_BYTES_MAX, METRICS_MAX, RESULT_BYTES_MAX};
use super::wire::{Malformed, Reader, Writer, open, seal};

/// Which attempt is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptKey {
    /// The task's id, as assigned.
    pub task_id: String,
    /// The attempt's number.
    pub attempt: u32,
}

/// The number of a slot: the name of its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub u32);

/// What a task told by report lines.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// 0.0 to 1.0; absent when it is not new (in an event) or was never told (in a verdict).
    pub progress: Option<f32>,
    /// The task's own words about its progress; empty when there are none.
    pub note: String,
    /// Finite values by name, at most 64.
    pub metrics: Vec<(String, f64)>,
    /// Lines that were refused so far.
    pub refused: u64,
}

/// What the attempt used, summed over its processes as far as the kernel tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in user mode, µs.
    pub user_us: u64,
    /// CPU time in the kernel, µs.
    pub system_us: u64,
    /// Largest resident memory of one process, KiB.
    pub memory_peak_kb: u64,
    /// From the start of the program to its end, µs.
    pub wall_us: u64,
}

/// One output stream of an attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutputCount {
    /// Bytes in the slot's file.
    pub kept: u64,
    /// Bytes beyond the bound (or that the disk refused), not kept.
    pub dropped: u64,
}

/// A moment on the device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moment {
    /// The device's wall clock, Unix ms.
    pub unix_ms: u64,
    /// The boot-time clock (goes on in suspend), µs; comparable only within one boot.
    pub boot_us: u64,
}

/// Why a program could not be started at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFailure {
    /// No such program, in `PATH` or at the path that was given.
    NotFound,
    /// It is there, but may not be executed.
    PermissionDenied,
    /// Arguments and environment are larger than the kernel takes.
    TooLarge,
    /// It is there, but not for this machine, or without a `#!` line, or its interpreter is missing.
    NotExecutable,
    /// The job's files could not be written, or the working directory not be emptied.
    Files,
    /// The device has no processes, memory or file descriptors left.
    Resources,
    /// Anything else that the kernel said.
    Other,
}

/// How an attempt ended. Its last process is gone.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Which attempt.
    pub key: AttemptKey,
    /// `Exited`, `Signalled`, `RunTimeout`, `Cancelled`, `SpawnFailed` or `SupervisorLost`.
    pub reason: EndReason,
    /// The main process's exit code; 0 when a signal ended it or there was none.
    pub exit_code: i32,
    /// The signal that ended the main process, or 0.
    pub signal: u8,
    /// For `SpawnFailed`: the class of the failure.
    pub failure: Option<StartFailure>,
    /// For people: why it did not start, was stopped, or has no result. Mostly empty.
    pub message: String,
    /// The result file's bytes; `None` when the task wrote none or it could not be taken.
    pub result: Option<Vec<u8>>,
    /// What was used.
    pub usage: Usage,
    /// Standard output.
    pub stdout: OutputCount,
    /// Standard error.
    pub stderr: OutputCount,
    /// When the program was started; zero when it never was, or nobody knows.
    pub started: Moment,
    /// When the verdict was made.
    pub ended: Moment,
    /// The latest that the task reported.
    pub report: Report,
}

/// Which attempt occupies a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    pub mark: u64,
    pub key: AttemptKey,
    /// Which job has that number; 0 = not known.
    pub job_key: u64,
}

/// What a supervisor notes while the task runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Live {
    pub mark: u64,
    pub supervisor: u32,
    pub main: u32,
    pub started: Moment,
    pub stdout: OutputCount,
    pub stderr: OutputCount,
}

impl Assignment {
    pub fn seal(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u64(self.mark);
        writer.u32(self.key.attempt);
        writer.bytes(self.key.task_id.as_bytes());
        writer.u64(self.job_key);
        seal(ASSIGNMENT_MAGIC, &writer.finish())
    }

    pub fn open(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(open(ASSIGNMENT_MAGIC, bytes)?);
        let mark = reader.u64()?;
        let attempt = reader.u32()?;
        let task_id = reader.text()?.to_owned();
        // Version 0.1 did not write it down.
        let job_key = reader.u64().unwrap_or_default();
        Ok(Self { mark, key: AttemptKey { task_id, attempt }, job_key })
    }
}

impl Live {
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u32(LIVE_MAGIC);
        writer.u32(self.supervisor);
        writer.u64(self.mark);
        writer.u32(self.main);
        put_moment(&mut writer, self.started);
        put_output(&mut writer, self.stdout);
        put_output(&mut writer, self.stderr);
        writer.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u32()? != LIVE_MAGIC {
            return Err(Malformed);
        }
        let supervisor = reader.u32()?;
        Ok(Self {
            supervisor,
            mark: reader.u64()?,
            main: reader.u32()?,
            started: take_moment(&mut reader)?,
            stdout: take_output(&mut reader)?,
            stderr: take_output(&mut reader)?,
        })
    }
}

impl Verdict {
    /// A verdict of which only the reason is known.
    pub(super) fn bare(key: AttemptKey, reason: EndReason, message: String) -> Self {
        Self {
            key,
            reason,
            exit_code: 0,
            signal: 0,
            failure: None,
            message,
            result: None,
            usage: Usage::default(),
            stdout: OutputCount::default(),
            stderr: OutputCount::default(),
            started: Moment::default(),
            ended: Moment::default(),
            report: Report::default(),
        }
    }

    pub(super) fn seal(&self, mark: u64) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u64(mark);
        writer.u32(self.key.attempt);
        writer.bytes(self.key.task_id.as_bytes());
        writer.u8(self.reason.0);
        writer.i32(self.exit_code);
        writer.u8(self.signal);
        writer.u8(self.failure.map_or(0, StartFailure::code));
        writer.bytes(cut(&self.message, MESSAGE_BYTES_MAX).as_bytes());
        writer.u8(u8::from(self.result.is_some()));
        writer.bytes(self.result.as_deref().unwrap_or_default());
        writer.u64(self.usage.user_us);
        writer.u64(self.usage.system_us);
        writer.u64(self.usage.memory_peak_kb);
        writer.u64(self.usage.wall_us);
        put_output(&mut writer, self.stdout);
        put_output(&mut writer, self.stderr);
        put_moment(&mut writer, self.started);
        put_moment(&mut writer, self.ended);
        put_report(&mut writer, &self.report);
        seal(VERDICT_MAGIC, &writer.finish())
    }

    /// The verdict at the start of `bytes`, if it is whole and belongs to this attempt.
    pub(super) fn open(bytes: &[u8], assignment: &Assignment) -> Result<Self, Malformed> {
        let mut reader = Reader::new(open(VERDICT_MAGIC, bytes)?);
        if reader.u64()? != assignment.mark {
            return Err(Malformed);
        }
        let attempt = reader.u32()?;
        let key = AttemptKey { task_id: reader.text()?.to_owned(), attempt };
        if key != assignment.key {
            return Err(Malformed);
        }
        let reason = EndReason(reader.u8()?);
        let exit_code = reader.i32()?;
        let signal = reader.u8()?;
        let failure = StartFailure::from_code(reader.u8()?);
        let message = reader.text()?.to_owned();
        let has_result = reader.u8()? != 0;
        let result = reader.bytes()?;
        if result.len() > RESULT_BYTES_MAX || reason.variant_name().is_none() {
            return Err(Malformed);
        }
        Ok(Self {
            key,
            reason,
            exit_code,
            signal,
            failure,
            message,
            result: has_result.then(|| result.to_vec()),
            usage: Usage {
                user_us: reader.u64()?,
                system_us: reader.u64()?,
                memory_peak_kb: reader.u64()?,
                wall_us: reader.u64()?,
            },
            stdout: take_output(&mut reader)?,
            stderr: take_output(&mut reader)?,
            started: take_moment(&mut reader)?,
            ended: take_moment(&mut reader)?,
            report: take_report(&mut reader)?,
        })
    }
}

impl Report {
    pub(super) fn seal(&self, mark: u64) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u64(mark);
        put_report(&mut writer, self);
        seal(REPORT_MAGIC, &writer.finish())
    }

    pub(super) fn open(bytes: &[u8], mark: u64) -> Result<Self, Malformed> {
        let mut reader = Reader::new(open(REPORT_MAGIC, bytes)?);
        if reader.u64()? == mark { take_report(&mut reader) } else { Err(Malformed) }
    }
}

impl StartFailure {
    const ALL: [(u8, Self); 7] = [
        (1, Self::NotFound),
        (2, Self::PermissionDenied),
        (3, Self::TooLarge),
        (4, Self::NotExecutable),
        (5, Self::Files),
        (6, Self::Resources),
        (7, Self::Other),
    ];

    fn code(self) -> u8 {
        Self::ALL.iter().find(|(_, failure)| *failure == self).map_or(0, |(code, _)| *code)
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.iter().find(|(other, _)| *other == code).map(|(_, failure)| *failure)
    }
}

/// The first `bytes_max` bytes of a text, cut between characters.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or_default()
}

pub(super) fn put_moment(writer: &mut Writer, moment: Moment) {
    writer.u64(moment.unix_ms);
    writer.u64(moment.boot_us);
}

pub(super) fn take_moment(reader: &mut Reader<'_>) -> Result<Moment, Malformed> {
    Ok(Moment { unix_ms: reader.u64()?, boot_us: reader.u64()? })
}

fn put_output(writer: &mut Writer, output: OutputCount) {
    writer.u64(output.kept);
    writer.u64(output.dropped);
}

fn take_output(reader: &mut Reader<'_>) -> Result<OutputCount, Malformed> {
    Ok(OutputCount { kept: reader.u64()?, dropped: reader.u64()? })
}

pub(super) fn put_report(writer: &mut Writer, report: &Report) {
    writer.u8(u8::from(report.progress.is_some()));
    writer.f32(report.progress.unwrap_or_default());
    writer.bytes(report.note.as_bytes());
    writer.u64(report.refused);
    writer.u32(u32::try_from(report.metrics.len()).unwrap_or(u32::MAX));
    for (name, value) in &report.metrics {
        writer.bytes(name.as_bytes());
        writer.f64(*value);
    }
}

pub(super) fn take_report(reader: &mut Reader<'_>) -> Result<Report, Malformed> {
    let has_progress = reader.u8()? != 0;
    let progress = reader.f32()?;
    let note = reader.text()?.to_owned();
    let refused = reader.u64()?;
    let count = reader.count()?;
    if count > METRICS_MAX || !(0.0..=1.0).contains(&progress) {
        return Err(Malformed);
    }
    let mut metrics = Vec::with_capacity(count);
    for _ in 0..count {
        let name = reader.text()?.to_owned();
        let value = reader.f64()?;
        if !value.is_finite() {
            return Err(Malformed);
        }
        metrics.push((name, value));
    }
    Ok(Report { progress: has_progress.then_some(progress), note, metrics, refused })
}

/// Where the live counters are, bytes from the start of `attempt`.
pub(super) const LIVE_OFFSET: u64 = 1024;
/// Where the verdict is.
pub(super) const VERDICT_OFFSET: u64 = 1152;
/// The file's name in the slot's folder.
pub(super) const ATTEMPT_FILE: &str = "attempt";

// The last byte of each magic is the version of its record.
const ASSIGNMENT_MAGIC: u32 = u32::from_le_bytes(*b"fwA\x01");
const LIVE_MAGIC: u32 = u32::from_le_bytes(*b"fwL\x01");
const VERDICT_MAGIC: u32 = u32::from_le_bytes(*b"fwV\x01");
const REPORT_MAGIC: u32 = u32::from_le_bytes(*b"fwR\x01");

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn verdict() -> (Assignment, Verdict) {
        let key = AttemptKey { task_id: "4.1.7".to_owned(), attempt: 3 };
        let mut verdict = Verdict::bare(key.clone(), EndReason::Exited, "a message".to_owned());
        verdict.exit_code = -4;
        verdict.failure = Some(StartFailure::TooLarge);
        verdict.result = Some(b"[1,2]".to_vec());
        verdict.stdout = OutputCount { kept: 5, dropped: 6 };
        verdict.report = Report {
            progress: Some(0.5),
            note: "half".to_owned(),
            metrics: vec![("loss".to_owned(), 0.25)],
            refused: 2,
        };
        (Assignment { mark: 99, key, job_key: 7 }, verdict)
    }

    #[test]
    fn records_come_back_as_they_were() {
        let (assignment, verdict) = verdict();
        assert_eq!(Assignment::open(&assignment.seal()), Ok(assignment.clone()));
        assert_eq!(Verdict::open(&verdict.seal(99), &assignment), Ok(verdict.clone()));
        let live = Live { mark: 99, main: 3, stdout: verdict.stdout, ..Live::default() };
        assert_eq!(Live::decode(&live.encode()), Ok(live));
        assert!(LIVE_OFFSET as usize + live.encode().len() <= VERDICT_OFFSET as usize);
    }

    #[test]
    fn a_verdict_of_another_attempt_or_a_torn_one_counts_as_absent() {
        let (assignment, verdict) = verdict();
        assert!(Verdict::open(&verdict.seal(98), &assignment).is_err());
        let sealed = verdict.seal(99);
        for cut in 0..sealed.len() {
            assert!(Verdict::open(&sealed[..cut], &assignment).is_err());
        }
        let mut other = assignment.clone();
        other.key.attempt = 4;
        assert!(Verdict::open(&sealed, &other).is_err());
    }

    #[test]
    fn the_largest_assignment_fits_before_the_live_counters() {
        let key = AttemptKey { task_id: "t".repeat(super::super::limits::TASK_ID_BYTES_MAX), attempt: 1 };
        assert!((Assignment { mark: 1, key, job_key: 7 }).seal().len() as u64 <= LIVE_OFFSET);
    }
}
