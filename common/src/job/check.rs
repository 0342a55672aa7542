//! What a task entry may say: bounds, paths, what it has to run, and that an agent could ever run it.

use super::{JobError, TaskSpec};
use crate::{
    constraint::{self, Preference, check_bounds},
    fb,
    limits::*,
};
use std::collections::BTreeSet;

impl TaskSpec {
    /// Refuses what no agent could ever run.
    pub(super) fn check_possible(&self) -> Result<(), JobError> {
        let refused = |error| JobError::Constraints { task: self.name.to_string(), error: Box::new(error) };
        self.prefer
            .iter()
            .try_for_each(|one| constraint::check(std::slice::from_ref(&one.constraint)))
            .map_err(refused)?;
        constraint::check(&self.constraints).map_err(refused)
    }

    pub(super) fn check(&self) -> Result<(), JobError> {
        let name = self.name.as_str();
        let invalid = |what, found: &str, expected| {
            Err(JobError::Invalid { task: name.to_owned(), what, found: found.chars().take(80).collect(), expected })
        };
        if self.count == 0 {
            return invalid("count", "0", "at least 1");
        }
        bound(name, "count", self.count as usize, ARRAY_TASKS_MAX as usize)?;
        bound(name, "number of arguments", self.arguments.len(), ARGUMENTS_MAX)?;
        bound(name, "number of environment variables", self.environment.len(), ENVIRONMENT_MAX)?;
        bound(name, "number of files", self.files.len(), FILES_MAX)?;
        bound(name, "number of constraints", self.constraints.len(), CONSTRAINTS_MAX)?;
        check_bounds(name, &self.constraints)?;
        bound(name, "number of preferences", self.prefer.len(), PREFERENCES_MAX)?;
        for Preference { constraint, weight } in &self.prefer {
            check_bounds(name, std::slice::from_ref(constraint))?;
            if *weight == 0 || weight.unsigned_abs() > PREFERENCE_WEIGHT_MAX.unsigned_abs() {
                return invalid("weight of a preference", &weight.to_string(), "-1000 to 1000, and not 0");
            }
        }
        bound(name, "bytes of parameters", self.parameters.len(), PARAMETERS_BYTES_MAX)?;
        bound(name, "max_attempts", self.max_attempts as usize, ATTEMPTS_MAX as usize)?;
        bound(name, "max_losses", self.max_losses as usize, ATTEMPTS_MAX as usize)?;
        let texts = self.arguments.iter().chain([&self.command]).chain(self.environment.iter().map(|(_, value)| value));
        for text in texts {
            bound(name, "bytes of an argument or environment value", text.len(), VALUE_BYTES_MAX)?;
            if text.contains('\0') {
                return invalid("command, argument or environment value", text, "no NUL byte");
            }
        }
        if self.max_attempts == 0 || self.max_losses == 0 {
            return invalid("max_attempts or max_losses", "0", "at least 1");
        }
        if self.executor == fb::Executor::Process && self.command.is_empty() {
            return invalid("command", "", "a program and its arguments");
        }
        let mut seen = BTreeSet::new();
        for (variable, _) in &self.environment {
            if variable.is_empty() || variable.contains(['=', '\0']) || variable.len() > VALUE_BYTES_MAX {
                return invalid("environment variable", variable, "a name without `=`");
            }
            if !seen.insert(variable) {
                return invalid("environment variable", variable, "each variable once");
            }
        }
        self.sweep.as_ref().map_or(Ok(()), |sweep| sweep.check(self))?;
        let mut paths = BTreeSet::new();
        let result = (!self.result_path.is_empty()).then_some(&self.result_path);
        let inputs = self.after.iter().map(|after| &after.input).filter(|input| !input.is_empty());
        for path in self.files.iter().map(|file| &file.path).chain(result) {
            if !is_plain_path(path) {
                return invalid("path", path, "a relative path without `.`, `..` or empty components");
            }
        }
        for file in &self.files {
            if !paths.insert(&file.path) {
                return invalid("file", &file.path, "each path once");
            }
        }
        for input in inputs {
            if !is_plain_path(input) {
                return invalid("input", input, "a relative path without `.`, `..` or empty components");
            }
            // A folder of results, or a file: nothing else may be there, below it or where it has its own folder.
            let below = |one: &str, other: &str| one.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'));
            let meets = |path: &&String| path.as_str() == input || below(path, input) || below(input, path);
            if paths.iter().any(meets) || !paths.insert(input) {
                return invalid("input", input, "a path that is neither another file's nor its folder");
            }
        }
        Ok(())
    }
}

/// Whether a path is relative and has only plain components: it cannot leave the folder it is joined to.
pub fn is_plain_path(path: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && part.len() <= 255;
    path.len() <= 1024 && !path.contains('\0') && path.split('/').all(plain)
}

pub(crate) fn bound(task: &str, what: &'static str, found: usize, max: usize) -> Result<(), JobError> {
    if found <= max {
        return Ok(());
    }
    Err(JobError::TooMuch { task: task.to_owned(), what, found: found as u64, max: max as u64 })
}
