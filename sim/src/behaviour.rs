//! What a simulated task does when it runs: how long, how often it reports, how it ends.

use fleetwire_common::job::TaskSpec;
use std::time::Duration;

/// What a task does when it runs, written as the arguments of its spec (`for=1500 report=200 exit=0`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// How long it runs.
    pub runs_for: Duration,
    /// How often it reports; zero: never.
    pub reports_every: Duration,
    /// How it ends.
    pub ends: Ending,
    /// Whether it ends at SIGTERM, or only at SIGKILL.
    pub stubborn: bool,
    /// Bytes of its result; 0: none.
    pub result_bytes: usize,
    /// How often, of a thousand, it reports NaN.
    pub nan_permille: u32,
}

/// How a task ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With that exit code.
    Exit(i32),
    /// By that signal.
    Signal(u8),
    /// Well, but of a thousand attempts so many fail.
    Flaky(u32),
    /// It cannot even be started.
    NoSpawn,
}

impl Behaviour {
    /// Reads it from a spec's arguments; what is not there is as in `Behaviour::default()`.
    pub fn of(spec: &TaskSpec) -> Behaviour {
        let mut behaviour = Behaviour::default();
        for argument in &spec.arguments {
            let (key, value) = argument.split_once('=').unwrap_or((argument, "0"));
            let number = value.parse::<u64>().unwrap_or_default();
            match key {
                "for" => behaviour.runs_for = Duration::from_millis(number),
                "report" => behaviour.reports_every = Duration::from_millis(number),
                "exit" => behaviour.ends = Ending::Exit(number as i32),
                "signal" => behaviour.ends = Ending::Signal(number as u8),
                "flaky" => behaviour.ends = Ending::Flaky(number as u32),
                "nospawn" => behaviour.ends = Ending::NoSpawn,
                "stubborn" => behaviour.stubborn = true,
                "result" => behaviour.result_bytes = number as usize,
                "nan" => behaviour.nan_permille = number as u32,
                _ => {}
            }
        }
        behaviour
    }

    /// Writes it as arguments.
    pub fn arguments(&self) -> Vec<String> {
        let ending = match self.ends {
            Ending::Exit(code) => format!("exit={code}"),
            Ending::Signal(signal) => format!("signal={signal}"),
            Ending::Flaky(permille) => format!("flaky={permille}"),
            Ending::NoSpawn => "nospawn".to_owned(),
        };
        let mut arguments = vec![
            format!("for={}", self.runs_for.as_millis()),
            format!("report={}", self.reports_every.as_millis()),
            format!("result={}", self.result_bytes),
            format!("nan={}", self.nan_permille),
            ending,
        ];
        if self.stubborn {
            arguments.push("stubborn".to_owned());
        }
        arguments
    }
}

impl Default for Behaviour {
    fn default() -> Behaviour {
        Behaviour {
            runs_for: Duration::from_secs(1),
            reports_every: Duration::ZERO,
            ends: Ending::Exit(0),
            stubborn: false,
            result_bytes: 24,
            nan_permille: 0,
        }
    }
}
