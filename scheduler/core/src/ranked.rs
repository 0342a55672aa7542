//! A sorted set of keys, each with an amount and marks, in which the first that will do is found without going through
//! those before it: a B-tree, each node of which knows a bound of everything below it.
//!
//! Invariants: a node's bound covers every amount and has every mark below it, and nothing that is not there; the keys
//! below a child lie at or above its `first`, and below the next one's; no node but the root is empty.

use fleetwire_common::resources::Resources;
use std::marker::PhantomData;

/// What is known of a key, or of all keys below a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// An amount.
    pub amount: Resources,
    /// Bits that say what the key will do for; any of them.
    pub bits: u64,
}

/// Which amount stands for several.
pub trait Cover: Clone + std::fmt::Debug {
    /// One that stands for both.
    fn cover(one: Resources, other: Resources) -> Resources;
}

/// Of each resource the most: for keys that offer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Most;

/// Of each resource the least: for keys that ask.
#[derive(Clone, Copy, Debug, Default)]
pub struct Least;

impl Cover for Most {
    fn cover(one: Resources, other: Resources) -> Resources {
        one.or_more(other)
    }
}

impl Cover for Least {
    fn cover(one: Resources, other: Resources) -> Resources {
        one.or_less(other)
    }
}

/// The set.
#[derive(Clone, Debug)]
pub struct Ranked<K, C> {
    root: Node<K, C>,
}

#[derive(Clone, Debug)]
enum Node<K, C> {
    Leaf(Vec<(K, Mark)>),
    Inner(Vec<Child<K, C>>),
}

#[derive(Clone, Debug)]
struct Child<K, C> {
    first: K,
    bound: Mark,
    node: Node<K, C>,
    cover: PhantomData<C>,
}

/// Keys of a leaf, children of an inner node.
const WIDTH_MAX: usize = 32;
/// Neighbours that have no more together become one.
const WIDTH_MERGED: usize = WIDTH_MAX / 2;

impl<K, C> Default for Ranked<K, C> {
    fn default() -> Ranked<K, C> {
        Ranked { root: Node::Leaf(Vec::new()) }
    }
}

impl<K: Ord + Copy, C: Cover> Ranked<K, C> {
    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.root.width() == 0
    }

    /// Adds a key that is not there yet.
    pub fn insert(&mut self, key: K, mark: Mark) {
        if let Some(right) = self.root.insert(key, mark) {
            let left = std::mem::replace(&mut self.root, Node::Inner(Vec::with_capacity(WIDTH_MAX + 1)));
            if let (Node::Inner(children), Some(left)) = (&mut self.root, Child::of(left)) {
                children.extend([left, right]);
            }
        }
    }

    /// Removes a key; `false` if it was not there.
    pub fn remove(&mut self, key: K) -> bool {
        let removed = self.root.remove(key).is_some();
        while let Node::Inner(children) = &mut self.root
            && children.len() <= 1
        {
            self.root = children.pop().map_or(Node::Leaf(Vec::new()), |only| only.node);
        }
        removed
    }

    /// The first key from `from` on (`None` = of all) that `accept`s, of those that `may` do. `may` is asked about bounds
    /// as well, and must be true for one that covers a mark for which it is.
    pub fn first(&self, from: Option<K>, may: impl Fn(Mark) -> bool, mut accept: impl FnMut(K) -> bool) -> Option<K> {
        self.root.first(from, &may, &mut accept)
    }

    /// All keys from `from` on, in order.
    pub fn keys(&self, from: Option<K>) -> impl Iterator<Item = K> + '_ {
        let all = |_| true;
        let next = move |before: &K| self.first(Some(*before), all, |key| key > *before);
        std::iter::successors(self.first(from, all, |_| true), next)
    }
}

impl<K: Ord + Copy, C: Cover> Node<K, C> {
    fn width(&self) -> usize {
        match self {
            Node::Leaf(keys) => keys.len(),
            Node::Inner(children) => children.len(),
        }
    }

    /// The bound of everything below; `None` where there is nothing.
    fn bound(&self) -> Option<Mark> {
        match self {
            Node::Leaf(keys) => keys.iter().map(|(_, mark)| *mark).reduce(cover::<C>),
            Node::Inner(children) => children.iter().map(|child| child.bound).reduce(cover::<C>),
        }
    }

    /// Returns the right half if it became too wide.
    fn insert(&mut self, key: K, mark: Mark) -> Option<Child<K, C>> {
        match self {
            Node::Leaf(keys) => {
                let place = keys.partition_point(|(other, _)| *other < key);
                debug_assert!(keys.get(place).is_none_or(|(other, _)| *other != key), "keys are added once");
                keys.insert(place, (key, mark));
                let right = split(keys)?;
                Child::of(Node::Leaf(right))
            }
            Node::Inner(children) => {
                let place = place_of(children, key);
                let child = children.get_mut(place)?;
                child.first = child.first.min(key);
                child.bound = cover::<C>(child.bound, mark);
                if let Some(right) = child.node.insert(key, mark) {
                    child.tighten();
                    children.insert(place + 1, right);
                }
                let right = split(children)?;
                Child::of(Node::Inner(right))
            }
        }
    }

    fn remove(&mut self, key: K) -> Option<Mark> {
        match self {
            Node::Leaf(keys) => {
                let place = keys.binary_search_by(|(other, _)| other.cmp(&key)).ok()?;
                Some(keys.remove(place).1)
            }
            Node::Inner(children) => {
                let place = place_of(children, key);
                let child = children.get_mut(place)?;
                let removed = child.node.remove(key)?;
                child.tighten();
                merge(children, place);
                merge(children, place.saturating_sub(1));
                Some(removed)
            }
        }
    }

    fn first(&self, from: Option<K>, may: &impl Fn(Mark) -> bool, accept: &mut impl FnMut(K) -> bool) -> Option<K> {
        match self {
            Node::Leaf(keys) => {
                let start = from.map_or(0, |from| keys.partition_point(|(key, _)| *key < from));
                let fits = |(key, mark): &&(K, Mark)| may(*mark) && accept(*key);
                keys.iter().skip(start).find(fits).map(|(key, _)| *key)
            }
            Node::Inner(children) => {
                let start = from.map_or(0, |from| place_of(children, from));
                let promising = children.iter().skip(start).filter(|child| may(child.bound));
                promising.filter_map(|child| child.node.first(from, may, accept)).next()
            }
        }
    }
}

impl<K: Ord + Copy, C: Cover> Child<K, C> {
    /// `None` of an empty node.
    fn of(node: Node<K, C>) -> Option<Child<K, C>> {
        let first = match &node {
            Node::Leaf(keys) => keys.first()?.0,
            Node::Inner(children) => children.first()?.first,
        };
        Some(Child { first, bound: node.bound()?, node, cover: PhantomData })
    }

    /// Something below is gone: the bound is that of what is left.
    fn tighten(&mut self) {
        if let Some(bound) = self.node.bound() {
            self.bound = bound;
        }
    }
}

fn cover<C: Cover>(one: Mark, other: Mark) -> Mark {
    Mark { amount: C::cover(one.amount, other.amount), bits: one.bits | other.bits }
}

/// Below which child a key lies, if it is there.
fn place_of<K: Ord + Copy, C>(children: &[Child<K, C>], key: K) -> usize {
    children.partition_point(|child| child.first <= key).saturating_sub(1)
}

/// The right half of what is too wide.
fn split<T>(items: &mut Vec<T>) -> Option<Vec<T>> {
    if items.len() <= WIDTH_MAX {
        return None;
    }
    let mut right = Vec::with_capacity(WIDTH_MAX + 1);
    right.extend(items.drain(items.len() / 2..));
    Some(right)
}

/// Makes one of two neighbours that are narrow, and none of one that is empty.
fn merge<K: Ord + Copy, C: Cover>(children: &mut Vec<Child<K, C>>, left: usize) {
    if children.get(left).is_some_and(|child| child.node.width() == 0) {
        children.remove(left);
        return;
    }
    let [one, other, ..] = children.get_mut(left..).unwrap_or_default() else { return };
    if one.node.width() + other.node.width() > WIDTH_MERGED {
        return;
    }
    match (&mut one.node, &mut other.node) {
        (Node::Leaf(keys), Node::Leaf(more)) => keys.append(more),
        (Node::Inner(below), Node::Inner(more)) => below.append(more),
        (Node::Leaf(_), Node::Inner(_)) | (Node::Inner(_), Node::Leaf(_)) => {
            unreachable!("all leaves are equally deep")
        }
    }
    one.bound = cover::<C>(one.bound, other.bound);
    children.remove(left + 1);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn check<K: Ord + Copy + std::fmt::Debug, C: Cover>(node: &Node<K, C>, root: bool) -> usize {
        assert!(node.width() <= WIDTH_MAX && (root || node.width() > 0));
        let Node::Inner(children) = node else { return 1 };
        assert!(children.iter().all(|child| Some(child.bound) == child.node.bound()), "bounds are exact");
        assert!(children.is_sorted_by_key(|child| child.first));
        let depths: Vec<_> = children.iter().map(|child| check(&child.node, false)).collect();
        assert!(depths.windows(2).all(|pair| pair.first() == pair.last()));
        depths.first().unwrap() + 1
    }

    fn mark(amount: u32) -> Mark {
        let amount = Resources { cpu: amount % 7, memory: amount / 7 % 7, ..Resources::ZERO };
        Mark { amount, bits: 1 << (amount.cpu + amount.memory) }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn finds_what_going_through_all_of_them_would(
            steps in prop::collection::vec((0..400u32, 0..49u32, prop::bool::weighted(0.7)), 1..2_000),
            asked in 0..49u32,
        ) {
            let (mut most, mut least) = (Ranked::<u32, Most>::default(), Ranked::<u32, Least>::default());
            let mut all = BTreeMap::new();
            for (number, (key, amount, add)) in steps.iter().copied().enumerate() {
                // First it grows, then it is mostly emptied.
                let known = all.remove(&key).is_some();
                prop_assert_eq!((most.remove(key), least.remove(key)), (known, known));
                if add == (number * 2 < steps.len()) {
                    most.insert(key, mark(amount));
                    least.insert(key, mark(amount));
                    all.insert(key, mark(amount));
                }
                if number % 16 == 0 {
                    check(&most.root, true);
                    check(&least.root, true);
                    let (asked, from) = (mark(asked), (key > 50).then_some(key));
                    let offers = |offered: Mark| asked.amount.fits(offered.amount) && offered.bits & asked.bits != 0;
                    let asks = |wanted: Mark| wanted.amount.fits(asked.amount) && wanted.bits & asked.bits != 0;
                    let odd = |key: u32| key % 2 == 1;
                    let search = |may: &dyn Fn(Mark) -> bool| {
                        let mut from = all.range(from.unwrap_or(0)..);
                        from.find(|(key, mark)| may(**mark) && odd(**key)).map(|(key, _)| *key)
                    };
                    prop_assert_eq!(most.first(from, offers, odd), search(&offers));
                    prop_assert_eq!(least.first(from, asks, odd), search(&asks));
                }
            }
            prop_assert_eq!(most.is_empty(), all.is_empty());
            prop_assert!(most.keys(None).eq(all.keys().copied()));
            prop_assert!(least.keys(Some(200)).eq(all.range(200..).map(|(key, _)| *key)));
        }
    }
}
