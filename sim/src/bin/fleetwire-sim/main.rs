//! `fleetwire-sim`: runs seeds of the simulated cluster. A failing seed is printed with what it broke, and
//! `--seed N --trace` tells its whole story again. `fleetwire-sim replay` is about days: [`replaying`].

use fleetwire_sim::{Coverage, Failed, Outcome, Scale, run, run_covering};
use std::{
    ops::Range,
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

mod replaying;

const USAGE: &str = "usage: fleetwire-sim [--seeds FROM..TO | --seed N] [--standard] [--trace] [--coverage] [--keep-going] [--threads N]\n       \
                     fleetwire-sim replay --help";

/// What Linux counts in `/proc`, whatever its own tick is.
const TICKS_PER_SECOND: f64 = 100.0;

/// What was asked for.
struct Wanted {
    seeds: Range<u64>,
    scale: Scale,
    trace: bool,
    keep_going: bool,
    coverage: bool,
    threads: usize,
}

#[expect(clippy::disallowed_methods, reason = "the sweep measures its own speed; no simulation sees it")]
fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("replay") {
        return replaying::run(std::env::args().skip(2));
    }
    let wanted = match wanted(std::env::args().skip(1)) {
        Ok(wanted) => wanted,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let began = std::time::Instant::now();
    let (sum, failures, coverage) = sweep(&wanted);
    let seconds = began.elapsed().as_secs_f64().max(1e-6);
    let core_hours = cpu_seconds().unwrap_or(seconds * wanted.threads as f64).max(1.0 / TICKS_PER_SECOND) / 3600.0;
    let hours = sum.passed.as_secs_f64() / 3600.0;
    if wanted.coverage {
        coverage.names().for_each(|(name, count)| println!("{count:>9}  {name}"));
    }
    println!(
        "{} seeds, {failures} failed; {} events, {} tasks, {} attempts, {} starts, {} forged frames refused; \
         {hours:.1} cluster hours in {seconds:.1} s: {:.0} events/ms, {:.0} cluster hours per core hour",
        wanted.seeds.end.saturating_sub(wanted.seeds.start),
        sum.events,
        sum.tasks,
        sum.attempts,
        sum.starts,
        sum.refused,
        sum.events as f64 / seconds / 1e3,
        hours / core_hours,
    );
    ExitCode::from(u8::from(failures > 0))
}

/// Runs all seeds; prints those that fail.
fn sweep(wanted: &Wanted) -> (Outcome, u64, Coverage) {
    let (next, stop, failures) = (AtomicU64::new(wanted.seeds.start), AtomicBool::new(false), AtomicU64::new(0));
    let work = || {
        let (mut sum, mut coverage) = (nothing(), Coverage::default());
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= wanted.seeds.end {
                break;
            }
            // A panic in a core is a failure of its seed like any other.
            let ran = std::panic::catch_unwind(|| {
                let mut covered = Coverage::default();
                let outcome = if wanted.trace {
                    run(seed, wanted.scale, true)
                } else {
                    run_covering(seed, wanted.scale, &mut covered)
                };
                outcome.map(|outcome| (outcome, covered))
            });
            match ran {
                Ok(Ok((outcome, covered))) => {
                    add(&mut sum, &outcome);
                    coverage.add(&covered);
                }
                Ok(Err(failed)) => {
                    failures.fetch_add(1, Ordering::Relaxed);
                    tell(&failed, wanted.scale);
                    stop.fetch_or(!wanted.keep_going, Ordering::Relaxed);
                }
                Err(_) => {
                    failures.fetch_add(1, Ordering::Relaxed);
                    println!("seed {seed} panicked: see above");
                    stop.fetch_or(!wanted.keep_going, Ordering::Relaxed);
                }
            }
        }
        (sum, coverage)
    };
    let (mut total, mut coverage) = (nothing(), Coverage::default());
    if wanted.threads == 1 {
        // On this thread: while there is only one, the allocator takes no locks.
        let (total, coverage) = work();
        return (total, failures.into_inner(), coverage);
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..wanted.threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            if let Ok((sum, covered)) = worker.join() {
                add(&mut total, &sum);
                coverage.add(&covered);
            }
        }
    });
    (total, failures.into_inner(), coverage)
}

fn tell(failed: &Failed, scale: Scale) {
    for line in &failed.trace {
        println!("{line}");
    }
    println!("{failed}");
    if failed.trace.is_empty() {
        let scale = if scale == Scale::Standard { " --standard" } else { "" };
        println!("  again: fleetwire-sim --seed {}{scale} --trace", failed.seed);
    }
}

/// The time that all threads of this process have had a core, where the system says so: on a busy machine
/// the time on the wall says little.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // After the name, which ends with the last parenthesis: user and system time are the 12th and 13th.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

fn nothing() -> Outcome {
    Outcome { hash: 0, events: 0, passed: std::time::Duration::ZERO, tasks: 0, attempts: 0, starts: 0, refused: 0 }
}

fn add(sum: &mut Outcome, outcome: &Outcome) {
    sum.hash ^= outcome.hash;
    sum.events += outcome.events;
    sum.passed += outcome.passed;
    sum.tasks += outcome.tasks;
    sum.attempts += outcome.attempts;
    sum.starts += outcome.starts;
    sum.refused += outcome.refused;
}

fn wanted(mut arguments: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut wanted =
        Wanted { seeds: 0..1_000, scale: Scale::Drawn, trace: false, keep_going: false, coverage: false, threads };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        let number = |text: &str| text.parse::<u64>().map_err(|error| format!("`{text}`: {error}"));
        match argument.as_str() {
            "--seeds" => {
                let text = value()?;
                let (from, to) = text.split_once("..").ok_or(format!("`{text}` is no range FROM..TO"))?;
                wanted.seeds = number(from)?..number(to)?;
            }
            "--seed" => {
                let seed = number(&value()?)?;
                wanted.seeds = seed..seed.saturating_add(1);
            }
            "--threads" => wanted.threads = number(&value()?)? as usize,
            "--standard" => wanted.scale = Scale::Standard,
            "--trace" => wanted.trace = true,
            "--coverage" => wanted.coverage = true,
            "--keep-going" => wanted.keep_going = true,
            _ => return Err(format!("unknown argument `{argument}`")),
        }
    }
    Ok(wanted)
}
