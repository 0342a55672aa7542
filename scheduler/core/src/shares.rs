//! What the tasks of each queue hold of the cluster, and which queue is served next: the one whose dominant share is
//! the smallest for its weight (Ghodsi et al., Dominant Resource Fairness, NSDI 2011).
//!
//! Invariants: what a queue holds is what the ledgers hold of its attempts, suspect, ended and waiting ones too, until
//! their agents have said that they are gone; `order` has every queue once, the one that is served next first; with one
//! queue nothing is compared.

use fleetwire_common::{
    ids::Name,
    policy::Quota,
    resources::{Resources, ResourcesSum},
};
use slab::Slab;
use std::collections::BTreeMap;

/// A queue's number while there is one of that name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueueId(pub u16);

/// One queue.
#[derive(Clone, Debug)]
pub struct Share {
    /// Its name.
    pub name: Name,
    /// How much of the cluster it should have, beside the others.
    pub weight: u32,
    /// What its attempts may hold.
    pub quota: Quota,
    /// Whether there is still a queue of that name.
    is_queue: bool,
    /// Its jobs that have not ended.
    pub jobs: u32,
    held: ResourcesSum,
    attempts: u64,
    planned: (ResourcesSum, u64),
    rank: (u64, u64),
}

/// All queues.
#[derive(Clone, Debug)]
pub struct Shares {
    all: Slab<Share>,
    by_name: BTreeMap<Name, QueueId>,
    order: Vec<QueueId>,
    capacity: ResourcesSum,
    has_limits: bool,
}

impl Default for Shares {
    /// One queue: the default one.
    fn default() -> Shares {
        let mut shares = Shares {
            all: Slab::new(),
            by_name: BTreeMap::new(),
            order: Vec::new(),
            capacity: ResourcesSum::default(),
            has_limits: false,
        };
        shares.enter(&Name::default_queue(), 1, Quota::default());
        shares
    }
}

impl Share {
    /// What its attempts hold, those on their way too.
    pub fn held(&self) -> ResourcesSum {
        let (planned, _) = self.planned;
        self.held.plus(planned)
    }

    /// How many attempts that is.
    pub fn attempts(&self) -> u64 {
        let (_, planned) = self.planned;
        self.attempts + planned
    }

    /// What its quota leaves.
    fn left(&self) -> Resources {
        self.left_beside(self.held())
    }

    /// What its quota would leave if its attempts held that.
    pub fn left_beside(&self, held: ResourcesSum) -> Resources {
        let quota = self.quota;
        let left = |limit: Option<u32>, held: u64| {
            limit.map_or(u32::MAX, |limit| u64::from(limit).saturating_sub(held) as u32)
        };
        Resources {
            cpu: left(quota.cpu, held.cpu),
            memory: left(quota.memory, held.memory),
            gpu: left(quota.gpu, held.gpu),
            storage: left(quota.storage, held.storage),
        }
    }

    /// The part of the cluster that it holds of what it holds most of, 0.0 to 1.0.
    fn dominant(&self, capacity: ResourcesSum) -> f64 {
        let part = |held: u64, whole: u64| if whole == 0 { 0.0 } else { held as f64 / whole as f64 };
        let (held, whole) = (self.held(), capacity);
        part(held.cpu, whole.cpu)
            .max(part(held.memory, whole.memory))
            .max(part(held.gpu, whole.gpu))
            .max(part(held.storage, whole.storage))
    }

    /// The smaller, the sooner it is served. Of floats that are not negative the bits have the same order; what asks for
    /// nothing is shared by its number.
    fn rank(&self, capacity: ResourcesSum) -> (u64, u64) {
        let weight = self.weight.max(1);
        ((self.dominant(capacity) / f64::from(weight)).to_bits(), (self.attempts() << 20) / u64::from(weight))
    }
}

impl Shares {
    /// The queue of that name.
    pub fn find(&self, name: &Name) -> Option<QueueId> {
        self.by_name.get(name).copied()
    }

    /// That queue.
    pub fn get(&self, queue: QueueId) -> Option<&Share> {
        self.all.get(usize::from(queue.0))
    }

    /// All queues, the one that is served next first.
    pub fn order(&self) -> &[QueueId] {
        &self.order
    }

    /// Adds a queue, or changes what is known of it.
    pub fn enter(&mut self, name: &Name, weight: u32, quota: Quota) -> QueueId {
        let known = self.find(name);
        let id = known.unwrap_or_else(|| {
            let share = Share {
                name: name.clone(),
                weight,
                quota,
                is_queue: true,
                jobs: 0,
                held: ResourcesSum::default(),
                attempts: 0,
                planned: (ResourcesSum::default(), 0),
                rank: (0, 0),
            };
            let id = QueueId(u16::try_from(self.all.insert(share)).unwrap_or(u16::MAX));
            self.by_name.insert(name.clone(), id);
            self.order.push(id);
            id
        });
        if let Some(share) = self.all.get_mut(usize::from(id.0)) {
            (share.weight, share.quota, share.is_queue) = (weight, quota, true);
        }
        self.has_limits = self.all.iter().any(|(_, share)| !share.quota.is_none());
        self.rank_all();
        id
    }

    /// There is no queue of that name any more; its number is free once its last attempt is gone.
    pub fn leave(&mut self, queue: QueueId) {
        if let Some(share) = self.all.get_mut(usize::from(queue.0)) {
            share.is_queue = false;
        }
        self.drop_if_gone(queue);
    }

    /// The names of those that there are.
    pub fn names(&self) -> impl Iterator<Item = (&Name, QueueId)> {
        let is_queue = |queue: &QueueId| self.get(*queue).is_some_and(|share| share.is_queue);
        self.by_name.iter().map(|(name, queue)| (name, *queue)).filter(move |(_, queue)| is_queue(queue))
    }

    /// That queue, to be changed in what counts for nothing here.
    pub fn get_mut(&mut self, queue: QueueId) -> Option<&mut Share> {
        self.all.get_mut(usize::from(queue.0))
    }

    /// What all agents have together.
    pub fn capacity(&self) -> ResourcesSum {
        self.capacity
    }

    /// An agent's capacity is another.
    pub fn change_capacity(&mut self, before: Resources, after: Resources) {
        if before != after {
            self.capacity.subtract(before);
            self.capacity.add(after);
            self.rank_all();
        }
    }

    /// An attempt of that queue is in a ledger.
    pub fn hold(&mut self, queue: QueueId, amount: Resources) {
        if let Some(share) = self.all.get_mut(usize::from(queue.0)) {
            share.held.add(amount);
            share.attempts += 1;
        }
        self.rerank(queue);
    }

    /// It is gone.
    pub fn release(&mut self, queue: QueueId, amount: Resources) {
        if let Some(share) = self.all.get_mut(usize::from(queue.0)) {
            share.held.subtract(amount);
            share.attempts -= 1;
        }
        self.rerank(queue);
        self.drop_if_gone(queue);
    }

    /// A task of that queue was given an agent, but that is not a fact yet.
    pub fn plan(&mut self, queue: QueueId, amount: Resources) {
        if let Some(Share { planned: (planned, attempts), .. }) = self.all.get_mut(usize::from(queue.0)) {
            planned.add(amount);
            *attempts += 1;
        }
        self.rerank(queue);
    }

    /// What was planned is held from now on, or comes to nothing.
    pub fn forget_planned(&mut self) {
        for (_, share) in &mut self.all {
            share.planned = (ResourcesSum::default(), 0);
        }
        self.rank_all();
    }

    /// What a queue's quota leaves of each resource.
    pub fn left(&self, queue: QueueId) -> Resources {
        const ANY: Resources = Resources { cpu: u32::MAX, memory: u32::MAX, gpu: u32::MAX, storage: u32::MAX };
        self.get(queue).map_or(ANY, Share::left)
    }

    /// Whether any queue has a quota.
    pub fn has_limits(&self) -> bool {
        self.has_limits
    }

    /// Whether a queue has one.
    pub fn is_limited(&self, queue: QueueId) -> bool {
        self.get(queue).is_some_and(|share| !share.quota.is_none())
    }

    /// The part of the cluster that a queue holds of what it holds most of, 0.0 to 1.0.
    pub fn dominant(&self, queue: QueueId) -> f64 {
        self.get(queue).map_or(0.0, |share| share.dominant(self.capacity))
    }

    fn drop_if_gone(&mut self, queue: QueueId) {
        let place = usize::from(queue.0);
        if self.all.get(place).is_some_and(|share| !share.is_queue && share.attempts == 0) {
            let gone = self.all.remove(place);
            self.by_name.remove(&gone.name);
            self.order.retain(|other| *other != queue);
            self.has_limits = self.all.iter().any(|(_, share)| !share.quota.is_none());
        }
    }

    /// Puts a queue to its place, which is often the one that it has.
    fn rerank(&mut self, queue: QueueId) {
        if self.order.len() <= 1 {
            return;
        }
        let capacity = self.capacity;
        let Some(share) = self.all.get_mut(usize::from(queue.0)) else { return };
        share.rank = share.rank(capacity);
        let Some(place) = self.order.iter().position(|other| *other == queue) else { return };
        self.order.remove(place);
        let key = self.key(queue);
        let place = self.order.partition_point(|other| self.key(*other) < key);
        self.order.insert(place, queue);
    }

    fn rank_all(&mut self) {
        if self.order.len() <= 1 {
            return;
        }
        let capacity = self.capacity;
        self.all.iter_mut().for_each(|(_, share)| share.rank = share.rank(capacity));
        let mut order = std::mem::take(&mut self.order);
        order.sort_unstable_by_key(|queue| self.key(*queue));
        self.order = order;
    }

    fn key(&self, queue: QueueId) -> ((u64, u64), QueueId) {
        (self.get(queue).map_or((0, 0), |share| share.rank), queue)
    }
}
