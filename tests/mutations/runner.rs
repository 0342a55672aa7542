//! `mutations [NAME…]`: breaks the product in each way that `mutations.list` names, one at a time, and
//! fails unless the named tests notice.
//!
//! The tree is copied; in the copy every pair of a line and its mutant goes behind a switch that one
//! environment variable turns on; the copy is built once; then each mutant's tests run with it on, as many
//! mutants at a time as there are cores. It fails if a line no longer stands, a test fails without a mutant, a switch was never reached, or a
//! mutant survives. The product's own code has no hooks.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

type Failure = Box<dyn Error>;

/// One way to break the product.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Mutation {
    name: String,
    /// The file, from the root of the tree.
    file: String,
    /// A line that comes before, where the line itself stands more than once.
    after: String,
    /// The line as it stands, with the part that changes in «».
    line: String,
    /// What takes that part's place.
    mutant: String,
    /// Package, target (`lib` or an integration test) and name of a test that must fail.
    killed_by: Vec<[String; 3]>,
    /// What that failure must speak of; empty: anything.
    says: String,
}

/// A test's longest run. A mutant that hangs has been noticed too.
const TEST_TIMEOUT: Duration = Duration::from_secs(120);
/// Folders that are not part of the product.
const NOT_COPIED: [&str; 4] = ["target", ".git", "node_modules", "fuzz"];
/// The name of the crate with the switch, which exists in the copy only.
const SWITCH: &str = "fleetwire-mutation";

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    match run(&wanted) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mutations: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the wanted mutations, or all; returns how many failed.
fn run(wanted: &[String]) -> Result<usize, Failure> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the tests crate has no parent")?;
    let list = fs::read_to_string(root.join("tests/mutations/mutations.list"))?;
    let all = parse(&list)?;
    let chosen = |mutation: &Mutation| wanted.is_empty() || wanted.contains(&mutation.name);
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let place = target.join("mutations");
    let (tree, build) = (place.join("tree"), place.join("target"));

    // All are put in, whatever was asked for: the build stays the same from run to run.
    let began = Instant::now();
    let changed = switched(root, &all, &tree)?;
    copy(root, &tree, &changed)?;
    let tests = build_tests(&tree, &build, &all)?;
    println!("built in {:.0} s", began.elapsed().as_secs_f64());

    baseline(&tests, all.iter().filter(|mutation| chosen(mutation)), &place)?;
    println!("all tests pass without a mutant ({:.0} s)", began.elapsed().as_secs_f64());
    let numbered: Vec<(usize, &Mutation)> = (1..).zip(&all).filter(|(_, mutation)| chosen(mutation)).collect();
    let (killed, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    side_by_side(&numbered, |worker, (number, mutation)| match hunt(&tests, *number, mutation, &place, worker) {
        Ok(how) => {
            killed.fetch_add(1, Ordering::Relaxed);
            println!("killed    {}: {how}", mutation.name);
        }
        Err(error) => {
            failed.fetch_add(1, Ordering::Relaxed);
            println!("FAILED    {}: {error}", mutation.name);
        }
    });
    let (killed, failed) = (killed.into_inner(), failed.into_inner());
    println!("\nmutations: {killed} passed, {failed} failed, in {:.0} s", began.elapsed().as_secs_f64());
    Ok(failed)
}

/// Does the work of all items on as many threads as there are cores, each with its number.
fn side_by_side<T: Sync>(items: &[T], work: impl Fn(usize, &T) + Sync) {
    let next = AtomicUsize::new(0);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for worker in 0..cores {
            let (next, work) = (&next, &work);
            scope.spawn(move || {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(worker, item);
                }
            });
        }
    });
}

/// Reads the list: blocks of `key value` lines, each beginning with `mutation`; `#` begins a comment.
fn parse(text: &str) -> Result<Vec<Mutation>, Failure> {
    let mut all: Vec<Mutation> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let value = value.trim().to_owned();
        if key == "mutation" {
            all.push(Mutation { name: value, ..Mutation::default() });
            continue;
        }
        let last = all.last_mut().ok_or(format!("line {number}: expected `mutation NAME` first"))?;
        match key {
            "file" => last.file = value,
            "after" => last.after = value,
            "line" => last.line = value,
            "mutant" => last.mutant = value,
            "says" => last.says = value,
            "killed-by" => {
                let parts: Vec<String> = value.split_whitespace().map(str::to_owned).collect();
                let parts = parts.try_into().map_err(|_| format!("line {number}: expected PACKAGE TARGET TEST"))?;
                last.killed_by.push(parts);
            }
            _ => return Err(format!("line {number}: `{key}` is no key of a mutation").into()),
        }
    }
    let mut names = BTreeSet::new();
    for mutation in &all {
        let whole = !mutation.file.is_empty() && !mutation.mutant.is_empty() && !mutation.killed_by.is_empty();
        if !whole || split(&mutation.line).is_none() {
            return Err(format!("`{}` lacks a part: file, line with «…», mutant, killed-by", mutation.name).into());
        }
        if !names.insert(&mutation.name) {
            return Err(format!("`{}` is there twice", mutation.name).into());
        }
    }
    Ok(all)
}

/// A line's parts: before, the part that changes, after.
fn split(line: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = line.split_once('«')?;
    let (part, after) = rest.split_once('»')?;
    Some((before, part, after))
}

/// The changed files of the copy, by their path from the root: sources with switches in them, and the
/// manifests that know of the crate with the switch.
fn switched(root: &Path, all: &[Mutation], tree: &Path) -> Result<BTreeMap<PathBuf, String>, Failure> {
    let mut changed: BTreeMap<PathBuf, String> = BTreeMap::new();
    for (number, mutation) in (1..).zip(all) {
        let path = PathBuf::from(&mutation.file);
        let text = match changed.remove(&path) {
            Some(text) => text,
            None => fs::read_to_string(root.join(&path)).map_err(|error| format!("{}: {error}", mutation.file))?,
        };
        changed.insert(path.clone(), switch(&text, number, mutation)?);
        let manifest = manifest_of(root, &path).ok_or(format!("{} is in no package", mutation.file))?;
        if let Entry::Vacant(vacant) = changed.entry(manifest) {
            let mut text = fs::read_to_string(root.join(vacant.key()))?;
            write!(text, "\n[dependencies.{SWITCH}]\npath = {:?}\n", tree.join("mutation"))?;
            vacant.insert(text);
        }
    }
    let workspace = fs::read_to_string(root.join("Cargo.toml"))?;
    changed.insert("Cargo.toml".into(), workspace.replacen("members = [", "members = [\n    \"mutation\",", 1));
    let package = format!("[package]\nname = \"{SWITCH}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n");
    changed.insert("mutation/Cargo.toml".into(), package);
    changed.insert("mutation/src/lib.rs".into(), SWITCH_SOURCE.to_owned());
    Ok(changed)
}

/// Puts one pair behind its switch.
fn switch(text: &str, number: usize, mutation: &Mutation) -> Result<String, Failure> {
    let (before, part, after) = split(&mutation.line).ok_or("no «…»")?;
    let stands = format!("{before}{part}{after}");
    let from = match mutation.after.as_str() {
        "" => 0,
        line => text.lines().position(|found| found.trim() == line).ok_or_else(|| gone(mutation, line))? + 1,
    };
    let places: Vec<usize> =
        text.lines().enumerate().skip(from).filter(|(_, found)| found.trim() == stands).map(|(at, _)| at).collect();
    let place = match (places.as_slice(), mutation.after.is_empty()) {
        ([], _) => return Err(gone(mutation, &stands)),
        ([only], _) | ([only, ..], false) => *only,
        ([..], true) => return Err(format!("`{}`: its line stands more than once: say `after`", mutation.name).into()),
    };
    let mutant = &mutation.mutant;
    let switched = format!("{before}(if ::fleetwire_mutation::on({number}) {{ {mutant} }} else {{ {part} }}){after}");
    let lines = text.lines().enumerate().map(|(at, line)| if at == place { switched.as_str() } else { line });
    let mut joined = lines.collect::<Vec<_>>().join("\n");
    joined.push('\n');
    Ok(joined)
}

fn gone(mutation: &Mutation, line: &str) -> Failure {
    format!("`{}`: this line no longer stands in {}: {line}", mutation.name, mutation.file).into()
}

/// The manifest of the package that a file belongs to.
fn manifest_of(root: &Path, file: &Path) -> Option<PathBuf> {
    file.ancestors().skip(1).map(|folder| folder.join("Cargo.toml")).find(|manifest| root.join(manifest).exists())
}

/// Makes the copy what it should be; a file that is right already is not touched, so that little is built again.
fn copy(root: &Path, tree: &Path, changed: &BTreeMap<PathBuf, String>) -> Result<(), Failure> {
    let mut wanted = BTreeSet::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let name = entry.file_name();
            let path = folder.join(&name);
            let skipped = NOT_COPIED.iter().any(|skipped| name == *skipped);
            if entry.file_type()?.is_dir() && !skipped {
                folders.push(path);
            } else if entry.file_type()?.is_file() {
                wanted.insert(path);
            }
        }
    }
    wanted.extend(changed.keys().cloned());
    for path in &wanted {
        let bytes = match changed.get(path) {
            Some(text) => text.clone().into_bytes(),
            None => fs::read(root.join(path))?,
        };
        let to = tree.join(path);
        // The copy's Cargo.lock is cargo's own once it knows of the switch.
        let kept = path == Path::new("Cargo.lock") && to.exists();
        if !kept && fs::read(&to).ok().as_ref() != Some(&bytes) {
            fs::create_dir_all(to.parent().ok_or("a file without a folder")?)?;
            fs::write(&to, bytes)?;
        }
    }
    remove_others(tree, &wanted)
}

/// Removes what the tree no longer has.
fn remove_others(tree: &Path, wanted: &BTreeSet<PathBuf>) -> Result<(), Failure> {
    let mut folders = vec![tree.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if !wanted.contains(path.strip_prefix(tree)?) && entry.file_name() != "Cargo.lock" {
                fs::remove_file(path)?;
            }
        }
    }
    Ok(())
}

/// Executables of tests by package and target.
type Tests = BTreeMap<(String, String), PathBuf>;

/// Builds the named tests, all in one go; returns their executables.
fn build_tests(tree: &Path, build: &Path, all: &[Mutation]) -> Result<Tests, Failure> {
    let named = all.iter().flat_map(|mutation| &mutation.killed_by);
    let wanted: BTreeSet<(String, String)> =
        named.map(|[package, target, _]| (package.clone(), target.clone())).collect();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(tree).env("CARGO_TARGET_DIR", build).env("RUSTFLAGS", "--allow=warnings");
    // Nobody debugs a mutant.
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "false");
    cargo.args(["test", "--quiet", "--no-run", "--message-format=json-render-diagnostics"]);
    for package in wanted.iter().map(|(package, _)| package).collect::<BTreeSet<_>>() {
        cargo.args(["-p", package]);
    }
    for target in wanted.iter().map(|(_, target)| target).collect::<BTreeSet<_>>() {
        match target.as_str() {
            "lib" => cargo.arg("--lib"),
            test => cargo.args(["--test", test]),
        };
    }
    let output = cargo.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err("the copy with its switches does not build".into());
    }
    let tests: Tests = String::from_utf8_lossy(&output.stdout).lines().filter_map(executable_of).collect();
    match wanted.iter().find(|wanted| !tests.contains_key(wanted)) {
        Some((package, target)) => Err(format!("{package} has no test target {target}").into()),
        None => Ok(tests),
    }
}

/// The test that a line of cargo's output is about, and its executable.
fn executable_of(line: &str) -> Option<((String, String), PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let is_test = message.get("profile")?.get("test")?.as_bool()?;
    let executable = message.get("executable")?.as_str().filter(|_| is_test)?;
    // `path+file:///tree/sim#fleetwire-sim@0.1.0`, and without the name where it is the folder's.
    let (folder, package) = message.get("package_id")?.as_str()?.rsplit_once('#')?;
    let package = package.split_once('@').map_or_else(|| folder.rsplit('/').next(), |(name, _)| Some(name))?;
    let target = message.get("target")?;
    let is_lib = target.get("kind")?.get(0)?.as_str()? == "lib";
    let name = if is_lib { "lib" } else { target.get("name")?.as_str()? };
    Some(((package.to_owned(), name.to_owned()), executable.into()))
}

/// Every named test must pass without a mutant, or its failure would say nothing.
fn baseline<'m>(tests: &Tests, mutations: impl Iterator<Item = &'m Mutation>, place: &Path) -> Result<(), Failure> {
    let named: BTreeSet<&[String; 3]> = mutations.flat_map(|mutation| &mutation.killed_by).collect();
    let named: Vec<_> = named.into_iter().collect();
    let failures = Mutex::new(Vec::new());
    side_by_side(&named, |worker, test| {
        let failure = match run_test(tests, test, 0, place, worker) {
            Ok(ran) if !ran.passed => format!("{} fails without any mutant:\n{}", test.join(" "), ran.said),
            Ok(ran) if !ran.said.contains("1 passed") => format!("{}: there is no such test", test.join(" ")),
            Ok(_) => return,
            Err(error) => error.to_string(),
        };
        failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
    });
    match failures.into_inner().unwrap_or_else(PoisonError::into_inner).pop() {
        Some(failure) => Err(failure.into()),
        None => Ok(()),
    }
}

/// Runs a mutant's tests with it on; says how it was killed.
fn hunt(tests: &Tests, number: usize, mutation: &Mutation, place: &Path, worker: usize) -> Result<String, Failure> {
    let began = Instant::now();
    for test in &mutation.killed_by {
        let ran = run_test(tests, test, number, place, worker)?;
        let [_, _, name] = test;
        if !ran.reached {
            return Err(format!("{name} never reached it").into());
        }
        if ran.passed {
            return Err(format!("it survived {name}").into());
        }
        if !ran.said.contains(&mutation.says) {
            return Err(format!("{name} failed without a word of `{}`:\n{}", mutation.says, ran.said).into());
        }
    }
    let names: Vec<&str> = mutation.killed_by.iter().map(|[_, _, name]| name.as_str()).collect();
    Ok(format!("{} ({:.1} s)", names.join(", "), began.elapsed().as_secs_f64()))
}

/// What became of a test.
struct Ran {
    passed: bool,
    /// Whether it came to the switch of the mutant that was on.
    reached: bool,
    said: String,
}

/// Runs one test with one mutant on (0: none).
fn run_test(
    tests: &Tests,
    [package, target, name]: &[String; 3],
    number: usize,
    place: &Path,
    worker: usize,
) -> Result<Ran, Failure> {
    let executable = tests.get(&(package.clone(), target.clone())).ok_or("not built")?;
    let (said, reached) = (place.join(format!("said-{worker}")), place.join(format!("reached-{worker}")));
    let _ = fs::remove_file(&reached);
    let (out, errors) = (fs::File::create(&said)?, fs::File::options().append(true).open(&said)?);
    let mut command = Command::new(executable);
    command.args(["--exact", name, "--test-threads", "1"]).env("FLEETWIRE_MUTATION", number.to_string());
    command.env("FLEETWIRE_MUTATION_REACHED", &reached).env("RUST_BACKTRACE", "0");
    let mut child = command.stdin(Stdio::null()).stdout(out).stderr(errors).spawn()?;
    let deadline = Instant::now() + TEST_TIMEOUT;
    let passed = loop {
        if let Some(status) = child.try_wait()? {
            break status.success();
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            break false;
        }
        thread::sleep(Duration::from_millis(5));
    };
    let said = String::from_utf8_lossy(&fs::read(&said)?).into_owned();
    Ok(Ran { passed, reached: reached.exists(), said })
}

/// The switch: which mutant is on is read once; that it was reached is noted once.
const SWITCH_SOURCE: &str = r#"//! The switch between lines and their mutants.
use std::sync::{Once, OnceLock};

pub fn on(number: usize) -> bool {
    static CHOSEN: OnceLock<usize> = OnceLock::new();
    static REACHED: Once = Once::new();
    let read = || std::env::var("FLEETWIRE_MUTATION").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    if *CHOSEN.get_or_init(read) != number {
        return false;
    }
    REACHED.call_once(|| {
        if let Some(path) = std::env::var_os("FLEETWIRE_MUTATION_REACHED") {
            let _ = std::fs::write(path, b"reached");
        }
    });
    true
}
"#;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LIST: &str = "
        # why
        mutation  early
        file      a/src/b.rs
        line      if «position > durable» {
        mutant    false
        killed-by p lib t::works
        says      P1
    ";

    /// Seen by `cargo test`, long before the hunt: a change that takes a mutation's line away takes it along.
    #[test]
    fn every_line_of_the_list_stands_and_every_test_that_it_names_is_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let all = parse(&fs::read_to_string(root.join("tests/mutations/mutations.list")).unwrap()).unwrap();
        switched(root, &all, Path::new("copy")).unwrap_or_else(|error| panic!("{error}"));
        let sources = sources(root);
        for [_, _, name] in all.iter().flat_map(|mutation| &mutation.killed_by) {
            let function = format!("fn {}(", name.rsplit("::").next().unwrap());
            assert!(sources.iter().any(|text| text.contains(&function)), "there is no test `{name}`");
        }
    }

    /// Every source file of the tree, but for the generated ones.
    fn sources(root: &Path) -> Vec<String> {
        let (mut folders, mut texts) = (vec![root.to_path_buf()], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let (path, name) = (entry.path(), entry.file_name());
                if path.is_dir() && !NOT_COPIED.iter().any(|skipped| name == *skipped) {
                    folders.push(path);
                } else if path.extension().is_some_and(|kind| kind == "rs") && name != "generated.rs" {
                    texts.push(fs::read_to_string(path).unwrap());
                }
            }
        }
        texts
    }

    #[test]
    fn a_pair_goes_behind_its_switch_where_its_line_stands() {
        let all = parse(LIST).unwrap();
        let text = "fn f() {\n    if position > durable {\n    }\n}\n";
        let switched = switch(text, 7, all.first().unwrap()).unwrap();
        let line = "if (if ::fleetwire_mutation::on(7) { false } else { position > durable }) {";
        assert_eq!(switched, format!("fn f() {{\n{line}\n    }}\n}}\n"));
    }

    #[test]
    fn a_line_that_no_longer_stands_or_stands_twice_is_an_error() {
        let mut mutation = parse(LIST).unwrap().remove(0);
        assert!(switch("fn f() {}\n", 1, &mutation).unwrap_err().to_string().contains("no longer stands"));
        let twice = "if position > durable {\n}\nhere\nif position > durable {\n}\n";
        assert!(switch(twice, 1, &mutation).unwrap_err().to_string().contains("more than once"));
        mutation.after = "here".to_owned();
        let switched = switch(twice, 1, &mutation).unwrap();
        assert!(switched.starts_with("if position > durable {\n}\nhere\nif (if"));
    }

    #[test]
    fn a_mutation_that_lacks_a_part_or_repeats_a_name_is_an_error() {
        assert!(parse("file x").is_err());
        assert!(parse("mutation a\nfile x\nline no mark\nmutant y\nkilled-by p lib t").is_err());
        assert!(parse(&format!("{LIST}{LIST}")).is_err());
        assert!(parse("mutation a\nwrong x").is_err());
    }
}
