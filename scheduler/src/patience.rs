//! When deadlines are handled: after everything that had arrived before they were due, and not later.
//!
//! Invariant: under any load a deadline waits for a bounded number of inputs: its lateness is bounded by
//! what was queued when it came due, not by what keeps coming.

/// How long deadlines that are due have waited.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    /// Inputs handled since one was found due; `None` = none is.
    passed: Option<usize>,
}

impl Patience {
    /// Says, after a turn, whether deadlines are to be handled now. `is_due`: there is one; `handled`:
    /// inputs handled in this turn; `is_empty`: nothing more waits; `queued_max`: inputs that can have
    /// waited when it came due.
    pub fn is_over(&mut self, is_due: bool, handled: usize, is_empty: bool, queued_max: usize) -> bool {
        if !is_due {
            self.passed = None;
            return false;
        }
        let passed = self.passed.map_or(0, |passed| passed + handled);
        let over = is_empty || passed >= queued_max;
        // Those that come due later have others before them.
        self.passed = (!over).then_some(passed);
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_follow_what_had_arrived_and_are_not_held_up_by_what_comes_later() {
        let mut patience = Patience::default();
        // All was handled: at once.
        assert!(patience.is_over(true, 10, true, 100));
        // More waits: it goes first, but no more than can have waited when the deadline came due.
        assert!(!patience.is_over(true, 60, false, 100));
        assert!(!patience.is_over(true, 60, false, 100));
        assert!(patience.is_over(true, 60, false, 100));
        // The next one has its own predecessors.
        assert!(!patience.is_over(true, 60, false, 100));
        assert!(!patience.is_over(false, 60, false, 100));
        assert!(!patience.is_over(true, 60, false, 100));
        assert!(!patience.is_over(true, 60, false, 100));
        assert!(patience.is_over(true, 0, true, 100));
    }

    #[test]
    fn a_load_that_never_ends_lets_deadlines_through_all_the_same() {
        let mut patience = Patience::default();
        let let_through = (0..1_000).filter(|_| patience.is_over(true, 1_024, false, 3_000)).count();
        assert!(let_through >= 1_000 / 5, "{let_through}");
    }
}
