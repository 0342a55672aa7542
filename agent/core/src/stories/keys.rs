//! Jobs' keys: kept with the assignment, returned with all that is said of the attempt, and no two jobs by one number.

use super::*;

fn listed(t: &mut Story) -> Vec<u64> {
    let sent = std::mem::take(&mut t.sent);
    let register = sent.into_iter().find_map(|message| match message {
        Message::Rare(fb::SchedulerMessageT::Register(register)) => Some(register),
        _ => None,
    });
    register.unwrap().attempts.unwrap().iter().map(|report| report.job_key).collect()
}

fn result(t: &mut Story) -> JobKey {
    let status = std::mem::take(&mut t.sent).into_iter().find_map(|message| match message {
        Message::Status(status) if status.end.is_some() => Some(status),
        _ => None,
    });
    status.unwrap().job_key
}

// §job-2
#[test]
fn a_key_survives_restarts_and_snapshots_and_comes_back_with_the_list_and_the_result() {
    let mut t = Story::new();
    t.online(&[]);
    t.job_key = JobKey(7);
    t.assign(id(0, 1), process(100));
    t.crash_with_snapshot();
    t.handle(Event::Recovered { attempt: id(0, 1), state: Recovered::Running });
    t.surveyed(false);
    t.online(&[(id(0, 1), fb::AttemptVerdict::Keep)]);
    assert_eq!(listed(&mut t), [7]);
    t.exit(id(0, 1), 0);
    assert_eq!(result(&mut t), JobKey(7));
    t.crash_with_snapshot();
    t.surveyed(false);
    t.online(&[]);
    let sent = t.sent.clone();
    assert_eq!(listed(&mut t), [7]);
    t.sent = sent;
    assert_eq!(result(&mut t), JobKey(7));
}

// §job-3
#[test]
fn an_assignment_of_a_number_that_is_here_for_another_job_is_refused() {
    for ended in [false, true] {
        let mut t = Story::new();
        t.online(&[]);
        t.job_key = JobKey(7);
        t.assign(id(0, 1), process(100));
        if ended {
            t.exit(id(0, 1), 0);
        }
        t.said();
        t.job_key = JobKey(8);
        t.assign(id(0, 1), process(100));
        assert_eq!(t.said(), ["reject 1.0.0#1 ForeignAttempt"]);
        // Who does not know the key cannot tell.
        t.job_key = JobKey(0);
        t.assign(id(0, 1), process(100));
        assert_eq!(t.said(), [if ended { "Completed 1.0.0#1 Exited 0" } else { "accept 1.0.0#1" }]);
    }
}
