//! Job files: TOML in, a validated [`JobSpec`] out (docs/jobs.md is the reference for people).
//!
//! Parsing is strict: what is not understood is refused, with its line and column, the source line
//! and, where one exists, the nearest valid name. Nothing is read but the job file and the files
//! that it names, each bounded before it is read.

pub(crate) mod mistake;
mod recurs;
pub(crate) mod section;
mod task;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
pub mod values;

pub use mistake::{JobFileError, Mistake, MistakeKind};
pub use recurs::Recurs;

use fleetwire_common::{
    fb,
    gang::GangError,
    ids::Name,
    job::{JobError, JobSpec, Labels, Terms, TermsError},
    labels::Texts,
    limits::FILES_BYTES_MAX,
};
use mistake::Fault;
use section::{Field, Section};
use std::{collections::BTreeMap, fs, io, ops::Range, path::Path};
use task::Entry;
use toml::de::{DeTable, DeValue};

/// Bytes of a job file: its own text, without the files that it names.
pub const JOB_FILE_BYTES_MAX: u64 = 4 << 20;

const JOB_KEYS: &[&str] = &[
    "name",
    "lost_after",
    "stop_on_disconnect_after",
    "retry_lost",
    "keep",
    "exclusive",
    "stop_after_failures",
    "deadline",
    "start_after",
    "start_at",
    "max_running",
    "await_agents",
    "queue",
    "labels",
    "annotations",
    "cron",
    "task",
];

/// What a job file says.
#[derive(Clone, Debug, PartialEq)]
pub struct JobFile {
    /// The job.
    pub job: JobSpec,
    /// When it is submitted again and again, if it says so.
    pub recurs: Option<Recurs>,
}

/// Reads and checks a job file, for the job alone. Sources of files are looked up relative to the folder it lies in.
pub fn load(path: &Path) -> Result<JobSpec, JobFileError> {
    load_file(path).map(|file| file.job)
}

/// The same, with all that it says.
pub fn load_file(path: &Path) -> Result<JobFile, JobFileError> {
    let text = read_text(path)?;
    let folder = path.parent().map(Path::to_owned).unwrap_or_default();
    parse_file(path, &text, &mut |source| read_bounded(&folder.join(source), FILES_BYTES_MAX as u64))
}

/// A file's text.
pub(crate) fn read_text(path: &Path) -> Result<String, JobFileError> {
    let bytes =
        read_bounded(path, JOB_FILE_BYTES_MAX).map_err(|error| JobFileError::Read { path: path.to_owned(), error })?;
    String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        JobFileError::NotUtf8 { path: path.to_owned(), line }
    })
}

/// Reads TOML.
pub(crate) fn document(text: &str) -> Result<toml::Spanned<DeTable<'_>>, Fault> {
    DeTable::parse(text).map_err(|error| {
        let message = error.message().replace('\n', ", ");
        Fault::new(error.span().unwrap_or(0..0), MistakeKind::Syntax { message })
    })
}

/// Checks a job file's text. `path` is what errors call it; `read` fetches the files that it names.
pub fn parse(
    path: &Path,
    text: &str,
    mut read: impl FnMut(&Path) -> io::Result<Vec<u8>>,
) -> Result<JobSpec, JobFileError> {
    parse_file(path, text, &mut read).map(|file| file.job)
}

fn parse_file(path: &Path, text: &str, read: Read<'_>) -> Result<JobFile, JobFileError> {
    job(path, text, read).map_err(|fault| JobFileError::Mistake(Box::new(Mistake::new(path, text, fault))))
}

/// How files that a job names are read.
type Read<'r> = &'r mut dyn FnMut(&Path) -> io::Result<Vec<u8>>;

fn job(path: &Path, text: &str, read: Read<'_>) -> Result<JobFile, Fault> {
    let document = document(text)?;
    // A mistake that is nowhere in particular is shown where the document begins.
    let start = 0..text.lines().next().map_or(0, str::len);
    let section = Section::open("the job", JOB_KEYS, document.get_ref(), start)?;
    let name = match section.field("name")? {
        Some(field) => field.name()?,
        None => values::name_of_path(path).ok_or_else(|| section.missing("name"))?,
    };
    let mut terms = terms(&section)?;
    section.exclusive("start_at", "cron")?;
    let recurs = section.field("cron")?.map(|field| recurs::recurs(&field)).transpose()?;

    let tasks = section.field("task")?.ok_or_else(|| section.missing("[[task]]"))?;
    let mut entries: Vec<Entry> = Vec::new();
    let mut names: BTreeMap<String, Range<usize>> = BTreeMap::new();
    for (ordinal, value) in tasks.array("a list of tables, written as [[task]]")?.iter().enumerate() {
        let DeValue::Table(table) = value.get_ref() else {
            return Err(section::wrong_type("task", "a table", value));
        };
        let entry = task::entry(table, value.span(), ordinal, read)?;
        let named_at = entry.span_of("name");
        if let Some(first) = names.insert(entry.spec.name.to_string(), named_at.clone()) {
            let kind = MistakeKind::DuplicateTask { name: entry.spec.name.to_string() };
            return Err(Fault::new(named_at, kind).with_context(first, "first used here"));
        }
        entries.push(entry);
    }

    known_tasks(&entries)?;
    if let Some(field) = section.field("stop_after_failures")? {
        terms.stop_after_failures = failures(&field, entries.iter().map(|entry| u64::from(entry.spec.count)).sum())?;
    }
    let specs = entries.iter().map(|entry| entry.spec.clone()).collect();
    let labels = Labels { labels: texts(&section, "labels")?, annotations: texts(&section, "annotations")? };
    let job = JobSpec::new(name, specs, terms).and_then(|job| job.labelled(labels));
    let queue = section.field("queue")?.map_or(Ok(Name::default_queue()), |field| field.name())?;
    let job = job.map(|job| job.in_queue(queue)).map_err(|error| refused(error, &entries, &section))?;
    Ok(JobFile { job, recurs })
}

/// Refuses a task that comes after one that does not exist.
fn known_tasks(entries: &[Entry]) -> Result<(), Fault> {
    let known: Vec<&str> = entries.iter().map(|entry| entry.spec.name.as_str()).collect();
    for entry in entries {
        for (after, at) in entry.spec.after.iter().zip(&entry.after_at) {
            let found = after.task.as_str();
            if !known.contains(&found) {
                let nearest = mistake::nearest(found, &known).map(str::to_owned);
                let kind = MistakeKind::UnknownTask { found: found.to_owned(), nearest };
                return Err(Fault::new(at.clone(), kind));
            }
        }
    }
    Ok(())
}

/// A table of texts.
fn texts(section: &Section<'_>, key: &str) -> Result<Texts, Fault> {
    let Some(field) = section.field(key)? else { return Ok(Texts::new()) };
    let pairs = field.pairs("a table of texts, such as { team = \"vision\" }")?.into_iter();
    pairs.map(|(name, value)| Ok((name.to_owned(), value.text()?.to_owned()))).collect()
}

/// How many tasks may fail: a number, or a percentage of them all.
fn failures(field: &Field<'_>, tasks: u64) -> Result<u32, Fault> {
    const EXPECTED: &str = "a number of tasks, such as 10, or a part of them, such as \"5%\"";
    let DeValue::String(text) = field.value.get_ref() else {
        return match field.value.get_ref() {
            DeValue::Integer(_) => Ok(u32::try_from(field.integer(1..=i64::from(u32::MAX))?).unwrap_or(u32::MAX)),
            _ => Err(section::wrong_type(field.key, EXPECTED, field.value)),
        };
    };
    let percent = text.strip_suffix('%').and_then(|number| number.trim_end().parse::<u64>().ok());
    match percent.filter(|percent| (1..=100).contains(percent)) {
        Some(percent) => Ok(u32::try_from((tasks * percent).div_ceil(100)).unwrap_or(u32::MAX)),
        None => Err(section::wrong_type(field.key, EXPECTED, field.value)),
    }
}

/// When it runs, and what becomes of its attempts when an agent is not heard.
fn terms(section: &Section<'_>) -> Result<Terms, Fault> {
    let mut terms = Terms::default();
    if let Some(field) = section.field("lost_after")? {
        terms.lost_after_s = field.seconds()?;
    }
    if let Some(field) = section.field("stop_on_disconnect_after")? {
        terms.stop_on_disconnect_after_ms = 1_000 * field.seconds()?;
    }
    if let Some(field) = section.field("retry_lost")? {
        terms.retry_lost = field.bool()?;
    }
    if let Some(field) = section.field("keep")? {
        const KEEPS: [fb::Keep; 3] = [fb::Keep::Original, fb::Keep::Replacement, fb::Keep::BestProgress];
        terms.keep = field.choice(&["original", "replacement", "best_progress"], &KEEPS)?;
    }
    if let Some(field) = section.field("exclusive")? {
        terms.exclusive = field.bool()?;
    }
    if let Some(field) = section.field("deadline")? {
        terms.deadline_ms = 1_000 * field.seconds()?;
    }
    if let Some(field) = section.field("start_after")? {
        terms.start_after_ms = 1_000 * field.seconds()?;
    }
    section.exclusive("start_at", "start_after")?;
    if let Some(field) = section.field("start_at")? {
        terms.start_at_ms = field.moment_ms()?;
    }
    if let Some(field) = section.field("await_agents")? {
        terms.await_agents = field.bool()?;
    }
    if let Some(field) = section.field("max_running")? {
        terms.max_running = task::bounded(&field, 1, u32::MAX)?;
    }
    Ok(terms)
}

/// Points at the field that made the job impossible.
fn refused(error: JobError, entries: &[Entry], section: &Section<'_>) -> Fault {
    let spot =
        |task: &str, key| entries.iter().find(|entry| entry.spec.name.as_str() == task).map(|entry| entry.span_of(key));
    let at = match &error {
        JobError::TooMuch { task, what, .. } | JobError::Invalid { task, what, .. } => {
            entries.iter().find(|entry| entry.spec.name.as_str() == task).map(|entry| {
                let result = matches!(&error, JobError::Invalid { found, .. } if *found == entry.spec.result_path);
                let key = if *what == "path" && result { "result" } else { values::key_of(what) };
                entry.span_of(key)
            })
        }
        JobError::Constraints { task, .. } => spot(task, "constraints"),
        JobError::Custom { task, .. } => spot(task, "resources"),
        JobError::Semaphores { task, .. } => spot(task, "semaphores"),
        JobError::Gang { task, error } => spot(task, if *error == GangError::NoGang { "gang_lost" } else { "gang" }),
        JobError::Graph(error) => spot(error.task(), "after"),
        JobError::Terms(TermsError::NeverStopped { .. }) => Some(section.span_of("exclusive")),
        JobError::Terms(TermsError::NeverStarts { .. }) => Some(section.span_of("deadline")),
        JobError::Terms(TermsError::StartsTwice | TermsError::StartsTooLate { .. }) => {
            Some(section.span_of("start_at"))
        }
        JobError::Terms(_) => Some(section.span_of("stop_on_disconnect_after")),
        JobError::Unreadable(_) | JobError::Name { .. } | JobError::NoTasks | JobError::DuplicateTask(_) => None,
    };
    Fault::new(at.unwrap_or_else(|| section.span.clone()), MistakeKind::Refused(error))
}

fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut bytes = Vec::new();
    let file = fs::File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
    }
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {bytes_max} bytes")));
    }
    Ok(bytes)
}
