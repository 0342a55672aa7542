//! Identifiers. Each is small, ordered and printable; the text forms are what the CLI and the wire use.

use crate::{fb, limits::NAME_BYTES_MAX};
use std::{fmt, str::FromStr, sync::Arc};

/// A place in a journal: the number of facts up to and including that one. 0 = before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// A job's number in its cluster, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// Tells a job from another one that has its number in another journal: a scheduler that runs on a restored backup gives
/// numbers that the original gave as well. Made of what was submitted, so it is the same for the same submit; 0 where it is
/// not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKey(pub u64);

impl JobKey {
    /// Whether these are surely two jobs. Who does not know a key cannot tell.
    pub fn differs(self, other: JobKey) -> bool {
        self != other && self != JobKey(0) && other != JobKey(0)
    }
}

/// One task: its job, the ordinal of its entry in the job file, and its index in that entry's array.
/// Written `7.0.42`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// The job.
    pub job: JobId,
    /// Ordinal of the task's entry in the job, from 0.
    pub entry: u16,
    /// Index in the entry's array, from 0.
    pub index: u32,
}

/// One try at a task; `attempt` counts from 1 and is the fencing token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    /// The task.
    pub task: TaskId,
    /// Rises with every assignment of the task, from 1.
    pub attempt: u32,
}

impl AttemptId {
    /// None comes after it.
    pub const LAST: AttemptId =
        AttemptId { task: TaskId { job: JobId(u64::MAX), entry: u16::MAX, index: u32::MAX }, attempt: u32::MAX };
}

/// One authenticated connection, numbered by the shell that accepted it; never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// An agent's number in its cluster, from 0: an index into tables, never on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId(pub u32);

/// A join token's number, from 1. On the enrolment protocol it is the key id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub u32);

/// A UUIDv7 made by the client, by which a repeated submit is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubmitId(pub [u8; 16]);

impl SubmitId {
    /// The Unix milliseconds at which the client made it (RFC 9562 section 5.7).
    pub fn made_at_ms(&self) -> u64 {
        let [a, b, c, d, e, f, ..] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    /// Makes a UUIDv7 from the time and 10 random bytes (RFC 9562 section 5.7).
    pub fn new(unix_ms: u64, random: [u8; 10]) -> SubmitId {
        let [_, _, a, b, c, d, e, f] = unix_ms.to_be_bytes();
        let [r0, r1, r2, r3, r4, r5, r6, r7, r8, r9] = random;
        SubmitId([a, b, c, d, e, f, 0x70 | (r0 & 0x0f), r1, 0x80 | (r2 & 0x3f), r3, r4, r5, r6, r7, r8, r9])
    }
}

/// A name as agents, operators, jobs and labels bear it: 1 to 64 of `a-z A-Z 0-9 . _ -`, beginning
/// with a letter or digit. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Why a text is no [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("a name must not be empty")]
    Empty,
    /// Too long.
    #[error("a name has at most {NAME_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// A character that names do not have.
    #[error(
        "`{name}` has the character {found:?}: a name has only a-z A-Z 0-9 . _ - and begins with a letter or digit"
    )]
    Character {
        /// The whole name.
        name: String,
        /// The first character that is wrong.
        found: char,
    },
}

impl Name {
    /// The queue of jobs that name none.
    pub fn default_queue() -> Name {
        Name("default".into())
    }

    /// Checks and makes a name.
    pub fn new(text: &str) -> Result<Name, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong(text.len()));
        }
        let wrong = |(place, c): (usize, char)| {
            let fine = c.is_ascii_alphanumeric() || (place > 0 && matches!(c, '.' | '_' | '-'));
            (!fine).then_some(c)
        };
        match text.char_indices().find_map(wrong) {
            Some(found) => Err(NameError::Character { name: text.to_owned(), found }),
            None => Ok(Name(text.into())),
        }
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Whoever a certificate names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Principal {
    /// What it may do.
    pub role: fb::Role,
    /// Its name, unique among all principals of its role.
    pub name: Name,
}

impl Principal {
    /// The URI that its certificate bears: `spiffe://<cluster>/<role>/<name>`.
    pub fn uri(&self, cluster: &str) -> String {
        format!("spiffe://{cluster}/{}/{}", role_name(self.role), self.name)
    }

    // §transport-3
    /// Reads such a URI. `None` unless it is exactly one of this cluster.
    pub fn from_uri(uri: &str, cluster: &str) -> Option<Principal> {
        let path = uri.strip_prefix("spiffe://")?.strip_prefix(cluster)?.strip_prefix('/')?;
        let (role, name) = path.split_once('/')?;
        Some(Principal { role: role_from_name(role)?, name: Name::new(name).ok()? })
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", role_name(self.role), self.name)
    }
}

/// A role's name in URIs and on the command line.
pub fn role_name(role: fb::Role) -> &'static str {
    match role {
        fb::Role::Agent => "agent",
        fb::Role::Operator => "operator",
        fb::Role::Viewer => "viewer",
        fb::Role::Service => "service",
        _ => "unknown",
    }
}

/// The role of that name.
pub fn role_from_name(name: &str) -> Option<fb::Role> {
    [fb::Role::Agent, fb::Role::Operator, fb::Role::Viewer, fb::Role::Service]
        .into_iter()
        .find(|role| role_name(*role) == name)
}

/// Why a text is no task or job number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not a task id: expected JOB.ENTRY.INDEX, as in 7.0.42")]
pub struct TaskIdError {
    /// What came.
    pub found: String,
}

impl FromStr for TaskId {
    type Err = TaskIdError;

    fn from_str(text: &str) -> Result<TaskId, TaskIdError> {
        let parse = || {
            let mut parts = text.split('.');
            let job = number(parts.next()?)?;
            let entry = u16::try_from(number(parts.next()?)?).ok()?;
            let index = u32::try_from(number(parts.next()?)?).ok()?;
            parts.next().is_none().then_some(TaskId { job: JobId(job), entry, index })
        };
        parse().ok_or_else(|| TaskIdError { found: text.chars().take(64).collect() })
    }
}

/// A decimal number in its only form: no sign, no leading zero. One number, one text.
fn number(text: &str) -> Option<u64> {
    let canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
    if canonical { text.parse().ok() } else { None }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.job.0, self.entry, self.index)
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.task, self.attempt)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn task_ids_have_one_text_form_each() {
        let id: TaskId = "7.0.42".parse().unwrap();
        assert_eq!(id, TaskId { job: JobId(7), entry: 0, index: 42 });
        assert_eq!(id.to_string(), "7.0.42");
        for wrong in ["", "7", "7.0", "7.0.42.1", "07.0.1", "7.+0.1", "7.0.-1", "7.65536.0", "7.0.4294967296", " 7.0.1"]
        {
            assert!(wrong.parse::<TaskId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn principals_are_read_back_only_for_their_cluster() {
        let agent = Principal { role: fb::Role::Agent, name: Name::new("pi-1").unwrap() };
        assert_eq!(Principal::from_uri(&agent.uri("c1"), "c1"), Some(agent.clone()));
        assert_eq!(Principal::from_uri(&agent.uri("c1"), "c2"), None);
        assert_eq!(Principal::from_uri("spiffe://c1/agent/pi-1/x", "c1"), None);
        assert_eq!(Principal::from_uri("spiffe://c1/root/pi-1", "c1"), None);
    }

    #[test]
    fn submit_ids_carry_their_time() {
        assert_eq!(SubmitId::new(1_700_000_000_123, [0xff; 10]).made_at_ms(), 1_700_000_000_123);
    }
}
