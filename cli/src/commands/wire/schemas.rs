//! `wire diff-schema`: may peers of two schemas speak with each other?

use super::{
    super::{print, print_json},
    args::DiffSchema,
    read, wrong,
};
use crate::{
    error::CliError,
    wire::{diff::diff, schema::Schema},
};
use serde_json::json;
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
};

/// `wire diff-schema`.
pub fn diff_schema(command: &DiffSchema, as_json: bool) -> Result<u8, CliError> {
    let changes = diff(&load(&command.old)?, &load(&command.new)?);
    let breaking = changes.iter().filter(|change| change.breaks).count();
    if as_json {
        print_json(&json!({ "compatible": breaking == 0, "changes": changes }))?;
        return Ok(u8::from(breaking > 0));
    }
    let mut text = String::new();
    for change in &changes {
        writeln!(text, "{} {}: {}", if change.breaks { "breaks" } else { "keeps " }, change.place, change.what)?;
    }
    let verdict = match (changes.len(), breaking) {
        (0, _) => String::from("The two say the same."),
        (_, 0) => String::from("Peers of both speak with each other."),
        (_, 1) => String::from("One change keeps peers of the two from understanding each other."),
        (_, count) => format!("{count} changes keep peers of the two from understanding each other."),
    };
    writeln!(text, "{verdict}")?;
    print(&text)?;
    Ok(u8::from(breaking > 0))
}

/// A schema from a file and what it includes, or from all files of a folder.
fn load(path: &Path) -> Result<Schema, CliError> {
    let mut waiting: Vec<PathBuf> = if path.is_dir() { files(path)? } else { vec![path.to_owned()] };
    if waiting.is_empty() {
        return Err(wrong(path, "there is no .fbs file in it"));
    }
    let (mut seen, mut texts) = (BTreeSet::new(), Vec::new());
    while let Some(file) = waiting.pop() {
        let fault = |error| CliError::File { doing: "read", path: file.clone(), error };
        if !seen.insert(file.canonicalize().map_err(fault)?) {
            continue;
        }
        if seen.len() > FILES_MAX {
            return Err(wrong(path, format!("it has more than {FILES_MAX} files")));
        }
        let text = String::from_utf8(read(&file)?).map_err(|_| wrong(&file, "it is not text"))?;
        let folder = file.parent().unwrap_or(Path::new("."));
        waiting.extend(includes(&text).map(|name| folder.join(name)));
        texts.push((file.display().to_string(), text));
    }
    Schema::parse(&texts).map_err(CliError::Schema)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    let fault = |error| CliError::File { doing: "read", path: folder.to_owned(), error };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fault)? {
        let path = entry.map_err(fault)?.path();
        if path.extension().is_some_and(|extension| extension == "fbs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The names in `include "…";`, which stand at the beginning of lines.
fn includes(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix("include")?.trim_start().strip_prefix('"')?.split('"').next())
}

/// Files of one schema.
const FILES_MAX: usize = 256;
