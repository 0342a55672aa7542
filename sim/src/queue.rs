//! Virtual time: what will happen, ordered by when. Two things due at the same moment happen in the
//! order in which they were planned, so that a run depends on nothing but its seed.

use fleetwire_common::time::Time;
use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

/// What will happen.
#[derive(Debug)]
pub struct Queue<T> {
    heap: BinaryHeap<Reverse<Due<T>>>,
    planned: u64,
}

#[derive(Debug)]
struct Due<T> {
    at: Time,
    order: u64,
    what: T,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { heap: BinaryHeap::new(), planned: 0 }
    }
}

impl<T> Queue<T> {
    /// Plans something.
    pub fn plan(&mut self, at: Time, what: T) {
        self.planned += 1;
        self.heap.push(Reverse(Due { at, order: self.planned, what }));
    }

    /// The next thing, if it is due by `until`.
    pub fn next(&mut self, until: Time) -> Option<(Time, T)> {
        if self.heap.peek()?.0.at > until {
            return None;
        }
        self.heap.pop().map(|Reverse(due)| (due.at, due.what))
    }

    /// When the next thing is due.
    pub fn next_at(&self) -> Option<Time> {
        self.heap.peek().map(|due| due.0.at)
    }
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Due<T>) -> bool {
        self.order == other.order
    }
}

impl<T> Eq for Due<T> {}

impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Due<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Due<T> {
    fn cmp(&self, other: &Due<T>) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_happen_in_order_of_time_then_of_planning() {
        let mut queue = Queue::default();
        for (at, what) in [(5, 'c'), (1, 'a'), (5, 'd'), (3, 'b')] {
            queue.plan(Time(at), what);
        }
        let happened: String = std::iter::from_fn(|| queue.next(Time(5))).map(|(_, what)| what).collect();
        assert_eq!(happened, "abcd");
        queue.plan(Time(9), 'z');
        assert_eq!(queue.next(Time(8)), None);
        assert_eq!(queue.next_at(), Some(Time(9)));
    }
}
