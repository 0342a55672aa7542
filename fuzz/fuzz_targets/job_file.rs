//! A job file as somebody wrote it: arbitrary text, and files that stand as they are with pieces of them changed. Refused
//! with a mistake that can be shown, or a job that is the same after a trip over the wire.
#![no_main]

// The parser alone: the rest of the client would bring a whole QUIC stack into this build.
#[allow(dead_code)]
#[path = "../../client/src/jobfile/mod.rs"]
mod jobfile;

use fleetwire_common::job::JobSpec;
use jobfile::JobFileError;
use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};
use std::{io, path::Path};

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Text(&'a str),
    /// A whole file, of which pieces are replaced: where, how many bytes, by what.
    Changed { which: u8, changes: Vec<(u16, u8, Piece<'a>)> },
    /// Lines of a file, made of keys and values that a file may have.
    Lines(Vec<(u8, u8, u8)>),
}

#[derive(Arbitrary, Debug)]
enum Piece<'a> {
    Text(&'a str),
    Value(u8),
    Line(u8, u8),
    /// A piece from elsewhere in the same file.
    Copied(u16, u8),
}

const FILES: [&str; 4] = [
    include_str!("../../examples/first.toml"),
    include_str!("../../examples/array.toml"),
    include_str!("../job-files/everything.toml"),
    "[[task]]\nexecutor = 'noop'\n",
];
const KEYS: [&str; 61] = [
    "name", "lost_after", "stop_on_disconnect_after", "retry_lost", "keep", "exclusive", "[[task]]\nname", "[[task]]\ncommand",
    "count", "kind", "command", "script", "executor", "cpu", "memory", "gpu", "storage", "storage_backend", "env", "env.X",
    "parameters", "parameters.y.z", "file", "[[task.file]]\npath", "content", "source", "executable", "priority",
    "constraints", "timeout", "queue_timeout", "max_attempts", "max_losses", "backoff", "kill_grace", "result",
    "after", "[[task.after]]\ntask", "on", "each", "start_after", "deadline", "stop_after_failures", "max_running", "labels.a",
    "annotations.a", "resources.a", "whole_agent", "distinct_agents", "[[task.prefer]]\nconstraint", "weight", "sweep.a",
    "sweep.mode", "[[task.input]]\ntask", "start_at", "await_agents",
    "semaphores", "[[task.semaphores]]\nname", "max", "gang", "gang_lost",
];
const VALUES: [&str; 34] = [
    "1", "0", "-1", "9223372036854775807", "-9223372036854775808", "1e999", "nan", "0.5", "true", "false", "''", "'a'",
    "'1h'", "'500m'", "'64MB'", "'99999999999999GB'", "[]", "['a']", "[1, 'a', []]", "{}", "{ a = 1 }", "'noop'",
    "'5%'", "'task'", "'zip'", "[1, 2, 3]", "['a in [b, c]', 'v >= 1.2']", "{ v = { '<' = '1' } }",
    "\"\\u0000\"", "'../../etc/passwd'", "'ä'", "1979-05-27T07:32:00Z", "'''\nlong\n'''", "['true', '\u{1b}[31m']",
];

fn pick<'a>(list: &[&'a str], which: u8) -> &'a str {
    list[usize::from(which) % list.len()]
}

/// The nearest place in the text where a character begins.
fn place(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at % (text.len() + 1))
}

fn changed(which: u8, changes: &[(u16, u8, Piece<'_>)]) -> String {
    let mut text = pick(&FILES, which).to_owned();
    for (at, length, piece) in changes.iter().take(16) {
        let begin = place(&text, (*at).into());
        let end = text.floor_char_boundary((begin + usize::from(*length)).min(text.len())).max(begin);
        let piece = match piece {
            Piece::Text(text) => (*text).to_owned(),
            Piece::Value(value) => pick(&VALUES, *value).to_owned(),
            Piece::Line(key, value) => format!("\n{} = {}\n", pick(&KEYS, *key), pick(&VALUES, *value)),
            Piece::Copied(from, length) => {
                let from = place(&text, (*from).into());
                let to = text.floor_char_boundary((from + usize::from(*length)).min(text.len())).max(from);
                text[from..to].to_owned()
            }
        };
        text.replace_range(begin..end, &piece);
    }
    text
}

fn lines(lines: &[(u8, u8, u8)]) -> String {
    let line = |(key, value, last): &(u8, u8, u8)| {
        let end = if last % 16 == 0 { "\n[[task]]\n" } else { "\n" };
        format!("{} = {}{end}", pick(&KEYS, *key), pick(&VALUES, *value))
    };
    lines.iter().take(64).map(line).collect()
}

/// Files that the job names: some are there, some are too large, some are not.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    match path.as_os_str().len() % 3 {
        0 => Err(io::ErrorKind::NotFound.into()),
        1 => Ok(vec![0; 2 << 20]),
        _ => Ok(b"data".to_vec()),
    }
}

fuzz_target!(|input: Input<'_>| {
    let text = match input {
        Input::Text(text) => text.to_owned(),
        Input::Changed { which, changes } => changed(which, &changes),
        Input::Lines(these) => lines(&these),
    };
    match jobfile::parse(Path::new("job.toml"), &text, read) {
        Ok(job) => assert_eq!(JobSpec::from_wire(&job.to_wire()).as_ref(), Ok(&job)),
        Err(error) => {
            let JobFileError::Mistake(mistake) = error else { panic!("the text was read: {error}") };
            // It can be shown, wherever in the text it is.
            assert!(mistake.line > 0 && mistake.column > 0);
            assert!(!mistake.render(false).is_empty() && !mistake.render(true).is_empty());
        }
    }
});
