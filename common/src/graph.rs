//! Dependencies between the entries of a job (docs/jobs.md#dependencies): a graph without cycles, in which every entry
//! can come to run.
//!
//! Invariants: whoever holds a [`Graph`] holds ordinals of entries that exist; no walk along `needs` comes back to where
//! it began; two arrays of an `each` have one count.

use crate::{
    fb,
    ids::Name,
    job::{JobError, TaskSpec},
    limits::{DEPENDENCIES_MAX, DEPENDENCIES_OF_JOB_MAX, FILES_MAX},
};
use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

/// What an entry comes after, as its job says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// Another entry's name.
    pub task: Name,
    /// What that must have come to.
    pub on: fb::DependencyOn,
    /// Two arrays of one count: index i waits for index i only.
    pub each: bool,
    /// Where its result is found in the working directory; of all of an array, a folder with one file for each index.
    /// Empty = it is not wanted.
    pub input: String,
}

/// The same, of an entry that was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The other entry.
    pub entry: u16,
    /// What it must have come to.
    pub on: fb::DependencyOn,
    /// Of the same index only.
    pub each: bool,
}

/// All dependencies of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    /// By entry: what it comes after.
    pub needs: Vec<Vec<Need>>,
    /// By entry: what comes after it, and how.
    pub feeds: Vec<Vec<Need>>,
}

/// Why dependencies are refused. A path is the entries' names, each after the next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum GraphError {
    #[error("task `{task}` is after `{after}`, and the job has no task of that name")]
    Unknown { task: String, after: String },
    #[error("task `{task}` is after `{after}` twice: once is enough")]
    Twice { task: String, after: String },
    #[error("`on` of task `{task}` is {found}: expected success, failure or end")]
    On { task: String, found: u8 },
    #[error(
        "task `{task}` waits for each of `{after}`, which has {found} tasks: expected as many as its own, {expected}"
    )]
    Counts { task: String, after: String, found: u32, expected: u32 },
    #[error("task `{task}` wants the result of `{after}`, which is there for sure only `on` its success")]
    Input { task: String, after: String },
    #[error("the tasks wait for each other: {}", path.join(" -> "))]
    Cycle { path: Vec<String> },
    #[error(
        "task `{task}` can never run: it needs that `{after}` succeeds ({}) and that it fails ({})",
        success.join(" -> "),
        failure.join(" -> ")
    )]
    Unreachable { task: String, after: String, success: Vec<String>, failure: Vec<String> },
}

impl GraphError {
    /// The entry that is to be changed.
    pub fn task(&self) -> &str {
        match self {
            GraphError::Unknown { task, .. }
            | GraphError::Twice { task, .. }
            | GraphError::On { task, .. }
            | GraphError::Counts { task, .. }
            | GraphError::Input { task, .. }
            | GraphError::Unreachable { task, .. } => task,
            GraphError::Cycle { path } => path.first().map_or("", String::as_str),
        }
    }
}

impl From<GraphError> for JobError {
    fn from(error: GraphError) -> JobError {
        JobError::Graph(Box::new(error))
    }
}

impl Dependency {
    pub(crate) fn from_wire(task: &Name, wire: fb::Dependency<'_>) -> Result<Dependency, JobError> {
        if wire.on().variant_name().is_none() {
            return Err(GraphError::On { task: task.to_string(), found: wire.on().0 }.into());
        }
        let name = wire.task().unwrap_or_default();
        let unknown = || GraphError::Unknown { task: task.to_string(), after: name.chars().take(80).collect() };
        let input = wire.input().unwrap_or_default().to_owned();
        Ok(Dependency { task: Name::new(name).map_err(|_| unknown())?, on: wire.on(), each: wire.each(), input })
    }

    pub(crate) fn to_wire(&self) -> fb::DependencyT {
        let input = (!self.input.is_empty()).then(|| self.input.clone());
        fb::DependencyT { task: Some(self.task.to_string()), on: self.on, each: self.each, input }
    }
}

impl Graph {
    /// Looks up all dependencies and checks that every entry can come to run. `None` if there are none.
    ///
    /// # Errors
    /// An entry that waits for ever, or for what does not exist.
    pub fn of<S: Borrow<TaskSpec>>(tasks: &[S]) -> Result<Option<Graph>, JobError> {
        if tasks.iter().all(|task| task.borrow().after.is_empty()) {
            return Ok(None);
        }
        let ordinals: BTreeMap<&Name, u16> = tasks.iter().map(|task| &task.borrow().name).zip(0..).collect();
        let mut graph = Graph { needs: vec![Vec::new(); tasks.len()], feeds: vec![Vec::new(); tasks.len()] };
        let mut found = 0;
        for (task, (needs, own)) in tasks.iter().map(Borrow::borrow).zip(graph.needs.iter_mut().zip(0..)) {
            *needs = needs_of(task, tasks, &ordinals)?;
            found += needs.len();
            for need in needs {
                if let Some(feeds) = graph.feeds.get_mut(usize::from(need.entry)) {
                    feeds.push(Need { entry: own, ..*need });
                }
            }
        }
        crate::job::bound("the job", "number of dependencies", found, DEPENDENCIES_OF_JOB_MAX)?;
        let name =
            |entry: u16| tasks.get(usize::from(entry)).map_or(String::new(), |task| task.borrow().name.to_string());
        if let Some(path) = graph.cycle() {
            return Err(GraphError::Cycle { path: path.into_iter().map(name).collect() }.into());
        }
        let fails = |need: &Need| need.on == fb::DependencyOn::Failure;
        let contradicts = graph.needs.iter().flatten().any(fails);
        for entry in 0..if contradicts { tasks.len() as u16 } else { 0 } {
            if let Some((after, success, failure)) = graph.contradiction(entry) {
                let [success, failure] = [success, failure].map(|path| path.into_iter().map(name).collect());
                return Err(GraphError::Unreachable { task: name(entry), after: name(after), success, failure }.into());
            }
        }
        Ok(Some(graph))
    }

    /// What that entry comes after.
    pub fn needs_of(&self, entry: u16) -> &[Need] {
        self.needs.get(usize::from(entry)).map_or(&[], Vec::as_slice)
    }

    /// What comes after it.
    pub fn feeds_of(&self, entry: u16) -> &[Need] {
        self.feeds.get(usize::from(entry)).map_or(&[], Vec::as_slice)
    }

    /// Entries that wait for each other, the first again at the end. What is left once everything was taken away whose
    /// needs are gone has a need that is left as well.
    fn cycle(&self) -> Option<Vec<u16>> {
        let mut open: Vec<usize> = self.needs.iter().map(Vec::len).collect();
        let mut ready: Vec<u16> = (0..).zip(&open).filter(|(_, needs)| **needs == 0).map(|(entry, _)| entry).collect();
        while let Some(entry) = ready.pop() {
            for feed in self.feeds_of(entry) {
                if let Some(needs) = open.get_mut(usize::from(feed.entry)) {
                    *needs -= 1;
                    ready.extend((*needs == 0).then_some(feed.entry));
                }
            }
        }
        let is_left = |entry: u16| open.get(usize::from(entry)).is_some_and(|needs| *needs > 0);
        let mut at = (0..self.needs.len() as u16).find(|entry| is_left(*entry))?;
        let mut path = Vec::new();
        while !path.contains(&at) {
            path.push(at);
            at = self.needs_of(at).iter().map(|need| need.entry).find(|entry| is_left(*entry))?;
        }
        path.retain({
            let mut begun = false;
            move |entry| {
                begun |= *entry == at;
                begun
            }
        });
        path.push(at);
        Some(path)
    }

    /// An entry that would have to succeed and to fail before this one may run, with the paths to both.
    fn contradiction(&self, entry: u16) -> Option<(u16, Vec<u16>, Vec<u16>)> {
        // By claim: what it follows from. `None` is not claimed; what follows from the start says so by itself.
        let mut from: Vec<Option<usize>> = vec![None; self.needs.len() * CLAIMS];
        let mut ahead = VecDeque::from([(entry, Of::This, None)]);
        while let Some((entry, of, claim)) = ahead.pop_front() {
            for need in self.needs_of(entry) {
                let Some((of, well)) = implied(of, need) else { continue };
                let next = claim_of(need.entry, of, well);
                if let Some(new @ None) = from.get_mut(next) {
                    *new = Some(claim.unwrap_or(next));
                    ahead.push_back((need.entry, of, Some(next)));
                }
            }
        }
        let is_claimed = |claim: usize| from.get(claim).is_some_and(Option::is_some);
        let path = |mut at: usize| {
            let mut path = vec![(at / CLAIMS) as u16];
            while let Some(before) = from.get(at).copied().flatten().filter(|before| *before != at) {
                path.push((before / CLAIMS) as u16);
                at = before;
            }
            path.push(entry);
            path.reverse();
            path
        };
        for after in 0..self.needs.len() as u16 {
            let pairs = CONTRADICT.map(|(well, fails)| (claim_of(after, well, true), claim_of(after, fails, false)));
            if let Some((well, fails)) = pairs.into_iter().find(|(well, fails)| is_claimed(*well) && is_claimed(*fails))
            {
                return Some((after, path(well), path(fails)));
            }
        }
        None
    }
}

/// Of which tasks of an entry something must be true so that another may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// All.
    All,
    /// The one of the index that is spoken of.
    This,
    /// At least one, of any index.
    Some,
}

/// What cannot be true at once: that these succeed, and that those fail.
const CONTRADICT: [(Of, Of); 6] = [
    (Of::All, Of::All),
    (Of::All, Of::This),
    (Of::All, Of::Some),
    (Of::This, Of::This),
    (Of::This, Of::All),
    (Of::Some, Of::All),
];

/// Claims that there are about one entry.
const CLAIMS: usize = 6;

/// The number of a claim.
fn claim_of(entry: u16, of: Of, well: bool) -> usize {
    usize::from(entry) * CLAIMS + of as usize * 2 + usize::from(well)
}

/// What must be true of a need so that these tasks can have run: of which of its tasks, and whether they succeed. `None`
/// if nothing is certain.
fn implied(of: Of, need: &Need) -> Option<(Of, bool)> {
    match need.on {
        fb::DependencyOn::Success if need.each => Some((of, true)),
        fb::DependencyOn::Success => Some((Of::All, true)),
        fb::DependencyOn::Failure if need.each => Some((of, false)),
        fb::DependencyOn::Failure => Some((Of::Some, false)),
        // It may have ended without ever having run.
        _ => None,
    }
}

fn needs_of<S: Borrow<TaskSpec>>(
    task: &TaskSpec,
    tasks: &[S],
    ordinals: &BTreeMap<&Name, u16>,
) -> Result<Vec<Need>, JobError> {
    crate::job::bound(task.name.as_str(), "number of dependencies", task.after.len(), DEPENDENCIES_MAX)?;
    let mut seen = BTreeSet::new();
    let mut needs = Vec::with_capacity(task.after.len());
    let mut files = task.files.len();
    for dependency in &task.after {
        let (own, after) = (task.name.to_string(), dependency.task.to_string());
        let Some(entry) = ordinals.get(&dependency.task).copied() else {
            return Err(GraphError::Unknown { task: own, after }.into());
        };
        if !seen.insert(entry) {
            return Err(GraphError::Twice { task: own, after }.into());
        }
        let found = tasks.get(usize::from(entry)).map_or(0, |other| other.borrow().count);
        if !dependency.input.is_empty() {
            if dependency.on != fb::DependencyOn::Success {
                return Err(GraphError::Input { task: own, after }.into());
            }
            files += if dependency.each { 1 } else { found as usize };
        }
        if dependency.each && found != task.count {
            return Err(GraphError::Counts { task: own, after, found, expected: task.count }.into());
        }
        // Of one task, each is all.
        needs.push(Need { entry, on: dependency.on, each: dependency.each && found > 1 });
    }
    crate::job::bound(task.name.as_str(), "number of files and inputs", files, FILES_MAX)?;
    Ok(needs)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::job::JobSpec;

    const SUCCESS: fb::DependencyOn = fb::DependencyOn::Success;
    const FAILURE: fb::DependencyOn = fb::DependencyOn::Failure;
    const END: fb::DependencyOn = fb::DependencyOn::End;

    fn task(name: &str, count: u32, after: &[(&str, fb::DependencyOn, bool)]) -> TaskSpec {
        let named = |name: &str| Name::new(name).unwrap();
        let after = after.iter().map(|(task, on, each)| Dependency {
            task: named(task),
            on: *on,
            each: *each,
            input: String::new(),
        });
        let (name, after) = (named(name), after.collect());
        TaskSpec { name, count, array: count > 1, command: "true".into(), after, ..TaskSpec::default() }
    }

    fn refused(tasks: Vec<TaskSpec>) -> String {
        JobSpec::new(Name::new("j").unwrap(), tasks, 300).unwrap_err().to_string()
    }

    #[test]
    fn a_graph_knows_both_directions_and_survives_the_wire() {
        let tasks = vec![
            task("build", 3, &[]),
            task("test", 3, &[("build", SUCCESS, true)]),
            task("report", 1, &[("test", END, false), ("build", SUCCESS, false)]),
            task("clean", 1, &[("report", FAILURE, true)]),
        ];
        let job = JobSpec::new(Name::new("j").unwrap(), tasks, 300).unwrap();
        let graph = Graph::of(&job.tasks).unwrap().unwrap();
        assert_eq!(graph.needs_of(1), [Need { entry: 0, on: SUCCESS, each: true }]);
        assert_eq!(graph.needs_of(3), [Need { entry: 2, on: FAILURE, each: false }]);
        assert_eq!(graph.feeds_of(0).iter().map(|feed| feed.entry).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(JobSpec::from_wire(&job.to_wire()).unwrap(), job);
        assert_eq!(Graph::of(&[task("alone", 1, &[])]).unwrap(), None);
    }

    #[test]
    fn cycles_are_shown_as_a_path() {
        let own = refused(vec![task("a", 1, &[("a", SUCCESS, false)])]);
        assert_eq!(own, "the tasks wait for each other: a -> a");
        let tasks = vec![
            task("free", 1, &[]),
            task("outside", 1, &[("a", END, false)]),
            task("a", 1, &[("free", SUCCESS, false), ("b", SUCCESS, false)]),
            task("b", 1, &[("c", END, false)]),
            task("c", 1, &[("a", FAILURE, false)]),
        ];
        assert_eq!(refused(tasks), "the tasks wait for each other: a -> b -> c -> a");
    }

    #[test]
    fn what_is_not_there_or_does_not_fit_is_refused() {
        let unknown = refused(vec![task("a", 1, &[("bild", SUCCESS, false)])]);
        assert_eq!(unknown, "task `a` is after `bild`, and the job has no task of that name");
        let twice = vec![task("a", 1, &[]), task("b", 1, &[("a", SUCCESS, false), ("a", END, false)])];
        assert_eq!(refused(twice), "task `b` is after `a` twice: once is enough");
        let counts = vec![task("a", 2, &[]), task("b", 3, &[("a", SUCCESS, true)])];
        assert!(refused(counts).contains("waits for each of `a`, which has 2 tasks: expected as many as its own, 3"));
        let many: Vec<_> = (0..=DEPENDENCIES_MAX).map(|number| task(&format!("t{number}"), 1, &[])).collect();
        let names: Vec<String> = many.iter().map(|task| task.name.to_string()).collect();
        let after: Vec<_> = names.iter().map(|name| (name.as_str(), SUCCESS, false)).collect();
        assert!(
            refused(many.into_iter().chain([task("last", 1, &after)]).collect()).contains("number of dependencies")
        );
    }

    #[test]
    fn what_can_never_run_is_refused_with_both_paths() {
        // The recovery runs only if the build fails, and the report only if both succeed.
        let tasks = vec![
            task("build", 1, &[]),
            task("recover", 1, &[("build", FAILURE, false)]),
            task("check", 1, &[("build", SUCCESS, false)]),
            task("report", 1, &[("recover", SUCCESS, false), ("check", SUCCESS, false)]),
        ];
        assert_eq!(
            refused(tasks.clone()),
            "task `report` can never run: it needs that `build` succeeds (report -> check -> build) and that it fails \
             (report -> recover -> build)"
        );
        // Whoever waits for the end only does not care.
        let mut ends = tasks;
        ends.pop();
        ends.push(task("report", 1, &[("recover", END, false), ("check", SUCCESS, false)]));
        assert!(JobSpec::new(Name::new("j").unwrap(), ends, 300).is_ok());
    }

    #[test]
    fn of_arrays_only_what_is_certain_is_refused() {
        let with = |count, first: (fb::DependencyOn, bool), second: (fb::DependencyOn, bool)| {
            let tasks = vec![
                task("a", count, &[]),
                task("b", count, &[("a", first.0, first.1)]),
                task("c", count, &[("a", second.0, second.1)]),
                task("d", count, &[("b", SUCCESS, true), ("c", SUCCESS, true)]),
            ];
            JobSpec::new(Name::new("j").unwrap(), tasks, 300).is_ok()
        };
        // One index succeeds while another fails.
        assert!(with(2, (SUCCESS, true), (FAILURE, false)));
        assert!(!with(1, (SUCCESS, true), (FAILURE, false)));
        assert!(!with(2, (SUCCESS, true), (FAILURE, true)));
        assert!(!with(2, (SUCCESS, false), (FAILURE, false)));
        assert!(!with(2, (SUCCESS, false), (FAILURE, true)));
        // All of `b`, each of which needs that its own `a` fails; and that one of them does not.
        let all_fail = vec![
            task("a", 2, &[]),
            task("b", 2, &[("a", FAILURE, true)]),
            task("c", 2, &[("b", SUCCESS, false), ("a", SUCCESS, true)]),
        ];
        assert!(refused(all_fail).starts_with("task `c` can never run"));
    }
}
