//! `fleetwire-sim replay`: a day that a scheduler's journal has recorded, or one that is drawn, run again under other policies
//! and compared.

use fleetwire_client::policyfile;
use fleetwire_common::policy::{ClusterPolicy, Placing, Rules};
use fleetwire_disk::FsDisk;
use fleetwire_journal::{Identity, JournalConfig, check};
use fleetwire_sim::day::{
    Day,
    drawn::{self, Terms2019},
    naive::{self, Naive},
    recorded::{RecordError, Recorded, Recorder},
    replay::replay,
    verdict::Verdict,
};
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

const HELP: &str = "\
Runs a day again under other policies, and compares how long tasks waited, how much was in use, and how evenly all were served.

usage: fleetwire-sim replay JOURNAL [--policy FILE]... [--json]
       fleetwire-sim replay --drawn [--seed N] [--agents N] [--load PERCENT] [--policy FILE]... [--json]

  JOURNAL         a scheduler's data folder, its folder `journal`, or a copy of that; it is only read. All facts since the first
                  start must be there: what `--archive` kept, beside what the journal still has
  --policy FILE   a policy as `fleetwire policy set` takes it; several are compared
  --drawn         instead of a recorded day, one that is drawn as uneven as Google's traces of 2019 are, for
  --agents N      so many agents (200), with
  --load PERCENT  so much work in a day, of what their cores can do (90), from
  --seed N        this seed (1)
  --json          for programs

Of a drawn day there are four rows more: strictly in order, first fit, and this scheduler, packing and spreading. Queues are
free-1 to free-6, batch-1, mid-1 and production-1 to -6 there. Messages take no time in a replay, and tasks that make way or are
cancelled end at once; of a task that never ran, a run as long as of another of its entry is assumed, or of a minute.
";

/// What was asked for.
#[derive(Default)]
struct Wanted {
    journal: Option<PathBuf>,
    drawn: Option<Terms2019>,
    policies: Vec<PathBuf>,
    json: bool,
}

/// Runs it.
pub fn run(arguments: impl Iterator<Item = String>) -> ExitCode {
    let told = wanted(arguments).and_then(|wanted| match wanted {
        None => Ok(String::from(HELP)),
        Some(wanted) => compare(&wanted),
    });
    match told {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("fleetwire-sim replay: {error}");
            ExitCode::from(2)
        }
    }
}

/// `None`: for help.
fn wanted(mut arguments: impl Iterator<Item = String>) -> Result<Option<Wanted>, String> {
    let (mut wanted, mut is_drawn) = (Wanted::default(), false);
    let mut terms = Terms2019 { seed: 1, agents: 200, load_percent: 90 };
    let mut only_drawn = None;
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        let number = |text: String, least: u64, most: u64| match text.parse::<u64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(format!("{argument} is `{text}`: expected a number from {least} to {most}")),
        };
        match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--json" => wanted.json = true,
            "--drawn" => is_drawn = true,
            "--policy" => wanted.policies.push(value()?.into()),
            "--seed" => terms.seed = number(value()?, 0, u64::MAX)?,
            "--agents" => terms.agents = number(value()?, 1, 100_000)? as u32,
            "--load" => terms.load_percent = number(value()?, 1, 1_000)? as u32,
            path if !path.starts_with('-') && wanted.journal.is_none() => wanted.journal = Some(path.into()),
            _ => return Err(format!("unknown argument `{argument}`; --help says what there is")),
        }
        if matches!(argument.as_str(), "--seed" | "--agents" | "--load") {
            only_drawn = Some(argument);
        }
    }
    wanted.drawn = is_drawn.then_some(terms);
    match (&wanted.journal, &wanted.drawn, only_drawn) {
        (None, None, _) => Err(String::from("expected a JOURNAL, or --drawn; --help says more")),
        (Some(_), Some(_), _) => Err(String::from("expected a JOURNAL or --drawn, not both")),
        (_, None, Some(argument)) => Err(format!("{argument} is about days that are drawn: add --drawn")),
        _ => Ok(Some(wanted)),
    }
}

/// The day's rows.
fn compare(wanted: &Wanted) -> Result<String, String> {
    let policies = wanted.policies.iter().map(|path| match policyfile::load(path) {
        Ok(policy) => Ok((path.display().to_string(), Some(policy))),
        Err(error) => Err(error.to_string()),
    });
    let policies = policies.collect::<Result<Vec<_>, String>>()?;
    let (day, mut rows, own) = match (&wanted.drawn, &wanted.journal) {
        (Some(terms), _) => drawn_day(*terms)?,
        (None, Some(journal)) => recorded_day(journal)?,
        (None, None) => return Err(String::from("nothing to run")),
    };
    for (label, policy) in own.into_iter().chain(policies) {
        let verdict = replay(&day, policy.as_ref()).map_err(|error| format!("{label}: {error}"))?;
        rows.push((label, verdict));
    }
    let tasks: u64 = day.jobs.iter().map(|job| job.spec.task_count()).sum();
    Ok(match wanted.json {
        true => format!(
            "{:#}\n",
            serde_json::json!({
                "jobs": day.jobs.len(),
                "tasks": tasks,
                "agents": day.agents.len(),
                "rows": rows.iter().map(|(label, verdict)| as_json(label, verdict)).collect::<Vec<_>>(),
            })
        ),
        false => {
            format!("{} jobs of {tasks} tasks on {} agents\n\n{}", day.jobs.len(), day.agents.len(), as_table(&rows))
        }
    })
}

type Rows = Vec<(String, Verdict)>;
/// Policies under which a day is run whoever asks.
type Own = Vec<(String, Option<ClusterPolicy>)>;

fn drawn_day(terms: Terms2019) -> Result<(Day, Rows, Own), String> {
    let day = drawn::draw(terms);
    let rows = vec![
        (String::from("strictly in order"), naive::run(&day, Naive::Fifo)),
        (String::from("first fit"), naive::run(&day, Naive::FirstFit)),
    ];
    let policy = drawn::policy().map_err(|error| error.to_string())?;
    let spreading = Rules { placing: Some(Placing { pack: 0, spread: 1 }), ..Rules::default() };
    let spread = policy.clone().with_rules(spreading).map_err(|error| error.to_string())?;
    let own =
        vec![(String::from("fleetwire, packing"), Some(policy)), (String::from("fleetwire, spreading"), Some(spread))];
    Ok((day, rows, own))
}

fn recorded_day(path: &Path) -> Result<(Day, Rows, Own), String> {
    let within = path.join("journal");
    let folder = if within.is_dir() { within } else { path.to_owned() };
    if !folder.is_dir() {
        return Err(format!("there is no folder {}: expected a scheduler's data folder or journal", path.display()));
    }
    let disk = FsDisk::open(&folder).map_err(|error| error.to_string())?;
    let config = JournalConfig { skip_snapshots: usize::MAX, ..JournalConfig::new(Identity::IfNew([0; 16])) };
    let mut recorder = Recorder::default();
    check(&disk, &config, |_, fact| recorder.take(fact))
        .map_err(|error| format!("{}: {error}{}", folder.display(), hint(&error)))?;
    let Recorded { day, verdict, policy, unknown } = recorder.finish().map_err(|error| error.to_string())?;
    if unknown > 0 {
        eprintln!("of {unknown} tasks nobody knows how long they run: a minute is assumed");
    }
    let own = vec![(String::from("again, as it was set"), policy)];
    Ok((day, vec![(String::from("as it was"), verdict)], own))
}

fn hint(error: &fleetwire_journal::OpenError<RecordError>) -> &'static str {
    match error {
        fleetwire_journal::OpenError::Fact { .. } => "",
        _ => ". All facts since the first start must be there: put what `--archive` kept beside them",
    }
}

fn as_json(label: &str, verdict: &Verdict) -> serde_json::Value {
    let seconds = |duration: Duration| (duration.as_secs_f64() * 1e3).round() / 1e3;
    let part = |value: f64| (value * 1e4).round() / 1e4;
    let Verdict { ended, unended, made_way, lost, refused, why, waits, in_use, fairness, lasts, .. } = verdict;
    let by_priority = verdict
        .by_priority
        .iter()
        .map(|(priority, slowdown)| serde_json::json!({ "priority": priority, "slowdown": part(*slowdown) }));
    serde_json::json!({
        "policy": label,
        "ended": ended,
        "unended": unended,
        "made_way": made_way,
        "lost": lost,
        "jobs_refused": refused,
        "first_refusal": why,
        "wait_s": {
            "mean": seconds(waits.mean),
            "p50": seconds(waits.p50),
            "p95": seconds(waits.p95),
            "p99": seconds(waits.p99),
            "max": seconds(waits.max),
        },
        "slowdown": part(verdict.slowdown),
        "by_priority": by_priority.collect::<Vec<_>>(),
        "in_use": part(*in_use),
        "fairness": part(*fairness),
        "lasts_s": seconds(*lasts),
    })
}

fn as_table(rows: &Rows) -> String {
    let width =
        rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or_default().max("slowdown of priority".len());
    let mut text = format!(
        "{:width$}  {:>9} {:>9} {:>9} {:>9}  {:>8} {:>7} {:>8}  {:>9} {:>8} {:>6}\n",
        "policy", "mean wait", "50 %", "95 %", "99 %", "slowdown", "in use", "fairness", "lasts", "made way", "lost"
    );
    for (label, verdict) in rows {
        let Verdict { made_way, lost, waits, slowdown, in_use, fairness, lasts, .. } = verdict;
        let _ = writeln!(
            text,
            "{label:width$}  {:>9} {:>9} {:>9} {:>9}  {slowdown:>8.2} {:>5.1} % {fairness:>8.3}  {:>9} {made_way:>8} {lost:>6}",
            words(waits.mean),
            words(waits.p50),
            words(waits.p95),
            words(waits.p99),
            100.0 * in_use,
            words(*lasts),
        );
    }
    let priorities: Vec<i8> =
        rows.iter().flat_map(|(_, verdict)| &verdict.by_priority).map(|(priority, _)| *priority).collect();
    let priorities: BTreeSet<i8> = priorities.into_iter().collect();
    if (2..=PRIORITIES_SHOWN_MAX).contains(&priorities.len()) {
        let _ = write!(text, "\n{:width$}", "slowdown of priority");
        priorities.iter().rev().for_each(|priority| _ = write!(text, " {priority:>8}"));
        text.push('\n');
        for (label, verdict) in rows {
            let _ = write!(text, "{label:width$}");
            for priority in priorities.iter().rev() {
                let known = verdict.by_priority.iter().find(|(of, _)| of == priority);
                let _ =
                    write!(text, " {:>8}", known.map_or(String::from("-"), |(_, slowdown)| format!("{slowdown:.2}")));
            }
            text.push('\n');
        }
    }
    for (label, verdict) in rows {
        let Verdict { refused, unended, why, .. } = verdict;
        if *refused > 0 {
            let why = why.as_deref().unwrap_or("no reason was given");
            let _ = writeln!(text, "\n{label}: {refused} jobs were refused, the first because {why}");
        }
        if *unended > 0 {
            let _ = writeln!(text, "\n{label}: {unended} tasks did not end within 30 days");
        }
    }
    text
}

/// More priorities than that are for `--json`.
const PRIORITIES_SHOWN_MAX: usize = 8;

/// As short as it can be told.
fn words(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        s if s < 1e-6 => String::from("0"),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7_200.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3_600.0),
    }
}
