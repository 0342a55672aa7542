//! What has not happened yet, for people: when something could start. Pure: views in, text out.

use crate::table::span;
use fleetwire_client::plans::EarliestView;
use std::time::Duration;

/// When something could start, as the end of a sentence.
pub fn earliest(earliest: &EarliestView) -> String {
    let EarliestView { in_ms, agent, task, attempt, ends, why, looked_at, suitable, .. } = earliest;
    let Some(in_ms) = in_ms else { return format!("could start nobody knows when: {why}") };
    let when = match in_ms {
        0 => String::from("could start at once"),
        _ => format!("could start at the earliest in {}", span(Duration::from_millis(*in_ms))),
    };
    let place = agent.as_ref().map(|agent| format!(", on agent `{agent}`")).unwrap_or_default();
    let ending = match (task, attempt) {
        (Some(task), Some(attempt)) => format!(", if attempt {attempt} of {task} ends by its timeout"),
        _ if *in_ms == 0 => String::from(", if nothing else is served before it"),
        _ => String::new(),
    };
    let others = match ends.saturating_sub(1) {
        0 => String::new(),
        1 => String::from(" and one more there by its own"),
        others => format!(" and {others} more there by theirs"),
    };
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    let bounded = match looked_at < suitable {
        true => format!(" ({looked_at} of the {suitable} agents that may take it were looked at)"),
        false => String::new(),
    };
    format!("{when}{place}{ending}{others}{why}{bounded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_something_could_start_is_one_sentence() {
        let known = EarliestView {
            in_ms: Some(200_000),
            agent: Some("edge-7".into()),
            task: Some("7.0.0".into()),
            attempt: Some(1),
            ends: 3,
            looked_at: 512,
            suitable: 9_000,
            ..EarliestView::default()
        };
        assert_eq!(
            earliest(&known),
            "could start at the earliest in 3 min 20 s, on agent `edge-7`, if attempt 1 of 7.0.0 ends by its timeout and 2 \
             more there by theirs (512 of the 9000 agents that may take it were looked at)"
        );
        let there = EarliestView { task: None, attempt: None, ends: 0, looked_at: 1, suitable: 1, ..known };
        let later = EarliestView { why: "its job does not start before".into(), ..there.clone() };
        assert_eq!(
            earliest(&later),
            "could start at the earliest in 3 min 20 s, on agent `edge-7`: its job does not start before"
        );
        let now = EarliestView { in_ms: Some(0), ..there };
        assert_eq!(earliest(&now), "could start at once, on agent `edge-7`, if nothing else is served before it");
        let unknown = EarliestView { in_ms: None, why: "it waits".into(), ..now };
        assert_eq!(earliest(&unknown), "could start nobody knows when: it waits");
    }
}
