//! The order in which classes are served: strictly by priority; of one priority the queue first that has the least of
//! the cluster for its weight; of one queue by the first waiting task's job.
//!
//! Invariants: a class with pending tasks is in one lane, once, among those that are to be tried on all agents (fresh)
//! or among those that fit no placeable agent but those that were freed since; no lane is empty,
//! unless it is the only one: what comes and goes alone needs no memory of its own.

use crate::{
    ranked::{Least, Mark, Ranked},
    shares::{QueueId, Shares},
};
use fleetwire_common::ids::JobId;
use std::{cmp::Reverse, collections::BTreeMap};

/// A class's number while it is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClassId(pub u32);

/// Where a class stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Higher goes first.
    pub priority: i16,
    /// Whose it is.
    pub queue: QueueId,
    /// The first waiting task's.
    pub job: JobId,
    /// Which class.
    pub class: ClassId,
}

type Key = (JobId, ClassId);

/// The classes of one priority and one queue.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Their priority.
    pub priority: i16,
    /// Their queue.
    pub queue: QueueId,
    tried: Ranked<Key, Least>,
    fresh: Ranked<Key, Least>,
}

/// All lanes.
#[derive(Clone, Debug, Default)]
pub struct Lanes {
    by_priority: BTreeMap<Reverse<i16>, Vec<Lane>>,
}

impl Lane {
    fn turn(&self, (job, class): Key) -> Turn {
        Turn { priority: self.priority, queue: self.queue, job, class }
    }

    /// The first class from `from` on that `accept`s, of those that `may` do.
    pub fn first(
        &self,
        from: Option<Turn>,
        may: impl Fn(Mark) -> bool,
        accept: impl Fn(ClassId) -> bool,
    ) -> Option<Turn> {
        let own = from.filter(|turn| self.is_of(*turn));
        let from = own.map(|turn| (turn.job, turn.class));
        let accept = |(_, class): Key| accept(class);
        let tried = self.tried.first(from, &may, accept);
        let fresh = self.fresh.first(from, &may, accept);
        tried.into_iter().chain(fresh).min().map(|key| self.turn(key))
    }

    /// The first class that is to be tried on all agents, of those that `may` do.
    pub fn first_fresh(&self, may: impl Fn(Mark) -> bool) -> Option<Turn> {
        self.fresh.first(None, may, |_| true).map(|key| self.turn(key))
    }

    /// The classes that were tried, of those that `may` do.
    pub fn tried(&self, may: impl Fn(Mark) -> bool + Copy) -> impl Iterator<Item = Turn> {
        let next = move |before: &Key| self.tried.first(Some(*before), may, |key| key > *before);
        std::iter::successors(self.tried.first(None, may, |_| true), next).map(|key| self.turn(key))
    }

    fn is_empty(&self) -> bool {
        self.tried.is_empty() && self.fresh.is_empty()
    }

    fn is_of(&self, turn: Turn) -> bool {
        (self.priority, self.queue) == (turn.priority, turn.queue)
    }

    fn part(&mut self, fresh: bool) -> &mut Ranked<Key, Least> {
        if fresh { &mut self.fresh } else { &mut self.tried }
    }
}

impl Lanes {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.by_priority.values().flatten().all(Lane::is_empty)
    }

    fn only_lane(&self) -> Option<&Lane> {
        let (_, lanes) = self.by_priority.first_key_value().filter(|_| self.by_priority.len() == 1)?;
        lanes.first().filter(|_| lanes.len() == 1)
    }

    fn has_only_empty(&self) -> bool {
        self.only_lane().is_some_and(Lane::is_empty)
    }

    /// Adds a class.
    pub fn insert(&mut self, turn: Turn, mark: Mark, fresh: bool) {
        if self.has_only_empty() && self.only_lane().is_none_or(|lane| !lane.is_of(turn)) {
            self.by_priority.clear();
        }
        let lanes = self.by_priority.entry(Reverse(turn.priority)).or_default();
        let place = lanes.partition_point(|lane| lane.queue < turn.queue);
        if lanes.get(place).is_none_or(|lane| lane.queue != turn.queue) {
            let (priority, queue) = (turn.priority, turn.queue);
            lanes.insert(place, Lane { priority, queue, tried: Ranked::default(), fresh: Ranked::default() });
        }
        if let Some(lane) = lanes.get_mut(place) {
            lane.part(fresh).insert((turn.job, turn.class), mark);
        }
    }

    /// Removes a class from where it is.
    pub fn remove(&mut self, turn: Turn, fresh: bool) {
        let is_only = self.only_lane().is_some();
        let Some(lanes) = self.by_priority.get_mut(&Reverse(turn.priority)) else { return };
        let Ok(place) = lanes.binary_search_by_key(&turn.queue, |lane| lane.queue) else { return };
        let Some(lane) = lanes.get_mut(place) else { return };
        lane.part(fresh).remove((turn.job, turn.class));
        if lane.is_empty() && !is_only {
            lanes.remove(place);
        }
        if lanes.is_empty() {
            self.by_priority.remove(&Reverse(turn.priority));
        }
    }

    /// The lanes in their order, from the priority of `from` on (`None` = all).
    pub fn walk<'l>(&'l self, from: Option<Turn>, shares: &'l Shares) -> impl Iterator<Item = &'l Lane> {
        let from = from.map_or(i16::MAX, |turn| turn.priority);
        self.by_priority.range(Reverse(from)..).flat_map(|(_, lanes)| in_order(lanes, shares))
    }

    /// Whether of that priority only one queue has anything.
    pub fn is_alone(&self, turn: Turn) -> bool {
        self.by_priority.get(&Reverse(turn.priority)).is_some_and(|lanes| lanes.len() == 1)
    }

    /// All classes, in order.
    pub fn turns<'l>(&'l self, shares: &'l Shares) -> impl Iterator<Item = Turn> + 'l {
        self.walk(None, shares).flat_map(|lane| {
            let (mut tried, mut fresh) = (lane.tried.keys(None).peekable(), lane.fresh.keys(None).peekable());
            std::iter::from_fn(move || match (tried.peek(), fresh.peek()) {
                (Some(one), Some(other)) if other < one => fresh.next(),
                (Some(_), _) => tried.next(),
                (None, _) => fresh.next(),
            })
            .map(|key| lane.turn(key))
        })
    }
}

/// The lanes of one priority, the one that is served next first.
fn in_order<'l>(lanes: &'l [Lane], shares: &'l Shares) -> impl Iterator<Item = &'l Lane> {
    let (only, several) = match lanes {
        [only] => (Some(only), &[][..]),
        _ => (None, shares.order()),
    };
    let of = |queue: &QueueId| lanes.binary_search_by_key(queue, |lane| lane.queue).ok();
    only.into_iter().chain(several.iter().filter_map(move |queue| lanes.get(of(queue)?)))
}
