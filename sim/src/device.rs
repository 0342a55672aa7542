//! A simulated device: the processes on it, their supervisors, and the slots in which those write verdicts.
//! It outlives the agent's process, as real supervisors do; only a reboot ends all that runs.
//!
//! Invariants: an attempt has at most one slot, and is never started twice; whoever holds the slot writes its
//! verdict, and whoever finds one there goes away; a process takes its resources from its spawn until it is
//! gone, whatever anybody believes of it: promise P3 is held against this, never against a ledger.

use crate::{
    behaviour::{Behaviour, Ending},
    clock::DeviceClock,
    random::Random,
};
use fleetwire_common::{
    custom::Custom,
    fb,
    ids::AttemptId,
    job::TaskSpec,
    message::{End, is_final},
    resources::Resources,
    time::Time,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

mod process;

pub use process::Process;

/// What the executor tells the agent of an attempt.
#[derive(Clone, Debug)]
pub enum News {
    /// Its process runs since this cluster time.
    Started(AttemptId, Time),
    /// It said how it fares.
    Report(AttemptId, Option<f32>, String, Vec<(String, f64)>),
    /// Its last process is gone.
    Ended(AttemptId, fb::TaskStatus, End),
}

/// What happens next to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The spawner has forked its supervisor, and it runs.
    Start,
    /// It reports.
    Report,
    /// It ends by itself.
    Finish,
    /// Its time is up: SIGTERM.
    Timeout,
    /// SIGTERM has ended it, or SIGKILL.
    Killed,
    /// Its supervisor looks whether the scheduler was heard lately.
    Unheard,
    /// The agent sees that its supervisor is gone, if the agent runs.
    Orphaned,
}

/// Where an attempt's slot stands.
#[derive(Clone, Debug)]
pub enum Slot {
    /// Its spawn was asked for, or processes of it exist.
    Runs(Process),
    /// They are gone, and the supervisor wrote down how.
    Verdict(fb::TaskStatus, End),
    /// They are gone, and so is the supervisor: nobody wrote anything.
    Nothing,
}

/// An attempt is to end when the scheduler was not heard for too long: what its supervisor is told when it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Unheard {
    /// After so long.
    pub after: Duration,
    /// When the scheduler was heard, on the device's clock, as far as the agent knew then.
    pub heard: Time,
}

/// A device.
#[derive(Debug)]
pub struct Device {
    /// Its name, which every result bears.
    pub name: String,
    /// What it has.
    pub capacity: Resources,
    /// What else, by name.
    pub custom: Custom,
    /// Its boot-time clock.
    pub clock: DeviceClock,
    /// When the scheduler was heard last, as the agents of this boot have told all supervisors.
    told: Time,
    slots: BTreeMap<AttemptId, Slot>,
    /// Every attempt that ever started here, and what it left: the truth that commits are held against.
    truth: BTreeMap<AttemptId, Option<(fb::TaskStatus, End)>>,
    serial: u64,
    spawner_late_until: Time,
    /// What ran here before the scheduler went on with a backup: it may be assigned again, by the same number.
    outlived: BTreeSet<AttemptId>,
    /// When that was last.
    outlived_at: Time,
}

/// An attempt was started that had been started before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("attempt {attempt} was started twice on {device}")]
pub struct StartedTwice {
    /// Which.
    pub attempt: AttemptId,
    /// Where.
    pub device: String,
}

/// Things to be planned: when, of which process (by its serial), what.
pub type Plans = Vec<(Time, AttemptId, u64, Step)>;

impl Device {
    /// A device on which nothing runs.
    pub fn new(name: &str, (capacity, custom): (Resources, Custom), clock: DeviceClock) -> Device {
        Device {
            name: name.to_owned(),
            capacity,
            custom,
            clock,
            told: Time::ZERO,
            slots: BTreeMap::new(),
            truth: BTreeMap::new(),
            serial: 0,
            spawner_late_until: Time::ZERO,
            outlived: BTreeSet::new(),
            outlived_at: Time::ZERO,
        }
    }

    /// What all processes take together.
    pub fn in_use(&self) -> Resources {
        self.slots.values().fold(Resources::ZERO, |sum, slot| match slot {
            Slot::Runs(process) => sum.plus(process.resources),
            Slot::Verdict(..) | Slot::Nothing => sum,
        })
    }

    /// What all processes take together of what is counted by name.
    pub fn custom_in_use(&self) -> BTreeMap<String, u64> {
        let mut sums: BTreeMap<String, u64> = BTreeMap::new();
        for slot in self.slots.values() {
            let Slot::Runs(process) = slot else { continue };
            for (name, amount) in process.custom.iter() {
                *sums.entry(name.to_owned()).or_default() += u64::from(amount);
            }
        }
        sums
    }

    /// How many attempts have processes.
    pub fn running(&self) -> usize {
        self.slots.values().filter(|slot| matches!(slot, Slot::Runs(_))).count()
    }

    /// All slots.
    pub fn slots(&self) -> impl Iterator<Item = (AttemptId, &Slot)> {
        self.slots.iter().map(|(attempt, slot)| (*attempt, slot))
    }

    /// What an attempt left here: `None` if it never ran here, `Some(None)` if it has not ended.
    pub fn truth(&self, attempt: AttemptId) -> Option<Option<&(fb::TaskStatus, End)>> {
        self.truth.get(&attempt).map(Option::as_ref)
    }

    /// How many attempts were ever started here.
    pub fn started(&self) -> usize {
        self.truth.len()
    }

    /// Whether an attempt's spawn was asked for or processes of it exist.
    pub fn runs(&self, attempt: AttemptId) -> bool {
        matches!(self.slots.get(&attempt), Some(Slot::Runs(_)))
    }

    /// Asks the spawner to start an attempt.
    pub fn spawn(
        &mut self,
        attempt: AttemptId,
        (spec, unheard): (&TaskSpec, Option<Unheard>),
        now: Time,
        random: &mut Random,
    ) -> Result<Plans, StartedTwice> {
        let again = self.truth.insert(attempt, None).is_some();
        if again && (!self.outlived.contains(&attempt) || self.runs(attempt)) {
            return Err(StartedTwice { attempt, device: self.name.clone() });
        }
        self.serial += 1;
        let process = Process {
            resources: spec.resources,
            custom: spec.custom.clone(),
            serial: self.serial,
            behaviour: Behaviour::of(spec),
            timeout: Duration::from_secs(spec.timeout_s),
            unheard,
            looks_at: Time::NEVER,
            grace: Duration::from_millis(u64::from(spec.kill_grace_ms)),
            spawned_at: now,
            forked: false,
            orphaned: false,
            started: false,
            stopping: None,
        };
        self.slots.insert(attempt, Slot::Runs(process));
        let longest_us = if now < self.spawner_late_until { 20_000_000 } else { 20_000 };
        let after = Duration::from_micros(random.between(300, longest_us));
        Ok(vec![(now + after, attempt, self.serial, Step::Start)])
    }

    /// Stops an attempt, as far as there is anything to stop.
    pub fn cancel(&mut self, attempt: AttemptId, grace: Duration, now: Time, random: &mut Random) -> Plans {
        match self.slots.get_mut(&attempt) {
            Some(Slot::Runs(process)) if !process.orphaned => {
                process.stop(attempt, fb::EndReason::Cancelled, grace, now, random)
            }
            Some(Slot::Runs(_) | Slot::Verdict(..) | Slot::Nothing) | None => Plans::new(),
        }
    }

    /// The agent tells all supervisors when the scheduler was heard.
    pub fn on_heard(&mut self, heard: Time) {
        self.told = self.told.max(heard);
    }

    /// The clock was changed: supervisors look at it again.
    pub fn look_up(&mut self, now: Time) -> Plans {
        let mut plans = Plans::new();
        for (attempt, slot) in &mut self.slots {
            if let Slot::Runs(process) = slot
                && process.looks_at != Time::NEVER
            {
                process.looks_at = now;
                plans.push((now, *attempt, process.serial, Step::Unheard));
            }
        }
        plans
    }

    /// The scheduler goes on with a backup. What the agent holds may still start.
    pub fn outlive(&mut self, held: impl Iterator<Item = AttemptId>, now: Time) {
        self.outlived_at = now;
        self.outlived.extend(self.truth.keys().copied().chain(held));
    }

    /// Attempts whose processes run under a supervisor, since the scheduler's data was last put back: what is from before
    /// is nobody's until its agent is heard. What a supervisor that was killed leaves behind is not
    /// counted: the task itself dies with it.
    pub fn supervised(&self) -> impl Iterator<Item = AttemptId> + '_ {
        let since = self.outlived_at;
        let counts = move |process: &Process| process.started && !process.orphaned && process.spawned_at >= since;
        let runs = move |slot: &Slot| matches!(slot, Slot::Runs(process) if counts(process));
        self.slots.iter().filter(move |(_, slot)| runs(slot)).map(|(attempt, _)| *attempt)
    }

    /// Until then the spawner takes seconds to fork, so that its agent may be gone before it does.
    pub fn delay_spawns(&mut self, until: Time) {
        self.spawner_late_until = until;
    }

    /// A supervisor is killed, or the spawner before it forked one; processes that it watched may stay until
    /// the agent sees it.
    pub fn kill_supervisor(&mut self, now: Time, random: &mut Random) -> Plans {
        let running: Vec<AttemptId> = self.slots.keys().copied().filter(|attempt| self.runs(*attempt)).collect();
        let Some(attempt) = random.pick(&running).copied() else { return Plans::new() };
        self.serial += 1;
        if let Some(Slot::Runs(process)) = self.slots.get_mut(&attempt) {
            (process.serial, process.orphaned) = (self.serial, true);
        }
        let seen = now + Duration::from_micros(random.between(500, 200_000));
        vec![(seen, attempt, self.serial, Step::Orphaned)]
    }

    /// What a starting agent finds in the slots. Where nobody holds one and no verdict is there, it takes the
    /// slot itself, kills what was left behind and writes that the attempt is lost.
    pub fn survey(&mut self, now: Time) -> Vec<(AttemptId, Option<(fb::TaskStatus, End)>)> {
        let held = |slot: &Slot| matches!(slot, Slot::Runs(process) if process.forked && !process.orphaned);
        let unheld = |slot: &Slot| !held(slot) && !matches!(slot, Slot::Verdict(..));
        let lost: Vec<AttemptId> = self.slots.iter().filter(|(_, slot)| unheld(slot)).map(|(id, _)| *id).collect();
        for attempt in lost {
            self.lose(attempt, now);
        }
        let found = self.slots.iter().map(|(attempt, slot)| match slot {
            Slot::Verdict(status, end) => (*attempt, Some((*status, end.clone()))),
            Slot::Runs(_) | Slot::Nothing => (*attempt, None),
        });
        found.collect()
    }

    /// One step of a process. Steps of processes that are gone do nothing.
    pub fn step(
        &mut self,
        attempt: AttemptId,
        serial: u64,
        step: Step,
        now: Time,
        random: &mut Random,
    ) -> (Option<News>, Plans) {
        let Some(Slot::Runs(process)) = self.slots.get_mut(&attempt) else { return (None, Plans::new()) };
        if process.serial != serial {
            return (None, Plans::new());
        }
        match step {
            Step::Start => self.on_start(attempt, now),
            Step::Report => (Some(process.report(attempt, now, random)), process.next_report(attempt, now)),
            Step::Finish => (self.on_end(attempt, None, now, random), Plans::new()),
            Step::Timeout => {
                let grace = process.grace;
                (None, process.stop(attempt, fb::EndReason::RunTimeout, grace, now, random))
            }
            Step::Unheard => (None, self.on_unheard(attempt, now, random)),
            Step::Killed => {
                let why = process.stopping;
                (self.on_end(attempt, why, now, random), Plans::new())
            }
            Step::Orphaned => (Some(self.lose(attempt, now)), Plans::new()),
        }
    }

    /// The power went: every process is gone, and nobody wrote anything down.
    pub fn reboot(&mut self, clock: DeviceClock) {
        (self.clock, self.told) = (clock, Time::ZERO);
        for slot in self.slots.values_mut() {
            if let Slot::Runs(_) = slot {
                *slot = Slot::Nothing;
            }
        }
    }

    /// Slots of which nothing is left say nothing at all, not even that they were used.
    pub fn forget(&mut self, which: impl Fn(AttemptId) -> bool) {
        self.slots.retain(|attempt, slot| !(matches!(slot, Slot::Nothing) && which(*attempt)));
    }

    /// Another disk: no slot is left. What ran here once ran here all the same.
    pub fn wipe(&mut self) {
        self.slots.clear();
    }

    /// The agent knows how it ended: the slot may be used again.
    pub fn recycle(&mut self, attempt: AttemptId) {
        if !matches!(self.slots.get(&attempt), Some(Slot::Runs(_))) {
            self.slots.remove(&attempt);
        }
    }

    fn on_start(&mut self, attempt: AttemptId, now: Time) -> (Option<News>, Plans) {
        let Some(Slot::Runs(process)) = self.slots.get_mut(&attempt) else { return (None, Plans::new()) };
        process.forked = true;
        let until = process.unheard_until(self.told);
        if until.is_some_and(|until| until <= self.clock.at(now)) {
            // By now the scheduler may have given it to another.
            let reason = fb::EndReason::Disconnected;
            let end = End { reason, ended_at_ms: now.as_ms(), ..End::default() };
            return (self.verdict(attempt, fb::TaskStatus::Lost, end), Plans::new());
        }
        if process.behaviour.ends == Ending::NoSpawn {
            let end = End {
                reason: fb::EndReason::SpawnFailed,
                message: format!("{}: no such program", self.name),
                ended_at_ms: now.as_ms(),
                ..End::default()
            };
            return (self.verdict(attempt, fb::TaskStatus::Failed, end), Plans::new());
        }
        process.started = true;
        let mut plans = process.next_report(attempt, now);
        plans.push((now + process.behaviour.runs_for, attempt, process.serial, Step::Finish));
        if process.timeout > Duration::ZERO {
            plans.push((now + process.timeout, attempt, process.serial, Step::Timeout));
        }
        if let Some(until) = until {
            process.looks_at = self.clock.reaches(until);
            plans.push((process.looks_at, attempt, process.serial, Step::Unheard));
        }
        (Some(News::Started(attempt, now)), plans)
    }

    /// Its supervisor stops an attempt if the scheduler was not heard for too long. Whatever of its grace has passed
    /// since then, while the device slept, it has had.
    fn on_unheard(&mut self, attempt: AttemptId, now: Time, random: &mut Random) -> Plans {
        let (shown, told) = (self.clock.at(now), self.told);
        let Some(Slot::Runs(process)) = self.slots.get_mut(&attempt) else { return Plans::new() };
        let Some(until) = process.unheard_until(told).filter(|_| !process.orphaned && process.looks_at <= now) else {
            return Plans::new();
        };
        if until > shown {
            process.looks_at = self.clock.reaches(until);
            return vec![(process.looks_at, attempt, process.serial, Step::Unheard)];
        }
        process.looks_at = Time::NEVER;
        let grace = process.grace.saturating_sub(shown.since(until));
        process.stop(attempt, fb::EndReason::Disconnected, grace, now, random)
    }

    fn on_end(
        &mut self,
        attempt: AttemptId,
        why: Option<fb::EndReason>,
        now: Time,
        random: &mut Random,
    ) -> Option<News> {
        let Some(Slot::Runs(process)) = self.slots.get(&attempt) else { return None };
        let mut end = End {
            started_at_ms: process.spawned_at.as_ms(),
            ended_at_ms: now.as_ms(),
            wall_us: now.since(process.spawned_at).as_micros() as u64,
            ..End::default()
        };
        let fails = |permille: u32, random: &mut Random| random.chance(permille);
        let (status, reason) = match (why, process.behaviour.ends) {
            (Some(fb::EndReason::RunTimeout), _) => (fb::TaskStatus::TimedOut, fb::EndReason::RunTimeout),
            (Some(fb::EndReason::Disconnected), _) => (fb::TaskStatus::Lost, fb::EndReason::Disconnected),
            (Some(reason), _) => (fb::TaskStatus::Cancelled, reason),
            (None, Ending::Exit(0)) => (fb::TaskStatus::Completed, fb::EndReason::Exited),
            (None, Ending::Exit(code)) => {
                end.exit_code = code;
                (fb::TaskStatus::Failed, fb::EndReason::Exited)
            }
            (None, Ending::Signal(signal)) => {
                end.signal = signal;
                (fb::TaskStatus::Failed, fb::EndReason::Signalled)
            }
            (None, Ending::Flaky(permille)) if fails(permille, random) => {
                end.exit_code = 1;
                (fb::TaskStatus::Failed, fb::EndReason::Exited)
            }
            (None, Ending::Flaky(_)) => (fb::TaskStatus::Completed, fb::EndReason::Exited),
            (None, Ending::NoSpawn) => (fb::TaskStatus::Failed, fb::EndReason::SpawnFailed),
        };
        end.reason = reason;
        if status == fb::TaskStatus::Completed && process.behaviour.result_bytes > 0 {
            // Unique to attempt and device, so that a commit shows whose result it is.
            let text = format!("{} on {} #{}; ", attempt, self.name, process.serial);
            end.result = Some(text.bytes().cycle().take(process.behaviour.result_bytes.max(text.len())).collect());
        }
        self.verdict(attempt, status, end)
    }

    /// The agent holds the slot and writes the verdict, once no process is left.
    fn lose(&mut self, attempt: AttemptId, now: Time) -> News {
        let message = format!("{}: its supervisor is gone", self.name);
        let reason = fb::EndReason::SupervisorLost;
        let end = End { reason, message, ended_at_ms: now.as_ms(), ..End::default() };
        self.slots.insert(attempt, Slot::Verdict(fb::TaskStatus::Lost, end.clone()));
        News::Ended(attempt, fb::TaskStatus::Lost, end)
    }

    fn verdict(&mut self, attempt: AttemptId, status: fb::TaskStatus, end: End) -> Option<News> {
        debug_assert!(is_final(status), "a verdict is final");
        self.slots.insert(attempt, Slot::Verdict(status, end.clone()));
        self.truth.insert(attempt, Some((status, end.clone())));
        Some(News::Ended(attempt, status, end))
    }
}

#[cfg(test)]
mod tests;
