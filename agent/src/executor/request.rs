//! What is asked of the executor: one attempt, checked before anything is touched.
//!
//! Everything in a [`SpawnRequest`] came from a user, through the scheduler. It is held against
//! the limits here, in the agent, and travels to the supervisor in a form that needs no further
//! decisions: a list of program paths to try, and texts that end in a NUL.

mod order;

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use super::heard::HeardCell;
use super::limits::{
    FILES_BYTES_MAX, FILES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX, REQUEST_BYTES_MAX, SEARCH_FOLDERS_MAX, STRINGS_MAX,
    TASK_ID_BYTES_MAX,
};
use super::record::{AttemptKey, SlotId};
use super::wire::Writer;

pub(super) use self::order::{HEADER_BYTES, Order, header};

/// One attempt to run.
#[derive(Debug, Clone, Default)]
pub struct SpawnRequest<'a> {
    /// The task's id, as assigned.
    pub task_id: &'a str,
    /// The attempt's number.
    pub attempt: u32,
    /// Which job has that number; 0 = not known.
    pub job_key: u64,
    /// The task's index in its array.
    pub index: u32,
    /// The program: a path, or a name that is looked up in `PATH`.
    pub command: &'a str,
    /// Its arguments, without the program's own name.
    pub arguments: Vec<&'a str>,
    /// Its environment, complete; names that begin with `FLEETWIRE_` are ours, but for a sweep's `FLEETWIRE_PARAM_…` and
    /// a gang's `FLEETWIRE_GANG_…`.
    pub environment: Vec<(&'a str, &'a str)>,
    /// JSON text, given to the task as `FLEETWIRE_PARAMETERS`.
    pub parameters: &'a str,
    /// Files that appear in its working directory.
    pub files: Vec<InlineFile<'a>>,
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// It ends, or does not start, when the scheduler was not heard for so long.
    pub stop_unheard_after: Option<Duration>,
    /// The file in the working directory that holds the result; `None` is `result`.
    pub result_path: Option<&'a str>,
}

/// A file that the job carries.
#[derive(Debug, Clone, Copy)]
pub struct InlineFile<'a> {
    /// Relative to the working directory, without `..`.
    pub path: &'a str,
    /// Its bytes.
    pub data: &'a [u8],
    /// Whether it may be executed.
    pub executable: bool,
}

/// Why a path of a file or a result was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathRefused {
    /// It names nothing.
    #[error("it is empty")]
    Empty,
    /// It begins with a slash.
    #[error("it is absolute; paths are relative to the task's working directory")]
    Absolute,
    /// It has a component `.`, `..` or an empty one.
    #[error("it has a component `.`, `..` or an empty one")]
    Component,
    /// It holds a NUL.
    #[error("it holds a NUL byte")]
    Nul,
    /// It is longer or deeper than a path may be.
    #[error("it is longer than {PATH_BYTES_MAX} bytes or deeper than {PATH_DEPTH_MAX} folders")]
    TooLong,
}

/// Why a request was refused before anything was started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The task id is empty or too long.
    #[error("a task id has 1 to {TASK_ID_BYTES_MAX} bytes, this one has {bytes}")]
    TaskId {
        /// Its length.
        bytes: usize,
    },
    /// No program was named.
    #[error("the command is empty")]
    CommandEmpty,
    /// A text that the kernel takes must not hold a NUL.
    #[error("the {what} holds a NUL byte")]
    Nul {
        /// Which text.
        what: &'static str,
    },
    /// An environment variable without a usable name.
    #[error("`{name}` cannot be the name of an environment variable")]
    EnvironmentName {
        /// The name.
        name: String,
    },
    /// An inline file may not be where it asks to be.
    #[error("the file `{path}` is refused: {why}")]
    FilePath {
        /// The path.
        path: String,
        /// The reason.
        why: PathRefused,
    },
    /// The result may not be where it is expected.
    #[error("the result path `{path}` is refused: {why}")]
    ResultPath {
        /// The path.
        path: String,
        /// The reason.
        why: PathRefused,
    },
    /// Too many of something.
    #[error("there are {count} {what}, at most {most} are taken")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many came.
        count: usize,
        /// How many may.
        most: usize,
    },
    /// Too many bytes of something.
    #[error("the {what} have {bytes} bytes, at most {most} are taken")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// How many came.
        bytes: usize,
        /// How many may.
        most: usize,
    },
    /// This attempt is in a slot already.
    #[error("attempt {} of task {} was started already", key.attempt, key.task_id)]
    AlreadyHere {
        /// Which attempt.
        key: AttemptKey,
    },
    /// Every slot is occupied by an attempt that has not ended.
    #[error("all {slots_max} slots are occupied by attempts that have not ended")]
    NoFreeSlot {
        /// How many slots there may be.
        slots_max: u32,
    },
    /// The slot's files could not be used.
    #[error("slot {} cannot be used", slot.0)]
    Slot {
        /// Which.
        slot: SlotId,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The spawner could not be told.
    #[error("the spawner cannot be reached")]
    Spawner {
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// Whether a path stays in the working directory: relative, with plain components only.
pub fn check_path(path: &str) -> Result<(), PathRefused> {
    if path.is_empty() {
        return Err(PathRefused::Empty);
    }
    if path.starts_with('/') {
        return Err(PathRefused::Absolute);
    }
    if path.contains('\0') {
        return Err(PathRefused::Nul);
    }
    if path.len() > PATH_BYTES_MAX || path.split('/').count() > PATH_DEPTH_MAX {
        return Err(PathRefused::TooLong);
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..") || part.len() > COMPONENT_BYTES_MAX) {
        return Err(PathRefused::Component);
    }
    Ok(())
}

/// Where a request runs, decided by the agent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub slot: SlotId,
    pub mark: u64,
    /// The executor's folder, absolute.
    pub folder: &'a Path,
    pub output_bytes_max: u64,
    /// When the scheduler was heard.
    pub heard: &'a HeardCell,
}

impl SpawnRequest<'_> {
    /// The attempt that is meant.
    pub fn key(&self) -> AttemptKey {
        AttemptKey { task_id: self.task_id.to_owned(), attempt: self.attempt }
    }

    /// Holds everything against the limits.
    pub(super) fn check(&self) -> Result<(), SpawnError> {
        if self.task_id.is_empty() || self.task_id.len() > TASK_ID_BYTES_MAX {
            return Err(SpawnError::TaskId { bytes: self.task_id.len() });
        }
        if self.command.is_empty() {
            return Err(SpawnError::CommandEmpty);
        }
        let nul = |text: &str, what| if text.contains('\0') { Err(SpawnError::Nul { what }) } else { Ok(()) };
        nul(self.task_id, "task id")?;
        nul(self.command, "command")?;
        nul(self.parameters, "parameters")?;
        bound("arguments", self.arguments.len(), STRINGS_MAX)?;
        bound("environment variables", self.environment.len(), STRINGS_MAX)?;
        bound("files", self.files.len(), FILES_MAX)?;
        for argument in &self.arguments {
            nul(argument, "command line")?;
        }
        for (name, value) in &self.environment {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(SpawnError::EnvironmentName { name: (*name).to_owned() });
            }
            nul(value, "environment")?;
        }
        for file in &self.files {
            check_path(file.path).map_err(|why| SpawnError::FilePath { path: file.path.to_owned(), why })?;
        }
        if let Some(path) = self.result_path {
            check_path(path).map_err(|why| SpawnError::ResultPath { path: path.to_owned(), why })?;
        }
        let bytes = self.files.iter().fold(0_usize, |sum, file| sum.saturating_add(file.data.len()));
        if bytes > FILES_BYTES_MAX {
            return Err(SpawnError::TooLarge { what: "files", bytes, most: FILES_BYTES_MAX });
        }
        Ok(())
    }

    /// Writes the request as the supervisor reads it with [`Order::parse`].
    pub(super) fn encode(&self, place: Place<'_>, buffer: Vec<u8>) -> Result<Vec<u8>, SpawnError> {
        let mut writer = Writer::reuse(buffer);
        writer.u32(ORDER_VERSION);
        writer.u32(place.slot.0);
        writer.u64(place.mark);
        writer.u32(self.attempt);
        writer.bytes(self.task_id.as_bytes());
        let timeout_us = self.timeout.map_or(0, |timeout| micros(timeout).max(1));
        writer.u64(timeout_us);
        writer.u64(micros(self.grace));
        writer.u64(place.output_bytes_max);
        writer.u64(self.stop_unheard_after.map_or(0, |after| micros(after).max(1)));
        writer.u64(place.heard.heard_us());
        writer.bytes(&place.heard.boot());
        writer.bytes(place.heard.path().as_os_str().as_bytes());
        let result_path = self.result_path.unwrap_or(RESULT_PATH_DEFAULT);
        writer.c_text(&[result_path.as_bytes()]);
        writer.bytes(self.command.as_bytes());
        self.put_programs(&mut writer);
        writer.u32(u32::try_from(self.arguments.len()).unwrap_or(u32::MAX).saturating_add(1));
        writer.c_text(&[self.command.as_bytes()]);
        for argument in &self.arguments {
            writer.c_text(&[argument.as_bytes()]);
        }
        self.put_environment(&mut writer, place, result_path);
        writer.u32(u32::try_from(self.files.len()).unwrap_or(u32::MAX));
        for file in &self.files {
            writer.c_text(&[file.path.as_bytes()]);
            writer.u8(u8::from(file.executable));
            writer.bytes(file.data);
        }
        if writer.len() > REQUEST_BYTES_MAX {
            let bytes = writer.len();
            return Err(SpawnError::TooLarge { what: "assignment's parts", bytes, most: REQUEST_BYTES_MAX });
        }
        Ok(writer.finish())
    }

    /// The paths at which the program may be, in the order in which they are tried.
    fn put_programs(&self, writer: &mut Writer) {
        let command = self.command.as_bytes();
        if self.command.contains('/') {
            writer.u32(1);
            writer.c_text(&[command]);
            return;
        }
        let folders = || self.search_path().split(':').take(SEARCH_FOLDERS_MAX);
        writer.u32(u32::try_from(folders().count()).unwrap_or(u32::MAX));
        for folder in folders() {
            // An empty folder in PATH is the working directory, as everywhere.
            let folder = if folder.is_empty() { "." } else { folder };
            writer.c_text(&[folder.as_bytes(), b"/", command]);
        }
    }

    fn search_path(&self) -> &str {
        let given = self.environment.iter().find(|(name, _)| *name == "PATH");
        given.map_or(SEARCH_PATH_DEFAULT, |(_, value)| value)
    }

    fn put_environment(&self, writer: &mut Writer, place: Place<'_>, result_path: &str) {
        let count_at = writer.len();
        writer.u32(0);
        let mut count = 0_u32;
        let mut put = |parts: &[&[u8]]| {
            writer.c_text(parts);
            count = count.saturating_add(1);
        };
        for (name, value) in &self.environment {
            let handed = ["FLEETWIRE_PARAM_", "FLEETWIRE_GANG_"].iter().any(|ours| name.starts_with(ours));
            if !name.starts_with("FLEETWIRE_") || handed {
                put(&[name.as_bytes(), b"=", value.as_bytes()]);
            }
        }
        if !self.environment.iter().any(|(name, _)| *name == "PATH") {
            put(&[b"PATH=", SEARCH_PATH_DEFAULT.as_bytes()]);
        }
        let folder = place.folder.as_os_str().as_bytes();
        let slot = place.slot.0.to_string();
        put(&[b"FLEETWIRE_TASK_ID=", self.task_id.as_bytes()]);
        put(&[b"FLEETWIRE_ATTEMPT=", self.attempt.to_string().as_bytes()]);
        put(&[b"FLEETWIRE_INDEX=", self.index.to_string().as_bytes()]);
        put(&[b"FLEETWIRE_PARAMETERS=", self.parameters.as_bytes()]);
        put(&[b"FLEETWIRE_RESULT=", folder, b"/", slot.as_bytes(), b"/work/", result_path.as_bytes()]);
        put(&[b"FLEETWIRE_REPORT_FD=", REPORT_FD.to_string().as_bytes()]);
        put(&[mark_variable(place.mark).as_bytes()]);
        writer.set_u32(count_at, count);
    }
}

/// The variable by which every process of an attempt can be found, `NAME=value`.
pub(super) fn mark_variable(mark: u64) -> String {
    format!("FLEETWIRE_MARK={mark:016x}")
}

fn bound(what: &'static str, count: usize, most: usize) -> Result<(), SpawnError> {
    if count > most { Err(SpawnError::TooMany { what, count, most }) } else { Ok(()) }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The file descriptor on which a task writes its report lines.
pub(super) const REPORT_FD: i32 = 3;
/// Where the result is looked for when the assignment does not say.
pub const RESULT_PATH_DEFAULT: &str = "result";
/// What a task without `PATH` gets.
pub const SEARCH_PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const COMPONENT_BYTES_MAX: usize = 255;
// Agent and spawner are one executable, but a spawner may outlive an upgrade by a moment.
const ORDER_VERSION: u32 = u32::from_le_bytes(*b"fwO\x02");

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn hostile_paths_are_refused() {
        for (path, why) in [
            ("", PathRefused::Empty),
            ("/etc/passwd", PathRefused::Absolute),
            ("..", PathRefused::Component),
            ("a/../b", PathRefused::Component),
            ("./a", PathRefused::Component),
            ("a//b", PathRefused::Component),
            ("a/", PathRefused::Component),
            ("a\0b", PathRefused::Nul),
        ] {
            assert_eq!(check_path(path), Err(why), "{path:?}");
        }
        assert_eq!(check_path(&"a/".repeat(40)), Err(PathRefused::TooLong));
        assert_eq!(check_path(&"a".repeat(300)), Err(PathRefused::Component));
        assert_eq!(check_path("data/..hidden/a b"), Ok(()));
    }

    #[test]
    fn what_the_agent_writes_the_supervisor_reads() {
        let request = SpawnRequest {
            task_id: "1.0.2",
            attempt: 4,
            command: "sh",
            arguments: vec!["-c", "echo"],
            environment: vec![("A", "1"), ("FLEETWIRE_MARK", "forged"), ("PATH", "/x::/y")],
            files: vec![InlineFile { path: "a/b", data: b"hello", executable: true }],
            grace: Duration::from_secs(2),
            ..SpawnRequest::default()
        };
        request.check().unwrap();
        let heard = HeardCell::of(Path::new("/no/such/folder"), [3; 16]);
        let folder = Path::new("/data/slots");
        let place = Place { slot: SlotId(7), mark: 0xab, folder, output_bytes_max: 10, heard: &heard };
        let bytes = request.encode(place, Vec::new()).unwrap();
        let order = Order::parse(&bytes).unwrap();
        assert_eq!(order.programs, [c"/x/sh", c"./sh", c"/y/sh"]);
        assert_eq!(order.arguments, [c"sh", c"-c", c"echo"]);
        assert!(order.environment.contains(&c"FLEETWIRE_RESULT=/data/slots/7/work/result"));
        assert!(order.environment.contains(&c"FLEETWIRE_MARK=00000000000000ab"));
        assert!(!order.environment.iter().any(|text| text.to_bytes().ends_with(b"forged")));
        assert_eq!((order.files[0].path, order.files[0].data), ("a/b", &b"hello"[..]));
        assert_eq!((order.timeout_us, order.grace_us), (0, 2_000_000));
        for cut in 0..bytes.len() {
            assert!(Order::parse(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn requests_that_cannot_run_are_refused_with_their_reason() {
        let good = SpawnRequest { task_id: "1", command: "true", ..SpawnRequest::default() };
        good.check().unwrap();
        let refused = |request: SpawnRequest<'_>| request.check().unwrap_err().to_string();
        assert_eq!(refused(SpawnRequest { command: "", ..good.clone() }), "the command is empty");
        let environment = vec![("A=B", "1")];
        assert!(refused(SpawnRequest { environment, ..good.clone() }).contains("`A=B`"));
        let arguments = vec!["a\0b"];
        assert!(refused(SpawnRequest { arguments, ..good.clone() }).contains("NUL"));
        let data = vec![0; FILES_BYTES_MAX + 1];
        let files = vec![InlineFile { path: "a", data: &data, executable: false }];
        assert!(refused(SpawnRequest { files, ..good.clone() }).contains("1048577"));
        assert!(refused(SpawnRequest { result_path: Some("/r"), ..good }).contains("absolute"));
    }
}
