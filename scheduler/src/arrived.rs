//! What has arrived and was not handled yet, small before bulk: under load a cancel, a status or a heartbeat
//! does not wait for other peers' jobs and logs.
//!
//! Invariants: of a session, `Connected` comes before its frames, and `Disconnected` after all of them; the frames
//! of one stream keep their order (streams among themselves have none, docs/protocol.md#streams); bulk has its
//! turn after [`SMALL_IN_A_ROW_MAX`] inputs at the latest, so it always goes on.

use crate::{driver::Input, limits::SMALL_IN_A_ROW_MAX};
use std::collections::VecDeque;

/// Two queues with one order.
#[derive(Default)]
pub(crate) struct Arrived {
    small: VecDeque<Input>,
    bulk: VecDeque<Input>,
    /// How many of `small` were taken since bulk had its turn.
    in_a_row: usize,
}

impl Arrived {
    pub fn len(&self) -> usize {
        self.small.len() + self.bulk.len()
    }

    pub fn is_empty(&self) -> bool {
        self.small.is_empty() && self.bulk.is_empty()
    }

    /// Takes what came last.
    pub fn push(&mut self, input: Input) {
        if self.is_bulk(&input) { &mut self.bulk } else { &mut self.small }.push_back(input);
    }

    /// The next to be handled.
    pub fn pop(&mut self) -> Option<Input> {
        if (self.in_a_row < SMALL_IN_A_ROW_MAX || self.bulk.is_empty())
            && let Some(input) = self.small.pop_front()
        {
            self.in_a_row += 1;
            return Some(input);
        }
        self.in_a_row = 0;
        self.bulk.pop_front()
    }

    /// Gives back what was taken last, of which a part is left.
    pub fn give_back(&mut self, input: Input) {
        if self.is_bulk(&input) { &mut self.bulk } else { &mut self.small }.push_front(input);
    }

    fn is_bulk(&self, input: &Input) -> bool {
        match input {
            Input::Frames { frames, .. } => frames.front().is_some_and(|frame| frame.stream != CONTROL_STREAM),
            // Not before what the session sent.
            Input::Disconnected { session, .. } => {
                let sent = |input: &Input| matches!(input, Input::Frames { session: from, .. } if from == session);
                self.bulk.iter().any(sent)
            }
            Input::Connected { .. } | Input::Joining { .. } => false,
        }
    }
}

/// See [`fleetwire_link::Frame::stream`].
const CONTROL_STREAM: u32 = 0;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use fleetwire_common::ids::SessionId;
    use fleetwire_link::{Frame, LinkClosed};

    fn frames(session: u64, stream: u32) -> Input {
        let frame = Frame { bytes: Default::default(), stream, arrived_ms: 0, unread_ms: 0 };
        Input::Frames { session: SessionId(session), frames: [frame].into() }
    }

    fn disconnected(session: u64) -> Input {
        let why = LinkClosed::Transport { what: String::new() };
        Input::Disconnected { session: SessionId(session), why }
    }

    fn order(arrived: &mut Arrived) -> Vec<String> {
        let name = |input: Input| match input {
            Input::Frames { session, frames } => format!("{}.{}", session.0, frames[0].stream),
            Input::Disconnected { session, .. } => format!("{} ends", session.0),
            Input::Connected { .. } | Input::Joining { .. } => unreachable!("none is made here"),
        };
        std::iter::from_fn(|| arrived.pop()).map(name).collect()
    }

    #[test]
    fn a_cancel_overtakes_jobs_and_logs_but_nothing_of_its_own_stream() {
        let mut arrived = Arrived::default();
        for input in [frames(1, 1), frames(1, 2), frames(2, 0), frames(1, 0), frames(2, 0), frames(1, 1)] {
            arrived.push(input);
        }
        assert_eq!(arrived.len(), 6);
        assert_eq!(order(&mut arrived), ["2.0", "1.0", "2.0", "1.1", "1.2", "1.1"]);
    }

    #[test]
    fn a_session_ends_after_all_that_it_sent() {
        let mut arrived = Arrived::default();
        for input in [frames(1, 1), disconnected(1), frames(2, 0), disconnected(2)] {
            arrived.push(input);
        }
        assert_eq!(order(&mut arrived), ["2.0", "2 ends", "1.1", "1 ends"]);
    }

    #[test]
    fn what_was_not_handled_whole_is_next_again_and_bulk_has_its_turn() {
        let mut arrived = Arrived::default();
        arrived.push(frames(1, 1));
        for _ in 0..SMALL_IN_A_ROW_MAX + 3 {
            arrived.push(frames(2, 0));
        }
        let first = arrived.pop().unwrap();
        arrived.give_back(first);
        let order = order(&mut arrived);
        assert_eq!(order.len(), SMALL_IN_A_ROW_MAX + 4);
        assert_eq!(order.iter().position(|name| name == "1.1"), Some(SMALL_IN_A_ROW_MAX - 1));
        assert!(arrived.is_empty());
    }
}
