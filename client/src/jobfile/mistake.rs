//! What can be wrong with a job file, and how it is shown: message, place, source line, help.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
pub(crate) use fleetwire_common::nearest::nearest;
use fleetwire_common::{custom::CustomError, ids::NameError, job::JobError, policy::PolicyError, resources::UnitError};
use std::{
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
};

/// Why a job file, or a policy file, is refused.
#[derive(Debug, thiserror::Error)]
pub enum JobFileError {
    /// It cannot be read at all.
    #[error("cannot read the file `{path}`: {error}")]
    Read {
        /// Where it was looked for.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
    /// It is no text.
    #[error("the file `{path}` is not UTF-8: line {line} has a byte that no text has")]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// Something in it is wrong.
    #[error("{0}")]
    Mistake(Box<Mistake>),
}

/// What is wrong, and with what.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MistakeKind {
    /// It is no TOML.
    #[error("not valid TOML: {message}")]
    Syntax {
        /// The parser's words.
        message: String,
    },
    /// A key that does not exist there.
    #[error("unknown key `{found}` in {section}")]
    UnknownKey {
        /// What came.
        found: String,
        /// Where.
        section: &'static str,
        /// The most similar key that exists.
        nearest: Option<&'static str>,
        /// All keys that exist.
        known: &'static [&'static str],
    },
    /// A key that must be there is not.
    #[error("{section} has no `{field}`")]
    Missing {
        /// Where.
        section: &'static str,
        /// What is missing.
        field: &'static str,
    },
    /// A value of another type.
    #[error("`{field}` is {found}: expected {expected}")]
    WrongType {
        /// The key.
        field: String,
        /// What came.
        found: &'static str,
        /// What would do.
        expected: &'static str,
    },
    /// An amount without a unit, or with one that does not exist.
    #[error("{0}")]
    Unit(UnitError),
    /// A text that is no duration, or one that the field cannot count.
    #[error("`{found}` is not a duration for `{field}`: expected {expected}")]
    Duration {
        /// The key.
        field: String,
        /// What came.
        found: String,
        /// What would do.
        expected: &'static str,
    },
    /// A date or time that is no moment: where it is meant is not said.
    #[error("`{found}` is no moment for `{field}`: expected {expected}")]
    Moment {
        /// The key.
        field: String,
        /// What came.
        found: String,
        /// What would do.
        expected: &'static str,
    },
    /// A number outside its range.
    #[error("`{field}` is {found}: expected {min} to {max}")]
    OutOfRange {
        /// The key.
        field: String,
        /// What came.
        found: String,
        /// The smallest that may be.
        min: i64,
        /// The largest that may be.
        max: i64,
    },
    /// A word that is none of those that exist.
    #[error("`{field}` is `{found}`, which does not exist")]
    UnknownValue {
        /// The key.
        field: String,
        /// What came.
        found: String,
        /// The most similar one that exists.
        nearest: Option<&'static str>,
        /// All that exist.
        known: &'static [&'static str],
    },
    /// A name that is none.
    #[error("{0}")]
    Name(NameError),
    /// Two task entries of one name.
    #[error("two tasks are called `{name}`")]
    DuplicateTask {
        /// The name.
        name: String,
    },
    /// A task that comes after one that does not exist.
    #[error("there is no task `{found}`")]
    UnknownTask {
        /// What came.
        found: String,
        /// The most similar name that exists.
        nearest: Option<String>,
    },
    /// Two keys that exclude each other.
    #[error("`{field}` and `{other}` exclude each other")]
    Conflict {
        /// The second.
        field: &'static str,
        /// The first.
        other: &'static str,
    },
    /// A condition on labels that cannot be read.
    #[error("`{found}` is not a constraint")]
    Constraint {
        /// What came.
        found: String,
    },
    /// A value that JSON does not have.
    #[error("{found} cannot be a parameter: JSON has no such value")]
    Parameter {
        /// What came.
        found: String,
    },
    /// Names or amounts that are no custom resources.
    #[error("{0}")]
    Custom(CustomError),
    /// A file that the job carries cannot be read.
    #[error("cannot read `{path}`: {error}")]
    File {
        /// As the job file names it.
        path: String,
        /// What the operating system said.
        error: String,
    },
    /// It can be read, but not run.
    #[error("{0}")]
    Refused(JobError),
    /// It can be read, but would starve a queue.
    #[error("{0}")]
    Policy(PolicyError),
}

/// A mistake with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Mistake {
    /// The file.
    pub path: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub kind: MistakeKind,
    source: String,
    span: Range<usize>,
    context: Option<(Range<usize>, &'static str)>,
}

/// A mistake whose place is not worked out yet.
pub(crate) struct Fault {
    span: Range<usize>,
    kind: Box<MistakeKind>,
    context: Option<(Range<usize>, &'static str)>,
}

impl Fault {
    pub(crate) fn new(span: Range<usize>, kind: MistakeKind) -> Fault {
        Fault { span, kind: Box::new(kind), context: None }
    }

    pub(crate) fn with_context(self, span: Range<usize>, label: &'static str) -> Fault {
        Fault { context: Some((span, label)), ..self }
    }
}

impl Mistake {
    pub(crate) fn new(path: &Path, source: &str, fault: Fault) -> Mistake {
        let span = within(source, fault.span);
        let before = source.get(..span.start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |place| place + 1);
        Mistake {
            path: path.display().to_string(),
            line: 1 + before.matches('\n').count(),
            column: 1 + before.get(line_start..).unwrap_or_default().chars().count(),
            kind: *fault.kind,
            source: source.to_owned(),
            context: fault.context.map(|(place, label)| (within(source, place), label)),
            span,
        }
    }

    /// The message with its place, the source line and help; with colours for a terminal.
    pub fn render(&self, styled: bool) -> String {
        let title = self.kind.to_string();
        let mut snippet = Snippet::source(self.source.as_str()).path(self.path.as_str());
        let mut primary = AnnotationKind::Primary.span(self.span.clone());
        let label = self.label();
        if let Some(label) = &label {
            primary = primary.label(label.as_str());
        }
        snippet = snippet.annotation(primary);
        if let Some((place, label)) = &self.context {
            snippet = snippet.annotation(AnnotationKind::Context.span(place.clone()).label(*label));
        }
        let mut group = Level::ERROR.primary_title(title.as_str()).element(snippet);
        let help = self.kind.help();
        if let Some(help) = &help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }

    fn label(&self) -> Option<String> {
        match &self.kind {
            MistakeKind::UnknownKey { nearest: Some(nearest), .. }
            | MistakeKind::UnknownValue { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            MistakeKind::UnknownTask { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            MistakeKind::Missing { field, .. } => Some(format!("add `{field}`")),
            MistakeKind::WrongType { expected, .. } => Some(format!("expected {expected}")),
            MistakeKind::DuplicateTask { .. } => Some(String::from("used again here")),
            _ => None,
        }
    }
}

impl MistakeKind {
    /// What to do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            MistakeKind::UnknownKey { known, section, .. } => Some(format!("the keys of {section}: {}", list(known))),
            MistakeKind::UnknownValue { known, .. } => Some(format!("one of {}", list(known))),
            MistakeKind::Missing { field: "command", .. } => Some(String::from(
                "a task runs a program, `command = [\"python3\", \"train.py\"]`, or a shell script, `script = \"\"\"…\"\"\"`",
            )),
            MistakeKind::Missing { field: "[[task]]", .. } => {
                Some(String::from("a job has at least one task: a table under the heading `[[task]]`"))
            }
            MistakeKind::WrongType { field, .. } if field == "command" => Some(String::from(
                "the program and each argument are texts of their own: `command = [\"wc\", \"-w\", \"text.txt\"]`; \
                 for a line of shell use `script = \"…\"`",
            )),
            MistakeKind::DuplicateTask { .. } => Some(String::from("names are unique in a job")),
            MistakeKind::Constraint { .. } => Some(String::from(
                "constraints look like `zone = eu`, `disk != slow`, `zone in [eu, us]`, `host matches edge-*`, `driver >= 535.2`, \
                 `gpu-model` (the label is there) or `!old` (it is not)",
            )),
            MistakeKind::File { .. } => {
                Some(String::from("a file's `source` is looked up relative to the folder of the job file"))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// A place that certainly lies in the source, on the borders of characters.
fn within(source: &str, span: Range<usize>) -> Range<usize> {
    let start = source.floor_char_boundary(span.start);
    start..source.ceil_char_boundary(span.end.max(start)).min(source.len())
}
