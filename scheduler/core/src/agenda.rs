//! Which schedule is due when, and why one that was due still waits.
//!
//! Invariant: a schedule that rests, or whose cron this version cannot read, is not in it. Volatile: made of the facts at start.

use fleetwire_common::{ids::Name, time::Time};
use std::collections::{BTreeMap, BTreeSet};

/// Schedules in the order of their moments.
#[derive(Debug, Default)]
pub struct Agenda {
    due: BTreeSet<(Time, Name)>,
    entries: BTreeMap<Name, Entry>,
    /// For when a deadline is armed.
    pub armed: Option<Time>,
}

#[derive(Debug)]
struct Entry {
    at: Time,
    waits: Option<String>,
}

impl Agenda {
    /// When a schedule is due next; `waits`: its moment has come, and is not yet heeded because of that.
    pub fn set(&mut self, name: &Name, at: Option<Time>, waits: Option<String>) {
        if let Some(before) = self.entries.remove(name) {
            self.due.remove(&(before.at, name.clone()));
        }
        if let Some(at) = at {
            self.due.insert((at, name.clone()));
            self.entries.insert(name.clone(), Entry { at, waits });
        }
    }

    /// When the first is due.
    pub fn first(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the first, if it is due.
    pub fn take_due(&mut self, now: Time) -> Option<Name> {
        self.first().filter(|at| *at <= now)?;
        let (_, name) = self.due.pop_first()?;
        self.entries.remove(&name);
        Some(name)
    }

    /// When a schedule is due.
    pub fn at(&self, name: &Name) -> Option<Time> {
        self.entries.get(name).map(|entry| entry.at)
    }

    /// Why its moment is not yet heeded.
    pub fn waits(&self, name: &Name) -> Option<&str> {
        self.entries.get(name)?.waits.as_deref()
    }
}
