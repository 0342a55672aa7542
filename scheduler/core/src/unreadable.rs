//! The story of a message that could not be sent, because what it lacks is damaged on the disk or gone.
//!
//! Invariants: whoever asked for a result is told why there is none; an attempt whose files are lost fails, and with it
//! its task, however often that might be tried: no other attempt could have them. Whatever else there is goes on.

use crate::{
    core::{About, Core},
    event::{Effects, Origin, Rejected},
    live::Phase,
    tasks::Ending,
};
use fleetwire_common::{
    fb,
    ids::{AttemptId, SessionId},
    message::{Message, cut},
};

impl Core {
    /// A message of ours was not sent.
    pub fn on_unreadable(&mut self, session: SessionId, message: &Message, why: String, effects: &mut Effects) {
        match message {
            Message::Assignment(assignment) => {
                let why = format!("a file of the job cannot be read: {why}");
                self.fail_unsent(assignment.attempt, fb::EndReason::FilesLost, &why, effects);
            }
            Message::Rare(fb::SchedulerMessageT::Page(page)) => {
                let about = About { request: page.request, attempt: None };
                self.refuse(session, Origin::default(), about, &Rejected::Damaged { why }, effects);
            }
            // Nothing else lacks anything.
            _ => {}
        }
    }

    /// An attempt that could not be sent fails.
    pub fn fail_unsent(&mut self, attempt: AttemptId, reason: fb::EndReason, why: &str, effects: &mut Effects) {
        let open = self.state.tasks.get(&attempt.task).and_then(|record| record.open.find(attempt.attempt));
        let Some(agent) = open.map(|assigned| assigned.agent) else { return };
        // Whoever has it already, from an earlier time, does not need it.
        if self.live.held(agent, attempt).is_some_and(|held| held.phase != Phase::Assigned) {
            return;
        }
        let mut ending = Ending::decided(fb::TaskStatus::Failed, reason, self.now);
        ending.end.message = cut(why).to_owned();
        self.end_attempt(attempt, ending, effects);
        // Should the agent have it nevertheless, it is told to stop, and says what it holds when it registers next.
        self.send_cancellation(agent, attempt, reason, effects);
        self.live.release(agent, attempt);
    }
}
