//! Effects that wait until the facts they follow from are durable.
//!
//! Invariant: effects leave in the order in which they came, and none before its position is durable.

use fleetwire_common::ids::Position;
use std::collections::VecDeque;

/// A queue of effects, each with the position of all facts decided before it.
#[derive(Clone, Debug)]
pub struct Outbox<E> {
    waiting: VecDeque<(Position, E)>,
}

impl<E> Default for Outbox<E> {
    fn default() -> Outbox<E> {
        Outbox { waiting: VecDeque::new() }
    }
}

impl<E> Outbox<E> {
    /// Adds an effect that may leave once `position` is durable. A position below the last one's
    /// counts as that one, so that the order is kept.
    pub fn push(&mut self, position: Position, effect: E) {
        let last = self.waiting.back().map_or(position, |(last, _)| *last);
        self.waiting.push_back((position.max(last), effect));
    }

    /// Takes out, in order, the effects whose position is durable. Those that the caller does not
    /// take from the iterator stay.
    pub fn release(&mut self, durable: Position) -> impl Iterator<Item = E> + '_ {
        std::iter::from_fn(move || {
            let (position, _) = self.waiting.front()?;
            if *position > durable {
                return None;
            }
            self.waiting.pop_front().map(|(_, effect)| effect)
        })
    }

    /// How many effects wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether `max` or more wait: whoever adds should stop taking in.
    pub fn is_full(&self, max: usize) -> bool {
        self.waiting.len() >= max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_leave_in_order_and_never_early() {
        let mut outbox = Outbox::default();
        outbox.push(Position(1), 'a');
        outbox.push(Position(3), 'b');
        outbox.push(Position(2), 'c');
        outbox.push(Position(3), 'd');
        assert!(outbox.is_full(4) && !outbox.is_full(5));
        assert_eq!(outbox.release(Position(0)).count(), 0);
        assert_eq!(outbox.release(Position(2)).collect::<String>(), "a");
        assert_eq!(outbox.release(Position(3)).next(), Some('b'));
        assert_eq!(outbox.len(), 2);
        assert_eq!(outbox.release(Position(9)).collect::<String>(), "cd");
        assert!(outbox.is_empty());
    }
}
