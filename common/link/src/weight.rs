//! About how many bytes a queued message will take, so that a queue can be bounded before anything is
//! sealed.

use fleetwire_common::{fb::SchedulerMessageT, message::Message};

/// The message's approximate size on the wire and in the queue. Never zero.
pub fn weight(message: &Message) -> usize {
    const FIXED: usize = 64;
    let listed = match message {
        Message::Rare(SchedulerMessageT::Page(page)) => {
            let rows = [
                page.jobs.as_ref().map_or(0, Vec::len),
                page.tasks.as_ref().map_or(0, Vec::len),
                page.agents.as_ref().map_or(0, Vec::len),
            ];
            let results = page.tasks.iter().flatten().filter_map(|task| task.end.as_ref()?.result.as_ref());
            rows.into_iter().sum::<usize>() * 256 + results.map(Vec::len).sum::<usize>()
        }
        Message::Rare(SchedulerMessageT::Register(register)) => 64 * register.attempts.as_ref().map_or(0, Vec::len),
        Message::Rare(SchedulerMessageT::Registered(answer)) => 48 * answer.answers.as_ref().map_or(0, Vec::len),
        _ => 0,
    };
    FIXED + listed + message.bytes_at_least()
}
